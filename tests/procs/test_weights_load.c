/* test_weights_load.c - checkpoints of the models that the models did not write: each value comes
 * from its name and place in the public layout, and is looked for where the model reads it. */
#include "tests/procs/naive.h"

#include "tests/scratch.h"

#include "procs/dit/dit.h"
#include "procs/text/umt5.h"
#include "procs/vae/vae.h"

/* --- a safetensors file, tensor by tensor ----------------------------------------------------- */

struct writer {
    char header[1 << 17];
    size_t n;
    uint64_t at;
    FILE *values;
    char *data;
    size_t n_data;
};

static void writer_open(struct writer *w)
{
    memset(w, 0, sizeof *w);
    w->n = 1;
    w->header[0] = '{';
    w->values = open_memstream(&w->data, &w->n_data);
}

static const char *writer_close(struct writer *w, const char *name)
{
    const char *path = scratch_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    w->header[w->n++] = '}';
    const uint64_t n = w->n;
    fclose(w->values);
    assert_int_equal(fwrite(&n, 8, 1, f), 1);
    assert_int_equal(fwrite(w->header, 1, w->n, f), w->n);
    assert_int_equal(fwrite(w->data, 1, w->n_data, f), w->n_data);
    assert_int_equal(fclose(f), 0);
    free(w->data);
    return path;
}

/* Value i of a tensor: 23 bits of its name and place, so that bf16 must round. */
static float value(const char *name, int64_t i)
{
    const uint64_t mixed = (rng_stream(name) + (uint64_t)i) * UINT64_C(0x9E3779B97F4A7C15);
    return (float)(int32_t)(mixed >> 41) / 0x1p23f - 0.5f;
}

static void put(struct writer *w, const char *name, enum ckpt_dtype t, int32_t rank,
                const int64_t *shape)
{
    char dims[CKPT_RANK_MAX * 24], raw[8];
    int64_t n = 1;
    ckpt_shape_text(shape, rank, dims, sizeof dims);
    for (int32_t i = 0; i < rank; i++) n *= shape[i];
    const uint64_t n_bytes = (uint64_t)n * ckpt_dtype_bytes(t);
    w->n +=
        (size_t)snprintf(w->header + w->n, sizeof w->header - w->n - 1,
                         "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
                         w->n > 1 ? "," : "", name, ckpt_dtype_name(t), dims,
                         (unsigned long long)w->at, (unsigned long long)(w->at + n_bytes));
    assert_true(w->n < sizeof w->header - 1);
    w->at += n_bytes;
    for (int64_t i = 0; i < n; i++) {
        const float x = value(name, i);
        memset(raw, 0, sizeof raw);
        if (ckpt_is_float(t)) ckpt_round(t, raw, &x, 1);
        fwrite(raw, 1, ckpt_dtype_bytes(t), w->values);
    }
}

/* The public shape of a part, written out by hand: convolutions are [O, C, k...], or without kt
 * where they see one frame, norms of the VAE have ones behind, modulations one in front. */
static int32_t public_shape(const struct part *p, int64_t *shape)
{
    const struct tensor t = tensor_rows(*p->at, p->first, p->n);
    const size_t n_name = strlen(p->name);
    int32_t rank = 0;
    if (t.rank == 5) {
        shape[rank++] = t.shape[0];
        shape[rank++] = t.shape[4];
        for (int i = t.shape[1] == 1 && strcmp(p->name, "conv2.weight") != 0 ? 2 : 1; i < 4; i++)
            shape[rank++] = t.shape[i];
        return rank;
    }
    if (strcmp(p->name, "patch_embedding.weight") == 0) {
        const int64_t five[] = {t.shape[0], t.shape[1] / 4, 1, 2, 2};
        memcpy(shape, five, sizeof five);
        return 5;
    }
    if (strstr(p->name, "modulation")) shape[rank++] = 1;
    for (int i = 0; i < t.rank; i++) shape[rank++] = t.shape[i];
    if (n_name > 6 && strcmp(p->name + n_name - 6, ".gamma") == 0)
        for (int i = 0; i < 3; i++) shape[rank++] = 1;
    return rank;
}

static void put_all(struct writer *w, const struct weights *of, const char *prefix,
                    enum ckpt_dtype t)
{
    int64_t shape[CKPT_RANK_MAX];
    char name[160];
    for (int32_t i = of->n_parts - 1; i >= 0; i--) { /* in another order */
        const int32_t rank = public_shape(&of->parts[i], shape);
        snprintf(name, sizeof name, "%s%s", prefix, of->parts[i].name);
        put(w, name, t, rank, shape);
    }
}

/* --- models ----------------------------------------------------------------------------------- */

static void open_model(struct naive_box *b, const char *name, void **model)
{
    naive_box_open(b, NULL, 0, 1);
    if (strcmp(name, "text") == 0) assert_ok(umt5_open((struct umt5 **)model, b->d, &b->c, b->w));
    if (strcmp(name, "dit") == 0) assert_ok(dit_open((struct dit **)model, b->d, &b->c, b->w));
    if (strcmp(name, "vae") == 0) assert_ok(vae_open((struct vae **)model, b->d, &b->c, b->w));
    assert_ok(dev_alloc(b->d, weights_bytes(b->w), &b->weights));
    weights_bind(b->w, b->weights);
}

static void close_model(struct naive_box *b, const char *name, void **model)
{
    if (strcmp(name, "text") == 0) umt5_close((struct umt5 **)model);
    if (strcmp(name, "dit") == 0) dit_close((struct dit **)model);
    if (strcmp(name, "vae") == 0) vae_close((struct vae **)model);
    naive_box_close(b);
}

static err_t load(struct naive_box *b, const char *path, struct lora *lora)
{
    err_t e = OK;
    struct checkpoint *c = NULL;
    TRY(checkpoint_open(&c, path));
    TRY(checkpoint_clean(c));
    TRY(weights_load(b->w, b->d, c, lora, NULL, NULL));
out:
    checkpoint_close(&c);
    return e;
}

/* Each value of each part, from its place in the public layout. */
static void check_all(const struct naive_box *b, const char *prefix, enum ckpt_dtype t)
{
    char name[160];
    for (int32_t i = 0; i < b->w->n_parts; i++) {
        const struct part *p = &b->w->parts[i];
        const struct tensor rows = tensor_rows(*p->at, p->first, p->n);
        const float *x = rows.data;
        const int64_t n = tensor_count(rows);
        const int64_t C = rows.rank == 5 ? rows.shape[4] : 1, n_row = n / p->n;
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        for (int64_t k = 0; k < n; k++) {
            const int64_t row = k / n_row, rest = k % n_row;
            /* Here k then c; in the file c then k. */
            const int64_t at = row * n_row + rest % C * (n_row / C) + rest / C;
            const float want = value(name, at);
            uint16_t bf16;
            uint32_t bits;
            ckpt_round(CKPT_BF16, &bf16, &want, 1);
            bits = (uint32_t)bf16 << 16;
            float rounded;
            memcpy(&rounded, &bits, sizeof rounded);
            if (x[k] != (t == CKPT_BF16 ? rounded : want))
                fail_msg("%s[%lld] = %a", p->name, (long long)k, (double)x[k]);
        }
    }
}

static void test_every_value_finds_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *model, *prefix;
        enum ckpt_dtype t;
    } cases[] = {{"text", "", CKPT_BF16},
                 {"dit", "", CKPT_F32},
                 {"dit", "model.", CKPT_BF16},
                 {"vae", "", CKPT_F32}};
    static struct writer w;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct naive_box b;
        void *model = NULL;
        open_model(&b, cases[i].model, &model);
        writer_open(&w);
        put_all(&w, b.w, cases[i].prefix, cases[i].t);
        if (strcmp(cases[i].model, "vae") == 0) { /* the half that encodes is not needed */
            put(&w, "encoder.conv1.weight", CKPT_F32, 1, (int64_t[]){3});
            put(&w, "conv1.bias", CKPT_F32, 1, (int64_t[]){3});
        }
        assert_ok(load(&b, writer_close(&w, "m.safetensors"), NULL));
        check_all(&b, cases[i].prefix, cases[i].t);
        close_model(&b, cases[i].model, &model);
    }
}

static void count_progress(void *self, uint64_t n_done, uint64_t n_all)
{
    uint64_t *seen = self;
    assert_true(n_done > seen[0] && n_done <= n_all);
    seen[0] = n_done;
    seen[1] = n_all;
}

/* Rows wider and parts longer than a piece; a room of bf16. */
static void test_pieces_and_bf16(void **state)
{
    (void)state;
    static struct writer w;
    struct naive_box b;
    struct tensor big, half;
    struct checkpoint *c = NULL;
    uint64_t seen[2] = {0, 0};
    const int32_t rows = 3000, cols = 700;
    naive_box_open(&b, NULL, 0, 1);
    assert_ok(weights_room(b.w, &big, DTYPE_F32, 2, (int32_t[]){rows, cols}));
    assert_ok(weights_name(b.w, &big, 0, rows, 0, 1, "big"));
    assert_ok(weights_room(b.w, &half, DTYPE_F32, 2, (int32_t[]){6, 5}));
    half.dtype = DTYPE_BF16;
    assert_ok(weights_name(b.w, &half, 2, 4, 0, 1, "half"));
    assert_ok(dev_alloc(b.d, weights_bytes(b.w), &b.weights));
    weights_bind(b.w, b.weights);
    writer_open(&w);
    put(&w, "big", CKPT_F32, 2, (int64_t[]){rows, cols});
    put(&w, "half", CKPT_F32, 2, (int64_t[]){4, 5});
    assert_ok(checkpoint_open(&c, writer_close(&w, "big.safetensors")));
    assert_ok(weights_load(b.w, b.d, c, NULL, count_progress, seen));
    checkpoint_close(&c);
    const float *x = big.data;
    for (int64_t i = 0; i < (int64_t)rows * cols; i++) assert_true(x[i] == value("big", i));
    const uint16_t *y = half.data;
    for (int i = 0; i < 10; i++) assert_int_equal(y[i], 0);
    for (int i = 0; i < 20; i++) {
        const float v = value("half", i);
        uint16_t want;
        ckpt_round(CKPT_BF16, &want, &v, 1);
        assert_int_equal(y[10 + i], want);
    }
    assert_int_equal(seen[0], seen[1]);
    assert_int_equal(seen[1], 4 * (rows * cols + 20));
    naive_box_close(&b);
}

/* Two matrices of one room, of which the LoRA changes one. */
static void test_lora_is_merged_before_rounding(void **state)
{
    (void)state;
    static struct writer w;
    struct naive_box b;
    struct tensor qk;
    struct lora *lora = NULL;
    naive_box_open(&b, NULL, 0, 1);
    assert_ok(weights_room(b.w, &qk, DTYPE_F32, 2, (int32_t[]){8, 3}));
    assert_ok(weights_name(b.w, &qk, 0, 4, 0, 1, "x.q.weight"));
    assert_ok(weights_name(b.w, &qk, 4, 4, 0, 1, "x.k.weight"));
    assert_ok(dev_alloc(b.d, weights_bytes(b.w), &b.weights));
    weights_bind(b.w, b.weights);
    writer_open(&w);
    put(&w, "x.q.weight", CKPT_F32, 2, (int64_t[]){4, 3});
    put(&w, "x.k.weight", CKPT_F32, 2, (int64_t[]){4, 3});
    writer_close(&w, "base.safetensors");
    writer_open(&w);
    put(&w, "base_model.model.x.k.lora_A.weight", CKPT_F32, 2, (int64_t[]){2, 3});
    put(&w, "base_model.model.x.k.lora_B.weight", CKPT_F32, 2, (int64_t[]){4, 2});
    assert_ok(lora_open(&lora, writer_close(&w, "lora.safetensors"), 6)); /* scale 3 */
    assert_ok(load(&b, scratch_path("base.safetensors"), lora));
    const float *x = qk.data;
    for (int64_t i = 0; i < 12; i++) {
        double k = (double)value("x.k.weight", i);
        for (int64_t r = 0; r < 2; r++)
            k += 3 * (double)value("base_model.model.x.k.lora_B.weight", i / 3 * 2 + r) *
                 (double)value("base_model.model.x.k.lora_A.weight", r * 3 + i % 3);
        assert_true(x[i] == value("x.q.weight", i));
        assert_true(fabs((double)x[12 + i] - k) < 1e-6);
    }

    /* Rounded once: bf16 of the sum, not of the parts. */
    qk.dtype = DTYPE_BF16;
    float merged[12];
    memcpy(merged, x + 12, sizeof merged);
    assert_ok(load(&b, scratch_path("base.safetensors"), lora));
    uint16_t want[12];
    ckpt_round(CKPT_BF16, want, merged, 12);
    assert_memory_equal((uint16_t *)qk.data + 12, want, sizeof want);

    /* A LoRA for what the model does not have. */
    lora_close(&lora);
    writer_open(&w);
    put(&w, "x.v.lora_A.weight", CKPT_F32, 2, (int64_t[]){2, 3});
    put(&w, "x.v.lora_B.weight", CKPT_F32, 2, (int64_t[]){4, 2});
    put(&w, "x.q.lora_A.weight", CKPT_F32, 2, (int64_t[]){2, 4});
    put(&w, "x.q.lora_B.weight", CKPT_F32, 2, (int64_t[]){4, 2});
    assert_ok(lora_open(&lora, writer_close(&w, "lora.safetensors"), 0));
    want_fails(load(&b, scratch_path("base.safetensors"), lora), ERR_DATA,
               "0 missing, 1 not expected, 1 wrong; not expected: LoRA of x.v.weight; wrong: "
               "x.q.weight and its LoRA differ in shape");
    lora_close(&lora);
    naive_box_close(&b);
}

static void test_what_does_not_fit_is_listed(void **state)
{
    (void)state;
    static struct writer w;
    struct naive_box b;
    void *model = NULL;
    open_model(&b, "dit", &model);
    writer_open(&w);
    put_all(&w, b.w, "", CKPT_F32);
    put(&w, "head.bias", CKPT_F32, 1, (int64_t[]){4});
    want_fails(load(&b, writer_close(&w, "m.safetensors"), NULL), ERR_DATA,
               "m.safetensors: of 96 tensors 0 missing, 1 not expected, 0 wrong; not expected: "
               "head.bias");

    writer_open(&w);
    int64_t shape[CKPT_RANK_MAX];
    for (int32_t i = 0; i < b.w->n_parts; i++) {
        const struct part *p = &b.w->parts[i];
        int32_t rank = public_shape(p, shape);
        enum ckpt_dtype t = CKPT_F32;
        if (strncmp(p->name, "blocks.2.ffn", 12) == 0) continue;
        if (strcmp(p->name, "head.modulation") == 0) shape[1] = 3;
        if (strcmp(p->name, "head.head.bias") == 0) t = CKPT_I32;
        if (strcmp(p->name, "text_embedding.0.weight") == 0) { /* transposed */
            shape[0] = p->at->shape[1];
            shape[1] = p->at->shape[0];
        }
        put(&w, p->name, t, rank, shape);
    }
    want_fails(load(&b, writer_close(&w, "m.safetensors"), NULL), ERR_DATA,
               "of 96 tensors 4 missing, 0 not expected, 3 wrong; missing: blocks.2.ffn.0.weight, "
               "blocks.2.ffn.0.bias, blocks.2.ffn.2.weight, ...; wrong: text_embedding.0.weight "
               "[32, 48], not [48, 32], head.modulation [1, 3, 48], not [2, 48], head.head.bias is "
               "I32");
    close_model(&b, "dit", &model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_value_finds_its_place),
        TEST(test_pieces_and_bf16),
        TEST(test_lora_is_merged_before_rounding),
        TEST(test_what_does_not_fit_is_listed),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
