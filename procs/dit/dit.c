/* dit.c - see dit.h. */
#include "procs/dit/dit.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "procs/dit/dit_impl.h"

static const float EPS = 1e-6f;

/* --- memory ----------------------------------------------------------------------------------- */

/* Deals the model's private memory; with base NULL it only counts. */
static size_t deal(struct dit *m, char *base)
{
    size_t at = 0;
    const int32_t S = m->window_max * m->frame_tokens, C = m->C, T = SCHED_CLEAN + 1;
    const int32_t K = m->text_len + 1, G = m->rows / 2 > m->cols / 2 ? m->rows / 2 : m->cols / 2;
#define DEAL(tensor, type, ...)                                                                    \
    (tensor = TENSOR(base ? base + at : NULL, type, __VA_ARGS__),                                  \
     at += (tensor_bytes(tensor) + 255) / 256 * 256)
    DEAL(m->mod, DTYPE_F32, T, m->layers * MODS + 2, C);
    DEAL(m->mod_now, DTYPE_F32, m->layers * MODS + 2, C);
    DEAL(m->time_s, DTYPE_F32, 1, m->freq_dim);
    DEAL(m->time_e, DTYPE_F32, 1, C);
    DEAL(m->time_h, DTYPE_F32, 1, C);
    DEAL(m->time_e0, DTYPE_F32, 1, MODS * C);
    DEAL(m->x_in, DTYPE_F32, m->window_max, m->z, m->rows, m->cols);
    DEAL(m->flow, DTYPE_F32, m->window_max, m->z, m->rows, m->cols);
    DEAL(m->x, DTYPE_F32, S, C);
    DEAL(m->h, m->act, S, C);
    DEAL(m->qkv, m->act, S, 3 * C);
    DEAL(m->q, m->act, S, C);
    DEAL(m->o, m->act, S, C);
    DEAL(m->f, m->act, S, m->ffn);
    DEAL(m->patch, m->act, S, m->z * 4);
    DEAL(m->out, DTYPE_F32, S, m->z * 4);
    DEAL(m->text_in, m->act, K, m->text_dim);
    DEAL(m->text_mid, m->act, K, C);
    DEAL(m->text_c, m->act, K, C);
    DEAL(m->slots, DTYPE_I32, m->window_max);
    DEAL(m->n_keys, DTYPE_I32, 1);
    DEAL(m->pad_bias, DTYPE_F32, 1);
    DEAL(m->rot_t, DTYPE_F32, m->window_max, m->pairs_t, 2);
    DEAL(m->rot_sink, DTYPE_F32, m->window_max, m->pairs_t, 2);
    DEAL(m->rot_yx, DTYPE_F32, G, m->pairs_s, 2);
    for (int32_t i = 0; i < m->layers; i++) {
        DEAL(m->layer[i].cross_k, m->act, K, C);
        DEAL(m->layer[i].cross_v, m->act, K, C);
    }
#undef DEAL
    return at;
}

static err_t run_pass(void *self);

enum dtype dit_act(const struct conf *c, const struct dev *d)
{
    return weights_half(c, d, DTYPE_BF16);
}

err_t dit_open(struct dit **out, struct dev *d, const struct conf *c, struct weights *w)
{
    err_t e = OK;
    struct dit *m = calloc(1, sizeof *m + (size_t)c->dit.layers * sizeof(struct dit_layer));
    if (!m) return FAIL(ERR_NOMEM, "dit");
    m->d = d;
    m->act = dit_act(c, d);
    m->C = c->dit.dim;
    m->heads = c->dit.heads;
    m->ffn = c->dit.ffn_dim;
    m->layers = c->dit.layers;
    m->freq_dim = c->dit.freq_dim;
    m->z = c->model.latent_channels;
    m->rows = c->model.latent_rows;
    m->cols = c->model.latent_cols;
    m->text_len = c->text.text_len;
    m->text_dim = c->text.dim;
    m->frame_tokens = conf_frame_tokens(c);
    m->window_max = conf_window_max(c);
    m->block = c->dit.block;
    m->pairs_s = m->C / m->heads / 6;
    m->pairs_t = m->C / m->heads / 2 - 2 * m->pairs_s;
    TRY(passes_open(&m->passes, d, m->window_max, run_pass));
    TRY(sched_open(&m->sched, c->dit.steps));
    TRY(dit_declare(m, w));
    TRY(dev_alloc(d, deal(m, NULL), &m->memory));
    deal(m, m->memory);
    *out = m;
    m = NULL;
out:
    dit_close(&m);
    return e;
}

void dit_close(struct dit **m)
{
    if (!*m) return;
    passes_close(&(*m)->passes);
    dev_free((*m)->d, &(*m)->memory);
    free(*m);
    *m = NULL;
}

const struct sched *dit_sched(const struct dit *m)
{
    return &m->sched;
}

void dit_on_layer(struct dit *m, void (*beat)(void *self), void *self)
{
    m->beat = beat;
    m->beat_self = self;
}

/* --- rotary tables ------------------------------------------------------------------------------
 * Pair j of an axis with n pairs turns by position * 10000^(-j/n): the axis's denominator is twice
 * its pairs (44 and 42 for a head of 128). Angles in f64, reduced before they become f32, so that a
 * position has no upper bound. */
static void fill_rotation(float *cos_sin, int32_t n_pairs, double position)
{
    for (int32_t j = 0; j < n_pairs; j++) {
        const double angle =
            fmod(position * pow(10000.0, -(double)j / n_pairs), 2 * 3.14159265358979323846);
        cos_sin[2 * j] = (float)cos(angle);
        cos_sin[2 * j + 1] = (float)sin(angle);
    }
}

static err_t upload_rotations(struct dit *m, struct tensor to, int32_t n, int64_t first)
{
    err_t e = OK;
    const int32_t n_pairs = to.shape[1];
    float row[2 * 512];
    MUST(n_pairs <= 512);
    for (int32_t i = 0; i < n; i++) {
        fill_rotation(row, n_pairs, (double)(first + i));
        TRY(dev_upload(m->d, tensor_rows(to, i, 1).data, row, (size_t)n_pairs * 2 * sizeof *row));
    }
out:
    return e;
}

/* --- what depends on weights or prompt alone -------------------------------------------------- */

/* e and e0 of one timestep, added to every layer's modulation and to the head's. */
static err_t prepare_timestep(struct dit *m, int32_t step)
{
    err_t e = OK;
    struct dev *d = m->d;
    float s[4096];
    MUST(m->freq_dim <= 4096);
    sched_sinusoid(&m->sched, step, m->freq_dim, s);
    TRY(dev_upload(d, m->time_s.data, s, (size_t)m->freq_dim * sizeof *s));
    TRY(ops_keep(d, m->time_s));
    TRY(ops_linear(d, m->time_h, m->time_s, m->time0_w, m->time0_b));
    TRY(ops_silu(d, m->time_h, m->time_h));
    TRY(ops_linear(d, m->time_e, m->time_h, m->time2_w, m->time2_b));
    TRY(ops_silu(d, m->time_h, m->time_e));
    TRY(ops_linear(d, m->time_e0, m->time_h, m->time_proj_w, m->time_proj_b));

    const struct tensor mod = RESHAPE(tensor_rows(m->mod, step, 1), m->layers * MODS + 2, m->C);
    for (int32_t i = 0; i < m->layers; i++)
        TRY(ops_add(d, RESHAPE(tensor_rows(mod, i * MODS, MODS), MODS * m->C),
                    RESHAPE(m->layer[i].modulation, MODS * m->C),
                    RESHAPE(m->time_e0, MODS * m->C)));
    /* The head takes e itself, not its projection. */
    for (int32_t i = 0; i < 2; i++)
        TRY(ops_add(d, RESHAPE(tensor_rows(mod, m->layers * MODS + i, 1), m->C),
                    RESHAPE(tensor_rows(m->head_mod, i, 1), m->C), RESHAPE(m->time_e, m->C)));
out:
    return e;
}

err_t dit_set_prompt(struct dit *m, int32_t parity, int32_t n_tokens)
{
    err_t e = OK;
    struct dev *d = m->d;
    const int32_t n_pad = m->text_len - n_tokens;
    const float pad_bias = n_pad > 0 ? logf((float)n_pad) : 0.0f;
    MUST(n_tokens >= 1 && n_pad >= 0);
    m->n_text_keys = n_tokens + (n_pad > 0);

    const int32_t n = m->n_text_keys;
    const struct tensor in = tensor_rows(m->text_in, 0, n), mid = tensor_rows(m->text_mid, 0, n);
    const struct tensor c = tensor_rows(m->text_c, 0, n);
    TRY(dev_zero(d, in.data, tensor_bytes(in)));
    TRY(ops_cast(d, tensor_rows(in, 0, n_tokens), tensor_rows(m->kv->embed[parity], 0, n_tokens)));
    TRY(ops_linear_gelu(d, mid, in, m->text0_w, m->text0_b));
    TRY(ops_linear(d, c, mid, m->text2_w, m->text2_b));
    for (int32_t i = 0; i < m->layers; i++) {
        const struct dit_layer *l = &m->layer[i];
        const struct tensor k = tensor_rows(l->cross_k, 0, n), v = tensor_rows(l->cross_v, 0, n);
        TRY(ops_linear(d, k, c, l->xk_w, l->xk_b));
        TRY(ops_rms_norm(d, k, k, l->xnorm_k, EPS));
        TRY(ops_linear(d, v, c, l->xv_w, l->xv_b));
    }
    TRY(dev_upload(d, m->n_keys.data, &n, sizeof n));
    TRY(dev_upload(d, m->pad_bias.data, &pad_bias, sizeof pad_bias));
    TRY(dev_sync(d));
out:
    return e;
}

/* --- one pass --------------------------------------------------------------------------------- */

/* Row `which` of a layer's modulation at the step in hand, [C]; the head has SHIFT1 and SCALE1 as a
 * layer more. */
static struct tensor mod_of(const struct dit *m, int32_t layer, int32_t which)
{
    return RESHAPE(tensor_rows(m->mod_now, layer * MODS + which, 1), m->C);
}

/* Where the frames of this pass go, and where everything stands in time. */
static err_t place_frames(struct dit *m, const struct pass *p, int64_t first, int64_t sink_base)
{
    err_t e = OK;
    int32_t slots[64];
    MUST(p->n_frames <= 64);
    for (int32_t i = 0; i < p->n_frames; i++) slots[i] = kv_slot(m->kv, first + i, sink_base);
    TRY(dev_upload(m->d, m->slots.data, slots, (size_t)p->n_frames * sizeof *slots));
    TRY(upload_rotations(m, m->rot_t, p->n_frames, first));
    if (p->n_sinks > 0) {
        /* The window as seen from its newest frame: the sink sits right before it. */
        const int64_t oldest = first + p->n_frames - m->kv->window;
        TRY(upload_rotations(m, m->rot_sink, p->n_sinks, oldest > sink_base ? oldest : sink_base));
    }
out:
    return e;
}

/* The branches of a layer. Each finds what it begins with in h, the residual stream x normed, and
 * leaves there what the next one, of the next layer or the head, begins with. */

/* Self-attention up to where K and V of these frames are in their slots, and Q in m->q. */
static err_t write_kv(struct dit *m, int32_t i, const struct pass *p)
{
    err_t e = OK;
    struct dev *d = m->d;
    const struct dit_layer *l = &m->layer[i];
    const struct kv *kv = m->kv;
    const int32_t S = p->n_tokens;
    const struct tensor qkv = tensor_rows(m->qkv, 0, S);
    TRY(ops_linear(d, qkv, tensor_rows(m->h, 0, S), l->qkv_w, l->qkv_b));
    TRY(ops_qkv_rope_cache(
        d, RESHAPE(tensor_rows(m->q, 0, S), S, m->heads, m->C / m->heads), kv->k[i], kv->v[i],
        kv->k_sink[i], qkv, l->norm_q, l->norm_k, tensor_rows(m->slots, 0, p->n_frames),
        tensor_rows(m->rot_t, 0, p->n_frames), m->rot_yx, m->rows / 2, m->cols / 2, EPS));
out:
    return e;
}

static err_t self_attention(struct dit *m, int32_t i, const struct pass *p)
{
    err_t e = OK;
    struct dev *d = m->d;
    const struct dit_layer *l = &m->layer[i];
    const struct kv *kv = m->kv;
    const int32_t S = p->n_tokens, N = m->heads, D = m->C / m->heads;
    const struct tensor x = tensor_rows(m->x, 0, S), h = tensor_rows(m->h, 0, S);
    const struct tensor q = RESHAPE(tensor_rows(m->q, 0, S), S, N, D);
    const struct tensor o = RESHAPE(tensor_rows(m->o, 0, S), S, N, D);
    const int32_t n_keys = p->n_slots * m->frame_tokens;

    if (p->n_sinks > 0)
        TRY(ops_rope_sink(d, kv->k[i], tensor_rows(kv->k_sink[i], 0, p->n_sinks * m->frame_tokens),
                          tensor_rows(m->rot_sink, 0, p->n_sinks), m->rot_yx, m->rows / 2,
                          m->cols / 2));
    TRY(ops_attention(d, o, q, tensor_rows(kv->k[i], 0, n_keys), tensor_rows(kv->v[i], 0, n_keys),
                      TENSOR_NONE, TENSOR_NONE, 1.0f / sqrtf((float)D)));
    TRY(ops_linear_add_norm(d, x, RESHAPE(o, S, m->C), l->o_w, l->o_b, mod_of(m, i, GATE1), h,
                            l->norm3_w, l->norm3_b, false, EPS));
out:
    return e;
}

static err_t cross_attention(struct dit *m, int32_t i, const struct pass *p)
{
    err_t e = OK;
    struct dev *d = m->d;
    const struct dit_layer *l = &m->layer[i];
    const int32_t S = p->n_tokens, N = m->heads, D = m->C / m->heads, K = m->text_len + 1;
    const struct tensor x = tensor_rows(m->x, 0, S), h = tensor_rows(m->h, 0, S);
    const struct tensor q = tensor_rows(m->q, 0, S), o = tensor_rows(m->o, 0, S);

    TRY(ops_linear(d, q, h, l->xq_w, l->xq_b));
    TRY(ops_rms_norm(d, q, q, l->xnorm_q, EPS));
    TRY(ops_attention(d, RESHAPE(o, S, N, D), RESHAPE(q, S, N, D), RESHAPE(l->cross_k, K, N, D),
                      RESHAPE(l->cross_v, K, N, D), m->n_keys, m->pad_bias,
                      1.0f / sqrtf((float)D)));
    TRY(ops_linear_add_norm(d, x, o, l->xo_w, l->xo_b, TENSOR_NONE, h, mod_of(m, i, SCALE2),
                            mod_of(m, i, SHIFT2), true, EPS));
out:
    return e;
}

static err_t feed_forward(struct dit *m, int32_t i, const struct pass *p)
{
    err_t e = OK;
    struct dev *d = m->d;
    const struct dit_layer *l = &m->layer[i];
    const struct tensor x = tensor_rows(m->x, 0, p->n_tokens);
    const struct tensor h = tensor_rows(m->h, 0, p->n_tokens);
    const struct tensor f = tensor_rows(m->f, 0, p->n_tokens);

    TRY(ops_linear_gelu(d, f, h, l->ffn0_w, l->ffn0_b));
    TRY(ops_linear_add_norm(d, x, f, l->ffn2_w, l->ffn2_b, mod_of(m, i, GATE2), h,
                            mod_of(m, i + 1, SCALE1), mod_of(m, i + 1, SHIFT1), true, EPS));
out:
    return e;
}

static err_t head(struct dit *m, struct tensor flow, const struct pass *p)
{
    err_t e = OK;
    const struct tensor y = tensor_rows(m->out, 0, p->n_tokens);
    TRY(ops_linear(m->d, y, tensor_rows(m->h, 0, p->n_tokens), m->head_w, m->head_b));
    TRY(ops_unpatchify(m->d, flow, y));
out:
    return e;
}

/* What the first layer begins with, of m->x_in. */
static err_t embed_patches(struct dit *m, const struct pass *p)
{
    err_t e = OK;
    const struct tensor patch = tensor_rows(m->patch, 0, p->n_tokens);
    const struct tensor x = tensor_rows(m->x, 0, p->n_tokens);
    TRY(ops_patchify(m->d, patch, tensor_rows(m->x_in, 0, p->n_frames)));
    TRY(ops_linear(m->d, x, patch, m->patch_w, m->patch_b));
    TRY(ops_norm_modulate(m->d, tensor_rows(m->h, 0, p->n_tokens), x, mod_of(m, 0, SCALE1),
                          mod_of(m, 0, SHIFT1), EPS));
out:
    return e;
}

/* A layer behind write_kv. */
static err_t rest_of_layer(struct dit *m, int32_t i, const struct pass *p)
{
    err_t e = OK;
    if (p->only_kv && i == m->layers - 1) return OK; /* nobody reads the rest of the last one */
    TRY(self_attention(m, i, p));
    TRY(cross_attention(m, i, p));
    TRY(feed_forward(m, i, p));
out:
    return e;
}

/* The ops of a pass, from m->x_in to m->flow. */
static err_t queue(struct dit *m, const struct pass *p, bool has_before)
{
    err_t e = OK;
    TRY(embed_patches(m, p));
    for (int32_t i = 0; i < m->layers; i++) {
        if (m->beat) m->beat(m->beat_self);
        if (has_before) TRY(m->before(m->before_self, i));
        TRY(write_kv(m, i, p));
        TRY(rest_of_layer(m, i, p));
    }
    if (!p->only_kv) TRY(head(m, tensor_rows(m->flow, 0, p->n_frames), p));
out:
    return e;
}

static err_t run_pass(void *self)
{
    const struct pass *p = self;
    return queue(p->model, p, false);
}

/* The pass over F frames of which the last is end - 1, counted from the sink base. */
static err_t find_pass(struct dit *m, int32_t F, int64_t end, bool only_kv, struct pass **out)
{
    const struct pass kind = {
        .model = m,
        .n_frames = F,
        .n_tokens = F * m->frame_tokens,
        .n_slots = kv_slots_used(m->kv, end, 0),
        .n_sinks = !m->kv->k_sink[0].data ? 0
                   : end < m->kv->sink    ? (int32_t)end
                                          : m->kv->sink,
        .only_kv = only_kv,
    };
    return passes_find(&m->passes, &kind, out);
}

err_t dit_record(struct dit *m, int32_t n_frames, int64_t end, bool only_kv)
{
    struct pass *p;
    const err_t e = find_pass(m, n_frames, end, only_kv, &p);
    return e == OK ? passes_record(&m->passes, p) : e;
}

err_t dit_record_next(struct dit *m)
{
    return passes_record_next(&m->passes);
}

err_t dit_record_all(struct dit *m)
{
    err_t e = OK;
    while (m->passes.n_recorded < m->passes.n) TRY(passes_record_next(&m->passes));
out:
    return e;
}

int32_t dit_kinds(const struct dit *m, int32_t *n_recorded)
{
    *n_recorded = m->passes.n_recorded;
    return m->passes.n;
}

/* The tables of the steps, and the kinds of pass that sessions need: blocks while the window fills
 * and when it is full, and recaches. Presets share kinds: what a step is lies in the tables, and
 * how large the window is in the number of slots. */
static err_t prepare_preset(struct dit *m)
{
    err_t e = OK;
    struct pass *p;
    const int32_t window = m->kv->window, block = m->block;
    for (int32_t i = 0; i < m->sched.n_steps; i++) TRY(prepare_timestep(m, i));
    for (int64_t end = block; end <= window + block; end += block) {
        if (m->sched.n_steps > 0) TRY(find_pass(m, block, end, false, &p));
        TRY(find_pass(m, block, end, true, &p));
    }
    for (int32_t F = block; F <= window; F += block) TRY(find_pass(m, F, F, true, &p));
    TRY(find_pass(m, window, window + 1, true, &p));
    TRY(find_pass(m, window - m->kv->sink, window + 1, true, &p));
out:
    return e;
}

err_t dit_set_preset(struct dit *m, const char *steps)
{
    err_t e = OK;
    MUST(m->kv->window <= m->window_max);
    if (steps) TRY(sched_open(&m->sched, steps));
    else m->sched.n_steps = 0;
    TRY(prepare_preset(m));
    if (!dev_has_graphs(m->d)) TRY(dit_record_all(m)); /* which costs next to nothing */
out:
    return e;
}

err_t dit_prepare(struct dit *m, const struct kv *kv, const char *steps)
{
    err_t e = OK;
    m->kv = kv;
    TRY(prepare_timestep(m, SCHED_CLEAN));
    TRY(upload_rotations(m, m->rot_yx, m->rot_yx.shape[0], 0));
    TRY(dit_set_preset(m, steps));
out:
    return e;
}

/* Into device memory what this pass has of its own. */
static err_t begin_pass(struct dit *m, struct tensor x, int32_t step, int64_t first,
                        int64_t sink_base, bool only_kv, struct pass **out)
{
    err_t e = OK;
    const int32_t F = x.shape[0];
    MUST(F >= 1 && F <= m->kv->window && step >= 0 && first >= sink_base);
    MUST(step < m->sched.n_steps || step == SCHED_CLEAN);
    TRY(find_pass(m, F, first + F - sink_base, only_kv, out));
    TRY(dev_copy(m->d, m->mod_now.data, tensor_rows(m->mod, step, 1).data,
                 tensor_bytes(m->mod_now)));
    TRY(place_frames(m, *out, first, sink_base));
    TRY(dev_copy(m->d, m->x_in.data, x.data, tensor_bytes(x)));
out:
    return e;
}

void dit_before_layer(struct dit *m, err_t (*before)(void *self, int32_t layer), void *self)
{
    m->before = before;
    m->before_self = self;
}

err_t dit_clean_begin(struct dit *m, struct tensor x, int64_t first, int64_t sink_base)
{
    const err_t e = begin_pass(m, x, SCHED_CLEAN, first, sink_base, true, &m->clean);
    return e == OK ? embed_patches(m, m->clean) : e;
}

err_t dit_clean_kv(struct dit *m, int32_t layer)
{
    return write_kv(m, layer, m->clean);
}

err_t dit_clean_rest(struct dit *m, int32_t layer)
{
    return rest_of_layer(m, layer, m->clean);
}

err_t dit_pass(struct dit *m, struct tensor flow, struct tensor x, int32_t step, int64_t first,
               int64_t sink_base)
{
    err_t e = OK;
    struct pass *p;
    TRY(begin_pass(m, x, step, first, sink_base, !flow.data, &p));
    if (m->before) {
        TRY(queue(m, p, true));
    } else {
        TRY(passes_record(&m->passes, p));
        TRY(dev_replay(m->d, p->graph));
    }
    if (flow.data) TRY(dev_copy(m->d, flow.data, m->flow.data, tensor_bytes(flow)));
    TRY(dit_record_next(m)); /* the host has nothing else to do while the device works */
out:
    return e;
}
