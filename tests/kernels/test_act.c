/* test_act.c - elementwise ops against f64. */
#include <math.h>
#include <stdlib.h>

#include "kernels/ops.h"
#include "tests/check.h"

static const int32_t lengths[] = {1, 3, 8, 31, 1000, 70001};

/* p: whether y is the first input. */
static err_t call_silu(struct dev *d, const struct tensor *t, const void *p)
{
    return ops_silu(d, t[0], *(const int *)p ? t[0] : t[1]);
}

static err_t call_add(struct dev *d, const struct tensor *t, const void *p)
{
    return ops_add(d, t[0], *(const int *)p ? t[0] : t[1], t[2]);
}

static err_t call_gelu_mul(struct dev *d, const struct tensor *t, const void *p)
{
    return ops_gelu_mul(d, t[0], *(const int *)p ? t[0] : t[1], t[2]);
}

static err_t call_to_rgb8(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_to_rgb8(d, t[0], t[1]);
}

static double silu(double x, double other)
{
    (void)other;
    return x / (1 + exp(-x));
}

static double add(double a, double b)
{
    return a + b;
}

static double gelu_mul(double a, double g)
{
    return a * 0.5 * g * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
}

static void all(check_call *call, double (*oracle)(double, double))
{
    for (size_t i = 0; i < COUNT(lengths); i++) {
        for (int in_place = 0; in_place < 2; in_place++) {
            const int32_t n = lengths[i];
            float *a = check_floats_in(n, 1, -12, 12), *b = check_floats_in(n, 2, -6, 6);
            float *y = check_floats_in(n, 1, -12, 12);
            double *want = check_doubles(n);
            for (int32_t j = 0; j < n; j++) want[j] = oracle((double)a[j], (double)b[j]);
            CHECK_OP(call, &in_place, in_place ? BOTH(y, n) : OUT(y, n), in_place ? NONE : IN(a, n),
                     IN(b, n));
            check_close(y, want, n, 3e-7);
        }
    }
}

static void test_silu(void **state)
{
    (void)state;
    all(call_silu, silu);
}

static void test_add(void **state)
{
    (void)state;
    all(call_add, add);
}

static void test_gelu_mul(void **state)
{
    (void)state;
    all(call_gelu_mul, gelu_mul);
}

/* Far out SiLU is x or 0, never NaN. */
static void test_silu_far(void **state)
{
    (void)state;
    const int in_place = 0;
    float x[] = {0.0f, 200.0f, -200.0f, 3e38f, -3e38f, INFINITY, NAN}, y[7];
    CHECK_OP(call_silu, &in_place, OUT(y, 7), IN(x, 7));
    for (int i = 0; i < 6; i++) assert_true(y[i] == (x[i] > 0 ? x[i] : 0));
    assert_true(isnan(y[6]));
}

static err_t call_cast(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_cast(d, t[0], t[1]);
}

static void test_cast(void **state)
{
    (void)state;
    float *x = check_floats(1000, 1), *y = check_floats(1000, 2), *back = check_floats(1000, 3);
    CHECK_OP(call_cast, NULL, OUT_ACT(y, 10, 100), IN(x, 10, 100));
    CHECK_OP(call_cast, NULL, OUT(back, 10, 100), IN_ACT(y, 10, 100));
    assert_memory_equal(x, y, 1000 * sizeof *x);
    assert_memory_equal(x, back, 1000 * sizeof *x);
}

static void test_to_rgb8_known(void **state)
{
    (void)state;
    float x[] = {-1.0f,    1.0f,      0.0f, -7.0f,   7.0f,    NAN,
                 INFINITY, -INFINITY, 0.5f, -0.999f, 0.9921f, 0.99999f};
    static const uint8_t want[] = {0, 255, 127, 0, 255, 0, 255, 0, 191, 0, 253, 254};
    uint8_t y[12];
    CHECK_OP(call_to_rgb8, NULL, OUT_U8(y, 4, 3), IN(x, 4, 3));
    assert_memory_equal(y, want, sizeof y);
}

static void test_to_rgb8(void **state)
{
    (void)state;
    enum { N = 2 * 7 * 333 * 3 };
    float *x = check_floats_in(N, 3, -1.3f, 1.3f);
    uint8_t *y = check_alloc(N);
    CHECK_OP(call_to_rgb8, NULL, OUT_U8(y, 2, 7, 333, 3), IN(x, 2, 7, 333, 3));
    for (int i = 0; i < N; i++) {
        const double v = 255 * (0.5 * fmin(fmax((double)x[i], -1), 1) + 0.5);
        const int near = fabs(v - round(v)) < 1e-4; /* f32 may round over the edge */
        assert_true(y[i] == (uint8_t)v || (near && abs(y[i] - (int)v) <= 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cast),     TEST(test_silu),          TEST(test_add),     TEST(test_gelu_mul),
        TEST(test_silu_far), TEST(test_to_rgb8_known), TEST(test_to_rgb8),
    };
    return cmocka_run_group_tests_name("act", tests, NULL, NULL);
}
