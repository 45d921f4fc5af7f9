/* test_math.c - the vectorisable exp and the reductions against libm in f64. */
#include <math.h>

#include "kernels/cpu/math.h"
#include "tests/check.h"

/* Every bf16 stays; between two of them the nearer one, the even one of a tie; NaN stays NaN. */
static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t high = 0; high < 0x10000; high++) {
        const float x = cpu_of_bits(high << 16), next = cpu_of_bits((high + 1) << 16);
        if (isnan(x)) {
            assert_true(isnan(cpu_bf16(x)) && isnan(cpu_bf16(cpu_of_bits(high << 16 | 0xFFFF))));
            continue;
        }
        assert_int_equal(cpu_bits(cpu_bf16(x)), high << 16);
        if (isinf(x)) continue;
        assert_int_equal(cpu_bits(cpu_bf16(cpu_of_bits(high << 16 | 0x7FFF))), high << 16);
        assert_int_equal(cpu_bits(cpu_bf16(cpu_of_bits(high << 16 | 0x8001))), cpu_bits(next));
        assert_int_equal(cpu_bits(cpu_bf16(cpu_of_bits(high << 16 | 0x8000))),
                         high % 2 ? cpu_bits(next) : high << 16);
    }
}

static void test_exp_accuracy(void **state)
{
    (void)state;
    double worst = 0;
    for (int64_t i = 0; i <= 4000000; i++) {
        const float x = -87.3365f + 176.0592f * (float)i / 4000000.0f;
        if (x < -87.33654f || x > 88.72283f) continue;
        const double want = exp((double)x), got = (double)cpu_exp(x);
        worst = fmax(worst, fabs(got - want) / want);
    }
    print_message("exp: relative error %.3g\n", worst);
    assert_true(worst < 2e-7);
}

static void test_exp_edges(void **state)
{
    (void)state;
    assert_true(cpu_exp(0.0f) == 1.0f);
    assert_true(cpu_exp(-0.0f) == 1.0f);
    assert_true(cpu_exp(88.72283f) < INFINITY);
    assert_true(isinf(cpu_exp(88.73f)));
    assert_true(isinf(cpu_exp(INFINITY)) && isinf(cpu_exp(3e38f)));
    assert_true(cpu_exp(-88.0f) == 0.0f);
    assert_true(cpu_exp(-INFINITY) == 0.0f && cpu_exp(-3e38f) == 0.0f);
    assert_true(isnan(cpu_exp(NAN)) && isnan(cpu_exp(-NAN)));
}

static void test_exp_never_falls(void **state)
{
    (void)state;
    float last = 0;
    for (float x = -10.0f; x < 10.0f; x += 1e-4f) {
        assert_true(cpu_exp(x) >= last);
        last = cpu_exp(x);
    }
}

static void test_silu_gelu(void **state)
{
    (void)state;
    for (float x = -9.0f; x < 9.0f; x += 1e-3f) {
        const double z = (double)x, silu = z / (1 + exp(-z));
        /* By the sigmoid, as 1 + tanh loses its digits below. */
        const double gelu = z / (1 + exp(-2 * sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
        assert_true(fabs((double)cpu_silu1(x) - silu) <= 4e-7 * fabs(silu) + 1e-30);
        assert_true(fabs((double)cpu_gelu1(x) - gelu) <= 8e-6 * fabs(gelu) + 1e-30);
        assert_true(fabs((double)cpu_gelu1(x) - gelu) <= 3e-7 * (1 + fabs(z)));
    }
}

static void test_reductions(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 15, 16, 17, 33, 1000, 20001};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const int64_t n = sizes[i];
        float *x = check_floats_in(n, i, 0, 1);
        double sum = 0, sum_sq = 0, top = -1;
        for (int64_t j = 0; j < n; j++) {
            sum += (double)x[j];
            sum_sq += ((double)x[j] - 0.25) * ((double)x[j] - 0.25);
            top = fmax(top, (double)x[j]);
        }
        assert_true(fabs((double)cpu_sum(x, n) - sum) <= 1e-6 * sum);
        assert_true(fabs((double)cpu_sum_sq(x, n, 0.25f) - sum_sq) <= 1e-6 * sum_sq);
        assert_true((double)cpu_largest(x, n) == top);
    }
}

/* The largest wherever it stands, also when all are negative. */
static void test_largest_everywhere(void **state)
{
    (void)state;
    for (int at = 0; at < 40; at++) {
        float x[40];
        for (int i = 0; i < 40; i++) x[i] = -5.0f - (float)i;
        x[at] = -1.0f;
        assert_true(cpu_largest(x, 40) == -1.0f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bf16),
        TEST(test_exp_accuracy),
        TEST(test_exp_edges),
        TEST(test_exp_never_falls),
        TEST(test_silu_gelu),
        TEST(test_reductions),
        TEST(test_largest_everywhere),
    };
    return cmocka_run_group_tests_name("math", tests, NULL, NULL);
}
