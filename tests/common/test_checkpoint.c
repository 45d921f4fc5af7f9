/* test_checkpoint.c - files written by torch.save of four versions and by safetensors
 * (tests/golden/checkpoints), read to the values that their maker's formula gives. */
#include "tests/check.h"

#include <math.h>

#include "tests/scratch.h"

#include "common/checkpoint.h"

static const char *const versions[] = {"torch-1.6", "torch-1.13", "torch-2.1", "torch-2.8"};

static const char *golden(const char *version, const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "tests/golden/checkpoints/%s/%s", version, name);
    return path;
}

static float pattern(int64_t i, int key)
{
    return (float)((i * 7 + key * 3) % 31 - 15) / 8;
}

static void check_values(struct checkpoint *c, const char *name, int key, int64_t first, int64_t n)
{
    float x[64];
    const struct ckpt_tensor *t = checkpoint_find(c, name);
    if (!t) fail_msg("%s: no %s", checkpoint_path(c), name);
    assert_int_equal(ckpt_count(t), n);
    assert_ok(checkpoint_read(c, t, 0, n, x));
    for (int64_t i = 0; i < n; i++) assert_true(x[i] == pattern(first + i, key));
    assert_ok(checkpoint_read(c, t, n - 1, 1, x)); /* a piece */
    assert_true(x[0] == pattern(first + n - 1, key));
}

static void check_shape(const struct checkpoint *c, const char *name, enum ckpt_dtype dtype,
                        const char *shape)
{
    char text[CKPT_RANK_MAX * 24];
    const struct ckpt_tensor *t = checkpoint_find(c, name);
    if (!t) fail_msg("%s: no %s", checkpoint_path(c), name);
    ckpt_shape_text(t->shape, t->rank, text, sizeof text);
    assert_string_equal(text, shape);
    assert_int_equal(t->dtype, dtype);
}

/* is_view: view.b is there, whose storage is view.a's. */
static void check_flat(const char *path, bool is_view)
{
    struct checkpoint *c = NULL;
    assert_ok(checkpoint_open(&c, path));
    check_shape(c, "f32", CKPT_F32, "[2, 3, 4]");
    check_values(c, "f32", 1, 0, 24);
    check_shape(c, "bf16", CKPT_BF16, "[5, 7]");
    check_values(c, "bf16", 2, 0, 35);
    check_values(c, "f16", 3, 0, 9);
    check_values(c, "f64", 4, 0, 3);
    check_shape(c, "scalar", CKPT_F32, "[]");
    check_values(c, "scalar", 5, 0, 1);
    check_shape(c, "empty", CKPT_F32, "[0, 4]");
    check_values(c, "view.a", 0, 8, 12);
    if (is_view) check_values(c, "view.b", 0, 20, 20);
    check_values(c, "parameter", 6, 0, 4);
    if (is_view) check_values(c, "nested.0.x", 7, 0, 2);
    if (is_view) check_values(c, "nested.1.0", 8, 0, 3);
    check_shape(c, "i64", CKPT_I64, "[2]");
    check_shape(c, "bool", CKPT_BOOL, "[2]");
    int64_t i64[2];
    uint8_t truth[2];
    float none;
    assert_ok(checkpoint_read_raw(c, checkpoint_find(c, "i64"), 0, 16, i64));
    assert_true(i64[0] == -1 && i64[1] == INT64_C(1) << 40);
    assert_ok(checkpoint_read_raw(c, checkpoint_find(c, "bool"), 0, 2, truth));
    assert_true(truth[0] == 1 && truth[1] == 0);
    want_fails(checkpoint_read(c, checkpoint_find(c, "i64"), 0, 1, &none), ERR_DATA,
               "i64 is I64, not");
    assert_int_equal(checkpoint_count(c), is_view ? 13 : 10);
    checkpoint_close(&c);
    assert_null(c);
}

static void test_every_dtype_of_every_version(void **state)
{
    (void)state;
    for (size_t v = 0; v < COUNT(versions); v++) {
        check_flat(golden(versions[v], "flat.pth"), true);
        check_flat(golden(versions[v], "protocol4.pt"), true);
    }
    check_flat(golden("torch-2.8", "flat.safetensors"), false);
}

static void check_model(struct checkpoint *c, int first)
{
    static const struct {
        const char *name;
        int64_t n;
    } of[] = {{"blocks.0.q.weight", 12},   {"blocks.0.q.bias", 4},    {"blocks.0.norm.weight", 4},
              {"blocks.0.norm.bias", 4},   {"blocks.1.q.weight", 12}, {"blocks.1.q.bias", 4},
              {"blocks.1.norm.weight", 4}, {"blocks.1.norm.bias", 4}};
    for (int i = 0; i < (int)COUNT(of); i++) check_values(c, of[i].name, first + i, 0, of[i].n);
    check_shape(c, "blocks.1.count", CKPT_I64, "[]");
    assert_int_equal(checkpoint_count(c), 10);
}

static void test_a_training_dump_is_its_generator(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    for (size_t v = 0; v < COUNT(versions); v++) {
        assert_ok(checkpoint_open(&c, golden(versions[v], "dump.pt")));
        assert_int_equal(checkpoint_count(c), 31);
        assert_non_null(checkpoint_find(c, "generator_optimizer.state.0.exp_avg"));
        assert_non_null(checkpoint_find(c, "generator.model._fsdp_wrapped_module.blocks.1."
                                           "_checkpoint_wrapped_module._orig_mod.q.bias"));
        assert_ok(checkpoint_clean(c));
        check_model(c, 10);
        checkpoint_close(&c);

        bool found = false; /* without generator, the next best */
        assert_ok(checkpoint_open(&c, golden(versions[v], "dump.pt")));
        assert_ok(checkpoint_select(c, "generator_ema.", &found));
        assert_true(found);
        assert_ok(checkpoint_clean(c));
        check_model(c, 50);
        checkpoint_close(&c);

        assert_ok(checkpoint_open(&c, golden(versions[v], "model.pt")));
        assert_ok(checkpoint_clean(c));
        check_model(c, 10);
        checkpoint_close(&c);

        assert_ok(checkpoint_open(&c, golden(versions[v], "parameters.pt")));
        assert_ok(checkpoint_clean(c));
        assert_int_equal(checkpoint_count(c), 10);
        check_shape(c, "blocks.0.q.weight", CKPT_F32, "[4, 3]");
        checkpoint_close(&c);
    }
}

static void test_what_is_refused(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    float x[12];
    for (size_t v = 0; v < COUNT(versions); v++) {
        want_fails(checkpoint_open(&c, golden(versions[v], "legacy.pt")), ERR_DATA, "before 1.6");
        want_fails(checkpoint_open(&c, golden(versions[v], "unknown.pt")), ERR_DATA,
                   "argparse.Namespace");
        assert_ok(checkpoint_open(&c, golden(versions[v], "strided.pt")));
        check_shape(c, "t", CKPT_F32, "[3, 4]");
        want_fails(checkpoint_read(c, checkpoint_find(c, "t"), 0, 12, x), ERR_DATA,
                   "t is not contiguous");
        check_values(c, "ok", 2, 0, 3);
        checkpoint_close(&c);
    }
    want_fails(checkpoint_open(&c, scratch_path("none.pt")), ERR_NOINPUT, "none.pt: No such");
    want_fails(checkpoint_open(&c, scratch_dir), ERR_NOINPUT, "no *.safetensors");
    want_fails(checkpoint_open(&c, "/dev/null"), ERR_NOINPUT, "not a regular file");
    want_fails(checkpoint_open(&c, scratch_put("empty", "")), ERR_DATA, "empty: neither");
    want_fails(checkpoint_open(&c, scratch_put("text", "once upon a time")), ERR_DATA, "neither");
    assert_null(c);
}

/* torch's own roundings of bit patterns from the whole range of f32. */
static void test_rounds_as_torch_does(void **state)
{
    (void)state;
    enum { N = 4500 };
    static float x[N], back[N];
    static uint16_t want[N], got[N];
    struct checkpoint *c = NULL;
    assert_ok(checkpoint_open(&c, golden("torch-2.8", "rounding.pt")));
    assert_ok(checkpoint_read(c, checkpoint_find(c, "x"), 0, N, x));
    for (enum ckpt_dtype t = CKPT_F16; t <= CKPT_BF16; t++) {
        const struct ckpt_tensor *of = checkpoint_find(c, t == CKPT_F16 ? "f16" : "bf16");
        assert_ok(checkpoint_read_raw(c, of, 0, sizeof want, want));
        ckpt_round(t, got, x, N);
        for (int i = 0; i < N; i++)
            if (got[i] != want[i]) fail_msg("%d: %a is %04x, not %04x", i, x[i], want[i], got[i]);
        /* Back is exact: rounding again gives the same bits. */
        assert_ok(checkpoint_read(c, of, 0, N, back));
        ckpt_round(t, got, back, N);
        assert_memory_equal(got, want, sizeof want);
        for (int i = 0; i < N; i++)
            if (isfinite(back[i]) && fabsf(x[i]) > 1e-4f)
                assert_true(fabsf(back[i] - x[i]) <= fabsf(x[i]) / (t == CKPT_F16 ? 2048 : 256));
    }
    checkpoint_close(&c);
    const float nan = NAN;
    uint16_t h;
    ckpt_round(CKPT_BF16, &h, &nan, 1);
    assert_true((h & 0x7FFF) > 0x7F80);
    ckpt_round(CKPT_F16, &h, &nan, 1);
    assert_true((h & 0x7FFF) > 0x7C00);
}

static const char *shard(const char *name, const char *tensor, float value)
{
    char data[256];
    const int n =
        snprintf(data + 8, sizeof data - 8,
                 "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", tensor);
    const uint64_t n_header = (uint64_t)n;
    memcpy(data, &n_header, 8);
    memcpy(data + 8 + n, &value, 4);
    return scratch_put_bytes(name, data, 8 + (size_t)n + 4);
}

static void test_a_folder_is_its_shards(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    uint8_t id[CKPT_ID_BYTES], other[CKPT_ID_BYTES];
    float x;
    unlink(scratch_path("empty"));
    unlink(scratch_path("text"));
    shard("model-00002.safetensors", "b", 2);
    shard("model-00001.safetensors", "a", 1);
    scratch_put("config.json", "{}");
    assert_ok(checkpoint_open(&c, scratch_dir));
    assert_int_equal(checkpoint_count(c), 2);
    assert_ok(checkpoint_read(c, checkpoint_find(c, "b"), 0, 1, &x));
    assert_true(x == 2);
    assert_string_equal(checkpoint_at(c, 0)->name, "a");
    checkpoint_identity(c, id);
    checkpoint_identity(c, other);
    assert_memory_equal(id, other, sizeof id);
    checkpoint_close(&c);

    shard("model-00002.safetensors", "c", 2); /* another header: another identity */
    assert_ok(checkpoint_open(&c, scratch_dir));
    checkpoint_identity(c, other);
    assert_memory_not_equal(id, other, sizeof id);
    checkpoint_close(&c);

    shard("model-00003.safetensors", "a", 3);
    want_fails(checkpoint_open(&c, scratch_dir), ERR_DATA, "tensor a is there twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_dtype_of_every_version),
        TEST(test_a_training_dump_is_its_generator),
        TEST(test_what_is_refused),
        TEST(test_rounds_as_torch_does),
        TEST(test_a_folder_is_its_shards),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
