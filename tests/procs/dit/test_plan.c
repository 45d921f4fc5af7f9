/* test_plan.c - what dit does next: a table of cases, then random walks with kills. */
#include "procs/dit/plan.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static struct ledger *l;
static struct conf c;

static int open_ledger(void **state)
{
    (void)state;
    conf_default(&c);
    l = malloc(sizeof *l);
    return l ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(l);
    return 0;
}

static bool ready(void *self, const struct ledger_script *s)
{
    return *(const int64_t *)self & 1ll << (s - l->scripts);
}

/* --- cases -------------------------------------------------------------------------------------
 */

/* A state of the ledger, and what comes next. One session of n_blocks (0: open) from block `first`,
 * prompts at blocks, or ASAP; decisions took the prompts from the front. */
struct plan_case {
    const char *name;
    bool no_session;
    int64_t first, n_blocks, L, K, want, decoded; /* want in blocks, decoded in latents */
    int64_t script[4];                            /* at_block; -9: none */
    int64_t is_ready;                             /* bits of scripts */
    int64_t decided[2];                           /* blocks; -9: none */
    enum plan_action action;
    int64_t at; /* block, or script of a decision */
    bool waits;
};

#define NO                                                                                         \
    {                                                                                              \
        -9, -9, -9, -9                                                                             \
    }
#define ONE(a)                                                                                     \
    {                                                                                              \
        a, -9, -9, -9                                                                              \
    }
#define TWO(a, b)                                                                                  \
    {                                                                                              \
        a, b, -9, -9                                                                               \
    }
#define D0                                                                                         \
    {                                                                                              \
        -9, -9                                                                                     \
    }
#define D1(a)                                                                                      \
    {                                                                                              \
        a, -9                                                                                      \
    }
#define D2(a, b)                                                                                   \
    {                                                                                              \
        a, b                                                                                       \
    }

/* clang-format off */
static const struct plan_case cases[] = {
    {"no session", true, 0, 0, 0, 0, 9, 0, NO, 0, D0, PLAN_WAIT, 0, false},
    {"a session without a prompt", false, 0, 9, 0, 0, 9, 0, NO, 0, D0, PLAN_WAIT, 0, false},
    {"nothing wanted", false, 0, 9, 0, 0, 0, 0, ONE(0), 1, D0, PLAN_WAIT, 0, false},
    {"the first prompt is not ready", false, 0, 9, 0, 0, 9, 0, ONE(0), 0, D0, PLAN_WAIT, 0, true},
    {"nor is an ASAP one", false, 0, 9, 0, 0, 9, 0, ONE(SCRIPT_ASAP), 0, D0, PLAN_WAIT, 0, true},
    {"a prompt to start with", false, 0, 9, 0, 0, 9, 0, ONE(0), 1, D0, PLAN_DECIDE, 0, false},
    {"an ASAP prompt to start",
     false, 0, 9, 0, 0, 9, 0, ONE(SCRIPT_ASAP), 1, D0, PLAN_DECIDE, 0, false},
    {"prewarmed is not asked",
     false, 0, 9, 0, 0, 9, 0, ONE(SCRIPT_PREWARM), 1, D0, PLAN_WAIT, 0, false},
    {"started", false, 0, 9, 0, 0, 9, 0, ONE(0), 1, D1(0), PLAN_BLOCK, 0, false},
    {"clean follows", false, 0, 9, 1, 0, 9, 0, ONE(0), 1, D1(0), PLAN_CLEAN, 0, false},
    {"clean follows unwanted too", false, 0, 9, 1, 0, 1, 0, ONE(0), 1, D1(0), PLAN_CLEAN, 0, false},
    {"on it goes", false, 0, 9, 1, 1, 9, 0, ONE(0), 1, D1(0), PLAN_BLOCK, 1, false},
    {"only as far as wanted", false, 0, 9, 1, 1, 1, 0, ONE(0), 1, D1(0), PLAN_WAIT, 1, false},
    {"the last clean pass is not made",
     false, 0, 2, 2, 1, 9, 0, ONE(0), 1, D1(0), PLAN_SKIP_CLEAN, 1, false},
    {"the session is over", false, 0, 2, 2, 2, 9, 0, ONE(0), 1, D1(0), PLAN_WAIT, 2, false},
    {"a switch before the clean pass",
     false, 0, 9, 3, 2, 9, 0, TWO(0, 3), 3, D1(0), PLAN_DECIDE, 1, false},
    {"makes it dead work",
     false, 0, 9, 3, 2, 9, 0, TWO(0, 3), 3, D2(0, 3), PLAN_SKIP_CLEAN, 2, false},
    {"then the block", false, 0, 9, 3, 3, 9, 0, TWO(0, 3), 3, D2(0, 3), PLAN_BLOCK, 3, false},
    {"a switch not ready: clean first",
     false, 0, 9, 3, 2, 9, 0, TWO(0, 3), 1, D1(0), PLAN_CLEAN, 2, false},
    {"then wait for it", false, 0, 9, 3, 3, 9, 0, TWO(0, 3), 1, D1(0), PLAN_WAIT, 3, true},
    {"then decide", false, 0, 9, 3, 3, 9, 0, TWO(0, 3), 3, D1(0), PLAN_DECIDE, 1, false},
    {"an ASAP switch does not hold up",
     false, 0, 9, 3, 3, 9, 0, TWO(0, SCRIPT_ASAP), 1, D1(0), PLAN_BLOCK, 3, false},
    {"but is taken", false, 0, 9, 3, 3, 9, 0, TWO(0, SCRIPT_ASAP), 3, D1(0), PLAN_DECIDE, 1, false},
    {"a switch not due yet", false, 0, 9, 3, 2, 9, 0, TWO(0, 4), 3, D1(0), PLAN_CLEAN, 2, false},
    {"an unwanted block decides later",
     false, 0, 9, 3, 2, 3, 0, TWO(0, 3), 3, D1(0), PLAN_CLEAN, 2, false},
    {"the newest of two that are due",
     false, 0, 9, 3, 3, 9, 0, {0, 1, 2, -9}, 7, D1(0), PLAN_DECIDE, 2, false},
    {"a session that begins later", false, 5, 4, 5, 5, 9, 0, ONE(5), 1, D0, PLAN_DECIDE, 0, false},
    {"no room in the ring", false, 0, 0, 8, 8, 99, 0, ONE(0), 1, D1(0), PLAN_WAIT, 8, false},
    {"room for one", false, 0, 0, 8, 8, 99, 1, ONE(0), 1, D1(0), PLAN_BLOCK, 8, false},
    {"clean needs no room", false, 0, 0, 9, 8, 99, 0, ONE(0), 1, D1(0), PLAN_CLEAN, 8, false},
};
/* clang-format on */

static void lay(const struct plan_case *t)
{
    memset(l, 0, sizeof *l);
    l->sessions[0].first_block = t->first;
    l->sessions[0].n_blocks = (uint64_t)t->n_blocks;
    l->gateway.n_sessions = !t->no_session;
    l->gateway.want = (uint64_t)(t->want * c.dit.block);
    l->dit.n_latents_blocks = (uint64_t)t->L;
    l->dit.n_clean_blocks = (uint64_t)t->K;
    l->vae.n_latents = (uint64_t)t->decoded;
    for (int i = 0; i < 4 && t->script[i] != -9; i++) {
        l->scripts[i].at_block = t->script[i];
        l->scripts[i].session = t->script[i] == SCRIPT_PREWARM ? -1 : 0;
        l->gateway.n_scripts = (uint64_t)i + 1;
    }
    for (int i = 0; i < 2 && t->decided[i] != -9; i++) {
        l->decisions[i].block = t->decided[i];
        l->decisions[i].script = i;
        l->decisions[i].kind = i ? DECISION_SWITCH : DECISION_START;
        l->dit.n_decisions = (uint64_t)i + 1;
    }
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct plan_case *t = &cases[i];
        int64_t bits = t->is_ready;
        lay(t);
        const struct plan p = plan_next(l, &c, ready, &bits);
        if (p.action != t->action) fail_msg("%s: action %d, want %d", t->name, p.action, t->action);
        if (p.action == PLAN_DECIDE) {
            assert_int_equal(p.script, t->at);
            assert_int_equal(p.block, t->L);
            assert_int_equal(p.kind, t->decided[0] == -9 ? DECISION_START : DECISION_SWITCH);
        } else if (p.block != t->at) {
            fail_msg("%s: block %lld, want %lld", t->name, (long long)p.block, (long long)t->at);
        }
        if (p.waits_for_prompt != t->waits) fail_msg("%s: waits_for_prompt", t->name);
    }
}

/* Without overlap every action waits until the VAE has all that was made, and none is another. */
static void test_taking_turns(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct plan_case *t = &cases[i];
        int64_t bits = t->is_ready;
        lay(t);
        c.dit.overlap = OVERLAP_FALSE;
        l->vae.n_latents = (uint64_t)(t->L * c.dit.block - 1);
        if (t->L > 0) assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_WAIT);
        l->vae.n_latents = (uint64_t)(t->L * c.dit.block);
        const struct plan turns = plan_next(l, &c, ready, &bits);
        c.dit.overlap = OVERLAP_TRUE;
        const struct plan at_once = plan_next(l, &c, ready, &bits);
        assert_memory_equal(&turns, &at_once, sizeof turns);
    }
}

/* A second session starts anew: its prompt is a START with the sink at 0. */
static void test_the_next_session_starts_anew(void **state)
{
    (void)state;
    int64_t bits = 3;
    const struct plan_case t = {
        .n_blocks = 4, .L = 4, .K = 4, .want = 9, .script = TWO(0, 4), .decided = D1(0)};
    lay(&t);
    l->decisions[0].sink_base = 33;
    l->sessions[1].first_block = 4;
    l->scripts[1].session = 1;
    l->gateway.n_sessions = 2;
    const struct plan p = plan_next(l, &c, ready, &bits);
    assert_int_equal(p.action, PLAN_DECIDE);
    assert_int_equal(p.kind, DECISION_START);
    assert_int_equal(p.session, 1);
    assert_int_equal(p.script, 1);
    assert_int_equal(p.sink_base, 0);
}

/* Session 0 at block 3 under its first prompt, and a preset of this window that is due. */
static void lay_preset(int32_t window, int64_t at_block)
{
    const struct plan_case t = {
        .n_blocks = 9, .L = 3, .K = 2, .want = 9, .script = TWO(0, SCRIPT_ASAP), .decided = D1(0)};
    lay(&t);
    l->presets[0] = (struct ledger_preset){.window = window, .at_block = at_block};
    l->gateway.n_presets = 1;
}

/* Another window is a switch to the prompt in force; other steps alone leave all K/V as they are,
 * so that the clean pass is still due, and nothing is decided for the block again. */
static void test_presets(void **state)
{
    (void)state;
    int64_t bits = 1;
    lay_preset(6, SCRIPT_ASAP);
    struct plan p = plan_next(l, &c, ready, &bits);
    assert_int_equal(p.action, PLAN_DECIDE);
    assert_true(p.kind == DECISION_SWITCH && p.script == 0 && p.preset == 1 && p.block == 3);
    assert_int_equal(p.sink_base, 0); /* kept */
    l->decisions[1] = (struct ledger_decision){.block = 3, .preset = 1, .kind = DECISION_SWITCH};
    l->dit.n_decisions = 2;
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_SKIP_CLEAN);

    lay_preset(12, SCRIPT_ASAP);
    p = plan_next(l, &c, ready, &bits);
    assert_true(p.action == PLAN_DECIDE && p.kind == DECISION_STEPS && p.preset == 1);
    l->decisions[1] = (struct ledger_decision){.block = 3, .preset = 1, .kind = DECISION_STEPS};
    l->dit.n_decisions = 2;
    bits = 3; /* a prompt is there meanwhile: it is the next block's */
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_CLEAN);
    l->dit.n_clean_blocks = 3;
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_BLOCK);

    lay_preset(6, SCRIPT_ASAP); /* prompt and preset at once: one decision */
    p = plan_next(l, &c, ready, &bits);
    assert_true(p.kind == DECISION_SWITCH && p.script == 1 && p.preset == 1);

    lay_preset(6, 4); /* of a replay: not due yet */
    bits = 1;
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_CLEAN);

    lay_preset(6, SCRIPT_ASAP); /* a cache that is lost is rebuilt under the new window */
    l->dit.kv_generation = 1;
    p = plan_next(l, &c, ready, &bits);
    assert_true(p.kind == DECISION_REBUILD && p.preset == 1 && p.sink_base == 3);
}

/* With the kept sink a window that reaches back to it holds all from there on, and one that does
 * not keeps it. */
static void test_recache_of_another_window(void **state)
{
    (void)state;
    static const struct {
        int32_t window, base; /* before */
        int64_t at, first;
        int32_t n, base_after;
    } row[] = {{6, 0, 21, 18, 3, 0},   {6, 0, 6, 0, 6, 0},       {12, 0, 9, 0, 9, 0},
               {12, 0, 21, 12, 9, 0},  {12, 24, 33, 21, 12, 21}, {12, 24, 36, 24, 12, 24},
               {12, 24, 39, 30, 9, 24}};
    for (size_t i = 0; i < COUNT(row); i++) {
        int64_t first = -1;
        int32_t n = -1;
        const int32_t base =
            plan_sink_base(&c, row[i].window, DECISION_SWITCH, row[i].at, row[i].base);
        plan_recache(&c, row[i].window, DECISION_SWITCH, row[i].at, base, &first, &n);
        assert_int_equal(base, row[i].base_after);
        assert_int_equal(first, row[i].first);
        assert_int_equal(n, row[i].n);
    }
    assert_int_equal(plan_sink_base(&c, 6, DECISION_STEPS, 33, 24), 24);
}

/* Region kv is another one than that of the last decision: everything in the window is made anew.
 */
static void test_a_lost_cache_is_rebuilt(void **state)
{
    (void)state;
    int64_t bits = 1, first;
    int32_t n;
    struct plan_case t = {
        .n_blocks = 9, .L = 7, .K = 6, .want = 9, .script = TWO(0, 8), .decided = D1(0)};
    lay(&t);
    l->dit.kv_generation = 1;
    struct plan p = plan_next(l, &c, ready, &bits);
    assert_int_equal(p.action, PLAN_DECIDE); /* before the clean pass, which would read it */
    assert_int_equal(p.kind, DECISION_REBUILD);
    assert_int_equal(p.block, 7);
    assert_int_equal(p.script, 0); /* the one in force */
    assert_int_equal(p.sink_base, 9);
    plan_recache(&c, 12, DECISION_REBUILD, 21, p.sink_base, &first, &n);
    assert_int_equal(first, 9);
    assert_int_equal(n, 12);

    bits = 0; /* its embedding has left the table: text is asked for it */
    p = plan_next(l, &c, ready, &bits);
    assert_int_equal(p.action, PLAN_WAIT);
    assert_true(p.waits_for_prompt);
    assert_int_equal(p.needs, 0);

    bits = 3; /* a prompt that is due anyway is taken at once */
    l->scripts[1].at_block = 7;
    p = plan_next(l, &c, ready, &bits);
    assert_int_equal(p.kind, DECISION_REBUILD);
    assert_int_equal(p.script, 1);

    l->gateway.want = 21; /* nothing is wanted: nothing is decided, and nothing reads the ruin */
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_WAIT);

    t.L = t.K = 2; /* decided for the very block, and lost before it was made */
    lay(&t);
    l->decisions[0].block = 2;
    l->dit.kv_generation = 1;
    p = plan_next(l, &c, ready, &bits);
    assert_int_equal(p.kind, DECISION_REBUILD);
    assert_int_equal(p.sink_base, 0);

    l->decisions[0].kv_generation = 1;
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_BLOCK);
}

/* A replay marks the prompts whose decision was a REBUILD. */
static void test_a_replayed_rebuild(void **state)
{
    (void)state;
    int64_t bits = 3;
    const struct plan_case t = {
        .n_blocks = 9, .L = 7, .K = 6, .want = 9, .script = TWO(0, 7), .decided = D1(0)};
    lay(&t);
    l->scripts[1].is_rebuild = 1;
    const struct plan p = plan_next(l, &c, ready, &bits);
    assert_int_equal(p.kind, DECISION_REBUILD);
    assert_int_equal(p.sink_base, 9);
}

static void too_clean(void)
{
    int64_t bits = 0;
    memset(l, 0, sizeof *l);
    l->dit.n_clean_blocks = 1;
    plan_next(l, &c, ready, &bits);
}

static void too_far(void)
{
    int64_t bits = 0;
    memset(l, 0, sizeof *l);
    l->dit.n_latents_blocks = 2;
    plan_next(l, &c, ready, &bits);
}

static void test_counts_that_cannot_be_abort(void **state)
{
    (void)state;
    check_aborts(too_clean);
    check_aborts(too_far);
}

/* --- the recache's table -------------------------------------------------------------------------
 */

static void test_recache_and_sink(void **state)
{
    (void)state;
    static const struct {
        int64_t at;
        bool global;
        int64_t first;
        int32_t n, base; /* base, when it was 2 before */
    } row[] = {{3, true, 0, 3, 0},    {9, true, 0, 9, 0},        {12, true, 0, 12, 0},
               {15, true, 6, 9, 2},   {21, true, 12, 9, 2},      {300, true, 291, 9, 2},
               {3, false, 0, 3, 0},   {12, false, 0, 12, 0},     {15, false, 3, 12, 3},
               {21, false, 9, 12, 9}, {300, false, 288, 12, 288}};
    struct conf k = c;
    for (size_t i = 0; i < COUNT(row); i++) {
        int64_t first = -1;
        int32_t n = -1;
        k.dit.global_sink = row[i].global;
        plan_recache(&k, 12, DECISION_SWITCH, row[i].at, 2, &first, &n);
        assert_int_equal(first, row[i].first);
        assert_int_equal(n, row[i].n);
        assert_int_equal(plan_sink_base(&k, 12, DECISION_SWITCH, row[i].at, 2), row[i].base);
    }
}

/* --- random walks --------------------------------------------------------------------------------
 */

enum { WALK_BLOCKS = 400 };

/* What a ledger does not tell: whose K/V the ring holds, how often a block was made. */
struct walk {
    struct conf c;
    uint64_t seed;
    int64_t is_ready; /* bits of scripts */
    bool is_clean[WALK_BLOCKS + 1];
    int32_t n_made[WALK_BLOCKS + 1], n_kills, n_rebuilds, n_presets[2];
};

static int64_t pick(struct walk *w, int64_t n)
{
    return (int64_t)(check_next(&w->seed) % (uint64_t)n);
}

static int64_t first_block_of(const struct plan *p)
{
    return l->sessions[p->session].first_block;
}

/* What a block looks at has clean K/V: the sink's blocks and the window's. */
static void check_window(const struct walk *w, const struct plan *p)
{
    const struct ledger_decision *d = &l->decisions[l->dit.n_decisions - 1];
    const int64_t NB = w->c.dit.block, first = first_block_of(p), at = (p->block - first) * NB;
    int64_t recached = 0, from = at;
    int32_t n = 0;
    assert_int_equal(d->session, p->session);
    assert_true(d->block <= p->block);
    const int32_t window = plan_window(l, &w->c, d->preset);
    if (d->block == p->block && plan_recaches((enum decision_kind)d->kind) && at > 0) {
        plan_recache(&w->c, window, (enum decision_kind)d->kind, at, d->sink_base, &from, &n);
        recached = from + n;
    }
    for (int64_t f = d->sink_base; f < at; f++) {
        const bool is_sink = f < d->sink_base + w->c.dit.sink;
        const bool is_seen = f >= at + NB - (window - w->c.dit.sink);
        if (!is_sink && !is_seen) continue;
        assert_true(w->is_clean[first + f / NB] || (f >= from && f < recached));
    }
    /* Its latents and those that are looked at again lie in the ring at once. */
    assert_true((p->block + 1) * NB <= (int64_t)l->vae.n_latents + w->c.dit.ring_latents);
}

static void do_block(struct walk *w, const struct plan *p)
{
    const struct ledger_decision *d = &l->decisions[l->dit.n_decisions - 1];
    const int64_t NB = w->c.dit.block, first = first_block_of(p), at = (p->block - first) * NB;
    int64_t from = at;
    int32_t n = 0;
    check_window(w, p);
    if (d->block == p->block && plan_recaches((enum decision_kind)d->kind) && at > 0)
        plan_recache(&w->c, plan_window(l, &w->c, d->preset), (enum decision_kind)d->kind, at,
                     d->sink_base, &from, &n);
    for (int64_t f = from; f < from + n; f++)
        if (f % NB == 0 || f == from) w->is_clean[first + f / NB] = true;
    w->is_clean[p->block] = false; /* noisy */
}

/* One unit of dit; a kill comes before its publication. */
static bool step_dit(struct walk *w)
{
    struct plan p = plan_next(l, &w->c, ready, &w->is_ready);
    const bool is_killed = pick(w, 4) == 0;
    if (p.action == PLAN_WAIT) return false;
    if (p.action == PLAN_BLOCK) do_block(w, &p);
    if (p.action == PLAN_CLEAN) assert_int_equal(p.block, (int64_t)l->dit.n_latents_blocks - 1);
    if (is_killed) { /* a successor sees the same ledger and goes on with the same unit */
        const struct plan again = plan_next(l, &w->c, ready, &w->is_ready);
        assert_int_equal(again.action, p.action);
        assert_int_equal(again.block, p.block);
        assert_int_equal(again.script, p.script);
        w->n_kills++;
        return true;
    }
    if (p.action == PLAN_DECIDE) {
        struct ledger_decision *d = &l->decisions[l->dit.n_decisions];
        assert_int_equal(p.block, l->dit.n_latents_blocks);
        const bool has_last = l->dit.n_decisions > 0 && d[-1].session == p.session;
        const bool is_preset = has_last && p.preset > d[-1].preset;
        assert_true(ready(&w->is_ready, &l->scripts[p.script]));
        assert_true(l->dit.n_decisions == 0 || d[-1].script < p.script ||
                    (d[-1].script == p.script && (p.kind == DECISION_REBUILD || is_preset)));
        if (p.kind == DECISION_STEPS)
            assert_int_equal(plan_window(l, &w->c, p.preset), plan_window(l, &w->c, d[-1].preset));
        w->n_rebuilds += p.kind == DECISION_REBUILD;
        w->n_presets[p.kind == DECISION_STEPS] += is_preset;
        assert_int_equal(p.kind == DECISION_START,
                         l->dit.n_decisions == 0 || d[-1].session != p.session);
        *d = (struct ledger_decision){.block = p.block,
                                      .session = p.session,
                                      .script = p.script,
                                      .preset = p.preset,
                                      .kind = p.kind,
                                      .kv_generation = (uint32_t)l->dit.kv_generation,
                                      .sink_base = p.sink_base};
        l->dit.n_decisions++;
    } else if (p.action == PLAN_BLOCK) {
        w->n_made[p.block]++;
        l->dit.n_latents_blocks = (uint64_t)p.block + 1;
    } else {
        w->is_clean[p.block] = p.action == PLAN_CLEAN;
        l->dit.n_clean_blocks = (uint64_t)p.block + 1;
    }
    return true;
}

/* The gateway: sessions one after another, some left open and ended later; prompts for them. */
static void step_gateway(struct walk *w)
{
    const int64_t NB = w->c.dit.block, n = (int64_t)l->gateway.n_sessions;
    struct ledger_session *s = n ? &l->sessions[n - 1] : NULL;
    const int64_t wanted = (int64_t)l->gateway.want / NB;
    const int64_t end = s ? ledger_session_end(s) : 0, n_scripts = (int64_t)l->gateway.n_scripts;
    if (s && end == INT64_MAX && pick(w, 30) == 0) {
        const int64_t made = wanted - s->first_block;
        s->n_blocks = made > 0 ? (uint64_t)made : LEDGER_VOID;
    } else if (end <= (int64_t)l->dit.n_latents_blocks && n_scripts < 60) {
        l->sessions[n].first_block = end;
        l->sessions[n].n_blocks = pick(w, 2) ? 0 : (uint64_t)(1 + pick(w, 12));
        l->gateway.n_sessions++;
        if (pick(w, 4)) return; /* else its first prompt comes later */
    } else if (s && end > (int64_t)l->dit.n_latents_blocks && n_scripts < 63 && pick(w, 3) == 0) {
        const int64_t kinds[] = {SCRIPT_ASAP, SCRIPT_PREWARM, s->first_block,
                                 (int64_t)l->dit.n_latents_blocks + pick(w, 4)};
        struct ledger_script *r = &l->scripts[n_scripts];
        r->at_block = kinds[pick(w, 4)];
        r->session = r->at_block == SCRIPT_PREWARM ? -1 : n - 1;
        l->gateway.n_scripts++;
    } else if (s && l->gateway.n_presets < 60 && pick(w, 4) == 0) {
        static const int32_t windows[] = {6, 8, 12, 15};
        struct ledger_preset *r = &l->presets[l->gateway.n_presets++];
        r->at_block = pick(w, 2) ? SCRIPT_ASAP : (int64_t)l->dit.n_latents_blocks + pick(w, 4);
        r->session = n - 1;
        r->window = windows[pick(w, 4)];
    } else if (s && wanted < end && wanted < WALK_BLOCKS) {
        for (int64_t i = 0; i < n_scripts; i++) /* only once it has a prompt */
            if (l->scripts[i].session == n - 1) {
                l->gateway.want += (uint64_t)NB;
                break;
            }
    }
}

/* The keeper died, and region kv with it. */
static void lose_cache(struct walk *w)
{
    l->dit.kv_generation++;
    memset(w->is_clean, 0, sizeof w->is_clean);
}

struct walks {
    int64_t n_blocks, n_kills, n_rebuilds, n_presets[2];
};

static void run_walk(uint64_t seed, bool global_sink, struct walks *all)
{
    static struct walk w;
    memset(&w, 0, sizeof w);
    memset(l, 0, sizeof *l);
    w.c = c;
    w.c.dit.global_sink = global_sink;
    w.seed = seed;
    for (int i = 0; i < 6000; i++) {
        const int64_t who = pick(&w, 8), L = (int64_t)l->dit.n_latents_blocks;
        if (who < 2) step_gateway(&w);
        else if (who == 2) w.is_ready |= 1ll << pick(&w, 63);
        else if (who == 3 && (int64_t)l->vae.n_latents < L * c.dit.block) l->vae.n_latents++;
        else if (pick(&w, 200) == 0) lose_cache(&w);
        else step_dit(&w);
        const uint64_t K = l->dit.n_clean_blocks;
        assert_true(K <= l->dit.n_latents_blocks && l->dit.n_latents_blocks <= K + 1);
        assert_true(l->dit.n_latents_blocks <= l->gateway.want / (uint64_t)c.dit.block);
    }
    for (int64_t b = 0; b < WALK_BLOCKS; b++)
        assert_int_equal(w.n_made[b], b < (int64_t)l->dit.n_latents_blocks);
    all->n_blocks += (int64_t)l->dit.n_latents_blocks;
    all->n_kills += w.n_kills;
    all->n_rebuilds += w.n_rebuilds;
    for (int i = 0; i < 2; i++) all->n_presets[i] += w.n_presets[i];
}

static void test_random_walks(void **state)
{
    (void)state;
    struct walks w = {0};
    for (uint64_t seed = 1; seed <= 150; seed++) run_walk(seed, seed % 2, &w);
    print_message("plan: %lld blocks, %lld kills, %lld rebuilds, %lld windows, %lld steps\n",
                  (long long)w.n_blocks, (long long)w.n_kills, (long long)w.n_rebuilds,
                  (long long)w.n_presets[0], (long long)w.n_presets[1]);
    assert_true(w.n_blocks > 3000 && w.n_kills > 1000 && w.n_rebuilds > 100);
    assert_true(w.n_presets[0] > 100 && w.n_presets[1] > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cases),
        TEST(test_taking_turns),
        TEST(test_the_next_session_starts_anew),
        TEST(test_a_lost_cache_is_rebuilt),
        TEST(test_presets),
        TEST(test_recache_of_another_window),
        TEST(test_a_replayed_rebuild),
        TEST(test_counts_that_cannot_be_abort),
        TEST(test_recache_and_sink),
        TEST(test_random_walks),
    };
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
