/* test_golden_roll.c - nine blocks from noise to latents against LongLive's, with and without
 * switches of the prompt. Blocks, recaches and sinks go as main.c and plan.c make them go. */
#include "procs/dit/plan.h"
#include "tests/procs/dit/golden_dit.h"
#include "tests/procs/vae/golden_vae.h"

enum { STEPS = 4, PROMPTS = 3, SEED = 5 };

struct roll {
    struct golden_dit r;
    const float *noise, *eps, *embeds;
    float *latents; /* [FRAMES, z, Y, X] */
};

/* What a session draws, rounded to bf16: step -1 is a block's noise. */
static void draw(float *to, int64_t n, int64_t block, int32_t step)
{
    const struct rng_key key = {SEED,
                                (uint64_t)1 << 63 | (uint64_t)block << 8 | (uint64_t)(step + 1)};
    for (int64_t i = 0; i < n; i++) {
        const float x = rng_normal(key, (uint64_t)i);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
        memcpy(to + i, &bits, sizeof bits);
    }
}

static void roll_open(struct roll *t, const char *config, const char *rope)
{
    char file[32];
    snprintf(file, sizeof file, "roll-%s", config);
    golden_dit_open(&t->r, file, config, false, (const char *[]){GOLDEN_CLEAN, rope}, 2);
    const int64_t block = BLOCK * t->r.values;
    float *noise = check_alloc((size_t)(BLOCKS * block) * sizeof *noise);
    float *eps = check_alloc((size_t)(BLOCKS * (STEPS - 1) * block) * sizeof *eps);
    for (int64_t b = 0; b < BLOCKS; b++)
        for (int32_t i = -1; i < STEPS - 1; i++)
            draw(i < 0 ? noise + b * block : eps + (b * (STEPS - 1) + i) * block, block, b, i);
    t->noise = noise;
    t->eps = eps;
    t->embeds = golden_floats(&t->r.g, "prompt_embeds", PROMPTS * tensor_count(t->r.kv.embed[0]));
    t->latents = check_alloc((size_t)(FRAMES * t->r.values) * sizeof *t->latents);
}

/* Padding rows are zeros. */
static int32_t rows_of(const struct roll *t, const float *rows)
{
    const int32_t C = t->r.b.c.text.dim;
    int32_t n = t->r.b.c.text.text_len;
    for (bool is_pad = true; n > 0; n -= is_pad) {
        for (int32_t i = 0; i < C && is_pad; i++) is_pad = rows[(n - 1) * C + i] == 0;
        if (!is_pad) break;
    }
    return n;
}

static void set_prompt(struct roll *t, int32_t which)
{
    const float *rows = t->embeds + which * tensor_count(t->r.kv.embed[0]);
    golden_dit_prompt(&t->r, rows, rows_of(t, rows));
}

static void denoise(struct roll *t, int64_t at, int64_t sink_base)
{
    struct golden_dit *r = &t->r;
    struct dev *d = r->b.d;
    const struct sched *s = dit_sched(r->m);
    const int64_t block = BLOCK * r->values;
    const struct tensor x = tensor_rows(r->x, 0, BLOCK), flow = tensor_rows(r->flow, 0, BLOCK);
    assert_int_equal(s->n_steps, STEPS);
    assert_ok(dev_upload(d, x.data, t->noise + at * r->values, tensor_bytes(x)));
    for (int32_t i = 0; i < STEPS; i++) {
        assert_ok(dit_pass(r->m, flow, x, i, at, sink_base));
        assert_ok(ops_flow_to_x0(d, x, x, flow, s->sigma[i]));
        if (i + 1 == STEPS) break;
        const float *eps = t->eps + (at / BLOCK * (STEPS - 1) + i) * block;
        assert_ok(dev_upload(d, flow.data, eps, tensor_bytes(x)));
        assert_ok(ops_renoise(d, x, x, flow, s->sigma[i + 1]));
    }
    assert_ok(dev_download(d, t->latents + at * r->values, x.data, tensor_bytes(x)));
    assert_ok(dev_sync(d));
}

/* The video with switches before the frames listed; returns its distance from the reference's. */
static void check_roll(struct roll *t, const char *name, const int32_t *at_frames, int32_t n,
                       bool global_sink, double *worst)
{
    struct golden_dit *r = &t->r;
    int32_t base = 0, next = 0;
    r->b.c.dit.global_sink = global_sink;
    set_prompt(t, 0);
    for (int64_t at = 0; at < FRAMES; at += BLOCK) {
        if (next < n && at_frames[next] == at) {
            int64_t first;
            int32_t n_frames;
            base = plan_sink_base(&r->b.c, r->b.c.dit.window, DECISION_SWITCH, at, base);
            plan_recache(&r->b.c, r->b.c.dit.window, DECISION_SWITCH, at, base, &first, &n_frames);
            set_prompt(t, ++next);
            golden_dit_clean(r, t->latents + first * r->values, first, n_frames, base);
        }
        denoise(t, at, base);
        golden_dit_clean(r, t->latents + at * r->values, at, BLOCK, base);
    }
    assert_int_equal(next, n);
    const double *want = golden_doubles(&r->g, name, FRAMES * r->values);
    golden_close_to(worst, t->latents, want, FRAMES * r->values, 1e-4);
}

static const struct plan_of_switches {
    const char *name;
    int32_t at[2], n;
} plans[] = {{"6", {6}, 1},   {"12", {12}, 1},        {"15", {15}, 1},
             {"21", {21}, 1}, {"12-15", {12, 15}, 2}, {"15-21", {15, 21}, 2}};

/* What the latents just made become: frames, within a unit of the reference's. */
static void check_video(const struct roll *t)
{
    struct golden_vae v;
    int64_t n, at = 0;
    const char *dtype;
    const uint8_t *want = (const uint8_t *)golden_raw(&t->r.g, "rgb", &dtype, &n);
    uint8_t *got = check_alloc((size_t)n);
    golden_vae_open(&v, "nano", GOLDEN_CLEAN);
    for (int64_t i = 0; i < FRAMES; at += golden_vae_frames(i++))
        golden_vae_decode(&v, t->latents, i, got + at * v.frame_values);
    assert_int_equal(at * v.frame_values, n);
    golden_vae_bytes(got, want, n, 100);
    golden_vae_close(&v);
}

/* The plain roll-out, and every one with switches that the file has, in both sink modes. */
static void check_file(const char *config, const char *mode, int32_t n_wanted)
{
    struct roll t;
    double worst = 0;
    char rope[32], name[64];
    int32_t n_checked = 0;
    snprintf(rope, sizeof rope, "dit.rope=%s", mode);
    roll_open(&t, config, rope);
    check_roll(&t, mode, NULL, 0, true, &worst);
    if (json_object_get(t.r.g.header, "rgb") && strcmp(mode, "absolute") == 0) check_video(&t);
    for (size_t i = 0; i < COUNT(plans); i++)
        for (int32_t keep = 0; keep < 2; keep++) {
            snprintf(name, sizeof name, "%s.%s.%s", mode, plans[i].name, keep ? "keep" : "move");
            if (!json_object_get(t.r.g.header, name)) continue;
            check_roll(&t, name, plans[i].at, plans[i].n, keep, &worst);
            n_checked++;
        }
    assert_int_equal(n_checked, n_wanted);
    print_message("%s, %s: relative error of the latents %.2g\n", config, mode, worst);
    golden_dit_close(&t.r);
}

static void test_nano_absolute(void **state)
{
    (void)state;
    check_file("nano", "absolute", 12);
}

static void test_nano_relative(void **state)
{
    (void)state;
    check_file("nano", "relative", 4);
}

static void test_tiny_absolute(void **state)
{
    (void)state;
    check_file("tiny", "absolute", 2);
}

/* The noise file holds what a session draws. */
static void test_noise_is_the_sessions(void **state)
{
    struct roll t;
    (void)state;
    roll_open(&t, "nano", "dit.rope=absolute");
    const int64_t n = FRAMES * t.r.values;
    const float *noise = golden_floats(&t.r.g, "noise", n);
    const float *eps = golden_floats(&t.r.g, "eps", (STEPS - 1) * n);
    assert_memory_equal(noise, t.noise, (size_t)n * sizeof *noise);
    assert_memory_equal(eps, t.eps, (size_t)((STEPS - 1) * n) * sizeof *eps);
    golden_dit_close(&t.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_noise_is_the_sessions),
        TEST(test_nano_absolute),
        TEST(test_nano_relative),
        TEST(test_tiny_absolute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
