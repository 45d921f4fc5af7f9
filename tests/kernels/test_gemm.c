/* test_gemm.c - the linear ops against sums in f64. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"
#include "tests/kernels/linear.h"

/* One row; an odd shape; the tile's edge in rows, in columns, in both; the demo's layer. */
static const int32_t shapes[][3] = {
    {1, 1, 1},      {1, 70, 515},  {3, 5, 1},      {5, 33, 17},    {2, 1, 9},
    {144, 16, 256}, {145, 9, 257}, {300, 31, 513}, {289, 260, 70}, {288, 256, 768},
};

static double product_at(const float *x, const float *w, const float *b, int32_t n_i, int32_t s,
                         int32_t o)
{
    double sum = b ? (double)b[o] : 0;
    for (int32_t i = 0; i < n_i; i++)
        sum += (double)x[(int64_t)s * n_i + i] * (double)w[(int64_t)o * n_i + i];
    return sum;
}

static void one(enum linear_op what, const int32_t *shape, int has_b, int has_gate)
{
    const int32_t n_s = shape[0], n_i = shape[1], n_o = shape[2];
    const int64_t n = (int64_t)n_s * n_o;
    float *x = check_floats((int64_t)n_s * n_i, 1), *w = check_floats((int64_t)n_o * n_i, 2);
    float *b = check_floats(n_o, 3), *gate = check_floats(n_o, 4), *y = check_floats(n, 5);
    double *want = check_doubles(n);
    for (int32_t s = 0; s < n_s; s++) {
        for (int32_t o = 0; o < n_o; o++) {
            double sum = product_at(x, w, has_b ? b : NULL, n_i, s, o);
            const int64_t at = (int64_t)s * n_o + o;
            if (what == GELU) sum = gelu(sum);
            if (what == ADD) sum = (double)y[at] + (has_gate ? (double)gate[o] : 1) * sum;
            want[at] = sum;
        }
    }
    const struct check_arg bias = !has_b ? NONE : what == ADD ? IN(b, n_o) : IN_ACT(b, n_o);
    const struct check_arg gated = has_gate ? IN(gate, n_o) : NONE;
    const struct check_arg out = what == ADD ? BOTH(y, n_s, n_o) : OUT_ACT(y, n_s, n_o);
    CHECK_OP(call_linear, &what, out, IN_ACT(x, n_s, n_i), IN_ACT(w, n_o, n_i), bias, gated);
    check_close(y, want, n, 1e-6);
}

static void test_linear(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int has_b = 0; has_b < 2; has_b++) one(LINEAR, shapes[i], has_b, 0);
}

static void test_linear_gelu(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int has_b = 0; has_b < 2; has_b++) one(GELU, shapes[i], has_b, 0);
}

static void test_linear_add(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int how = 0; how < 4; how++) one(ADD, shapes[i], how & 1, how >> 1);
}

/* --- with the norm that follows --------------------------------------------------------------- */

static const float eps = 1e-5f;

static void oracle_norm(double *h, const double *y, const float *scale, const float *shift,
                        int32_t n, bool is_modulated)
{
    double mean = 0, var = 0;
    for (int32_t o = 0; o < n; o++) mean += y[o] / n;
    for (int32_t o = 0; o < n; o++) var += (y[o] - mean) * (y[o] - mean) / n;
    for (int32_t o = 0; o < n; o++)
        h[o] =
            (y[o] - mean) / sqrt(var + (double)eps) * ((is_modulated ? 1 : 0) + (double)scale[o]) +
            (double)shift[o];
}

/* Against f64, and to the bit against one op after the other. */
static void one_add_norm(const int32_t *shape, int has_b, int has_gate, bool is_modulated)
{
    const int32_t n_s = shape[0], n_i = shape[1], n_o = shape[2];
    const int64_t n = (int64_t)n_s * n_o;
    float *x = check_floats((int64_t)n_s * n_i, 1), *w = check_floats((int64_t)n_o * n_i, 2);
    float *b = check_floats(n_o, 3), *gate = check_floats(n_o, 4);
    float *scale = check_floats(n_o, 6), *shift = check_floats(n_o, 7);
    float *y[2] = {check_floats(n, 5), check_floats(n, 5)};
    float *h[2] = {check_alloc((size_t)n * sizeof **h), check_alloc((size_t)n * sizeof **h)};
    double *want_y = check_doubles(n), *want_h = check_doubles(n);
    const struct norm_of norm = {is_modulated, eps};
    for (int32_t s = 0; s < n_s; s++) {
        double *const row = want_y + (int64_t)s * n_o;
        for (int32_t o = 0; o < n_o; o++)
            row[o] =
                (double)y[0][(int64_t)s * n_o + o] +
                (has_gate ? (double)gate[o] : 1) * product_at(x, w, has_b ? b : NULL, n_i, s, o);
        oracle_norm(want_h + (int64_t)s * n_o, row, scale, shift, n_o, is_modulated);
    }
    for (int i = 0; i < 2; i++)
        CHECK_OP(i ? call_apart : call_add_norm, &norm, BOTH(y[i], n_s, n_o), IN_ACT(x, n_s, n_i),
                 IN_ACT(w, n_o, n_i), has_b ? IN(b, n_o) : NONE, has_gate ? IN(gate, n_o) : NONE,
                 OUT_ACT(h[i], n_s, n_o), IN(scale, n_o), IN(shift, n_o));
    check_close(y[0], want_y, n, 1e-6);
    check_close(h[0], want_h, n, 1e-6);
    assert_memory_equal(y[0], y[1], (size_t)n * sizeof **y);
    assert_memory_equal(h[0], h[1], (size_t)n * sizeof **h);
}

/* Ragged; the demo's end of a feed-forward; rows of LongLive's width, which a GPU holds, one and
 * many. */
static void test_linear_add_norm(void **state)
{
    (void)state;
    static const int32_t sizes[][3] = {{3, 5, 15},   {7, 33, 97},  {108, 768, 256},
                                       {5, 16, 768}, {1, 9, 1536}, {131, 40, 1536}};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int how = 0; how < 8; how++) one_add_norm(sizes[i], how & 1, how >> 1 & 1, how >> 2);
}

/* PyTorch: gelu(x, approximate='tanh'). */
static void test_gelu_known(void **state)
{
    (void)state;
    enum linear_op what = GELU;
    float x[] = {0.0f, 1.0f, -1.0f, 3.0f, -3.0f, 20.0f, -20.0f}, w[] = {1.0f}, y[7];
    static const double want[] = {0.0,        0.8411919906, -0.1588080094, 2.9963626990,
                                  -0.0036373, 20.0,         -0.0};
    CHECK_OP(call_linear, &what, OUT(y, 7, 1), IN(x, 7, 1), IN(w, 1, 1), NONE, NONE);
    for (int i = 0; i < 7; i++)
        assert_true(fabs((double)y[i] - want[i]) <= 2e-7 * (1 + fabs(want[i])));
}

/* The identity gives the input back to the bit, whatever the tiling. */
static void test_identity(void **state)
{
    (void)state;
    enum { S = 150, C = 300 };
    enum linear_op what = LINEAR;
    float *x = check_floats(S * C, 6), *y = check_floats(S * C, 7);
    float *w = check_alloc(C * C * sizeof *w);
    for (int i = 0; i < C; i++) w[i * C + i] = 1.0f;
    CHECK_OP(call_linear, &what, OUT(y, S, C), IN(x, S, C), IN(w, C, C), NONE, NONE);
    assert_memory_equal(x, y, S * C * sizeof *x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_linear),          TEST(test_linear_gelu), TEST(test_linear_add),
        TEST(test_linear_add_norm), TEST(test_gelu_known),  TEST(test_identity),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
