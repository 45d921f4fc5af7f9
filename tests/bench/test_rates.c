/* test_rates.c - a ceiling is found, and only ever raised. */
#include "bench/rates.h"

#include "kernels/ops.h"
#include "tests/check.h"

static void test_rates(void **state)
{
    (void)state;
    struct dev *d = NULL;
    double product = 0, memory = 0, high = 1e9;
    assert_ok(dev_open(&d, "cpu", 1));
    assert_ok(ops_open(d));
    assert_ok(rates_product(d, DTYPE_F32, &product));
    assert_ok(rates_memory(d, &memory));
    assert_true(product > 0.01 && product < 1e6); /* FLOP and bytes a nanosecond */
    assert_true(memory > 0.01 && memory < 1e6);
    const double was = product;
    assert_ok(rates_product(d, DTYPE_F32, &product));
    assert_true(product >= was);
    assert_ok(rates_product(d, DTYPE_F32, &high));
    assert_ok(rates_memory(d, &high));
    assert_true(high == 1e9);
    ops_close(d);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_rates)};
    return cmocka_run_group_tests_name("rates", tests, NULL, NULL);
}
