/* test_plan.c - what dit does next: a table of cases. */
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

/* Not what lies between the fields. */
static bool is_same(const struct plan *a, const struct plan *b)
{
    return a->action == b->action && a->block == b->block && a->session == b->session &&
           a->script == b->script && a->preset == b->preset && a->kind == b->kind &&
           a->sink_base == b->sink_base && a->waits_for_prompt == b->waits_for_prompt &&
           a->needs == b->needs;
}

/* What plan_after_clean foretells is what plan_next says once K is L; where they are one, both say
 * the same. */
static void test_after_the_clean_pass(void **state)
{
    (void)state;
    static const enum conf_overlap overlaps[] = {OVERLAP_TRUE, OVERLAP_FALSE};
    int n_behind = 0;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t k = 0; k < COUNT(overlaps); k++) {
            const struct plan_case *t = &cases[i];
            int64_t bits = t->is_ready;
            lay(t);
            c.dit.overlap = overlaps[k];
            const struct plan foretold = plan_after_clean(l, &c, ready, &bits);
            l->dit.n_clean_blocks = (uint64_t)t->L;
            const struct plan p = plan_next(l, &c, ready, &bits);
            c.dit.overlap = OVERLAP_TRUE;
            if (!is_same(&foretold, &p)) fail_msg("%s: another plan", t->name);
            n_behind += t->K < t->L;
        }
    assert_true(n_behind >= 16);
}

/* Block 3 beside the clean pass of block 2: both under the decision in force. */
static const struct plan_case behind = {
    .n_blocks = 9, .L = 3, .K = 2, .want = 9, .script = TWO(0, SCRIPT_ASAP), .decided = D1(0)};

static void test_what_a_clean_pass_is_beside(void **state)
{
    (void)state;
    int64_t bits = 1;
    lay(&behind);
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_CLEAN);
    struct plan p = plan_after_clean(l, &c, ready, &bits);
    assert_true(p.action == PLAN_BLOCK && p.block == 3 && p.session == 0);
    lay_preset(12, SCRIPT_ASAP); /* other steps: decided before the clean pass, which is made */
    l->decisions[1] = (struct ledger_decision){.block = 3, .preset = 1, .kind = DECISION_STEPS};
    l->dit.n_decisions = 2;
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_CLEAN);
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_BLOCK);
}

/* A clean pass is then made alone, and what comes next is asked again. */
static void test_what_is_not_begun_beside(void **state)
{
    (void)state;
    int64_t bits = 1;
    struct plan_case t = behind;
    t.want = 3; /* block 3 is not wanted */
    lay(&t);
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_WAIT);
    l->gateway.want = (uint64_t)(4 * c.dit.block);
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_BLOCK);

    lay(&cases[COUNT(cases) - 1]); /* "clean needs no room": the block does */
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_WAIT);
    l->vae.n_latents = 4;
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_BLOCK);

    lay(&behind);
    c.dit.overlap = OVERLAP_FALSE; /* the VAE first */
    l->vae.n_latents = (uint64_t)(3 * c.dit.block - 1);
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_WAIT);
    l->vae.n_latents++;
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_BLOCK);
    c.dit.overlap = OVERLAP_TRUE;

    t = behind; /* a prompt that is due and not there is waited for */
    t.script[1] = 3;
    lay(&t);
    const struct plan p = plan_after_clean(l, &c, ready, &bits);
    assert_true(p.action == PLAN_WAIT && p.waits_for_prompt);
    t.n_blocks = 3; /* nor does another session follow its last block */
    lay(&t);
    assert_int_equal(plan_after_clean(l, &c, ready, &bits).action, PLAN_WAIT);
}

/* On the DiT's own device it is made while there is time for it. */
static void test_a_clean_pass_elsewhere_waits_for_its_block(void **state)
{
    (void)state;
    int64_t bits = 1;
    struct plan_case t = behind;
    t.want = 3; /* block 3 is not wanted */
    lay(&t);
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_CLEAN);
    strcpy(c.place.clean, "cuda:1");
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_WAIT);
    l->gateway.want = (uint64_t)(4 * c.dit.block);
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_CLEAN);
    t.n_blocks = 3;
    lay(&t);
    assert_int_equal(plan_next(l, &c, ready, &bits).action, PLAN_SKIP_CLEAN);
    strcpy(c.place.clean, "");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cases),
        TEST(test_taking_turns),
        TEST(test_after_the_clean_pass),
        TEST(test_what_a_clean_pass_is_beside),
        TEST(test_what_is_not_begun_beside),
        TEST(test_a_clean_pass_elsewhere_waits_for_its_block),
        TEST(test_the_next_session_starts_anew),
        TEST(test_a_lost_cache_is_rebuilt),
        TEST(test_presets),
        TEST(test_recache_of_another_window),
        TEST(test_a_replayed_rebuild),
        TEST(test_counts_that_cannot_be_abort),
        TEST(test_recache_and_sink),
    };
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
