/* test_conf_check.c - relations between keys: each sentence, and the value just inside. */
#include "common/conf.h"

#include "tests/scratch.h"

/* Sets assignments, separated by blanks, over the defaults, and checks. */
static err_t check(const char *sets)
{
    struct conf c;
    char text[400];
    conf_default(&c);
    snprintf(text, sizeof text, "%s", sets);
    for (char *s = strtok(text, " "); s; s = strtok(NULL, " ")) want_ok(conf_set(&c, s));
    return conf_check(&c);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"dit.dim=1537", "dit.dim = 1537: not a multiple of dit.heads = 12"},
        {"dit.dim=24 dit.heads=6", "dit.dim / dit.heads = 4: a head is even and at least 6 wide"},
        {"dit.dim=14 dit.heads=2", "dit.dim / dit.heads = 7: a head is even and at least 6 wide"},
        {"model.latent_rows=5", "model.latent_rows = 5: must be even"},
        {"model.latent_cols=2047", "model.latent_cols = 2047: must be even"},
        {"dit.freq_dim=33", "dit.freq_dim = 33: must be even"},
        {"vae.base_dim=7", "vae.base_dim = 7: must be even"},
        {"dit.sink=4", "dit.sink = 4: at most dit.block = 3"},
        {"dit.window=8 dit.block=6", "dit.block = 6: at most dit.window - dit.sink = 5"},
        {"dit.window=24 dit.block=3",
         "dit.ring_latents = 64: at least dit.window + dit.block + 38 = 65"},
        {"dit.window_max=24",
         "dit.ring_latents = 64: at least dit.window_max + dit.block + 38 = 65"},
        {"dit.window_max=11", "dit.window = 12: at most dit.window_max = 11"},
        {"cache.reuse=false cache.file=x", "cache.reuse = false: not with cache.file = x"},
        {"vae.ring_frames=24 dit.block=4 run.ahead_ms=0",
         "vae.ring_frames = 24: at least 8 * dit.block = 32"},
        {"run.ahead_ms=9000",
         "run.ahead_ms = 9000: at 16 fps and vae.ring_frames = 56 from 0 to 2062"},
        {"run.ahead_ms=2063", "from 0 to 2062"},
        {"model.weights=file:x", "model.weights = file:x: random:SEED"},
        {"model.weights=random:", "random:SEED"},
        {"model.weights=random:-1", "random:SEED"},
        {"model.weights=random:1x", "random:SEED"},
        {"model.weights=random:18446744073709551616", "SEED from 0 to 18446744073709551615"},
        {"dit.steps=1000,1000",
         "dit.steps = 1000,1000: 1 to 5 integers from 1 to 1000, strictly decreasing"},
        {"dit.steps=1001", "dit.steps = 1001: 1 to 5 integers"},
        {"dit.steps=5,0", "dit.steps = 5,0: 1 to 5 integers"},
        {"dit.steps=250,500", "strictly decreasing"},
        {"dit.steps=6,5,4,3,2,1", "1 to 5 integers"},
        {"dit.steps=5,", "1 to 5 integers"},
        {"dit.steps=,5", "1 to 5 integers"},
        {"dit.steps=5x", "1 to 5 integers"},
        {"dit.steps=99999999999999999999", "1 to 5 integers"},
        {"run.switch_frame_indices=6,3",
         "run.switch_frame_indices = 6,3: integers from 0 to 1000000000000, with commas between "
         "them, not decreasing"},
        {"run.switch_frame_indices=6,", "with commas between them"},
        {"run.switch_frame_indices=,6", "with commas between them"},
        {"run.switch_frame_indices=6:9", "with commas between them"},
        {"run.switch_frame_indices=-1", "with commas between them"},
        {"run.switch_frame_indices=1000000000001", "integers from 0 to 1000000000000"},
        {"model.precision=fp8", "model.precision = fp8: not built, only auto and fp32 are"},
        {"model.precision=int8_kv", "model.precision = int8_kv: not built, only auto and fp32 are"},
        {"place.text=gpu", "place.text = gpu: cpu or cuda:N, N from 0 to 63"},
        {"place.dit=cuda:", "place.dit = cuda:: cpu or cuda:N"},
        {"place.vae=cuda:64", "place.vae = cuda:64: cpu or cuda:N"},
        {"place.vae=cuda:1x", "cpu or cuda:N"},
        {"place.vae=c", "cpu or cuda:N"},
        {"place.clean=gpu", "place.clean = gpu: cpu or cuda:N, N from 0 to 63"},
        {"place.clean=cuda:64 place.dit=cuda:0", "place.clean = cuda:64: cpu or cuda:N"},
        {"place.clean=cuda: place.dit=cuda:0", "place.clean = cuda:: cpu or cuda:N"},
        {"place.clean=cpu place.dit=cuda:0",
         "place.clean = cpu, place.dit = cuda:0: both cpu or both cuda:N"},
        {"place.clean=cuda:1", "place.clean = cuda:1, place.dit = cpu: both cpu or both cuda:N"},
        {"place.clean=cuda:1 place.vae=cuda:1", "both cpu or both cuda:N"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        want_fails(check(bad[i][0]), ERR_CONFIG, bad[i][1]);
}

static void test_what_is_just_inside(void **state)
{
    (void)state;
    static const char *const good[] = {
        "dit.dim=12 dit.heads=2",
        "model.latent_rows=2048 model.latent_cols=2",
        "dit.window=8 dit.block=5 run.ahead_ms=0",
        "dit.window=23",
        "dit.window_max=23",
        "dit.window_max=12",
        "dit.window=24 dit.ring_latents=65",
        "vae.ring_frames=24 run.ahead_ms=62",
        "run.ahead_ms=2062",
        "model.weights=random:18446744073709551615",
        "dit.steps=1000",
        "dit.steps=5,4,3,2,1",
        "model.precision=fp32",
        "place.dit=cuda:0 place.vae=cuda:63",
        "place.clean=",
        "place.clean= place.dit=cuda:0",
        "place.clean=cpu",
        "place.clean=cpu place.vae=cuda:0",
        "place.clean=cuda:63 place.dit=cuda:0",
        "place.clean=cuda:0 place.dit=cuda:0",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) want_ok(check(good[i]));
}

static void test_switches_as_numbers(void **state)
{
    (void)state;
    struct conf c;
    int64_t at[CONF_SWITCHES_MAX];
    conf_default(&c);
    assert_int_equal(conf_switches(&c, at), 0);
    want_ok(conf_set(&c, "run.switch_frame_indices=0, 40,40,   1000000000000"));
    want_ok(conf_check(&c));
    assert_int_equal(conf_switches(&c, at), 4);
    assert_true(at[0] == 0 && at[1] == 40 && at[2] == 40 && at[3] == 1000000000000);
    /* As many as fit into the longest text. */
    memset(c.run.switch_frame_indices, ',', CONF_TEXT_MAX - 1);
    for (int i = 0; i < CONF_TEXT_MAX - 1; i += 2) c.run.switch_frame_indices[i] = '7';
    assert_int_equal(conf_switches(&c, at), CONF_SWITCHES_MAX);
    assert_int_equal(at[CONF_SWITCHES_MAX - 1], 7);
}

/* Whatever the rate and the ring, the bound that the sentence names is the largest that passes. */
static void test_the_named_bound_is_the_bound(void **state)
{
    (void)state;
    for (int fps = 1; fps <= 120; fps += 7)
        for (int ring = 24; ring < 400; ring += 13) {
            char sets[200];
            int most = -1;
            snprintf(sets, sizeof sets, "run.fps=%d vae.ring_frames=%d run.ahead_ms=600000", fps,
                     ring);
            if (check(sets) == OK) continue;
            assert_int_equal(sscanf(strstr(err_text(), "from 0 to "), "from 0 to %d", &most), 1);
            snprintf(sets, sizeof sets, "run.fps=%d vae.ring_frames=%d run.ahead_ms=%d", fps, ring,
                     most);
            want_ok(check(sets));
            snprintf(sets, sizeof sets, "run.fps=%d vae.ring_frames=%d run.ahead_ms=%d", fps, ring,
                     most + 1);
            assert_int_equal(check(sets), ERR_CONFIG);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_what_is_just_inside),
        cmocka_unit_test(test_switches_as_numbers),
        cmocka_unit_test(test_the_named_bound_is_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
