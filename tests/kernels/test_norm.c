/* test_norm.c - the norms against f64, in place and not. */
#include <math.h>

#include "kernels/ops.h"
#include "tests/check.h"

enum what { RMS, LAYER, MODULATE, L2, L2_SILU };

struct how {
    enum what what;
    int in_place;
};

static const float eps = 1e-5f;

static err_t call(struct dev *d, const struct tensor *t, const void *p)
{
    const struct how *h = p;
    const struct tensor x = h->in_place ? t[0] : t[1];
    switch (h->what) {
    case RMS:
        return ops_rms_norm(d, t[0], x, t[2], eps);
    case LAYER:
        return ops_layer_norm(d, t[0], x, t[2], t[3], eps);
    case MODULATE:
        return ops_norm_modulate(d, t[0], x, t[2], t[3], eps);
    default:
        return ops_l2_norm(d, t[0], x, t[2], h->what == L2_SILU);
    }
}

static void oracle(enum what what, double *y, const float *x, const float *w, const float *b,
                   int32_t n_c)
{
    double sum = 0, sum_sq = 0, var = 0;
    for (int32_t c = 0; c < n_c; c++) {
        sum += (double)x[c];
        sum_sq += (double)x[c] * (double)x[c];
    }
    const double mean = sum / n_c;
    for (int32_t c = 0; c < n_c; c++) var += ((double)x[c] - mean) * ((double)x[c] - mean) / n_c;
    for (int32_t c = 0; c < n_c; c++) {
        const double z = ((double)x[c] - mean) / sqrt(var + (double)eps);
        const double l2 = (double)x[c] / fmax(sqrt(sum_sq), 1e-12) * sqrt(n_c) * (double)w[c];
        switch (what) {
        case RMS:
            y[c] = (double)x[c] / sqrt(sum_sq / n_c + (double)eps) * (double)w[c];
            break;
        case LAYER:
            y[c] = z * (double)w[c] + (double)b[c];
            break;
        case MODULATE:
            y[c] = z * (1 + (double)w[c]) + (double)b[c];
            break;
        case L2:
            y[c] = l2;
            break;
        default:
            y[c] = l2 / (1 + exp(-l2));
            break;
        }
    }
}

static void one(enum what what, int32_t n_s, int32_t n_c, int in_place, float lo, float hi)
{
    const struct how h = {what, in_place};
    const int64_t n = (int64_t)n_s * n_c;
    float *x = check_floats_in(n, 1, lo, hi), *y = check_floats_in(n, 1, lo, hi);
    float *w = check_floats(n_c, 2), *b = check_floats(n_c, 3);
    double *want = check_doubles(n);
    for (int32_t s = 0; s < n_s; s++)
        oracle(what, want + (int64_t)s * n_c, x + (int64_t)s * n_c, w, b, n_c);
    /* The residual stream is f32; what is normed in place, or by the VAE, is not. */
    const int is_act = what == RMS || what == L2 || what == L2_SILU;
    const struct check_arg out = !in_place ? OUT_ACT(y, n_s, n_c)
                                 : is_act  ? BOTH_ACT(y, n_s, n_c)
                                           : BOTH(y, n_s, n_c);
    const struct check_arg in = is_act ? IN_ACT(x, n_s, n_c) : IN(x, n_s, n_c);
    CHECK_OP(call, &h, out, in_place ? NONE : in, IN(w, n_c), IN(b, n_c));
    check_close(y, want, n, 1e-6);
}

static void all_shapes(enum what what)
{
    static const int32_t shapes[][2] = {{1, 1},    {1, 16},   {3, 15},   {7, 97},
                                        {33, 256}, {5, 1537}, {131, 96}, {67, 192},
                                        {35, 384}, {9, 1536}, {3, 5120}};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        one(what, shapes[i][0], shapes[i][1], 0, -2.0f, 3.0f);
        one(what, shapes[i][0], shapes[i][1], 1, -2.0f, 3.0f);
    }
}

static void test_rms_norm(void **state)
{
    (void)state;
    all_shapes(RMS);
}

static void test_layer_norm(void **state)
{
    (void)state;
    all_shapes(LAYER);
}

static void test_norm_modulate(void **state)
{
    (void)state;
    all_shapes(MODULATE);
}

static void test_l2_norm(void **state)
{
    (void)state;
    all_shapes(L2);
    all_shapes(L2_SILU);
}

/* The variance is of the distances from the mean: no cancellation on a row far from 0. */
static void test_layer_norm_far_from_zero(void **state)
{
    (void)state;
    enum { S = 2, C = 512 };
    const struct how h = {LAYER, 0};
    float x[S * C], y[S * C], w[C], b[C] = {0};
    double want[S * C];
    for (int i = 0; i < S * C; i++) x[i] = 1000.0f + (float)(i % 8);
    for (int i = 0; i < C; i++) w[i] = 1.0f;
    for (int s = 0; s < S; s++) oracle(LAYER, want + s * C, x + s * C, w, b, C);
    CHECK_OP(call, &h, OUT(y, S, C), IN(x, S, C), IN(w, C), IN(b, C));
    check_close(y, want, S * C, 1e-6);
}

/* A row of zeros stays one: eps and the floor of 1e-12 keep the division finite. */
static void test_zero_row(void **state)
{
    (void)state;
    for (enum what what = RMS; what <= L2_SILU; what++) {
        const struct how h = {what, 0};
        float x[8] = {0}, y[8], w[4] = {1, 2, 3, 4}, b[4] = {0};
        CHECK_OP(call, &h, OUT(y, 2, 4), IN(x, 2, 4), IN(w, 4), IN(b, 4));
        for (int i = 0; i < 8; i++) assert_true(y[i] == 0.0f);
    }
}

/* Far out SiLU is x or 0, never NaN: a row with one element has all its length there. */
static void test_l2_silu_far(void **state)
{
    (void)state;
    enum { S = 4, C = 96 };
    const struct how h = {L2_SILU, 0};
    float x[S * C] = {0}, y[S * C], g[C];
    for (int i = 0; i < C; i++) g[i] = i % 2 ? -1000.0f : 1000.0f;
    for (int s = 0; s < S; s++) x[s * C + s] = s < 2 ? 1.0f : -1.0f;
    CHECK_OP(call, &h, OUT_ACT(y, S, C), IN_ACT(x, S, C), IN(g, C));
    for (int i = 0; i < S * C; i++) {
        const double z = (double)x[i] * sqrt(C) * (double)g[i % C];
        assert_true(fabs((double)y[i] - fmax(z, 0)) <= 4e-3 * fabs(z));
    }
}

/* A picture: rows are all dimensions but the last. */
static void test_l2_norm_rank4(void **state)
{
    (void)state;
    enum { N = 2 * 3 * 5 * 24 };
    const struct how h = {L2_SILU, 0};
    float *x = check_floats(N, 8), *y = check_floats(N, 9), *g = check_floats(24, 10);
    double *want = check_doubles(N);
    for (int r = 0; r < N / 24; r++) oracle(L2_SILU, want + r * 24, x + r * 24, g, g, 24);
    CHECK_OP(call, &h, OUT_ACT(y, 2, 3, 5, 24), IN_ACT(x, 2, 3, 5, 24), IN(g, 24));
    check_close(y, want, N, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rms_norm),
        TEST(test_layer_norm),
        TEST(test_norm_modulate),
        TEST(test_l2_norm),
        TEST(test_layer_norm_far_from_zero),
        TEST(test_zero_row),
        TEST(test_l2_silu_far),
        TEST(test_l2_norm_rank4),
    };
    return cmocka_run_group_tests_name("norm", tests, NULL, NULL);
}
