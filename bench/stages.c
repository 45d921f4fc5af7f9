/* stages.c - the steady-state unit of each stage, by the product's own models, without processes.
 *
 * text.encode    a prompt of that many tokens
 * dit.block      noise, four denoising passes at a full window, clean pass: as dit's main.c does
 * dit.recache    the pass after a prompt switch, over every frame that it must redo
 * vae.latent     one latent, not a session's first: four frames
 * gateway.*      one frame into a .y4m, into the log of hashes; one block into an .mp4
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/flops.h"
#include "bench/scratch.h"
#include "kernels/ops.h"
#include "procs/dit/dit.h"
#include "procs/dit/plan.h"
#include "procs/gateway/hashes.h"
#include "procs/gateway/out.h"
#include "procs/text/umt5.h"
#include "procs/vae/vae.h"

enum { FULL_BLOCKS = 4, BLOCKS_MAX = 300, GATEWAY_FRAMES = 12 };

/* A device and one model's weights; the models' memory comes after. */
struct box {
    const char *name; /* of the configuration */
    struct conf conf;
    struct dev *d;
    struct weights *weights;
    void *weights_memory, *memory;
};

static err_t box_open(struct box *x, const char *name, int32_t threads)
{
    err_t e = OK;
    char path[64];
    snprintf(path, sizeof path, "configs/%s.ini", name);
    x->name = name;
    TRY(conf_load(&x->conf, path, NULL, 0));
    TRY(dev_open(&x->d, "cpu", threads));
    TRY(ops_open(x->d));
    TRY(weights_open(&x->weights));
out:
    return e;
}

/* After the model has declared what it wants. */
static err_t box_fill(struct box *x)
{
    err_t e = OK;
    TRY(dev_alloc(x->d, weights_bytes(x->weights), &x->weights_memory));
    weights_bind(x->weights, x->weights_memory);
    TRY(weights_fill(x->weights, x->d, x->conf.model.weights));
out:
    return e;
}

static void box_close(struct box *x)
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

static struct bench_case case_of(const struct box *x, const char *name, err_t (*run)(void *),
                                 void *self)
{
    struct bench_case c = {.name = name, .threads = dev_threads(x->d), .run = run, .self = self};
    snprintf(c.shape, sizeof c.shape, "%s", x->name);
    return c;
}

/* --- text ------------------------------------------------------------------------------------- */

struct text {
    struct box box;
    struct umt5 *model;
    int32_t *ids, n;
    float *out;
};

static err_t run_text(void *self)
{
    struct text *t = self;
    return umt5_encode(t->model, t->ids, t->n, t->out, no_beat, NULL);
}

static err_t bench_text(struct bench *b, const char *name, int32_t threads)
{
    err_t e = OK;
    struct text t = {0};
    TRY(box_open(&t.box, name, threads));
    const struct conf *c = &t.box.conf;
    TRY(umt5_open(&t.model, t.box.d, c, t.box.weights));
    TRY(box_fill(&t.box));
    t.ids = malloc((size_t)c->text.text_len * sizeof *t.ids);
    t.out = malloc((size_t)c->text.text_len * (size_t)c->text.dim * sizeof *t.out);
    if (!t.ids || !t.out) {
        e = FAIL(ERR_NOMEM, "text");
        goto out;
    }
    for (int32_t i = 0; i < c->text.text_len; i++) t.ids[i] = 3 + i * 7 % (c->text.vocab - 3);
    for (t.n = 8; t.n <= c->text.text_len; t.n *= t.n < 32 ? 2 : 4) {
        struct bench_case k = case_of(&t.box, "text.encode", run_text, &t);
        snprintf(k.shape, sizeof k.shape, "%s, %d tokens", name, t.n);
        k.flops = flops_text(c, t.n);
        TRY(bench_run(b, &k));
    }
out:
    free(t.ids);
    free(t.out);
    umt5_close(&t.model);
    box_close(&t.box);
    return e;
}

/* --- dit -------------------------------------------------------------------------------------- */

struct dit_bench {
    struct box box;
    struct dit *model;
    struct kv kv;
    void *kv_memory;
    struct tensor x, flow, eps, frames, key;
    int64_t block;
};

static err_t draw(struct dit_bench *t, struct tensor to, uint64_t stream)
{
    err_t e = OK;
    const uint64_t key[2] = {1, stream};
    TRY(dev_upload(t->box.d, t->key.data, key, sizeof key));
    TRY(ops_randn(t->box.d, to, t->key, 0, 1));
    TRY(dev_sync(t->box.d));
out:
    return e;
}

static err_t run_block(void *self)
{
    err_t e = OK;
    struct dit_bench *t = self;
    struct dev *d = t->box.d;
    const struct sched *s = dit_sched(t->model);
    const int32_t B = t->box.conf.dit.block;
    const int64_t first = t->block * B;
    TRY(draw(t, t->x, (uint64_t)t->block));
    for (int32_t i = 0; i < s->n_steps; i++) {
        TRY(dit_pass(t->model, t->flow, t->x, i, first, 0));
        TRY(ops_flow_to_x0(d, t->x, t->x, t->flow, s->sigma[i]));
        if (i + 1 < s->n_steps) {
            TRY(draw(t, t->eps, (uint64_t)t->block));
            TRY(ops_renoise(d, t->x, t->x, t->eps, s->sigma[i + 1]));
        }
        TRY(dev_sync(d));
    }
    const struct tensor clean = tensor_rows(t->frames, 0, B);
    TRY(dev_copy(d, clean.data, t->x.data, tensor_bytes(t->x)));
    TRY(dit_pass(t->model, TENSOR_NONE, clean, SCHED_CLEAN, first, 0));
    TRY(dev_sync(d));
    t->block = t->block + 1 < BLOCKS_MAX ? t->block + 1 : FULL_BLOCKS; /* positions end at 1023 */
out:
    return e;
}

static err_t run_recache(void *self)
{
    err_t e = OK;
    struct dit_bench *t = self;
    int64_t first;
    int32_t n;
    const struct conf *c = &t->box.conf;
    plan_recache(c, c->dit.window, DECISION_SWITCH, t->block * c->dit.block, 0, &first, &n);
    TRY(dit_pass(t->model, TENSOR_NONE, tensor_rows(t->frames, 0, n), SCHED_CLEAN, first, 0));
    TRY(dev_sync(t->box.d));
out:
    return e;
}

static err_t dit_memory(struct dit_bench *t)
{
    err_t e = OK;
    const struct conf *c = &t->box.conf;
    const int32_t z = c->model.latent_channels, Y = c->model.latent_rows, X = c->model.latent_cols;
    const int32_t B = c->dit.block, W = c->dit.window, n = z * Y * X;
    float *at;
    TRY(dev_alloc(t->box.d, sizeof(uint64_t[2]) + (size_t)(n * (3 * B + W)) * sizeof(float),
                  &t->box.memory));
    t->key = TENSOR(t->box.memory, DTYPE_U64, 2);
    at = (float *)((char *)t->box.memory + sizeof(uint64_t[2]));
    t->x = TENSOR(at, DTYPE_F32, B, z, Y, X);
    t->flow = TENSOR(at + n * B, DTYPE_F32, B, z, Y, X);
    t->eps = TENSOR(at + 2 * n * B, DTYPE_F32, B, z, Y, X);
    t->frames = TENSOR(at + 3 * n * B, DTYPE_F32, W, z, Y, X);
    TRY(draw(t, t->frames, 1));
out:
    return e;
}

/* A prompt as long as it can be, and blocks enough to fill the window. */
static err_t dit_begin(struct dit_bench *t)
{
    err_t e = OK;
    const struct conf *c = &t->box.conf;
    TRY(dev_alloc(t->box.d, kv_bytes(c, dit_act(c, t->box.d)), &t->kv_memory));
    TRY(kv_open(&t->kv, c, dit_act(c, t->box.d), t->kv_memory));
    TRY(dit_prepare(t->model, &t->kv));
    TRY(dit_memory(t));
    TRY(draw(t, RESHAPE(t->kv.embed[0], c->text.text_len, c->text.dim), 2));
    TRY(dit_set_prompt(t->model, 0, c->text.text_len));
    while (t->block < FULL_BLOCKS) TRY(run_block(t));
out:
    return e;
}

static err_t bench_dit(struct bench *b, const char *name, int32_t threads)
{
    err_t e = OK;
    struct dit_bench t = {0};
    int64_t first;
    int32_t n;
    TRY(box_open(&t.box, name, threads));
    const struct conf *c = &t.box.conf;
    TRY(dit_open(&t.model, t.box.d, c, t.box.weights));
    TRY(box_fill(&t.box));
    TRY(dit_begin(&t));

    struct bench_case block = case_of(&t.box, "dit.block", run_block, &t);
    block.flops = flops_dit_block(c, dit_sched(t.model)->n_steps, c->text.text_len);
    TRY(bench_run(b, &block));

    struct bench_case recache = case_of(&t.box, "dit.recache", run_recache, &t);
    plan_recache(c, c->dit.window, DECISION_SWITCH, t.block * c->dit.block, 0, &first, &n);
    snprintf(recache.shape, sizeof recache.shape, "%s, %d frames", name, n);
    recache.flops = flops_dit(c, n, c->dit.window, c->text.text_len, true);
    TRY(bench_run(b, &recache));
out:
    dit_close(&t.model);
    kv_close(&t.kv);
    if (t.box.d) dev_free(t.box.d, &t.kv_memory);
    box_close(&t.box);
    return e;
}

/* --- vae -------------------------------------------------------------------------------------- */

struct vae_bench {
    struct box box;
    struct vae *model;
    void *state;
    struct tensor latent, rgb;
    int64_t r;
};

static err_t run_latent(void *self)
{
    err_t e = OK;
    struct vae_bench *t = self;
    const struct tensor rgb = tensor_rows(t->rgb, 0, t->r == 0 ? 1 : VAE_FRAMES_MAX);
    TRY(vae_decode(t->model, rgb, t->latent, t->r, no_beat, NULL));
    TRY(dev_sync(t->box.d));
    t->r++;
out:
    return e;
}

static err_t vae_memory(struct vae_bench *t)
{
    err_t e = OK;
    const struct conf *c = &t->box.conf;
    const int32_t z = c->model.latent_channels, Y = c->model.latent_rows, X = c->model.latent_cols;
    const size_t n_latent = (size_t)(z * Y * X) * sizeof(float);
    TRY(dev_alloc(t->box.d, n_latent + VAE_FRAMES_MAX * (size_t)conf_frame_bytes(c) + 16,
                  &t->box.memory));
    char *const at = t->box.memory;
    t->latent = TENSOR(at + 16, DTYPE_F32, z, Y, X);
    t->rgb = TENSOR(at + 16 + n_latent, DTYPE_U8, VAE_FRAMES_MAX, conf_height_px(c),
                    conf_width_px(c), 3);
    const uint64_t key[2] = {1, 1};
    TRY(dev_upload(t->box.d, at, key, sizeof key));
    TRY(ops_randn(t->box.d, t->latent, TENSOR(at, DTYPE_U64, 2), 0, 1));
out:
    return e;
}

static err_t bench_vae(struct bench *b, const char *name, int32_t threads)
{
    err_t e = OK;
    struct vae_bench t = {0};
    TRY(box_open(&t.box, name, threads));
    TRY(vae_open(&t.model, t.box.d, &t.box.conf, t.box.weights));
    TRY(box_fill(&t.box));
    TRY(dev_alloc(t.box.d, vae_state_bytes(t.model), &t.state));
    TRY(vae_bind_state(t.model, t.state));
    TRY(vae_memory(&t));
    struct bench_case k = case_of(&t.box, "vae.latent", run_latent, &t);
    k.flops = flops_vae(&t.box.conf);
    TRY(bench_run(b, &k)); /* the first three, which warm up, are the session's first three */
out:
    vae_close(&t.model);
    if (t.box.d) dev_free(t.box.d, &t.state);
    box_close(&t.box);
    return e;
}

/* --- gateway ---------------------------------------------------------------------------------- */

struct gateway_bench {
    struct conf conf;
    char dir[SCRATCH_PATH_MAX];
    uint8_t *pixels;
    const uint8_t *rgb[GATEWAY_FRAMES];
    struct out *out;
    struct hashes *hashes;
    int64_t n_hashes;
};

static err_t run_frame(void *self)
{
    struct gateway_bench *t = self;
    return out_put(t->out, t->rgb, 1);
}

static err_t run_file_block(void *self)
{
    struct gateway_bench *t = self;
    return out_put(t->out, t->rgb, GATEWAY_FRAMES);
}

static err_t run_hash(void *self)
{
    struct gateway_bench *t = self;
    return hashes_put(t->hashes, t->n_hashes++, t->rgb, 1, (size_t)conf_frame_bytes(&t->conf));
}

/* A picture that moves: gradients, shifted by the frame's number. */
static err_t paint(struct gateway_bench *t)
{
    const int32_t X = conf_width_px(&t->conf);
    const int64_t n = conf_frame_bytes(&t->conf);
    t->pixels = malloc((size_t)(GATEWAY_FRAMES * n));
    if (!t->pixels) return FAIL(ERR_NOMEM, "frames");
    for (int32_t f = 0; f < GATEWAY_FRAMES; f++) {
        t->rgb[f] = t->pixels + f * n;
        for (int64_t i = 0; i < n; i++)
            t->pixels[f * n + i] = (uint8_t)((i / 3 % X + f) * 2 + i / 3 / X + i % 3 * 40);
    }
    return OK;
}

static err_t bench_file(struct bench *b, struct gateway_bench *t, const char *suffix,
                        struct bench_case k)
{
    err_t e = OK;
    char path[SCRATCH_PATH_MAX + 16];
    int64_t n;
    snprintf(path, sizeof path, "%s/out%s", t->dir, suffix);
    const struct out_conf oc = {.path = path,
                                .width_px = conf_width_px(&t->conf),
                                .height_px = conf_height_px(&t->conf),
                                .fps = t->conf.run.fps,
                                .plugin_dir = "build/lib"};
    TRY(out_open(&t->out, &oc, &n));
    TRY(bench_run(b, &k));
out:
    out_close(&t->out);
    return e;
}

static err_t bench_gateway(struct bench *b, const char *name)
{
    err_t e = OK;
    struct gateway_bench t = {0};
    char path[SCRATCH_PATH_MAX + 16];
    int64_t n;
    snprintf(path, sizeof path, "configs/%s.ini", name);
    TRY(conf_load(&t.conf, path, NULL, 0));
    TRY(scratch_make(t.dir));
    TRY(paint(&t));

    struct bench_case k = {.threads = 1, .self = &t};
    snprintf(k.shape, sizeof k.shape, "%s, 1 frame of %dx%d", name, conf_width_px(&t.conf),
             conf_height_px(&t.conf));
    k.name = "gateway.y4m";
    k.run = run_frame;
    TRY(bench_file(b, &t, ".y4m", k));

    snprintf(path, sizeof path, "%s/hashes", t.dir);
    TRY(hashes_open(&t.hashes, path, false, &n));
    k.name = "gateway.hash";
    k.run = run_hash;
    TRY(bench_run(b, &k));

    k.name = "gateway.mp4";
    k.run = run_file_block;
    snprintf(k.shape, sizeof k.shape, "%s, 1 block of %d frames", name, GATEWAY_FRAMES);
    e = bench_file(b, &t, ".mp4", k);
    if (e == ERR_NONE) { /* a machine without libav has no such row, and says so */
        printf("# gateway.mp4: skipped: %s\n", err_text());
        e = OK;
    }
out:
    hashes_close(&t.hashes);
    free(t.pixels);
    scratch_remove(t.dir);
    return e;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"nano", "tiny", "demo"};
    err_t e = OK;
    struct bench *b = NULL;
    (void)argc;
    TRY(bench_open(&b, argv));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        for (int32_t threads = 1; threads <= BENCH_THREADS_MAX; threads++) {
            TRY(bench_text(b, names[i], threads));
            TRY(bench_dit(b, names[i], threads));
            TRY(bench_vae(b, names[i], threads));
        }
        TRY(bench_gateway(b, names[i]));
    }
out:
    bench_close(&b);
    return bench_exit(e);
}
