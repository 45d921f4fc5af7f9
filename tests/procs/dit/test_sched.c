/* test_sched.c - the sampler's constants to the last bit, and what is not a list of steps. */
#include "procs/dit/sched.h"

#include "tests/golden.h"

/* f32 values of the reference, printed by it. */
static void test_longlive_steps(void **state)
{
    (void)state;
    static const float t[] = {1000.0f, 937.5f, 833.33331298828125f, 625.0f, 0.0f};
    static const float sigma[] = {1.0f, 0.9375f, 0.833333313465118408f, 0.625f};
    struct sched s;
    assert_ok(sched_open(&s, "1000,750,500,250"));
    assert_int_equal(s.n_steps, 4);
    assert_memory_equal(s.t, t, sizeof t);
    assert_memory_equal(s.sigma, sigma, sizeof sigma);
}

/* Every entry of the reference's table, to the bit. */
static void test_table_is_the_references(void **state)
{
    enum { TABLE = 1000 };
    struct golden g;
    (void)state;
    golden_open(&g, "sampler");
    const float *sigmas = golden_floats(&g, "sigmas", TABLE);
    const float *timesteps = golden_floats(&g, "timesteps", TABLE);
    for (int i = 0; i < TABLE; i++) {
        char text[16];
        struct sched s;
        snprintf(text, sizeof text, "%d", TABLE - i);
        assert_ok(sched_open(&s, text));
        if (s.sigma[0] != sigmas[i] || s.t[0] != timesteps[i])
            fail_msg("entry %d: %.9g, not %.9g", i, (double)s.sigma[0], (double)sigmas[i]);
    }
    golden_close(&g);
}

/* What the network is told of the time, rounded to bf16 as the reference rounds it. */
static void test_sinusoid_in_bf16(void **state)
{
    enum { N = 256, STEPS = 5 };
    struct golden g;
    struct dev *d = NULL;
    void *memory = NULL;
    struct sched s;
    float got[N];
    (void)state;
    golden_open(&g, "sampler");
    const float *want = golden_floats(&g, "sinusoid", STEPS * N);
    assert_ok(dev_open(&d, "cpu", 1));
    assert_ok(ops_open(d));
    ops_set_bf16(d, true);
    assert_ok(dev_alloc(d, sizeof got, &memory));
    assert_ok(sched_open(&s, "1000,750,500,250"));
    for (int32_t step = 0; step < STEPS; step++) {
        sched_sinusoid(&s, step, N, got);
        assert_ok(dev_upload(d, memory, got, sizeof got));
        assert_ok(ops_keep(d, TENSOR(memory, DTYPE_F32, N)));
        assert_ok(dev_download(d, got, memory, sizeof got));
        assert_ok(dev_sync(d));
        assert_memory_equal(got, want + step * N, sizeof got);
    }
    dev_free(d, &memory);
    ops_close(d);
    dev_close(&d);
    golden_close(&g);
}

/* Every entry of the table against the formula in f64; it falls without a pause. */
static void test_whole_table(void **state)
{
    (void)state;
    float last = 2;
    for (int step = 1000; step >= 1; step--) {
        char text[16];
        struct sched s;
        const double r = step / 1000.0, want = 5 * r / (1 + 4 * r);
        snprintf(text, sizeof text, "%d", step);
        assert_ok(sched_open(&s, text));
        assert_int_equal(s.n_steps, 1);
        assert_true((double)s.sigma[0] > want * (1 - 3e-7) &&
                    (double)s.sigma[0] < want * (1 + 3e-7));
        assert_true((double)s.t[0] > 1000 * want * (1 - 3e-7) &&
                    (double)s.t[0] < 1000 * want * (1 + 3e-7));
        assert_true(s.sigma[0] < last);
        assert_true(s.t[1] == 0.0f);
        last = s.sigma[0];
    }
}

static void test_one_to_five_steps(void **state)
{
    (void)state;
    struct sched s;
    assert_ok(sched_open(&s, "5,4,3,2,1"));
    assert_int_equal(s.n_steps, 5);
    assert_true(s.t[5] == 0.0f);
}

static void test_what_is_no_list(void **state)
{
    (void)state;
    static const char *const bad[] = {"",        ",",      "0",       "1001",        "500,500",
                                      "250,500", "1000,",  "1000,x",  "6,5,4,3,2,1", "1000 750",
                                      "-1",      "1000;5", "1000,,5", "750,-3"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct sched s;
        const err_t e = sched_open(&s, bad[i]);
        if (e != ERR_CONFIG) fail_msg("\"%s\" gives code %d", bad[i], e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_longlive_steps), TEST(test_table_is_the_references), TEST(test_sinusoid_in_bf16),
        TEST(test_whole_table),    TEST(test_one_to_five_steps),       TEST(test_what_is_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
