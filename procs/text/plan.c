/* plan.c - see plan.h. */
#include "procs/text/plan.h"

static int64_t last_decided(const struct ledger *l)
{
    const uint64_t n = ledger_read(&l->dit.n_decisions);
    return n ? l->decisions[n - 1].script : -1;
}

/* A decided prompt whose embedding is lost goes before all others, and nothing is encoded over it
 * before dit has taken it: dit waits, so whatever is pushed out has time to be encoded again. */
static struct text_plan text_plan_again(struct text_plan p, const struct ledger *l,
                                        const struct prompts *table, int64_t script)
{
    if (prompts_find(table, l->scripts[script].key) >= 0) return p;
    p.script = script;
    p.entry = prompts_victim(table, l, last_decided(l), (int64_t)ledger_read(&l->gateway.n_scripts),
                             &p.does_evict);
    if (p.entry >= 0) return p;
    p.entry = 0;
    p.does_evict = true;
    return p;
}

struct text_plan text_plan_next(const struct ledger *l, const struct prompts *table)
{
    const int64_t n = (int64_t)ledger_read(&l->gateway.n_scripts), decided = last_decided(l);
    const int64_t seen = (int64_t)ledger_read(&l->text.n_scripts_seen);
    const int64_t needs = (int64_t)ledger_read(&l->dit.needs_script) - 1;
    struct text_plan p = {.script = -1, .n_seen = seen, .entry = -1};

    if (needs >= 0) return text_plan_again(p, l, table, needs);
    for (int64_t i = decided + 1 < seen ? decided + 1 : seen; i < n; i++) {
        const struct ledger_script *s = &l->scripts[i];
        const bool is_prewarm = s->at_block == SCRIPT_PREWARM;
        /* A prewarmed prompt is encoded once; one to be decided, until it is or its session ends.
         */
        const bool is_needed =
            is_prewarm ? i >= seen : i > decided && !ledger_session_is_over(l, s->session);
        if (is_needed && prompts_find(table, s->key) < 0) {
            p.script = i;
            p.entry = prompts_victim(table, l, decided, i, &p.does_evict);
            return p;
        }
        if (i >= seen) p.n_seen = i + 1;
    }
    return p;
}
