/* decide.c - see decide.h. */
#include "procs/dit/decide.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "kernels/ops.h"

err_t decide_open(struct decide *p, struct stage *st, const struct kv *kv)
{
    err_t e = OK;
    const struct conf *c = &st->conf;
    *p = (struct decide){.st = st, .kv = kv};
    p->embedding = malloc((size_t)c->text.text_len * (size_t)c->text.dim * sizeof(float));
    if (!p->embedding) return FAIL(ERR_NOMEM, "decisions");
    TRY(stage_region(st, st->host, "prompts", prompts_bytes(c), PROMPTS_LAYOUT, NULL, &p->region));
    p->prompts = p->region.data;
out:
    return e;
}

void decide_close(struct decide *p)
{
    free(p->embedding);
    region_unmap(&p->region);
    *p = (struct decide){0};
}

bool decide_is_ready(void *self, const struct ledger_script *s)
{
    const struct decide *p = self;
    return prompts_find(p->prompts, s->key) >= 0;
}

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
static err_t take_embedding(struct decide *p, const struct plan *plan, bool *is_there)
{
    err_t e = OK;
    const struct ledger *l = p->st->ledger;
    const uint64_t n = ledger_read(&l->dit.n_decisions);
    const struct tensor to = p->kv->embed[n % 2], from = p->kv->embed[(n + 1) % 2];
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
err_t decide(struct decide *p, const struct plan *plan, bool *did_work)
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
                                  .kv_generation = ledger_read(&l->dit.kv_generation),
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
