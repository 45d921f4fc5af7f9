/* test_latent.c - patches, the sampler's two steps, noise, and the VAE's first step. */
#include <math.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/golden.h"

static err_t call_patchify(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_patchify(d, t[0], t[1]);
}

static err_t call_unpatchify(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_unpatchify(d, t[0], t[1]);
}

struct step {
    float sigma;
    int in_place;
};

static err_t call_flow(struct dev *d, const struct tensor *t, const void *p)
{
    const struct step *s = p;
    return ops_flow_to_x0(d, t[0], s->in_place ? t[0] : t[1], t[2], s->sigma);
}

static err_t call_renoise(struct dev *d, const struct tensor *t, const void *p)
{
    const struct step *s = p;
    return ops_renoise(d, t[0], s->in_place ? t[0] : t[1], t[2], s->sigma);
}

struct normal {
    float mean, std;
};

static err_t call_randn(struct dev *d, const struct tensor *t, const void *p)
{
    const struct normal *n = p;
    return ops_randn(d, t[0], t[1], n->mean, n->std);
}

static err_t call_denorm(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_denorm(d, t[0], t[1], t[2], t[3]);
}

static const int32_t shapes[][4] = {{1, 1, 2, 2}, {3, 5, 4, 6}, {2, 16, 10, 14}};

static void test_patchify(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const int32_t n_f = shapes[i][0], n_c = shapes[i][1], n_y = shapes[i][2];
        const int32_t n_x = shapes[i][3], n_s = n_f * n_y / 2 * n_x / 2, n = n_s * n_c * 4;
        float *x = check_floats(n, 1), *y = check_floats(n, 2);
        CHECK_OP(call_patchify, NULL, OUT_ACT(y, n_s, n_c * 4), IN(x, n_f, n_c, n_y, n_x));
        for (int32_t at = 0; at < n; at++) {
            const int32_t s = at / (n_c * 4), c = at % (n_c * 4) / 4, q = at % 4 / 2, r = at % 2;
            const int32_t w = s % (n_x / 2), h = s / (n_x / 2) % (n_y / 2);
            const int32_t f = s / (n_x / 2) / (n_y / 2);
            assert_true(y[at] == x[((f * n_c + c) * n_y + 2 * h + q) * n_x + 2 * w + r]);
        }
    }
}

static void test_unpatchify(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const int32_t n_f = shapes[i][0], n_c = shapes[i][1], n_y = shapes[i][2];
        const int32_t n_x = shapes[i][3], n_s = n_f * n_y / 2 * n_x / 2, n = n_s * n_c * 4;
        float *x = check_floats(n, 1), *y = check_floats(n, 2);
        CHECK_OP(call_unpatchify, NULL, OUT(y, n_f, n_c, n_y, n_x), IN(x, n_s, n_c * 4));
        for (int32_t at = 0; at < n; at++) {
            const int32_t s = at / (n_c * 4), q = at % (n_c * 4) / (2 * n_c);
            const int32_t r = at / n_c % 2, c = at % n_c;
            const int32_t w = s % (n_x / 2), h = s / (n_x / 2) % (n_y / 2);
            const int32_t f = s / (n_x / 2) / (n_y / 2);
            assert_true(y[((f * n_c + c) * n_y + 2 * h + q) * n_x + 2 * w + r] == x[at]);
        }
    }
}

static const int32_t lengths[] = {1, 7, 33, 5001};
static const float sigmas[] = {1.0f, 0.9375f, 0.1234567f, 0.0f};

/* To the bit: the formula of the contract, evaluated as it says. */
static void test_flow_to_x0(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lengths) * COUNT(sigmas) * 2; i++) {
        const int32_t n = lengths[i / 2 / COUNT(sigmas)];
        const struct step s = {sigmas[i / 2 % COUNT(sigmas)], i % 2};
        float *x = check_floats(n, 1), *flow = check_floats(n, 2), *y = check_floats(n, 1);
        CHECK_OP(call_flow, &s, s.in_place ? BOTH(y, n) : OUT(y, n), s.in_place ? NONE : IN(x, n),
                 IN(flow, n));
        for (int32_t j = 0; j < n; j++)
            assert_true(y[j] == (float)((double)x[j] - (double)s.sigma * (double)flow[j]));
    }
}

static void test_renoise(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lengths) * COUNT(sigmas) * 2; i++) {
        const int32_t n = lengths[i / 2 / COUNT(sigmas)];
        const struct step s = {sigmas[i / 2 % COUNT(sigmas)], i % 2};
        float *x = check_floats(n, 1), *noise = check_floats(n, 2), *y = check_floats(n, 1);
        CHECK_OP(call_renoise, &s, s.in_place ? BOTH(y, n) : OUT(y, n),
                 s.in_place ? NONE : IN(x, n), IN(noise, n));
        for (int32_t j = 0; j < n; j++) {
            const volatile float a = (1.0f - s.sigma) * x[j], b = s.sigma * noise[j];
            assert_true(y[j] == a + b);
        }
    }
}

/* LongLive's own x0 and re-noising in bf16, on dumped inputs, at each of its noise levels. */
static void test_bf16_to_the_bit(void **state)
{
    enum { N = 3 * 4 * 16 * 16, STEPS = 4 };
    static const float sigma[STEPS] = {1.0f, 0.9375f, 0.833333313465118408f, 0.625f};
    struct golden g;
    struct dev *d = NULL;
    void *memory = NULL;
    (void)state;
    golden_open(&g, "sampler");
    const float *x = golden_floats(&g, "x", N), *flow = golden_floats(&g, "flow", N);
    const float *eps = golden_floats(&g, "eps", N), *x0 = golden_floats(&g, "x0", STEPS * N);
    const float *noised = golden_floats(&g, "noised", (STEPS - 1) * N);
    float *got = check_alloc(N * sizeof *got);
    assert_ok(dev_open(&d, "cpu", 2));
    assert_ok(ops_open(d));
    ops_set_bf16(d, true);
    assert_ok(dev_alloc(d, 3 * N * sizeof(float), &memory));
    const struct tensor all = TENSOR(memory, DTYPE_F32, 3, N);
    const struct tensor y = tensor_rows(all, 0, 1), a = tensor_rows(all, 1, 1);
    const struct tensor b = tensor_rows(all, 2, 1);
    for (int32_t i = 0; i < 2 * STEPS - 1; i++) {
        const bool is_x0 = i < STEPS;
        assert_ok(dev_upload(d, a.data, x, N * sizeof *x));
        assert_ok(dev_upload(d, b.data, is_x0 ? flow : eps, N * sizeof *x));
        if (is_x0) assert_ok(ops_flow_to_x0(d, y, a, b, sigma[i]));
        else assert_ok(ops_renoise(d, y, a, b, sigma[i - STEPS + 1]));
        assert_ok(dev_download(d, got, y.data, N * sizeof *got));
        assert_ok(dev_sync(d));
        assert_memory_equal(got, is_x0 ? x0 + i * N : noised + (i - STEPS) * N, N * sizeof *got);
    }
    dev_free(d, &memory);
    ops_close(d);
    dev_close(&d);
    golden_close(&g);
}

/* Each element is what rng.h says alone, across the chunks and the blocks of four. */
static void test_randn(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 3, 4, 5, 4095, 4097, 20002};
    static const struct normal forms[] = {{0, 1}, {0.5f, 0.02f}};
    uint64_t key[] = {42, 0x123456789ABCDEFu};
    const struct rng_key k = {key[0], key[1]};
    for (size_t i = 0; i < COUNT(sizes) * COUNT(forms); i++) {
        const int32_t n = sizes[i / COUNT(forms)];
        const struct normal form = forms[i % COUNT(forms)];
        float *y = check_floats(n, 1);
        CHECK_OP(call_randn, &form, OUT(y, n), IN_U64(key, 2));
        for (int32_t j = 0; j < n; j++) {
            const volatile float part = form.std * rng_normal(k, (uint64_t)j);
            assert_true(y[j] == form.mean + part);
        }
    }
}

static void test_denorm(void **state)
{
    (void)state;
    static const int32_t sizes[][3] = {{1, 1, 1}, {3, 5, 16}, {12, 22, 7}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const int32_t n_y = sizes[i][0], n_x = sizes[i][1], n_c = sizes[i][2], n = n_y * n_x * n_c;
        float *x = check_floats(n, 1), *y = check_floats(n, 2), *mean = check_floats(n_c, 3);
        float *inv_std = check_floats_in(n_c, 4, 0.3f, 3.0f);
        double *want = check_doubles(n);
        for (int32_t at = 0; at < n; at++) {
            const int32_t c = at % n_c;
            want[at] = (double)x[c * n_y * n_x + at / n_c] / (double)inv_std[c] + (double)mean[c];
        }
        CHECK_OP(call_denorm, NULL, OUT_ACT(y, n_y, n_x, n_c), IN(x, n_c, n_y, n_x),
                 IN(inv_std, n_c), IN(mean, n_c));
        check_close(y, want, n, 2e-7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_patchify), TEST(test_unpatchify), TEST(test_flow_to_x0),      TEST(test_renoise),
        TEST(test_randn),    TEST(test_denorm),     TEST(test_bf16_to_the_bit),
    };
    return cmocka_run_group_tests_name("latent", tests, NULL, NULL);
}
