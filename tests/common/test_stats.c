/* test_stats.c - statistics against numpy 1.24.2: mean(), std(), percentile(method="inverted_cdf").
 */
#include "common/stats.h"

#include <math.h>

#include "tests/check.h"

static void test_percentiles_are_measured_values(void **state)
{
    (void)state;
    int64_t v[100];
    for (int i = 0; i < 100; i++) v[i] = 10 * (i + 1);
    assert_int_equal(stats_percentile(v, 100, 50), 500);
    assert_int_equal(stats_percentile(v, 100, 95), 950);
    assert_int_equal(stats_percentile(v, 100, 99), 990);
    assert_int_equal(stats_percentile(v, 100, 99.5), 1000);
    assert_int_equal(stats_percentile(v, 100, 100), 1000);
    assert_int_equal(stats_percentile(v, 50, 99), 500); /* of fewer than 100, the slowest */
    assert_int_equal(stats_percentile(v, 51, 50), 260);
    assert_int_equal(stats_percentile(v, 1, 1), 10);
}

static void check_stats(struct stats s, struct stats want)
{
    assert_int_equal(s.n, want.n);
    assert_true(fabs(s.mean - want.mean) <= 1e-12 * (1 + want.mean));
    assert_true(fabs(s.std - want.std) <= 1e-12 * (1 + want.std));
    assert_int_equal(s.p50, want.p50);
    assert_int_equal(s.p95, want.p95);
    assert_int_equal(s.p99, want.p99);
    assert_int_equal(s.min, want.min);
    assert_int_equal(s.max, want.max);
}

static void test_series_against_numpy(void **state)
{
    (void)state;
    int64_t squares[250], hundred[100], seven[] = {5, -3, 8, 8, 1, 0, 2};
    for (int64_t i = 0; i < 250; i++) squares[i] = i * i * 7919 % 100003;
    for (int64_t i = 0; i < 100; i++) hundred[i] = i + 1;
    check_stats(stats_of(squares, 250),
                (struct stats){250, 49293.408, 29182.092178483977, 49336, 96343, 99465, 0, 99942});
    check_stats(stats_of(hundred, 100),
                (struct stats){100, 50.5, 28.86607004772212, 50, 95, 99, 1, 100});
    check_stats(stats_of(seven, 7), (struct stats){7, 3.0, 3.854496446637726, 2, 8, 8, -3, 8});
}

static void test_a_series_of_none_and_of_one(void **state)
{
    (void)state;
    int64_t one[] = {42};
    check_stats(stats_of(one, 0), (struct stats){0});
    check_stats(stats_of(one, 1), (struct stats){1, 42, 0, 42, 42, 42, 42, 42});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles_are_measured_values),
        cmocka_unit_test(test_series_against_numpy),
        cmocka_unit_test(test_a_series_of_none_and_of_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
