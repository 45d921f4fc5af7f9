/* test_golden_dit.c - passes of the DiT against LongLive's, each with given inputs. */
#include "tests/procs/dit/golden_dit.h"

/* The K/V of every frame that the window holds, wherever the two keep it. The reference keeps the
 * sink, then the newest frames in order. */
static void check_cache(struct golden_dit *r, const char *which, int64_t at, double *worst)
{
    const struct kv *kv = &r->kv;
    const int64_t C = r->b.c.dit.dim, frame = kv->frame_tokens * C;
    const int64_t end = at + BLOCK, n = end < kv->window ? end : kv->window;
    char name[16];
    snprintf(name, sizeof name, "%s.%lld", which, (long long)at);
    const double *want = golden_doubles(&r->g, name, kv->layers * kv->window * frame);
    float *got = check_alloc((size_t)frame * sizeof *got);
    for (int32_t l = 0; l < kv->layers; l++) {
        const struct tensor *ring = *which == 'k' ? &kv->k[l] : &kv->v[l];
        for (int64_t i = 0; i < n; i++) {
            const int64_t f = i < kv->sink ? i : end - n + i;
            const int32_t slot = kv_slot(kv, f, 0);
            const struct tensor rows =
                tensor_rows(*ring, slot * kv->frame_tokens, kv->frame_tokens);
            assert_ok(dev_download(r->b.d, got, rows.data, tensor_bytes(rows)));
            assert_ok(dev_sync(r->b.d));
            golden_close_to(worst, got, want + (l * kv->window + i) * frame, frame, 1e-5);
        }
    }
}

static bool is_in(const int32_t *list, int64_t n, int64_t value)
{
    for (int64_t i = 0; i < n; i++)
        if (list[i] == value) return true;
    return false;
}

/* Nine blocks of given clean latents fill the ring; at some of them, given noisy ones are denoised
 * at some steps. Then one pass for each length of prompt. */
static void check_parity(const char *config, const char *parity, bool has_caches)
{
    struct golden_dit r;
    char file[32];
    double worst_cache = 0;
    int64_t n_prompts, n_steps, n_frames;
    snprintf(file, sizeof file, "dit-%s", config);
    golden_dit_open(&r, file, config, true, &parity, 1);
    const int64_t block = BLOCK * r.values, embed = tensor_count(r.kv.embed[0]);
    const int32_t *n = golden_ints(&r.g, "n", &n_prompts);
    const int32_t *steps = golden_ints(&r.g, "steps", &n_steps);
    const int32_t *frames = golden_ints(&r.g, "frames", &n_frames);
    const float *embeds = golden_floats(&r.g, "embeds", n_prompts * embed);
    const float *clean = golden_floats(&r.g, "clean", FRAMES * r.values);
    const float *x = golden_floats(&r.g, "x", n_steps * FRAMES * r.values);
    const double *want = golden_doubles(&r.g, "flow", n_frames * n_steps * block);
    const double *pad = golden_doubles(&r.g, "pad", n_prompts * block);

    struct golden_far far = golden_far_of(&r.g, &r.b, n_frames * n_steps + n_prompts);
    golden_dit_prompt(&r, embeds, n[0]);
    for (int64_t at = 0; at < FRAMES; at += BLOCK) {
        for (int64_t i = 0; i < n_steps && is_in(frames, n_frames, at); i++, want += block) {
            const float *noisy = x + (i * FRAMES + at) * r.values;
            golden_check(&far, golden_dit_flow(&r, noisy, steps[i], at), want, block);
        }
        golden_dit_clean(&r, clean + at * r.values, at, BLOCK, 0);
        if (!has_caches || (at != 0 && at != 12 && at != 24)) continue;
        check_cache(&r, "k", at, &worst_cache);
        check_cache(&r, "v", at, &worst_cache);
    }
    for (int64_t i = 0; i < n_prompts; i++) {
        golden_dit_prompt(&r, embeds + i * embed, n[i]);
        golden_check(&far, golden_dit_flow(&r, x, 0, 0), pad + i * block, block);
    }
    golden_tell(&far, config);
    if (has_caches) print_message("%s: relative error of K and V %.2g\n", config, worst_cache);
    golden_dit_close(&r);
}

static void test_nano(void **state)
{
    (void)state;
    check_parity("nano", GOLDEN_CLEAN, true);
    check_parity("nano", GOLDEN_REFERENCE, false);
}

static void test_tiny(void **state)
{
    (void)state;
    check_parity("tiny", GOLDEN_CLEAN, false);
    check_parity("tiny", GOLDEN_REFERENCE, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_nano), TEST(test_tiny)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
