/* vae.c - see vae.h. */
#include "procs/vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/ops.h"

enum { STAGES = 4, RES_PER_STAGE = 3, HISTORIES_MAX = 40, Z_MAX = 16 };

/* Wan2.1's latent statistics, by channel. */
static const float latent_mean[Z_MAX] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f,  -0.1745f, 0.9653f,
                                         -0.1517f, 1.5508f,  0.4134f,  -0.0715f, 0.5517f,  -0.3632f,
                                         -0.1922f, -0.9497f, 0.2503f,  -0.2921f};
static const float latent_std[Z_MAX] = {2.8184f, 1.4541f, 2.3275f, 2.6558f, 1.2196f, 1.7708f,
                                        2.6052f, 2.0743f, 3.2687f, 2.1526f, 2.8652f, 1.5579f,
                                        1.6382f, 1.1253f, 2.8251f, 1.9160f};

struct conv {
    struct tensor w, b;  /* [O, kt, k, k, C], [O] */
    struct tensor gamma; /* of the norm with SiLU before it; absent: there is none */
    int32_t history;     /* its place in each set; -1: looks at no past */
};

struct res {
    struct conv a, b, shortcut; /* shortcut.w absent where in == out */
};

/* What ends stages 0 to 2: space doubles, and time in the first two. */
struct upsampler {
    struct conv time, space; /* time.w absent in stage 2 */
};

struct history {
    size_t offset, n_bytes; /* act [2, Y, X, C] in a set */
    int32_t rows, cols, channels;
};

/* A latent's ops depend on its index only so far: it is the first, or odd, or even. */
enum { KINDS = 3 };
struct kind {
    struct vae *v;
    int64_t r;               /* 0, 1, 2: the first of its kind */
    struct dev_graph *graph; /* NULL: not recorded yet */
    struct tensor pixels;    /* f32 [n, 8Y, 8X, 3] */
};

struct vae {
    struct dev *d;
    enum dtype act; /* of activations, histories and the weights of convolutions */
    int32_t z, rows, cols, base;
    struct conv conv2, conv1, head;
    struct res middle[2], res[STAGES][RES_PER_STAGE];
    struct upsampler up[STAGES - 1];
    struct tensor attn_gamma;
    struct conv to_qkv, proj;
    struct history history[HISTORIES_MAX];
    int32_t n_histories;
    size_t set_bytes;
    char *state;
    void *memory;                /* the buffers below */
    struct tensor inv_std, mean; /* [z] */
    void *buffer[4];             /* each holds the largest activation */
    int64_t r;                   /* latent in hand, as its kind has it */
    struct kind kinds[KINDS];
    void (*beat)(void *self);
    void *beat_self;
    struct tensor pixels; /* the last decode's, in a buffer */
};

/* A picture in flight: [T, Y, X, C] in one of the buffers. */
struct pic {
    struct tensor t;
    int32_t in; /* buffer index */
};

/* --- weights ---------------------------------------------------------------------------------- */

static err_t declare_conv(const struct vae *v, struct weights *w, struct conv *c, int32_t n_out,
                          int32_t n_in, int32_t kt, int32_t k, const char *key)
{
    err_t e = OK;
    const int32_t shape[5] = {n_out, kt, k, k, n_in};
    c->history = -1;
    TRY(weights_room(w, &c->w, v->act, 5, shape));
    TRY(weights_name(w, &c->w, 0, n_out, 0, 1.0f / sqrtf((float)(kt * k * k * n_in)), "%s.weight",
                     key));
    TRY(weights_room(w, &c->b, DTYPE_F32, 1, &n_out));
    TRY(weights_name(w, &c->b, 0, n_out, 0, 0.05f, "%s.bias", key));
out:
    return e;
}

static err_t declare_gamma(struct weights *w, struct tensor *g, int32_t n, const char *key)
{
    err_t e = OK;
    TRY(weights_room(w, g, DTYPE_F32, 1, &n));
    TRY(weights_name(w, g, 0, n, 1, 0.1f, "%s.gamma", key));
out:
    return e;
}

static void add_history(struct vae *v, struct conv *c, int32_t stage)
{
    const int32_t rows = v->rows << stage, cols = v->cols << stage, channels = c->w.shape[4];
    const size_t n_bytes = tensor_bytes(TENSOR(NULL, v->act, 2, rows, cols, channels));
    MUST(v->n_histories < HISTORIES_MAX);
    c->history = v->n_histories;
    v->history[v->n_histories++] = (struct history){v->set_bytes, n_bytes, rows, cols, channels};
    v->set_bytes += (n_bytes + 255) / 256 * 256;
}

#define KEY(...) (snprintf(key, sizeof key, __VA_ARGS__), key)

static err_t declare_res(struct vae *v, struct weights *w, struct res *s, int32_t n_in,
                         int32_t n_out, int32_t stage, const char *prefix)
{
    err_t e = OK;
    char key[96];
    TRY(declare_gamma(w, &s->a.gamma, n_in, KEY("%s.residual.0", prefix)));
    TRY(declare_conv(v, w, &s->a, n_out, n_in, 3, 3, KEY("%s.residual.2", prefix)));
    TRY(declare_gamma(w, &s->b.gamma, n_out, KEY("%s.residual.3", prefix)));
    TRY(declare_conv(v, w, &s->b, n_out, n_out, 3, 3, KEY("%s.residual.6", prefix)));
    add_history(v, &s->a, stage);
    add_history(v, &s->b, stage);
    if (n_in != n_out)
        TRY(declare_conv(v, w, &s->shortcut, n_out, n_in, 1, 1, KEY("%s.shortcut", prefix)));
out:
    return e;
}

/* Channels out of a stage's residual blocks; an upsampler halves them on the way to the next. */
static int32_t width_of(const struct vae *v, int32_t stage)
{
    static const int32_t mult[STAGES] = {4, 4, 2, 1};
    return mult[stage] * v->base;
}

static err_t declare_stage(struct vae *v, struct weights *w, int32_t stage)
{
    err_t e = OK;
    char key[96];
    const int32_t n_out = width_of(v, stage), at = 4 * stage;
    int32_t n_in = stage ? width_of(v, stage - 1) / 2 : n_out;
    for (int32_t i = 0; i < RES_PER_STAGE; i++) {
        TRY(declare_res(v, w, &v->res[stage][i], n_in, n_out, stage,
                        KEY("decoder.upsamples.%d", at + i)));
        n_in = n_out;
    }
    if (stage == STAGES - 1) goto out;
    struct upsampler *u = &v->up[stage];
    TRY(declare_conv(v, w, &u->space, n_out / 2, n_out, 1, 3,
                     KEY("decoder.upsamples.%d.resample.1", at + 3)));
    if (stage == STAGES - 2) goto out;
    TRY(declare_conv(v, w, &u->time, 2 * n_out, n_out, 3, 1,
                     KEY("decoder.upsamples.%d.time_conv", at + 3)));
    add_history(v, &u->time, stage);
out:
    return e;
}

static err_t declare(struct vae *v, struct weights *w)
{
    err_t e = OK;
    const int32_t top = width_of(v, 0), last = width_of(v, STAGES - 1);
    TRY(weights_spare(w, "encoder."));
    TRY(weights_spare(w, "conv1."));
    TRY(declare_conv(v, w, &v->conv2, v->z, v->z, 1, 1, "conv2"));
    TRY(declare_conv(v, w, &v->conv1, top, v->z, 3, 3, "decoder.conv1"));
    add_history(v, &v->conv1, 0);
    TRY(declare_res(v, w, &v->middle[0], top, top, 0, "decoder.middle.0"));
    TRY(declare_gamma(w, &v->attn_gamma, top, "decoder.middle.1.norm"));
    TRY(declare_conv(v, w, &v->to_qkv, 3 * top, top, 1, 1, "decoder.middle.1.to_qkv"));
    TRY(declare_conv(v, w, &v->proj, top, top, 1, 1, "decoder.middle.1.proj"));
    TRY(declare_res(v, w, &v->middle[1], top, top, 0, "decoder.middle.2"));
    for (int32_t i = 0; i < STAGES; i++) TRY(declare_stage(v, w, i));
    TRY(declare_gamma(w, &v->head.gamma, last, "decoder.head.0"));
    TRY(declare_conv(v, w, &v->head, 3, last, 3, 3, "decoder.head.2"));
    add_history(v, &v->head, STAGES - 1);
out:
    return e;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Values of the largest activation: [frames, Y, X, channels] over all stages, with the doubled
 * channels of a time convolution and the three parts of the attention. */
static int64_t largest_activation(const struct vae *v)
{
    int64_t most = 0;
    for (int32_t i = 0; i < STAGES; i++) {
        const int64_t pixels = ((int64_t)v->rows << i) * ((int64_t)v->cols << i);
        const int64_t frames = i < 2 ? 1 << i : VAE_FRAMES_MAX;
        const int64_t n = frames * pixels * width_of(v, i) * (i < 2 ? 3 : 1);
        if (n > most) most = n;
        if (i > 0) { /* what the upsampler of the stage before leaves */
            const int64_t up = frames * pixels * width_of(v, i - 1) / 2;
            if (up > most) most = up;
        }
    }
    return most;
}

/* Kept before and after the division: 1/std of LongLive is that of the rounded std. */
static err_t upload_statistics(struct vae *v)
{
    err_t e = OK;
    float x[Z_MAX];
    const size_t n_bytes = tensor_bytes(v->mean);
    TRY(dev_upload(v->d, v->mean.data, latent_mean, n_bytes));
    TRY(ops_keep(v->d, v->mean));
    TRY(dev_upload(v->d, v->inv_std.data, latent_std, n_bytes));
    TRY(ops_keep(v->d, v->inv_std));
    TRY(dev_download(v->d, x, v->inv_std.data, n_bytes));
    TRY(dev_sync(v->d));
    for (int32_t i = 0; i < v->z; i++) x[i] = 1.0f / x[i];
    TRY(dev_upload(v->d, v->inv_std.data, x, n_bytes));
    TRY(ops_keep(v->d, v->inv_std));
out:
    return e;
}

static err_t open_memory(struct vae *v)
{
    err_t e = OK;
    const int64_t n = (largest_activation(v) + 63) / 64 * 64;
    const size_t n_bytes = (size_t)n * dtype_bytes(v->act), n_stats = Z_MAX * sizeof(float);
    TRY(dev_alloc(v->d, 4 * n_bytes + 2 * n_stats, &v->memory));
    char *p = v->memory;
    for (int32_t i = 0; i < 4; i++, p += n_bytes) v->buffer[i] = p;
    v->inv_std = TENSOR(p, DTYPE_F32, v->z);
    v->mean = TENSOR(p + n_stats, DTYPE_F32, v->z);
    TRY(upload_statistics(v));
out:
    return e;
}

err_t vae_open(struct vae **out, struct dev *d, const struct conf *c, struct weights *w)
{
    err_t e = OK;
    struct vae *v = calloc(1, sizeof *v);
    if (!v) return FAIL(ERR_NOMEM, "vae");
    v->d = d;
    v->act = weights_half(c, d, DTYPE_F16);
    v->z = c->model.latent_channels;
    v->rows = c->model.latent_rows;
    v->cols = c->model.latent_cols;
    v->base = c->vae.base_dim;
    MUST(v->z <= Z_MAX);
    TRY(declare(v, w));
    TRY(open_memory(v));
    *out = v;
    v = NULL;
out:
    vae_close(&v);
    return e;
}

void vae_close(struct vae **v)
{
    if (!*v) return;
    for (int32_t i = 0; i < KINDS; i++) dev_graph_close((*v)->d, &(*v)->kinds[i].graph);
    dev_free((*v)->d, &(*v)->memory);
    free(*v);
    *v = NULL;
}

uint64_t vae_state_bytes(const struct vae *v)
{
    return 2 * (uint64_t)v->set_bytes;
}

/* --- layers ----------------------------------------------------------------------------------- */

static struct pic pic_in(struct vae *v, int32_t buffer, int32_t T, int32_t Y, int32_t X, int32_t C)
{
    return (struct pic){TENSOR(v->buffer[buffer], v->act, T, Y, X, C), buffer};
}

/* A picture of x's frames and size with C channels, in a buffer that is none of x.in, b, c. */
static struct pic pic_beside(struct vae *v, struct pic x, int32_t C, int32_t b, int32_t c)
{
    int32_t free_at = 0;
    while (free_at == x.in || free_at == b || free_at == c) free_at++;
    return pic_in(v, free_at, x.t.shape[0], x.t.shape[1], x.t.shape[2], C);
}

static struct tensor history_of(const struct vae *v, int32_t i, int64_t set)
{
    const struct history *h = &v->history[i];
    return TENSOR(v->state + (size_t)(set % 2) * v->set_bytes + h->offset, v->act, 2, h->rows,
                  h->cols, h->channels);
}

/* y = conv(x) with its history, which moves on to the last two frames seen. */
static err_t causal_conv(struct vae *v, const struct conv *c, struct tensor y, struct tensor x,
                         struct tensor residual)
{
    err_t e = OK;
    const struct tensor past = history_of(v, c->history, v->r);
    const struct tensor next = history_of(v, c->history, v->r + 1);
    const int32_t T = x.shape[0];
    TRY(ops_conv3d(v->d, y, x, past, c->w, c->b, residual));
    if (T >= 2) {
        const struct tensor last = tensor_rows(x, T - 2, 2);
        TRY(dev_copy(v->d, next.data, last.data, tensor_bytes(last)));
    } else {
        const struct tensor newer = tensor_rows(past, 1, 1);
        TRY(dev_copy(v->d, next.data, newer.data, tensor_bytes(newer)));
        TRY(dev_copy(v->d, tensor_rows(next, 1, 1).data, x.data, tensor_bytes(x)));
    }
out:
    return e;
}

/* A normed convolution's input, silu(norm(x)) of T frames: the last two lie in its history of the
 * next latent and are read there, so none is copied but, of a single frame, the one before it;
 * those before them, if any, in n. */
static int32_t early_frames(int32_t T)
{
    MUST(T != 3);
    return T < 2 ? 0 : T - 2;
}

static struct tensor late_input(const struct vae *v, const struct conv *c, int32_t T)
{
    const int32_t late = T - early_frames(T);
    return tensor_rows(history_of(v, c->history, v->r + 1), 2 - late, late);
}

/* A convolution's input from x, where it will be read; n, of its early frames, may be x. */
static err_t norm(struct vae *v, const struct conv *c, struct tensor n, struct tensor x)
{
    err_t e = OK;
    const int32_t T = x.shape[0], early = early_frames(T);
    if (early > 0)
        TRY(ops_l2_norm(v->d, tensor_rows(n, 0, early), tensor_rows(x, 0, early), c->gamma, 1));
    TRY(ops_l2_norm(v->d, late_input(v, c, T), tensor_rows(x, early, T - early), c->gamma, 1));
out:
    return e;
}

static struct tensor rows_of(struct tensor t, int32_t first, int32_t n)
{
    return t.data ? tensor_rows(t, first, n) : TENSOR_NONE;
}

/* Where a convolution's output goes: as it is to y, and normed to where the next one reads it, of
 * the early frames m. Either may be absent: y, or next. */
struct outputs {
    struct tensor y;
    const struct conv *next;
    struct tensor m;
};

/* Of the early frames, or of the late ones. */
static err_t conv_part(struct vae *v, const struct conv *c, struct outputs o, bool is_late,
                       struct tensor x, struct tensor past, struct tensor residual, int32_t T)
{
    const int32_t first = is_late ? early_frames(T) : 0, n = x.shape[0];
    const struct tensor y = rows_of(o.y, first, n), add = rows_of(residual, first, n);
    if (!o.next) return ops_conv3d(v->d, y, x, past, c->w, c->b, add);
    const struct tensor h = is_late ? late_input(v, o.next, T) : tensor_rows(o.m, 0, n);
    return ops_conv3d_norm(v->d, h, x, past, c->w, c->b, add, o.next->gamma, y);
}

/* The convolution of what was normed for it, n its early frames; n is none of the outputs. */
static err_t normed_conv(struct vae *v, const struct conv *c, struct outputs o, struct tensor n,
                         struct tensor residual)
{
    err_t e = OK;
    const struct tensor past = history_of(v, c->history, v->r);
    const int32_t T = n.shape[0], early = early_frames(T);
    struct tensor before = past;
    if (T == 1) {
        const struct tensor next = history_of(v, c->history, v->r + 1);
        const struct tensor newer = tensor_rows(past, 1, 1);
        TRY(dev_copy(v->d, next.data, newer.data, tensor_bytes(newer)));
    }
    if (early > 0) {
        TRY(conv_part(v, c, o, false, tensor_rows(n, 0, early), past, residual, T));
        before = tensor_rows(n, early - 2, 2);
    }
    TRY(conv_part(v, c, o, true, late_input(v, c, T), before, residual, T));
out:
    return e;
}

static err_t point_conv(struct vae *v, const struct conv *c, struct tensor y, struct tensor x)
{
    const int32_t S = x.shape[0] * x.shape[1] * x.shape[2];
    return ops_linear(v->d, RESHAPE(y, S, c->w.shape[0]), RESHAPE(x, S, c->w.shape[4]),
                      RESHAPE(c->w, c->w.shape[0], c->w.shape[4]), c->b);
}

/* x -> conv_b(silu(norm(conv_a(silu(norm(x)))))) + shortcut(x). n: x as it was normed for conv_a,
 * or absent; afterwards as it is normed for next, or absent where that is NULL. The head reads
 * nothing else, so before it x is not written. */
static err_t run_res(struct vae *v, const struct res *s, struct pic *x, struct pic *n,
                     const struct conv *next)
{
    err_t e = OK;
    const int32_t n_in = x->t.shape[3], n_out = s->a.w.shape[0];
    if (!n->t.data) {
        *n = pic_beside(v, *x, n_in, -1, -1);
        TRY(norm(v, &s->a, n->t, x->t));
    }
    const struct pic m = pic_beside(v, *x, n_out, n->in, -1);
    TRY(normed_conv(v, &s->a, (struct outputs){TENSOR_NONE, &s->b, m.t}, n->t, TENSOR_NONE));

    struct pic skip = *x;
    if (s->shortcut.w.data) {
        skip = pic_beside(v, *x, n_out, n->in, m.in);
        TRY(point_conv(v, &s->shortcut, skip.t, x->t));
    }
    *x = pic_beside(v, skip, n_out, m.in, -1);
    *n = pic_beside(v, skip, n_out, m.in, x->in);
    const struct outputs o = {next == &v->head ? TENSOR_NONE : x->t, next, n->t};
    TRY(normed_conv(v, &s->b, o, m.t, skip.t));
    if (!next) n->t = TENSOR_NONE;
out:
    return e;
}

/* One head over the picture's positions, frame by frame; stage 0 has one frame a latent. */
static err_t run_attention(struct vae *v, struct pic *x)
{
    err_t e = OK;
    const int32_t C = x->t.shape[3], S = x->t.shape[1] * x->t.shape[2];
    MUST(x->t.shape[0] == 1);
    const struct pic n = pic_beside(v, *x, C, -1, -1);
    const struct pic qkv = pic_beside(v, *x, 3 * C, n.in, -1);
    const struct pic parts = pic_beside(v, *x, 3 * C, n.in, qkv.in);
    const struct tensor all = RESHAPE(parts.t, 3, S, 1, C);
    const struct tensor q = RESHAPE(tensor_rows(all, 0, 1), S, 1, C);
    const struct tensor k = RESHAPE(tensor_rows(all, 1, 1), S, 1, C);
    const struct tensor vv = RESHAPE(tensor_rows(all, 2, 1), S, 1, C);
    TRY(ops_l2_norm(v->d, n.t, x->t, v->attn_gamma, 0));
    TRY(point_conv(v, &v->to_qkv, qkv.t, n.t));
    TRY(ops_split3(v->d, RESHAPE(q, S, C), RESHAPE(k, S, C), RESHAPE(vv, S, C),
                   RESHAPE(qkv.t, S, 3 * C)));
    TRY(ops_attention(v->d, RESHAPE(n.t, S, 1, C), q, k, vv, TENSOR_NONE, TENSOR_NONE,
                      1.0f / sqrtf((float)C)));
    TRY(ops_linear_add(v->d, RESHAPE(x->t, S, C), RESHAPE(n.t, S, C), RESHAPE(v->proj.w, C, C),
                       v->proj.b, TENSOR_NONE));
out:
    return e;
}

/* Doubles time where the stage does, then space. */
static err_t run_upsampler(struct vae *v, const struct upsampler *u, struct pic *x)
{
    err_t e = OK;
    const int32_t T = x->t.shape[0], Y = x->t.shape[1], X = x->t.shape[2], C = x->t.shape[3];
    struct pic from = *x;
    if (u->time.w.data && v->r > 0) {
        const struct pic z = pic_beside(v, *x, 2 * C, -1, -1);
        TRY(causal_conv(v, &u->time, z.t, x->t, TENSOR_NONE));
        from = pic_in(v, x->in, 2 * T, Y, X, C);
        TRY(ops_split_frames(v->d, from.t, z.t));
    }
    struct pic to = pic_beside(v, from, C / 2, -1, -1);
    to = pic_in(v, to.in, from.t.shape[0], 2 * Y, 2 * X, C / 2);
    TRY(ops_upsample_conv(v->d, to.t, from.t, u->space.w, u->space.b));
    *x = to;
out:
    return e;
}

err_t vae_denorm(struct vae *v, struct tensor y, struct tensor latent)
{
    return ops_denorm(v->d, y, latent, v->inv_std, v->mean);
}

/* The ops of a latent, from the de-normalised picture in buffer 0 to v->pixels. */
static err_t run_latent(void *self)
{
    err_t e = OK;
    struct kind *k = self;
    struct vae *v = k->v;
    v->r = k->r;
    struct pic x = pic_in(v, 0, 1, v->rows, v->cols, v->z), n = {0};
    const struct pic y = pic_in(v, 1, 1, v->rows, v->cols, v->z);
    if (v->r == 0) TRY(dev_zero(v->d, v->state, 2 * v->set_bytes));
    TRY(point_conv(v, &v->conv2, y.t, x.t));
    x = pic_in(v, 0, 1, v->rows, v->cols, width_of(v, 0));
    TRY(causal_conv(v, &v->conv1, x.t, y.t, TENSOR_NONE));

    TRY(run_res(v, &v->middle[0], &x, &n, NULL));
    TRY(run_attention(v, &x));
    TRY(run_res(v, &v->middle[1], &x, &n, &v->res[0][0].a));
    for (int32_t i = 0; i < STAGES; i++) {
        if (v->beat) v->beat(v->beat_self);
        for (int32_t j = 0; j < RES_PER_STAGE; j++) {
            const struct conv *const next = j < RES_PER_STAGE - 1 ? &v->res[i][j + 1].a
                                            : i == STAGES - 1     ? &v->head
                                                                  : NULL;
            TRY(run_res(v, &v->res[i][j], &x, &n, next));
        }
        if (i < STAGES - 1) TRY(run_upsampler(v, &v->up[i], &x));
    }
    struct pic out_pic = pic_beside(v, n, 3, -1, -1);
    out_pic.t.dtype = DTYPE_F32;
    TRY(normed_conv(v, &v->head, (struct outputs){.y = out_pic.t}, n.t, TENSOR_NONE));
    k->pixels = out_pic.t;
out:
    return e;
}

void vae_bind_state(struct vae *v, void *base)
{
    v->state = base;
    for (int32_t i = 0; i < KINDS; i++) v->kinds[i] = (struct kind){.v = v, .r = i};
}

static struct kind *kind_of(struct vae *v, int64_t r)
{
    return &v->kinds[r == 0 ? 0 : 2 - r % 2];
}

err_t vae_record(struct vae *v, int64_t r)
{
    struct kind *k = kind_of(v, r);
    return k->graph ? OK : dev_record(v->d, &k->graph, run_latent, k);
}

err_t vae_record_next(struct vae *v)
{
    for (int32_t i = KINDS - 1; i >= 0; i--)
        if (!v->kinds[i].graph) return vae_record(v, i);
    return OK;
}

int32_t vae_kinds(const struct vae *v, int32_t *n_recorded)
{
    *n_recorded = 0;
    for (int32_t i = 0; i < KINDS; i++) *n_recorded += v->kinds[i].graph != NULL;
    return KINDS;
}

err_t vae_record_all(struct vae *v)
{
    err_t e = OK;
    for (int32_t i = 0; i < KINDS; i++) TRY(vae_record(v, i));
out:
    return e;
}

err_t vae_decode(struct vae *v, struct tensor rgb, struct tensor latent, int64_t r,
                 void (*beat)(void *self), void *self)
{
    err_t e = OK;
    const struct pic x = pic_in(v, 0, 1, v->rows, v->cols, v->z);
    struct kind *k = kind_of(v, r);
    v->beat = beat;
    v->beat_self = self;
    TRY(vae_record(v, r));
    TRY(vae_denorm(v, RESHAPE(x.t, v->rows, v->cols, v->z), latent));
    TRY(dev_replay(v->d, k->graph));
    v->pixels = k->pixels;
    TRY(ops_to_rgb8(v->d, rgb, v->pixels));
    TRY(vae_record_next(v)); /* the host has nothing else to do while the device works */
out:
    return e;
}

struct tensor vae_pixels(const struct vae *v)
{
    return v->pixels;
}
