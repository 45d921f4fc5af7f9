/* dit.c - see dit.h. */
#include "procs/dit/dit.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "procs/dit/passes.h"

static const float EPS = 1e-6f;
enum { SHIFT1, SCALE1, GATE1, SHIFT2, SCALE2, GATE2, MODS };

struct dit_layer {
    struct tensor modulation;       /* [MODS, C] */
    struct tensor qkv_w, qkv_b;     /* [3C, C], [3C] */
    struct tensor norm_q, norm_k;   /* [C] */
    struct tensor o_w, o_b;         /* [C, C], [C] */
    struct tensor norm3_w, norm3_b; /* [C] */
    struct tensor xq_w, xq_b, xk_w, xk_b, xv_w, xv_b, xo_w, xo_b, xnorm_q, xnorm_k;
    struct tensor ffn0_w, ffn0_b, ffn2_w, ffn2_b; /* [ffn, C], [ffn], [C, ffn], [C] */
    struct tensor cross_k, cross_v;               /* [text_len + 1, C], derived from the prompt */
};

struct dit {
    struct dev *d;
    enum dtype act; /* of activations, weights, keys and values; the residual stream is f32 */
    int32_t C, heads, ffn, layers, freq_dim, z, rows, cols, text_len, text_dim, frame_tokens;
    int32_t window_max, block, pairs_t, pairs_s; /* rotary pairs: time, row and column */
    struct sched sched;
    const struct kv *kv;

    struct tensor patch_w, patch_b, text0_w, text0_b, text2_w, text2_b;
    struct tensor time0_w, time0_b, time2_w, time2_b, time_proj_w, time_proj_b;
    struct tensor head_mod, head_w, head_b;

    void *memory;                                  /* one allocation holds all that follows */
    struct tensor mod;                             /* [timesteps, layers * MODS + 2, C] */
    struct tensor mod_now;                         /* the rows of the step in hand */
    struct tensor time_s, time_e, time_h, time_e0; /* dit_prepare's scratch */
    struct tensor x, h, qkv, q, o, f, patch, out;  /* activations, window frames of tokens */
    struct tensor text_in, text_mid, text_c;       /* the prompt's MLP, text_len + 1 rows */
    struct tensor slots, n_keys, pad_bias;         /* i32 [window], i32 [1], f32 [1] */
    struct tensor rot_t, rot_sink, rot_yx;         /* [window, pt, 2] twice, [G, ps, 2] */

    struct tensor x_in, flow; /* f32 [window, z, rows, cols]: a pass's input and output */
    struct passes passes;

    int32_t n_text_keys;
    void (*beat)(void *self);
    void *beat_self;
    struct dit_layer layer[];
};

/* --- weights ---------------------------------------------------------------------------------- */

/* A linear layer: weight [n_out, n_in] at N(0, 1 / sqrt(n_in)), bias at N(0, 0.05). The weight has
 * the type of the layer's input, the bias that of its output. */
static err_t declare_linear(struct weights *w, struct tensor *weight, enum dtype in,
                            struct tensor *bias, enum dtype out_type, int32_t n_out, int32_t n_in,
                            const char *key)
{
    err_t e = OK;
    TRY(weights_room(w, weight, in, 2, (int32_t[]){n_out, n_in}));
    TRY(weights_name(w, weight, 0, n_out, 0, 1.0f / sqrtf((float)n_in), "%s.weight", key));
    TRY(weights_room(w, bias, out_type, 1, &n_out));
    TRY(weights_name(w, bias, 0, n_out, 0, 0.05f, "%s.bias", key));
out:
    return e;
}

static err_t declare_vector(struct weights *w, struct tensor *at, int32_t rows, int32_t n,
                            float mean, float std, const char *key)
{
    err_t e = OK;
    const int32_t shape[2] = {rows, n};
    TRY(weights_room(w, at, DTYPE_F32, rows > 1 ? 2 : 1, rows > 1 ? shape : shape + 1));
    TRY(weights_name(w, at, 0, rows > 1 ? rows : n, mean, std, "%s", key));
out:
    return e;
}

#define KEY(...) (snprintf(key, sizeof key, __VA_ARGS__), key)

/* q, k and v are one matrix here and three in the checkpoint. */
static err_t declare_qkv(struct dit *m, struct weights *w, int32_t i)
{
    err_t e = OK;
    struct dit_layer *l = &m->layer[i];
    const int32_t C = m->C, three = 3 * C;
    TRY(weights_room(w, &l->qkv_w, m->act, 2, (int32_t[]){three, C}));
    TRY(weights_room(w, &l->qkv_b, m->act, 1, &three));
    for (int32_t part = 0; part < 3; part++) {
        const char name = "qkv"[part];
        TRY(weights_name(w, &l->qkv_w, part * C, C, 0, 1.0f / sqrtf((float)C),
                         "blocks.%d.self_attn.%c.weight", i, name));
        TRY(weights_name(w, &l->qkv_b, part * C, C, 0, 0.05f, "blocks.%d.self_attn.%c.bias", i,
                         name));
    }
out:
    return e;
}

static err_t declare_layer(struct dit *m, struct weights *w, int32_t i)
{
    err_t e = OK;
    char key[64];
    struct dit_layer *l = &m->layer[i];
    const int32_t C = m->C;
    const enum dtype act = m->act;
    TRY(declare_vector(w, &l->modulation, MODS, C, 0, 0.3f, KEY("blocks.%d.modulation", i)));
    TRY(declare_qkv(m, w, i));
    TRY(declare_vector(w, &l->norm_q, 1, C, 1, 0.1f, KEY("blocks.%d.self_attn.norm_q.weight", i)));
    TRY(declare_vector(w, &l->norm_k, 1, C, 1, 0.1f, KEY("blocks.%d.self_attn.norm_k.weight", i)));
    TRY(declare_linear(w, &l->o_w, act, &l->o_b, DTYPE_F32, C, C, KEY("blocks.%d.self_attn.o", i)));
    TRY(declare_vector(w, &l->norm3_w, 1, C, 1, 0.1f, KEY("blocks.%d.norm3.weight", i)));
    TRY(declare_vector(w, &l->norm3_b, 1, C, 0, 0.1f, KEY("blocks.%d.norm3.bias", i)));
    TRY(declare_linear(w, &l->xq_w, act, &l->xq_b, act, C, C, KEY("blocks.%d.cross_attn.q", i)));
    TRY(declare_linear(w, &l->xk_w, act, &l->xk_b, act, C, C, KEY("blocks.%d.cross_attn.k", i)));
    TRY(declare_linear(w, &l->xv_w, act, &l->xv_b, act, C, C, KEY("blocks.%d.cross_attn.v", i)));
    TRY(declare_linear(w, &l->xo_w, act, &l->xo_b, DTYPE_F32, C, C,
                       KEY("blocks.%d.cross_attn.o", i)));
    TRY(declare_vector(w, &l->xnorm_q, 1, C, 1, 0.1f,
                       KEY("blocks.%d.cross_attn.norm_q.weight", i)));
    TRY(declare_vector(w, &l->xnorm_k, 1, C, 1, 0.1f,
                       KEY("blocks.%d.cross_attn.norm_k.weight", i)));
    TRY(declare_linear(w, &l->ffn0_w, act, &l->ffn0_b, act, m->ffn, C, KEY("blocks.%d.ffn.0", i)));
    TRY(declare_linear(w, &l->ffn2_w, act, &l->ffn2_b, DTYPE_F32, C, m->ffn,
                       KEY("blocks.%d.ffn.2", i)));
out:
    return e;
}

/* A convolution of patches onto themselves, which is a linear layer of their values. */
static err_t declare_patch(struct dit *m, struct weights *w)
{
    err_t e = OK;
    const int32_t C = m->C, n_in = m->z * 4;
    TRY(weights_room(w, &m->patch_w, m->act, 2, (int32_t[]){C, n_in}));
    TRY(weights_name(w, &m->patch_w, 0, C, 0, 1.0f / sqrtf((float)n_in), "patch_embedding.weight"));
    weights_as(w, 5, (int32_t[]){C, m->z, 1, 2, 2});
    TRY(declare_vector(w, &m->patch_b, 1, C, 0, 0.05f, "patch_embedding.bias"));
out:
    return e;
}

static err_t declare(struct dit *m, struct weights *w)
{
    err_t e = OK;
    const int32_t C = m->C;
    TRY(declare_patch(m, w));
    TRY(declare_linear(w, &m->text0_w, m->act, &m->text0_b, m->act, C, m->text_dim,
                       "text_embedding.0"));
    TRY(declare_linear(w, &m->text2_w, m->act, &m->text2_b, m->act, C, C, "text_embedding.2"));
    TRY(declare_linear(w, &m->time0_w, DTYPE_F32, &m->time0_b, DTYPE_F32, C, m->freq_dim,
                       "time_embedding.0"));
    TRY(declare_linear(w, &m->time2_w, DTYPE_F32, &m->time2_b, DTYPE_F32, C, C,
                       "time_embedding.2"));
    TRY(declare_linear(w, &m->time_proj_w, DTYPE_F32, &m->time_proj_b, DTYPE_F32, MODS * C, C,
                       "time_projection.1"));
    for (int32_t i = 0; i < m->layers; i++) TRY(declare_layer(m, w, i));
    TRY(declare_vector(w, &m->head_mod, 2, C, 0, 0.3f, "head.modulation"));
    TRY(declare_linear(w, &m->head_w, m->act, &m->head_b, DTYPE_F32, m->z * 4, C, "head.head"));
out:
    return e;
}

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
    TRY(declare(m, w));
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

static err_t self_attention(struct dit *m, int32_t i, const struct pass *p)
{
    err_t e = OK;
    struct dev *d = m->d;
    const struct dit_layer *l = &m->layer[i];
    const struct kv *kv = m->kv;
    const int32_t S = p->n_tokens, N = m->heads, D = m->C / m->heads;
    const struct tensor x = tensor_rows(m->x, 0, S), h = tensor_rows(m->h, 0, S);
    const struct tensor qkv = tensor_rows(m->qkv, 0, S);
    const struct tensor q = RESHAPE(tensor_rows(m->q, 0, S), S, N, D);
    const struct tensor o = RESHAPE(tensor_rows(m->o, 0, S), S, N, D);
    const int32_t n_keys = p->n_slots * m->frame_tokens;

    TRY(ops_linear(d, qkv, h, l->qkv_w, l->qkv_b));
    TRY(ops_qkv_rope_cache(d, q, kv->k[i], kv->v[i], kv->k_sink[i], qkv, l->norm_q, l->norm_k,
                           tensor_rows(m->slots, 0, p->n_frames),
                           tensor_rows(m->rot_t, 0, p->n_frames), m->rot_yx, m->rows / 2,
                           m->cols / 2, EPS));
    if (p->only_kv && i == m->layers - 1) goto out; /* nobody reads the rest of the last layer */
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

/* The ops of a pass, from m->x_in to m->flow. */
static err_t run_pass(void *self)
{
    err_t e = OK;
    const struct pass *p = self;
    struct dit *m = p->model;
    const struct tensor patch = tensor_rows(m->patch, 0, p->n_tokens);
    const struct tensor x = tensor_rows(m->x, 0, p->n_tokens);
    TRY(ops_patchify(m->d, patch, tensor_rows(m->x_in, 0, p->n_frames)));
    TRY(ops_linear(m->d, x, patch, m->patch_w, m->patch_b));
    TRY(ops_norm_modulate(m->d, tensor_rows(m->h, 0, p->n_tokens), x, mod_of(m, 0, SCALE1),
                          mod_of(m, 0, SHIFT1), EPS));
    for (int32_t i = 0; i < m->layers; i++) {
        if (m->beat) m->beat(m->beat_self);
        TRY(self_attention(m, i, p));
        if (p->only_kv && i == m->layers - 1) break;
        TRY(cross_attention(m, i, p));
        TRY(feed_forward(m, i, p));
    }
    if (!p->only_kv) TRY(head(m, tensor_rows(m->flow, 0, p->n_frames), p));
out:
    return e;
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
        TRY(find_pass(m, block, end, false, &p));
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
    TRY(sched_open(&m->sched, steps));
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

err_t dit_pass(struct dit *m, struct tensor flow, struct tensor x, int32_t step, int64_t first,
               int64_t sink_base)
{
    err_t e = OK;
    const int32_t F = x.shape[0];
    struct pass *p;
    MUST(F >= 1 && F <= m->kv->window && step >= 0 && first >= sink_base);
    MUST(step < m->sched.n_steps || step == SCHED_CLEAN);
    TRY(find_pass(m, F, first + F - sink_base, !flow.data, &p));
    TRY(passes_record(&m->passes, p));
    TRY(dev_copy(m->d, m->mod_now.data, tensor_rows(m->mod, step, 1).data,
                 tensor_bytes(m->mod_now)));
    TRY(place_frames(m, p, first, sink_base));
    TRY(dev_copy(m->d, m->x_in.data, x.data, tensor_bytes(x)));
    TRY(dev_replay(m->d, p->graph));
    if (flow.data) TRY(dev_copy(m->d, flow.data, m->flow.data, tensor_bytes(flow)));
    TRY(dit_record_next(m)); /* the host has nothing else to do while the device works */
out:
    return e;
}
