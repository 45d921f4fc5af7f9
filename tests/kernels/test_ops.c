/* test_ops.c - the front: every op refuses every tensor that breaks its contract.
 *
 * A table holds one right call of each op. Each tensor in it is then spoilt in turn (absent, of
 * another type, of another rank, one dimension longer or shorter or 0) and the call must answer
 * ERR_SHAPE; the right call must pass.
 */
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"

enum { TENSORS_MAX = 10, MEMORY = 1 << 16 };

struct good {
    const char *op;
    err_t (*call)(struct dev *d, const struct tensor *t);
    const char *may_be_absent;    /* a letter a tensor: y may, n may not */
    struct tensor t[TENSORS_MAX]; /* without memory */
};

#define CALL(name, ...)                                                                            \
    static err_t name(struct dev *d, const struct tensor *t)                                       \
    {                                                                                              \
        return ops_##name(d, __VA_ARGS__);                                                         \
    }

CALL(linear, t[0], t[1], t[2], t[3])
CALL(linear_gelu, t[0], t[1], t[2], t[3])
CALL(linear_add, t[0], t[1], t[2], t[3], t[4])
CALL(linear_add_norm, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], true, 1e-6f)
CALL(rms_norm, t[0], t[1], t[2], 1e-6f)
CALL(layer_norm, t[0], t[1], t[2], t[3], 1e-6f)
CALL(norm_modulate, t[0], t[1], t[2], t[3], 1e-6f)
CALL(l2_norm, t[0], t[1], t[2], 1)
CALL(silu, t[0], t[1])
CALL(add, t[0], t[1], t[2])
CALL(gelu_mul, t[0], t[1], t[2])
CALL(embed, t[0], t[1], t[2])
CALL(attention, t[0], t[1], t[2], t[3], t[4], t[5], 1.0f)
CALL(attention_t5, t[0], t[1], t[2], t[3], t[4])
CALL(qkv_rope_cache, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], 2, 3, 1e-6f)
CALL(rope_sink, t[0], t[1], t[2], t[3], 2, 3)
CALL(patchify, t[0], t[1])
CALL(unpatchify, t[0], t[1])
CALL(flow_to_x0, t[0], t[1], t[2], 0.5f)
CALL(renoise, t[0], t[1], t[2], 0.5f)
CALL(randn, t[0], t[1], 0.0f, 1.0f)
CALL(denorm, t[0], t[1], t[2], t[3])
CALL(conv3d, t[0], t[1], t[2], t[3], t[4], t[5])
CALL(conv3d_norm, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7])
CALL(upsample_conv, t[0], t[1], t[2], t[3])
CALL(split_frames, t[0], t[1])
CALL(split3, t[0], t[1], t[2], t[3])
CALL(to_rgb8, t[0], t[1])

#define F(...)                                                                                     \
    {                                                                                              \
        .dtype = DTYPE_F32, .rank = COUNT(((int[]){__VA_ARGS__})), .shape = { __VA_ARGS__ }        \
    }
#define I(...)                                                                                     \
    {                                                                                              \
        .dtype = DTYPE_I32, .rank = COUNT(((int[]){__VA_ARGS__})), .shape = { __VA_ARGS__ }        \
    }

/* clang-format off */
static const struct good goods[] = {
    {"linear", linear, "nnny", {F(2, 5), F(2, 4), F(5, 4), F(5)}},
    {"linear_gelu", linear_gelu, "nnny", {F(2, 5), F(2, 4), F(5, 4), F(5)}},
    {"linear_add", linear_add, "nnnyy", {F(2, 5), F(2, 4), F(5, 4), F(5), F(5)}},
    {"linear_add_norm", linear_add_norm, "nnnyynnn",
     {F(2, 5), F(2, 4), F(5, 4), F(5), F(5), F(2, 5), F(5), F(5)}},
    {"rms_norm", rms_norm, "nnn", {F(2, 5), F(2, 5), F(5)}},
    {"layer_norm", layer_norm, "nnnn", {F(2, 5), F(2, 5), F(5), F(5)}},
    {"norm_modulate", norm_modulate, "nnnn", {F(2, 5), F(2, 5), F(5), F(5)}},
    {"l2_norm", l2_norm, "nnn", {F(2, 3, 5), F(2, 3, 5), F(5)}},
    {"silu", silu, "nn", {F(2, 3, 5), F(2, 3, 5)}},
    {"add", add, "nnn", {F(2, 3, 5), F(2, 3, 5), F(2, 3, 5)}},
    {"gelu_mul", gelu_mul, "nnn", {F(2, 5), F(2, 5), F(2, 5)}},
    {"embed", embed, "nnn", {F(3, 5), F(7, 5), I(3)}},
    {"attention", attention, "nnnnyy",
     {F(3, 2, 5), F(3, 2, 5), F(7, 2, 5), F(7, 2, 5), I(1), F(1)}},
    {"attention_t5", attention_t5, "nnnnn",
     {F(3, 2, 5), F(3, 2, 5), F(3, 2, 5), F(3, 2, 5), F(8, 2)}},
    {"qkv_rope_cache", qkv_rope_cache, "nnnynnnnnn",
     {F(12, 2, 10), F(24, 2, 10), F(24, 2, 10), F(12, 2, 10), F(12, 60), F(20), F(20), I(2),
      F(2, 1, 2), F(3, 2, 2)}},
    {"rope_sink", rope_sink, "nnnn", {F(24, 2, 10), F(12, 2, 10), F(2, 1, 2), F(3, 2, 2)}},
    {"patchify", patchify, "nn", {F(12, 20), F(2, 5, 4, 6)}},
    {"unpatchify", unpatchify, "nn", {F(2, 5, 4, 6), F(12, 20)}},
    {"flow_to_x0", flow_to_x0, "nnn", {F(2, 5), F(2, 5), F(2, 5)}},
    {"renoise", renoise, "nnn", {F(2, 5), F(2, 5), F(2, 5)}},
    {"randn", randn, "nn", {F(2, 5), {.dtype = DTYPE_U64, .rank = 1, .shape = {2}}}},
    {"denorm", denorm, "nnnn", {F(2, 3, 5), F(5, 2, 3), F(5), F(5)}},
    {"conv3d", conv3d, "nnnnny",
     {F(2, 4, 5, 6), F(2, 4, 5, 7), F(2, 4, 5, 7), F(6, 3, 3, 3, 7), F(6), F(2, 4, 5, 6)}},
    {"conv2d", conv3d, "nnynny",
     {F(2, 4, 5, 6), F(2, 4, 5, 7), {0}, F(6, 1, 3, 3, 7), F(6), F(2, 4, 5, 6)}},
    {"conv3d_norm", conv3d_norm, "nnnnnyny",
     {F(2, 4, 5, 6), F(2, 4, 5, 7), F(2, 4, 5, 7), F(6, 3, 3, 3, 7), F(6), F(2, 4, 5, 6), F(6),
      F(2, 4, 5, 6)}},
    {"upsample_conv", upsample_conv, "nnnn",
     {F(2, 8, 10, 6), F(2, 4, 5, 7), F(6, 1, 3, 3, 7), F(6)}},
    {"split_frames", split_frames, "nn", {F(4, 3, 5, 7), F(2, 3, 5, 14)}},
    {"split3", split3, "nnnn", {F(4, 5), F(4, 5), F(4, 5), F(4, 15)}},
    {"to_rgb8", to_rgb8, "nn", {{.dtype = DTYPE_U8, .rank = 2, .shape = {4, 3}}, F(4, 3)}},
};
/* clang-format on */

/* Sizes that the contract leaves open: lengthening one of them alone breaks nothing. */
static int is_free(const char *op, size_t tensor, int32_t at)
{
    static const struct {
        const char *op;
        size_t tensor;
        int32_t at;
    } open[] = {
        {"embed", 1, 0}, {"qkv_rope_cache", 9, 0}, {"rope_sink", 3, 0}, {"rope_sink", 0, 0}};
    for (size_t i = 0; i < COUNT(open); i++)
        if (strcmp(op, open[i].op) == 0 && tensor == open[i].tensor && at == open[i].at) return 1;
    return 0;
}

struct fixture {
    struct dev *d;
    void *memory[TENSORS_MAX];
};

static int setup(void **state)
{
    static struct fixture f;
    assert_ok(dev_open(&f.d, "cpu", 1));
    assert_ok(ops_open(f.d));
    for (int i = 0; i < TENSORS_MAX; i++) assert_ok(dev_alloc(f.d, MEMORY, &f.memory[i]));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < TENSORS_MAX; i++) dev_free(f->d, &f->memory[i]);
    ops_close(f->d);
    dev_close(&f->d);
    return 0;
}

static void fill(const struct fixture *f, const struct good *g, struct tensor *t)
{
    for (int i = 0; i < TENSORS_MAX; i++) {
        t[i] = g->t[i];
        if (t[i].rank) t[i].data = f->memory[i];
        /* n_keys 1, ids 1, slots 0 and 1 */
        if (t[i].dtype == DTYPE_I32)
            for (int32_t j = 0; j < t[i].shape[0]; j++)
                ((int32_t *)f->memory[i])[j] = strcmp(g->op, "qkv_rope_cache") == 0 ? j : 1;
    }
}

static void want(const struct fixture *f, const struct good *g, const struct tensor *t, err_t code,
                 size_t tensor, const char *how)
{
    const uint64_t n_before = ops_count();
    const err_t e = g->call(f->d, t);
    if (e != code) print_error("%s, tensor %zu %s: %d, want %d\n", g->op, tensor, how, e, code);
    assert_int_equal(e, code);
    assert_int_equal(ops_count(), n_before + (code == OK));
    if (code == OK || strcmp(g->op, "conv2d") == 0) return;
    assert_memory_equal(err_text(), g->op, strlen(g->op)); /* the sentence names the op */
}

static void test_right_calls_pass(void **state)
{
    const struct fixture *f = *state;
    struct tensor t[TENSORS_MAX];
    for (size_t i = 0; i < COUNT(goods); i++) {
        fill(f, &goods[i], t);
        want(f, &goods[i], t, OK, 0, "as it should be");
    }
}

static struct {
    int n;
    const char *op;
    struct tensor first;
} seen;

static void note(void *self, const char *op, const struct tensor *t, size_t n)
{
    assert_true(self == &seen && n >= 1);
    seen.n++;
    seen.op = op;
    seen.first = t[0];
}

static void test_watched(void **state)
{
    const struct fixture *f = *state;
    struct tensor t[TENSORS_MAX];
    ops_watch(note, &seen);
    for (size_t i = 0; i < COUNT(goods); i++) {
        seen.n = 0;
        fill(f, &goods[i], t);
        want(f, &goods[i], t, OK, 0, "watched");
        assert_int_equal(seen.n, 1);
        assert_ptr_equal(seen.first.data, t[0].data);
        if (strcmp(goods[i].op, "conv2d") != 0) assert_string_equal(seen.op, goods[i].op);
    }
    ops_watch(NULL, NULL);
    fill(f, &goods[0], t);
    want(f, &goods[0], t, OK, 0, "not watched");
    assert_int_equal(seen.n, 1);
}

static void test_absent(void **state)
{
    const struct fixture *f = *state;
    struct tensor t[TENSORS_MAX];
    for (size_t i = 0; i < COUNT(goods); i++) {
        const struct good *g = &goods[i];
        for (size_t j = 0; j < strlen(g->may_be_absent); j++) {
            fill(f, g, t);
            t[j] = TENSOR_NONE;
            want(f, g, t, g->may_be_absent[j] == 'y' ? OK : ERR_SHAPE, j, "absent");
            fill(f, g, t);
            if (t[j].rank == 0) continue;
            t[j].data = NULL;
            want(f, g, t, ERR_SHAPE, j, "without memory");
        }
    }
}

static void test_wrong_dtype(void **state)
{
    const struct fixture *f = *state;
    struct tensor t[TENSORS_MAX];
    for (size_t i = 0; i < COUNT(goods); i++) {
        for (size_t j = 0; j < strlen(goods[i].may_be_absent); j++) {
            if (goods[i].t[j].rank == 0) continue;
            for (enum dtype wrong = 0; wrong < DTYPES; wrong++) {
                fill(f, &goods[i], t);
                if (wrong == t[j].dtype) continue;
                t[j].dtype = wrong;
                want(f, &goods[i], t, ERR_SHAPE, j, "of another type");
            }
        }
    }
}

static void test_wrong_rank(void **state)
{
    const struct fixture *f = *state;
    struct tensor t[TENSORS_MAX];
    for (size_t i = 0; i < COUNT(goods); i++) {
        for (size_t j = 0; j < strlen(goods[i].may_be_absent); j++) {
            if (goods[i].t[j].rank == 0) continue;
            fill(f, &goods[i], t);
            /* randn takes any shape, and has it in one place. */
            if (strcmp(goods[i].op, "randn") == 0 && j == 0) continue;
            if (t[j].rank < TENSOR_RANK_MAX) {
                t[j].shape[t[j].rank++] = 1;
                want(f, &goods[i], t, ERR_SHAPE, j, "with a dimension more");
            }
            fill(f, &goods[i], t);
            t[j].rank--;
            want(f, &goods[i], t, ERR_SHAPE, j, "with a dimension less");
        }
    }
}

static void test_wrong_dimension(void **state)
{
    const struct fixture *f = *state;
    struct tensor t[TENSORS_MAX];
    for (size_t i = 0; i < COUNT(goods); i++) {
        const struct good *g = &goods[i];
        for (size_t j = 0; j < strlen(g->may_be_absent); j++) {
            for (int32_t at = 0; at < g->t[j].rank; at++) {
                fill(f, g, t);
                t[j].shape[at] = 0;
                want(f, g, t, ERR_SHAPE, j, "with an empty dimension");
                if (strcmp(g->op, "randn") == 0 && j == 0) continue;
                if (is_free(g->op, j, at)) continue;
                fill(f, g, t);
                t[j].shape[at]++;
                want(f, g, t, ERR_SHAPE, j, "with a dimension longer");
                fill(f, g, t);
                t[j].shape[at]--;
                want(f, g, t, ERR_SHAPE, j, "with a dimension shorter");
            }
        }
    }
}

/* What one tensor alone cannot break. */
static void test_relations(void **state)
{
    const struct fixture *f = *state;
    struct tensor t[TENSORS_MAX];
    const struct good odd = {"patchify", patchify, "", {F(8, 20), F(2, 5, 4, 5)}};
    fill(f, &odd, t);
    want(f, &odd, t, ERR_SHAPE, 1, "of odd width");
    const struct good buckets = {"attention_t5",
                                 attention_t5,
                                 "",
                                 {F(3, 2, 5), F(3, 2, 5), F(3, 2, 5), F(3, 2, 5), F(6, 2)}};
    fill(f, &buckets, t);
    want(f, &buckets, t, ERR_SHAPE, 4, "of 6 buckets");
    const struct good kernel = {
        "conv3d", conv3d, "", {F(1, 4, 5, 6), F(1, 4, 5, 7), {0}, F(6, 1, 5, 5, 7), F(6), {0}}};
    fill(f, &kernel, t);
    want(f, &kernel, t, ERR_SHAPE, 3, "of 5 x 5 taps");
    const struct good narrow = {
        "rope_sink", rope_sink, "", {F(6, 2, 10), F(12, 2, 10), F(2, 1, 2), F(3, 2, 2)}};
    fill(f, &narrow, t);
    want(f, &narrow, t, ERR_SHAPE, 0, "shorter than the sink");
}

static void test_unopened_device(void **state)
{
    const struct fixture *f = *state;
    struct dev *d = NULL;
    struct tensor t[TENSORS_MAX];
    assert_ok(dev_open(&d, "cpu", 1));
    for (size_t i = 0; i < COUNT(goods); i++) {
        fill(f, &goods[i], t);
        assert_int_equal(goods[i].call(d, t), ERR_BUG);
    }
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_calls_pass), cmocka_unit_test(test_absent),
        cmocka_unit_test(test_wrong_dtype),      cmocka_unit_test(test_wrong_rank),
        cmocka_unit_test(test_wrong_dimension),  cmocka_unit_test(test_relations),
        cmocka_unit_test(test_unopened_device),  cmocka_unit_test(test_watched),
    };
    return cmocka_run_group_tests_name("ops", tests, setup, teardown);
}
