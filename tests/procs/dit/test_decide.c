/* test_decide.c - decisions: first the embedding, to the half that is free, then the record. */
#include "procs/dit/decide.h"

#include "common/clock.h"
#include "common/fault.h"
#include "kernels/ops.h"
#include "tests/check.h"
#include "tests/scratch.h"

enum { ROWS = 16, DIM = 32, N = ROWS * DIM }; /* nano's */

static struct stage st;
static struct decide p;
static struct kv kv;
static void *kv_mem;
static struct bells *text, *gateway;
static struct ledger *l;

/* The key of script i. */
static const uint8_t *key_of(int64_t i)
{
    return l->scripts[i].key;
}

static float value_of(int script, int i)
{
    return (float)(1000 * script + i) + 0.125f;
}

/* Script i's embedding, of n_tokens rows, in entry `at` of the table. */
static void put(int32_t at, int i, int32_t n_tokens)
{
    float *x = prompts_begin(p.prompts, at);
    for (int k = 0; k < n_tokens * DIM; k++) x[k] = value_of(i, k);
    prompts_commit(p.prompts, at, key_of(i), n_tokens, n_tokens + 5);
}

static int open_all(void **state)
{
    if (scratch_open(state) != 0) return -1;
    memset(&st, 0, sizeof st);
    want_ok(conf_load(&st.conf, "configs/nano.ini", NULL, 0));
    want_ok(dev_open(&st.dev, check_device(), 2));
    want_ok(ops_open(st.dev));
    want_ok(bells_open(&st.bells, scratch_dir, WRITER_DIT));
    want_ok(bells_open(&text, scratch_dir, WRITER_TEXT));
    want_ok(bells_open(&gateway, scratch_dir, WRITER_GATEWAY));
    l = st.ledger = calloc(1, sizeof *l);
    assert_non_null(l);
    for (int i = 0; i < 4; i++) memset(l->scripts[i].key, 'a' + i, PROMPT_KEY_BYTES);
    want_ok(dev_alloc(st.dev, kv_bytes(&st.conf, DTYPE_F32), &kv_mem));
    want_ok(kv_open(&kv, &st.conf, DTYPE_F32, kv_mem));
    p = (struct decide){.st = &st,
                        .kv = &kv,
                        .prompts = check_alloc(prompts_bytes(&st.conf)),
                        .embedding = check_alloc(N * sizeof(float))};
    prompts_format(p.prompts, &st.conf);
    return 0;
}

static int close_all(void **state)
{
    fault_page = NULL;
    kv_close(&kv);
    dev_free(st.dev, &kv_mem);
    bells_close(&st.bells);
    bells_close(&text);
    bells_close(&gateway);
    ops_close(st.dev);
    dev_close(&st.dev);
    free(l);
    check_teardown(state);
    return scratch_close(state);
}

/* A half of kv holds script i's embedding of n_tokens rows, and zeros behind; i -1: zeros alone. */
static void want_half(int half, int i, int32_t n_tokens)
{
    float got[N];
    want_ok(dev_download(st.dev, got, kv.embed[half].data, sizeof got));
    want_ok(dev_sync(st.dev));
    for (int k = 0; k < N; k++) {
        const float want = i >= 0 && k < n_tokens * DIM ? value_of(i, k) : 0;
        if (got[k] != want)
            fail_msg("half %d, value %d: %g, not %g", half, k, (double)got[k], (double)want);
    }
}

static struct plan plan_of(int64_t block, int64_t script, enum decision_kind kind)
{
    return (struct plan){.action = PLAN_DECIDE,
                         .block = block,
                         .script = script,
                         .kind = (int32_t)kind,
                         .needs = -1};
}

static void want_decided(struct plan plan)
{
    const uint64_t n = l->dit.n_decisions;
    bool did_work = false;
    want_ok(decide(&p, &plan, &did_work));
    assert_true(did_work);
    assert_int_equal(l->dit.n_decisions, n + 1);
}

/* Nothing is appended, nothing is said of work, whichever way that stood. */
static void want_undecided(struct plan plan)
{
    const uint64_t n = l->dit.n_decisions;
    const struct ledger_decision before = l->decisions[n];
    for (int i = 0; i < 2; i++) {
        bool did_work = i;
        want_ok(decide(&p, &plan, &did_work));
        assert_int_equal(did_work, i);
        assert_int_equal(l->dit.n_decisions, n);
        assert_memory_equal(&l->decisions[n], &before, sizeof before);
    }
}

/* --- the table's embedding -------------------------------------------------------------------- */

static void test_halves_take_turns(void **state)
{
    (void)state;
    put(0, 0, 5);
    put(2, 1, ROWS);
    put(1, 2, 1);
    want_decided(plan_of(0, 0, DECISION_START));
    want_half(0, 0, 5);
    want_half(1, -1, 0);
    want_decided(plan_of(3, 1, DECISION_SWITCH));
    want_half(0, 0, 5); /* which block 2's clean pass reads */
    want_half(1, 1, ROWS);
    want_decided(plan_of(7, 2, DECISION_SWITCH));
    want_half(0, 2, 1); /* nothing of the longer one before it */
    want_half(1, 1, ROWS);
}

static void test_what_is_recorded(void **state)
{
    (void)state;
    const int64_t began_ns = now_ns();
    put(0, 2, 5);
    l->dit.kv_generation = ((uint64_t)1 << 63) + 4;
    l->dit.n_decisions = 6;
    want_decided((struct plan){.block = 41,
                               .session = 3,
                               .script = 2,
                               .preset = 8,
                               .kind = DECISION_REBUILD,
                               .sink_base = 12});
    const struct ledger_decision *d = &l->decisions[6];
    assert_true(d->block == 41 && d->session == 3 && d->script == 2 && d->preset == 8);
    assert_true(d->kind == DECISION_REBUILD && d->sink_base == 12);
    assert_true(d->n_tokens == 5 && d->n_tokens_full == 10);
    assert_true(d->kv_generation == ((uint64_t)1 << 63) + 4);
    assert_memory_equal(d->key, key_of(2), PROMPT_KEY_BYTES);
    assert_true(d->decided_ns >= began_ns && d->decided_ns <= now_ns());
}

static bool is_rung(struct bells *b, int32_t wait_ms)
{
    const int64_t began_ns = now_ns();
    bells_wait(b, wait_ms);
    return now_ns() - began_ns < (wait_ms - 1) * NS_PER_MS;
}

/* Text has room in its table now, and the gateway a receipt to give. */
static void test_who_is_told(void **state)
{
    (void)state;
    put(0, 0, 5);
    want_decided(plan_of(0, 0, DECISION_START));
    assert_true(is_rung(text, 2000) && is_rung(gateway, 2000));
    want_undecided(plan_of(3, 1, DECISION_SWITCH));
    assert_false(is_rung(text, 50) || is_rung(gateway, 50));
}

static void test_a_prompt_that_the_table_has_lost(void **state)
{
    (void)state;
    want_undecided(plan_of(0, 0, DECISION_START));
    put(0, 0, 5);
    want_decided(plan_of(0, 0, DECISION_START));
    want_undecided(plan_of(3, 1, DECISION_SWITCH)); /* never there */
    put(1, 1, 7);
    (void)prompts_begin(p.prompts, 1); /* half overwritten */
    want_undecided(plan_of(3, 1, DECISION_SWITCH));
    prompts_commit(p.prompts, 1, key_of(2), 7, 7); /* by another */
    want_undecided(plan_of(3, 1, DECISION_SWITCH));
    want_half(0, 0, 5);
    want_half(1, -1, 0);
    put(1, 1, 7); /* it is encoded again */
    want_decided(plan_of(3, 1, DECISION_SWITCH));
    want_half(1, 1, 7);
}

static void test_who_is_ready(void **state)
{
    (void)state;
    assert_false(decide_is_ready(&p, &l->scripts[0]));
    put(3, 0, 5);
    assert_true(decide_is_ready(&p, &l->scripts[0]));
    assert_false(decide_is_ready(&p, &l->scripts[1]));
    (void)prompts_begin(p.prompts, 3);
    assert_false(decide_is_ready(&p, &l->scripts[0]));
}

/* --- the same prompt -------------------------------------------------------------------------- */

/* A preset alone goes on with the prompt in force, of which the table need not know any more. */
static void test_a_preset_copies_the_other_half(void **state)
{
    (void)state;
    static const enum decision_kind kinds[] = {DECISION_STEPS, DECISION_SWITCH, DECISION_STEPS};
    put(0, 1, 5);
    want_decided(plan_of(0, 1, DECISION_START));
    put(0, 2, ROWS); /* in its place */
    for (int i = 0; i < (int)COUNT(kinds); i++) {
        struct plan plan = plan_of(4 + i, 1, kinds[i]);
        plan.preset = i + 1;
        if (i > 0) { /* from the half in force, not from where it came first */
            const float zeros[N] = {0};
            want_ok(dev_upload(st.dev, kv.embed[(i + 1) % 2].data, zeros, sizeof zeros));
            want_ok(dev_sync(st.dev));
        }
        p.n_tokens = p.n_tokens_full = 99; /* of a prompt that was lost on its way */
        want_decided(plan);
        want_half((i + 1) % 2, 1, 5);
        want_half(i % 2, 1, 5);
        const struct ledger_decision *d = &l->decisions[i + 1];
        assert_true(d->n_tokens == 5 && d->n_tokens_full == 10 && d->preset == i + 1);
        assert_memory_equal(d->key, key_of(1), PROMPT_KEY_BYTES);
    }
}

/* Both halves went with region kv: the table alone has it. */
static void test_a_rebuild_asks_the_table(void **state)
{
    (void)state;
    put(0, 1, 5);
    want_decided(plan_of(0, 1, DECISION_START));
    l->dit.kv_generation = 1;
    want_ok(dev_zero(st.dev, kv_mem, kv_bytes(&st.conf, DTYPE_F32)));
    want_decided(plan_of(4, 1, DECISION_REBUILD));
    want_half(0, -1, 0);
    want_half(1, 1, 5);
    assert_int_equal(l->decisions[0].kv_generation, 0);
    assert_int_equal(l->decisions[1].kv_generation, 1);
    put(0, 2, 5);
    want_undecided(plan_of(5, 1, DECISION_REBUILD));
}

/* --- what fails ------------------------------------------------------------------------------- */

static void arm(const char *point)
{
    struct conf c;
    conf_default(&c);
    snprintf(c.fault.point, sizeof c.fault.point, "%s", point);
    c.fault.action = FAULT_ENOSPC;
    want_ok(fault_make(scratch_dir, &c));
    want_ok(fault_open(scratch_dir, "dit"));
}

/* A life that ends between its embedding and its record leaves a decision that does not count; one
 * that ends behind that has decided. */
static void test_the_embedding_is_there_first(void **state)
{
    (void)state;
    static const struct {
        const char *point;
        bool is_there, is_decided;
    } row[] = {{"dit.decide", false, false},
               {"dit.embedding", true, false},
               {"dit.record", true, false},
               {"dit.decided", true, true}};
    put(0, 0, 5);
    for (size_t i = 0; i < COUNT(row); i++) {
        const struct plan plan = plan_of(0, 0, DECISION_START);
        bool did_work = false;
        l->dit.n_decisions = 0;
        want_ok(dev_zero(st.dev, kv_mem, kv_bytes(&st.conf, DTYPE_F32)));
        arm(row[i].point);
        want_fails(decide(&p, &plan, &did_work), ERR_WRITE, "");
        assert_false(did_work);
        assert_int_equal(l->dit.n_decisions, row[i].is_decided);
        want_half(0, row[i].is_there ? 0 : -1, 5);
        fault_page = NULL;
    }
}

static void test_a_ledger_that_is_full(void **state)
{
    (void)state;
    const struct plan plan = plan_of(0, 1, DECISION_SWITCH);
    bool did_work = false;
    put(0, 1, 5);
    l->dit.n_decisions = LEDGER_DECISIONS_MAX - 1; /* 16383: odd */
    want_decided(plan);
    want_half(1, 1, 5);
    want_fails(decide(&p, &plan, &did_work), ERR_LIMIT, "the ledger holds 16384 decisions");
    assert_false(did_work);
    assert_int_equal(l->dit.n_decisions, LEDGER_DECISIONS_MAX);
    want_half(0, -1, 0);
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(test_halves_take_turns),
        WITH(test_what_is_recorded),
        WITH(test_who_is_told),
        WITH(test_a_prompt_that_the_table_has_lost),
        WITH(test_who_is_ready),
        WITH(test_a_preset_copies_the_other_half),
        WITH(test_a_rebuild_asks_the_table),
        WITH(test_the_embedding_is_there_first),
        WITH(test_a_ledger_that_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
