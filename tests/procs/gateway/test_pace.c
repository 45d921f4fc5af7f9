/* test_pace.c - frames on a clock of the test's own; how far dit may run ahead. */
#include "procs/gateway/pace.h"

#include "tests/check.h"

#include "common/clock.h"

/* Frames shown on time are due at t0 + i / fps, to the nanosecond, for days. */
static void test_due_times_do_not_drift(void **state)
{
    (void)state;
    static const int32_t rates[] = {1, 7, 16, 24, 30, 120};
    for (size_t i = 0; i < COUNT(rates); i++) {
        struct pace p = {0};
        const int32_t fps = rates[i];
        pace_start(&p, fps, 0, 5000);
        for (int64_t f = 0; f < 3 * 86400 * (int64_t)fps; f += 1 + f / 7) {
            const int64_t want = 5000 + f / fps * NS_PER_S + f % fps * NS_PER_S / fps;
            assert_int_equal(pace_due_ns(&p, f), want);
            pace_shown(&p, f, want);
        }
        assert_int_equal(p.n_late, 0);
        assert_int_equal(p.late_ns_max, 0);
    }
}

/* A gateway that starts in the middle shows its first frame now. */
static void test_start_at_any_frame(void **state)
{
    (void)state;
    for (int64_t f = 0; f < 5000; f += 37) {
        struct pace p = {0};
        pace_start(&p, 16, f, 123 * (int64_t)NS_PER_S);
        assert_int_equal(pace_due_ns(&p, f), 123 * (int64_t)NS_PER_S);
        assert_int_equal(pace_due_ns(&p, f + 16), 124 * (int64_t)NS_PER_S);
    }
}

/* Half a period is not late, a nanosecond more is, and moves everything after it. */
static void test_lateness_is_absorbed(void **state)
{
    (void)state;
    const int64_t period = NS_PER_S / 16;
    struct pace p = {0};
    pace_start(&p, 16, 0, 0);
    pace_shown(&p, 0, period / 2);
    assert_int_equal(p.n_late, 0);
    assert_int_equal(pace_due_ns(&p, 1), period);
    pace_shown(&p, 1, period + period / 2 + 1);
    assert_int_equal(p.n_late, 1);
    assert_int_equal(p.late_ns_max, period / 2 + 1);
    assert_int_equal(pace_due_ns(&p, 2), 2 * period + period / 2 + 1);
    pace_shown(&p, 2, pace_due_ns(&p, 2) + 9 * (int64_t)NS_PER_S);
    assert_int_equal(p.n_late, 2);
    assert_int_equal(p.late_ns_max, 9 * (int64_t)NS_PER_S);
    pace_shown(&p, 3, pace_due_ns(&p, 3) + period); /* less than the worst */
    assert_int_equal(p.n_late, 3);
    assert_int_equal(p.late_ns_max, 9 * (int64_t)NS_PER_S);
}

/* A source that stalls now and then: never faster than the rate, nothing skipped. */
static void test_never_faster_than_the_rate(void **state)
{
    (void)state;
    uint64_t seed = 3;
    struct pace p = {0};
    int64_t now = 0, last = -NS_PER_S;
    pace_start(&p, 16, 0, now);
    for (int64_t f = 0; f < 5000; f++) {
        if (check_next(&seed) % 10 == 0) now += (int64_t)(check_next(&seed) % NS_PER_S) * 3;
        if (now < pace_due_ns(&p, f)) now = pace_due_ns(&p, f);
        pace_shown(&p, f, now);
        assert_true(f == 0 || now - last >= NS_PER_S / 16 / 2);
        assert_true(pace_due_ns(&p, f + 1) >= now + NS_PER_S / 16 - NS_PER_S / 32 - 1);
        last = now;
    }
    assert_true(p.n_late > 0);
}

/* Counts latents one by one until they hold the frame. */
static int64_t latents_for(int64_t frame)
{
    int64_t n = 1;
    for (int64_t frames = 1; frames <= frame; n++) frames += 4;
    return n;
}

static void test_want_against_a_count(void **state)
{
    (void)state;
    static const int32_t ahead[] = {0, 62, 63, 500, 1200, 5000};
    for (int32_t block = 1; block <= 4; block++)
        for (size_t a = 0; a < COUNT(ahead); a++)
            for (int64_t played = 0; played < 300; played++) {
                const int64_t frame = played + ahead[a] * 16 / 1000;
                const int64_t n = latents_for(frame);
                assert_int_equal(pace_want(played, ahead[a], 16, block),
                                 (n + block - 1) / block * block);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_due_times_do_not_drift), TEST(test_start_at_any_frame),
        TEST(test_lateness_is_absorbed),   TEST(test_never_faster_than_the_rate),
        TEST(test_want_against_a_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
