/* golden_vae.h - a VAE with the golden weights, on a device, with its state. */
#ifndef TESTS_PROCS_VAE_GOLDEN_VAE_H
#define TESTS_PROCS_VAE_GOLDEN_VAE_H

#include "procs/vae/vae.h"
#include "tests/golden.h"

struct golden_vae {
    struct golden g;
    struct golden_box b;
    struct vae *v;
    void *state, *memory;
    struct tensor latent, rgb;
    int64_t values, frame_values;
};

static inline void golden_vae_open(struct golden_vae *r, const char *config, const char *parity)
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
    assert_ok(vae_record_all(r->v));
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

static inline void golden_vae_close(struct golden_vae *r)
{
    vae_close(&r->v);
    dev_free(r->b.d, &r->state);
    dev_free(r->b.d, &r->memory);
    golden_box_close(&r->b);
    golden_close(&r->g);
}

/* Decodes latent i: pixels and bytes of its frames, in memory that lives until the test ends. */
static inline float *golden_vae_decode(struct golden_vae *r, const float *latents, int64_t i,
                                       uint8_t *bytes)
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

static inline int64_t golden_vae_frames(int64_t latent)
{
    return latent ? VAE_FRAMES_MAX : 1;
}

/* Nowhere more than one apart, and at most one in `one_in` at all. */
static inline void golden_vae_bytes(const uint8_t *got, const uint8_t *want, int64_t n,
                                    int64_t one_in)
{
    int64_t apart = 0;
    for (int64_t i = 0; i < n; i++) {
        if (abs(got[i] - want[i]) > 1)
            fail_msg("byte %lld: %d, not %d", (long long)i, got[i], want[i]);
        apart += got[i] != want[i];
    }
    print_message("%lld of %lld bytes are one apart\n", (long long)apart, (long long)n);
    assert_true(apart * one_in <= n);
}

#endif
