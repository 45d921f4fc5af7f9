/* test_golden_vae.c - the decoder against LongLive's: six latents, decoded there as one clip. */
#include "tests/procs/vae/golden_vae.h"

enum { LATENTS = 6, FRAMES = 1 + 4 * (LATENTS - 1) };

static void check_parity(const char *config, const char *parity)
{
    struct golden_vae r;
    int64_t n_kept, n_bytes;
    const char *dtype;
    golden_vae_open(&r, config, parity);
    const float *latents = golden_floats(&r.g, "latents", LATENTS * r.values);
    const int32_t *kept = golden_ints(&r.g, "kept", &n_kept);
    const uint8_t *rgb = (const uint8_t *)golden_raw(&r.g, "rgb", &dtype, &n_bytes);
    assert_int_equal(n_bytes, FRAMES * r.frame_values);
    uint8_t *bytes = check_alloc((size_t)n_bytes);
    int64_t n_exact = 0, frame = 0, next = 0;
    for (int64_t i = 0; i < n_kept; i++) n_exact += golden_vae_frames(kept[i]) * r.frame_values;
    const double *exact = golden_doubles(&r.g, "exact", n_exact);
    struct golden_far far = golden_far_of(&r.g, &r.b, LATENTS);
    const float *error = far.error;

    for (int64_t i = 0; i < LATENTS; i++) {
        const float *pixels = golden_vae_decode(&r, latents, i, bytes + frame * r.frame_values);
        const int64_t n = golden_vae_frames(i) * r.frame_values;
        frame += golden_vae_frames(i);
        if (next == n_kept || kept[next] != i) continue;
        far.error = error + i;
        golden_check(&far, pixels, exact, n);
        exact += n;
        next++;
    }
    assert_int_equal(next, n_kept);
    if (far.is_clean) golden_vae_bytes(bytes, rgb, n_bytes, 1000);
    golden_tell(&far, config);
    golden_vae_close(&r);
}

static void check_config(const char *config)
{
    check_parity(config, GOLDEN_CLEAN);
    check_parity(config, GOLDEN_REFERENCE);
}

static void test_nano(void **state)
{
    (void)state;
    check_config("nano");
}

static void test_tiny(void **state)
{
    (void)state;
    check_config("tiny");
}

/* Latents with LongLive's bf16 statistics, to the bit. */
static void test_denorm_in_bf16(void **state)
{
    (void)state;
    static const char *const configs[] = {"nano", "tiny"};
    for (size_t i = 0; i < COUNT(configs); i++) {
        struct golden_vae r;
        golden_vae_open(&r, configs[i], GOLDEN_REFERENCE);
        const int32_t z = r.latent.shape[0], Y = r.latent.shape[1], X = r.latent.shape[2];
        const float *latents = golden_floats(&r.g, "latents", LATENTS * r.values);
        const float *want = golden_floats(&r.g, "denormed", LATENTS * r.values);
        const struct tensor y = TENSOR(r.rgb.data, DTYPE_F32, Y, X, z);
        float *got = check_alloc(tensor_bytes(y));
        for (int32_t l = 0; l < LATENTS; l++) {
            assert_ok(dev_upload(r.b.d, r.latent.data, latents + l * r.values, tensor_bytes(y)));
            assert_ok(vae_denorm(r.v, y, r.latent));
            assert_ok(dev_download(r.b.d, got, y.data, tensor_bytes(y)));
            assert_ok(dev_sync(r.b.d));
            for (int32_t at = 0; at < r.values; at++) {
                const int32_t c = at / (Y * X), p = at % (Y * X);
                assert_true(got[p * z + c] == want[l * r.values + at]);
            }
        }
        golden_vae_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_denorm_in_bf16), TEST(test_nano), TEST(test_tiny)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
