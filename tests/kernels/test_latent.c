/* test_latent.c - patches, the sampler's two steps, noise, and the VAE's first step. */
#include <math.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"

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
        TEST(test_patchify), TEST(test_unpatchify), TEST(test_flow_to_x0),
        TEST(test_renoise),  TEST(test_randn),      TEST(test_denorm),
    };
    return cmocka_run_group_tests_name("latent", tests, NULL, NULL);
}
