/* main.c - longlived-dit: decisions and latents. The process is here; the model is dit.c, what
 * comes next is plan.c.
 *
 * Regions written: kv.0, kv.clean, latents.0, edge.0, choices.dit, our page and the decisions of
 * the ledger. Each unit ends with one ledger_publish after the device has finished; a unit cut
 * short is done again from the same inputs to the same bits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "ipc/edge.h"
#include "ipc/latents.h"
#include "kernels/ops.h"
#include "procs/choices.h"
#include "procs/dit/ahead.h"
#include "procs/dit/decide.h"
#include "procs/dit/dit.h"
#include "procs/dit/noise.h"
#include "procs/dit/plan.h"
#include "procs/stage.h"
#include "procs/weights.h"

struct dit_stage {
    struct stage *st;
    struct weights *weights;
    struct dit *model;
    struct ahead *ahead; /* NULL: clean passes are the model's, too */
    struct kv kv;
    struct region weights_region, kv_region, latents_region;
    struct decide decide;
    struct latents latents;
    struct edge edge;
    void *memory;                       /* the four below, and the noise's key */
    struct tensor x, flow, eps, frames; /* [block, z, Y, X] x 3; [window, z, Y, X] */
    struct noise noise;
    int64_t loaded; /* decision whose cross K/V and preset the model has; -1 none */
    int64_t preset; /* that the model has: a decision's */
    int64_t waiting_since_ns;
    enum ledger_phase phase;
    bool is_recorded; /* every kind of pass */
};

static void on_layer(void *self)
{
    struct dit_stage *p = self;
    stage_beat(p->st, p->phase, ledger_read(&p->st->head->unit));
    if (p->phase == PHASE_DENOISE) fault(FAULT_DIT_LAYER);
    else if (p->phase == PHASE_CLEAN) fault(FAULT_DIT_CLEAN_LAYER);
    else fault(FAULT_DIT_RECACHE_LAYER);
}

static err_t open_memory(struct dit_stage *p)
{
    err_t e = OK;
    const struct conf *c = &p->st->conf;
    const int32_t z = c->model.latent_channels, Y = c->model.latent_rows, X = c->model.latent_cols;
    const int32_t B = c->dit.block, W = conf_window_max(c);
    const size_t block = tensor_bytes(TENSOR(NULL, DTYPE_F32, B, z, Y, X));
    const size_t window = tensor_bytes(TENSOR(NULL, DTYPE_F32, W, z, Y, X));
    TRY(dev_alloc(p->st->dev, 3 * block + window + 2 * sizeof(uint64_t), &p->memory));
    char *at = (char *)p->memory + 2 * sizeof(uint64_t);
    p->x = TENSOR(at, DTYPE_F32, B, z, Y, X);
    p->flow = TENSOR(at + block, DTYPE_F32, B, z, Y, X);
    p->eps = TENSOR(at + 2 * block, DTYPE_F32, B, z, Y, X);
    p->frames = TENSOR(at + 3 * block, DTYPE_F32, W, z, Y, X);
    TRY(noise_open(&p->noise, p->st, TENSOR(p->memory, DTYPE_U64, 2), block));
out:
    return e;
}

static err_t open_regions(struct dit_stage *p)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct conf *c = &st->conf;
    const enum dtype act = dit_act(c, st->dev);
    TRY(choices_map(st, "dit"));
    uint64_t clean_generation = 0;
    TRY(weights_map(p->weights, st, st->dev, "dit", &p->weights_region));
    TRY(stage_region(st, st->dev, "kv.0", kv_bytes(c, act), KV_LAYOUT, NULL, &p->kv_region));
    TRY(kv_open(&p->kv, c, act, p->kv_region.data));
    TRY(decide_open(&p->decide, st, &p->kv));
    TRY(stage_region(st, st->host, "latents.0", latents_bytes(c), LATENTS_LAYOUT, NULL,
                     &p->latents_region));
    latents_open(&p->latents, c, p->latents_region.data);
    if (p->ahead) TRY(ahead_map(p->ahead, &p->kv, &p->kv_region, &p->latents, &clean_generation));
    ledger_publish(&st->ledger->dit.kv_generation, p->kv_region.generation + clean_generation);
    TRY(edge_open(&p->edge, st->keeper, st->dev, c));
    edge_begin(st->ledger, p->edge.region.generation);
out:
    return e;
}

static void dit_stage_close(void **self)
{
    struct dit_stage *p = *self;
    if (!p) return;
    decide_close(&p->decide);
    noise_close(&p->noise);
    ahead_close(&p->ahead);
    dev_free(p->st->dev, &p->memory);
    dit_close(&p->model);
    kv_close(&p->kv);
    weights_close(&p->weights);
    region_unmap(&p->weights_region);
    region_unmap(&p->kv_region);
    region_unmap(&p->latents_region);
    edge_close(&p->edge);
    ops_close(p->st->dev);
    free(p);
    *self = NULL;
}

static err_t open_model(struct stage *st, void **self)
{
    err_t e = OK;
    struct dit_stage *p = calloc(1, sizeof *p);
    if (!p) return FAIL(ERR_NOMEM, "dit");
    *self = p;
    p->st = st;
    p->loaded = -1;
    p->phase = PHASE_OPENING;
    TRY(ops_open(st->dev));
    stage_piece(st, "ops");
    ops_set_bf16(st->dev, st->conf.model.parity == PARITY_REFERENCE);
    TRY(weights_open(&p->weights));
    TRY(dit_open(&p->model, st->dev, &st->conf, p->weights));
    TRY(open_memory(p));
    stage_piece(st, "model");
out:
    return e;
}

static err_t dit_need(struct stage *st, struct stage_need *n)
{
    err_t e = OK;
    void *self = NULL;
    TRY(open_model(st, &self));
    const struct dit_stage *p = self;
    *n = (struct stage_need){.weights = weights_bytes(p->weights),
                             .state = kv_bytes(&st->conf, dit_act(&st->conf, st->dev)),
                             .scratch = dev_live_bytes(st->dev)};
out:
    dit_stage_close(&self);
    return e;
}

/* Says so whenever the last kind of pass has been recorded, and what all of them took. */
static void look_at_kinds(struct dit_stage *p)
{
    int32_t n;
    char took[400];
    const int32_t of = dit_kinds(p->model, &n);
    if (n == of && !p->is_recorded) {
        dev_took_text(p->st->dev, took, sizeof took);
        log_info("recorded", "kinds=%d%s", of, took);
    }
    p->is_recorded = n == of;
}

/* Block L's kinds of pass, and those of what comes before it: a recache, or the clean pass of the
 * block before. */
static err_t record_block(struct dit_stage *p, const struct ledger_decision *d, int64_t L)
{
    err_t e = OK;
    const struct ledger *l = p->st->ledger;
    const int32_t B = p->st->conf.dit.block;
    const int64_t at = (L - l->sessions[d->session].first_block) * B;
    const enum decision_kind kind = (enum decision_kind)d->kind;
    int64_t first = at - B;
    int32_t n = B;
    if (d->block == L && plan_recaches(kind))
        plan_recache(&p->st->conf, p->kv.window, kind, at, d->sink_base, &first, &n);
    if (p->ahead) TRY(dit_record(ahead_model(p->ahead), n, at - d->sink_base, true));
    TRY(dit_record(p->model, n, at - d->sink_base, true));
    TRY(dit_record(p->model, B, at + B - d->sink_base, true));
    TRY(dit_record(p->model, B, at + B - d->sink_base, false));
out:
    return e;
}

static err_t record_all(struct dit_stage *p)
{
    const err_t e = dit_record_all(p->model);
    return e == OK && p->ahead ? dit_record_all(ahead_model(p->ahead)) : e;
}

/* Recording all kinds of pass is a large part of a start. A stage that has died in mid-session
 * records those of the block at hand, and is back; the others follow while the device is at work.
 * Else all are there before a session begins, and none is recorded in one. */
static err_t prepare(struct dit_stage *p)
{
    err_t e = OK;
    const struct ledger *l = p->st->ledger;
    const struct ledger_decision *d = plan_resumed(l);
    const char *steps = NULL;
    int32_t n;
    p->preset = d ? d->preset : 0;
    TRY(plan_preset(l, &p->st->conf, p->preset, &p->kv.window, &steps));
    TRY(dit_prepare(p->model, &p->kv, steps));
    if (p->ahead) TRY(ahead_prepare(p->ahead));
    stage_piece(p->st, "tables");
    if (d) TRY(record_block(p, d, (int64_t)ledger_read(&l->dit.n_latents_blocks)));
    else TRY(record_all(p));
    const int32_t of = dit_kinds(p->model, &n);
    log_info("passes", "recorded=%d of=%d", n, of);
    p->is_recorded = n == of;
out:
    return e;
}

static err_t dit_stage_open(struct stage *st, void **self)
{
    err_t e = OK;
    TRY(open_model(st, self));
    struct dit_stage *p = *self;
    if (st->clean_dev) TRY(ahead_open(&p->ahead, st));
    TRY(open_regions(p));
    stage_piece(st, "regions");
    TRY(prepare(p));
    stage_piece(st, "passes");
    dit_on_layer(p->model, on_layer, p);
    if (p->ahead) dit_on_layer(ahead_model(p->ahead), on_layer, p);
out:
    return e;
}

/* --- units of work ---------------------------------------------------------------------------- */

static err_t load_preset(struct dit_stage *p, const struct ledger_decision *d)
{
    err_t e = OK;
    const char *steps = NULL;
    if (p->preset == d->preset) return OK;
    TRY(plan_preset(p->st->ledger, &p->st->conf, d->preset, &p->kv.window, &steps));
    TRY(dit_set_preset(p->model, steps));
    if (p->ahead) TRY(ahead_set_window(p->ahead));
    p->preset = d->preset;
out:
    return e;
}

/* Prompt and preset in force. */
static err_t load_decision(struct dit_stage *p)
{
    err_t e = OK;
    const int64_t n = (int64_t)ledger_read(&p->st->ledger->dit.n_decisions) - 1;
    const struct ledger_decision *d = &p->st->ledger->decisions[n];
    if (p->loaded == n) return OK;
    p->phase = PHASE_PROMPT;
    const int64_t began_ns = now_ns();
    TRY(load_preset(p, d));
    TRY(dit_set_prompt(p->model, (int32_t)(n % 2), d->n_tokens));
    if (p->ahead) TRY(ahead_set_prompt(p->ahead, (int32_t)(n % 2), d->n_tokens));
    stage_span(p->st, PHASE_PROMPT, (int64_t)ledger_read(&p->st->head->unit), 0, began_ns);
    p->loaded = n;
    e = fault(FAULT_DIT_PROMPT);
out:
    return e;
}

/* Where the session's latents begin, counted over the ledger. */
static int64_t first_latent(const struct dit_stage *p, int64_t session)
{
    return p->st->ledger->sessions[session].first_block * p->st->conf.dit.block;
}

/* Clean latents [first, first + n) of the session, from the region, into p->frames. */
static err_t load_latents(struct dit_stage *p, int64_t session, int64_t first, int32_t n)
{
    err_t e = OK;
    const int64_t base = first_latent(p, session);
    for (int32_t i = 0; i < n; i++) {
        const struct tensor row = tensor_rows(p->frames, i, 1);
        TRY(dev_upload(p->st->dev, row.data, latents_at(&p->latents, base + first + i),
                       tensor_bytes(row)));
    }
out:
    return e;
}

/* K/V of clean frames [first, first + n), at t = 0. */
static err_t write_clean_kv(struct dit_stage *p, int64_t session, int64_t first, int32_t n,
                            int32_t sink_base)
{
    err_t e = OK;
    TRY(load_latents(p, session, first, n));
    TRY(dit_pass(p->model, TENSOR_NONE, tensor_rows(p->frames, 0, n), SCHED_CLEAN, first,
                 sink_base));
    TRY(dev_sync(p->st->dev));
out:
    return e;
}

static const struct ledger_decision *decision_in_force(const struct dit_stage *p)
{
    return &p->st->ledger->decisions[ledger_read(&p->st->ledger->dit.n_decisions) - 1];
}

/* Frame of its session at which the plan's block begins. */
static int64_t frame_of(const struct dit_stage *p, const struct plan *plan)
{
    return plan->block * p->st->conf.dit.block - first_latent(p, plan->session);
}

/* The clean pass of the plan's block, ahead. */
static err_t begin_ahead(struct dit_stage *p, const struct plan *plan)
{
    const int32_t B = p->st->conf.dit.block;
    return ahead_begin(p->ahead, plan->block * B, B, frame_of(p, plan),
                       decision_in_force(p)->sink_base);
}

static err_t commit_clean(struct dit_stage *p, int64_t block, int64_t began_ns)
{
    err_t e = OK;
    struct ledger_dit *l = &p->st->ledger->dit;
    stage_span(p->st, PHASE_CLEAN, block, 0, began_ns);
    TRY(fault(FAULT_DIT_CLEANED));
    ledger_publish(&l->n_clean_blocks, (uint64_t)block + 1);
    ledger_add(&l->n_clean_passes, 1);
    if (conf_cleans_first(&p->st->conf)) bells_ring(p->st->bells, WRITER_VAE);
    e = fault(FAULT_DIT_CLEAN_COMMITTED);
out:
    return e;
}

static err_t clean(struct dit_stage *p, const struct plan *plan)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct conf *c = &st->conf;
    const int64_t first = frame_of(p, plan), began_ns = now_ns();

    TRY(load_decision(p));
    p->phase = PHASE_CLEAN;
    stage_beat(st, p->phase, (uint64_t)plan->block);
    TRY(fault(FAULT_DIT_CLEAN));
    if (p->ahead) {
        TRY(begin_ahead(p, plan));
        for (int32_t i = 0; i < c->dit.layers; i++) {
            on_layer(p);
            TRY(ahead_layer(p->ahead, i));
        }
        TRY(ahead_end(p->ahead));
    } else {
        TRY(write_clean_kv(p, plan->session, first, c->dit.block, decision_in_force(p)->sink_base));
    }
    e = commit_clean(p, plan->block, began_ns);
out:
    return e;
}

static err_t recache(struct dit_stage *p, const struct ledger_decision *d, int64_t at)
{
    err_t e = OK;
    int64_t first;
    int32_t n;
    const int64_t began_ns = now_ns();
    p->phase = PHASE_RECACHE;
    stage_beat(p->st, p->phase, ledger_read(&p->st->head->unit));
    TRY(fault(FAULT_DIT_RECACHE));
    plan_recache(&p->st->conf, p->kv.window, (enum decision_kind)d->kind, at, d->sink_base, &first,
                 &n);
    if (p->ahead)
        TRY(ahead_recache(p->ahead, first_latent(p, d->session) + first, n, first, d->sink_base));
    TRY(write_clean_kv(p, d->session, first, n, d->sink_base));
    stage_span(p->st, PHASE_RECACHE, d->block, 0, began_ns);
    e = fault(FAULT_DIT_RECACHED);
out:
    return e;
}

/* The first step, each layer of it behind that of the clean pass of the block before. */
static err_t step_behind(struct dit_stage *p, const struct plan *clean, int64_t first,
                         int32_t sink_base)
{
    err_t e = OK;
    TRY(begin_ahead(p, clean));
    dit_before_layer(p->model, ahead_layer, p->ahead);
    TRY(dit_pass(p->model, p->flow, p->x, 0, first, sink_base));
    dit_before_layer(p->model, NULL, NULL);
out:
    return e;
}

/* From noise to clean latents in p->x. clean: the pass of the block before that is still to be
 * made, or NULL. */
static err_t denoise(struct dit_stage *p, int64_t seed, int64_t block, int32_t sink_base,
                     const struct plan *clean)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct sched *s = dit_sched(p->model);
    const int64_t first = block * st->conf.dit.block;
    p->phase = PHASE_DENOISE;
    TRY(noise_draw(&p->noise, p->x, seed, block, -1));
    TRY(fault(FAULT_DIT_NOISE));
    for (int32_t i = 0; i < s->n_steps; i++) {
        const int64_t began_ns = now_ns();
        if (clean && i == 0) TRY(step_behind(p, clean, first, sink_base));
        else TRY(dit_pass(p->model, p->flow, p->x, i, first, sink_base));
        TRY(ops_flow_to_x0(st->dev, p->x, p->x, p->flow, s->sigma[i]));
        if (i + 1 < s->n_steps) {
            TRY(noise_draw(&p->noise, p->eps, seed, block, i));
            TRY(ops_renoise(st->dev, p->x, p->x, p->eps, s->sigma[i + 1]));
        }
        TRY(dev_sync(st->dev));
        stage_span(st, PHASE_DENOISE, (int64_t)st->unit, i, began_ns);
        if (clean && i == 0) {
            TRY(ahead_end(p->ahead));
            TRY(commit_clean(p, clean->block, began_ns));
        }
        TRY(fault(FAULT_DIT_STEP));
    }
out:
    return e;
}

/* A latent of p->x, to both places where vae looks for it. */
static err_t store(struct dit_stage *p, struct tensor row, int64_t latent)
{
    err_t e = OK;
    struct dev *d = p->st->dev;
    if (p->edge.region.data)
        TRY(dev_copy(d, latents_at(&p->edge.ring, latent), row.data, tensor_bytes(row)));
    TRY(dev_download(d, latents_at(&p->latents, latent), row.data, tensor_bytes(row)));
out:
    return e;
}

static err_t make_block(struct dit_stage *p, const struct plan *plan, const struct plan *clean)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct conf *c = &st->conf;
    const struct ledger_session *session = &st->ledger->sessions[plan->session];
    const int64_t block = plan->block - session->first_block, at = block * c->dit.block;
    const struct ledger_decision *d = decision_in_force(p);

    stage_unit_begin(st, PHASE_DENOISE, (uint64_t)plan->block);
    TRY(fault(FAULT_DIT_BLOCK));
    TRY(noise_begin(&p->noise, plan->session));
    TRY(load_decision(p));
    if (d->block == plan->block && at > 0 && plan_recaches((enum decision_kind)d->kind))
        TRY(recache(p, d, at));
    TRY(denoise(p, session->seed, block, d->sink_base, clean));
    for (int32_t i = 0; i < c->dit.block; i++) {
        TRY(store(p, tensor_rows(p->x, i, 1), plan->block * c->dit.block + i));
        TRY(fault(FAULT_DIT_LATENT));
    }
    TRY(dev_sync(st->dev));
    if (p->ahead) TRY(ahead_end(p->ahead)); /* of a recache */
    TRY(fault(FAULT_DIT_LATENTS));
    ledger_publish(&st->ledger->dit.n_latents_blocks, (uint64_t)plan->block + 1);
    ledger_add(&st->ledger->dit.n_block_passes, 1);
    TRY(fault(FAULT_DIT_COMMITTED));
    stage_unit_end(st, SPAN_WHOLE);
    bells_ring(st->bells, WRITER_VAE);
    log_debug("block", "block=%lld took_us=%llu", (long long)plan->block,
              (unsigned long long)(ledger_read(&st->head->unit_ns) / NS_PER_US));
out:
    return e;
}

/* The clean pass alone; or, if it has a device of its own, beside the block that comes after it. */
static err_t clean_or_both(struct dit_stage *p, const struct plan *clean_plan)
{
    const struct plan next =
        plan_after_clean(p->st->ledger, &p->st->conf, decide_is_ready, &p->decide);
    if (p->ahead && next.action == PLAN_BLOCK) return make_block(p, &next, clean_plan);
    return clean(p, clean_plan);
}

/* A due prompt is waited for, but not for ever. */
static err_t wait_for_prompt(struct dit_stage *p, const struct plan *plan)
{
    const int32_t max_ms = p->st->conf.dit.prompt_wait_ms;
    if (!plan->waits_for_prompt) {
        p->waiting_since_ns = 0;
    } else if (p->waiting_since_ns == 0) {
        p->waiting_since_ns = now_ns();
    } else if (now_ns() - p->waiting_since_ns > (int64_t)max_ms * NS_PER_MS) {
        return FAIL(ERR_TIMEOUT, "block %lld: its prompt was not encoded within %d ms",
                    (long long)plan->block, max_ms);
    }
    return OK;
}

static err_t dit_stage_step(struct stage *st, void *self, bool *did_work, bool *is_done)
{
    err_t e = OK;
    struct dit_stage *p = self;
    if (st->is_draining) {
        *is_done = true;
        return OK;
    }
    const struct plan plan = plan_next(st->ledger, &st->conf, decide_is_ready, &p->decide);
    const uint64_t needs = (uint64_t)(plan.needs + 1);
    if (ledger_read(&st->ledger->dit.needs_script) != needs)
        ledger_publish(&st->ledger->dit.needs_script, needs);
    if (plan.action != PLAN_WAIT) p->waiting_since_ns = 0;
    switch (plan.action) {
    case PLAN_WAIT:
        TRY(dit_record_next(p->model));
        look_at_kinds(p);
        return wait_for_prompt(p, &plan);
    case PLAN_DECIDE:
        TRY(decide(&p->decide, &plan, did_work));
        break;
    case PLAN_SKIP_CLEAN:
        TRY(fault(FAULT_DIT_SKIP));
        ledger_publish(&st->ledger->dit.n_clean_blocks, (uint64_t)plan.block + 1);
        TRY(fault(FAULT_DIT_SKIPPED));
        *did_work = true;
        break;
    case PLAN_CLEAN:
        TRY(clean_or_both(p, &plan));
        *did_work = true;
        break;
    case PLAN_BLOCK:
        TRY(make_block(p, &plan, NULL));
        *did_work = true;
        break;
    }
    ledger_publish(&st->head->n_ops, ops_count());
    look_at_kinds(p);
out:
    return e;
}

int main(int argc, char **argv)
{
    static const struct stage_def def = {
        .writer = WRITER_DIT,
        .load = ops_load,
        .open = dit_stage_open,
        .step = dit_stage_step,
        .close = dit_stage_close,
        .need = dit_need,
    };
    return stage_main(argc, argv, &def);
}
