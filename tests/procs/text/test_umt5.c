/* test_umt5.c - the encoder against a naive f64 one that knows nothing of ops. */
#include "procs/text/umt5.h"

#include "tests/procs/naive.h"

/* --- the oracle ----------------------------------------------------------------------------------
 * Raffel et al. 2020: pre-norm, no scale in attention, no biases, gated GELU. */

struct naive_umt5 {
    const struct naive_box *b;
    int64_t C, A, F, N, D; /* dim, attention, feed-forward, heads, head dim */
    double *x, *h, *q, *k, *v, *o, *a, *g;
};

/* The thresholds of the magnitude are the ones that the formula's f32 logarithm gives. */
static int64_t bucket_of(int64_t rel)
{
    static const int64_t from[] = {8, 12, 16, 23, 32, 46, 64, 91};
    const int64_t d = rel < 0 ? -rel : rel;
    int64_t bucket = d < 8 ? d : 7;
    for (size_t i = 0; i < COUNT(from); i++) bucket += d >= from[i];
    return bucket + (rel > 0 ? 16 : 0);
}

static void attend(struct naive_umt5 *u, int32_t layer, int64_t S)
{
    const double *table =
        naive_weight(u->b, 32 * u->N, "blocks.%d.pos_embedding.embedding.weight", layer);
    double *bias = malloc((size_t)S * sizeof *bias);
    assert_non_null(bias);
    for (int64_t s = 0; s < S; s++)
        for (int64_t n = 0; n < u->N; n++) {
            const int64_t at = s * u->A + n * u->D;
            for (int64_t m = 0; m < S; m++) bias[m] = table[bucket_of(m - s) * u->N + n];
            naive_attend(u->o + at, u->q + at, u->k + n * u->D, u->v + n * u->D, S, u->D, u->A, 1,
                         bias);
        }
    free(bias);
}

static void run_layer(struct naive_umt5 *u, int32_t i, int64_t S)
{
    const int64_t C = u->C, A = u->A, F = u->F;
    const struct naive_box *b = u->b;
    naive_rms(u->h, u->x, naive_weight(b, C, "blocks.%d.norm1.weight", i), S, C);
    naive_linear(u->q, u->h, naive_weight(b, A * C, "blocks.%d.attn.q.weight", i), NULL, S, C, A);
    naive_linear(u->k, u->h, naive_weight(b, A * C, "blocks.%d.attn.k.weight", i), NULL, S, C, A);
    naive_linear(u->v, u->h, naive_weight(b, A * C, "blocks.%d.attn.v.weight", i), NULL, S, C, A);
    attend(u, i, S);
    naive_linear(u->h, u->o, naive_weight(b, A * C, "blocks.%d.attn.o.weight", i), NULL, S, A, C);
    for (int64_t j = 0; j < S * C; j++) u->x[j] += u->h[j];

    naive_rms(u->h, u->x, naive_weight(b, C, "blocks.%d.norm2.weight", i), S, C);
    naive_linear(u->a, u->h, naive_weight(b, F * C, "blocks.%d.ffn.fc1.weight", i), NULL, S, C, F);
    naive_linear(u->g, u->h, naive_weight(b, F * C, "blocks.%d.ffn.gate.0.weight", i), NULL, S, C,
                 F);
    for (int64_t j = 0; j < S * F; j++) u->a[j] *= naive_gelu(u->g[j]);
    naive_linear(u->h, u->a, naive_weight(b, C * F, "blocks.%d.ffn.fc2.weight", i), NULL, S, F, C);
    for (int64_t j = 0; j < S * C; j++) u->x[j] += u->h[j];
}

static double *naive_encode(const struct naive_box *b, const int32_t *ids, int64_t S)
{
    const struct conf *c = &b->c;
    struct naive_umt5 u = {.b = b, .C = c->text.dim, .F = c->text.ffn_dim, .N = c->text.heads};
    u.D = c->text.head_dim;
    u.A = u.N * u.D;
    double **const rows[] = {&u.x, &u.h, &u.q, &u.k, &u.v, &u.o, &u.a, &u.g};
    const int64_t cols[] = {u.C, u.C, u.A, u.A, u.A, u.A, u.F, u.F};
    for (size_t i = 0; i < COUNT(rows); i++) *rows[i] = check_doubles(S * cols[i]);
    const double *table = naive_weight(b, c->text.vocab * u.C, "token_embedding.weight");
    for (int64_t s = 0; s < S; s++)
        for (int64_t j = 0; j < u.C; j++) u.x[s * u.C + j] = table[ids[s] * u.C + j];
    for (int32_t i = 0; i < c->text.layers; i++) run_layer(&u, i, S);
    naive_rms(u.h, u.x, naive_weight(b, u.C, "norm.weight"), S, u.C);
    return u.h;
}

/* --- tests
 * ---------------------------------------------------------------------------------------- */

static void draw_ids(int32_t *ids, int32_t n, int32_t vocab, uint64_t seed)
{
    for (int32_t i = 0; i < n; i++) ids[i] = (int32_t)(check_next(&seed) % (uint64_t)vocab);
}

static void count_beat(void *self)
{
    ++*(int32_t *)self;
}

static void compare(const char *const *sets, int32_t n_sets, const int32_t *lengths, size_t n)
{
    struct naive_box b;
    struct umt5 *u = NULL;
    double worst = 0;
    naive_box_open(&b, sets, n_sets, 2);
    assert_ok(umt5_open(&u, b.d, &b.c, b.w));
    naive_box_fill(&b);
    dev_seal(b.d);
    for (size_t i = 0; i < n; i++) {
        const int32_t S = lengths[i];
        int32_t ids[256], n_beats = 0;
        float *got = check_floats(S * b.c.text.dim, 1);
        draw_ids(ids, S, b.c.text.vocab, (uint64_t)S);
        assert_ok(umt5_encode(u, ids, S, got, count_beat, &n_beats));
        assert_int_equal(n_beats, b.c.text.layers);
        naive_close(&worst, got, naive_encode(&b, ids, S), S * b.c.text.dim, 1e-5);
    }
    print_message("umt5: largest relative error %.2e\n", worst);
    assert_int_equal(dev_allocs_sealed(b.d), 0);
    umt5_close(&u);
    naive_box_close(&b);
}

static void test_nano_against_the_oracle(void **state)
{
    (void)state;
    const int32_t lengths[] = {1, 2, 7, 15, 16};
    compare(NULL, 0, lengths, COUNT(lengths));
}

/* Longer than the farthest bucket, odd sizes, attention of another width than the model. */
static void test_long_and_odd_against_the_oracle(void **state)
{
    (void)state;
    const char *sets[] = {"text.text_len=160", "text.dim=40",     "text.heads=3",
                          "text.head_dim=6",   "text.ffn_dim=56", "text.layers=3"};
    const int32_t lengths[] = {1, 33, 100, 160};
    compare(sets, COUNT(sets), lengths, COUNT(lengths));
}

static void encode_with(int32_t n_threads, float *out)
{
    struct naive_box b;
    struct umt5 *u = NULL;
    int32_t ids[16];
    naive_box_open(&b, NULL, 0, n_threads);
    assert_ok(umt5_open(&u, b.d, &b.c, b.w));
    naive_box_fill(&b);
    draw_ids(ids, 16, b.c.text.vocab, 5);
    assert_ok(umt5_encode(u, ids, 16, out, NULL, NULL)); /* leaves its rows in the scratch */
    draw_ids(ids, 16, b.c.text.vocab, 6);
    assert_ok(umt5_encode(u, ids, 9, out, NULL, NULL));
    umt5_close(&u);
    naive_box_close(&b);
}

static void test_same_bits_whatever_the_threads(void **state)
{
    (void)state;
    float *one = check_floats(16 * 32, 1), *three = check_floats(16 * 32, 2);
    encode_with(1, one);
    encode_with(3, three);
    assert_memory_equal(one, three, 9 * 32 * sizeof *one);
}

static void test_open_survives_each_failed_alloc(void **state)
{
    (void)state;
    int nth = 0;
    for (err_t e = ERR_NOMEM; e != OK; nth++) {
        struct naive_box b;
        struct umt5 *u = NULL;
        naive_box_open(&b, NULL, 0, 1);
        const size_t before = dev_live_bytes(b.d);
        dev_fail_at(b.d, nth);
        e = umt5_open(&u, b.d, &b.c, b.w);
        dev_fail_at(b.d, -1);
        assert_int_equal(e == OK, u != NULL);
        if (e != OK) assert_int_equal(e, ERR_NOMEM);
        umt5_close(&u);
        assert_int_equal(dev_live_bytes(b.d), before);
        naive_box_close(&b);
    }
    assert_int_equal(nth, 2); /* one allocation fails, then none */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nano_against_the_oracle),
        TEST(test_long_and_odd_against_the_oracle),
        TEST(test_same_bits_whatever_the_threads),
        TEST(test_open_survives_each_failed_alloc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
