/* test_full_size.c - the heavy ops at LongLive's own sizes on a GPU, against f64 at drawn places:
 * the whole result in f64 would take hours. Tiles, tails and rings that small shapes never reach.
 */
#include <math.h>
#include <stdbool.h>

#include "kernels/ops.h"
#include "tests/check.h"
#include "tests/kernels/linear.h"

/* S: tokens of a block; KEYS: of a full window. */
enum { S = 4680, KEYS = 18720, DIM = 1536, FFN = 8960, HEADS = 12, D = 128, PLACES = 2000 };

/* A CPU would need minutes a case. */
#define NEEDS_GPU                                                                                  \
    (void)state;                                                                                   \
    if (!check_on_gpu()) skip()

/* --- linear ----------------------------------------------------------------------------------- */

static void one_linear(enum linear_op what, int32_t n_i, int32_t n_o)
{
    const int64_t n = (int64_t)S * n_o;
    const float scale = 1 / sqrtf((float)n_i);
    float *x = check_floats((int64_t)S * n_i, 1);
    float *w = check_floats_in((int64_t)n_o * n_i, 2, -scale, scale);
    float *b = check_floats(n_o, 3), *gate = check_floats(n_o, 4), *y = check_floats(n, 5);
    float *got = check_alloc(PLACES * sizeof *got);
    double *want = check_doubles(PLACES);
    int64_t at[PLACES];
    uint64_t draw = 6;
    for (int i = 0; i < PLACES; i++) {
        at[i] = (int64_t)(check_next(&draw) % (uint64_t)n);
        const int64_t s = at[i] / n_o, o = at[i] % n_o;
        double sum = (double)b[o];
        for (int32_t j = 0; j < n_i; j++) sum += (double)x[s * n_i + j] * (double)w[o * n_i + j];
        want[i] = what == GELU  ? gelu(sum)
                  : what == ADD ? (double)y[at[i]] + (double)gate[o] * sum
                                : sum;
    }
    CHECK_OP(call_linear, &what, what == ADD ? BOTH(y, S, n_o) : OUT_ACT(y, S, n_o),
             IN_ACT(x, S, n_i), IN_ACT(w, n_o, n_i), what == ADD ? IN(b, n_o) : IN_ACT(b, n_o),
             what == ADD ? IN(gate, n_o) : NONE);
    for (int i = 0; i < PLACES; i++) got[i] = y[at[i]];
    check_close(got, want, PLACES, 1e-6);
}

/* With and without the norm in one op: the same bits, at every place. */
static void one_add_norm(int32_t n_i, bool is_modulated)
{
    const int64_t n = (int64_t)S * DIM;
    const float scale = 1 / sqrtf((float)n_i);
    float *x = check_floats((int64_t)S * n_i, 1);
    float *w = check_floats_in((int64_t)DIM * n_i, 2, -scale, scale);
    float *b = check_floats(DIM, 3), *gate = check_floats(DIM, 4);
    const struct norm_of norm = {is_modulated, 1e-6f};
    float *mul = check_floats(DIM, 6), *add = check_floats(DIM, 7);
    float *y[2] = {check_floats(n, 5), check_floats(n, 5)};
    float *h[2] = {check_alloc((size_t)n * sizeof **h), check_alloc((size_t)n * sizeof **h)};
    for (int i = 0; i < 2; i++)
        CHECK_OP(i ? call_apart : call_add_norm, &norm, BOTH(y[i], S, DIM), IN_ACT(x, S, n_i),
                 IN_ACT(w, DIM, n_i), IN(b, DIM), IN(gate, DIM), OUT_ACT(h[i], S, DIM),
                 IN(mul, DIM), IN(add, DIM));
    assert_memory_equal(y[0], y[1], (size_t)n * sizeof **y);
    assert_memory_equal(h[0], h[1], (size_t)n * sizeof **h);
}

static void test_full_add_norm(void **state)
{
    NEEDS_GPU;
    one_add_norm(DIM, false);
    one_add_norm(FFN, true);
}

static void test_full_qkv(void **state)
{
    NEEDS_GPU;
    one_linear(LINEAR, DIM, 3 * DIM);
}

static void test_full_ffn(void **state)
{
    NEEDS_GPU;
    one_linear(GELU, DIM, FFN);
    one_linear(ADD, FFN, DIM);
}

/* --- attention -------------------------------------------------------------------------------- */

static err_t call_attention(struct dev *d, const struct tensor *t, const void *p)
{
    return ops_attention(d, t[0], t[1], t[2], t[3], t[4], t[5], *(const float *)p);
}

/* Row s of head n. */
static void attend(double *o, int64_t s, int64_t n, const float *q, const float *k, const float *v,
                   int32_t n_keys, double scale, double last_bias)
{
    double *p = check_doubles(n_keys), top = -INFINITY, sum = 0;
    for (int32_t m = 0; m < n_keys; m++) {
        double dot = 0;
        for (int32_t i = 0; i < D; i++)
            dot += (double)q[(s * HEADS + n) * D + i] * (double)k[((int64_t)m * HEADS + n) * D + i];
        p[m] = scale * dot + (m == n_keys - 1 ? last_bias : 0);
        top = fmax(top, p[m]);
    }
    for (int32_t m = 0; m < n_keys; m++) sum += p[m] = exp(p[m] - top);
    for (int32_t m = 0; m < n_keys; m++)
        for (int32_t i = 0; i < D; i++)
            o[i] += p[m] / sum * (double)v[((int64_t)m * HEADS + n) * D + i];
}

static void one_attention(int32_t n_m, int32_t n_keys, float last_bias)
{
    enum { ROWS = 64 };
    const float scale = 1 / sqrtf(D);
    float *q = check_floats_in((int64_t)S * HEADS * D, 1, -2, 2);
    float *k = check_floats_in((int64_t)n_m * HEADS * D, 2, -2, 2);
    float *v = check_floats((int64_t)n_m * HEADS * D, 3);
    float *o = check_floats((int64_t)S * HEADS * D, 4), *got = check_alloc(ROWS * D * sizeof *got);
    double *want = check_doubles(ROWS * D);
    int64_t row[ROWS];
    uint64_t draw = 5;
    for (int r = 0; r < ROWS; r++) {
        row[r] = r == 0 ? (int64_t)S * HEADS - 1 : (int64_t)(check_next(&draw) % (S * HEADS));
        attend(want + r * D, row[r] / HEADS, row[r] % HEADS, q, k, v, n_keys, (double)scale,
               (double)last_bias);
    }
    CHECK_OP(call_attention, &scale, OUT_ACT(o, S, HEADS, D), IN_ACT(q, S, HEADS, D),
             IN_ACT(k, n_m, HEADS, D), IN_ACT(v, n_m, HEADS, D), IN_I32(&n_keys, 1),
             last_bias != 0 ? IN(&last_bias, 1) : NONE);
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < D; i++) got[r * D + i] = o[row[r] * D + i];
    check_close(got, want, ROWS * D, check_type() == DTYPE_F32 ? 1e-5 : 8e-3);
}

static void test_full_self_attention(void **state)
{
    NEEDS_GPU;
    one_attention(KEYS, KEYS, 0);
    one_attention(KEYS, S, 0); /* the first block */
}

static void test_full_cross_attention(void **state)
{
    NEEDS_GPU;
    one_attention(512, 13, 6.2126f); /* a short prompt, 499 padding keys as one */
    one_attention(512, 512, 0);
}

/* --- VAE -------------------------------------------------------------------------------------- */

struct shape {
    int32_t n_t, n_y, n_x, n_c, n_o, n_kt;
    bool doubles; /* rows and columns first */
};

static err_t call_conv(struct dev *d, const struct tensor *t, const void *p)
{
    const struct shape *h = p;
    return h->doubles ? ops_upsample_conv(d, t[0], t[1], t[3], t[4])
                      : ops_conv3d(d, t[0], t[1], t[2], t[3], t[4], TENSOR_NONE);
}

static double conv_at(const struct shape *h, int64_t at, const float *x, const float *past,
                      const float *w, const float *b)
{
    const int32_t up = h->doubles ? 2 : 1, n_y = h->n_y * up, n_x = h->n_x * up;
    const int32_t o = (int32_t)(at % h->n_o), xx = (int32_t)(at / h->n_o % n_x);
    const int32_t y = (int32_t)(at / h->n_o / n_x % n_y), t = (int32_t)(at / h->n_o / n_x / n_y);
    double sum = (double)b[o];
    for (int32_t i = 0; i < h->n_kt * 9; i++) {
        const int32_t f = t + i / 9 - (h->n_kt - 1), sy = y + i / 3 % 3 - 1, sx = xx + i % 3 - 1;
        if (sy < 0 || sy >= n_y || sx < 0 || sx >= n_x) continue;
        const float *frames = f < 0 ? past : x;
        const int64_t from =
            ((int64_t)(f < 0 ? f + h->n_kt - 1 : f) * h->n_y + sy / up) * h->n_x + sx / up;
        for (int32_t c = 0; c < h->n_c; c++)
            sum += (double)w[((int64_t)o * h->n_kt * 9 + i) * h->n_c + c] *
                   (double)frames[from * h->n_c + c];
    }
    return sum;
}

static void one_conv(struct shape h)
{
    const int32_t up = h.doubles ? 2 : 1, n_past = h.n_kt - 1;
    const int64_t n_in = (int64_t)h.n_y * h.n_x * h.n_c;
    const int64_t n = (int64_t)h.n_t * h.n_y * up * h.n_x * up * h.n_o;
    const float scale = 1 / sqrtf((float)(9 * h.n_kt * h.n_c));
    float *x = check_floats(h.n_t * n_in, 1), *past = check_floats(n_past * n_in, 2);
    float *w = check_floats_in((int64_t)h.n_o * h.n_kt * 9 * h.n_c, 3, -scale, scale);
    float *b = check_floats(h.n_o, 4), *y = check_floats(n, 5);
    float *got = check_alloc(PLACES * sizeof *got);
    double *want = check_doubles(PLACES);
    int64_t at[PLACES];
    uint64_t draw = 7;
    for (int i = 0; i < PLACES; i++) {
        at[i] = i == 0 ? n - 1 : (int64_t)(check_next(&draw) % (uint64_t)n);
        want[i] = conv_at(&h, at[i], x, past, w, b);
    }
    CHECK_OP(call_conv, &h, OUT_ACT(y, h.n_t, h.n_y * up, h.n_x * up, h.n_o),
             IN_ACT(x, h.n_t, h.n_y, h.n_x, h.n_c),
             n_past ? IN_ACT(past, n_past, h.n_y, h.n_x, h.n_c) : NONE,
             IN_ACT(w, h.n_o, h.n_kt, 3, 3, h.n_c), IN(b, h.n_o));
    for (int i = 0; i < PLACES; i++) got[i] = y[at[i]];
    check_close(got, want, PLACES, 1e-6);
}

static void test_full_conv(void **state)
{
    NEEDS_GPU;
    one_conv((struct shape){1, 60, 104, 384, 384, 3, false});
    one_conv((struct shape){1, 120, 208, 384, 384, 3, false});
    one_conv((struct shape){1, 240, 416, 192, 192, 3, false});
    one_conv((struct shape){2, 120, 208, 384, 384, 3, false}); /* whole tiles, then cut ones */
    one_conv((struct shape){1, 480, 832, 96, 96, 3, false});
    one_conv((struct shape){2, 480, 832, 96, 3, 3, false});
}

static err_t call_conv_norm(struct dev *d, const struct tensor *t, const void *is_apart)
{
    if (!*(const int *)is_apart)
        return ops_conv3d_norm(d, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]);
    const err_t e = ops_conv3d(d, t[7], t[1], t[2], t[3], t[4], t[5]);
    return e != OK ? e : ops_l2_norm(d, t[0], t[7], t[6], 1);
}

/* The first convolution of a residual block or the second, with its norm in one op and in two: the
 * same bits, at every place. */
static void one_conv_norm(int32_t n_y, int32_t n_x, int32_t n_c, bool is_second)
{
    const int64_t n = (int64_t)n_y * n_x * n_c;
    const float scale = 1 / sqrtf((float)(27 * n_c));
    float *x = check_floats(n, 1), *past = check_floats(2 * n, 2), *b = check_floats(n_c, 4);
    float *w = check_floats_in((int64_t)n_c * 27 * n_c, 3, -scale, scale);
    float *add = check_floats(n, 5), *g = check_floats(n_c, 6), *y[2], *h[2];
    for (int apart = 0; apart < 2; apart++) {
        y[apart] = check_alloc((size_t)n * sizeof **y);
        h[apart] = check_alloc((size_t)n * sizeof **h);
        CHECK_OP(call_conv_norm, &apart, OUT_ACT(h[apart], 1, n_y, n_x, n_c),
                 IN_ACT(x, 1, n_y, n_x, n_c), IN_ACT(past, 2, n_y, n_x, n_c),
                 IN_ACT(w, n_c, 3, 3, 3, n_c), IN(b, n_c),
                 is_second ? IN_ACT(add, 1, n_y, n_x, n_c) : NONE, IN(g, n_c),
                 is_second || apart ? OUT_ACT(y[apart], 1, n_y, n_x, n_c) : NONE);
    }
    assert_memory_equal(h[0], h[1], (size_t)n * sizeof **h);
    if (is_second) assert_memory_equal(y[0], y[1], (size_t)n * sizeof **y);
}

static void test_full_conv_norm(void **state)
{
    NEEDS_GPU;
    one_conv_norm(240, 416, 192, false);
    one_conv_norm(480, 832, 96, true);
}

static void test_full_upsample(void **state)
{
    NEEDS_GPU;
    one_conv((struct shape){1, 60, 104, 384, 192, 1, true});
    one_conv((struct shape){1, 240, 416, 192, 96, 1, true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_full_qkv),
        TEST(test_full_ffn),
        TEST(test_full_add_norm),
        TEST(test_full_self_attention),
        TEST(test_full_cross_attention),
        TEST(test_full_conv),
        TEST(test_full_conv_norm),
        TEST(test_full_upsample),
    };
    return cmocka_run_group_tests_name("full_size", tests, NULL, NULL);
}
