/* test_attn.c - attention against softmax in f64. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"

static err_t call(struct dev *d, const struct tensor *t, const void *p)
{
    return ops_attention(d, t[0], t[1], t[2], t[3], t[4], t[5], *(const float *)p);
}

static err_t call_t5(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_attention_t5(d, t[0], t[1], t[2], t[3], t[4]);
}

struct shape {
    int32_t n_s, n_m, n_heads, n_d;
};

/* The bucket of T5, from its thresholds and not from a logarithm (B = 32). */
static int32_t bucket32(int32_t delta)
{
    static const int32_t thresholds[] = {8, 12, 16, 23, 32, 46, 64, 91};
    const int32_t distance = delta < 0 ? -delta : delta;
    int32_t at = distance < 8 ? distance : 7;
    for (size_t i = 0; i < COUNT(thresholds); i++) at += distance >= thresholds[i];
    return at + (delta > 0 ? 16 : 0);
}

/* table: [32, N], or NULL. */
static double *oracle(struct shape h, const float *q, const float *k, const float *v,
                      int32_t n_keys, double last_bias, double scale, const float *table)
{
    const int64_t n_c = (int64_t)h.n_heads * h.n_d;
    double *o = check_doubles(h.n_s * n_c), *p = check_doubles(n_keys);
    for (int32_t s = 0; s < h.n_s; s++) {
        for (int32_t n = 0; n < h.n_heads; n++) {
            double top = -INFINITY, sum = 0;
            const int64_t first = (int64_t)n * h.n_d;
            for (int32_t m = 0; m < n_keys; m++) {
                double dot = 0;
                for (int32_t i = 0; i < h.n_d; i++)
                    dot += (double)q[s * n_c + first + i] * (double)k[m * n_c + first + i];
                p[m] = scale * dot + (m == n_keys - 1 ? last_bias : 0);
                if (table) p[m] += (double)table[bucket32(m - s) * h.n_heads + n];
                top = fmax(top, p[m]);
            }
            for (int32_t m = 0; m < n_keys; m++) sum += p[m] = exp(p[m] - top);
            for (int32_t m = 0; m < n_keys; m++)
                for (int32_t i = 0; i < h.n_d; i++)
                    o[s * n_c + first + i] += p[m] / sum * (double)v[m * n_c + first + i];
        }
    }
    return o;
}

/* n_keys 0: absent. The keys beyond n_keys are NaN: they must not be looked at. */
static void one(struct shape h, int32_t n_keys, float last_bias, float scale)
{
    const int64_t n_c = (int64_t)h.n_heads * h.n_d, n = h.n_s * n_c, n_kv = h.n_m * n_c;
    float *q = check_floats_in(n, 1, -2, 2), *k = check_floats_in(n_kv, 2, -2, 2);
    float *v = check_floats(n_kv, 3), *o = check_floats(n, 4);
    const int32_t used = n_keys ? n_keys : h.n_m;
    for (int64_t i = used * n_c; i < n_kv; i++) k[i] = v[i] = NAN;
    const double *want = oracle(h, q, k, v, used, (double)last_bias, (double)scale, NULL);
    CHECK_OP(call, &scale, OUT_ACT(o, h.n_s, h.n_heads, h.n_d), IN_ACT(q, h.n_s, h.n_heads, h.n_d),
             IN_ACT(k, h.n_m, h.n_heads, h.n_d), IN_ACT(v, h.n_m, h.n_heads, h.n_d),
             n_keys ? IN_I32(&n_keys, 1) : NONE, last_bias != 0 ? IN(&last_bias, 1) : NONE);
    check_close(o, want, n, 2e-6);
}

/* The last one is the largest window: its chunk of queries is bounded by the scratch. */
static const struct shape shapes[] = {
    {1, 1, 1, 1},    {1, 37, 3, 5},     {5, 1, 2, 16},     {128, 64, 2, 8},
    {129, 65, 1, 9}, {72, 288, 2, 128}, {300, 301, 3, 20}, {70, 20000, 1, 8},
};

static void test_attention(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const struct shape h = shapes[i];
        one(h, 0, 0.0f, 1.0f / sqrtf((float)h.n_d));
        one(h, (h.n_m + 1) / 2, 0.0f, 0.3f);
        one(h, h.n_m > 1 ? h.n_m - 1 : 1, 1.5f, 0.3f);
    }
}

/* One key with bias ln(c) stands for c equal keys. */
static void test_last_bias_counts_keys(void **state)
{
    (void)state;
    enum { S = 4, D = 8, M = 6, SAME = 200, ALL = M - 1 + SAME };
    float q[S * D], k[ALL * D], v[ALL * D], few[S * D], many[S * D];
    const float scale = 0.5f;
    float bias = logf(SAME);
    memcpy(q, check_floats(S * D, 1), sizeof q);
    memcpy(k, check_floats(ALL * D, 2), sizeof k);
    memcpy(v, check_floats(ALL * D, 3), sizeof v);
    for (int m = M; m < ALL; m++) {
        memcpy(k + m * D, k + (M - 1) * D, D * sizeof *k);
        memcpy(v + m * D, v + (M - 1) * D, D * sizeof *v);
    }
    CHECK_OP(call, &scale, OUT(many, S, 1, D), IN(q, S, 1, D), IN(k, ALL, 1, D), IN(v, ALL, 1, D),
             NONE, NONE);
    CHECK_OP(call, &scale, OUT(few, S, 1, D), IN(q, S, 1, D), IN(k, M, 1, D), IN(v, M, 1, D), NONE,
             IN(&bias, 1));
    for (int i = 0; i < S * D; i++) assert_true(fabsf(few[i] - many[i]) < 1e-5f);
}

/* Logits of +-20000 neither overflow nor lose the winner. */
static void test_large_logits(void **state)
{
    (void)state;
    const float scale = 1000.0f;
    float q[] = {20.0f}, k[] = {-1.0f, 1.0f, 0.5f}, v[] = {3.0f, 5.0f, 7.0f}, o[1];
    CHECK_OP(call, &scale, OUT(o, 1, 1, 1), IN(q, 1, 1, 1), IN(k, 3, 1, 1), IN(v, 3, 1, 1), NONE,
             NONE);
    assert_true(o[0] == 5.0f);
}

static void test_n_keys_out_of_range(void **state)
{
    (void)state;
    const float scale = 1.0f;
    float *x = check_floats(12, 1), *o = check_floats(4, 2);
    int32_t bad[] = {0, -1, 4};
    if (check_on_gpu()) skip(); /* it is read there, where nobody looks */
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK_REFUSED(ERR_SHAPE, call, &scale, OUT(o, 1, 1, 4), IN(x, 1, 1, 4), IN(x, 3, 1, 4),
                      IN(x, 3, 1, 4), IN_I32(&bad[i], 1), NONE);
}

static void test_attention_t5(void **state)
{
    (void)state;
    static const struct shape t5[] = {
        {1, 1, 1, 4},    {9, 9, 2, 5},    {140, 140, 3, 16}, {300, 300, 2, 8},  {1, 1, 2, 64},
        {16, 16, 3, 64}, {64, 64, 2, 64}, {77, 77, 3, 64},   {450, 450, 2, 64}, {512, 512, 1, 64}};
    for (size_t i = 0; i < COUNT(t5); i++) {
        const struct shape h = t5[i];
        const int64_t n = (int64_t)h.n_s * h.n_heads * h.n_d;
        float *q = check_floats(n, 1), *k = check_floats(n, 2), *v = check_floats(n, 3);
        float *o = check_floats(n, 4), *table = check_floats_in(32 * h.n_heads, 5, -3, 3);
        const double *want = oracle(h, q, k, v, h.n_s, 0, 1, table);
        CHECK_OP(call_t5, NULL, OUT_ACT(o, h.n_s, h.n_heads, h.n_d),
                 IN_ACT(q, h.n_s, h.n_heads, h.n_d), IN_ACT(k, h.n_s, h.n_heads, h.n_d),
                 IN_ACT(v, h.n_s, h.n_heads, h.n_d), IN(table, 32, h.n_heads));
        check_close(o, want, n, 2e-6);
    }
}

/* With equal logits, o is the mean of v weighed by e^bias. v picks one key and the table is 0 but
 * for one bucket, so the bucket of a distance can be read from the output: here each threshold
 * and the distance before it, of queries after the key and before it. */
static void thresholds(int32_t n_d, int32_t key, int32_t first_bucket)
{
    enum { S = 128 };
    static const int32_t threshold[] = {8, 12, 16, 23, 32, 46, 64, 91};
    const int64_t n = (int64_t)S * n_d;
    float *zero = check_floats_in(n, 1, 0, 0), *o = check_floats(n, 2);
    for (int i = 0; i < 8; i++) {
        float *table = check_floats_in(32, 3, 0, 0), *v = check_floats_in(n, 4, 0, 0);
        table[first_bucket + i] = 50.0f;
        for (int32_t c = 0; c < n_d; c++) v[key * n_d + c] = 1.0f;
        CHECK_OP(call_t5, NULL, OUT_ACT(o, S, 1, n_d), IN_ACT(zero, S, 1, n_d),
                 IN_ACT(zero, S, 1, n_d), IN_ACT(v, S, 1, n_d), IN(table, 32, 1));
        for (int32_t s = 0; s < S; s++) {
            const int32_t end = i < 7 ? threshold[i + 1] : S, distance = abs(s - key);
            const int is_in = distance >= threshold[i] && distance < end;
            for (int32_t c = 0; c < n_d; c++) {
                const float x = o[s * n_d + c];
                assert_true(is_in ? x > 0.9f / (float)(distance - threshold[i] + 1) : x < 0.01f);
            }
        }
    }
}

static void test_t5_thresholds(void **state)
{
    (void)state;
    thresholds(1, 0, 8);
    thresholds(1, 127, 24);
    thresholds(64, 0, 8);
    thresholds(64, 127, 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_attention),           TEST(test_last_bias_counts_keys), TEST(test_large_logits),
        TEST(test_n_keys_out_of_range), TEST(test_attention_t5),          TEST(test_t5_thresholds),
    };
    return cmocka_run_group_tests_name("attn", tests, NULL, NULL);
}
