/* decide.h - decisions: which prompt and preset hold from a block on, and the prompt's embedding
 * with them, from the prompt table into region kv. */
#ifndef PROCS_DIT_DECIDE_H
#define PROCS_DIT_DECIDE_H

#include <stdbool.h>

#include "ipc/prompts.h"
#include "procs/dit/kv.h"
#include "procs/dit/plan.h"
#include "procs/stage.h"

struct decide {
    struct stage *st;
    const struct kv *kv; /* where embeddings go; both are borrowed */
    struct region region;
    struct prompts *prompts;
    float *embedding;                /* host [text_len, dim] */
    int32_t n_tokens, n_tokens_full; /* of the embedding in hand */
};

/* Maps the prompt table. */
MUST_USE err_t decide_open(struct decide *p, struct stage *st, const struct kv *kv);
void decide_close(struct decide *p); /* one that was not opened, but zeroed, too */

/* For plan_next; self: a struct decide. */
bool decide_is_ready(void *self, const struct ledger_script *s);

/* First the embedding, then the decision is appended, as PLAN_DECIDE says. *did_work stays as it
 * was if the table has lost the embedding meanwhile. */
MUST_USE err_t decide(struct decide *p, const struct plan *plan, bool *did_work);

#endif
