/* test_vae.c - latents one at a time against a naive f64 decoder of the whole clip. */
#include "procs/vae/vae.h"

#include "ipc/latents.h"

#include "tests/procs/vae/naive_vae.h"

enum { LATENTS = 6, FRAMES = 1 + 4 * (LATENTS - 1) };

struct rig {
    struct naive_box b;
    struct vae *v;
    void *state, *memory;
    struct tensor latent, rgb;
    int64_t values, frame_bytes; /* of a latent; of an RGB frame */
};

static void rig_open(struct rig *r, const char *const *sets, int32_t n_sets, int32_t n_threads)
{
    memset(r, 0, sizeof *r);
    naive_box_open(&r->b, sets, n_sets, n_threads);
    const struct conf *c = &r->b.c;
    assert_ok(vae_open(&r->v, r->b.d, c, r->b.w));
    naive_box_fill(&r->b);
    assert_ok(dev_alloc(r->b.d, vae_state_bytes(r->v), &r->state));
    vae_bind_state(r->v, r->state);
    assert_ok(vae_record_all(r->v));
    r->values = (int64_t)c->model.latent_channels * c->model.latent_rows * c->model.latent_cols;
    r->frame_bytes = conf_frame_bytes(c);
    const size_t latent_bytes = (size_t)r->values * sizeof(float);
    assert_ok(dev_alloc(r->b.d, latent_bytes + 4 * (size_t)r->frame_bytes, &r->memory));
    r->latent = TENSOR(r->memory, DTYPE_F32, c->model.latent_channels, c->model.latent_rows,
                       c->model.latent_cols);
    r->rgb = TENSOR((char *)r->memory + latent_bytes, DTYPE_U8, 4, conf_height_px(c),
                    conf_width_px(c), 3);
    dev_seal(r->b.d);
}

static void rig_close(struct rig *r)
{
    assert_int_equal(dev_allocs_sealed(r->b.d), 0);
    vae_close(&r->v);
    dev_free(r->b.d, &r->state);
    dev_free(r->b.d, &r->memory);
    naive_box_close(&r->b);
}

/* Latents as the DiT leaves them: about N(0, 1). */
static float *draw_latents(const struct rig *r, uint64_t seed)
{
    float *x = check_alloc((size_t)(LATENTS * r->values) * sizeof *x);
    for (int64_t i = 0; i < LATENTS * r->values; i++)
        x[i] = rng_normal((struct rng_key){seed, 3}, (uint64_t)i);
    return x;
}

static int64_t first_frame(int64_t latent)
{
    return latent ? 4 * latent - 3 : 0;
}

/* Decodes latent i to its frames in out, the clip. */
static void decode(struct rig *r, const float *latents, int64_t i, uint8_t *out)
{
    const int32_t n = i ? 4 : 1;
    const struct tensor rgb = tensor_rows(r->rgb, 0, n);
    memset(r->rgb.data, 0xAB, 4 * (size_t)r->frame_bytes); /* a CPU's memory */
    assert_ok(dev_upload(r->b.d, r->latent.data, latents + i * r->values, tensor_bytes(r->latent)));
    assert_ok(vae_decode(r->v, rgb, r->latent, i, NULL, NULL));
    assert_ok(
        dev_download(r->b.d, out + first_frame(i) * r->frame_bytes, rgb.data, tensor_bytes(rgb)));
    assert_ok(dev_sync(r->b.d));
}

static uint8_t *decode_all(struct rig *r, const float *latents)
{
    uint8_t *out = check_alloc(FRAMES * (size_t)r->frame_bytes);
    for (int64_t i = 0; i < LATENTS; i++) decode(r, latents, i, out);
    return out;
}

/* --- against the oracle -------------------------------------------------------------------------
 */

static uint8_t to_byte(double v)
{
    const double in = v < -1 ? -1 : v > 1 ? 1 : v;
    return (uint8_t)(255 * (0.5 * in + 0.5));
}

static void compare(const char *const *sets, int32_t n_sets, const char *name)
{
    struct rig r;
    rig_open(&r, sets, n_sets, 2);
    const float *latents = draw_latents(&r, 1);
    double *as = check_doubles(LATENTS * r.values);
    for (int64_t i = 0; i < LATENTS * r.values; i++) as[i] = (double)latents[i];
    const uint8_t *got = decode_all(&r, latents);
    const struct clip want = naive_decode(&r.b, as, LATENTS);
    assert_int_equal(clip_values(&want), FRAMES * r.frame_bytes);
    int64_t n_apart = 0, n_inside = 0;
    for (int64_t i = 0; i < clip_values(&want); i++) {
        const int byte = to_byte(want.v[i]);
        if (abs(got[i] - byte) > 1)
            fail_msg("frame %lld, value %lld: %d, want %d", (long long)(i / r.frame_bytes),
                     (long long)(i % r.frame_bytes), got[i], byte);
        n_apart += got[i] != byte;
        n_inside += byte > 0 && byte < 255;
    }
    print_message("vae, %s: %lld of %lld values are 1 apart, %lld are between the ends\n", name,
                  (long long)n_apart, (long long)clip_values(&want), (long long)n_inside);
    assert_true(1000 * n_apart <= clip_values(&want));
    assert_true(2 * n_inside > clip_values(&want)); /* else clamping hides what is wrong */
    rig_close(&r);
}

static void test_nano_against_the_oracle(void **state)
{
    (void)state;
    compare(NULL, 0, "nano");
}

static void test_other_sizes_against_the_oracle(void **state)
{
    (void)state;
    const char *wide[] = {"vae.base_dim=6", "model.latent_rows=2", "model.latent_cols=10",
                          "model.latent_channels=16"};
    /* Narrower still, a norm over two channels makes much of f32's error in a small vector. */
    const char *least[] = {"vae.base_dim=4", "model.latent_rows=2", "model.latent_cols=2",
                           "model.latent_channels=1"};
    compare(wide, COUNT(wide), "z 16, base 6");
    compare(least, COUNT(least), "z 1, base 4");
}

/* --- done again
 * ----------------------------------------------------------------------------------- */

/* Killed anywhere in latent i: half of the state is a mixture. The other half is what counts. */
static void test_a_decode_done_again_after_any_death(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, NULL, 0, 2);
    const float *latents = draw_latents(&r, 2);
    const uint8_t *want = decode_all(&r, latents);
    uint8_t *got = check_alloc(FRAMES * (size_t)r.frame_bytes);
    const size_t half = vae_state_bytes(r.v) / 2;
    uint8_t *after = check_alloc(half);
    memset(r.state, 0xFF, 2 * half); /* NaN: what the memory held before */
    for (int64_t i = 0; i < LATENTS; i++) {
        uint8_t *const next = (uint8_t *)r.state + (i + 1) % 2 * half;
        decode(&r, latents, i, got);
        memcpy(after, next, half);
        for (int again = 0; again < 3; again++) {
            if (again == 1) memset(next, 0xFF, half / 2);
            if (again == 2) memset(next, 0xFF, half);
            decode(&r, latents, i, got);
            /* Padding between histories is nobody's; what is read shows in the frames. */
            if (again == 0) assert_memory_equal(next, after, half);
        }
    }
    assert_memory_equal(got, want, FRAMES * (size_t)r.frame_bytes);
    rig_close(&r);
}

/* As when the process is new: the state is given, the buffers are not. */
static void test_another_process_goes_on(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, NULL, 0, 1);
    const float *latents = draw_latents(&r, 3);
    const uint8_t *want = decode_all(&r, latents);
    uint8_t *got = check_alloc(FRAMES * (size_t)r.frame_bytes);
    const size_t n_bytes = vae_state_bytes(r.v);
    void *kept = check_alloc(n_bytes);
    rig_close(&r);
    for (int64_t i = 0; i < LATENTS; i++) {
        rig_open(&r, NULL, 0, 1 + (int32_t)i % 3); /* nor does the number of threads matter */
        memcpy(r.state, kept, n_bytes);
        decode(&r, latents, i, got);
        memcpy(kept, r.state, n_bytes);
        rig_close(&r);
    }
    assert_memory_equal(got, want, FRAMES * (size_t)r.frame_bytes);
}

/* Whatever the first left behind, after an odd and an even number of latents. */
static void test_a_second_session_is_as_the_first(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, NULL, 0, 2);
    const float *latents = draw_latents(&r, 4), *other = draw_latents(&r, 5);
    uint8_t *out = check_alloc(FRAMES * (size_t)r.frame_bytes);
    const uint8_t *want = decode_all(&r, latents);
    for (int64_t n = 1; n <= LATENTS; n++) {
        for (int64_t i = 0; i < n; i++) decode(&r, other, i, out);
        assert_memory_equal(decode_all(&r, latents), want, FRAMES * (size_t)r.frame_bytes);
    }
    rig_close(&r);
}

/* The state after latent `end` - 1 from that many latents before it and nothing else: are the next
 * two decoded as in the whole clip? */
static bool is_rebuilt_by(struct rig *r, const float *latents, int64_t end, int64_t n,
                          const uint8_t *want)
{
    uint8_t *got = check_alloc((size_t)(first_frame(end + 2) * r->frame_bytes));
    const int64_t at = first_frame(end) * r->frame_bytes;
    memset(r->state, 0, vae_state_bytes(r->v));
    for (int64_t i = end - n; i < end + 2; i++) decode(r, latents, i, got);
    return memcmp(got + at, want + at, 8 * (size_t)r->frame_bytes) == 0;
}

static void test_the_state_is_rebuilt_from_kept_latents(void **state)
{
    (void)state;
    enum { END = 60 };
    struct rig r;
    rig_open(&r, NULL, 0, 2);
    float *latents = check_alloc((size_t)((END + 2) * r.values) * sizeof *latents);
    for (int64_t i = 0; i < (END + 2) * r.values; i++)
        latents[i] = rng_normal((struct rng_key){6, 3}, (uint64_t)i);
    uint8_t *want = check_alloc((size_t)(first_frame(END + 2) * r.frame_bytes));
    for (int64_t i = 0; i < END + 2; i++) decode(&r, latents, i, want);
    assert_true(is_rebuilt_by(&r, latents, END, LATENTS_OF_VAE_STATE, want));
    assert_false(is_rebuilt_by(&r, latents, END, 2, want)); /* the comparison can tell */
    rig_close(&r);
}

static void count_beat(void *self)
{
    ++*(int *)self;
}

static void test_beats_once_a_stage(void **state)
{
    (void)state;
    struct rig r;
    int n = 0;
    rig_open(&r, NULL, 0, 1);
    assert_ok(vae_decode(r.v, tensor_rows(r.rgb, 0, 1), r.latent, 0, count_beat, &n));
    assert_int_equal(n, 4);
    rig_close(&r);
}

static void test_open_survives_each_failed_alloc(void **state)
{
    (void)state;
    int nth = 0;
    for (err_t e = ERR_NOMEM; e != OK; nth++) {
        struct naive_box b;
        struct vae *v = NULL;
        naive_box_open(&b, NULL, 0, 1);
        const size_t before = dev_live_bytes(b.d);
        dev_fail_at(b.d, nth);
        e = vae_open(&v, b.d, &b.c, b.w);
        dev_fail_at(b.d, -1);
        assert_int_equal(e == OK, v != NULL);
        if (e != OK) assert_int_equal(e, ERR_NOMEM);
        vae_close(&v);
        assert_int_equal(dev_live_bytes(b.d), before);
        naive_box_close(&b);
    }
    assert_int_equal(nth, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nano_against_the_oracle),
        TEST(test_other_sizes_against_the_oracle),
        TEST(test_a_decode_done_again_after_any_death),
        TEST(test_another_process_goes_on),
        TEST(test_a_second_session_is_as_the_first),
        TEST(test_the_state_is_rebuilt_from_kept_latents),
        TEST(test_beats_once_a_stage),
        TEST(test_open_survives_each_failed_alloc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
