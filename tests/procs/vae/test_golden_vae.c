/* test_golden_vae.c - the decoder against LongLive's: six latents, decoded there as one clip. */
#include "procs/vae/vae.h"

#include "tests/golden.h"

enum { LATENTS = 6, FRAMES = 1 + 4 * (LATENTS - 1) };

struct rig {
    struct golden g;
    struct golden_box b;
    struct vae *v;
    void *state, *memory;
    struct tensor latent, rgb;
    int64_t values, frame_values;
};

static void rig_open(struct rig *r, const char *config, const char *parity)
{
    char name[32];
    memset(r, 0, sizeof *r);
    snprintf(name, sizeof name, "vae-%s", config);
    golden_open(&r->g, name);
    golden_box_open(&r->b, config, &parity, 1);
    const struct conf *c = &r->b.c;
    assert_ok(vae_open(&r->v, r->b.d, c, r->b.w));
    golden_box_fill(&r->b, &r->g);
    assert_ok(dev_alloc(r->b.d, vae_state_bytes(r->v), &r->state));
    vae_bind_state(r->v, r->state);
    r->latent = TENSOR(NULL, DTYPE_F32, c->model.latent_channels, c->model.latent_rows,
                       c->model.latent_cols);
    r->values = tensor_count(r->latent);
    r->frame_values = conf_frame_bytes(c);
    const size_t latent_bytes = tensor_bytes(r->latent);
    assert_ok(
        dev_alloc(r->b.d, latent_bytes + VAE_FRAMES_MAX * (size_t)r->frame_values, &r->memory));
    r->latent.data = r->memory;
    r->rgb = TENSOR((char *)r->memory + latent_bytes, DTYPE_U8, VAE_FRAMES_MAX, conf_height_px(c),
                    conf_width_px(c), 3);
}

static void rig_close(struct rig *r)
{
    vae_close(&r->v);
    dev_free(r->b.d, &r->state);
    dev_free(r->b.d, &r->memory);
    golden_box_close(&r->b);
    golden_close(&r->g);
}

/* Decodes latent i: pixels and bytes of its frames, in memory that lives until the test ends. */
static float *decode(struct rig *r, const float *latents, int64_t i, uint8_t *bytes)
{
    const struct tensor rgb = tensor_rows(r->rgb, 0, i ? VAE_FRAMES_MAX : 1);
    assert_ok(dev_upload(r->b.d, r->latent.data, latents + i * r->values, tensor_bytes(r->latent)));
    assert_ok(vae_decode(r->v, rgb, r->latent, i, NULL, NULL));
    float *pixels = check_alloc(tensor_bytes(vae_pixels(r->v)));
    assert_ok(dev_download(r->b.d, pixels, vae_pixels(r->v).data, tensor_bytes(vae_pixels(r->v))));
    assert_ok(dev_download(r->b.d, bytes, rgb.data, tensor_bytes(rgb)));
    assert_ok(dev_sync(r->b.d));
    return pixels;
}

static int64_t frames_of(int64_t latent)
{
    return latent ? VAE_FRAMES_MAX : 1;
}

static void check_bytes(const uint8_t *got, const uint8_t *want, int64_t n)
{
    int64_t apart = 0;
    for (int64_t i = 0; i < n; i++) {
        if (abs(got[i] - want[i]) > 1)
            fail_msg("byte %lld: %d, not %d", (long long)i, got[i], want[i]);
        apart += got[i] != want[i];
    }
    print_message("%lld of %lld bytes are one apart\n", (long long)apart, (long long)n);
    assert_true(apart * 1000 <= n);
}

static void check_parity(const char *config, const char *parity)
{
    struct rig r;
    int64_t n_kept, n_bytes;
    const char *dtype;
    rig_open(&r, config, parity);
    const float *latents = golden_floats(&r.g, "latents", LATENTS * r.values);
    const int32_t *kept = golden_ints(&r.g, "kept", &n_kept);
    const uint8_t *rgb = (const uint8_t *)golden_raw(&r.g, "rgb", &dtype, &n_bytes);
    assert_int_equal(n_bytes, FRAMES * r.frame_values);
    uint8_t *bytes = check_alloc((size_t)n_bytes);
    int64_t n_exact = 0, frame = 0, next = 0;
    for (int64_t i = 0; i < n_kept; i++) n_exact += frames_of(kept[i]) * r.frame_values;
    const double *exact = golden_doubles(&r.g, "exact", n_exact);
    struct golden_far far = golden_far_of(&r.g, &r.b, LATENTS);
    const float *error = far.error;

    for (int64_t i = 0; i < LATENTS; i++) {
        const float *pixels = decode(&r, latents, i, bytes + frame * r.frame_values);
        const int64_t n = frames_of(i) * r.frame_values;
        frame += frames_of(i);
        if (next == n_kept || kept[next] != i) continue;
        far.error = error + i;
        golden_check(&far, pixels, exact, n);
        exact += n;
        next++;
    }
    assert_int_equal(next, n_kept);
    if (far.is_clean) check_bytes(bytes, rgb, n_bytes);
    golden_tell(&far, config);
    rig_close(&r);
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
        struct rig r;
        rig_open(&r, configs[i], GOLDEN_REFERENCE);
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
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_denorm_in_bf16), TEST(test_nano), TEST(test_tiny)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
