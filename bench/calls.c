/* calls.c - see calls.h. */
#include "bench/calls.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/parts.h"
#include "bench/rig.h"
#include "kernels/ops.h"

enum { LAYERS = 2 };
static const float EPS = 1e-6f;

/* --- running one ------------------------------------------------------------------------------ */

/* ring: to their slots. roll: what stays is cloned, moved up behind the sink, which is a block, and
 * the new block comes behind it. t: rings of K and V, the block's, and for roll the clone's. */
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
    const int32_t S = t[2].shape[0], stays = t[0].shape[0] - 2 * S;
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

/* run_NAME: the call with a kind's tensors. Y X: rows and columns of a frame's tokens. */
#define RUN(name, call)                                                                            \
    static err_t run_##name(struct dev *d, const struct tensor *t, int32_t Y, int32_t X)           \
    {                                                                                              \
        (void)Y;                                                                                   \
        (void)X;                                                                                   \
        return call;                                                                               \
    }
RUN(linear, ops_linear(d, t[0], t[1], t[2], t[3]))
RUN(linear_gelu, ops_linear_gelu(d, t[0], t[1], t[2], t[3]))
RUN(linear_add, ops_linear_add(d, t[0], t[1], t[2], t[3], t[4]))
RUN(linear_add_norm,
    ops_linear_add_norm(d, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], true, EPS))
RUN(rms_norm, ops_rms_norm(d, t[0], t[1], t[2], EPS))
RUN(layer_norm, ops_layer_norm(d, t[0], t[1], t[2], t[3], EPS))
RUN(norm_modulate, ops_norm_modulate(d, t[0], t[1], t[2], t[3], EPS))
RUN(l2_norm, ops_l2_norm(d, t[0], t[1], t[2], 1))
RUN(silu, ops_silu(d, t[0], t[1]))
RUN(cast, ops_cast(d, t[0], t[1]))
RUN(add, ops_add(d, t[0], t[1], t[2]))
RUN(gelu_mul, ops_gelu_mul(d, t[0], t[1], t[2]))
RUN(embed, ops_embed(d, t[0], t[1], t[2]))
RUN(attention,
    ops_attention(d, t[0], t[1], t[2], t[3], t[4], t[5], 1.0f / sqrtf((float)t[1].shape[2])))
RUN(attention_t5, ops_attention_t5(d, t[0], t[1], t[2], t[3], t[4]))
RUN(qkv_rope_cache,
    ops_qkv_rope_cache(d, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], Y, X, EPS))
RUN(rope_sink, ops_rope_sink(d, t[0], t[1], t[2], t[3], Y, X))
RUN(patchify, ops_patchify(d, t[0], t[1]))
RUN(unpatchify, ops_unpatchify(d, t[0], t[1]))
RUN(flow_to_x0, ops_flow_to_x0(d, t[0], t[1], t[2], 0.9f))
RUN(renoise, ops_renoise(d, t[0], t[1], t[2], 0.9f))
RUN(randn, ops_randn(d, t[0], t[1], 0, 1))
RUN(denorm, ops_denorm(d, t[0], t[1], t[2], t[3]))
RUN(conv3d, ops_conv3d(d, t[0], t[1], t[2], t[3], t[4], t[5]))
RUN(conv3d_norm, ops_conv3d_norm(d, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]))
RUN(upsample_conv, ops_upsample_conv(d, t[0], t[1], t[2], t[3]))
RUN(split_frames, ops_split_frames(d, t[0], t[1]))
RUN(split3, ops_split3(d, t[0], t[1], t[2], t[3]))
RUN(to_rgb8, ops_to_rgb8(d, t[0], t[1]))
RUN(ring, kv_ring(d, t))
RUN(roll, kv_roll(d, t))

#define ROW(name)                                                                                  \
    {                                                                                              \
#name, run_##name                                                                          \
    }
static const struct {
    const char *op;
    err_t (*run)(struct dev *d, const struct tensor *t, int32_t Y, int32_t X);
} table[] = {ROW(linear),      ROW(linear_gelu),   ROW(linear_add),    ROW(linear_add_norm),
             ROW(rms_norm),    ROW(layer_norm),    ROW(norm_modulate), ROW(l2_norm),
             ROW(silu),        ROW(cast),          ROW(add),           ROW(gelu_mul),
             ROW(embed),       ROW(attention),     ROW(attention_t5),  ROW(qkv_rope_cache),
             ROW(rope_sink),   ROW(patchify),      ROW(unpatchify),    ROW(flow_to_x0),
             ROW(renoise),     ROW(randn),         ROW(denorm),        ROW(conv3d),
             ROW(conv3d_norm), ROW(upsample_conv), ROW(split_frames),  ROW(split3),
             ROW(to_rgb8),     ROW(ring),          ROW(roll)};

err_t calls_run(const struct call *k, struct dev *d, const struct tensor *t,
                const struct conf *conf)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].op, k->op) == 0)
            return table[i].run(d, t, conf->model.latent_rows / 2, conf->model.latent_cols / 2);
    return FAIL(ERR_BUG, "%s: no bench knows this op", k->op);
}

/* --- collecting ------------------------------------------------------------------------------- */

static bool is_same_tensor(struct tensor a, struct tensor b)
{
    return a.rank == b.rank &&
           (a.rank == 0 || (a.dtype == b.dtype &&
                            memcmp(a.shape, b.shape, (size_t)a.rank * sizeof *a.shape) == 0));
}

static bool is_same(const struct call *a, const struct call *b)
{
    if (strcmp(a->op, b->op) != 0 || strcmp(a->stage, b->stage) != 0) return false;
    for (int32_t i = 0; i < CALL_ARGS_MAX; i++)
        if (!is_same_tensor(a->t[i], b->t[i])) return false;
    return true;
}

static err_t keep(struct calls *c, struct call *k, int32_t i)
{
    err_t e = OK;
    const struct tensor t = k->t[i];
    if (t.dtype != DTYPE_I32 && t.dtype != DTYPE_U64) return OK;
    k->kept[i] = malloc(tensor_bytes(t));
    if (!k->kept[i]) return FAIL(ERR_NOMEM, "calls");
    TRY(dev_download(c->d, k->kept[i], t.data, tensor_bytes(t)));
    TRY(dev_sync(c->d));
out:
    return e;
}

/* k, unless one of its kind is there; integers from where its tensors point. */
static err_t put(struct calls *c, struct call k)
{
    err_t e = OK;
    for (int32_t i = 0; i < c->n; i++)
        if (is_same(&c->call[i], &k)) return OK;
    if (c->n == CALLS_MAX) return FAIL(ERR_LIMIT, "more than %d kinds of call", CALLS_MAX);
    struct call *to = &c->call[c->n++];
    *to = k;
    for (int32_t i = 0; i < k.n_args; i++)
        if (k.t[i].data) TRY(keep(c, to, i));
    for (int32_t i = 0; i < k.n_args; i++) to->t[i].data = NULL;
out:
    return e;
}

static void see(void *self, const char *op, const struct tensor *t, size_t n)
{
    struct calls *c = self;
    struct call k = {.stage = c->stage, .op = op, .n_args = (int32_t)n};
    MUST(n <= CALL_ARGS_MAX);
    if (c->e != OK || strcmp(op, "keep") == 0) return; /* keep: nothing is done outside parity */
    memcpy(k.t, t, n * sizeof *t);
    k.flops = parts_flops(op, t);
    k.bytes = parts_bytes(op, t, n);
    c->e = put(c, k);
}

static err_t watch(struct calls *c, struct dev *d, const char *stage, err_t (*run)(void *),
                   void *self)
{
    c->d = d;
    c->stage = stage;
    ops_watch(see, c);
    const err_t e = run(self);
    ops_watch(NULL, NULL);
    return e == OK ? c->e : e;
}

static err_t collect_text(struct calls *c, const struct conf *conf, const char *device)
{
    err_t e = OK;
    struct rig_text t = {0};
    TRY(rig_text_open(&t, conf, device));
    t.n = (conf->text.text_len + 7) / 8;
    TRY(watch(c, t.rig.d, "text", rig_text_run, &t));
    t.n = conf->text.text_len;
    TRY(watch(c, t.rig.d, "text", rig_text_run, &t));
out:
    rig_text_close(&t);
    return e;
}

static err_t set_prompt(void *self)
{
    struct rig_dit *t = self;
    return dit_set_prompt(t->model, 0, t->rig.conf.text.text_len);
}

/* Beside what was seen of the ring: see calls.h. */
static err_t put_kv(struct calls *c, const struct conf *conf)
{
    err_t e = OK;
    const struct call *seen = NULL;
    for (int32_t i = 0; i < c->n; i++)
        if (strcmp(c->call[i].op, "qkv_rope_cache") == 0) seen = &c->call[i];
    MUST(seen);
    const struct tensor q = seen->t[0], ring = seen->t[1], rot_t = seen->t[8];
    struct call k = {"kv", "ring", 4, {ring, ring, q, q}, {NULL}, 0, 4 * (double)tensor_bytes(q)};
    TRY(put(c, k));
    k.op = "roll";
    k.t[k.n_args++] = ring;
    TRY(put(c, k));
    if (conf->dit.sink == 0 || conf->dit.rope == ROPE_RELATIVE) return OK;
    const struct tensor sink =
        TENSOR(NULL, q.dtype, conf->dit.sink * conf_frame_tokens(conf), q.shape[1], q.shape[2]);
    const struct tensor rot = TENSOR(NULL, rot_t.dtype, conf->dit.sink, rot_t.shape[1], 2);
    k = (struct call){"dit", "rope_sink", 4, {ring, sink, rot, seen->t[9]}, {NULL}, 0, 0};
    k.bytes = parts_bytes(k.op, k.t, (size_t)k.n_args);
    TRY(put(c, k));
out:
    return e;
}

static err_t collect_dit(struct calls *c, const struct conf *conf, const char *device)
{
    err_t e = OK;
    struct rig_dit t = {0};
    TRY(rig_dit_open(&t, conf, device));
    TRY(watch(c, t.rig.d, "dit", rig_dit_block, &t));
    TRY(watch(c, t.rig.d, "dit", set_prompt, &t));
    TRY(put_kv(c, conf));
out:
    rig_dit_close(&t);
    return e;
}

static err_t collect_vae(struct calls *c, const struct conf *conf, const char *device)
{
    err_t e = OK;
    struct rig_vae t = {0};
    TRY(rig_vae_open(&t, conf, device));
    TRY(rig_vae_run(&t));
    TRY(watch(c, t.rig.d, "vae", rig_vae_run, &t));
out:
    rig_vae_close(&t);
    return e;
}

err_t calls_collect(struct calls *c, const struct conf *conf, const char *device)
{
    err_t e = OK;
    struct conf few = *conf;
    few.gpu.graphs = false; /* a recorded pass calls no op */
    few.model.parity = PARITY_CLEAN;
    few.text.layers = few.dit.layers = LAYERS;
    TRY(collect_text(c, &few, device));
    TRY(collect_dit(c, &few, device));
    TRY(collect_vae(c, &few, device));
out:
    return e;
}

void calls_drop(struct calls *c)
{
    for (int32_t i = 0; i < c->n; i++)
        for (int32_t a = 0; a < CALL_ARGS_MAX; a++) free(c->call[i].kept[a]);
    c->n = 0;
}

void calls_text(const struct call *k, char *out, size_t cap)
{
    const char *const y = dtype_name(k->t[0].dtype), *const x = dtype_name(k->t[1].dtype);
    parts_shape(k->op, k->t, out, cap);
    const bool has_residual = strncmp(k->op, "conv3d", 6) == 0 && k->t[5].rank;
    const bool keeps = strcmp(k->op, "conv3d_norm") == 0 && k->t[7].rank;
    const bool has_gate = strncmp(k->op, "linear_add", 10) == 0 && k->t[4].rank;
    const size_t n = strlen(out);
    snprintf(out + n, cap - n, " %s%s%s%s%s%s", x, strcmp(x, y) == 0 ? "" : " to ",
             strcmp(x, y) == 0 ? "" : y, has_residual ? " residual" : "", keeps ? " kept" : "",
             has_gate ? " gated" : "");
}
