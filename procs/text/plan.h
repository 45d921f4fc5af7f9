/* plan.h - what text does next: a pure function of the ledger's script and the prompt table. */
#ifndef PROCS_TEXT_PLAN_H
#define PROCS_TEXT_PLAN_H

#include "ipc/prompts.h"

struct text_plan {
    int64_t script;  /* to encode next; -1: every prompt that is needed is there */
    int64_t n_seen;  /* script records whose embedding the table holds or held: to be published */
    int32_t entry;   /* of the table, for its embedding; -1: all are needed, room comes with the
                      * next decision */
    bool does_evict; /* the entry holds another prompt */
};

struct text_plan text_plan_next(const struct ledger *l, const struct prompts *table);

#endif
