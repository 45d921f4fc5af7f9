/* test_bench.c - what a bench says: percentiles, floors, and the arithmetic of a unit of work. */
#include "bench/bench.h"
#include "bench/flops.h"
#include "tests/check.h"

static void test_times_are_sorted_first(void **state)
{
    (void)state;
    int64_t v[100];
    for (int i = 0; i < 100; i++) v[i] = 1000 * ((i * 37 + 11) % 100 + 1); /* 1 to 100 us */
    const struct bench_times t = bench_times_of(v, 100);
    assert_int_equal(t.n, 100);
    assert_float_equal(t.min_us, 1, 1e-9);
    assert_float_equal(t.median_us, 50, 1e-9);
    assert_float_equal(t.p95_us, 95, 1e-9);
    assert_float_equal(t.p99_us, 99, 1e-9);
    assert_float_equal(t.max_us, 100, 1e-9);
}

static void test_floor_is_the_larger_time(void **state)
{
    (void)state;
    struct bench_case c = {.flops = 6000, .bytes = 400};
    assert_float_equal(bench_floor(&c, 1000, 10), 6, 1e-9); /* warm: memory does not bound it */
    c.is_cold = true;
    assert_float_equal(bench_floor(&c, 1000, 10), 40, 1e-9);
    assert_float_equal(bench_floor(&c, 100, 10), 60, 1e-9);
    c.floor_us = 7;
    assert_float_equal(bench_floor(&c, 100, 10), 7, 1e-9);
    c = (struct bench_case){.bytes = 400};
    assert_float_equal(bench_floor(&c, 100, 10), 0, 1e-9);
}

/* Runs that get slower with time, and now and then take much longer: what is left is the cost. */
static void test_cost_of_what_is_done_by_turns(void **state)
{
    (void)state;
    enum { N = 400 };
    int64_t with_ns[N], without_ns[N];
    uint32_t x = 1;
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 2; k++) {
            x = x * 1664525u + 1013904223u;
            (k ? with_ns : without_ns)[i] = 1000000 + 500 * i + (int64_t)(x >> 16) % 2001 - 1000;
        }
        with_ns[i] += 5000;
        if (i % 20 == 0) with_ns[i] += 1000000;
        if (i % 30 == 7) without_ns[i] += 1000000;
    }
    struct bench_cost c = bench_cost_of(with_ns, without_ns, N);
    const double want = 5000 / 1100000.0; /* of the median, which is half the way up */
    assert_true(c.error > 0 && c.error < 0.0002);
    assert_true(c.share > want - 3 * c.error && c.share < want + 3 * c.error);
    c = bench_cost_of(without_ns, without_ns, N);
    assert_true(c.share == 0 && c.error == 0);
    c = bench_cost_of(with_ns, without_ns, 1);
    assert_true(c.error == 0);
}

/* By hand, on 4 tokens of width 3, attention of width 5, feed-forward of 7: four projections of
 * 120, logits and values of 160, three matrices of 168. */
static void test_flops_of_the_encoder(void **state)
{
    (void)state;
    struct conf c = {0};
    c.text.dim = 3;
    c.text.heads = 5;
    c.text.head_dim = 1;
    c.text.ffn_dim = 7;
    c.text.layers = 2;
    assert_float_equal(flops_text(&c, 4), 2 * (4 * 120 + 2 * 160 + 3 * 168), 1e-9);
}

/* By hand: 4 tokens of width 6 look at 12 keys and 7 text keys. */
static void test_flops_of_a_pass(void **state)
{
    (void)state;
    struct conf c = {0};
    c.model.latent_channels = 2;
    c.model.latent_rows = 4;
    c.model.latent_cols = 4;
    c.dit.dim = 6;
    c.dit.ffn_dim = 5;
    c.dit.layers = 2;
    c.dit.block = 1;
    c.dit.window = 3;
    const double qkv = 864, rest = 288 + 2 * 576 + 2 * 288 + 2 * 336 + 2 * 240, end = 384;
    const double whole = 2 * (qkv + rest) + 2 * end, only_kv = 2 * qkv + rest + end;
    assert_float_equal(flops_dit(&c, 1, 3, 7, false), whole, 1e-9);
    assert_float_equal(flops_dit(&c, 1, 3, 7, true), only_kv, 1e-9);
    assert_float_equal(flops_dit_block(&c, 4, 7), 4 * whole + only_kv, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times_are_sorted_first),
        cmocka_unit_test(test_floor_is_the_larger_time),
        cmocka_unit_test(test_cost_of_what_is_done_by_turns),
        cmocka_unit_test(test_flops_of_the_encoder),
        cmocka_unit_test(test_flops_of_a_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
