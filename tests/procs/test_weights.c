/* test_weights.c - a tensor's values follow from seed and name alone; every value has a name. */
#include "tests/procs/naive.h"

#include "procs/dit/dit.h"
#include "procs/text/umt5.h"
#include "procs/vae/vae.h"

static struct dev *d;

static int open_dev(void **state)
{
    (void)state;
    return dev_open(&d, "cpu", 2) == OK && ops_open(d) == OK ? 0 : -1;
}

static int close_dev(void **state)
{
    (void)state;
    ops_close(d);
    dev_close(&d);
    return 0;
}

/* Three tensors, the middle one in two parts; `order` is how they are declared. */
struct trio {
    struct tensor a, b, c;
    struct weights *w;
    void *memory;
};

static void trio_open(struct trio *t, const char *order, const char *source)
{
    assert_ok(weights_open(&t->w));
    for (; *order; order++) {
        if (*order == 'a') {
            assert_ok(weights_room(t->w, &t->a, DTYPE_F32, 2, (int32_t[]){5, 7}));
            assert_ok(weights_name(t->w, &t->a, 0, 5, 0, 1, "a.weight"));
        } else if (*order == 'b') {
            assert_ok(weights_room(t->w, &t->b, DTYPE_F32, 2, (int32_t[]){6, 9}));
            assert_ok(weights_name(t->w, &t->b, 4, 2, 0, 1, "b.%d.weight", 2));
            assert_ok(weights_name(t->w, &t->b, 0, 4, 0, 1, "b.%d.weight", 1));
        } else {
            assert_ok(weights_room(t->w, &t->c, DTYPE_F32, 1, (int32_t[]){1}));
            assert_ok(weights_name(t->w, &t->c, 0, 1, 0, 1, "c.bias"));
        }
    }
    assert_ok(dev_alloc(d, weights_bytes(t->w), &t->memory));
    weights_bind(t->w, t->memory);
    assert_ok(weights_fill(t->w, d, source, NULL, NULL));
    assert_int_equal(weights_count(t->w), 4);
}

static void trio_close(struct trio *t)
{
    weights_close(&t->w);
    dev_free(d, &t->memory);
}

static bool is_same(const struct trio *x, const struct trio *y)
{
    return memcmp(x->a.data, y->a.data, tensor_bytes(x->a)) == 0 &&
           memcmp(x->b.data, y->b.data, tensor_bytes(x->b)) == 0 &&
           memcmp(x->c.data, y->c.data, tensor_bytes(x->c)) == 0;
}

static void test_seed_and_name_make_the_values(void **state)
{
    (void)state;
    struct trio one, two, other;
    trio_open(&one, "abc", "random:7");
    trio_open(&two, "abc", "random:7");
    trio_open(&other, "abc", "random:8");
    assert_true(is_same(&one, &two));
    assert_memory_not_equal(one.a.data, other.a.data, tensor_bytes(one.a));
    assert_memory_not_equal(one.b.data, other.b.data, tensor_bytes(one.b));
    assert_memory_not_equal(one.c.data, other.c.data, tensor_bytes(one.c));
    assert_memory_not_equal(one.a.data, one.b.data, tensor_bytes(one.a));
    const float *b = one.b.data;
    assert_memory_not_equal(b, b + 4 * 9, 2 * 9 * sizeof *b); /* its two parts */
    trio_close(&one);
    trio_close(&two);
    trio_close(&other);
}

static void test_order_of_declaration_does_not_matter(void **state)
{
    (void)state;
    static const char *const orders[] = {"acb", "bac", "bca", "cab", "cba"};
    struct trio one, two;
    trio_open(&one, "abc", "random:18446744073709551615");
    for (size_t i = 0; i < COUNT(orders); i++) {
        trio_open(&two, orders[i], "random:18446744073709551615");
        assert_true(is_same(&one, &two));
        trio_close(&two);
    }
    trio_close(&one);
}

/* The values themselves, so that no seed gives other frames after an upgrade. */
static void test_values_are_the_named_sequence(void **state)
{
    (void)state;
    struct trio t;
    trio_open(&t, "abc", "random:7");
    const float *b = t.b.data;
    const struct rng_key one = {7, rng_stream("b.1.weight")}, two = {7, rng_stream("b.2.weight")};
    for (uint64_t i = 0; i < 36; i++) assert_true(b[i] == rng_normal(one, i));
    for (uint64_t i = 0; i < 18; i++) assert_true(b[36 + i] == rng_normal(two, i));
    trio_close(&t);
}

static void test_mean_and_spread(void **state)
{
    (void)state;
    enum { N = 1000000 };
    struct weights *w = NULL;
    struct tensor t;
    void *memory = NULL;
    double sum = 0, square = 0;
    assert_ok(weights_open(&w));
    assert_ok(weights_room(w, &t, DTYPE_F32, 2, (int32_t[]){N / 100, 100}));
    assert_ok(weights_name(w, &t, 0, N / 100, 3, 0.25f, "t"));
    assert_ok(dev_alloc(d, weights_bytes(w), &memory));
    weights_bind(w, memory);
    assert_ok(weights_fill(w, d, "random:1", NULL, NULL));
    const float *x = t.data;
    for (int i = 0; i < N; i++) sum += (double)x[i];
    for (int i = 0; i < N; i++) square += pow((double)x[i] - sum / N, 2);
    assert_true(fabs(sum / N - 3) < 5 * 0.25 / sqrt(N));
    assert_true(fabs(sqrt(square / N) - 0.25) < 5 * 0.25 / sqrt(2.0 * N));
    weights_close(&w);
    dev_free(d, &memory);
}

static void test_other_sources_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "random:", "random", "file:x", "random:x"};
    struct weights *w = NULL;
    assert_ok(weights_open(&w));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(weights_fill(w, d, bad[i], NULL, NULL), ERR_CONFIG);
    weights_close(&w);
    assert_null(w);
    weights_close(&w); /* nothing */
}

/* --- the models
 * ------------------------------------------------------------------------------------ */

/* Every value of every room lies in one named part, names are unique, rooms do not overlap. */
static void check_cover(struct naive_box *b, const char *name)
{
    int64_t n_rooms = 0, n_parts = 0;
    naive_box_fill(b);
    uint8_t *const seen = check_alloc(weights_bytes(b->w));
    for (int32_t i = 0; i < b->w->n_rooms; i++) {
        const struct tensor t = *b->w->rooms[i].at;
        n_rooms += tensor_count(t);
        assert_int_equal((uintptr_t)t.data % 64, 0);
        assert_true((char *)t.data + tensor_bytes(t) <= (char *)b->weights + weights_bytes(b->w));
    }
    for (int32_t i = 0; i < b->w->n_parts; i++) {
        const struct part *p = &b->w->parts[i];
        const struct tensor t = tensor_rows(*p->at, p->first, p->n);
        const size_t at = (size_t)((char *)t.data - (char *)b->weights);
        n_parts += tensor_count(t);
        assert_true(p->std > 0);
        for (size_t k = 0; k < tensor_bytes(t); k++) assert_int_equal(seen[at + k]++, 0);
        for (int32_t k = 0; k < i; k++) assert_string_not_equal(p->name, b->w->parts[k].name);
    }
    assert_int_equal(n_rooms, n_parts);
    print_message("%s: %d tensors, %lld values\n", name, weights_count(b->w), (long long)n_parts);
}

static void test_models_name_every_value_once(void **state)
{
    (void)state;
    struct naive_box b;
    struct umt5 *text = NULL;
    struct dit *dit = NULL;
    struct vae *vae = NULL;

    naive_box_open(&b, NULL, 0, 1);
    assert_ok(umt5_open(&text, b.d, &b.c, b.w));
    assert_int_equal(weights_count(b.w), 2 + 10 * b.c.text.layers);
    check_cover(&b, "umt5");
    umt5_close(&text);
    naive_box_close(&b);

    naive_box_open(&b, NULL, 0, 1);
    assert_ok(dit_open(&dit, b.d, &b.c, b.w));
    assert_int_equal(weights_count(b.w), 15 + 27 * b.c.dit.layers);
    check_cover(&b, "dit");
    dit_close(&dit);
    naive_box_close(&b);

    naive_box_open(&b, NULL, 0, 1);
    assert_ok(vae_open(&vae, b.d, &b.c, b.w));
    assert_int_equal(weights_count(b.w), 108);
    check_cover(&b, "vae");
    vae_close(&vae);
    naive_box_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_seed_and_name_make_the_values), TEST(test_order_of_declaration_does_not_matter),
        TEST(test_values_are_the_named_sequence), TEST(test_mean_and_spread),
        TEST(test_other_sources_are_refused),     TEST(test_models_name_every_value_once),
    };
    return cmocka_run_group_tests(tests, open_dev, close_dev);
}
