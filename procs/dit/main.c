/* main.c - longlived-dit: decisions and latents. The process is here; the model is dit.c, what
 * comes next is plan.c.
 *
 * Regions written: kv.0, latents.0, edge.0, choices.dit, our page and the decisions of the ledger.
 * Each unit ends with one ledger_publish after the device has finished; a unit cut short is done
 * again from the same inputs to the same bits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/dump.h"
#include "common/fault.h"
#include "common/log.h"
#include "ipc/edge.h"
#include "ipc/latents.h"
#include "ipc/prompts.h"
#include "kernels/ops.h"
#include "procs/choices.h"
#include "procs/dit/dit.h"
#include "procs/dit/plan.h"
#include "procs/stage.h"
#include "procs/weights.h"

/* Sequences of a session's seed: which block's noise, and before which step. */
static uint64_t noise_stream(int64_t block, int32_t step)
{
    return (uint64_t)1 << 63 | (uint64_t)block << 8 | (uint64_t)(step + 1);
}

struct dit_stage {
    struct stage *st;
    struct weights *weights;
    struct dit *model;
    struct kv kv;
    struct region weights_region, kv_region, prompts_region, latents_region;
    struct prompts *prompts;
    struct latents latents;
    struct edge edge;
    float *embedding;                   /* host [text_len, dim] */
    int32_t n_tokens, n_tokens_full;    /* of the embedding in hand */
    void *memory;                       /* the five below */
    struct tensor x, flow, eps, frames; /* [block, z, Y, X] x 3; [window, z, Y, X] */
    struct tensor key;                  /* u64 [2] */
    struct checkpoint *noise;           /* that the session starts from; NULL: it draws its own */
    float *noise_block;                 /* host [block, z, Y, X] */
    int64_t noise_session;              /* whose noise that is; -1 none */
    int64_t loaded; /* decision whose cross K/V and preset the model has; -1 none */
    int64_t preset; /* that the model has: a decision's */
    int64_t waiting_since_ns;
    enum ledger_phase phase;
    bool is_recorded; /* every kind of pass */
};

static bool is_ready(void *self, const struct ledger_script *s)
{
    const struct dit_stage *p = self;
    return prompts_find(p->prompts, s->key) >= 0;
}

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
    p->key = TENSOR(p->memory, DTYPE_U64, 2);
    char *at = (char *)p->memory + 2 * sizeof(uint64_t);
    p->x = TENSOR(at, DTYPE_F32, B, z, Y, X);
    p->flow = TENSOR(at + block, DTYPE_F32, B, z, Y, X);
    p->eps = TENSOR(at + 2 * block, DTYPE_F32, B, z, Y, X);
    p->frames = TENSOR(at + 3 * block, DTYPE_F32, W, z, Y, X);
    p->embedding = malloc((size_t)c->text.text_len * (size_t)c->text.dim * sizeof(float));
    p->noise_block = malloc(block);
    if (!p->embedding || !p->noise_block) e = FAIL(ERR_NOMEM, "dit");
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
    TRY(weights_map(p->weights, st, "dit", &p->weights_region));
    TRY(stage_region(st, st->dev, "kv.0", kv_bytes(c, act), KV_LAYOUT, NULL, &p->kv_region));
    ledger_publish(&st->ledger->dit.kv_generation, p->kv_region.generation);
    TRY(kv_open(&p->kv, c, act, p->kv_region.data));
    TRY(stage_region(st, st->host, "prompts", prompts_bytes(c), PROMPTS_LAYOUT, NULL,
                     &p->prompts_region));
    p->prompts = p->prompts_region.data;
    TRY(stage_region(st, st->host, "latents.0", latents_bytes(c), LATENTS_LAYOUT, NULL,
                     &p->latents_region));
    latents_open(&p->latents, c, p->latents_region.data);
    TRY(edge_open(&p->edge, st->keeper, st->dev, c));
    edge_begin(st->ledger, p->edge.region.generation);
out:
    return e;
}

static void dit_stage_close(void **self)
{
    struct dit_stage *p = *self;
    if (!p) return;
    free(p->embedding);
    free(p->noise_block);
    checkpoint_close(&p->noise);
    dev_free(p->st->dev, &p->memory);
    dit_close(&p->model);
    kv_close(&p->kv);
    weights_close(&p->weights);
    region_unmap(&p->weights_region);
    region_unmap(&p->kv_region);
    region_unmap(&p->prompts_region);
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
    p->noise_session = -1;
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
    TRY(dit_record(p->model, n, at - d->sink_base, true));
    TRY(dit_record(p->model, B, at + B - d->sink_base, true));
    TRY(dit_record(p->model, B, at + B - d->sink_base, false));
out:
    return e;
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
    stage_piece(p->st, "tables");
    if (d) TRY(record_block(p, d, (int64_t)ledger_read(&l->dit.n_latents_blocks)));
    else TRY(dit_record_all(p->model));
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
    TRY(open_regions(p));
    stage_piece(st, "regions");
    TRY(prepare(p));
    stage_piece(st, "passes");
    dit_on_layer(p->model, on_layer, p);
out:
    return e;
}

/* --- units of work ---------------------------------------------------------------------------- */

/* Room in text's table, and a receipt. Nobody is woken who has nothing to do: on two cores that
 * would be in the way of who has. */
static void ring_decided(struct stage *st)
{
    bells_ring(st->bells, WRITER_GATEWAY);
    bells_ring(st->bells, WRITER_TEXT);
}

/* The embedding to the half of kv that the decision in force does not use: from the prompt table,
 * or, if only the preset is another, from the other half. *is_there is false if the table has lost
 * it under our hands. */
static err_t take_embedding(struct dit_stage *p, const struct plan *plan, bool *is_there)
{
    err_t e = OK;
    const struct ledger *l = p->st->ledger;
    const uint64_t n = ledger_read(&l->dit.n_decisions);
    const struct tensor to = p->kv.embed[n % 2], from = p->kv.embed[(n + 1) % 2];
    const struct ledger_decision *last = n ? &l->decisions[n - 1] : NULL;
    const uint8_t *key = l->scripts[plan->script].key;
    if (last && last->script == plan->script && plan->kind != DECISION_REBUILD) {
        p->n_tokens = last->n_tokens;
        p->n_tokens_full = last->n_tokens_full;
        TRY(dev_copy(p->st->dev, to.data, from.data, tensor_bytes(to)));
    } else {
        const int32_t at = prompts_find(p->prompts, key);
        *is_there = at >= 0 && prompts_copy(p->prompts, at, key, p->embedding, &p->n_tokens,
                                            &p->n_tokens_full);
        if (!*is_there) return OK;
        TRY(dev_upload(p->st->dev, to.data, p->embedding, tensor_bytes(to)));
    }
    *is_there = true;
    TRY(ops_keep(p->st->dev, to));
    e = dev_sync(p->st->dev);
out:
    return e;
}

/* First the embedding, then the decision is appended. Nothing of it is visible before that. */
static err_t decide(struct dit_stage *p, const struct plan *plan, bool *did_work)
{
    err_t e = OK;
    struct stage *st = p->st;
    struct ledger *l = st->ledger;
    const uint64_t n = ledger_read(&l->dit.n_decisions);
    bool is_there;

    TRY(fault(FAULT_DIT_DECIDE));
    if (n == LEDGER_DECISIONS_MAX)
        return FAIL(ERR_LIMIT, "the ledger holds %llu decisions", (unsigned long long)n);
    TRY(take_embedding(p, plan, &is_there));
    if (!is_there) return OK;
    TRY(fault(FAULT_DIT_EMBEDDING));

    struct ledger_decision *d = &l->decisions[n];
    *d = (struct ledger_decision){.block = plan->block,
                                  .session = plan->session,
                                  .script = plan->script,
                                  .preset = plan->preset,
                                  .kind = plan->kind,
                                  .sink_base = plan->sink_base,
                                  .n_tokens = p->n_tokens,
                                  .n_tokens_full = p->n_tokens_full,
                                  .kv_generation = p->kv_region.generation,
                                  .decided_ns = now_ns()};
    memcpy(d->key, l->scripts[plan->script].key, sizeof d->key);
    TRY(fault(FAULT_DIT_RECORD));
    ledger_publish(&l->dit.n_decisions, n + 1);
    TRY(fault(FAULT_DIT_DECIDED));
    ring_decided(st);
    log_info("decided", "block=%lld script=%lld preset=%lld kind=%d sink_base=%d",
             (long long)plan->block, (long long)plan->script, (long long)plan->preset, plan->kind,
             plan->sink_base);
    *did_work = true;
out:
    return e;
}

static err_t load_preset(struct dit_stage *p, const struct ledger_decision *d)
{
    err_t e = OK;
    const char *steps = NULL;
    if (p->preset == d->preset) return OK;
    TRY(plan_preset(p->st->ledger, &p->st->conf, d->preset, &p->kv.window, &steps));
    TRY(dit_set_preset(p->model, steps));
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
    stage_span(p->st, PHASE_PROMPT, (int64_t)ledger_read(&p->st->head->unit), 0, began_ns);
    p->loaded = n;
    e = fault(FAULT_DIT_PROMPT);
out:
    return e;
}

/* Clean latents [first, first + n) of the session, from the region, into p->frames. */
static err_t load_latents(struct dit_stage *p, int64_t session, int64_t first, int32_t n)
{
    err_t e = OK;
    const struct stage *st = p->st;
    const int64_t base = st->ledger->sessions[session].first_block * st->conf.dit.block;
    for (int32_t i = 0; i < n; i++) {
        const struct tensor row = tensor_rows(p->frames, i, 1);
        TRY(dev_upload(st->dev, row.data, latents_at(&p->latents, base + first + i),
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

static err_t clean(struct dit_stage *p, const struct plan *plan)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct conf *c = &st->conf;
    const int64_t first =
        (plan->block - st->ledger->sessions[plan->session].first_block) * c->dit.block;
    const int64_t began_ns = now_ns();

    TRY(load_decision(p));
    p->phase = PHASE_CLEAN;
    stage_beat(st, p->phase, (uint64_t)plan->block);
    TRY(fault(FAULT_DIT_CLEAN));
    TRY(write_clean_kv(p, plan->session, first, c->dit.block, decision_in_force(p)->sink_base));
    stage_span(st, PHASE_CLEAN, plan->block, 0, began_ns);
    TRY(fault(FAULT_DIT_CLEANED));
    ledger_publish(&st->ledger->dit.n_clean_blocks, (uint64_t)plan->block + 1);
    ledger_add(&st->ledger->dit.n_clean_passes, 1);
    e = fault(FAULT_DIT_CLEAN_COMMITTED);
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
    TRY(write_clean_kv(p, d->session, first, n, d->sink_base));
    stage_span(p->st, PHASE_RECACHE, d->block, 0, began_ns);
    e = fault(FAULT_DIT_RECACHED);
out:
    return e;
}

/* The file that the session's noise comes from, if it is not drawn. */
static err_t open_noise(struct dit_stage *p, int64_t session)
{
    err_t e = OK;
    struct job *job = NULL;
    const struct ledger_session *s = &p->st->ledger->sessions[session];
    if (p->noise_session == session) return OK;
    checkpoint_close(&p->noise);
    if (s->files & SESSION_NOISE) {
        TRY(stage_job(p->st, session, &job));
        const struct job_video *v = &job->videos[s->video];
        TRY(dump_open_noise(&p->noise, v->noise, &p->st->conf, v->n_blocks));
    }
    p->noise_session = session;
out:
    job_free(&job);
    return e;
}

static err_t draw(struct dit_stage *p, struct tensor to, int64_t seed, int64_t block, int32_t step)
{
    err_t e = OK;
    const uint64_t key[2] = {(uint64_t)seed, noise_stream(block, step)};
    if (p->noise) {
        TRY(dump_read_noise(p->noise, &p->st->conf, block, step, p->noise_block));
        TRY(dev_upload(p->st->dev, to.data, p->noise_block, tensor_bytes(to)));
    } else {
        TRY(dev_upload(p->st->dev, p->key.data, key, sizeof key));
        TRY(ops_randn(p->st->dev, to, p->key, 0, 1));
    }
    TRY(ops_keep(p->st->dev, to));
    TRY(dev_sync(p->st->dev)); /* the key is written again */
out:
    return e;
}

/* From noise to clean latents in p->x. */
static err_t denoise(struct dit_stage *p, int64_t seed, int64_t block, int32_t sink_base)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct sched *s = dit_sched(p->model);
    const int64_t first = block * st->conf.dit.block;
    p->phase = PHASE_DENOISE;
    TRY(draw(p, p->x, seed, block, -1));
    TRY(fault(FAULT_DIT_NOISE));
    for (int32_t i = 0; i < s->n_steps; i++) {
        const int64_t began_ns = now_ns();
        TRY(dit_pass(p->model, p->flow, p->x, i, first, sink_base));
        TRY(ops_flow_to_x0(st->dev, p->x, p->x, p->flow, s->sigma[i]));
        if (i + 1 < s->n_steps) {
            TRY(draw(p, p->eps, seed, block, i));
            TRY(ops_renoise(st->dev, p->x, p->x, p->eps, s->sigma[i + 1]));
        }
        TRY(dev_sync(st->dev));
        stage_span(st, PHASE_DENOISE, (int64_t)st->unit, i, began_ns);
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

static err_t make_block(struct dit_stage *p, const struct plan *plan)
{
    err_t e = OK;
    struct stage *st = p->st;
    const struct conf *c = &st->conf;
    const struct ledger_session *session = &st->ledger->sessions[plan->session];
    const int64_t block = plan->block - session->first_block, at = block * c->dit.block;
    const struct ledger_decision *d = decision_in_force(p);

    stage_unit_begin(st, PHASE_DENOISE, (uint64_t)plan->block);
    TRY(fault(FAULT_DIT_BLOCK));
    TRY(open_noise(p, plan->session));
    TRY(load_decision(p));
    if (d->block == plan->block && at > 0 && plan_recaches((enum decision_kind)d->kind))
        TRY(recache(p, d, at));
    TRY(denoise(p, session->seed, block, d->sink_base));
    for (int32_t i = 0; i < c->dit.block; i++) {
        TRY(store(p, tensor_rows(p->x, i, 1), plan->block * c->dit.block + i));
        TRY(fault(FAULT_DIT_LATENT));
    }
    TRY(dev_sync(st->dev));
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
    const struct plan plan = plan_next(st->ledger, &st->conf, is_ready, p);
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
        TRY(decide(p, &plan, did_work));
        break;
    case PLAN_SKIP_CLEAN:
        TRY(fault(FAULT_DIT_SKIP));
        ledger_publish(&st->ledger->dit.n_clean_blocks, (uint64_t)plan.block + 1);
        TRY(fault(FAULT_DIT_SKIPPED));
        *did_work = true;
        break;
    case PLAN_CLEAN:
        TRY(clean(p, &plan));
        *did_work = true;
        break;
    case PLAN_BLOCK:
        TRY(make_block(p, &plan));
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
