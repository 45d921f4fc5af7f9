/* naive_dit.h - the causal Wan DiT in f64, and the reference's own KV cache, which rolls by
 * copying.
 *
 * All text_len rows take part in cross-attention, padding too. Keys are kept unrotated, so that
 * both kinds of positions can be computed as the reference does: absolute, by the frame's number;
 * relative, by the slot.
 */
#ifndef TESTS_PROCS_DIT_NAIVE_DIT_H
#define TESTS_PROCS_DIT_NAIVE_DIT_H

#include "tests/procs/dit/naive_cache.h"
#include "tests/procs/naive.h"

enum { NAIVE_LAYERS_MAX = 4 };

struct naive_dit_layer {
    double *mod, *wq, *bq, *wk, *bk, *wv, *bv, *nq, *nk, *wo, *bo, *n3w, *n3b;
    double *xwq, *xbq, *xwk, *xbk, *xwv, *xbv, *xwo, *xbo, *xnq, *xnk, *f0w, *f0b, *f2w, *f2b;
    double *text_k, *text_v; /* [text_len, C] */
    double *k, *v;           /* [window * tokens, C] by slot; keys without rotation */
};

struct naive_dit {
    const struct naive_box *b;
    const struct conf *c;
    int64_t C, N, D, F, Q, Y, X,
        Z; /* width, heads, head dim, ffn, tokens a frame, grid, channels */
    struct naive_cache cache;
    double *patch_w, *patch_b, *t0w, *t0b, *t2w, *t2b, *e0w, *e0b, *e2w, *e2b, *ew, *eb;
    double *head_mod, *head_w, *head_b;
    double *e, *e0;                              /* of the timestep in hand: [C], [6 C] */
    double *x, *h, *q, *k, *v, *o, *f, *rk, *kv; /* activations */
    struct naive_dit_layer layer[NAIVE_LAYERS_MAX];
};

static inline void naive_dit_load_layer(struct naive_dit *n, int32_t i)
{
    struct naive_dit_layer *l = &n->layer[i];
    const int64_t C = n->C, F = n->F;
    const struct {
        double **at;
        int64_t count;
        const char *key;
    } part[] = {
        {&l->mod, 6 * C, "modulation"},
        {&l->wq, C * C, "self_attn.q.weight"},
        {&l->bq, C, "self_attn.q.bias"},
        {&l->wk, C * C, "self_attn.k.weight"},
        {&l->bk, C, "self_attn.k.bias"},
        {&l->wv, C * C, "self_attn.v.weight"},
        {&l->bv, C, "self_attn.v.bias"},
        {&l->nq, C, "self_attn.norm_q.weight"},
        {&l->nk, C, "self_attn.norm_k.weight"},
        {&l->wo, C * C, "self_attn.o.weight"},
        {&l->bo, C, "self_attn.o.bias"},
        {&l->n3w, C, "norm3.weight"},
        {&l->n3b, C, "norm3.bias"},
        {&l->xwq, C * C, "cross_attn.q.weight"},
        {&l->xbq, C, "cross_attn.q.bias"},
        {&l->xwk, C * C, "cross_attn.k.weight"},
        {&l->xbk, C, "cross_attn.k.bias"},
        {&l->xwv, C * C, "cross_attn.v.weight"},
        {&l->xbv, C, "cross_attn.v.bias"},
        {&l->xwo, C * C, "cross_attn.o.weight"},
        {&l->xbo, C, "cross_attn.o.bias"},
        {&l->xnq, C, "cross_attn.norm_q.weight"},
        {&l->xnk, C, "cross_attn.norm_k.weight"},
        {&l->f0w, F * C, "ffn.0.weight"},
        {&l->f0b, F, "ffn.0.bias"},
        {&l->f2w, C * F, "ffn.2.weight"},
        {&l->f2b, C, "ffn.2.bias"},
    };
    for (size_t k = 0; k < COUNT(part); k++)
        *part[k].at = naive_weight(n->b, part[k].count, "blocks.%d.%s", i, part[k].key);
    l->text_k = check_doubles(n->c->text.text_len * C);
    l->text_v = check_doubles(n->c->text.text_len * C);
    l->k = check_doubles(n->c->dit.window * n->Q * C);
    l->v = check_doubles(n->c->dit.window * n->Q * C);
}

static inline struct naive_dit *naive_dit_load(const struct naive_box *b)
{
    const struct conf *c = &b->c;
    struct naive_dit *n = check_alloc(sizeof *n);
    n->b = b;
    n->c = c;
    n->C = c->dit.dim;
    n->N = c->dit.heads;
    n->D = n->C / n->N;
    n->F = c->dit.ffn_dim;
    n->Y = c->model.latent_rows / 2;
    n->X = c->model.latent_cols / 2;
    n->Q = n->Y * n->X;
    n->Z = c->model.latent_channels;
    const int64_t C = n->C, E = c->text.dim, f = c->dit.freq_dim, S = c->dit.window * n->Q;
    const struct {
        double **at;
        int64_t count;
        const char *key;
    } part[] = {
        {&n->patch_w, C * n->Z * 4, "patch_embedding.weight"},
        {&n->patch_b, C, "patch_embedding.bias"},
        {&n->t0w, C * E, "text_embedding.0.weight"},
        {&n->t0b, C, "text_embedding.0.bias"},
        {&n->t2w, C * C, "text_embedding.2.weight"},
        {&n->t2b, C, "text_embedding.2.bias"},
        {&n->e0w, C * f, "time_embedding.0.weight"},
        {&n->e0b, C, "time_embedding.0.bias"},
        {&n->e2w, C * C, "time_embedding.2.weight"},
        {&n->e2b, C, "time_embedding.2.bias"},
        {&n->ew, 6 * C * C, "time_projection.1.weight"},
        {&n->eb, 6 * C, "time_projection.1.bias"},
        {&n->head_mod, 2 * C, "head.modulation"},
        {&n->head_w, n->Z * 4 * C, "head.head.weight"},
        {&n->head_b, n->Z * 4, "head.head.bias"},
    };
    for (size_t k = 0; k < COUNT(part); k++)
        *part[k].at = naive_weight(b, part[k].count, "%s", part[k].key);
    double **const rows[] = {&n->x, &n->h, &n->q, &n->k, &n->v, &n->o, &n->rk, &n->kv};
    for (size_t k = 0; k < COUNT(rows); k++) *rows[k] = check_doubles(S * C);
    n->f = check_doubles(S * (n->F > 4 * n->Z ? n->F : 4 * n->Z));
    n->e = check_doubles(C);
    n->e0 = check_doubles(6 * C);
    assert_true(c->dit.layers <= NAIVE_LAYERS_MAX);
    for (int32_t i = 0; i < c->dit.layers; i++) naive_dit_load_layer(n, i);
    naive_cache_reset(&n->cache, c->dit.window, c->dit.sink);
    return n;
}

/* The rows of the embedding, zeros after n_tokens, all through the MLP and every layer's k, v. */
static inline void naive_dit_prompt(struct naive_dit *n, const float *embed, int32_t n_tokens)
{
    const int64_t T = n->c->text.text_len, E = n->c->text.dim, C = n->C;
    double *in = calloc((size_t)(T * (E + 2 * C)), sizeof *in);
    assert_non_null(in);
    double *mid = in + T * E, *c = mid + T * C;
    for (int64_t i = 0; i < n_tokens * E; i++) in[i] = (double)embed[i];
    naive_linear(mid, in, n->t0w, n->t0b, T, E, C);
    for (int64_t i = 0; i < T * C; i++) mid[i] = naive_gelu(mid[i]);
    naive_linear(c, mid, n->t2w, n->t2b, T, C, C);
    for (int32_t i = 0; i < n->c->dit.layers; i++) {
        struct naive_dit_layer *l = &n->layer[i];
        naive_linear(l->text_k, c, l->xwk, l->xbk, T, C, C);
        naive_rms(l->text_k, l->text_k, l->xnk, T, C);
        naive_linear(l->text_v, c, l->xwv, l->xbv, T, C, C);
    }
    free(in);
}

static inline void naive_dit_time(struct naive_dit *n, double t)
{
    const int64_t half = n->c->dit.freq_dim / 2, C = n->C;
    double *s = calloc((size_t)(2 * half + C), sizeof *s), *h = s + 2 * half;
    assert_non_null(s);
    for (int64_t k = 0; k < half; k++) {
        s[k] = cos(t * pow(10000, -(double)k / (double)half));
        s[half + k] = sin(t * pow(10000, -(double)k / (double)half));
    }
    naive_linear(h, s, n->e0w, n->e0b, 1, 2 * half, C);
    for (int64_t i = 0; i < C; i++) h[i] = naive_silu(h[i]);
    naive_linear(n->e, h, n->e2w, n->e2b, 1, C, C);
    for (int64_t i = 0; i < C; i++) h[i] = naive_silu(n->e[i]);
    naive_linear(n->e0, h, n->ew, n->eb, 1, C, 6 * C);
    free(s);
}

/* Turns the pairs of one frame's tokens: pairs split t, y, x; the exponent's denominator is an
 * axis's width, twice its pairs. */
static inline void naive_rope(const struct naive_dit *n, double *rows, double time)
{
    const int64_t space = n->D / 6, pairs[3] = {n->D / 2 - 2 * space, space, space};
    for (int64_t tok = 0; tok < n->Q; tok++)
        for (int64_t head = 0; head < n->N; head++) {
            const double position[3] = {time, (double)(tok / n->X), (double)(tok % n->X)};
            double *p = rows + tok * n->C + head * n->D;
            for (int axis = 0; axis < 3; axis++)
                for (int64_t j = 0; j < pairs[axis]; j++, p += 2) {
                    const double w = pow(10000, -2.0 * (double)j / (2.0 * (double)pairs[axis]));
                    const double a = p[0], b = p[1], angle = position[axis] * w;
                    p[0] = a * cos(angle) - b * sin(angle);
                    p[1] = a * sin(angle) + b * cos(angle);
                }
        }
}

/* Where a frame stands in time: its number, or its slot. */
static inline double naive_time(const struct naive_dit *n, int64_t slot, int64_t frame)
{
    return (double)(n->c->dit.rope == ROPE_RELATIVE ? slot : frame);
}

static inline void naive_modulate(struct naive_dit *n, const double *mod, int which, int64_t S)
{
    double *scale = calloc((size_t)(2 * n->C), sizeof *scale), *shift = scale + n->C;
    assert_non_null(scale);
    for (int64_t i = 0; i < n->C; i++) {
        shift[i] = mod[which * n->C + i] + n->e0[which * n->C + i];
        scale[i] = mod[(which + 1) * n->C + i] + n->e0[(which + 1) * n->C + i];
    }
    naive_layer_norm(n->h, n->x, scale, 1, shift, S, n->C);
    free(scale);
}

/* x += gate * y, the gate being row `which` of the modulation. */
static inline void naive_gated_add(struct naive_dit *n, const double *mod, int which,
                                   const double *y, int64_t S)
{
    for (int64_t i = 0; i < S * n->C; i++) {
        const int64_t at = which * n->C + i % n->C;
        n->x[i] += (mod[at] + n->e0[at]) * y[i];
    }
}

/* n->q, k, v hold this pass's rows, q and k normed; leaves the attention in n->o. */
static inline void naive_self_attend(struct naive_dit *n, struct naive_dit_layer *l, int64_t first,
                                     int32_t F)
{
    const int64_t frame = n->Q * n->C, D = n->D;
    const struct naive_cache *c = &n->cache;
    const size_t frame_bytes = (size_t)frame * sizeof(double);
    for (int32_t i = 0; i < c->window; i++) { /* the roll of this pass, then its writes */
        const int32_t from = c->moved_from[i];
        if (from <= i) continue;
        memcpy(l->k + i * frame, l->k + from * frame, frame_bytes);
        memcpy(l->v + i * frame, l->v + from * frame, frame_bytes);
    }
    for (int32_t i = c->write_from; i < c->write_to; i++) {
        const int64_t row = (c->frame[i] - first) * frame;
        memcpy(l->k + i * frame, n->k + row, frame_bytes);
        memcpy(l->v + i * frame, n->v + row, frame_bytes);
    }
    for (int32_t i = 0; i < c->n_keys; i++) {
        const int32_t slot = c->key_slot[i];
        memcpy(n->rk + i * frame, l->k + slot * frame, frame_bytes);
        memcpy(n->kv + i * frame, l->v + slot * frame, frame_bytes);
        naive_rope(n, n->rk + i * frame, naive_time(n, slot, c->frame[slot]));
    }
    for (int32_t i = 0; i < F; i++)
        naive_rope(n, n->q + i * frame, naive_time(n, c->write_to - F + i, first + i));
    naive_attention(n->o, n->q, n->rk, n->kv, F * n->Q, c->n_keys * n->Q, n->N, D,
                    1 / sqrt((double)D));
}

static inline void naive_dit_layer(struct naive_dit *n, int32_t i, int64_t first, int32_t F)
{
    struct naive_dit_layer *l = &n->layer[i];
    const int64_t S = F * n->Q, C = n->C, T = n->c->text.text_len;
    naive_modulate(n, l->mod, 0, S);
    naive_linear(n->q, n->h, l->wq, l->bq, S, C, C);
    naive_linear(n->k, n->h, l->wk, l->bk, S, C, C);
    naive_linear(n->v, n->h, l->wv, l->bv, S, C, C);
    naive_rms(n->q, n->q, l->nq, S, C);
    naive_rms(n->k, n->k, l->nk, S, C);
    naive_self_attend(n, l, first, F);
    naive_linear(n->h, n->o, l->wo, l->bo, S, C, C);
    naive_gated_add(n, l->mod, 2, n->h, S);

    naive_layer_norm(n->h, n->x, l->n3w, 0, l->n3b, S, C);
    naive_linear(n->q, n->h, l->xwq, l->xbq, S, C, C);
    naive_rms(n->q, n->q, l->xnq, S, C);
    naive_attention(n->o, n->q, l->text_k, l->text_v, S, T, n->N, n->D, 1 / sqrt((double)n->D));
    naive_linear(n->h, n->o, l->xwo, l->xbo, S, C, C);
    for (int64_t j = 0; j < S * C; j++) n->x[j] += n->h[j];

    naive_modulate(n, l->mod, 3, S);
    naive_linear(n->f, n->h, l->f0w, l->f0b, S, C, n->F);
    for (int64_t j = 0; j < S * n->F; j++) n->f[j] = naive_gelu(n->f[j]);
    naive_linear(n->h, n->f, l->f2w, l->f2b, S, n->F, C);
    naive_gated_add(n, l->mod, 5, n->h, S);
}

/* Value of picture [F, Z, 2Y, 2X] at frame, channel, token and corner (q, r). */
static inline int64_t naive_pixel(const struct naive_dit *n, int64_t f, int64_t c, int64_t tok,
                                  int64_t q, int64_t r)
{
    const int64_t y = 2 * (tok / n->X) + q, x = 2 * (tok % n->X) + r;
    return ((f * n->Z + c) * 2 * n->Y + y) * 2 * n->X + x;
}

static inline void naive_dit_patch(struct naive_dit *n, const double *x, int32_t F)
{
    const int64_t K = n->Z * 4;
    for (int64_t s = 0; s < F * n->Q; s++)
        for (int64_t k = 0; k < K; k++)
            n->f[s * K + k] = x[naive_pixel(n, s / n->Q, k / 4, s % n->Q, k / 2 % 2, k % 2)];
    naive_linear(n->x, n->f, n->patch_w, n->patch_b, F * n->Q, K, n->C);
}

static inline void naive_dit_head(struct naive_dit *n, double *flow, int32_t F)
{
    const int64_t K = n->Z * 4, C = n->C, S = F * n->Q;
    double *mod = calloc((size_t)(2 * C), sizeof *mod); /* shift, scale: with e, not e0 */
    assert_non_null(mod);
    for (int64_t i = 0; i < 2 * C; i++) mod[i] = n->head_mod[i] + n->e[i % C];
    naive_layer_norm(n->h, n->x, mod + C, 1, mod, S, C);
    naive_linear(n->f, n->h, n->head_w, n->head_b, S, C, K);
    for (int64_t s = 0; s < S; s++)
        for (int64_t k = 0; k < K; k++) /* columns (q, r, c) */
            flow[naive_pixel(n, s / n->Q, k % n->Z, s % n->Q, k / n->Z / 2, k / n->Z % 2)] =
                n->f[s * K + k];
    free(mod);
}

/* x, flow [F, Z, 2Y, 2X]; takes_sink: a recache that writes the sink's slots as well. */
static inline void naive_dit_pass(struct naive_dit *n, double *flow, const double *x, double t,
                                  int64_t first, int32_t F, bool takes_sink)
{
    naive_cache_pass(&n->cache, first, F, takes_sink);
    naive_dit_time(n, t);
    naive_dit_patch(n, x, F);
    for (int32_t i = 0; i < n->c->dit.layers; i++) naive_dit_layer(n, i, first, F);
    naive_dit_head(n, flow, F);
}

#endif
