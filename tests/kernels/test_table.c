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

/* Rounding is off after every open, belongs to one device, and touches nothing while off. */
static void test_bf16_is_a_devices_own(void **state)
{
    (void)state;
    const float x = 1.00390625f; /* half a unit of bf16: a tie, which goes to the even 1 */
    struct dev *d[2] = {0};
    void *at[2] = {0};
    for (int i = 0; i < 2; i++) {
        assert_ok(dev_open(&d[i], "cpu", 1));
        assert_ok(ops_open(d[i]));
        assert_ok(dev_alloc(d[i], sizeof x, &at[i]));
    }
    for (int round = 0; round < 2; round++) {
        ops_set_bf16(d[0], round == 0);
        for (int i = 0; i < 2; i++) {
            float got;
            assert_ok(dev_upload(d[i], at[i], &x, sizeof x));
            assert_ok(ops_keep(d[i], TENSOR(at[i], DTYPE_F32, 1)));
            assert_ok(dev_download(d[i], &got, at[i], sizeof got));
            assert_ok(dev_sync(d[i]));
            assert_true(got == (i == 0 && round == 0 ? 1.0f : x));
        }
        ops_set_bf16(d[0], true);
        ops_close(d[0]);
        assert_ok(ops_open(d[0]));
    }
    for (int i = 0; i < 2; i++) {
        dev_free(d[i], &at[i]);
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
        TEST(test_bf16_is_a_devices_own),
    };
    return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
