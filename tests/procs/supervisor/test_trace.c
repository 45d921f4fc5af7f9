/* test_trace.c - spans gathered from a ledger made by hand, and the times that follow from them. */
#include "procs/supervisor/trace.h"

#include "tests/procs/supervisor/spans.h"
#include "tests/scratch.h"

static struct ledger *l;
static struct conf c;
static struct trace t;
static struct times times;

static int open_all(void **state)
{
    (void)state;
    l = calloc(1, sizeof *l);
    conf_default(&c);
    return l ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    times_free(&times);
    trace_free(&t);
    free(l);
    return 0;
}

static void test_each_span_is_taken_once(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) spans_add(l, WRITER_VAE, PHASE_DECODE, i, 0, i, i + 1);
    check_ok(trace_look(&t, l));
    spans_add(l, WRITER_VAE, PHASE_DECODE, 2000, 0, 2000, 2001);
    spans_add(l, WRITER_TEXT, PHASE_ENCODE, 3, 0, 1, 2);
    check_ok(trace_look(&t, l));
    check_ok(trace_look(&t, l));
    assert_int_equal(t.of[WRITER_VAE].n, 2001);
    for (int i = 0; i <= 2000; i++) assert_int_equal(t.of[WRITER_VAE].v[i].unit, i);
    assert_int_equal(t.of[WRITER_TEXT].n, 1);
    assert_int_equal(t.n_lost, 0);
    trace_clear(&t);
    assert_int_equal(t.of[WRITER_VAE].n, 0);
    check_ok(trace_look(&t, l));
    assert_int_equal(t.of[WRITER_VAE].n, 0);
}

static void test_what_was_overwritten_is_counted(void **state)
{
    (void)state;
    for (int i = 0; i < LEDGER_SPANS + 99; i++)
        spans_add(l, WRITER_DIT, PHASE_CLEAN, i, 0, i, i + 1);
    check_ok(trace_look(&t, l));
    assert_int_equal(t.n_lost, 100); /* and the slot that may be being written */
    assert_int_equal(t.of[WRITER_DIT].n, LEDGER_SPANS - 1);
    assert_int_equal(t.of[WRITER_DIT].v[0].unit, 100);
}

/* Sessions of two blocks and of one, begun at block 4 and frame 30: the first is not asked for. */
static void set_sessions(void)
{
    l->sessions[0] = (struct ledger_session){.first_block = 0, .n_blocks = 4};
    l->sessions[1] = (struct ledger_session){.first_block = 4, .first_frame = 30, .n_blocks = 2};
    l->sessions[2] = (struct ledger_session){.first_block = 6, .first_frame = 51, .n_blocks = 1};
    ledger_publish(&l->gateway.n_sessions, 3);
    ledger_publish(&l->dit.n_latents_blocks, 7);
}

static void test_times_of_blocks(void **state)
{
    (void)state;
    set_sessions();
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 3, SPAN_WHOLE, 1, 2); /* of the session before */
    spans_add(l, WRITER_DIT, PHASE_RECACHE, 5, 0, 100, 130);
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 5, 0, 130, 140);
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 5, 1, 140, 160);
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 5, SPAN_WHOLE, 95, 165);
    spans_add(l, WRITER_DIT, PHASE_CLEAN, 5, 0, 165, 172);
    spans_add(l, WRITER_VAE, PHASE_DECODE, 17, 0, 200, 205); /* killed; done again */
    spans_add(l, WRITER_VAE, PHASE_DECODE, 17, 0, 210, 215);
    spans_add(l, WRITER_VAE, PHASE_DECODE, 18, 0, 215, 219);
    check_ok(trace_look(&t, l));
    check_ok(times_of(&times, &t, l, &c, 1));
    assert_true(times.first_block == 4 && times.n_blocks == 3 && times.n_frames == 21 + 9);
    const struct block_times *b = &times.block[1];
    assert_true(b->session == 1 && b->at == 1 && b->began_ns == 95 && b->made_ns == 165);
    assert_true(b->recache_ns == 30 && b->step_ns[0] == 10 && b->step_ns[1] == 20);
    assert_true(b->clean_ns == 7 && b->ready_ns == 215);
    assert_true(times.block[2].session == 2 && times.block[2].at == 0);
    assert_true(times.latent[5].began_ns == 210 && times.latent[6].ready_ns == 219);
    assert_int_equal(times.block[0].began_ns, 0); /* not known */
}

/* A clean pass beside the next block is in that block's first step, and counted there alone. */
static void test_a_clean_pass_beside_the_next_block(void **state)
{
    (void)state;
    static const struct {
        int64_t began_ns, ended_ns, clean_ns; /* of block 4's; block 5 is made from 200 to 300 */
    } row[] = {{150, 160, 10}, {150, 199, 49}, {200, 240, 0}, {201, 230, 0},
               {299, 320, 0},  {300, 310, 10}, {310, 320, 10}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        memset(l, 0, sizeof *l);
        trace_free(&t);
        set_sessions();
        spans_add(l, WRITER_DIT, PHASE_DENOISE, 4, SPAN_WHOLE, 100, 150);
        spans_add(l, WRITER_DIT, PHASE_CLEAN, 4, 0, row[i].began_ns, row[i].ended_ns);
        spans_add(l, WRITER_DIT, PHASE_DENOISE, 5, 0, 200, 240);
        spans_add(l, WRITER_DIT, PHASE_DENOISE, 5, SPAN_WHOLE, 200, 300);
        spans_add(l, WRITER_DIT, PHASE_CLEAN, 5, 0, 350, 362);
        check_ok(trace_look(&t, l));
        check_ok(times_of(&times, &t, l, &c, 1));
        if (times.block[0].clean_ns != row[i].clean_ns)
            fail_msg("row %zu: %lld", i, (long long)times.block[0].clean_ns);
        assert_int_equal(times.block[0].clean_began_ns, row[i].began_ns);
        assert_int_equal(times.block[1].step_ns[0], 40);
        assert_int_equal(times.block[1].clean_ns, 12); /* of block 6 nothing is known */
        times_free(&times);
    }
}

/* Vae has waited for the clean pass, or it has not: its session is paced, or its GPU another. */
static void test_when_vae_might_begin(void **state)
{
    (void)state;
    static const struct {
        int64_t vae_ns, given_ns; /* of block 4, made at 150, its clean pass at 240 */
        const char *clean;
    } row[] = {{241, 240, "cuda:1"},
               {240, 240, "cuda:1"},
               {151, 150, "cuda:1"},
               {241, 150, "cuda:2"},
               {241, 150, ""}};
    strcpy(c.place.vae, "cuda:1");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        memset(l, 0, sizeof *l);
        trace_free(&t);
        set_sessions();
        strcpy(c.place.clean, row[i].clean);
        spans_add(l, WRITER_DIT, PHASE_DENOISE, 4, SPAN_WHOLE, 100, 150);
        spans_add(l, WRITER_DIT, PHASE_CLEAN, 4, 0, 200, 240);
        spans_add(l, WRITER_VAE, PHASE_DECODE, 12, 0, row[i].vae_ns, 300);
        check_ok(trace_look(&t, l));
        check_ok(times_of(&times, &t, l, &c, 1));
        if (times.block[0].given_ns != row[i].given_ns)
            fail_msg("row %zu: %lld", i, (long long)times.block[0].given_ns);
        times_free(&times);
    }
    strcpy(c.place.vae, "cpu");
    strcpy(c.place.clean, "");
}

/* Killed beside one try of the block, the pass made, it counts where it was: beside nothing. */
static void test_a_clean_pass_beside_a_try_that_failed(void **state)
{
    (void)state;
    set_sessions();
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 4, SPAN_WHOLE, 100, 150);
    spans_add(l, WRITER_DIT, PHASE_CLEAN, 4, 0, 200, 240);
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 5, SPAN_WHOLE, 500, 600); /* by the successor */
    check_ok(trace_look(&t, l));
    check_ok(times_of(&times, &t, l, &c, 1));
    assert_int_equal(times.block[0].clean_ns, 40);
}

/* Frames of latents: 1, then fours, and again from the begin of a session. */
static void test_times_of_frames(void **state)
{
    (void)state;
    set_sessions();
    spans_add(l, WRITER_GATEWAY, PHASE_WRITE, 29, 1, 1, 2); /* of the session before */
    spans_add(l, WRITER_GATEWAY, PHASE_WRITE, 30, 1, 10, 11);
    spans_add(l, WRITER_GATEWAY, PHASE_WRITE, 31, 12, 20, 22);
    check_ok(trace_look(&t, l));
    check_ok(times_of(&times, &t, l, &c, 1));
    static const int64_t frames[9] = {0, 1, 5, 9, 13, 17, 21, 22, 26};
    for (int i = 0; i < 9; i++) assert_int_equal(times.latent[i].frame, frames[i]);
    assert_true(times.put_ns[0] == 11 && times.put_began_ns[0] == 10);
    for (int f = 1; f < 13; f++) assert_true(times.put_ns[f] == 22 && times.put_began_ns[f] == 20);
    assert_int_equal(times.put_ns[13], 0);
}

static void test_nothing_was_made(void **state)
{
    (void)state;
    check_fails(times_of(&times, &t, l, &c, 0), ERR_NONE, "no block");
    set_sessions();
    ledger_publish(&l->dit.n_latents_blocks, 6);
    check_fails(times_of(&times, &t, l, &c, 2), ERR_NONE, "no block");
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(test_each_span_is_taken_once), WITH(test_what_was_overwritten_is_counted),
        WITH(test_times_of_blocks),         WITH(test_times_of_frames),
        WITH(test_nothing_was_made),        WITH(test_a_clean_pass_beside_the_next_block),
        WITH(test_when_vae_might_begin),    WITH(test_a_clean_pass_beside_a_try_that_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
