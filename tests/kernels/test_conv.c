/* test_conv.c - the VAE's convolutions and channel moves against f64. */
#include <math.h>
#include <stdbool.h>

#include "kernels/ops.h"
#include "tests/check.h"

struct shape {
    int32_t n_t, n_y, n_x, n_c, n_o, n_kt, n_k;
};

/* p: whether y is the residual; else t[5]. */
static err_t call(struct dev *d, const struct tensor *t, const void *p)
{
    return ops_conv3d(d, t[0], t[1], t[2], t[3], t[4], *(const int *)p ? t[0] : t[5]);
}

static err_t call_upsample(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_upsample_conv(d, t[0], t[1], t[2], t[3]);
}

static err_t call_split_frames(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_split_frames(d, t[0], t[1]);
}

static err_t call_split3(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_split3(d, t[0], t[1], t[2], t[3]);
}

/* Input at frame t (negative: past), zero outside the picture. */
static double input(struct shape h, const float *x, const float *past, int32_t t, int32_t y,
                    int32_t xx, int32_t c)
{
    if (y < 0 || y >= h.n_y || xx < 0 || xx >= h.n_x) return 0;
    const float *frames = t < 0 ? past : x;
    const int32_t f = t < 0 ? t + h.n_kt - 1 : t;
    return (double)frames[((f * h.n_y + y) * h.n_x + xx) * h.n_c + c];
}

static double *oracle(struct shape h, const float *x, const float *past, const float *w,
                      const float *b)
{
    const int32_t n = h.n_t * h.n_y * h.n_x * h.n_o, pad = h.n_k / 2;
    double *out = check_doubles(n);
    for (int32_t at = 0; at < n; at++) {
        const int32_t o = at % h.n_o, xx = at / h.n_o % h.n_x, y = at / h.n_o / h.n_x % h.n_y;
        const int32_t t = at / h.n_o / h.n_x / h.n_y;
        double sum = (double)b[o];
        for (int32_t i = 0; i < h.n_kt * h.n_k * h.n_k * h.n_c; i++) {
            const int32_t c = i % h.n_c, kx = i / h.n_c % h.n_k, ky = i / h.n_c / h.n_k % h.n_k;
            const int32_t kt = i / h.n_c / h.n_k / h.n_k;
            sum += (double)w[o * h.n_kt * h.n_k * h.n_k * h.n_c + i] *
                   input(h, x, past, t + kt - (h.n_kt - 1), y + ky - pad, xx + kx - pad, c);
        }
        out[at] = sum;
    }
    return out;
}

/* residual: 0 none, 1 a tensor of its own, 2 y itself. */
static void one(struct shape h, int residual)
{
    const int in_place = residual == 2;
    const int32_t n = h.n_t * h.n_y * h.n_x * h.n_o, n_past = h.n_kt - 1;
    float *x = check_floats((int64_t)h.n_t * h.n_y * h.n_x * h.n_c, 1);
    float *past = check_floats((int64_t)n_past * h.n_y * h.n_x * h.n_c, 2);
    float *w = check_floats((int64_t)h.n_o * h.n_kt * h.n_k * h.n_k * h.n_c, 3);
    float *b = check_floats(h.n_o, 4), *add = check_floats(n, 5), *y = check_floats(n, 5);
    double *want = oracle(h, x, past, w, b);
    for (int32_t i = 0; residual && i < n; i++) want[i] += (double)add[i];
    const struct check_arg out =
        in_place ? BOTH_ACT(y, h.n_t, h.n_y, h.n_x, h.n_o) : OUT_ACT(y, h.n_t, h.n_y, h.n_x, h.n_o);
    CHECK_OP(call, &in_place, out, IN_ACT(x, h.n_t, h.n_y, h.n_x, h.n_c),
             n_past ? IN_ACT(past, n_past, h.n_y, h.n_x, h.n_c) : NONE,
             IN_ACT(w, h.n_o, h.n_kt, h.n_k, h.n_k, h.n_c), IN(b, h.n_o),
             residual == 1 ? IN_ACT(add, h.n_t, h.n_y, h.n_x, h.n_o) : NONE);
    check_close(y, want, n, 1e-6);
}

/* One pixel; every kernel form; one row, one column; a chunk's edge inside a row; chunks bounded
 * by the scratch (27 * 400 inputs a pixel). */
static void test_conv3d(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {1, 1, 1, 1, 1, 1, 1},     {1, 1, 1, 3, 2, 3, 3},   {1, 5, 7, 4, 3, 1, 3},
        {2, 4, 5, 6, 7, 3, 1},     {4, 7, 9, 5, 8, 3, 3},   {1, 1, 70, 3, 4, 3, 3},
        {1, 70, 1, 3, 4, 1, 3},    {3, 33, 29, 3, 5, 3, 3}, {1, 23, 41, 9, 3, 1, 1},
        {1, 30, 30, 400, 2, 3, 3},
    };
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int residual = 0; residual < 3; residual++) one(shapes[i], residual);
}

/* Frames fed one by one, with the past kept by hand, are the frames fed at once. */
static void test_conv3d_is_causal(void **state)
{
    (void)state;
    enum { T = 5, Y = 4, X = 6, C = 3, O = 2, IN_FRAME = Y * X * C, OUT_FRAME = Y * X * O };
    const int in_place = 0;
    float *x = check_floats((T + 2) * IN_FRAME, 1), *w = check_floats(O * 27 * C, 2);
    float *b = check_floats(O, 3), *all = check_floats(T * OUT_FRAME, 4);
    float *each = check_floats(T * OUT_FRAME, 5);
    CHECK_OP(call, &in_place, OUT_ACT(all, T, Y, X, O), IN_ACT(x + 2 * IN_FRAME, T, Y, X, C),
             IN_ACT(x, 2, Y, X, C), IN_ACT(w, O, 3, 3, 3, C), IN(b, O), NONE);
    for (int t = 0; t < T; t++)
        CHECK_OP(call, &in_place, OUT_ACT(each + t * OUT_FRAME, 1, Y, X, O),
                 IN_ACT(x + (t + 2) * IN_FRAME, 1, Y, X, C), IN_ACT(x + t * IN_FRAME, 2, Y, X, C),
                 IN_ACT(w, O, 3, 3, 3, C), IN(b, O), NONE);
    for (int i = 0; i < T * OUT_FRAME; i++) assert_true(fabsf(all[i] - each[i]) < 1e-5f);
}

/* The widths that the tensor cores of a GPU serve, by kernel: tiles cut in parts and whole, their
 * ragged edges, a past and none, one output to three. */
static void test_wide_conv3d(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {2, 17, 19, 64, 192, 3, 3}, {1, 9, 35, 32, 96, 3, 3}, {3, 5, 7, 128, 96, 1, 3},
        {1, 18, 15, 16, 192, 3, 3}, {2, 9, 8, 64, 384, 3, 1}, {3, 19, 18, 32, 2, 3, 3},
        {1, 33, 16, 96, 3, 3, 3},   {1, 16, 17, 64, 1, 1, 3},
    };
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int residual = 0; residual < 3; residual++) one(shapes[i], residual);
}

/* --- with the norm of what comes out ---------------------------------------------------------- */

struct norm_case {
    int residual; /* as of one() */
    bool keeps, is_apart;
};

/* t: h, x, past, w, b, residual, g, y. */
static err_t call_norm(struct dev *d, const struct tensor *t, const void *p)
{
    const struct norm_case *k = p;
    const struct tensor add = k->residual == 2 ? t[7] : t[5];
    if (!k->is_apart) return ops_conv3d_norm(d, t[0], t[1], t[2], t[3], t[4], add, t[6], t[7]);
    const err_t e = ops_conv3d(d, t[7], t[1], t[2], t[3], t[4], add);
    return e != OK ? e : ops_l2_norm(d, t[0], t[7], t[6], 1);
}

/* silu(norm(plain + add)) */
static double *norm_oracle(const double *plain, const float *add, const float *g, int32_t n,
                           int32_t n_o)
{
    double *want = check_doubles(n);
    for (int32_t at = 0; at < n; at += n_o) {
        double sq = 0;
        for (int32_t o = 0; o < n_o; o++) {
            want[at + o] = plain[at + o] + (add ? (double)add[at + o] : 0);
            sq += want[at + o] * want[at + o];
        }
        for (int32_t o = 0; o < n_o; o++) {
            const double z = want[at + o] / fmax(sqrt(sq), 1e-12) * sqrt(n_o) * (double)g[o];
            want[at + o] = z / (1 + exp(-z));
        }
    }
    return want;
}

/* Against f64, and, by one op after the other, the same bits. */
static void one_norm(struct shape h)
{
    static const struct norm_case cases[] = {{.keeps = false},
                                             {.keeps = true},
                                             {.residual = 1, .keeps = false},
                                             {.residual = 1, .keeps = true},
                                             {.residual = 2, .keeps = true}};
    const int32_t n = h.n_t * h.n_y * h.n_x * h.n_o, n_past = h.n_kt - 1;
    float *x = check_floats((int64_t)h.n_t * h.n_y * h.n_x * h.n_c, 1);
    float *past = check_floats((int64_t)n_past * h.n_y * h.n_x * h.n_c, 2);
    float *w = check_floats((int64_t)h.n_o * h.n_kt * h.n_k * h.n_k * h.n_c, 3);
    float *b = check_floats(h.n_o, 4), *add = check_floats(n, 5), *g = check_floats(h.n_o, 6);
    const double *plain = oracle(h, x, past, w, b);
    const double *without = norm_oracle(plain, NULL, g, n, h.n_o);
    const double *with = norm_oracle(plain, add, g, n, h.n_o);
    for (size_t i = 0; i < COUNT(cases); i++) {
        float *y[2], *out[2];
        for (int apart = 0; apart < 2; apart++) {
            struct norm_case k = cases[i];
            k.is_apart = apart;
            y[apart] = check_floats(n, 5);
            out[apart] = check_floats(n, 7);
            const struct check_arg kept = k.residual == 2
                                              ? BOTH_ACT(y[apart], h.n_t, h.n_y, h.n_x, h.n_o)
                                              : OUT_ACT(y[apart], h.n_t, h.n_y, h.n_x, h.n_o);
            CHECK_OP(call_norm, &k, OUT_ACT(out[apart], h.n_t, h.n_y, h.n_x, h.n_o),
                     IN_ACT(x, h.n_t, h.n_y, h.n_x, h.n_c),
                     n_past ? IN_ACT(past, n_past, h.n_y, h.n_x, h.n_c) : NONE,
                     IN_ACT(w, h.n_o, h.n_kt, h.n_k, h.n_k, h.n_c), IN(b, h.n_o),
                     k.residual == 1 ? IN_ACT(add, h.n_t, h.n_y, h.n_x, h.n_o) : NONE, IN(g, h.n_o),
                     k.keeps || apart ? kept : NONE);
        }
        check_close(out[0], cases[i].residual ? with : without, n, 1e-6);
        assert_memory_equal(out[0], out[1], (size_t)n * sizeof **out);
        if (cases[i].keeps) assert_memory_equal(y[0], y[1], (size_t)n * sizeof **y);
    }
}

/* Tiles of whole pixels, each kernel of them: in parts, whole and both, ragged; then channels that
 * no kernel norms, or none convolves. */
static void test_conv3d_norm(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {2, 17, 19, 64, 192, 3, 3}, {67, 3, 9, 64, 192, 1, 3},  {140, 2, 3, 64, 192, 3, 3},
        {1, 9, 35, 32, 96, 3, 3},   {140, 2, 3, 32, 96, 3, 3},  {4, 33, 18, 96, 96, 1, 3},
        {3, 5, 7, 128, 96, 1, 3},   {1, 18, 15, 16, 192, 3, 3}, {2, 5, 9, 64, 384, 1, 3},
        {2, 9, 8, 64, 192, 3, 1},   {3, 7, 5, 4, 8, 3, 3},      {1, 5, 7, 4, 3, 1, 3},
    };
    for (size_t i = 0; i < COUNT(shapes); i++) one_norm(shapes[i]);
}

static void test_upsample_conv(void **state)
{
    (void)state;
    static const struct shape shapes[] = {{1, 1, 1, 1, 1, 1, 3},
                                          {2, 3, 5, 4, 3, 1, 3},
                                          {1, 17, 9, 12, 7, 1, 3},
                                          {2, 9, 17, 64, 96, 1, 3},
                                          {1, 17, 5, 128, 192, 1, 3}};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const struct shape h = shapes[i];
        const struct shape up = {h.n_t, 2 * h.n_y, 2 * h.n_x, h.n_c, h.n_o, 1, 3};
        const int32_t n_up = up.n_t * up.n_y * up.n_x;
        float *x = check_floats((int64_t)h.n_t * h.n_y * h.n_x * h.n_c, 1);
        float *big = check_floats((int64_t)n_up * h.n_c, 2), *y = check_floats(n_up * h.n_o, 3);
        float *w = check_floats(h.n_o * 9 * h.n_c, 4), *b = check_floats(h.n_o, 5);
        for (int32_t at = 0; at < n_up * h.n_c; at++) {
            const int32_t c = at % h.n_c, xx = at / h.n_c % up.n_x;
            const int32_t ty = at / h.n_c / up.n_x; /* 2Y is even: halves as one index */
            big[at] = x[(ty / 2 * h.n_x + xx / 2) * h.n_c + c];
        }
        const double *want = oracle(up, big, NULL, w, b);
        CHECK_OP(call_upsample, NULL, OUT_ACT(y, up.n_t, up.n_y, up.n_x, h.n_o),
                 IN_ACT(x, h.n_t, h.n_y, h.n_x, h.n_c), IN_ACT(w, h.n_o, 1, 3, 3, h.n_c),
                 IN(b, h.n_o));
        check_close(y, want, (int64_t)n_up * h.n_o, 1e-6);
    }
}

static void test_split_frames(void **state)
{
    (void)state;
    enum { T = 3, Y = 5, X = 7, YX = Y * X };
    static const int32_t channels[] = {9, 8, 48};
    for (size_t i = 0; i < COUNT(channels); i++) {
        const int32_t n_c = channels[i], n = 2 * T * YX * n_c;
        float *x = check_floats(n, 1), *y = check_floats(n, 2);
        CHECK_OP(call_split_frames, NULL, OUT_ACT(y, 2 * T, Y, X, n_c),
                 IN_ACT(x, T, Y, X, 2 * n_c));
        for (int32_t at = 0; at < n; at++) {
            const int32_t c = at % n_c, p = at / n_c % YX, tj = at / n_c / YX;
            assert_true(y[at] == x[(tj / 2 * YX + p) * 2 * n_c + tj % 2 * n_c + c]);
        }
    }
}

static void test_split3(void **state)
{
    (void)state;
    enum { S = 37, C = 11 };
    float *x = check_floats(S * 3 * C, 1), *y[3];
    for (int i = 0; i < 3; i++) y[i] = check_floats(S * C, 2);
    CHECK_OP(call_split3, NULL, OUT_ACT(y[0], S, C), OUT_ACT(y[1], S, C), OUT_ACT(y[2], S, C),
             IN_ACT(x, S, 3 * C));
    for (int at = 0; at < S * 3 * C; at++)
        assert_true(y[at % (3 * C) / C][at / (3 * C) * C + at % C] == x[at]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_conv3d),      TEST(test_conv3d_is_causal), TEST(test_wide_conv3d),
        TEST(test_conv3d_norm), TEST(test_upsample_conv),    TEST(test_split_frames),
        TEST(test_split3),
    };
    return cmocka_run_group_tests_name("conv", tests, NULL, NULL);
}
