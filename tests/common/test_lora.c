/* test_lora.c - W + alpha / rank * B A against f64, in whatever pieces; pairs that do not fit. */
#include "tests/check.h"

#include <math.h>

#include "tests/scratch.h"

#include "common/safetensors.h"

static const char *const versions[] = {"torch-1.6", "torch-1.13", "torch-2.1", "torch-2.8"};

static const char *golden(const char *version, const char *name)
{
    static char path[2][160];
    static int at;
    at = !at;
    snprintf(path[at], sizeof path[at], "tests/golden/checkpoints/%s/%s", version, name);
    return path[at];
}

static double pattern(int64_t i, int key)
{
    return (double)((i * 7 + key * 3) % 31 - 15) / 8;
}

/* blocks.B.q.weight [4, 3] of model.pt, merged: sums of eighths, exact in f32. */
static double merged(int b, int64_t row, int64_t col, double scale)
{
    double sum = 0;
    for (int k = 0; k < 2; k++) sum += pattern(row * 2 + k, 30 + b) * pattern(k * 3 + col, 20 + b);
    return pattern(row * 3 + col, 10 + 4 * b) + scale * sum;
}

static void test_merges(void **state)
{
    (void)state;
    static const struct {
        int32_t alpha;
        double scale;
    } cases[] = {{0, 1}, {2, 1}, {1, 0.5}, {8, 4}};
    for (size_t v = 0; v < COUNT(versions); v++)
        for (size_t i = 0; i < COUNT(cases); i++) {
            struct checkpoint *c = NULL;
            struct lora *l = NULL;
            float w[12], other;
            assert_ok(checkpoint_open(&c, golden(versions[v], "model.pt")));
            assert_ok(checkpoint_clean(c));
            assert_ok(lora_open(&l, golden(versions[v], "lora.pt"), cases[i].alpha));
            assert_int_equal(lora_count(l), 2);
            for (int b = 0; b < 2; b++) {
                const char *name = lora_target(l, b);
                assert_string_equal(name, b ? "blocks.1.q.weight" : "blocks.0.q.weight");
                const struct ckpt_tensor *t = checkpoint_find(c, name);
                assert_ok(lora_check(l, t));
                assert_ok(checkpoint_read(c, t, 0, 12, w));
                assert_ok(lora_add(l, t, 0, 1, w)); /* in pieces, and out of order */
                assert_ok(lora_add(l, t, 2, 2, w + 6));
                assert_ok(lora_add(l, t, 1, 1, w + 3));
                for (int k = 0; k < 12; k++)
                    assert_true((double)w[k] == merged(b, k / 3, k % 3, cases[i].scale));
            }
            const struct ckpt_tensor *norm = checkpoint_find(c, "blocks.0.norm.weight");
            other = 7;
            assert_ok(lora_check(l, norm));
            assert_ok(lora_add(l, norm, 0, 1, &other));
            assert_true(other == 7);
            lora_close(&l);
            checkpoint_close(&c);
        }
}

/* convert --lora: targets merged, the rest copied. */
static void test_written_merged(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    struct lora *l = NULL;
    float w[12];
    const char *path = scratch_path("merged.safetensors");
    assert_ok(checkpoint_open(&c, golden("torch-2.1", "model.pt")));
    assert_ok(checkpoint_clean(c));
    assert_ok(lora_open(&l, golden("torch-2.1", "lora.pt"), 8));
    assert_ok(safetensors_write(path, c, l));
    checkpoint_close(&c);
    lora_close(&l);
    assert_ok(checkpoint_open(&c, path));
    assert_ok(checkpoint_read(c, checkpoint_find(c, "blocks.1.q.weight"), 0, 12, w));
    for (int k = 0; k < 12; k++) assert_true((double)w[k] == merged(1, k / 3, k % 3, 4));
    assert_ok(checkpoint_read(c, checkpoint_find(c, "blocks.1.q.bias"), 0, 4, w));
    for (int k = 0; k < 4; k++) assert_true((double)w[k] == pattern(k, 15));
    checkpoint_close(&c);
}

static const char *two(const char *name, const char *a, const char *a_shape, const char *b,
                       const char *b_shape)
{
    char data[512] = {0};
    const int n = snprintf(data + 8, sizeof data - 8,
                           "{\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,24]},"
                           "\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[24,48]}}",
                           a, a_shape, b, b_shape);
    const uint64_t n_header = (uint64_t)n;
    memcpy(data, &n_header, 8);
    return scratch_put_bytes(name, data, 8 + (size_t)n + 48);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *a, *a_shape, *b, *b_shape, *words;
    } cases[] = {
        {"x.lora_A.weight", "[2,3]", "x.lora_B.weight", "[2,3]", "differ"},
        {"x.lora_A.weight", "[2,3]", "y.lora_B.weight", "[3,2]", "x.weight: lora_A [rank"},
        {"x.lora_A.weight", "[2,3]", "x.lora_A.default.weight", "[2,3]", "two adapters"},
        {"x.lora_A.weight", "[6]", "x.lora_B.weight", "[3,2]", "no LoRA matrix"},
        {"x.lora_C.weight", "[2,3]", "x.lora_B.weight", "[3,2]", "no LoRA matrix"},
        {".lora_A.weight", "[2,3]", "x.lora_B.weight", "[3,2]", "no LoRA matrix"},
        {"x.lora_A.a.b.weight", "[2,3]", "x.lora_B.weight", "[3,2]", "no LoRA matrix"},
        {"x.lora_A.bias", "[2,3]", "x.lora_B.weight", "[3,2]", "no LoRA matrix"},
    };
    struct lora *l = NULL;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *path =
            two("l.safetensors", cases[i].a, cases[i].a_shape, cases[i].b, cases[i].b_shape);
        want_fails(lora_open(&l, path, 0), ERR_DATA, cases[i].words);
        assert_null(l);
    }
    assert_ok(lora_open(&l,
                        two("l.safetensors", "base_model.model.model.x.lora_A.default.weight",
                            "[2,3]", "base_model.model.model.x.lora_B.default.weight", "[3,2]"),
                        4));
    assert_string_equal(lora_target(l, 0), "x.weight");
    struct ckpt_tensor t = {.name = "x.weight", .rank = 2, .shape = {3, 4}, .dtype = CKPT_F32};
    want_fails(lora_check(l, &t), ERR_DATA, "the LoRA of x.weight is [3, 3]");
    float w[12];
    assert_int_equal(lora_add(l, &t, 0, 3, w), ERR_DATA);
    uint8_t id[CKPT_ID_BYTES], other[CKPT_ID_BYTES];
    lora_identity(l, id);
    lora_close(&l);
    assert_ok(lora_open(&l, scratch_path("l.safetensors"), 5)); /* another alpha */
    lora_identity(l, other);
    assert_memory_not_equal(id, other, sizeof id);
    lora_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_merges),
        TEST(test_written_merged),
        TEST(test_refusals),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
