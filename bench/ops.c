/* ops.c - each op of kernels/ops.h at the shapes that the demo gives it, with 1 and 2 threads.
 *
 * The shape column names the op's tensors in the order of its arguments, as many as fit. An op with
 * a matrix product has its FLOP as the floor and runs with warm caches, as in a pass. The others
 * are bound by memory: caches are emptied before each run, and each tensor counts once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "kernels/ops.h"
#include "common/conf.h"

enum { ARGS_MAX = 9, SHAPE_MAX = 41 };
static const float EPS = 1e-6f;

struct arg {
    enum dtype dtype;
    int32_t rank, shape[TENSOR_RANK_MAX];
    int32_t first; /* i32: element i is first + i */
};

#define COUNT(...) ((int32_t)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))
#define F(...)                                                                                     \
    {                                                                                              \
        DTYPE_F32, COUNT(__VA_ARGS__), {__VA_ARGS__}, 0                                            \
    }
#define I(start, ...)                                                                              \
    {                                                                                              \
        DTYPE_I32, COUNT(__VA_ARGS__), {__VA_ARGS__}, (start)                                      \
    }
#define U8(...)                                                                                    \
    {                                                                                              \
        DTYPE_U8, COUNT(__VA_ARGS__), {__VA_ARGS__}, 0                                             \
    }
#define KEY                                                                                        \
    {                                                                                              \
        DTYPE_U64, 1, {2}, 0                                                                       \
    }
#define ABSENT                                                                                     \
    {                                                                                              \
        DTYPE_F32, 0, {0}, 0                                                                       \
    }

struct op {
    const char *name;
    err_t (*run)(void *self);
    double flops, bytes; /* least it must move; 0: each tensor once */
    struct arg args[ARGS_MAX];
};

struct rig {
    struct dev *d;
    const struct conf *conf;
    void *memory;
    struct tensor t[ARGS_MAX];
};

/* run_NAME: the call, and the end of it. */
#define RUN(name, call)                                                                            \
    static err_t run_##name(void *self)                                                            \
    {                                                                                              \
        const struct rig *r = self;                                                                \
        const struct tensor *t = r->t;                                                             \
        struct dev *d = r->d;                                                                      \
        const err_t e = call;                                                                      \
        return e == OK ? dev_sync(d) : e;                                                          \
    }

/* A block's K and V into one layer's cache. ring: to their slots. roll: as a cache without slots
 * does it; what stays is cloned, moved up behind the sink, and the block comes behind it. */
static err_t kv_ring(struct dev *d, const struct tensor *t)
{
    err_t e = OK;
    for (int i = 0; i < 2; i++) TRY(dev_copy(d, t[i].data, t[2 + i].data, tensor_bytes(t[2 + i])));
out:
    return e;
}

static err_t kv_roll(struct dev *d, const struct tensor *t)
{
    err_t e = OK;
    const int32_t S = t[2].shape[0], stays = t[0].shape[0] - 2 * S; /* the sink is a block, too */
    for (int i = 0; i < 2; i++) {
        const struct tensor to = tensor_rows(t[i], S, stays), clone = tensor_rows(t[4], 0, stays);
        TRY(dev_copy(d, clone.data, tensor_rows(t[i], 2 * S, stays).data, tensor_bytes(clone)));
        TRY(dev_copy(d, to.data, clone.data, tensor_bytes(to)));
        TRY(dev_copy(d, tensor_rows(t[i], S + stays, S).data, t[2 + i].data,
                     tensor_bytes(t[2 + i])));
    }
out:
    return e;
}
RUN(kv_ring, kv_ring(d, t))
RUN(kv_roll, kv_roll(d, t))

#define ROWS (r->conf->model.latent_rows / 2)
#define COLS (r->conf->model.latent_cols / 2)
RUN(linear, ops_linear(d, t[0], t[1], t[2], t[3]))
RUN(linear_gelu, ops_linear_gelu(d, t[0], t[1], t[2], t[3]))
RUN(linear_add, ops_linear_add(d, t[0], t[1], t[2], t[3], t[4]))
RUN(rms_norm, ops_rms_norm(d, t[0], t[1], t[2], EPS))
RUN(layer_norm, ops_layer_norm(d, t[0], t[1], t[2], t[3], EPS))
RUN(norm_modulate, ops_norm_modulate(d, t[0], t[1], t[2], t[3], EPS))
RUN(l2_norm, ops_l2_norm(d, t[0], t[1], t[2], 1))
RUN(silu, ops_silu(d, t[0], t[1]))
RUN(add, ops_add(d, t[0], t[1], t[2]))
RUN(gelu_mul, ops_gelu_mul(d, t[0], t[1], t[2]))
RUN(embed, ops_embed(d, t[0], t[1], t[2]))
RUN(attention, ops_attention(d, t[0], t[1], t[2], t[3], t[4], t[5], 0.088f))
RUN(attention_t5, ops_attention_t5(d, t[0], t[1], t[2], t[3], t[4]))
RUN(qkv_rope_cache, ops_qkv_rope_cache(d, t[0], t[1], t[2], TENSOR_NONE, t[3], t[4], t[5], t[6],
                                       t[7], t[8], ROWS, COLS, EPS))
RUN(rope_sink, ops_rope_sink(d, t[0], t[1], t[2], t[3], ROWS, COLS))
RUN(patchify, ops_patchify(d, t[0], t[1]))
RUN(unpatchify, ops_unpatchify(d, t[0], t[1]))
RUN(flow_to_x0, ops_flow_to_x0(d, t[0], t[1], t[2], 0.9f))
RUN(renoise, ops_renoise(d, t[0], t[1], t[2], 0.9f))
RUN(randn, ops_randn(d, t[0], t[1], 0, 1))
RUN(denorm, ops_denorm(d, t[0], t[1], t[2], t[3]))
RUN(conv3d, ops_conv3d(d, t[0], t[1], t[2], t[3], t[4], t[5]))
RUN(upsample_conv, ops_upsample_conv(d, t[0], t[1], t[2], t[3]))
RUN(split_frames, ops_split_frames(d, t[0], t[1]))
RUN(split3, ops_split3(d, t[0], t[1], t[2], t[3]))
RUN(to_rgb8, ops_to_rgb8(d, t[0], t[1]))

/* --- a row ------------------------------------------------------------------------------------ */

static size_t room_of(const struct arg *a)
{
    if (a->rank == 0) return 0;
    return (tensor_bytes(tensor_of(NULL, a->dtype, a->rank, a->shape)) + 255) / 256 * 256;
}

static err_t fill(struct rig *r, struct tensor t, int32_t first)
{
    err_t e = OK;
    if (t.dtype == DTYPE_I32) {
        for (int32_t i = 0; i < (int32_t)tensor_count(t); i++) {
            const int32_t v = first + i;
            TRY(dev_upload(r->d, (int32_t *)t.data + i, &v, sizeof v));
        }
    } else if (t.dtype == DTYPE_F32) {
        const uint64_t key[2] = {1, (uint64_t)tensor_count(t)};
        TRY(dev_upload(r->d, r->memory, key, sizeof key));
        TRY(ops_randn(r->d, t, TENSOR(r->memory, DTYPE_U64, 2), 0, 1));
    }
    TRY(dev_sync(r->d));
out:
    return e;
}

static err_t place(struct rig *r, const struct op *op)
{
    err_t e = OK;
    size_t n_bytes = 256; /* the first: a key to draw with */
    for (int i = 0; i < ARGS_MAX; i++) n_bytes += room_of(&op->args[i]);
    TRY(dev_alloc(r->d, n_bytes, &r->memory));
    char *at = (char *)r->memory + 256;
    for (int i = 0; i < ARGS_MAX; i++) {
        const struct arg *a = &op->args[i];
        r->t[i] = a->rank ? tensor_of(at, a->dtype, a->rank, a->shape) : TENSOR_NONE;
        if (a->rank) TRY(fill(r, r->t[i], a->first));
        at += room_of(a);
    }
out:
    return e;
}

/* "72x256, 72x256, 256x256": as many as fit. */
static void write_shape(char *out, size_t cap, const struct op *op)
{
    size_t n = 0;
    for (int i = 0; i < ARGS_MAX; i++) {
        char one[48];
        size_t k = 0;
        for (int32_t j = 0; j < op->args[i].rank; j++)
            k += (size_t)snprintf(one + k, sizeof one - k, "%s%d",
                                  j   ? "x"
                                  : n ? ", "
                                      : "",
                                  op->args[i].shape[j]);
        if (k == 0) continue;
        if (n + k + 5 > cap) {
            snprintf(out + n, cap - n, " ..");
            return;
        }
        memcpy(out + n, one, k + 1);
        n += k;
    }
}

static err_t bench_op(struct bench *b, struct rig *r, const struct op *op)
{
    err_t e = OK;
    struct bench_case c = {.name = op->name,
                           .threads = dev_threads(r->d),
                           .is_cold = op->flops == 0,
                           .flops = op->flops,
                           .run = op->run,
                           .self = r};
    TRY(place(r, op));
    c.bytes = op->bytes;
    for (int i = 0; i < ARGS_MAX && op->bytes == 0; i++)
        if (r->t[i].rank) c.bytes += (double)tensor_bytes(r->t[i]);
    write_shape(c.shape, SHAPE_MAX, op);
    TRY(bench_run(b, &c));
out:
    dev_free(r->d, &r->memory);
    return e;
}

static err_t bench_ops(struct bench *b, struct rig *r, const struct op *ops, size_t n)
{
    err_t e = OK;
    for (size_t i = 0; i < n; i++) TRY(bench_op(b, r, &ops[i]));
out:
    return e;
}
#define BENCH_OPS(ops) bench_ops(b, r, (ops), sizeof(ops) / sizeof *(ops))

/* --- the rows --------------------------------------------------------------------------------- */

/* A block of three frames that looks at a full window. */
static err_t bench_dit(struct bench *b, struct rig *r)
{
    const struct conf *c = r->conf;
    const int32_t B = c->dit.block, T = conf_frame_tokens(c), S = B * T, M = c->dit.window * T;
    const int32_t C = c->dit.dim, N = c->dit.heads, D = C / N, H = c->dit.ffn_dim;
    const int32_t ps = D / 6, pt = D / 2 - 2 * ps, K = c->text.text_len, P = c->dit.sink * T;
    const int32_t G = ROWS > COLS ? ROWS : COLS;
    const double s = S, m = M;
    const struct op ops[] = {
        {"linear", run_linear, 2 * s * C * 3 * C, 0, {F(S, 3 * C), F(S, C), F(3 * C, C), F(3 * C)}},
        {"linear_gelu", run_linear_gelu, 2 * s * C * H, 0, {F(S, H), F(S, C), F(H, C), F(H)}},
        {"linear_add", run_linear_add, 2 * s * C * H, 0, {F(S, C), F(S, H), F(C, H), F(C), F(C)}},
        {"rms_norm", run_rms_norm, 0, 0, {F(S, C), F(S, C), F(C)}},
        {"layer_norm", run_layer_norm, 0, 0, {F(S, C), F(S, C), F(C), F(C)}},
        {"norm_modulate", run_norm_modulate, 0, 0, {F(S, C), F(S, C), F(C), F(C)}},
        {"silu", run_silu, 0, 0, {F(1, C), F(1, C)}},
        {"add", run_add, 0, 0, {F(6 * C), F(6 * C), F(6 * C)}},
        {"attention",
         run_attention,
         4 * s * m * C,
         0,
         {F(S, N, D), F(S, N, D), F(M, N, D), F(M, N, D), I(M, 1)}},
        {"attention",
         run_attention,
         4 * s * K * C,
         0,
         {F(S, N, D), F(S, N, D), F(K, N, D), F(K, N, D), I(K, 1), F(1)}},
        {"qkv_rope_cache",
         run_qkv_rope_cache,
         0,
         6 * s * C * 4,
         {F(S, N, D), F(M, N, D), F(M, N, D), F(S, 3 * C), F(C), F(C), I(c->dit.sink, B),
          F(B, pt, 2), F(G, ps, 2)}},
        {"kv.ring", run_kv_ring, 0, 4 * s * C * 4, {F(M, C), F(M, C), F(S, C), F(S, C)}},
        {"kv.roll", run_kv_roll, 0, 4 * s * C * 4, {F(M, C), F(M, C), F(S, C), F(S, C), F(M, C)}},
        {"rope_sink",
         run_rope_sink,
         0,
         2.0 * P * C * 4,
         {F(M, N, D), F(P, N, D), F(c->dit.sink, pt, 2), F(G, ps, 2)}},
    };
    return BENCH_OPS(ops);
}

static err_t bench_latents(struct bench *b, struct rig *r)
{
    const struct conf *c = r->conf;
    const int32_t B = c->dit.block, Z = c->model.latent_channels, Y = c->model.latent_rows;
    const int32_t X = c->model.latent_cols, S = B * conf_frame_tokens(c);
    const struct op ops[] = {
        {"patchify", run_patchify, 0, 0, {F(S, 4 * Z), F(B, Z, Y, X)}},
        {"unpatchify", run_unpatchify, 0, 0, {F(B, Z, Y, X), F(S, 4 * Z)}},
        {"flow_to_x0", run_flow_to_x0, 0, 0, {F(B, Z, Y, X), F(B, Z, Y, X), F(B, Z, Y, X)}},
        {"renoise", run_renoise, 0, 0, {F(B, Z, Y, X), F(B, Z, Y, X), F(B, Z, Y, X)}},
        {"randn", run_randn, 0, 0, {F(B, Z, Y, X), KEY}},
        {"denorm", run_denorm, 0, 0, {F(Y, X, Z), F(Z, Y, X), F(Z), F(Z)}},
    };
    return BENCH_OPS(ops);
}

/* A prompt of 32 tokens. */
static err_t bench_text(struct bench *b, struct rig *r)
{
    const struct conf *c = r->conf;
    const int32_t S = 32, E = c->text.dim, H = c->text.ffn_dim, N = c->text.heads;
    const int32_t D = c->text.head_dim;
    const struct op ops[] = {
        {"embed", run_embed, 0, 2.0 * S * E * 4, {F(S, E), F(c->text.vocab, E), I(0, S)}},
        {"attention_t5",
         run_attention_t5,
         4.0 * S * S * N * D,
         0,
         {F(S, N, D), F(S, N, D), F(S, N, D), F(S, N, D), F(32, N)}},
        {"gelu_mul", run_gelu_mul, 0, 0, {F(S, H), F(S, H), F(S, H)}},
    };
    return BENCH_OPS(ops);
}

/* The widest and the largest layer of the decoder, and what stands between. */
static err_t bench_vae(struct bench *b, struct rig *r)
{
    const struct conf *c = r->conf;
    const int32_t Y = c->model.latent_rows, X = c->model.latent_cols, d = c->vae.base_dim;
    const int32_t W = 4 * d, Yp = 8 * Y, Xp = 8 * X;
    const double p = (double)Y * X, P = (double)Yp * Xp;
    const struct op ops[] = {
        {"conv3d",
         run_conv3d,
         2 * p * 27 * W * W,
         0,
         {F(1, Y, X, W), F(1, Y, X, W), F(2, Y, X, W), F(W, 3, 3, 3, W), F(W), F(1, Y, X, W)}},
        {"conv3d",
         run_conv3d,
         2 * 4 * P * 27 * d * d,
         0,
         {F(4, Yp, Xp, d), F(4, Yp, Xp, d), F(2, Yp, Xp, d), F(d, 3, 3, 3, d), F(d),
          F(4, Yp, Xp, d)}},
        {"conv3d",
         run_conv3d,
         2 * 4 * P * 27 * d * 3,
         0,
         {F(4, Yp, Xp, 3), F(4, Yp, Xp, d), F(2, Yp, Xp, d), F(3, 3, 3, 3, d), F(3), ABSENT}},
        {"upsample_conv",
         run_upsample_conv,
         2 * 4 * P * 9 * 2 * d * d,
         0,
         {F(4, Yp, Xp, d), F(4, Yp / 2, Xp / 2, 2 * d), F(d, 1, 3, 3, 2 * d), F(d)}},
        {"l2_norm", run_l2_norm, 0, 0, {F(4, Yp, Xp, d), F(4, Yp, Xp, d), F(d)}},
        {"split_frames",
         run_split_frames,
         0,
         0,
         {F(2, 2 * Y, 2 * X, W), F(1, 2 * Y, 2 * X, 2 * W)}},
        {"split3", run_split3, 0, 0, {F(Y * X, W), F(Y * X, W), F(Y * X, W), F(Y * X, 3 * W)}},
        {"to_rgb8", run_to_rgb8, 0, 0, {U8(4, Yp, Xp, 3), F(4, Yp, Xp, 3)}},
    };
    return BENCH_OPS(ops);
}

static err_t bench_all(struct bench *b, const struct conf *conf, int32_t threads)
{
    err_t e = OK;
    struct rig r = {.conf = conf};
    TRY(dev_open(&r.d, "cpu", threads));
    TRY(ops_open(r.d));
    TRY(bench_dit(b, &r));
    TRY(bench_latents(b, &r));
    TRY(bench_text(b, &r));
    TRY(bench_vae(b, &r));
out:
    if (r.d) ops_close(r.d);
    dev_close(&r.d);
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct bench *b = NULL;
    struct conf conf;
    (void)argc;
    TRY(bench_open(&b, argv));
    TRY(conf_load(&conf, "configs/demo.ini", NULL, 0));
    for (int32_t threads = 1; threads <= BENCH_THREADS_MAX; threads++)
        TRY(bench_all(b, &conf, threads));
out:
    bench_close(&b);
    return bench_exit(e);
}
