/* stages.c - the steady-state unit of each stage, by the product's own models, without processes.
 *
 * text.encode    a prompt of that many tokens
 * dit.block      noise, four denoising passes at a full window, clean pass: as dit's main.c does
 * dit.recache    the pass after a prompt switch, over every frame that it must redo
 * vae.latent     one latent, not a session's first: four frames
 * gateway.*      one frame into a .y4m, into the log of hashes; one block into an .mp4
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/flops.h"
#include "bench/rig.h"
#include "bench/scratch.h"
#include "procs/gateway/hashes.h"
#include "procs/gateway/out.h"

enum { GATEWAY_FRAMES = 12 };

static struct bench_case case_of(const struct conf *c, const char *config, const char *name,
                                 err_t (*run)(void *), void *self)
{
    struct bench_case k = {.name = name, .threads = c->cpu.threads, .run = run, .self = self};
    snprintf(k.shape, sizeof k.shape, "%s", config);
    return k;
}

static err_t bench_text(struct bench *b, const struct conf *c, const char *name)
{
    err_t e = OK;
    struct rig_text t = {0};
    TRY(rig_text_open(&t, c, "cpu"));
    for (t.n = 8; t.n <= c->text.text_len; t.n *= t.n < 32 ? 2 : 4) {
        struct bench_case k = case_of(c, name, "text.encode", rig_text_run, &t);
        snprintf(k.shape, sizeof k.shape, "%s, %d tokens", name, t.n);
        k.flops = flops_text(c, t.n);
        TRY(bench_run(b, &k));
    }
out:
    rig_text_close(&t);
    return e;
}

static err_t bench_dit(struct bench *b, const struct conf *c, const char *name)
{
    err_t e = OK;
    struct rig_dit t = {0};
    TRY(rig_dit_open(&t, c, "cpu"));

    struct bench_case block = case_of(c, name, "dit.block", rig_dit_block, &t);
    block.flops = flops_dit_block(c, dit_sched(t.model)->n_steps, c->text.text_len);
    TRY(bench_run(b, &block));

    struct bench_case recache = case_of(c, name, "dit.recache", rig_dit_recache, &t);
    const int32_t n = rig_dit_recached(&t);
    snprintf(recache.shape, sizeof recache.shape, "%s, %d frames", name, n);
    recache.flops = flops_dit(c, n, c->dit.window, c->text.text_len, true);
    TRY(bench_run(b, &recache));
out:
    rig_dit_close(&t);
    return e;
}

static err_t bench_vae(struct bench *b, const struct conf *c, const char *name)
{
    err_t e = OK;
    struct rig_vae t = {0};
    TRY(rig_vae_open(&t, c, "cpu"));
    struct bench_case k = case_of(c, name, "vae.latent", rig_vae_run, &t);
    k.flops = flops_vae(c);
    TRY(bench_run(b, &k)); /* the first three, which warm up, are the session's first three */
out:
    rig_vae_close(&t);
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
        struct conf c;
        char path[64];
        snprintf(path, sizeof path, "configs/%s.ini", names[i]);
        TRY(conf_load(&c, path, NULL, 0));
        c.model.parity = PARITY_CLEAN; /* arithmetic, without the reference's rounding */
        for (c.cpu.threads = 1; c.cpu.threads <= BENCH_THREADS_MAX; c.cpu.threads++) {
            TRY(bench_text(b, &c, names[i]));
            TRY(bench_dit(b, &c, names[i]));
            TRY(bench_vae(b, &c, names[i]));
        }
        TRY(bench_gateway(b, names[i]));
    }
out:
    bench_close(&b);
    return bench_exit(e);
}
