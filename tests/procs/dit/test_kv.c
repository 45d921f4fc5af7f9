/* test_kv.c - the ring holds what the reference's cache holds, at every pass. */
#include "procs/dit/kv.h"

#include <stdlib.h>
#include <string.h>

#include "procs/dit/plan.h"
#include "tests/check.h"
#include "tests/procs/dit/naive_cache.h"

static const int32_t shapes[][3] = {/* window, sink, block */
                                    {12, 3, 3}, {9, 3, 3},  {6, 3, 3}, {11, 2, 3},
                                    {13, 3, 3}, {12, 0, 3}, {12, 1, 3}};

/* The ring, in units of frames. */
struct ring {
    struct conf c;
    struct kv kv;
    int64_t owner[NAIVE_WINDOW_MAX];
    int32_t base;
};

static void ring_open(struct ring *r, const int32_t *shape, bool global_sink)
{
    memset(r, 0, sizeof *r);
    r->c.dit.window = r->kv.window = shape[0];
    r->c.dit.sink = r->kv.sink = shape[1];
    r->c.dit.block = shape[2];
    r->c.dit.global_sink = global_sink;
    for (int32_t i = 0; i < NAIVE_WINDOW_MAX; i++) r->owner[i] = -1;
}

static void ring_pass(struct ring *r, int64_t first, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        const int32_t slot = kv_slot(&r->kv, first + i, r->base);
        assert_in_range(slot, 0, r->kv.window - 1);
        r->owner[slot] = first + i;
    }
}

static int by_number(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void check_same_keys(const struct ring *r, const struct naive_cache *c, int64_t end)
{
    int64_t want[NAIVE_WINDOW_MAX], got[NAIVE_WINDOW_MAX];
    const int32_t n = kv_slots_used(&r->kv, end, r->base);
    assert_int_equal(n, c->n_keys);
    for (int32_t i = 0; i < n; i++) {
        want[i] = c->frame[c->key_slot[i]];
        got[i] = r->owner[i];
        assert_true(got[i] >= 0);
    }
    qsort(want, (size_t)n, sizeof *want, by_number);
    qsort(got, (size_t)n, sizeof *got, by_number);
    assert_memory_equal(got, want, (size_t)n * sizeof *want);
}

/* What the pipeline does at a switch, on both sides. */
static void switch_at(struct ring *r, struct naive_cache *c, int64_t at)
{
    int64_t first;
    int32_t n;
    r->base = plan_sink_base(&r->c, r->kv.window, DECISION_SWITCH, at, r->base);
    plan_recache(&r->c, r->kv.window, DECISION_SWITCH, at, r->base, &first, &n);
    ring_pass(r, first, n);
    const int64_t seen = at < r->c.dit.window ? at : r->c.dit.window;
    naive_cache_pass(c, at - seen, (int32_t)seen, !r->c.dit.global_sink);
    check_same_keys(r, c, at);
}

/* 20 blocks of three passes each, switches where bits of `switches` say so. */
static void run(const int32_t *shape, bool global_sink, uint32_t switches)
{
    struct ring r;
    struct naive_cache c;
    ring_open(&r, shape, global_sink);
    naive_cache_reset(&c, shape[0], shape[1]);
    for (int32_t block = 0; block < 20; block++) {
        const int64_t first = block * shape[2];
        if (block > 0 && (switches >> block & 1)) switch_at(&r, &c, first);
        for (int32_t pass = 0; pass < 3; pass++) {
            ring_pass(&r, first, shape[2]);
            naive_cache_pass(&c, first, shape[2], false);
            check_same_keys(&r, &c, first + shape[2]);
        }
    }
}

static void test_without_a_switch(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++) run(shapes[i], true, 0);
}

static void test_a_switch_at_every_block(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int32_t block = 1; block < 20; block++)
            for (int global = 0; global < 2; global++) run(shapes[i], global, 1u << block);
}

static void test_many_switches(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int k = 0; k < 500; k++)
            run(shapes[i], k % 2, (uint32_t)(check_next(&seed) & check_next(&seed)));
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int global = 0; global < 2; global++) run(shapes[i], global, UINT32_MAX);
}

/* LongLive's window, written out: sink 0-2, the last nine frames, positions by hand. */
static void test_slots_by_hand(void **state)
{
    (void)state;
    const struct kv kv = {.window = 12, .sink = 3};
    static const int32_t slot[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 3, 4, 5, 6};
    for (int32_t f = 0; f < (int32_t)COUNT(slot); f++) {
        assert_int_equal(kv_slot(&kv, f, 0), slot[f]);
        assert_int_equal(kv_slot(&kv, 100 + f, 100), slot[f]);
    }
    assert_int_equal(kv_slots_used(&kv, 3, 0), 3);
    assert_int_equal(kv_slots_used(&kv, 12, 0), 12);
    assert_int_equal(kv_slots_used(&kv, 15, 0), 12);
    assert_int_equal(kv_slots_used(&kv, 15, 6), 9);
}

static void before_the_sink(void)
{
    const struct kv kv = {.window = 12, .sink = 3};
    kv_slot(&kv, 5, 6);
}

static void test_a_frame_before_the_sink_aborts(void **state)
{
    (void)state;
    check_aborts(before_the_sink);
}

/* The views lie one behind the other and fill the region. */
static void check_views(enum conf_rope rope, int32_t n_sinks)
{
    struct conf c;
    struct kv kv;
    assert_ok(conf_load(&c, "configs/nano.ini", NULL, 0));
    c.dit.rope = rope;
    c.dit.window_max = 15; /* room for a preset's window */
    float *base = check_alloc(kv_bytes(&c, DTYPE_F32));
    assert_ok(kv_open(&kv, &c, DTYPE_F32, base));
    float *at = base;
    const int64_t embed = c.text.text_len * c.text.dim, frame = conf_frame_tokens(&c) * c.dit.dim;
    for (int32_t i = 0; i < 2; i++, at += embed) {
        assert_ptr_equal(kv.embed[i].data, at);
        assert_int_equal(tensor_count(kv.embed[i]), embed);
    }
    for (int32_t i = 0; i < c.dit.layers; i++) {
        const struct tensor part[] = {kv.k[i], kv.v[i], kv.k_sink[i]};
        const int64_t frames[] = {15, 15, n_sinks};
        for (int32_t k = 0; k < 3; at += frames[k++] * frame) {
            if (frames[k]) assert_ptr_equal(part[k].data, at);
            else assert_null(part[k].data);
            assert_int_equal(tensor_count(part[k]), frames[k] * frame);
        }
    }
    assert_ptr_equal(at, (char *)base + kv_bytes(&c, DTYPE_F32));
    kv_close(&kv);
    assert_null(kv.k);
}

static void test_views_fill_the_region(void **state)
{
    (void)state;
    check_views(ROPE_ABSOLUTE, 0);
    check_views(ROPE_RELATIVE, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_a_switch),      TEST(test_a_switch_at_every_block),
        TEST(test_many_switches),         TEST(test_slots_by_hand),
        TEST(test_views_fill_the_region), TEST(test_a_frame_before_the_sink_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
