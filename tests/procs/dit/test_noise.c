/* test_noise.c - a session's noise: the numbers that its seed names, or those of its file. */
#include "procs/dit/noise.h"

#include "common/dump.h"
#include "common/file.h"
#include "common/rng.h"
#include "kernels/ops.h"
#include "tests/check.h"
#include "tests/scratch.h"

/* Of a block at nano's sizes; golden has noise of so many blocks, and four steps. */
enum { N = 3 * 4 * 4 * 6, BLOCKS = 9, STEPS = 4, JOB = 5 };
static const char *const golden = "tests/golden/roll-nano.safetensors";

static struct stage st;
static struct noise noise;
static void *key, *block;
static struct tensor to;

/* Sessions 0 without a file, 1 with one, 2 with another; `videos` of the job say which. */
static void put_job(struct job_video *videos, int32_t n)
{
    struct job_prompt prompt = {.text = (char *)"A fox.", .at_block = 0};
    const struct job job = {.id = JOB, .videos = videos, .n_videos = n};
    for (int32_t i = 0; i < n; i++) {
        videos[i].prompts = &prompt;
        videos[i].n_prompts = 1;
    }
    want_ok(job_write(scratch_path("job.json"), &job));
}

static int open_all(void **state)
{
    if (scratch_open(state) != 0) return -1;
    memset(&st, 0, sizeof st);
    want_ok(conf_load(&st.conf, "configs/nano.ini", NULL, 0));
    want_ok(dev_open(&st.dev, check_device(), 2));
    want_ok(ops_open(st.dev));
    st.run_dir = scratch_dir;
    st.ledger = calloc(1, sizeof *st.ledger);
    assert_non_null(st.ledger);
    want_ok(dev_alloc(st.dev, 2 * sizeof(uint64_t), &key));
    want_ok(dev_alloc(st.dev, N * sizeof(float), &block));
    to = TENSOR(block, DTYPE_F32, 3, 4, 4, 6);
    want_ok(noise_open(&noise, &st, TENSOR(key, DTYPE_U64, 2), N * sizeof(float)));
    for (int64_t i = 0; i < 3; i++)
        st.ledger->sessions[i] = (struct ledger_session){
            .job = JOB, .video = i, .files = i ? SESSION_NOISE | SESSION_EMBEDS : SESSION_EMBEDS};
    return 0;
}

static int close_all(void **state)
{
    noise_close(&noise);
    noise_close(&noise);
    dev_free(st.dev, &key);
    dev_free(st.dev, &block);
    ops_close(st.dev);
    dev_close(&st.dev);
    free(st.ledger);
    check_teardown(state);
    return scratch_close(state);
}

/* What is drawn; memory that lives until the test ends. */
static const float *draw(int64_t seed, int64_t at, int32_t step)
{
    float *got = check_alloc(N * sizeof *got);
    want_ok(dev_zero(st.dev, block, N * sizeof *got));
    want_ok(noise_draw(&noise, to, seed, at, step));
    want_ok(dev_download(st.dev, got, block, N * sizeof *got));
    want_ok(dev_sync(st.dev));
    return got;
}

static void want_drawn(const float *got, int64_t seed, int64_t at, int32_t step)
{
    const struct rng_key k = {(uint64_t)seed,
                              (uint64_t)1 << 63 | (uint64_t)at << 8 | (uint64_t)(step + 1)};
    for (uint64_t i = 0; i < N; i++)
        if (got[i] != rng_normal(k, i))
            fail_msg("seed %lld, block %lld, step %d: number %d", (long long)seed, (long long)at,
                     step, (int)i);
}

/* --- drawn ------------------------------------------------------------------------------------ */

/* The same bits as on the host; another seed, block or step is another sequence. */
static void test_drawn_from_seed_block_and_step(void **state)
{
    (void)state;
    static const struct {
        int64_t seed, block;
        int32_t step;
    } row[] = {{7, 0, -1}, {7, 0, 0},  {7, 0, 1},   {7, 1, -1},      {7, 1, 0},
               {8, 0, -1}, {0, 0, -1}, {7, 256, 0}, {7, 1 << 20, 3}, {INT64_MAX, 99999, 4}};
    const float *got[COUNT(row)];
    want_ok(noise_begin(&noise, 0)); /* no job.json: nobody looks for one */
    for (size_t i = 0; i < COUNT(row); i++) {
        got[i] = draw(row[i].seed, row[i].block, row[i].step);
        want_drawn(got[i], row[i].seed, row[i].block, row[i].step);
        for (size_t k = 0; k < i; k++)
            for (int64_t j = 0; j + 1 < N; j++)
                if (got[i][j] == got[k][j] && got[i][j + 1] == got[k][j + 1])
                    fail_msg("rows %zu and %zu meet at %lld", k, i, (long long)j);
    }
    assert_memory_equal(draw(7, 0, -1), got[0], N * sizeof(float)); /* in any order, twice */
}

/* A device that repeats a model in bf16 begins with what bf16 can hold. */
static void test_rounded_where_results_are(void **state)
{
    (void)state;
    const float *plain = draw(7, 2, -1);
    ops_set_bf16(st.dev, true);
    const float *got = draw(7, 2, -1);
    ops_set_bf16(st.dev, false);
    int64_t n_other = 0;
    for (int64_t i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, &got[i], sizeof bits);
        assert_int_equal(bits & 0xFFFF, 0);
        n_other += got[i] != plain[i];
        if (!(got[i] - plain[i] <= 0.01f && plain[i] - got[i] <= 0.01f))
            fail_msg("%g became %g", (double)plain[i], (double)got[i]);
    }
    assert_true(n_other > N / 2);
}

/* --- from a file ------------------------------------------------------------------------------ */

/* As they lie in the file. */
static void want_golden(const float *got, int64_t at, int32_t step)
{
    struct checkpoint *f = NULL;
    float want[N];
    want_ok(checkpoint_open(&f, golden));
    const int64_t first = step < 0 ? at * N : (at * (STEPS - 1) + step) * N;
    want_ok(checkpoint_read(f, checkpoint_find(f, step < 0 ? "noise" : "eps"), first, N, want));
    checkpoint_close(&f);
    assert_memory_equal(got, want, sizeof want);
}

/* A file like golden with nothing but zeros in it. */
static const char *put_zeros(void)
{
    char *bytes = NULL;
    size_t n = 0;
    uint64_t n_header;
    want_ok(file_read(golden, 1 << 24, &bytes, &n));
    memcpy(&n_header, bytes, sizeof n_header);
    memset(bytes + 8 + n_header, 0, n - 8 - n_header);
    const char *path = scratch_put_bytes("zeros", bytes, n);
    free(bytes);
    return path;
}

/* Session 0 has no file, whatever its video says: the ledger tells. */
static void put_three(void)
{
    struct job_video v[3] = {{.n_blocks = 2, .noise = (char *)"/nowhere"},
                             {.n_blocks = BLOCKS, .noise = (char *)golden},
                             {.n_blocks = 1, .noise = (char *)put_zeros()}};
    put_job(v, 3);
}

static void test_a_session_with_a_file(void **state)
{
    (void)state;
    put_three();
    want_ok(noise_begin(&noise, 1));
    for (int64_t b = 0; b < BLOCKS; b++)
        for (int32_t i = -1; i < STEPS - 1; i++) want_golden(draw(7, b, i), b, i);
    want_golden(draw(8, 3, 1), 3, 1); /* whatever the seed */
    assert_int_equal(unlink(scratch_path("job.json")), 0);
    want_ok(noise_begin(&noise, 1)); /* of each block: it is opened once */
    want_golden(draw(7, 0, -1), 0, -1);
}

/* As a live stage goes from session to session. */
static void test_from_session_to_session(void **state)
{
    (void)state;
    const float zeros[N] = {0};
    put_three();
    want_ok(noise_begin(&noise, 0));
    want_drawn(draw(7, 1, 0), 7, 1, 0);
    want_ok(noise_begin(&noise, 1));
    want_golden(draw(7, 1, 0), 1, 0);
    want_ok(noise_begin(&noise, 2));
    assert_memory_equal(draw(7, 1, 0), zeros, sizeof zeros);
    want_ok(noise_begin(&noise, 0));
    want_drawn(draw(7, 1, 0), 7, 1, 0);
    want_ok(noise_begin(&noise, 2));
    assert_memory_equal(draw(7, 1, 0), zeros, sizeof zeros);
}

static void test_a_file_that_does_not_do(void **state)
{
    (void)state;
    want_fails(noise_begin(&noise, 1), ERR_DATA, "job.json");
    struct job_video v[2] = {{.n_blocks = 1}, {.n_blocks = BLOCKS + 1, .noise = (char *)golden}};
    put_job(v, 2);
    want_fails(noise_begin(&noise, 1), ERR_DATA, "noise of 9 blocks, not 10");
    v[1].noise = (char *)"/nowhere/noise";
    put_job(v, 2);
    want_fails(noise_begin(&noise, 1), ERR_NOINPUT, "/nowhere/noise");
    v[1].noise = (char *)golden;
    v[1].n_blocks = 0; /* as many as the file holds */
    put_job(v, 2);
    want_ok(noise_begin(&noise, 1));
    want_golden(draw(7, 8, 2), 8, 2);
    st.ledger->sessions[0].files = SESSION_NOISE; /* a failure forgets which file was open */
    v[0].noise = (char *)"/nowhere/noise";
    put_job(v, 2);
    want_fails(noise_begin(&noise, 0), ERR_NOINPUT, "/nowhere/noise");
    want_ok(noise_begin(&noise, 1));
    want_golden(draw(7, 8, 2), 8, 2);
}

static void begin_under_another_job(void)
{
    st.ledger->sessions[1].job = JOB + 1;
    if (noise_begin(&noise, 1) != OK) return;
}

static void test_another_job_aborts(void **state)
{
    (void)state;
    put_three();
    if (check_on_gpu()) skip(); /* a child of fork has no GPU */
    check_aborts(begin_under_another_job);
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(test_drawn_from_seed_block_and_step), WITH(test_rounded_where_results_are),
        WITH(test_a_session_with_a_file),          WITH(test_from_session_to_session),
        WITH(test_a_file_that_does_not_do),        WITH(test_another_job_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
