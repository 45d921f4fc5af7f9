/* main.c - longlived-vae: clean latents in, RGB frames out, one latent a unit.
 *
 * Regions written: vae.0, frames.0, choices.vae, our page of the ledger; read: latents.0, edge.0.
 * The model is vae.c, what comes next is plan.c.
 */
#include <stdlib.h>

#include "common/fault.h"
#include "common/log.h"
#include "ipc/edge.h"
#include "ipc/frames.h"
#include "ipc/latents.h"
#include "kernels/ops.h"
#include "procs/choices.h"
#include "procs/stage.h"
#include "procs/vae/plan.h"
#include "procs/vae/vae.h"
#include "procs/weights.h"

struct vae_stage {
    struct stage *st;
    struct weights *weights;
    struct vae *model;
    struct region weights_region, state_region, latents_region, frames_region;
    struct latents latents;
    struct edge edge;
    struct frames frames;
    bool is_pin_tried, is_recorded; /* every kind of latent */
    void *memory;
    struct tensor latent, rgb; /* [z, Y, X] f32; [4, 8Y, 8X, 3] u8 */
};

static void on_stage(void *self)
{
    struct vae_stage *p = self;
    stage_beat(p->st, PHASE_DECODE, ledger_read(&p->st->head->unit));
    fault(FAULT_VAE_LAYER);
}

static void vae_stage_close(void **self)
{
    struct vae_stage *p = *self;
    if (!p) return;
    dev_free(p->st->dev, &p->memory);
    vae_close(&p->model);
    weights_close(&p->weights);
    region_unmap(&p->weights_region);
    region_unmap(&p->state_region);
    region_unmap(&p->latents_region);
    edge_close(&p->edge);
    dev_unpin(p->st->dev, p->frames_region.data);
    region_unmap(&p->frames_region);
    ops_close(p->st->dev);
    free(p);
    *self = NULL;
}

static err_t open_regions(struct vae_stage *p)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct conf *c = &st->conf;
    TRY(choices_map(st, "vae"));
    TRY(weights_map(p->weights, st, st->dev, "vae", &p->weights_region));
    TRY(stage_region(st, st->dev, "vae.0", vae_state_bytes(p->model), VAE_LAYOUT, NULL,
                     &p->state_region));
    vae_bind_state(p->model, p->state_region.data);
    TRY(stage_region(st, st->host, "latents.0", latents_bytes(c), LATENTS_LAYOUT, NULL,
                     &p->latents_region));
    latents_open(&p->latents, c, p->latents_region.data);
    TRY(edge_open(&p->edge, st->keeper, st->dev, c));
    ledger_publish(&st->ledger->vae.edge_generation, p->edge.region.generation);
    ledger_publish(&st->memory->bytes[MEMORY_EDGE], p->edge.region.n_bytes);
    TRY(stage_region(st, st->host, "frames.0", frames_bytes(c), FRAMES_LAYOUT, NULL,
                     &p->frames_region));
    frames_open(&p->frames, c, p->frames_region.data);
out:
    return e;
}

/* Whether the last kind of latent has been recorded; says so when it has been. */
static bool is_recorded(struct vae_stage *p)
{
    int32_t n;
    char took[400];
    const int32_t of = vae_kinds(p->model, &n);
    if (n == of && !p->is_recorded) {
        dev_took_text(p->st->dev, took, sizeof took);
        log_info("recorded", "kinds=%d%s", of, took);
    }
    p->is_recorded = n == of;
    return p->is_recorded;
}

/* As dit's passes: in mid-session the latent at hand comes first, and the stage is back; else all
 * are there before a session begins. */
static err_t record(struct vae_stage *p)
{
    err_t e = OK;
    int32_t n;
    const struct ledger *ledger = p->st->ledger;
    const int64_t NB = p->st->conf.dit.block, l = (int64_t)ledger_read(&ledger->vae.n_latents);
    const int64_t at = ledger_session_of(ledger, l / NB);
    const int64_t r = at >= 0 ? l - ledger->sessions[at].first_block * NB : 0;
    if (r > 0 && dev_has_graphs(p->st->dev)) TRY(vae_record(p->model, r));
    else TRY(vae_record_all(p->model));
    const int32_t of = vae_kinds(p->model, &n);
    log_info("passes", "recorded=%d of=%d", n, of);
    p->is_recorded = n == of;
out:
    return e;
}

/* Region vae is another one than that which held the state after l latents: it went with the
 * keeper. What is decoded again for it was committed long ago, and is not written anywhere. */
static err_t restore_state(struct vae_stage *p)
{
    err_t e = OK;
    struct stage *st = p->st;
    struct ledger *ledger = st->ledger;
    const int64_t NB = st->conf.dit.block, l = (int64_t)ledger_read(&ledger->vae.n_latents);
    const int64_t at = l > 0 ? ledger_session_of(ledger, (l - 1) / NB) : -1;
    if (ledger_read(&ledger->vae.state_generation) == p->state_region.generation) return OK;

    const int64_t first = at >= 0 ? ledger->sessions[at].first_block * NB : l;
    TRY(dev_zero(st->dev, p->state_region.data, p->state_region.n_bytes));
    for (int64_t i = l - first > LATENTS_OF_VAE_STATE ? l - LATENTS_OF_VAE_STATE : first; i < l;
         i++) {
        TRY(dev_upload(st->dev, p->latent.data, latents_at(&p->latents, i),
                       tensor_bytes(p->latent)));
        TRY(vae_decode(p->model, tensor_rows(p->rgb, 0, i == first ? 1 : VAE_FRAMES_MAX), p->latent,
                       i - first, on_stage, p));
        ledger_add(&ledger->vae.n_rebuilt, 1);
    }
    TRY(dev_sync(st->dev));
    ledger_publish(&ledger->vae.state_generation, p->state_region.generation);
out:
    return e;
}

static err_t open_model(struct stage *st, void **self)
{
    err_t e = OK;
    const struct conf *c = &st->conf;
    struct vae_stage *p = calloc(1, sizeof *p);
    if (!p) return FAIL(ERR_NOMEM, "vae");
    *self = p;
    p->st = st;
    TRY(ops_open(st->dev));
    stage_piece(st, "ops");
    ops_set_bf16(st->dev, c->model.parity == PARITY_REFERENCE);
    TRY(weights_open(&p->weights));
    TRY(vae_open(&p->model, st->dev, c, p->weights));

    const size_t latent_bytes = (size_t)latents_values(c) * sizeof(float);
    TRY(dev_alloc(st->dev, latent_bytes + VAE_FRAMES_MAX * (size_t)conf_frame_bytes(c),
                  &p->memory));
    p->latent = TENSOR(p->memory, DTYPE_F32, c->model.latent_channels, c->model.latent_rows,
                       c->model.latent_cols);
    p->rgb = TENSOR((char *)p->memory + latent_bytes, DTYPE_U8, VAE_FRAMES_MAX, conf_height_px(c),
                    conf_width_px(c), 3);
    stage_piece(st, "model");
out:
    return e;
}

static err_t vae_need(struct stage *st, struct stage_need *n)
{
    err_t e = OK;
    void *self = NULL;
    TRY(open_model(st, &self));
    const struct vae_stage *p = self;
    *n = (struct stage_need){.weights = weights_bytes(p->weights),
                             .state = vae_state_bytes(p->model) + edge_bytes(&st->conf, st->dev),
                             .scratch = dev_live_bytes(st->dev)};
out:
    vae_stage_close(&self);
    return e;
}

static err_t vae_stage_open(struct stage *st, void **self)
{
    err_t e = OK;
    TRY(open_model(st, self));
    struct vae_stage *p = *self;
    TRY(open_regions(p));
    stage_piece(st, "regions");
    TRY(record(p));
    stage_piece(st, "passes");
    TRY(restore_state(p));
    stage_piece(st, "state");
out:
    return e;
}

/* Takes tens of milliseconds, so not before the stage serves and not while a latent waits. */
static void pin_frames(struct vae_stage *p)
{
    if (p->is_pin_tried) return;
    p->is_pin_tried = true;
    if (dev_pin(p->st->dev, p->frames_region.data, p->frames_region.n_bytes) != OK)
        log_warn("not_pinned", "region=frames.0 msg=\"%s: frames are copied, only slower\"",
                 err_text());
}

/* Decodes the latent and commits it. */
static err_t decode(struct vae_stage *p, const struct vae_plan *plan)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct tensor rgb = tensor_rows(p->rgb, 0, plan->n_frames);
    const bool is_in_edge =
        edge_holds(st->ledger, &st->conf, p->edge.region.generation, plan->latent);
    struct tensor latent = p->latent;
    stage_unit_begin(st, PHASE_DECODE, (uint64_t)plan->latent);
    TRY(fault(FAULT_VAE_BEGIN));
    if (is_in_edge) latent.data = latents_at(&p->edge.ring, plan->latent);
    else
        TRY(dev_upload(st->dev, latent.data, latents_at(&p->latents, plan->latent),
                       tensor_bytes(latent)));
    TRY(fault(FAULT_VAE_LOADED));
    TRY(vae_decode(p->model, rgb, latent, plan->r, on_stage, p));
    TRY(fault(FAULT_VAE_DECODED));
    for (int32_t i = 0; i < plan->n_frames; i++) {
        TRY(dev_download(st->dev, frames_at(&p->frames, plan->first_frame + i),
                         tensor_rows(rgb, i, 1).data, (size_t)p->frames.n_bytes));
        TRY(fault(FAULT_VAE_FRAME));
    }
    TRY(dev_sync(st->dev));
    TRY(fault(FAULT_VAE_FRAMES));
    ledger_publish(&st->ledger->vae.n_latents, (uint64_t)plan->latent + 1);
    ledger_add(&st->ledger->vae.n_passes, 1);
    if (is_in_edge) ledger_add(&st->ledger->vae.n_from_edge, 1);
    TRY(fault(FAULT_VAE_COMMITTED));
    stage_unit_end(st, 0);
    bells_ring(st->bells, WRITER_GATEWAY);
    bells_ring(st->bells, WRITER_DIT);
out:
    return e;
}

static err_t vae_stage_step(struct stage *st, void *self, bool *did_work, bool *is_done)
{
    err_t e = OK;
    struct vae_stage *p = self;
    if (st->is_draining) {
        *is_done = true;
        return OK;
    }
    const struct vae_plan plan = vae_plan_next(st->ledger, &st->conf);
    if (!plan.is_due) {
        if (is_recorded(p)) pin_frames(p);
        else TRY(vae_record_next(p->model));
        return OK;
    }
    TRY(decode(p, &plan));
    (void)is_recorded(p);
    *did_work = true;
    ledger_publish(&st->head->n_ops, ops_count());
out:
    return e;
}

int main(int argc, char **argv)
{
    static const struct stage_def def = {
        .writer = WRITER_VAE,
        .load = ops_load,
        .open = vae_stage_open,
        .step = vae_stage_step,
        .close = vae_stage_close,
        .need = vae_need,
    };
    return stage_main(argc, argv, &def);
}
