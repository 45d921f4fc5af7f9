/* golden_dit.h - a DiT with the golden weights, on a device, with its KV ring. */
#ifndef TESTS_PROCS_DIT_GOLDEN_DIT_H
#define TESTS_PROCS_DIT_GOLDEN_DIT_H

#include "procs/dit/dit.h"
#include "tests/golden.h"

enum { BLOCK = 3, BLOCKS = 9, FRAMES = BLOCK * BLOCKS };

struct golden_dit {
    struct golden g;
    struct golden_box b;
    struct dit *m;
    struct kv kv;
    void *kv_mem, *memory;
    struct tensor x, flow; /* [window, z, Y, X] each */
    int64_t values;        /* of one latent frame */
};

static inline void golden_dit_open(struct golden_dit *r, const char *file, const char *config,
                                   bool has_words, const char *const *sets, int32_t n_sets)
{
    memset(r, 0, sizeof *r);
    golden_open(&r->g, file);
    golden_box_open(&r->b, config, sets, n_sets);
    const struct conf *c = &r->b.c;
    assert_ok(dit_open(&r->m, r->b.d, c, r->b.w));
    golden_box_fill(&r->b, has_words ? &r->g : NULL);
    assert_ok(dev_alloc(r->b.d, kv_bytes(c, DTYPE_F32), &r->kv_mem));
    assert_ok(kv_open(&r->kv, c, DTYPE_F32, r->kv_mem));
    assert_ok(dit_prepare(r->m, &r->kv, c->dit.steps));
    r->x = TENSOR(NULL, DTYPE_F32, c->dit.window, c->model.latent_channels, c->model.latent_rows,
                  c->model.latent_cols);
    r->flow = r->x;
    r->values = tensor_count(r->x) / c->dit.window;
    assert_ok(dev_alloc(r->b.d, 2 * tensor_bytes(r->x), &r->memory));
    r->x.data = r->memory;
    r->flow.data = (char *)r->memory + tensor_bytes(r->x);
}

static inline void golden_dit_close(struct golden_dit *r)
{
    dit_close(&r->m);
    kv_close(&r->kv);
    dev_free(r->b.d, &r->kv_mem);
    dev_free(r->b.d, &r->memory);
    golden_box_close(&r->b);
    golden_close(&r->g);
}

/* rows [text_len, dim], of which the first n are valid. */
static inline void golden_dit_prompt(struct golden_dit *r, const float *rows, int32_t n)
{
    assert_ok(dev_upload(r->b.d, r->kv.embed[0].data, rows, tensor_bytes(r->kv.embed[0])));
    assert_ok(dit_set_prompt(r->m, 0, n));
}

/* K/V of n clean frames from `first`. */
static inline void golden_dit_clean(struct golden_dit *r, const float *frames, int64_t first,
                                    int32_t n, int64_t sink_base)
{
    const struct tensor x = tensor_rows(r->x, 0, n);
    assert_ok(dev_upload(r->b.d, x.data, frames, tensor_bytes(x)));
    assert_ok(dit_pass(r->m, TENSOR_NONE, x, SCHED_CLEAN, first, sink_base));
}

/* The flow of a block at `first`, in memory that lives until the test ends. */
static inline float *golden_dit_flow(struct golden_dit *r, const float *x, int32_t step,
                                     int64_t first)
{
    const struct tensor in = tensor_rows(r->x, 0, BLOCK), out = tensor_rows(r->flow, 0, BLOCK);
    float *flow = check_alloc(tensor_bytes(out));
    assert_ok(dev_upload(r->b.d, in.data, x, tensor_bytes(in)));
    assert_ok(dit_pass(r->m, out, in, step, first, 0));
    assert_ok(dev_download(r->b.d, flow, out.data, tensor_bytes(out)));
    assert_ok(dev_sync(r->b.d));
    return flow;
}

#endif
