/* test_dit.c - passes, roll-outs and recaches against a naive f64 DiT with the reference's cache.
 */
#include "procs/dit/dit.h"

#include "procs/dit/plan.h"
#include "tests/procs/dit/naive_dit.h"

enum { BLOCKS = 9 };

/* --- the product, opened, with a prompt
 * ----------------------------------------------------------- */

struct rig {
    struct naive_box b;
    struct dit *m;
    struct kv kv;
    void *kv_mem, *memory;
    struct tensor x, flow, eps; /* [window, Z, Y, X] each */
    int64_t values;             /* of one frame */
    struct naive_dit *n;
    int32_t base;
    double worst;
};

static void rig_open(struct rig *r, const char *const *sets, int32_t n_sets, int32_t n_threads)
{
    memset(r, 0, sizeof *r);
    naive_box_open(&r->b, sets, n_sets, n_threads);
    const struct conf *c = &r->b.c;
    const int32_t W = c->dit.window, Z = c->model.latent_channels, Y = c->model.latent_rows;
    const int32_t X = c->model.latent_cols;
    assert_ok(dit_open(&r->m, r->b.d, c, r->b.w));
    naive_box_fill(&r->b);
    assert_ok(dev_alloc(r->b.d, kv_bytes(c, DTYPE_F32), &r->kv_mem));
    assert_ok(kv_open(&r->kv, c, DTYPE_F32, r->kv_mem));
    assert_ok(dit_prepare(r->m, &r->kv, c->dit.steps));
    r->values = (int64_t)Z * Y * X;
    const size_t n_bytes = (size_t)(W * r->values) * sizeof(float);
    assert_ok(dev_alloc(r->b.d, 3 * n_bytes, &r->memory));
    r->x = TENSOR(r->memory, DTYPE_F32, W, Z, Y, X);
    r->flow = TENSOR((char *)r->memory + n_bytes, DTYPE_F32, W, Z, Y, X);
    r->eps = TENSOR((char *)r->memory + 2 * n_bytes, DTYPE_F32, W, Z, Y, X);
    dev_seal(r->b.d);
    r->n = naive_dit_load(&r->b);
}

static void rig_close(struct rig *r)
{
    assert_int_equal(dev_allocs_sealed(r->b.d), 0);
    dit_close(&r->m);
    kv_close(&r->kv);
    dev_free(r->b.d, &r->kv_mem);
    dev_free(r->b.d, &r->memory);
    naive_box_close(&r->b);
}

/* A prompt of n_tokens rows, on both sides; alternates between the halves as the pipeline does. */
static void set_prompt(struct rig *r, int32_t parity, int32_t n_tokens, uint64_t seed)
{
    const int64_t E = r->b.c.text.dim, all = r->b.c.text.text_len * E;
    float *embed = malloc((size_t)all * sizeof *embed);
    assert_non_null(embed);
    for (int64_t i = 0; i < all; i++) /* what lies behind the valid rows must not matter */
        embed[i] = (float)(check_next(&seed) >> 40) * 0x1p-23f - 1;
    assert_ok(dev_upload(r->b.d, r->kv.embed[parity].data, embed, (size_t)all * sizeof *embed));
    assert_ok(dit_set_prompt(r->m, parity, n_tokens));
    naive_dit_prompt(r->n, embed, n_tokens);
    free(embed);
}

static struct tensor frames_of(struct tensor t, int32_t F)
{
    return tensor_rows(t, 0, F);
}

/* Normal numbers named by seed, to the device and as f64. */
static void draw(struct rig *r, struct tensor to, double *as, uint64_t seed)
{
    const int64_t n = tensor_count(to);
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = rng_normal((struct rng_key){seed, 99}, (uint64_t)i);
        if (as) as[i] = (double)x[i];
    }
    assert_ok(dev_upload(r->b.d, to.data, x, tensor_bytes(to)));
    assert_ok(dev_sync(r->b.d));
    free(x);
}

static void read_back(struct rig *r, struct tensor t, float *out)
{
    assert_ok(dev_download(r->b.d, out, t.data, tensor_bytes(t)));
    assert_ok(dev_sync(r->b.d));
}

/* One pass on both sides, flows compared; want gets the oracle's flow. */
static void compare_pass(struct rig *r, const double *x, int32_t step, int64_t first, int32_t F,
                         double *want, double tol)
{
    const struct tensor flow = frames_of(r->flow, F);
    float *got = malloc(tensor_bytes(flow));
    assert_non_null(got);
    assert_ok(dit_pass(r->m, flow, frames_of(r->x, F), step, first, r->base));
    read_back(r, flow, got);
    naive_dit_pass(r->n, want, x, (double)dit_sched(r->m)->t[step], first, F, false);
    naive_close(&r->worst, got, want, tensor_count(flow), tol);
    free(got);
}

/* K and V of x's frames at t = 0, on both sides. */
static void clean_pass(struct rig *r, const double *x, int64_t first, int32_t F, double *scratch)
{
    assert_ok(dit_pass(r->m, TENSOR_NONE, frames_of(r->x, F), SCHED_CLEAN, first, r->base));
    naive_dit_pass(r->n, scratch, x, 0, first, F, false);
}

/* --- one pass
 * --------------------------------------------------------------------------------------- */

static void check_steps(const char *const *sets, int32_t n_sets, const char *name)
{
    struct rig r;
    rig_open(&r, sets, n_sets, 2);
    const int32_t F = r.b.c.dit.block;
    double *x = check_doubles(F * r.values), *want = check_doubles(F * r.values);
    set_prompt(&r, 0, 7, 3);
    for (int32_t i = 0; i <= dit_sched(r.m)->n_steps; i++) {
        const int32_t step = i < dit_sched(r.m)->n_steps ? i : SCHED_CLEAN;
        draw(&r, frames_of(r.x, F), x, (uint64_t)step);
        naive_cache_reset(&r.n->cache, r.b.c.dit.window, r.b.c.dit.sink);
        compare_pass(&r, x, step, 0, F, want, 1e-5);
    }
    print_message("dit, one pass, %s: largest relative error %.2e\n", name, r.worst);
    rig_close(&r);
}

static void test_each_step_against_the_oracle(void **state)
{
    (void)state;
    check_steps(NULL, 0, "nano");
}

/* Axes of unequal width, frames as wide as high, one head, other channels and window. */
static void test_other_sizes_against_the_oracle(void **state)
{
    (void)state;
    const char *narrow[] = {"dit.dim=32", "dit.heads=2", "model.latent_rows=6",
                            "model.latent_cols=6", "model.latent_channels=16"};
    const char *wide[] = {"dit.dim=128",         "dit.heads=1",  "dit.ffn_dim=40",
                          "dit.layers=1",        "dit.window=7", "dit.sink=1",
                          "model.latent_rows=2", "dit.block=2",  "dit.freq_dim=6",
                          "dit.steps=900,30"};
    check_steps(narrow, COUNT(narrow), "heads of 16");
    check_steps(wide, COUNT(wide), "a head of 128");
}

/* --- nine blocks
 * ------------------------------------------------------------------------------------ */

/* A block from noise to K and V. teacher: the oracle takes the product's x before each pass. */
static void denoise(struct rig *r, int64_t block, bool teacher, double *x, double *want,
                    double *eps)
{
    const struct sched *s = dit_sched(r->m);
    const int32_t F = r->b.c.dit.block;
    const int64_t first = block * F, n = F * r->values;
    const double tol = teacher ? 1e-5 : 1e-4;
    const struct tensor xt = frames_of(r->x, F), ft = frames_of(r->flow, F);
    const struct tensor et = frames_of(r->eps, F);
    float *now = malloc((size_t)n * sizeof *now);
    assert_non_null(now);
    draw(r, xt, x, (uint64_t)(1000 * block));
    for (int32_t i = 0; i <= s->n_steps; i++) {
        read_back(r, xt, now);
        if (teacher)
            for (int64_t k = 0; k < n; k++) x[k] = (double)now[k];
        else naive_close(&r->worst, now, x, n, tol);
        if (i == s->n_steps) break;
        compare_pass(r, x, i, first, F, want, tol);
        for (int64_t k = 0; k < n; k++) x[k] -= (double)s->sigma[i] * want[k];
        assert_ok(ops_flow_to_x0(r->b.d, xt, xt, ft, s->sigma[i]));
        if (i + 1 == s->n_steps) continue;
        const double sigma = (double)s->sigma[i + 1];
        draw(r, et, eps, (uint64_t)(1000 * block + i + 1));
        for (int64_t k = 0; k < n; k++) x[k] = (1 - sigma) * x[k] + sigma * eps[k];
        assert_ok(ops_renoise(r->b.d, xt, xt, et, s->sigma[i + 1]));
    }
    free(now);
    clean_pass(r, x, first, F, want);
}

static void roll_out(const char *const *sets, int32_t n_sets, bool teacher)
{
    struct rig r;
    rig_open(&r, sets, n_sets, 2);
    const int64_t n = r.b.c.dit.block * r.values;
    double *x = check_doubles(n), *want = check_doubles(n), *eps = check_doubles(n);
    set_prompt(&r, 0, 5, 21);
    for (int64_t block = 0; block < BLOCKS; block++) denoise(&r, block, teacher, x, want, eps);
    print_message("dit, %d blocks, %s, %s: largest relative error %.2e\n", BLOCKS,
                  n_sets ? sets[0] : "absolute", teacher ? "teacher-forced" : "rolled out",
                  r.worst);
    rig_close(&r);
}

static const char *const relative[] = {"dit.rope=relative"};
static const char *const straddles[] = {"dit.window=11", "dit.sink=2"};
static const char *const straddles_relative[] = {"dit.window=13", "dit.rope=relative"};

static void test_nine_blocks_teacher_forced(void **state)
{
    (void)state;
    roll_out(NULL, 0, true);
    roll_out(straddles, COUNT(straddles), true);
}

static void test_nine_blocks_rolled_out(void **state)
{
    (void)state;
    roll_out(NULL, 0, false);
}

static void test_nine_blocks_relative(void **state)
{
    (void)state;
    roll_out(relative, COUNT(relative), true);
    roll_out(relative, COUNT(relative), false);
    roll_out(straddles_relative, COUNT(straddles_relative), true);
}

/* Absolute and relative positions are one thing until the window rolls, then two. */
static void test_positions_differ_once_the_window_rolls(void **state)
{
    (void)state;
    struct rig r[2];
    rig_open(&r[0], NULL, 0, 1);
    rig_open(&r[1], relative, 1, 1);
    const int32_t F = 3;
    const size_t n_bytes = (size_t)(F * r[0].values) * sizeof(float);
    float *flow[2] = {check_alloc(n_bytes), check_alloc(n_bytes)};
    for (int64_t block = 0; block < 6; block++) {
        for (int i = 0; i < 2; i++) {
            if (block == 0) set_prompt(&r[i], 0, 9, 4);
            draw(&r[i], frames_of(r[i].x, F), NULL, (uint64_t)block);
            assert_ok(
                dit_pass(r[i].m, frames_of(r[i].flow, F), frames_of(r[i].x, F), 0, block * F, 0));
            read_back(&r[i], frames_of(r[i].flow, F), flow[i]);
        }
        assert_int_equal(memcmp(flow[0], flow[1], n_bytes) == 0, block < 4);
    }
    rig_close(&r[0]);
    rig_close(&r[1]);
}

/* --- recache
 * --------------------------------------------------------------------------------------- */

/* The pipeline's recache against the reference's: it looks at a whole window of latents. */
static void recache(struct rig *r, int64_t at, double *const *latents, double *scratch)
{
    const struct conf *c = &r->b.c;
    int64_t first;
    int32_t n;
    const int64_t seen = at < c->dit.window ? at : c->dit.window;
    double *x = scratch + c->dit.window * r->values;
    for (int64_t i = 0; i < seen; i++)
        memcpy(x + i * r->values, latents[at - seen + i], (size_t)r->values * sizeof *x);
    naive_dit_pass(r->n, scratch, x, 0, at - seen, (int32_t)seen, !c->dit.global_sink);

    r->base = plan_sink_base(c, c->dit.window, DECISION_SWITCH, at, r->base);
    plan_recache(c, c->dit.window, DECISION_SWITCH, at, r->base, &first, &n);
    for (int32_t i = 0; i < n; i++) {
        float *row = tensor_rows(r->x, i, 1).data; /* a CPU's memory */
        for (int64_t k = 0; k < r->values; k++) row[k] = (float)latents[first + i][k];
    }
    assert_ok(dit_pass(r->m, TENSOR_NONE, frames_of(r->x, n), SCHED_CLEAN, first, r->base));
}

/* Blocks of given latents; new prompts at blocks named by bits; the product leaves out the clean
 * pass right before a switch, as the pipeline does. */
static double run_switches(const char *const *sets, int32_t n_sets, uint32_t switches)
{
    struct rig r;
    rig_open(&r, sets, n_sets, 2);
    const int32_t F = r.b.c.dit.block, W = r.b.c.dit.window;
    double *latents[BLOCKS * 3 + 3], *want = check_doubles(2 * W * r.values);
    int32_t n_prompts = 0;
    assert_true((BLOCKS - 1) * F + F <= (int32_t)COUNT(latents));
    set_prompt(&r, n_prompts++, 5, 40);
    for (int32_t block = 0; block < BLOCKS; block++) {
        const int64_t first = block * F;
        double *x = check_doubles(F * r.values);
        if (block > 0 && (switches >> block & 1)) {
            set_prompt(&r, n_prompts % 2, 3 + n_prompts % 13, 50 + (uint64_t)n_prompts);
            n_prompts++;
            recache(&r, first, latents, want);
        }
        draw(&r, frames_of(r.x, F), x, (uint64_t)block);
        for (int32_t i = 0; i < F; i++) latents[first + i] = x + i * r.values;
        compare_pass(&r, x, 1, first, F, want, 1e-5);
        if (switches >> (block + 1) & 1) naive_dit_pass(r.n, want, x, 0, first, F, false);
        else clean_pass(&r, x, first, F, want);
    }
    const double worst = r.worst;
    rig_close(&r);
    return worst;
}

static void check_switches(const char *const *sets, int32_t n_sets, const char *name)
{
    double worst = 0;
    for (int32_t block = 1; block < BLOCKS; block++) {
        const double one = run_switches(sets, n_sets, 1u << block);
        if (one > worst) worst = one;
        check_teardown(NULL);
    }
    const double several = run_switches(sets, n_sets, 1u << 2 | 1u << 3 | 1u << 6 | 1u << 8);
    print_message("dit, switches, %s: largest relative error %.2e\n", name,
                  several > worst ? several : worst);
}

static void test_switches_that_keep_the_sink(void **state)
{
    (void)state;
    check_switches(NULL, 0, "sink kept");
    check_switches(relative, 1, "sink kept, relative");
}

static void test_switches_that_move_the_sink(void **state)
{
    (void)state;
    const char *moves[] = {"dit.global_sink=false"};
    const char *moves_relative[] = {"dit.global_sink=false", "dit.rope=relative"};
    check_switches(moves, 1, "sink moved");
    check_switches(moves_relative, 2, "sink moved, relative");
}

static void test_switches_of_a_straddling_ring(void **state)
{
    (void)state;
    const char *moves[] = {"dit.window=11", "dit.sink=2", "dit.global_sink=false"};
    check_switches(straddles, 2, "window 11, sink 2 kept");
    check_switches(moves, 3, "window 11, sink 2 moved");
}

static void test_switches_without_a_sink(void **state)
{
    (void)state;
    const char *none[] = {"dit.sink=0", "dit.rope=relative"};
    check_switches(none, 1, "no sink");
    check_switches(none, 2, "no sink, relative");
}

/* --- cross-attention
 * ------------------------------------------------------------------------------- */

static void test_padding_rows_take_part(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, NULL, 0, 2);
    const int32_t lengths[] = {1, 7, 15, 16, 2, 16, 1};
    double *x = check_doubles(3 * r.values), *want = check_doubles(3 * r.values);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        naive_cache_reset(&r.n->cache, r.b.c.dit.window, r.b.c.dit.sink);
        set_prompt(&r, (int32_t)i % 2, lengths[i], 70 + i);
        draw(&r, frames_of(r.x, 3), x, 7);
        compare_pass(&r, x, 2, 0, 3, want, 1e-5);
    }
    print_message("dit, cross-attention: largest relative error %.2e\n", r.worst);
    rig_close(&r);
}

/* --- bits
 * ------------------------------------------------------------------------------------------- */

/* Six blocks; flow of the last one, and all of region kv. twice: each pass is done again. */
static void run_for_bits(const char *const *sets, int32_t n_sets, int32_t n_threads, bool twice,
                         bool full, float *flow, void *kv)
{
    struct rig r;
    rig_open(&r, sets, n_sets, n_threads);
    const int32_t F = 3, clean = SCHED_CLEAN;
    const struct tensor x = frames_of(r.x, F), f = frames_of(r.flow, F);
    set_prompt(&r, 0, 7, 3);
    for (int64_t block = 0; block < 6; block++) {
        draw(&r, x, NULL, (uint64_t)block);
        for (int i = 0; i < 1 + twice; i++) assert_ok(dit_pass(r.m, f, x, 1, block * F, 0));
        read_back(&r, f, flow);
        for (int i = 0; i < 1 + twice; i++)
            assert_ok(dit_pass(r.m, full ? f : TENSOR_NONE, x, clean, block * F, 0));
    }
    assert_ok(dev_download(r.b.d, kv, r.kv_mem, kv_bytes(&r.b.c, DTYPE_F32)));
    rig_close(&r);
}

static void check_bits(const char *const *sets, int32_t n_sets)
{
    static const struct {
        int32_t n_threads;
        bool twice, full;
    } run[] = {{1, false, false}, {1, true, false}, {3, false, false}, {1, false, true}};
    struct conf c;
    float *flow[COUNT(run)];
    void *kv[COUNT(run)];
    naive_conf(&c, sets, n_sets);
    const size_t n_flow = 3 * (size_t)(c.model.latent_channels * c.model.latent_rows) *
                          (size_t)c.model.latent_cols * sizeof(float);
    for (size_t i = 0; i < COUNT(run); i++) {
        flow[i] = check_alloc(n_flow);
        kv[i] = check_alloc(kv_bytes(&c, DTYPE_F32));
        run_for_bits(sets, n_sets, run[i].n_threads, run[i].twice, run[i].full, flow[i], kv[i]);
        assert_memory_equal(flow[i], flow[0], n_flow);
        if (c.dit.rope == ROPE_ABSOLUTE) assert_memory_equal(kv[i], kv[0], kv_bytes(&c, DTYPE_F32));
    }
}

/* Done again, on other threads, with or without a flow: the same flow, the same K and V. */
static void test_same_bits_every_way(void **state)
{
    (void)state;
    check_bits(NULL, 0);
    check_bits(relative, 1); /* rotated sinks of the last layer are the reading pass's own */
}

/* Six blocks from an empty window, and their flows. */
static void run_blocks(struct rig *r, float *flow)
{
    const int32_t F = 3, n = dit_sched(r->m)->n_steps;
    const struct tensor x = frames_of(r->x, F), f = frames_of(r->flow, F);
    set_prompt(r, 0, 7, 3);
    for (int64_t block = 0; block < 6; block++) {
        draw(r, x, NULL, (uint64_t)block);
        for (int32_t i = 0; i < n; i++) assert_ok(dit_pass(r->m, f, x, i, block * F, 0));
        read_back(r, f, flow + block * F * r->values);
        assert_ok(dit_pass(r->m, TENSOR_NONE, x, SCHED_CLEAN, block * F, 0));
    }
}

/* After a change of preset everything is as if it had been the configuration's, and so it is after
 * the change back: no table, kind of pass or slot is left of the other. */
static void check_preset(const char *rope)
{
    const char *small[] = {"dit.window=8", "dit.steps=1000,500", rope}, *large[] = {rope};
    struct rig a, b;
    rig_open(&a, small, COUNT(small), 2);
    rig_open(&b, large, COUNT(large), 2);
    const size_t n = (size_t)(18 * a.values);
    float *want[2], *got = check_alloc(n * sizeof *got);
    for (int i = 0; i < 2; i++) want[i] = check_alloc(n * sizeof *got);
    run_blocks(&a, want[0]);
    run_blocks(&b, want[1]);
    assert_memory_not_equal(want[0], want[1], n * sizeof *got);
    b.kv.window = 8;
    assert_ok(dit_set_preset(b.m, "1000,500"));
    run_blocks(&b, got);
    assert_memory_equal(got, want[0], n * sizeof *got);
    b.kv.window = 12;
    assert_ok(dit_set_preset(b.m, b.b.c.dit.steps));
    run_blocks(&b, got);
    assert_memory_equal(got, want[1], n * sizeof *got);
    assert_int_equal(dit_set_preset(b.m, "500,1000"), ERR_CONFIG);
    rig_close(&a);
    rig_close(&b);
}

static void test_another_preset(void **state)
{
    (void)state;
    check_preset("dit.rope=absolute");
    check_preset("dit.rope=relative");
}

static void test_open_survives_each_failed_alloc(void **state)
{
    (void)state;
    int nth = 0;
    for (err_t e = ERR_NOMEM; e != OK; nth++) {
        struct naive_box b;
        struct dit *m = NULL;
        naive_box_open(&b, NULL, 0, 1);
        const size_t before = dev_live_bytes(b.d);
        dev_fail_at(b.d, nth);
        e = dit_open(&m, b.d, &b.c, b.w);
        dev_fail_at(b.d, -1);
        assert_int_equal(e == OK, m != NULL);
        if (e != OK) assert_int_equal(e, ERR_NOMEM);
        dit_close(&m);
        assert_int_equal(dev_live_bytes(b.d), before);
        naive_box_close(&b);
    }
    assert_int_equal(nth, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_step_against_the_oracle), TEST(test_other_sizes_against_the_oracle),
        TEST(test_nine_blocks_teacher_forced),   TEST(test_nine_blocks_rolled_out),
        TEST(test_nine_blocks_relative),         TEST(test_positions_differ_once_the_window_rolls),
        TEST(test_switches_that_keep_the_sink),  TEST(test_switches_that_move_the_sink),
        TEST(test_switches_without_a_sink),      TEST(test_switches_of_a_straddling_ring),
        TEST(test_padding_rows_take_part),       TEST(test_another_preset),
        TEST(test_same_bits_every_way),          TEST(test_open_survives_each_failed_alloc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
