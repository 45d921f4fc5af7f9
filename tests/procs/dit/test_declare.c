/* test_declare.c - the DiT's weights: every name, shape, type and spread, against a list made here
 * from the sizes alone. */
#include "procs/dit/dit_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "procs/weights_impl.h"
#include "tests/check.h"

enum { LAYERS = 3, TOP = 15, PER_LAYER = 27, ALL = TOP + LAYERS * PER_LAYER, HOLDS = 256 };

/* Nano's, said again. */
enum { C = 48, FFN = 96, FREQ = 32, TEXT = 32, Z = 4 };

/* What a weight must be: [rows, cols], a vector if cols is 0. A linear layer's weight, by its
 * inputs, a bias, a norm's scale, a norm's shift, a modulation differ in how they are drawn. */
struct want {
    char name[128];
    int32_t rows, cols;
    bool is_act; /* of the type of activations; else f32 */
    float mean, std;
};

static struct want wants[ALL];
static int32_t n_wants;

static void want_one(const char *prefix, const char *name, int32_t rows, int32_t cols, bool is_act,
                     float mean, float std)
{
    struct want *w = &wants[n_wants++];
    assert_true(n_wants <= ALL);
    snprintf(w->name, sizeof w->name, "%s%s", prefix, name);
    w->rows = rows;
    w->cols = cols;
    w->is_act = is_act;
    w->mean = mean;
    w->std = std;
}

/* n_out x n_in and n_out: the weight as its input, the bias as its output. */
static void want_linear(const char *prefix, const char *name, int32_t n_out, int32_t n_in,
                        bool in_act, bool out_act)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    want_one(prefix, full, n_out, n_in, in_act, 0, (float)(1 / sqrt((double)n_in)));
    snprintf(full, sizeof full, "%s.bias", name);
    want_one(prefix, full, n_out, 0, out_act, 0, 0.05f);
}

/* What enters the residual stream is f32, and so are norms and modulations. */
static void want_layer(int32_t i)
{
    static const char *const norms[] = {"self_attn.norm_q.weight", "self_attn.norm_k.weight",
                                        "cross_attn.norm_q.weight", "cross_attn.norm_k.weight",
                                        "norm3.weight"};
    static const char *const to_act[] = {"self_attn.q",  "self_attn.k",  "self_attn.v",
                                         "cross_attn.q", "cross_attn.k", "cross_attn.v"};
    char prefix[32];
    snprintf(prefix, sizeof prefix, "blocks.%d.", i);
    want_one(prefix, "modulation", 6, C, false, 0, 0.3f);
    for (size_t k = 0; k < COUNT(norms); k++) want_one(prefix, norms[k], C, 0, false, 1, 0.1f);
    want_one(prefix, "norm3.bias", C, 0, false, 0, 0.1f);
    for (size_t k = 0; k < COUNT(to_act); k++) want_linear(prefix, to_act[k], C, C, true, true);
    want_linear(prefix, "self_attn.o", C, C, true, false);
    want_linear(prefix, "cross_attn.o", C, C, true, false);
    want_linear(prefix, "ffn.0", FFN, C, true, true);
    want_linear(prefix, "ffn.2", C, FFN, true, false);
}

static void want_all(void)
{
    n_wants = 0;
    want_linear("", "patch_embedding", C, 4 * Z, true, false);
    want_linear("", "text_embedding.0", C, TEXT, true, true);
    want_linear("", "text_embedding.2", C, C, true, true);
    want_linear("", "time_embedding.0", C, FREQ, false, false);
    want_linear("", "time_embedding.2", C, C, false, false);
    want_linear("", "time_projection.1", 6 * C, C, false, false);
    want_one("", "head.modulation", 2, C, false, 0, 0.3f);
    want_linear("", "head.head", 4 * Z, C, true, false);
    for (int32_t i = 0; i < LAYERS; i++) want_layer(i);
    assert_int_equal(n_wants, ALL);
}

/* Memory: each name's own, but for q, k and v, which lie in one; in lines of 256 bytes. */
static size_t want_bytes(size_t act_bytes)
{
    size_t all = 0;
    for (int32_t i = 0; i < ALL; i++) {
        const struct want *w = &wants[i];
        const bool is_q = strstr(w->name, "self_attn.q.") != NULL;
        if (strstr(w->name, "self_attn.k.") || strstr(w->name, "self_attn.v.")) continue;
        const size_t n = (size_t)w->rows * (size_t)(w->cols ? w->cols : 1) * (is_q ? 3 : 1);
        all += (n * (w->is_act ? act_bytes : 4) + HOLDS - 1) / HOLDS * HOLDS;
    }
    return all;
}

/* --- a model of these sizes, without a device ------------------------------------------------- */

struct box {
    struct dit *m;
    struct weights *w;
};

static void box_open(struct box *b, enum dtype act)
{
    b->m = check_alloc(sizeof *b->m + LAYERS * sizeof *b->m->layer);
    b->m->act = act;
    b->m->C = C;
    b->m->ffn = FFN;
    b->m->freq_dim = FREQ;
    b->m->text_dim = TEXT;
    b->m->z = Z;
    b->m->layers = LAYERS;
    assert_ok(weights_open(&b->w));
    assert_ok(dit_declare(b->m, b->w));
    want_all();
}

static const struct part *part_of(const struct weights *w, const char *name)
{
    const struct part *found = NULL;
    for (int32_t i = 0; i < w->n_parts; i++) {
        if (strcmp(w->parts[i].name, name) != 0) continue;
        if (found) fail_msg("%s is there twice", name);
        found = &w->parts[i];
    }
    if (!found) fail_msg("%s is not there", name);
    return found;
}

static void check_part(const struct want *w, const struct part *got, enum dtype act)
{
    const struct tensor t = tensor_rows(*got->at, got->first, got->n);
    const int32_t rank = w->cols ? 2 : 1;
    if (t.rank != rank || t.shape[0] != w->rows || (rank == 2 && t.shape[1] != w->cols))
        fail_msg("%s: rank %d [%d, %d]", w->name, t.rank, t.shape[0], t.shape[1]);
    if (t.dtype != (w->is_act ? act : DTYPE_F32)) fail_msg("%s: type %d", w->name, t.dtype);
    if (got->mean != w->mean || fabsf(got->std - w->std) > 1e-7f)
        fail_msg("%s: %g and %g", w->name, (double)got->mean, (double)got->std);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_names_shapes_and_spreads(void **state)
{
    (void)state;
    static const enum dtype acts[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t k = 0; k < COUNT(acts); k++) {
        struct box b;
        box_open(&b, acts[k]);
        assert_int_equal(weights_count(b.w), ALL);
        for (int32_t i = 0; i < ALL; i++)
            check_part(&wants[i], part_of(b.w, wants[i].name), acts[k]);
        assert_int_equal(weights_bytes(b.w), want_bytes(dtype_bytes(acts[k])));
        weights_close(&b.w);
    }
}

/* One product makes q, k and v of a token: their rows follow one another. */
static void test_three_names_in_one_matrix(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, DTYPE_F32);
    for (int32_t i = 0; i < LAYERS; i++)
        for (int32_t k = 0; k < 3; k++) {
            char name[64];
            const struct dit_layer *l = &b.m->layer[i];
            snprintf(name, sizeof name, "blocks.%d.self_attn.%c.weight", i, "qkv"[k]);
            const struct part *weight = part_of(b.w, name);
            snprintf(name, sizeof name, "blocks.%d.self_attn.%c.bias", i, "qkv"[k]);
            const struct part *bias = part_of(b.w, name);
            assert_true(weight->at == &l->qkv_w && bias->at == &l->qkv_b);
            assert_true(weight->first == k * C && bias->first == k * C);
            assert_true(weight->n == C && bias->n == C);
        }
    assert_true(b.m->layer[0].qkv_w.shape[0] == 3 * C && b.m->layer[0].qkv_b.shape[0] == 3 * C);
    weights_close(&b.w);
}

/* Whoever reads a checkpoint must find its own tensor behind a name. */
static void test_whose_name_is_whose(void **state)
{
    (void)state;
    struct box b;
    box_open(&b, DTYPE_F32);
    const struct dit *m = b.m;
    const struct dit_layer *l = &m->layer[2];
    const struct {
        const char *name;
        const struct tensor *at;
    } row[] = {
        {"patch_embedding.weight", &m->patch_w},
        {"patch_embedding.bias", &m->patch_b},
        {"text_embedding.0.weight", &m->text0_w},
        {"text_embedding.0.bias", &m->text0_b},
        {"text_embedding.2.weight", &m->text2_w},
        {"text_embedding.2.bias", &m->text2_b},
        {"time_embedding.0.weight", &m->time0_w},
        {"time_embedding.0.bias", &m->time0_b},
        {"time_embedding.2.weight", &m->time2_w},
        {"time_embedding.2.bias", &m->time2_b},
        {"time_projection.1.weight", &m->time_proj_w},
        {"time_projection.1.bias", &m->time_proj_b},
        {"head.modulation", &m->head_mod},
        {"head.head.weight", &m->head_w},
        {"head.head.bias", &m->head_b},
        {"blocks.2.modulation", &l->modulation},
        {"blocks.2.self_attn.norm_q.weight", &l->norm_q},
        {"blocks.2.self_attn.norm_k.weight", &l->norm_k},
        {"blocks.2.self_attn.o.weight", &l->o_w},
        {"blocks.2.self_attn.o.bias", &l->o_b},
        {"blocks.2.norm3.weight", &l->norm3_w},
        {"blocks.2.norm3.bias", &l->norm3_b},
        {"blocks.2.cross_attn.q.weight", &l->xq_w},
        {"blocks.2.cross_attn.q.bias", &l->xq_b},
        {"blocks.2.cross_attn.k.weight", &l->xk_w},
        {"blocks.2.cross_attn.k.bias", &l->xk_b},
        {"blocks.2.cross_attn.v.weight", &l->xv_w},
        {"blocks.2.cross_attn.v.bias", &l->xv_b},
        {"blocks.2.cross_attn.o.weight", &l->xo_w},
        {"blocks.2.cross_attn.o.bias", &l->xo_b},
        {"blocks.2.cross_attn.norm_q.weight", &l->xnorm_q},
        {"blocks.2.cross_attn.norm_k.weight", &l->xnorm_k},
        {"blocks.2.ffn.0.weight", &l->ffn0_w},
        {"blocks.2.ffn.0.bias", &l->ffn0_b},
        {"blocks.2.ffn.2.weight", &l->ffn2_w},
        {"blocks.2.ffn.2.bias", &l->ffn2_b},
    };
    for (size_t i = 0; i < COUNT(row); i++)
        if (part_of(b.w, row[i].name)->at != row[i].at) fail_msg("%s", row[i].name);
    assert_int_equal(COUNT(row) + 6, TOP + PER_LAYER); /* and q, k, v: see above */
    weights_close(&b.w);
}

/* The patch embedding alone is stored in another shape: as the convolution that it is. */
static void test_the_patches_of_a_checkpoint(void **state)
{
    (void)state;
    static const int32_t shape[] = {C, Z, 1, 2, 2};
    struct box b;
    box_open(&b, DTYPE_F32);
    for (int32_t i = 0; i < b.w->n_parts; i++) {
        const struct part *p = &b.w->parts[i];
        const bool is_patch = strcmp(p->name, "patch_embedding.weight") == 0;
        assert_int_equal(p->file_rank, is_patch ? 5 : 0);
        if (is_patch) assert_memory_equal(p->file_shape, shape, sizeof shape);
    }
    weights_close(&b.w);
}

/* dit_open declares no more and no less, from the sizes of the configuration. */
static void test_of_a_configuration(void **state)
{
    (void)state;
    struct conf c;
    struct dev *d = NULL;
    struct dit *m = NULL;
    struct weights *w = NULL;
    assert_ok(conf_load(&c, "configs/nano.ini", NULL, 0));
    assert_ok(dev_open(&d, "cpu", 1));
    assert_ok(ops_open(d));
    assert_ok(weights_open(&w));
    assert_ok(dit_open(&m, d, &c, w));
    want_all();
    assert_int_equal(weights_count(w), ALL);
    for (int32_t i = 0; i < ALL; i++) check_part(&wants[i], part_of(w, wants[i].name), DTYPE_F32);
    assert_int_equal(weights_bytes(w), want_bytes(4));
    dit_close(&m);
    weights_close(&w);
    ops_close(d);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names_shapes_and_spreads), TEST(test_three_names_in_one_matrix),
        TEST(test_whose_name_is_whose),      TEST(test_the_patches_of_a_checkpoint),
        TEST(test_of_a_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
