/* test_golden_umt5.c - the encoder against LongLive's: prompts of several lengths, padded there. */
#include "procs/text/umt5.h"

#include "tests/golden.h"

static bool has_bits(const struct golden *g, const float *out, int64_t at, int64_t n, int64_t n_all)
{
    const float *want = golden_floats(g, "rounded", n_all) + at;
    return memcmp(out, want, (size_t)n * sizeof *out) == 0;
}

/* In reference parity the whole encoder makes the reference's own bits, until somewhere a sum in
 * another order is rounded to the other side: then what follows differs, too. Half of the prompts
 * must have come through; with a rounding left out, none of more than one token does. */
static void check_parity(const char *file, const char *config, const char *parity,
                         const char *text_len)
{
    struct golden g;
    struct golden_box b;
    struct umt5 *u = NULL;
    char name[32];
    const char *const sets[] = {parity, text_len};
    int64_t n_prompts, n_ids;
    int32_t n_same = 0;
    snprintf(name, sizeof name, "text-%s", file);
    golden_open(&g, name);
    golden_box_open(&b, config, sets, text_len ? 2 : 1);
    assert_ok(umt5_open(&u, b.d, &b.c, b.w));
    golden_box_fill(&b, &g);

    const int32_t S = b.c.text.text_len, C = b.c.text.dim;
    const int32_t *n = golden_ints(&g, "n", &n_prompts), *ids = golden_ints(&g, "ids", &n_ids);
    const double *exact = golden_doubles(&g, "exact", n_prompts * S * C);
    struct golden_far far = golden_far_of(&g, &b, n_prompts);
    float *out = check_alloc((size_t)S * (size_t)C * sizeof *out);
    for (int32_t p = 0; p < n_prompts; p++) {
        assert_ok(umt5_encode(u, ids + p * S, n[p], out, NULL, NULL));
        golden_check(&far, out, exact + (int64_t)p * S * C, (int64_t)n[p] * C);
        n_same += has_bits(&g, out, (int64_t)p * S * C, (int64_t)n[p] * C, n_prompts * S * C);
        for (int64_t i = (int64_t)n[p] * C; i < (int64_t)S * C; i++)
            assert_true(exact[(int64_t)p * S * C + i] == 0); /* padding there, absent here */
    }
    golden_tell(&far, file);
    if (!far.is_clean)
        print_message("%s: %d of %d prompts to the bit\n", file, n_same, (int32_t)n_prompts);
    if (!far.is_clean) assert_true(2 * n_same >= n_prompts);
    umt5_close(&u);
    golden_box_close(&b);
    golden_close(&g);
}

static void check_config(const char *file, const char *config, const char *text_len)
{
    check_parity(file, config, GOLDEN_CLEAN, text_len);
    check_parity(file, config, GOLDEN_REFERENCE, text_len);
}

static void test_nano(void **state)
{
    (void)state;
    check_config("nano", "nano", NULL);
}

static void test_tiny(void **state)
{
    (void)state;
    check_config("tiny", "tiny", NULL);
}

/* 200 tokens: every bucket of the position bias. */
static void test_long(void **state)
{
    (void)state;
    check_config("long", "nano", "text.text_len=200");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_nano), TEST(test_tiny), TEST(test_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
