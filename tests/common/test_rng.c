/* test_rng.c - Philox against its published vectors, the polynomials against libm, the moments. */
#include <math.h>
#include <string.h>

#include "common/rng.h"
#include "tests/check.h"

/* Random123, kat_vectors: philox4x32 10 rounds. A counter's upper half is our stream. */
static void test_philox_known(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < COUNT(known); i++) {
        const uint32_t *c = known[i].counter, *k = known[i].key;
        const struct rng_key key = {.seed = k[0] | (uint64_t)k[1] << 32,
                                    .stream = c[2] | (uint64_t)c[3] << 32};
        const struct rng_words r = rng_philox(key, c[0] | (uint64_t)c[1] << 32);
        assert_memory_equal(r.w, known[i].want, sizeof r.w);
    }
}

/* All powers of two and their neighbours, then words at random. */
static uint32_t word_at(int64_t i, uint64_t *seed)
{
    if (i < 96) return (uint32_t)((1ull << (i / 3)) - 1 + (uint64_t)(i % 3));
    if (i < 1096) return UINT32_MAX - (uint32_t)(i - 96);
    return (uint32_t)check_next(seed);
}

static void test_log(void **state)
{
    (void)state;
    uint64_t seed = 1;
    double worst = 0, worst_relative = 0;
    for (int64_t i = 0; i < 3000000; i++) {
        const uint32_t w = word_at(i, &seed);
        const double want = log(((double)w + 1) * 0x1p-32), got = (double)rng_log_unit(w);
        worst = fmax(worst, fabs(got - want));
        if (want < -1e-3) worst_relative = fmax(worst_relative, fabs((got - want) / want));
        assert_true(got <= 0);
    }
    print_message("log: absolute %.3g, relative %.3g\n", worst, worst_relative);
    assert_true(worst < 2e-6);
    assert_true(rng_log_unit(UINT32_MAX) == 0.0f);
}

static void test_cos_sin(void **state)
{
    (void)state;
    uint64_t seed = 2;
    double worst = 0;
    for (int64_t i = 0; i < 3000000; i++) {
        const uint32_t w =
            i < 1000 ? (uint32_t)(i / 3 << 29) - 1 + (uint32_t)(i % 3) : word_at(i - 1000, &seed);
        const double angle = 2 * M_PI * (double)w * 0x1p-32;
        const struct rng_pair got = rng_cos_sin(w);
        worst = fmax(worst, fabs((double)got.a - cos(angle)));
        worst = fmax(worst, fabs((double)got.b - sin(angle)));
    }
    print_message("cos, sin: absolute %.3g\n", worst);
    assert_true(worst < 2e-7);
}

static void test_normal_against_libm(void **state)
{
    (void)state;
    const struct rng_key key = {.seed = 3, .stream = rng_stream("check")};
    for (uint64_t i = 0; i < 1000000; i++) {
        const struct rng_words r = rng_philox(key, i / 4);
        const uint32_t *w = r.w + i % 4 / 2 * 2;
        const double radius = sqrt(-2 * log(((double)w[0] + 1) * 0x1p-32));
        const double angle = 2 * M_PI * (double)w[1] * 0x1p-32;
        const double want = radius * (i % 2 ? sin(angle) : cos(angle));
        assert_true(fabs((double)rng_normal(key, i) - want) < 5e-5);
        if (radius > 0.1) assert_true(fabs((double)rng_normal(key, i) - want) < 3e-6);
    }
}

static void test_four_are_the_same(void **state)
{
    (void)state;
    const struct rng_key key = {.seed = 9, .stream = 10};
    for (uint64_t block = 0; block < 10000; block++) {
        const struct rng_four four = rng_normal4(key, block);
        for (uint64_t i = 0; i < 4; i++) {
            const float alone = rng_normal(key, 4 * block + i);
            assert_memory_equal(&alone, &four.z[i], sizeof alone);
        }
    }
}

/* Mean, variance, skew, kurtosis, neighbours' correlation: five standard errors. */
static void test_moments(void **state)
{
    (void)state;
    enum { N = 4000000 };
    const struct rng_key key = {.seed = 7, .stream = 8};
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, pair = 0, last = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double z = (double)rng_normal(key, i);
        m1 += z, m2 += z * z, m3 += z * z * z, m4 += z * z * z * z, pair += z * last;
        last = z;
    }
    const double root = sqrt(N);
    assert_true(fabs(m1 / N) < 5 / root);
    assert_true(fabs(m2 / N - 1) < 5 * sqrt(2) / root);
    assert_true(fabs(m3 / N) < 5 * sqrt(15) / root);
    assert_true(fabs(m4 / N - 3) < 5 * sqrt(96) / root);
    assert_true(fabs(pair / N) < 5 / root);
}

static void test_tails(void **state)
{
    (void)state;
    enum { N = 4000000 };
    const struct rng_key key = {.seed = 11, .stream = 12};
    int64_t beyond[2][5] = {{0}};
    for (uint64_t i = 0; i < N; i++) {
        const float z = rng_normal(key, i);
        for (int k = 0; k < 5; k++) beyond[z < 0][k] += fabsf(z) > (float)k;
    }
    for (int side = 0; side < 2; side++) {
        for (int k = 0; k < 5; k++) {
            const double want = N * 0.5 * erfc(k / sqrt(2));
            assert_true(fabs((double)beyond[side][k] - want) < 5 * sqrt(want) + 3);
        }
    }
}

/* Other seed, other stream, other place: other numbers. */
static void test_sequences_differ(void **state)
{
    (void)state;
    const struct rng_key keys[] = {{1, 1}, {2, 1}, {1, 2}, {1ull << 32, 1}, {1, 1ull << 32}};
    for (size_t i = 0; i < COUNT(keys); i++) {
        for (size_t j = 0; j < i; j++) {
            int n_same = 0;
            for (uint64_t at = 0; at < 1000; at++)
                n_same += rng_normal(keys[i], at) == rng_normal(keys[j], at);
            assert_true(n_same < 3);
        }
    }
    const struct rng_key far = {1, 1};
    assert_true(rng_normal(far, 5) != rng_normal(far, 5 + (1ull << 34)));
}

/* FNV-1a, 64 bits: the published values. */
static void test_stream_known(void **state)
{
    (void)state;
    assert_int_equal(rng_stream(""), 0xcbf29ce484222325u);
    assert_int_equal(rng_stream("a"), 0xaf63dc4c8601ec8cu);
    assert_int_equal(rng_stream("foobar"), 0x85944171f73967e8u);
}

/* These bits are part of the contract: a seed names a picture, on every device and release. */
static void test_golden_bits(void **state)
{
    (void)state;
    static const uint32_t want[] = {0x3ec7c17e, 0xba93f931, 0x3f3ae0ef, 0xbf38a232,
                                    0xbf1bf541, 0xbf5256ee, 0x3f30050d, 0xbd901b23};
    const struct rng_key key = {.seed = 42, .stream = rng_stream("noise")};
    for (uint64_t i = 0; i < COUNT(want); i++) {
        const float z = rng_normal(key, i);
        uint32_t bits;
        memcpy(&bits, &z, sizeof bits);
        if (bits != want[i]) print_error("%d: 0x%08x\n", (int)i, bits);
        assert_int_equal(bits, want[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_cos_sin),
        cmocka_unit_test(test_normal_against_libm),
        cmocka_unit_test(test_four_are_the_same),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_tails),
        cmocka_unit_test(test_sequences_differ),
        cmocka_unit_test(test_stream_known),
        cmocka_unit_test(test_golden_bits),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
