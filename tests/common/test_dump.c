/* test_dump.c - noise, embeddings and latents in files: read, written, refused. */
#include "common/dump.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scratch.h"

static const char *const golden = "tests/golden/roll-nano.safetensors";

static void load(struct conf *c, const char *config)
{
    want_ok(conf_load(c, config, NULL, 0));
}

/* A block's noise and what follows a step lie where the shapes say. */
static void test_noise(void **state)
{
    (void)state;
    enum { N = 3 * 4 * 4 * 6, BLOCKS = 9 };
    struct conf c;
    struct checkpoint *f = NULL;
    float all[4 * BLOCKS * N], got[N];
    load(&c, "configs/nano.ini");
    want_ok(dump_open_noise(&f, golden, &c, 0));
    assert_int_equal(dump_blocks(f, &c), BLOCKS);
    want_ok(checkpoint_read(f, checkpoint_find(f, "noise"), 0, BLOCKS * N, all));
    want_ok(checkpoint_read(f, checkpoint_find(f, "eps"), 0, 3 * BLOCKS * N, all + BLOCKS * N));
    for (int32_t b = 0; b < BLOCKS; b++)
        for (int32_t i = -1; i < 3; i++) {
            const float *want = i < 0 ? all + b * N : all + (BLOCKS + 3 * b + i) * N;
            want_ok(dump_read_noise(f, &c, b, i, got));
            assert_memory_equal(got, want, sizeof got);
        }
    checkpoint_close(&f);
    want_fails(dump_open_noise(&f, golden, &c, 10), ERR_DATA, "noise of 9 blocks, not 10");
    assert_null(f);
    want_ok(conf_set(&c, "dit.steps=1000")); /* nothing is re-noised, whatever eps is */
    want_ok(dump_open_noise(&f, golden, &c, 9));
    checkpoint_close(&f);
}

static void test_embeds(void **state)
{
    (void)state;
    static const int32_t want[] = {5, 16, 9};
    struct conf c;
    struct checkpoint *f = NULL;
    float rows[16 * 32];
    load(&c, "configs/nano.ini");
    want_ok(dump_open_embeds(&f, golden, &c, 3));
    for (int32_t i = 0; i < 3; i++) {
        int32_t n = 0;
        want_ok(dump_read_embed(f, &c, i, rows, &n));
        assert_int_equal(n, want[i]);
        assert_true(rows[32 * n - 1] != 0);
    }
    checkpoint_close(&f);
    want_fails(dump_open_embeds(&f, golden, &c, 4), ERR_DATA, "3 embeddings, not 4");
    want_fails(dump_open_embeds(&f, "tests/golden/sampler.safetensors", &c, 1), ERR_DATA,
               "no tensor prompt_embeds");
    load(&c, "configs/tiny.ini");
    want_fails(dump_open_embeds(&f, golden, &c, 1), ERR_DATA,
               "prompt_embeds is BF16 [3, 16, 32], not floats [3, 32, 64]");
    assert_null(f);
}

/* Each latent at its place, in any order, twice, by two processes; then the file is cut. */
static void test_latents(void **state)
{
    (void)state;
    enum { N = 4 * 4 * 6, T = 6, ENDS_AT = 4 };
    struct conf c;
    struct checkpoint *f = NULL;
    char path[160];
    float latent[N], got[ENDS_AT * N];
    int fd = -1;
    load(&c, "configs/nano.ini");
    snprintf(path, sizeof path, "%s", scratch_path("l.safetensors"));
    for (int32_t life = 0; life < 2; life++) {
        want_ok(dump_latents_open(&fd, path, &c, T, life > 0));
        for (int32_t l = life ? 1 : 0; l < (life ? ENDS_AT : 2); l++) {
            for (int32_t i = 0; i < N; i++) latent[i] = (float)(l * N + i);
            want_ok(dump_latents_put(fd, path, &c, l, latent));
        }
        if (life) want_ok(dump_latents_end(fd, path, &c, ENDS_AT));
        close(fd);
    }
    want_ok(checkpoint_open(&f, path));
    const struct ckpt_tensor *t = checkpoint_find(f, "out");
    assert_non_null(t);
    assert_int_equal(t->shape[0], ENDS_AT);
    want_ok(checkpoint_read(f, t, 0, ENDS_AT * N, got));
    for (int32_t i = 0; i < ENDS_AT * N; i++) assert_true(got[i] == (float)i);
    checkpoint_close(&f);
    want_fails(dump_latents_open(&fd, "/nowhere/l", &c, T, false), ERR_WRITE,
               "/nowhere/l: No such");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_embeds),
        cmocka_unit_test(test_latents),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
