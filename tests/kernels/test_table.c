/* test_table.c - the CPU's table has no hole, and scratch is opened and closed. */
#include <string.h>

#include "kernels/ops_impl.h"
#include "tests/check.h"

static void test_no_hole(void **state)
{
    (void)state;
    typedef void entry(void);
    entry *entries[sizeof(struct ops) / sizeof(entry *)];
    assert_int_equal(sizeof entries, sizeof ops_cpu);
    memcpy(entries, &ops_cpu, sizeof entries);
    for (size_t i = 0; i < COUNT(entries); i++) {
        if (!entries[i]) print_error("entry %zu is empty\n", i);
        assert_true(entries[i] != NULL);
    }
}

/* One allocation, which may fail and leaves nothing; a second try works. */
static void test_open_survives_a_failed_alloc(void **state)
{
    (void)state;
    struct dev *d = NULL;
    int nth = 0;
    assert_ok(dev_open(&d, "cpu", 2));
    for (;; nth++) {
        dev_fail_at(d, nth);
        const err_t e = ops_open(d);
        dev_fail_at(d, -1);
        if (e == OK) break;
        assert_int_equal(e, ERR_NOMEM);
        assert_int_equal(dev_live_bytes(d), 0);
    }
    assert_int_equal(nth, 1);
    assert_true(dev_live_bytes(d) > 0);
    ops_close(d);
    ops_close(d); /* closed already: nothing to do */
    ops_close(NULL);
    assert_int_equal(dev_live_bytes(d), 0);
    dev_close(&d);
}

static void test_too_many_devices(void **state)
{
    (void)state;
    struct dev *d[9] = {0};
    for (int i = 0; i < 9; i++) {
        assert_ok(dev_open(&d[i], "cpu", 1));
        assert_int_equal(ops_open(d[i]), i < 8 ? OK : ERR_LIMIT);
    }
    for (int i = 0; i < 9; i++) {
        ops_close(d[i]);
        dev_close(&d[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_hole),
        TEST(test_open_survives_a_failed_alloc),
        TEST(test_too_many_devices),
    };
    return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
