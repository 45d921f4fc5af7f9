/* rig.c - see rig.h. */
#include "bench/rig.h"

#include <stdlib.h>

#include "kernels/ops.h"
#include "procs/dit/plan.h"

enum { FULL_BLOCKS = 4, BLOCKS_MAX = 300 };

static err_t open_rig(struct rig *x, const struct conf *c, const char *place)
{
    err_t e = OK;
    x->conf = *c;
    TRY(dev_open(&x->d, place, c->cpu.threads));
    dev_set_graphs(x->d, c->gpu.graphs);
    TRY(ops_open(x->d));
    ops_set_bf16(x->d, c->model.parity == PARITY_REFERENCE);
    TRY(weights_open(&x->weights));
out:
    return e;
}

/* After the model has declared what it wants. */
static err_t fill(struct rig *x)
{
    err_t e = OK;
    TRY(dev_alloc(x->d, weights_bytes(x->weights), &x->weights_memory));
    weights_bind(x->weights, x->weights_memory);
    TRY(weights_fill(x->weights, x->d, x->conf.model.weights, NULL, NULL));
out:
    return e;
}

static void close_rig(struct rig *x)
{
    weights_close(&x->weights);
    if (!x->d) return;
    dev_free(x->d, &x->weights_memory);
    dev_free(x->d, &x->memory);
    ops_close(x->d);
    dev_close(&x->d);
}

static void no_beat(void *self)
{
    (void)self;
}

/* --- text ------------------------------------------------------------------------------------- */

err_t rig_text_open(struct rig_text *t, const struct conf *c, const char *place)
{
    err_t e = OK;
    TRY(open_rig(&t->rig, c, place));
    TRY(umt5_open(&t->model, t->rig.d, c, t->rig.weights));
    TRY(fill(&t->rig));
    t->n = c->text.text_len;
    t->ids = malloc((size_t)t->n * sizeof *t->ids);
    t->out = malloc((size_t)t->n * (size_t)c->text.dim * sizeof *t->out);
    if (!t->ids || !t->out) return FAIL(ERR_NOMEM, "text");
    for (int32_t i = 0; i < t->n; i++) t->ids[i] = 3 + i * 7 % (c->text.vocab - 3);
out:
    return e;
}

err_t rig_text_run(void *self)
{
    struct rig_text *t = self;
    return umt5_encode(t->model, t->ids, t->n, t->out, no_beat, NULL);
}

void rig_text_close(struct rig_text *t)
{
    free(t->ids);
    free(t->out);
    umt5_close(&t->model);
    close_rig(&t->rig);
}

/* --- dit -------------------------------------------------------------------------------------- */

static err_t draw(struct rig_dit *t, struct tensor to, uint64_t stream)
{
    err_t e = OK;
    const uint64_t key[2] = {1, stream};
    TRY(dev_upload(t->rig.d, t->key.data, key, sizeof key));
    TRY(ops_randn(t->rig.d, to, t->key, 0, 1));
    TRY(dev_sync(t->rig.d));
out:
    return e;
}

static int64_t first_of(const struct rig_dit *t)
{
    return t->block * t->rig.conf.dit.block;
}

err_t rig_dit_pass(void *self)
{
    err_t e = OK;
    struct rig_dit *t = self;
    struct dev *d = t->rig.d;
    const struct sched *s = dit_sched(t->model);
    const struct tensor clean = tensor_rows(t->frames, 0, t->rig.conf.dit.block);
    if (t->step == SCHED_CLEAN) {
        TRY(dit_pass(t->model, TENSOR_NONE, clean, SCHED_CLEAN, first_of(t), 0));
    } else {
        TRY(dit_pass(t->model, t->flow, t->x, t->step, first_of(t), 0));
        TRY(ops_flow_to_x0(d, t->x, t->x, t->flow, s->sigma[t->step]));
    }
    TRY(dev_sync(d));
out:
    return e;
}

err_t rig_dit_block(void *self)
{
    err_t e = OK;
    struct rig_dit *t = self;
    struct dev *d = t->rig.d;
    const struct sched *s = dit_sched(t->model);
    TRY(draw(t, t->x, (uint64_t)t->block));
    for (t->step = 0; t->step < s->n_steps; t->step++) {
        TRY(rig_dit_pass(t));
        if (t->step + 1 == s->n_steps) continue;
        TRY(draw(t, t->eps, (uint64_t)t->block));
        TRY(ops_renoise(d, t->x, t->x, t->eps, s->sigma[t->step + 1]));
    }
    TRY(dev_copy(d, t->frames.data, t->x.data, tensor_bytes(t->x)));
    t->step = SCHED_CLEAN;
    TRY(rig_dit_pass(t));
    t->block = t->block + 1 < BLOCKS_MAX ? t->block + 1 : FULL_BLOCKS; /* positions end at 1023 */
out:
    return e;
}

static void plan(const struct rig_dit *t, int64_t *first, int32_t *n)
{
    const struct conf *c = &t->rig.conf;
    plan_recache(c, c->dit.window, DECISION_SWITCH, first_of(t), 0, first, n);
}

int32_t rig_dit_recached(const struct rig_dit *t)
{
    int64_t first;
    int32_t n;
    plan(t, &first, &n);
    return n;
}

err_t rig_dit_recache(void *self)
{
    err_t e = OK;
    struct rig_dit *t = self;
    int64_t first;
    int32_t n;
    plan(t, &first, &n);
    TRY(dit_pass(t->model, TENSOR_NONE, tensor_rows(t->frames, 0, n), SCHED_CLEAN, first, 0));
    TRY(dev_sync(t->rig.d));
out:
    return e;
}

static err_t dit_memory(struct rig_dit *t)
{
    err_t e = OK;
    const struct conf *c = &t->rig.conf;
    const int32_t z = c->model.latent_channels, Y = c->model.latent_rows, X = c->model.latent_cols;
    const int32_t B = c->dit.block, W = c->dit.window, n = z * Y * X;
    float *at;
    TRY(dev_alloc(t->rig.d, sizeof(uint64_t[2]) + (size_t)(n * (3 * B + W)) * sizeof(float),
                  &t->rig.memory));
    t->key = TENSOR(t->rig.memory, DTYPE_U64, 2);
    at = (float *)((char *)t->rig.memory + sizeof(uint64_t[2]));
    t->x = TENSOR(at, DTYPE_F32, B, z, Y, X);
    t->flow = TENSOR(at + n * B, DTYPE_F32, B, z, Y, X);
    t->eps = TENSOR(at + 2 * n * B, DTYPE_F32, B, z, Y, X);
    t->frames = TENSOR(at + 3 * n * B, DTYPE_F32, W, z, Y, X);
    TRY(draw(t, t->frames, 1));
out:
    return e;
}

err_t rig_dit_open(struct rig_dit *t, const struct conf *c, const char *place)
{
    err_t e = OK;
    TRY(open_rig(&t->rig, c, place));
    TRY(dit_open(&t->model, t->rig.d, c, t->rig.weights));
    TRY(fill(&t->rig));
    const enum dtype act = dit_act(c, t->rig.d);
    TRY(dev_alloc(t->rig.d, kv_bytes(c, act), &t->kv_memory));
    TRY(kv_open(&t->kv, c, act, t->kv_memory));
    TRY(dit_prepare(t->model, &t->kv, c->dit.steps));
    TRY(dit_record_all(t->model));
    TRY(dit_memory(t));
    TRY(draw(t, RESHAPE(t->kv.embed[0], c->text.text_len, c->text.dim), 2));
    TRY(dit_set_prompt(t->model, 0, c->text.text_len));
    while (t->block < FULL_BLOCKS || first_of(t) < c->dit.window) TRY(rig_dit_block(t));
out:
    return e;
}

void rig_dit_close(struct rig_dit *t)
{
    dit_close(&t->model);
    kv_close(&t->kv);
    if (t->rig.d) dev_free(t->rig.d, &t->kv_memory);
    close_rig(&t->rig);
}

/* --- vae -------------------------------------------------------------------------------------- */

static err_t vae_memory(struct rig_vae *t)
{
    err_t e = OK;
    const struct conf *c = &t->rig.conf;
    const int32_t z = c->model.latent_channels, Y = c->model.latent_rows, X = c->model.latent_cols;
    const size_t n_latent = (size_t)(z * Y * X) * sizeof(float);
    TRY(dev_alloc(t->rig.d, n_latent + VAE_FRAMES_MAX * (size_t)conf_frame_bytes(c) + 16,
                  &t->rig.memory));
    char *const at = t->rig.memory;
    t->latent = TENSOR(at + 16, DTYPE_F32, z, Y, X);
    t->rgb = TENSOR(at + 16 + n_latent, DTYPE_U8, VAE_FRAMES_MAX, conf_height_px(c),
                    conf_width_px(c), 3);
    const uint64_t key[2] = {1, 1};
    TRY(dev_upload(t->rig.d, at, key, sizeof key));
    TRY(ops_randn(t->rig.d, t->latent, TENSOR(at, DTYPE_U64, 2), 0, 1));
    TRY(dev_sync(t->rig.d));
out:
    return e;
}

err_t rig_vae_open(struct rig_vae *t, const struct conf *c, const char *place)
{
    err_t e = OK;
    TRY(open_rig(&t->rig, c, place));
    TRY(vae_open(&t->model, t->rig.d, c, t->rig.weights));
    TRY(fill(&t->rig));
    TRY(dev_alloc(t->rig.d, vae_state_bytes(t->model), &t->state));
    vae_bind_state(t->model, t->state);
    TRY(vae_record_all(t->model));
    TRY(vae_memory(t));
out:
    return e;
}

err_t rig_vae_run(void *self)
{
    err_t e = OK;
    struct rig_vae *t = self;
    const struct tensor rgb = tensor_rows(t->rgb, 0, t->r == 0 ? 1 : VAE_FRAMES_MAX);
    TRY(vae_decode(t->model, rgb, t->latent, t->r, no_beat, NULL));
    TRY(dev_sync(t->rig.d));
    t->r++;
out:
    return e;
}

void rig_vae_close(struct rig_vae *t)
{
    vae_close(&t->model);
    if (t->rig.d) dev_free(t->rig.d, &t->state);
    close_rig(&t->rig);
}
