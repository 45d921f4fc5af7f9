/* test_golden_ops.c - single ops with bf16 on, against what LongLive's modules made in bf16 of the
 * same inputs. A norm has the same bits. Products and attention sum in another order, so a few
 * values may be one unit of bf16 away; how many is bounded so that a rounding left out, or one too
 * many, is seen: each moves at least several times as many. */
#include <math.h>
#include <string.h>

#include "tests/golden.h"

enum { S = 72, C = 48, N = 2, D = C / N, TEXT = 200, FFN = 96 };

struct bench {
    struct golden g;
    struct dev *d;
    void *memory[16];
    int32_t n_memory;
};

static void bench_open(struct bench *b)
{
    memset(b, 0, sizeof *b);
    golden_open(&b->g, "ops");
    assert_ok(dev_open(&b->d, "cpu", 2));
    assert_ok(ops_open(b->d));
    ops_set_bf16(b->d, true);
}

static void bench_close(struct bench *b)
{
    for (int32_t i = 0; i < b->n_memory; i++) dev_free(b->d, &b->memory[i]);
    ops_close(b->d);
    dev_close(&b->d);
    golden_close(&b->g);
}

static struct tensor place(struct bench *b, struct tensor t, const void *from)
{
    void **at = &b->memory[b->n_memory++];
    assert_true(b->n_memory <= (int32_t)COUNT(b->memory));
    assert_ok(dev_alloc(b->d, tensor_bytes(t), at));
    t.data = *at;
    if (from) assert_ok(dev_upload(b->d, t.data, from, tensor_bytes(t)));
    return t;
}

/* A golden tensor on the device; room for a result. */
#define GIVEN(b, name, ...) given((b), (name), TENSOR(NULL, DTYPE_F32, __VA_ARGS__))
#define ROOM(b, ...) place((b), TENSOR(NULL, DTYPE_F32, __VA_ARGS__), NULL)

static struct tensor given(struct bench *b, const char *name, struct tensor t)
{
    return place(b, t, golden_floats(&b->g, name, tensor_count(t)));
}

static int32_t bf16_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (bits & 0xFFFF) fail_msg("%g is no bf16", (double)x);
    bits >>= 16;
    return bits < 0 ? -(bits & 0x7FFF) : bits;
}

/* Every value is one of bf16, at most a unit away from the golden one or, where the sum cancels,
 * from numbers of the largest one's size; and at most per_mille of them are not equal. */
static void same(struct bench *b, struct tensor y, const char *name, int64_t per_mille)
{
    const int64_t n = tensor_count(y);
    const float *want = golden_floats(&b->g, name, n);
    float *got = check_alloc((size_t)n * sizeof *got), top = 0;
    int64_t n_other = 0;
    assert_ok(dev_download(b->d, got, y.data, tensor_bytes(y)));
    assert_ok(dev_sync(b->d));
    for (int64_t i = 0; i < n; i++) top = fmaxf(top, fabsf(want[i]));
    for (int64_t i = 0; i < n; i++) {
        const int32_t away = abs(bf16_bits(got[i]) - bf16_bits(want[i]));
        n_other += away != 0;
        if (away > 1 && fabsf(got[i] - want[i]) > top / 128)
            fail_msg("%s: value %lld is %g, not %g", name, (long long)i, (double)got[i],
                     (double)want[i]);
    }
    print_message("%s: %lld of %lld values differ\n", name, (long long)n_other, (long long)n);
    if (n_other * 1000 > per_mille * n) fail_msg("%s: too many", name);
}

static void test_norms(void **state)
{
    struct bench b;
    (void)state;
    bench_open(&b);
    const struct tensor x = GIVEN(&b, "mod.x", S, C), y = ROOM(&b, S, C);
    assert_ok(
        ops_norm_modulate(b.d, y, x, GIVEN(&b, "mod.scale", C), GIVEN(&b, "mod.shift", C), 1e-6f));
    same(&b, y, "mod.y", 0);
    assert_ok(ops_layer_norm(b.d, y, GIVEN(&b, "o.y", S, C), GIVEN(&b, "norm3.w", C),
                             GIVEN(&b, "norm3.b", C), 1e-6f));
    same(&b, y, "norm3.y", 0);
    const struct tensor t = ROOM(&b, TEXT, 32);
    assert_ok(ops_rms_norm(b.d, t, GIVEN(&b, "rms.x", TEXT, 32), GIVEN(&b, "rms.w", 32), 1e-6f));
    same(&b, t, "rms.y", 0);
    const struct tensor f = GIVEN(&b, "l2.x", 24, 32), g = GIVEN(&b, "l2.g", 32);
    const struct tensor l = ROOM(&b, 24, 32);
    assert_ok(ops_l2_norm(b.d, l, f, g, 0));
    same(&b, l, "l2.y", 0);
    assert_ok(ops_l2_norm(b.d, l, f, g, 1));
    same(&b, l, "l2.silu", 0);
    bench_close(&b);
}

/* cos and sin of positions from 0; pair j of four turns by 10000^(-j / 4). */
static struct tensor angles(struct bench *b, int32_t n)
{
    float *rot = check_alloc((size_t)n * 8 * sizeof *rot);
    for (int32_t i = 0; i < 4 * n; i++) {
        const double angle = i / 4 * pow(10000.0, -(i % 4) / 4.0);
        rot[2 * i] = (float)cos(angle);
        rot[2 * i + 1] = (float)sin(angle);
    }
    return place(b, TENSOR(NULL, DTYPE_F32, n, 4, 2), rot);
}

static void test_queries_and_keys(void **state)
{
    struct bench b;
    static const int32_t slot[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    (void)state;
    bench_open(&b);
    const struct tensor q = ROOM(&b, S, N, D), k = ROOM(&b, S, N, D), v = ROOM(&b, S, N, D);
    const struct tensor slots = place(&b, TENSOR(NULL, DTYPE_I32, 12), slot);
    assert_ok(ops_qkv_rope_cache(b.d, q, k, v, (struct tensor){0}, GIVEN(&b, "qkv", S, 3 * C),
                                 GIVEN(&b, "wq", C), GIVEN(&b, "wk", C), slots, angles(&b, 12),
                                 angles(&b, 3), 2, 3, 1e-6f));
    same(&b, q, "self.q", 1);
    same(&b, k, "self.k", 1);
    same(&b, v, "self.v", 0);
    bench_close(&b);
}

static void test_attention(void **state)
{
    struct bench b;
    const struct tensor none = {0};
    const float scale = 1.0f / sqrtf((float)D);
    (void)state;
    bench_open(&b);
    const struct tensor o = ROOM(&b, S, N, D);
    assert_ok(ops_attention(b.d, o, GIVEN(&b, "self.q", S, N, D), GIVEN(&b, "self.k", S, N, D),
                            GIVEN(&b, "self.v", S, N, D), none, none, scale));
    same(&b, o, "self.o", 50);
    assert_ok(ops_attention(b.d, o, GIVEN(&b, "cross.q", S, N, D), GIVEN(&b, "cross.k", 16, N, D),
                            GIVEN(&b, "cross.v", 16, N, D), none, none, scale));
    same(&b, o, "cross.o", 25);
    const struct tensor t = ROOM(&b, TEXT, 4, 8);
    assert_ok(ops_attention_t5(b.d, t, GIVEN(&b, "t5.q", TEXT, 4, 8), GIVEN(&b, "t5.k", TEXT, 4, 8),
                               GIVEN(&b, "t5.v", TEXT, 4, 8), GIVEN(&b, "t5.table", 32, 4)));
    same(&b, t, "t5.o", 2);
    bench_close(&b);
}

static void test_branches(void **state)
{
    struct bench b;
    const struct tensor none = {0};
    (void)state;
    bench_open(&b);
    const struct tensor x = GIVEN(&b, "mod.x", S, C);
    assert_ok(ops_linear_add(b.d, x, GIVEN(&b, "self.o", S, C), GIVEN(&b, "o.w", C, C),
                             GIVEN(&b, "o.b", C), GIVEN(&b, "o.gate", C)));
    same(&b, x, "o.y", 2);
    const struct tensor z = GIVEN(&b, "o.y", S, C);
    assert_ok(ops_linear_add(b.d, z, GIVEN(&b, "cross.o", S, C), GIVEN(&b, "cross.w", C, C),
                             GIVEN(&b, "cross.b", C), none));
    same(&b, z, "cross.y", 2);
    const struct tensor h = ROOM(&b, S, FFN);
    assert_ok(ops_linear_gelu(b.d, h, GIVEN(&b, "ffn.x", S, C), GIVEN(&b, "ffn.w", FFN, C),
                              GIVEN(&b, "ffn.b", FFN)));
    same(&b, h, "ffn.y", 2);
    const struct tensor a = GIVEN(&b, "gelu.a", TEXT, C);
    assert_ok(ops_gelu_mul(b.d, a, a, GIVEN(&b, "gelu.g", TEXT, C)));
    same(&b, a, "gelu.y", 0);
    bench_close(&b);
}

static void test_convolutions(void **state)
{
    enum { Y = 4, X = 6, W = 32 };
    struct bench b;
    (void)state;
    bench_open(&b);
    const struct tensor y = ROOM(&b, 1, Y, X, W), up = ROOM(&b, 2, 2 * Y, 2 * X, W / 2);
    assert_ok(ops_conv3d(b.d, y, GIVEN(&b, "conv.x", 1, Y, X, W),
                         GIVEN(&b, "conv.past", 2, Y, X, W), GIVEN(&b, "conv.w", W, 3, 3, 3, W),
                         GIVEN(&b, "conv.b", W), GIVEN(&b, "conv.h", 1, Y, X, W)));
    same(&b, y, "conv.y", 2);
    assert_ok(ops_upsample_conv(b.d, up, GIVEN(&b, "double.x", 2, Y, X, W),
                                GIVEN(&b, "double.w", W / 2, 1, 3, 3, W),
                                GIVEN(&b, "double.b", W / 2)));
    same(&b, up, "double.y", 2);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_norms), TEST(test_queries_and_keys),
                                       TEST(test_attention), TEST(test_branches),
                                       TEST(test_convolutions)};
    return cmocka_run_group_tests_name("golden ops", tests, NULL, NULL);
}
