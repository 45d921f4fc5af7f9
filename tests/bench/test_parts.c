/* test_parts.c - what each op of a pass belongs to: the models' own passes, and FLOP by hand. */
#include "bench/parts.h"

#include <math.h>
#include <string.h>

#include "bench/flops.h"
#include "bench/rig.h"
#include "kernels/ops.h"
#include "tests/check.h"

enum { OPS_MAX = 4096 };

struct seen {
    const char *(*part)(struct parts *p, const char *op, const struct tensor *t);
    struct parts parts;
    int n;
    const char *op[OPS_MAX], *part_of[OPS_MAX];
    double flops;
};

static void see(void *self, const char *op, const struct tensor *t, size_t n)
{
    struct seen *s = self;
    (void)n;
    assert_true(s->n < OPS_MAX);
    s->op[s->n] = op;
    s->part_of[s->n++] = s->part(&s->parts, op, t);
    s->flops += parts_flops(op, t);
}

static void watch(struct seen *s, err_t (*run)(void *), void *self)
{
    s->n = 0;
    s->flops = 0;
    s->parts.section = NULL;
    ops_watch(see, s);
    assert_ok(run(self));
    ops_watch(NULL, NULL);
}

static int count(const struct seen *s, const char *op, const char *part)
{
    int n = 0;
    for (int i = 0; i < s->n; i++)
        n += (!op || strcmp(s->op[i], op) == 0) && (!part || strcmp(s->part_of[i], part) == 0);
    return n;
}

static struct conf c;
static struct seen s;

static void test_dit(void **state)
{
    (void)state;
    struct rig_dit t = {0};
    const int L = c.dit.layers;
    assert_ok(rig_dit_open(&t, &c, "cpu"));
    s.part = parts_of_dit;
    t.step = 0;
    watch(&s, rig_dit_pass, &t);
    assert_int_equal(count(&s, "linear", "self_attention"), L);
    assert_int_equal(count(&s, "attention", "self_attention"), L);
    assert_int_equal(count(&s, NULL, "self_attention"), 3 * L);
    assert_int_equal(count(&s, NULL, "cross_attention"), 3 * L);
    assert_int_equal(count(&s, NULL, "ffn"), 2 * L);
    assert_int_equal(count(&s, "linear_add_norm", "ffn"), L);
    assert_int_equal(count(&s, NULL, "norms"), L + 1);
    assert_int_equal(count(&s, NULL, "kv"), L);
    assert_int_equal(count(&s, NULL, "other"), 5); /* two patches, their linear, head, x0 */
    const double one = flops_dit(&c, c.dit.block, c.dit.window, c.text.text_len + 1, false);
    assert_true(fabs(s.flops / one - 1) < 1e-6);
    t.step = SCHED_CLEAN;
    watch(&s, rig_dit_pass, &t);
    assert_int_equal(count(&s, NULL, "self_attention"), 3 * L - 2);
    assert_int_equal(count(&s, NULL, "ffn"), 2 * L - 2);
    rig_dit_close(&t);
}

static void test_text(void **state)
{
    (void)state;
    struct rig_text t = {0};
    const int L = c.text.layers;
    assert_ok(rig_text_open(&t, &c, "cpu"));
    s.part = parts_of_text;
    watch(&s, rig_text_run, &t);
    assert_int_equal(count(&s, NULL, "attention"), 5 * L);
    assert_int_equal(count(&s, NULL, "ffn"), 4 * L);
    assert_int_equal(count(&s, NULL, "norms"), 2 * L + 1);
    assert_int_equal(count(&s, NULL, "other"), 1);
    assert_true(fabs(s.flops / flops_text(&c, t.n) - 1) < 1e-6);
    rig_text_close(&t);
}

static void test_vae(void **state)
{
    (void)state;
    struct rig_vae t = {0};
    static const char *const names[] = {"1x", "2x", "4x", "8x"};
    assert_ok(rig_vae_open(&t, &c, "cpu"));
    assert_ok(rig_vae_run(&t));
    s.part = parts_of_vae;
    s.parts = (struct parts){c.model.latent_rows, c.model.latent_cols, NULL};
    watch(&s, rig_vae_run, &t);
    assert_int_equal(count(&s, "attention", "1x"), 1);
    for (int i = 1; i < 4; i++) assert_int_equal(count(&s, "upsample_conv", names[i]), 1);
    for (int norms = 0; norms < 2; norms++) {
        const char *const conv = norms ? "conv3d_norm" : "conv3d";
        assert_int_equal(count(&s, conv, NULL), count(&s, conv, "1x") + count(&s, conv, "2x") +
                                                    count(&s, conv, "4x") + count(&s, conv, "8x"));
    }
    /* Three residual blocks and the head, each two frames at a time. */
    assert_int_equal(count(&s, "conv3d_norm", "8x"), 2 * 2 * 3);
    assert_int_equal(count(&s, "conv3d", "8x"), 2);
    assert_int_equal(count(&s, "l2_norm", "8x"), 2); /* behind the upsampler */
    assert_int_equal(count(&s, NULL, "rgb"), 1);
    assert_int_equal(count(&s, NULL, "other"), 0);
    assert_true(fabs(s.flops / flops_vae(&c) - 1) < 1e-6);
    rig_vae_close(&t);
}

/* By hand; a ring's size does not count, nor what is absent. */
static void test_bytes_and_shapes(void **state)
{
    (void)state;
    char x[8], shape[40];
    const struct tensor linear[] = {TENSOR(x, DTYPE_F32, 5, 3), TENSOR(x, DTYPE_F32, 5, 2),
                                    TENSOR(x, DTYPE_F32, 3, 2), TENSOR_NONE};
    assert_true(parts_bytes("linear", linear, 4) == 4 * (15 + 10 + 6));
    parts_shape("linear", linear, shape, sizeof shape);
    assert_string_equal(shape, "5x3x2");
    const struct tensor qkv[] = {TENSOR(x, DTYPE_BF16, 6, 2, 4), TENSOR(x, DTYPE_BF16, 60, 2, 4)};
    assert_true(parts_bytes("qkv_rope_cache", qkv, 2) == 6 * 2 * 48);
    parts_shape("qkv_rope_cache", qkv, shape, sizeof shape);
    assert_string_equal(shape, "6x2x4");
    const struct tensor attention[] = {qkv[0], qkv[0], qkv[1], qkv[1]};
    parts_shape("attention", attention, shape, sizeof shape);
    assert_string_equal(shape, "6x60x2x4");
    assert_true(parts_flops("attention", attention) == 4 * 48 * 60);
    const struct tensor conv[] = {TENSOR(x, DTYPE_F32, 2, 4, 6, 5), TENSOR_NONE, TENSOR_NONE,
                                  TENSOR(x, DTYPE_F32, 5, 3, 1, 1, 7)};
    parts_shape("conv3d", conv, shape, sizeof shape);
    assert_string_equal(shape, "2x4x6x5x7 k3x1");
    const struct tensor up[] = {conv[0], TENSOR_NONE, TENSOR(x, DTYPE_F32, 5, 1, 3, 3, 7)};
    parts_shape("upsample_conv", up, shape, sizeof shape);
    assert_string_equal(shape, "2x4x6x5x7 k3");
    parts_shape("attention", attention, shape, 4); /* cut, and ended */
    assert_string_equal(shape, "6x6");
}

static int setup(void **state)
{
    (void)state;
    const err_t e = conf_load(&c, "configs/nano.ini", NULL, 0);
    return e == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_dit), TEST(test_text), TEST(test_vae),
                                       TEST(test_bytes_and_shapes)};
    return cmocka_run_group_tests_name("parts", tests, setup, NULL);
}
