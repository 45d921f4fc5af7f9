/* main.c - longlived-text: prompts in the ledger's script to embeddings in region `prompts`.
 *
 * It works from the script alone: the first prompt that is still to be decided and whose embedding
 * the table lacks is encoded next (plan.c). So a restart needs to know nothing, and a lost bell
 * loses 5 ms.
 *
 * With text.resident = false its weights are there only while prompts are encoded: the first one
 * loads them, and they go when there is nothing more to encode.
 */
#include <stdlib.h>
#include <string.h>

#include "common/dump.h"
#include "common/fault.h"
#include "common/log.h"
#include "ipc/prompts.h"
#include "kernels/ops.h"
#include "procs/choices.h"
#include "procs/stage.h"
#include "procs/text/plan.h"
#include "procs/text/store.h"
#include "procs/text/tokenizer.h"
#include "procs/text/umt5.h"
#include "procs/weights.h"

struct text_stage {
    struct stage *st;
    struct weights *weights;
    struct umt5 *model;
    struct region weights_region, prompts_region;
    bool has_weights; /* region weights.text may be there: ours, or a predecessor's */
    struct prompts *prompts;
    struct store *store; /* NULL: no cache.file */
    struct tokenizer *tokenizer;
    int32_t *ids; /* [text_len] */
    char *text;   /* one prompt, NUL-terminated */
};

static void on_layer(void *self)
{
    struct text_stage *p = self;
    stage_beat(p->st, PHASE_ENCODE, ledger_read(&p->st->head->unit));
    fault(FAULT_TEXT_LAYER);
}

static void text_close(void **self)
{
    struct text_stage *p = *self;
    if (!p) return;
    store_close(&p->store);
    tokenizer_close(&p->tokenizer);
    free(p->ids);
    free(p->text);
    umt5_close(&p->model);
    weights_close(&p->weights);
    region_unmap(&p->weights_region);
    region_unmap(&p->prompts_region);
    ops_close(p->st->dev);
    free(p);
    *self = NULL;
}

/* A table smaller than the file takes its first records. */
static err_t load_store(struct text_stage *p)
{
    err_t e = OK;
    const struct conf *c = &p->st->conf;
    const size_t n = (size_t)c->text.text_len * (size_t)c->text.dim;
    float *row = NULL;
    uint8_t key[PROMPT_KEY_BYTES];
    int32_t n_tokens, n_full;
    if (!c->cache.file[0]) return OK;
    TRY(store_open(&p->store, c->cache.file, c));
    if (prompts_count(p->prompts) > 0) return OK; /* a restart: the table already holds them */
    row = malloc(n * sizeof *row);
    if (!row) return FAIL(ERR_NOMEM, "prompt store");
    for (int32_t i = 0; i < c->cache.prompts && i < store_count(p->store); i++) {
        if (!store_read(p->store, i, key, row, &n_tokens, &n_full)) continue;
        if (prompts_find(p->prompts, key) >= 0) continue;
        memcpy(prompts_begin(p->prompts, i), row, n * sizeof *row);
        prompts_commit(p->prompts, i, key, n_tokens, n_full);
        ledger_add(&p->st->ledger->text.n_from_file, 1);
    }
out:
    free(row);
    return e;
}

static err_t open_model(struct stage *st, void **self)
{
    err_t e = OK;
    struct text_stage *p = calloc(1, sizeof *p);
    if (!p) return FAIL(ERR_NOMEM, "text");
    *self = p;
    p->st = st;
    TRY(ops_open(st->dev));
    stage_piece(st, "ops");
    ops_set_bf16(st->dev, st->conf.model.parity == PARITY_REFERENCE);
    TRY(weights_open(&p->weights));
    TRY(umt5_open(&p->model, st->dev, &st->conf, p->weights));
    stage_piece(st, "model");
out:
    return e;
}

static err_t text_need(struct stage *st, struct stage_need *n)
{
    err_t e = OK;
    void *self = NULL;
    TRY(open_model(st, &self));
    const struct text_stage *p = self;
    *n = (struct stage_need){.weights = weights_bytes(p->weights),
                             .scratch = dev_live_bytes(st->dev)};
out:
    text_close(&self);
    return e;
}

static err_t text_open(struct stage *st, void **self)
{
    err_t e = OK;
    const struct conf *c = &st->conf;
    TRY(open_model(st, self));
    struct text_stage *p = *self;
    p->ids = malloc((size_t)c->text.text_len * sizeof *p->ids);
    p->text = malloc(PROMPT_BYTES_MAX + 1);
    if (!p->ids || !p->text) return FAIL(ERR_NOMEM, "text");
    TRY(tokenizer_open(&p->tokenizer, c));
    stage_piece(st, "tokenizer");
    p->has_weights = true;
    TRY(choices_map(st, "text"));
    if (c->text.resident) TRY(weights_map(p->weights, st, st->dev, "text", &p->weights_region));
    TRY(stage_region(st, st->host, "prompts", prompts_bytes(c), PROMPTS_LAYOUT, NULL,
                     &p->prompts_region));
    p->prompts = p->prompts_region.data;
    prompts_format(p->prompts, c);
    stage_piece(st, "regions");
    TRY(load_store(p));
    ledger_publish(&st->ledger->text.n_entries, (uint64_t)prompts_count(p->prompts));
out:
    return e;
}

/* A file that cannot be written any more is done without, and that is said: the video goes on. */
static void keep(struct text_stage *p, int32_t entry, const uint8_t *key, const float *row,
                 int32_t n_tokens, int32_t n_tokens_full)
{
    if (!p->store || store_put(p->store, entry, key, row, n_tokens, n_tokens_full) == OK) return;
    log_warn("cache_file", "msg=\"%s: prompts are not kept in it any more\"", err_text());
    store_close(&p->store);
}

/* The session's files bring the embedding: its number is that of the prompt in the job. */
static err_t read_rows(struct text_stage *p, int64_t script, float *row, int32_t *n)
{
    err_t e = OK;
    const struct ledger *l = p->st->ledger;
    const struct ledger_script *s = &l->scripts[script];
    struct checkpoint *embeds = NULL;
    struct job *job = NULL;
    int64_t at = 0;
    for (int64_t i = 0; i < script; i++)
        at += l->scripts[i].session == s->session && l->scripts[i].request == 0;
    TRY(stage_job(p->st, s->session, &job));
    const struct job_video *v = &job->videos[l->sessions[s->session].video];
    TRY(dump_open_embeds(&embeds, v->embeds, &p->st->conf, v->n_prompts));
    TRY(dump_read_embed(embeds, &p->st->conf, at, row, n));
out:
    checkpoint_close(&embeds);
    job_free(&job);
    return e;
}

static err_t load_weights(struct text_stage *p)
{
    err_t e = OK;
    if (p->weights_region.data) return OK;
    p->has_weights = true;
    dev_unseal(p->st->dev);
    TRY(weights_map(p->weights, p->st, p->st->dev, "text", &p->weights_region));
    e = stage_tell_memory(p->st);
out:
    dev_seal(p->st->dev);
    return e;
}

static err_t drop_weights(struct text_stage *p)
{
    err_t e = OK;
    TRY(fault(FAULT_TEXT_DROP));
    TRY(weights_drop(p->st, "text", &p->weights_region));
    p->has_weights = false;
    e = stage_tell_memory(p->st);
out:
    return e;
}

/* A prompt's text to the rows of its embedding; *n_full: tokens before it was cut. */
static err_t encode_rows(struct text_stage *p, int64_t script, float *row, int32_t *n,
                         int32_t *n_full)
{
    const struct conf *c = &p->st->conf;
    const struct ledger *l = p->st->ledger;
    const struct ledger_script *s = &l->scripts[script];
    memcpy(p->text, l->texts + s->text_at, s->n_text_bytes);
    p->text[s->n_text_bytes] = '\0';
    *n = tokenizer_encode(p->tokenizer, p->text, c->text.text_len, p->ids, n_full);
    const err_t e = load_weights(p);
    return e == OK ? umt5_encode(p->model, p->ids, *n, row, on_layer, p) : e;
}

static bool is_in_file(const struct ledger *l, const struct ledger_script *s)
{
    return s->session >= 0 && s->request == 0 && l->sessions[s->session].files & SESSION_EMBEDS;
}

static err_t encode(struct text_stage *p, const struct text_plan *plan)
{
    err_t e = OK;
    struct stage *st = p->st;
    struct ledger *l = st->ledger;
    const struct ledger_script *s = &l->scripts[plan->script];
    int32_t n, n_full;

    stage_unit_begin(st, PHASE_ENCODE, (uint64_t)plan->script);
    TRY(fault(FAULT_TEXT_BEGIN));
    float *row = prompts_begin(p->prompts, plan->entry);
    TRY(fault(FAULT_TEXT_ROW));
    if (is_in_file(l, s)) {
        TRY(read_rows(p, plan->script, row, &n));
        n_full = n;
    } else {
        TRY(encode_rows(p, plan->script, row, &n, &n_full));
    }
    TRY(fault(FAULT_TEXT_ENCODED));
    prompts_commit(p->prompts, plan->entry, s->key, n, n_full);
    TRY(fault(FAULT_TEXT_COMMITTED));
    keep(p, plan->entry, s->key, row, n, n_full);
    TRY(fault(FAULT_TEXT_STORED));
    if (!is_in_file(l, s)) ledger_add(&l->text.n_encoded, 1);
    TRY(fault(FAULT_TEXT_COUNTED));
    if (plan->does_evict) ledger_add(&l->text.n_evictions, 1);
    ledger_publish(&l->text.n_entries, (uint64_t)prompts_count(p->prompts));
    ledger_publish(&st->head->n_ops, ops_count());
    stage_unit_end(st, 0);
    bells_ring(st->bells, WRITER_DIT);
    bells_ring(st->bells, WRITER_GATEWAY);
out:
    return e;
}

static err_t text_step(struct stage *st, void *self, bool *did_work, bool *is_done)
{
    struct text_stage *p = self;
    if (st->is_draining) {
        *is_done = true;
        return OK;
    }
    const struct text_plan plan = text_plan_next(st->ledger, p->prompts);
    if (plan.n_seen > (int64_t)ledger_read(&st->ledger->text.n_scripts_seen)) {
        ledger_publish(&st->ledger->text.n_scripts_seen, (uint64_t)plan.n_seen);
        const err_t e = fault(FAULT_TEXT_SEEN);
        if (e != OK) return e;
    }
    if (plan.script < 0 || plan.entry < 0)
        return p->has_weights && !st->conf.text.resident ? drop_weights(p) : OK;
    *did_work = true;
    return encode(p, &plan);
}

int main(int argc, char **argv)
{
    static const struct stage_def def = {
        .writer = WRITER_TEXT,
        .load = ops_load,
        .open = text_open,
        .step = text_step,
        .close = text_close,
        .need = text_need,
    };
    return stage_main(argc, argv, &def);
}
