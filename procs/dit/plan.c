/* plan.c - see plan.h. */
#include "procs/dit/plan.h"

#include "ipc/latents.h"

/* Steps touch neither. A switch keeps the sink if the window has left the sink's frames behind: a
 * larger window that reaches back to them holds them as any others. */
static bool keeps_sink(const struct conf *c, int32_t window, enum decision_kind kind, int64_t at,
                       int32_t base)
{
    return kind == DECISION_STEPS ||
           (kind == DECISION_SWITCH && c->dit.global_sink && at - base > window);
}

bool plan_recaches(enum decision_kind kind)
{
    return kind == DECISION_SWITCH || kind == DECISION_REBUILD;
}

int32_t plan_window(const struct ledger *l, const struct conf *c, int64_t preset)
{
    return preset == 0 ? c->dit.window : l->presets[preset - 1].window;
}

void plan_recache(const struct conf *c, int32_t window, enum decision_kind kind, int64_t at,
                  int32_t base, int64_t *first, int32_t *n_frames)
{
    const int64_t keeps = keeps_sink(c, window, kind, at, base) ? window - c->dit.sink : window;
    *first = at > keeps ? at - keeps : 0;
    *n_frames = (int32_t)(at - *first);
}

int32_t plan_sink_base(const struct conf *c, int32_t window, enum decision_kind kind, int64_t at,
                       int32_t base)
{
    if (keeps_sink(c, window, kind, at, base)) return base;
    return at > window ? (int32_t)(at - window) : 0;
}

err_t plan_preset(const struct ledger *l, const struct conf *c, int64_t preset, int32_t *window,
                  const char **steps)
{
    *window = plan_window(l, c, preset);
    *steps = preset == 0 ? c->dit.steps : l->presets[preset - 1].steps;
    if (*window < c->dit.sink + c->dit.block || *window > conf_window_max(c))
        return FAIL(ERR_DATA, "ledger: preset record %lld: window %d", (long long)preset - 1,
                    *window);
    return OK;
}

static const struct ledger_decision *last_decision(const struct ledger *l)
{
    const uint64_t n = ledger_read(&l->dit.n_decisions);
    return n ? &l->decisions[n - 1] : NULL;
}

const struct ledger_decision *plan_resumed(const struct ledger *l)
{
    const int64_t L = (int64_t)ledger_read(&l->dit.n_latents_blocks);
    const int64_t session = ledger_session_of(l, L);
    const struct ledger_decision *last = last_decision(l);
    if (!last || session < 0 || l->sessions[session].first_block == L) return NULL;
    return last->session == session ? last : NULL;
}

/* Embedding and K/V of the session's last decision went with a region kv that is no more. */
static bool has_lost_cache(const struct ledger *l, int64_t session)
{
    const struct ledger_decision *last = last_decision(l);
    return last && last->session == session && ledger_cache_is_lost(l);
}

/* last: the session's, NULL for its first. */
static enum decision_kind kind_of(const struct ledger *l, const struct conf *c,
                                  const struct plan *p, const struct ledger_decision *last,
                                  bool is_lost)
{
    if (!last) return DECISION_START;
    if (is_lost) return DECISION_REBUILD;
    if (p->script != last->script)
        return l->scripts[p->script].is_rebuild ? DECISION_REBUILD : DECISION_SWITCH;
    const bool is_same = plan_window(l, c, p->preset) == plan_window(l, c, last->preset);
    return is_same ? DECISION_STEPS : DECISION_SWITCH;
}

/* Decides whether block L of this session takes a new prompt or preset, or must be rebuilt for. */
static struct plan decide(const struct ledger *l, const struct conf *c, struct plan p,
                          bool (*is_ready)(void *, const struct ledger_script *), void *self)
{
    const struct ledger_decision *last = last_decision(l);
    const bool is_ours = last && last->session == p.session;
    const bool is_lost = has_lost_cache(l, p.session);
    const int64_t at = (p.block - l->sessions[p.session].first_block) * c->dit.block;

    p.action = PLAN_WAIT;
    p.needs = -1;
    p.preset = ledger_due_preset(l, p.session, p.block, is_ours ? last->preset : 0);
    p.script = ledger_due_script(l, p.session, p.block, is_ours ? last->script : -1, is_ready, self,
                                 &p.waits_for_prompt);
    if (p.script < 0 && is_lost && !p.waits_for_prompt) {
        p.waits_for_prompt = !is_ready(self, &l->scripts[last->script]);
        if (p.waits_for_prompt) p.needs = last->script;
        else p.script = last->script;
    }
    /* A preset alone goes on with the prompt in force; while a prompt is waited for it waits, too.
     */
    if (p.script < 0 && is_ours && p.preset > 0 && !p.waits_for_prompt) p.script = last->script;
    if (p.script < 0) return p;
    p.action = PLAN_DECIDE;
    if (p.preset == 0 && is_ours) p.preset = last->preset;
    p.kind = kind_of(l, c, &p, is_ours ? last : NULL, is_lost);
    p.sink_base =
        is_ours ? plan_sink_base(c, plan_window(l, c, p.preset), p.kind, at, last->sink_base) : 0;
    return p;
}

static bool is_decided(const struct ledger *l, int64_t block)
{
    const struct ledger_decision *last = last_decision(l);
    return last && last->block == block && !has_lost_cache(l, last->session);
}

/* The block's session has a prompt in force. */
static bool has_prompt(const struct ledger *l, int64_t session)
{
    const struct ledger_decision *last = last_decision(l);
    return last && last->session == session;
}

/* Clean pass of block L - 1, unless its K/V will never be read. One that is made beside a block
 * waits until that block is wanted: it costs no time then, and may be dead work by then. */
static struct plan plan_clean(const struct ledger *l, const struct conf *c, int64_t L,
                              bool (*is_ready)(void *, const struct ledger_script *), void *self)
{
    struct plan p = {.action = PLAN_CLEAN, .block = L - 1, .script = -1, .needs = -1};
    p.session = ledger_session_of(l, L - 1);
    const int64_t next = ledger_session_of(l, L);
    const bool is_new = is_decided(l, L), is_wanted = ledger_is_wanted(l, L, c->dit.block);
    if ((is_new && plan_recaches((enum decision_kind)last_decision(l)->kind)) ||
        ledger_session_is_over(l, p.session)) {
        p.action = PLAN_SKIP_CLEAN;
    } else if (is_new) { /* other steps: no recache, and the clean pass takes none of them */
        return p;
    } else if (next == p.session && is_wanted) { /* else decide later, with newer prompts */
        const struct plan ahead =
            decide(l, c, (struct plan){.block = L, .session = next}, is_ready, self);
        if (ahead.action == PLAN_DECIDE || has_lost_cache(l, next)) return ahead;
    } else if (has_lost_cache(l, p.session) || c->place.clean[0]) {
        p.action = PLAN_WAIT; /* nothing that the pass would read is left; or it is made later */
    }
    return p;
}

/* K = L. */
static struct plan plan_block(const struct ledger *l, const struct conf *c, int64_t L,
                              bool (*is_ready)(void *, const struct ledger_script *), void *self)
{
    struct plan p = {.action = PLAN_WAIT, .block = L, .script = -1, .needs = -1};
    p.session = ledger_session_of(l, L);
    if (p.session < 0 || !ledger_is_wanted(l, L, c->dit.block)) return p;
    if ((L + 1) * c->dit.block >
        (int64_t)ledger_read(&l->vae.n_latents) + c->dit.ring_latents - LATENTS_OF_VAE_STATE)
        return p;

    if (!is_decided(l, L)) {
        p = decide(l, c, p, is_ready, self);
        if (p.action == PLAN_DECIDE || p.waits_for_prompt) return p;
        if (!has_prompt(l, p.session)) return p;
    }
    p.action = PLAN_BLOCK;
    return p;
}

static struct plan next(const struct ledger *l, const struct conf *c, bool is_clean,
                        bool (*is_ready)(void *, const struct ledger_script *), void *self)
{
    const int64_t L = (int64_t)ledger_read(&l->dit.n_latents_blocks);
    const int64_t K = (int64_t)ledger_read(&l->dit.n_clean_blocks);
    const bool waits =
        !conf_overlaps(c) && (int64_t)ledger_read(&l->vae.n_latents) < L * c->dit.block;

    MUST(K <= L && L <= K + 1);
    if (waits) return (struct plan){.action = PLAN_WAIT, .block = L, .script = -1, .needs = -1};
    return K < L && !is_clean ? plan_clean(l, c, L, is_ready, self)
                              : plan_block(l, c, L, is_ready, self);
}

struct plan plan_next(const struct ledger *l, const struct conf *c,
                      bool (*is_ready)(void *self, const struct ledger_script *s), void *self)
{
    return next(l, c, false, is_ready, self);
}

struct plan plan_after_clean(const struct ledger *l, const struct conf *c,
                             bool (*is_ready)(void *self, const struct ledger_script *s),
                             void *self)
{
    return next(l, c, true, is_ready, self);
}
