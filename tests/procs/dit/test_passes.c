/* test_passes.c - kinds of pass: each recorded once, those that come first first. */
#include "procs/dit/passes.h"

#include "tests/check.h"

static int n_run;

static err_t run(void *pass)
{
    (void)pass;
    n_run++;
    return OK;
}

static struct pass *wanted(struct passes *s, int32_t n_slots, bool only_kv)
{
    struct pass *p = NULL;
    const struct pass kind = {.n_frames = 3, .n_slots = n_slots, .only_kv = only_kv};
    assert_ok(passes_find(s, &kind, &p));
    return p;
}

/* From a window of 6 frames: the rest of 6, 9, 12, and then 3. */
static void test_each_once_and_in_order(void **state)
{
    struct dev *d = NULL;
    struct passes s;
    (void)state;
    assert_ok(dev_open(&d, "cpu", 1));
    assert_ok(passes_open(&s, d, 12, run));
    for (int32_t n = 3; n <= 12; n += 3)
        for (int k = 0; k < 2; k++) wanted(&s, n, k);
    assert_int_equal(s.n, 8);
    struct pass *now = wanted(&s, 6, true);
    assert_int_equal(s.n, 8);
    for (int k = 0; k < 2; k++) {
        assert_ok(passes_record(&s, now));
        assert_int_equal(s.n_recorded, 1);
    }
    static const int32_t order[] = {6, 9, 9, 12, 12, 3, 3};
    for (size_t i = 0; i < COUNT(order); i++) {
        for (int k = 0; k < 2; k++)
            assert_int_equal(wanted(&s, order[i], k)->graph != NULL,
                             order[i] == 6 ? k == 1 : i > 0 && order[i] == order[i - 1] && k == 0);
        assert_ok(passes_record_next(&s));
        assert_int_equal(s.n_recorded, i + 2);
    }
    assert_ok(passes_record_next(&s));
    assert_int_equal(s.n_recorded, 8);
    assert_int_equal(n_run, 0);
    assert_ok(dev_replay(d, wanted(&s, 3, true)->graph));
    assert_int_equal(n_run, 1);
    passes_close(&s);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_once_and_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
