/* ahead.c - see ahead.h. */
#include "procs/dit/ahead.h"

#include <stdlib.h>

#include "kernels/ops.h"

struct ahead {
    struct stage *st;
    struct dev *d;    /* st->clean_dev: what the model computes is queued there */
    struct dev *wire; /* the same device again: what is sent is queued there, beside the model */
    struct weights *weights;
    struct dit *model;
    struct region weights_region, kv_region, there_region;
    struct kv kv;         /* region kv.clean */
    struct kv there;      /* kv.0, as mapped on this device */
    const struct kv *own; /* kv.0, as mapped on the stage's own */
    const struct latents *latents;
    void *memory;
    struct tensor frames; /* [window, z, Y, X] */
    /* The pass in hand: its frames. */
    int64_t first, sink_base;
    int32_t n;
};

err_t ahead_open(struct ahead **out, struct stage *st)
{
    err_t e = OK;
    const struct conf *c = &st->conf;
    struct ahead *a = calloc(1, sizeof *a);
    if (!a) return FAIL(ERR_NOMEM, "clean passes");
    a->st = st;
    a->d = st->clean_dev;
    TRY(ops_open(a->d));
    ops_set_bf16(a->d, c->model.parity == PARITY_REFERENCE);
    TRY(dev_open(&a->wire, dev_name(a->d), c->cpu.threads));
    TRY(weights_open(&a->weights));
    TRY(dit_open(&a->model, a->d, c, a->weights));
    a->frames = TENSOR(NULL, DTYPE_F32, conf_window_max(c), c->model.latent_channels,
                       c->model.latent_rows, c->model.latent_cols);
    TRY(dev_alloc(a->d, tensor_bytes(a->frames), &a->memory));
    a->frames.data = a->memory;
    *out = a;
    a = NULL;
out:
    ahead_close(&a);
    return e;
}

void ahead_close(struct ahead **at)
{
    struct ahead *a = *at;
    if (!a) return;
    dev_free(a->d, &a->memory);
    dit_close(&a->model);
    kv_close(&a->kv);
    kv_close(&a->there);
    weights_close(&a->weights);
    region_unmap(&a->weights_region);
    region_unmap(&a->kv_region);
    region_unmap(&a->there_region);
    dev_close(&a->wire);
    ops_close(a->d);
    free(a);
    *at = NULL;
}

/* kv.0 on this device, too. Where it is this process's own memory its address is good here. */
static err_t map_there(struct ahead *a, const struct region *kv)
{
    struct stage *st = a->st;
    const struct conf *c = &st->conf;
    const enum dtype act = dit_act(c, a->d);
    if (!kv->is_own) {
        const err_t e = keeper_region(st->keeper, a->d, "kv.0", dev_name(st->dev), kv_bytes(c, act),
                                      KV_LAYOUT, NULL, &a->there_region);
        if (e != OK) return err_prefix(e, "place.clean = %s", c->place.clean);
    }
    return kv_open(&a->there, c, act, kv->is_own ? kv->data : a->there_region.data);
}

err_t ahead_map(struct ahead *a, const struct kv *kv, const struct region *kv_region,
                const struct latents *latents, uint64_t *generation)
{
    err_t e = OK;
    struct stage *st = a->st;
    const enum dtype act = dit_act(&st->conf, a->d);
    a->own = kv;
    a->latents = latents;
    if (st->choices_region.data) ops_choices(a->d, st->choices_region.data);
    TRY(weights_map(a->weights, st, a->d, "dit", &a->weights_region));
    TRY(stage_region(st, a->d, "kv.clean", kv_bytes(&st->conf, act), KV_LAYOUT, NULL,
                     &a->kv_region));
    TRY(kv_open(&a->kv, &st->conf, act, a->kv_region.data));
    TRY(map_there(a, kv_region));
    *generation = a->kv_region.generation;
out:
    return e;
}

err_t ahead_prepare(struct ahead *a)
{
    a->kv.window = a->own->window;
    return dit_prepare(a->model, &a->kv, NULL);
}

struct dit *ahead_model(struct ahead *a)
{
    return a->model;
}

err_t ahead_set_window(struct ahead *a)
{
    a->kv.window = a->own->window;
    return dit_set_preset(a->model, NULL);
}

/* Copied, since a kernel of this GPU may not be able to read the other one's memory. */
err_t ahead_set_prompt(struct ahead *a, int32_t parity, int32_t n_tokens)
{
    err_t e = OK;
    const struct tensor to = a->kv.embed[parity], from = a->there.embed[parity];
    TRY(dev_copy(a->d, to.data, from.data, tensor_bytes(to)));
    TRY(dit_set_prompt(a->model, parity, n_tokens));
out:
    return e;
}

static err_t load_latents(struct ahead *a, int64_t first, int32_t n, struct tensor *out)
{
    err_t e = OK;
    for (int32_t i = 0; i < n; i++) {
        const struct tensor row = tensor_rows(a->frames, i, 1);
        TRY(dev_upload(a->d, row.data, latents_at(a->latents, first + i), tensor_bytes(row)));
    }
    *out = tensor_rows(a->frames, 0, n);
out:
    return e;
}

err_t ahead_recache(struct ahead *a, int64_t first, int32_t n, int64_t frame, int64_t sink_base)
{
    err_t e = OK;
    struct tensor x;
    TRY(load_latents(a, first, n, &x));
    TRY(dit_pass(a->model, TENSOR_NONE, x, SCHED_CLEAN, frame, sink_base));
out:
    return e;
}

err_t ahead_begin(struct ahead *a, int64_t first, int32_t n, int64_t frame, int64_t sink_base)
{
    err_t e = OK;
    struct tensor x;
    a->first = frame;
    a->n = n;
    a->sink_base = sink_base;
    TRY(load_latents(a, first, n, &x));
    TRY(dit_clean_begin(a->model, x, frame, sink_base));
out:
    return e;
}

static err_t send_frame(struct ahead *a, struct tensor to, struct tensor from, int32_t slot)
{
    const int32_t n = a->kv.frame_tokens;
    const struct tensor rows = tensor_rows(from, slot * n, n);
    return dev_copy(a->wire, tensor_rows(to, slot * n, n).data, rows.data, tensor_bytes(rows));
}

/* K and V of the frames in hand; of those that are in the sink the unrotated keys, too. */
static err_t send_layer(struct ahead *a, int32_t i)
{
    err_t e = OK;
    for (int32_t f = 0; f < a->n; f++) {
        const int32_t slot = kv_slot(&a->kv, a->first + f, a->sink_base);
        TRY(send_frame(a, a->there.k[i], a->kv.k[i], slot));
        TRY(send_frame(a, a->there.v[i], a->kv.v[i], slot));
        if (a->kv.k_sink[i].data && slot < a->kv.sink)
            TRY(send_frame(a, a->there.k_sink[i], a->kv.k_sink[i], slot));
    }
out:
    return e;
}

err_t ahead_layer(void *self, int32_t layer)
{
    err_t e = OK;
    struct ahead *a = self;
    TRY(dit_clean_kv(a->model, layer));
    TRY(dev_order(a->wire, a->d));
    TRY(send_layer(a, layer));
    TRY(dev_order(a->st->dev, a->wire));
    TRY(dit_clean_rest(a->model, layer));
out:
    return e;
}

err_t ahead_end(struct ahead *a)
{
    err_t e = OK;
    TRY(dev_sync(a->wire));
    TRY(dev_sync(a->d));
out:
    return e;
}
