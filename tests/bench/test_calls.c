/* test_calls.c - what the models are seen to call, by hand for the smallest of them, and that each
 * call runs alone. */
#include "bench/calls.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"

static struct conf c;
static struct calls calls;

static const struct call *find(const char *stage, const char *op, const char *text)
{
    char found[64];
    for (int32_t i = 0; i < calls.n; i++) {
        const struct call *k = &calls.call[i];
        calls_text(k, found, sizeof found);
        if (strcmp(k->stage, stage) == 0 && strcmp(k->op, op) == 0 && strcmp(found, text) == 0)
            return k;
    }
    fail_msg("%s.%s %s was not seen", stage, op, text);
    return NULL;
}

/* A block of 3 frames of 6 tokens, width 48, 2 heads; a window of 12; 16 tokens of text. */
static void test_kinds_of_a_block(void **state)
{
    (void)state;
    const struct call *k = find("dit", "linear", "18x144x48 f32"); /* q, k, v in one */
    assert_true(k->flops == 2 * 18 * 144 * 48 &&
                k->bytes == 4 * (18 * 144 + 18 * 48 + 145 * 48 + 96));
    find("dit", "linear", "18x48x48 f32");                /* q of cross attention */
    find("dit", "linear_add_norm", "18x48x48 f32");       /* its end */
    find("dit", "linear_add_norm", "18x48x48 f32 gated"); /* self attention's */
    find("dit", "linear_gelu", "18x96x48 f32");           /* feed-forward */
    k = find("dit", "linear_add_norm", "18x48x96 f32 gated");
    assert_true(k->flops == 2 * 18 * 48 * 96 &&
                k->bytes == 4 * (2 * 18 * 48 + 18 * 96 + 48 * 96 + 4 * 48));
    find("dit", "linear", "16x48x48 f32"); /* a prompt's keys and values */
    k = find("dit", "attention", "18x72x2x24 f32");
    assert_true(k->flops == 4 * 18 * 72 * 48 && !k->kept[4]);
    k = find("dit", "attention", "18x17x2x24 f32");
    assert_int_equal(*(int32_t *)k->kept[4], 16);
    find("dit", "norm_modulate", "18x48 f32");
    find("dit", "flow_to_x0", "3x4x4x6 f32");
    k = find("dit", "qkv_rope_cache", "18x2x24 f32");
    const int32_t *const slots = k->kept[7];
    assert_true(slots[0] >= 3 && slots[1] == slots[0] + 1 && slots[2] == slots[0] + 2);
    assert_true(find("kv", "ring", "72x2x24 f32")->bytes == 4 * 4 * 18 * 48);
    assert_true(find("kv", "roll", "72x2x24 f32")->bytes == 4 * 4 * 18 * 48);
    find("dit", "rope_sink", "72x2x24 f32"); /* though nano's positions are absolute */
}

static void test_kinds_of_the_others(void **state)
{
    (void)state;
    find("text", "attention_t5", "2x2x4x8 f32");
    find("text", "attention_t5", "16x16x4x8 f32");
    find("text", "linear", "2x48x32 f32");
    find("text", "linear_add", "16x32x48 f32");
    find("vae", "denorm", "4x6x4 f32");
    find("vae", "conv3d", "1x4x6x32x32 k3x3 f32 residual"); /* no norm with SiLU follows */
    const struct call *k = find("vae", "conv3d_norm", "1x4x6x32x32 k3x3 f32");
    assert_true(k->flops == 2 * 24 * 32 * 27 * 32 &&
                k->bytes == 4 * (4 * 24 * 32 + 27 * 32 * 32 + 2 * 32));
    find("vae", "conv3d_norm", "1x4x6x32x32 k3x3 f32 residual kept");
    find("vae", "conv3d_norm", "2x32x48x8x8 k3x3 f32 residual"); /* the head's */
    k = find("vae", "conv3d", "1x4x6x64x32 k3x1 f32");           /* doubles time */
    assert_true(k->flops == 2 * 24 * 3 * 64 * 32);
    k = find("vae", "upsample_conv", "4x32x48x8x16 k3 f32");
    assert_true(k->flops == 2 * 4 * 32 * 48 * 9 * 8 * 16);
    find("vae", "conv3d", "2x32x48x3x8 k3x3 f32"); /* the head, two frames at a time */
    find("vae", "to_rgb8", "4x32x48x3 f32 to u8");
}

/* No two rows of a table have one name. */
static void test_texts_differ(void **state)
{
    (void)state;
    char a[64], b[64];
    for (int32_t i = 0; i < calls.n; i++) {
        calls_text(&calls.call[i], a, sizeof a);
        for (int32_t j = 0; j < i; j++) {
            calls_text(&calls.call[j], b, sizeof b);
            if (strcmp(a, b) != 0) continue;
            assert_true(strcmp(calls.call[i].op, calls.call[j].op) != 0 ||
                        strcmp(calls.call[i].stage, calls.call[j].stage) != 0);
        }
    }
}

static size_t room(struct tensor t)
{
    return (tensor_bytes(t) + 63) / 64 * 64;
}

/* Memory for the tensors of a call, zeroed but for what was kept. */
static void *place(struct dev *d, const struct call *k, struct tensor t[CALL_ARGS_MAX])
{
    void *memory = NULL;
    size_t n_bytes = 0;
    for (int32_t i = 0; i < k->n_args; i++) n_bytes += room(k->t[i]);
    assert_ok(dev_alloc(d, n_bytes, &memory));
    char *at = memory;
    for (int32_t i = 0; i < k->n_args; at += room(k->t[i++])) {
        t[i] = k->t[i];
        if (t[i].rank == 0) continue;
        t[i].data = at;
        if (k->kept[i]) memcpy(at, k->kept[i], tensor_bytes(t[i]));
    }
    return memory;
}

static void test_each_runs(void **state)
{
    struct dev *d = *state;
    struct tensor t[CALL_ARGS_MAX];
    for (int32_t i = 0; i < calls.n; i++) {
        const struct call *k = &calls.call[i];
        void *memory = place(d, k, t);
        const uint64_t n = ops_count();
        assert_ok(calls_run(k, d, t, &c));
        assert_int_equal(ops_count() - n, strcmp(k->stage, "kv") != 0);
        dev_free(d, &memory);
    }
    const struct call unknown = {.op = "none"};
    assert_int_equal(calls_run(&unknown, d, t, &c), ERR_BUG);
}

/* Rows by number: the sink stays, what is behind it moves up by a block, the block is new. */
static void test_roll(void **state)
{
    struct dev *d = *state;
    const struct call *k = find("kv", "roll", "72x2x24 f32");
    struct tensor t[CALL_ARGS_MAX];
    void *memory = place(d, k, t);
    const int32_t S = 18, M = 72, C = 48;
    for (int32_t part = 0; part < 2; part++) {
        float *const ring = t[part].data, *const block = t[2 + part].data;
        for (int32_t i = 0; i < M * C; i++) ring[i] = (float)(1000 * part + i / C);
        for (int32_t i = 0; i < S * C; i++) block[i] = (float)(1000 * part + M + i / C);
    }
    assert_ok(calls_run(k, d, t, &c));
    for (int32_t part = 0; part < 2; part++)
        for (int32_t i = 0; i < M * C; i++) {
            const int32_t row = i / C, want = row < S ? row : row + S;
            assert_true(((float *)t[part].data)[i] == (float)(1000 * part + want));
        }
    dev_free(d, &memory);
}

static struct dev *d0;

static int setup(void **state)
{
    if (conf_load(&c, "configs/nano.ini", NULL, 0) != OK) return -1;
    if (calls_collect(&calls, &c, "cpu") != OK) return -1;
    if (dev_open(&d0, "cpu", 1) != OK || ops_open(d0) != OK) return -1;
    *state = d0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    calls_drop(&calls);
    ops_close(d0);
    dev_close(&d0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_kinds_of_a_block), TEST(test_kinds_of_the_others),
                                       TEST(test_texts_differ), TEST(test_each_runs),
                                       TEST(test_roll)};
    return cmocka_run_group_tests_name("calls", tests, setup, teardown);
}
