/* test_session.c - jobs to their end, the object thrown away and made anew between steps, against a
 * ledger in plain memory and stages that are one function.
 */
#include "procs/gateway/session.h"

#include "tests/scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/log.h"
#include "procs/gateway/y4m.h"
#include "tests/procs/gateway/latents.h"

static struct stage st;
static struct session session;
static struct prompts *prompts;
static uint8_t *ring;
static float *latent_ring;
static int n_made_anew;

/* --- the stages around it -----------------------------------------------------------------------
 */

static int open_stage(void **state)
{
    if (scratch_open(state) != 0) return -1;
    if (conf_load(&st.conf, "configs/nano.ini", NULL, 0) != OK) return -1;
    st.conf.run.fps = 120;
    st.run_dir = scratch_dir;
    if (bells_open(&st.bells, scratch_dir, WRITER_GATEWAY) != OK) return -1;
    prompts = calloc(1, prompts_bytes(&st.conf));
    ring = calloc(1, frames_bytes(&st.conf));
    latent_ring = calloc(1, latents_bytes(&st.conf));
    return prompts && ring && latent_ring ? 0 : -1;
}

static int close_stage(void **state)
{
    alarm(0);
    bells_close(&st.bells);
    free(prompts);
    free(ring);
    free(latent_ring);
    return scratch_close(state);
}

/* The object as a new process has it. */
static void make_anew(void)
{
    session_close(&session);
    memset(&session, 0, sizeof session);
    session.st = &st;
    session.ledger = st.ledger;
    session.prompts = prompts;
    session.at = -1;
    session.latents_fd = -1;
    frames_open(&session.frames, &st.conf, ring);
    latents_open(&session.latents, &st.conf, latent_ring);
    n_made_anew++;
}

static int begin(void **state)
{
    (void)state;
    st.ledger = calloc(1, sizeof *st.ledger);
    if (!st.ledger) return -1;
    st.head = &st.ledger->gateway.head;
    st.spans = &st.ledger->spans[WRITER_GATEWAY];
    st.is_draining = false;
    prompts_format(prompts, &st.conf);
    make_anew();
    unlink(scratch_path("job.error"));
    unlink(scratch_path("job.json"));
    n_made_anew = 0;
    return 0;
}

static int end(void **state)
{
    (void)state;
    session_close(&session);
    free(st.ledger);
    return 0;
}

static uint8_t pixel(int64_t frame, int64_t i)
{
    return (uint8_t)(frame * 31 + i * 7 + i / 97);
}

static void write_frame(int64_t frame)
{
    uint8_t *to = frames_at(&session.frames, frame);
    for (int64_t i = 0; i < session.frames.n_bytes; i++) to[i] = pixel(frame, i);
}

/* Value i of a latent, which no other latent in the ring has. */
static float value(int64_t latent, int64_t i)
{
    return (float)(latent * 1000 + i);
}

/* dit and vae: every latent that is wanted and whose frames have room. */
static void make_latents(void)
{
    struct ledger *l = st.ledger;
    while (l->vae.n_latents < l->gateway.want) {
        const int64_t latent = (int64_t)l->vae.n_latents;
        const int64_t at = ledger_session_of(l, latent / st.conf.dit.block);
        assert_true(at >= 0); /* nothing is wanted that belongs to no session */
        const struct ledger_session *s = &l->sessions[at];
        const int64_t r = latent - s->first_block * st.conf.dit.block;
        const int64_t first = s->first_frame + ledger_frames_of(r), n = r ? 4 : 1;
        if (first + n > (int64_t)l->gateway.n_committed + st.conf.vae.ring_frames) return;
        for (int64_t f = first; f < first + n; f++) write_frame(f);
        for (int64_t i = 0; i < session.latents.n_values; i++)
            latents_at(&session.latents, latent)[i] = value(latent, i);
        l->vae.n_latents = (uint64_t)latent + 1;
        l->dit.n_latents_blocks = l->vae.n_latents / (uint64_t)st.conf.dit.block;
    }
}

/* Steps until the job is done; kills: after 1, 2, 3, 1, 2 ... steps the object is thrown away. One
 * finds its session again in its first step and works in its second. */
static void run_job(bool kills)
{
    const uint64_t id = st.ledger->gateway.job_done + 1;
    for (int i = 0; i < 5000 && st.ledger->gateway.job_done != id; i++) {
        bool did_work = false;
        if (kills && (i % 6 == 0 || i % 6 == 1 || i % 6 == 3)) make_anew();
        const uint64_t committed = st.ledger->gateway.n_committed;
        check_ok(session_step(&session, &did_work));
        assert_true(st.ledger->gateway.n_committed >= committed);
        /* Here the death comes between a put and its commit. */
        if (kills && i % 6 == 2) st.ledger->gateway.n_committed = committed;
        make_latents();
        if (!did_work) sleep_ns(NS_PER_MS);
    }
    assert_int_equal(st.ledger->gateway.job_done, id);
    assert_int_equal(st.ledger->gateway.job, id);
}

/* --- jobs ----------------------------------------------------------------------------------------
 */

static struct job_prompt script_a[] = {{(char *)(uintptr_t) "a dog", 0, false, false},
                                       {(char *)(uintptr_t) "a cat", 2, false, false}};
static struct job_prompt script_b[] = {{(char *)(uintptr_t) "a dog", 0, false, false}};
static char out_a[128], out_b[128], hashes_a[128], latents_a[128];
static char none[1];
static char *prewarm[] = {(char *)(uintptr_t) "warm"};

static struct job_video video_a(int64_t n_blocks)
{
    return (struct job_video){script_a, 2,    n_blocks,  7,    out_a, hashes_a,
                              none,     none, latents_a, NULL, 0};
}

static struct job_video video_b(int64_t n_blocks)
{
    return (struct job_video){script_b, 1, n_blocks, 8, out_b, none, none, none, none, NULL, 0};
}

static void name_outputs(void)
{
    snprintf(out_a, sizeof out_a, "%s", scratch_path("a.y4m"));
    snprintf(out_b, sizeof out_b, "%s", scratch_path("b.y4m"));
    snprintf(hashes_a, sizeof hashes_a, "%s", scratch_path("a.sha"));
    unlink(out_a);
    unlink(out_b);
    snprintf(latents_a, sizeof latents_a, "%s", scratch_path("a.safetensors"));
    unlink(hashes_a);
    unlink(latents_a);
}

static void ask(uint64_t id, bool is_live, struct job_video *videos, int32_t n)
{
    const struct job job = {id, is_live, videos, n, prewarm, 1};
    check_ok(job_write(scratch_path("job.json"), &job));
}

/* The y4m holds frames [first, first + n) of the ledger, and nothing else. */
static void check_video(const char *path, int64_t first, int64_t n)
{
    char header[Y4M_HEADER_BYTES_MAX];
    const int32_t width = conf_width_px(&st.conf), height = conf_height_px(&st.conf);
    const size_t n_header = y4m_header(header, width, height, st.conf.run.fps);
    const size_t n_frame = y4m_frame_bytes(width, height);
    uint8_t *rgb = malloc((size_t)session.frames.n_bytes), *want = malloc(n_frame);
    uint8_t *got = malloc(n_frame);
    struct stat s;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && rgb && want && got);
    assert_int_equal(fstat(fd, &s), 0);
    assert_int_equal(s.st_size, n_header + (size_t)n * n_frame);
    for (int64_t f = 0; f < n; f++) {
        for (int64_t i = 0; i < session.frames.n_bytes; i++) rgb[i] = pixel(first + f, i);
        y4m_frame(want, rgb, width, height);
        assert_int_equal(pread(fd, got, n_frame, (off_t)(n_header + (size_t)f * n_frame)), n_frame);
        assert_memory_equal(got, want, n_frame);
    }
    close(fd);
    free(rgb);
    free(want);
    free(got);
}

static int64_t count_lines(const char *path)
{
    int64_t n = 0;
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (int c; (c = fgetc(f)) != EOF;) n += c == '\n';
    fclose(f);
    return n;
}

static void check_session(int i, int64_t first_block, int64_t first_frame, uint64_t n_blocks)
{
    const struct ledger_session *s = &st.ledger->sessions[i];
    assert_int_equal(s->first_block, first_block);
    assert_int_equal(s->first_frame, first_frame);
    assert_int_equal(s->n_blocks, n_blocks);
}

static void check_script(int i, int64_t of, int64_t at_block, const char *text)
{
    const struct ledger_script *s = &st.ledger->scripts[i];
    assert_int_equal(s->session, of);
    assert_int_equal(s->at_block, at_block);
    assert_int_equal(s->n_text_bytes, strlen(text));
    assert_memory_equal(st.ledger->texts + s->text_at, text, strlen(text));
}

/* Two videos; the second begins where the first ended. */
static void run_two(bool kills)
{
    struct job_video videos[] = {video_a(5), video_b(3)};
    const struct ledger_gateway *g = &st.ledger->gateway;
    name_outputs();
    ask(1, false, videos, 2);
    run_job(kills);
    assert_int_equal(g->job_error, 0);
    assert_int_equal(g->n_sessions, 2);
    check_session(0, 0, 0, 5);
    check_session(1, 5, 57, 3);
    assert_int_equal(st.ledger->sessions[0].seed, 7);
    assert_int_equal(st.ledger->sessions[1].seed, 8);
    assert_int_equal(st.ledger->sessions[1].video, 1);
    assert_int_equal(g->n_scripts, 4);
    check_script(0, -1, SCRIPT_PREWARM, "warm");
    check_script(1, 0, 0, "a dog");
    check_script(2, 0, 2, "a cat");
    check_script(3, 1, 5, "a dog");
    assert_int_equal(g->n_text_bytes, strlen("warma doga cat")); /* a dog lies there once */
    assert_int_equal(g->n_misses, 4);
    assert_int_equal(g->want, 24);
    assert_int_equal(g->n_committed, 57 + 33);
    assert_int_equal(g->n_outputs, 2);
    check_video(out_a, 0, 57);
    check_video(out_b, 57, 33);
    check_latents(latents_a, session.latents.n_values, value, 15);
    assert_int_equal(count_lines(hashes_a), 57);
    assert_int_not_equal(access(scratch_path("job.error"), F_OK), 0);
}

static void test_two_videos(void **state)
{
    (void)state;
    run_two(false);
}

static void test_two_videos_with_deaths(void **state)
{
    (void)state;
    run_two(true);
    assert_true(n_made_anew > 5);
}

/* job.json stays: nobody does it again, and the next one is the next number. */
static void test_a_job_is_done_once(void **state)
{
    (void)state;
    struct job_video videos[] = {video_a(2), video_b(1)};
    name_outputs();
    ask(1, false, videos, 2);
    run_job(true);
    for (int i = 0; i < 5; i++) {
        bool did_work = false;
        make_anew();
        check_ok(session_step(&session, &did_work));
        assert_false(did_work);
        assert_null(session.job);
    }
    ask(3, false, videos, 2); /* nor is a number left out */
    bool did_work = false;
    check_ok(session_step(&session, &did_work));
    assert_false(did_work);
    ask(2, false, videos, 2);
    run_job(true);
    assert_int_equal(st.ledger->gateway.n_sessions, 4);
    assert_int_equal(st.ledger->gateway.n_scripts, 8);
    check_session(2, 3, 21 + 9, 2);
    check_video(out_a, 30, 21);
}

/* --- live ----------------------------------------------------------------------------------------
 */

static struct job_video live_video(void)
{
    return (struct job_video){NULL, 0, 0, 9, out_a, none, none, none, none, NULL, 0};
}

static void step(int n)
{
    for (int i = 0; i < n; i++) {
        bool did_work = false;
        check_ok(session_step(&session, &did_work));
        make_latents();
        if (!did_work) sleep_ns(NS_PER_MS);
    }
}

static void test_finish_before_any_prompt_voids(void **state)
{
    (void)state;
    struct job_video video = live_video();
    name_outputs();
    ask(1, true, &video, 1);
    step(20);
    assert_int_equal(st.ledger->gateway.n_sessions, 1);
    assert_int_equal(st.ledger->gateway.want, 0);
    assert_int_equal(st.ledger->gateway.n_scripts, 1); /* the prewarmed one */
    session_finish(&session, 1);
    check_session(0, 0, 0, LEDGER_VOID);
    run_job(false);
    check_video(out_a, 0, 0);
    /* The next session begins at the same block and frame. */
    struct job_video videos[] = {video_b(1)};
    ask(2, false, videos, 1);
    run_job(false);
    check_session(1, 0, 0, 1);
    check_video(out_b, 0, 9);
}

static void finish_midway(bool kills)
{
    struct job_video video = live_video();
    struct ledger *l = st.ledger;
    int64_t script = -1, again = -1;
    name_outputs();
    ask(1, true, &video, 1);
    step(3);
    check_ok(session_prompt(&session, "  a   horse ", 77, &script));
    check_ok(session_prompt(&session, "a horse", 77, &again));
    assert_int_equal(script, again);
    assert_int_equal(l->gateway.n_scripts, 2);
    check_script(1, 0, SCRIPT_ASAP, "a horse");
    for (int i = 0; i < 3000 && l->gateway.n_committed < 30; i++) {
        if (kills && i % 3 == 0) make_anew();
        step(1);
    }
    assert_true(l->gateway.n_committed >= 30);
    if (!session.job) step(1);
    while (session.at < 0) step(1);
    session_finish(&session, 1);
    const int64_t n_blocks = (int64_t)l->sessions[0].n_blocks;
    assert_int_equal(n_blocks * st.conf.dit.block, l->gateway.want); /* what was allowed, no more */
    check_fails(session_prompt(&session, "too late", 78, &script), ERR_NONE, "ending");
    run_job(kills);
    assert_int_equal(l->sessions[0].n_blocks, n_blocks);
    check_video(out_a, 0, ledger_frames_of(n_blocks * st.conf.dit.block));
}

static void test_finish_midway_ends_at_a_block(void **state)
{
    (void)state;
    finish_midway(false);
}

static void test_finish_midway_with_deaths(void **state)
{
    (void)state;
    finish_midway(true);
}

/* Asked of a gateway that has just begun and found no session yet. */
static void test_an_end_is_not_forgotten(void **state)
{
    (void)state;
    struct job_video videos[] = {video_a(9), video_b(3)};
    name_outputs();
    ask(1, false, videos, 2);
    step(3);
    make_anew();
    session_finish(&session, 1);
    make_anew();
    run_job(true);
    assert_int_equal(st.ledger->gateway.n_sessions, 1); /* nor is the second video begun */
    assert_true(st.ledger->sessions[0].n_blocks < 9);
}

/* The same request, come late: the next job goes its way. */
static void test_an_end_of_a_done_job_ends_nothing(void **state)
{
    (void)state;
    struct job_video video = video_b(2);
    name_outputs();
    ask(1, false, &video, 1);
    run_job(false);
    ask(2, false, &video, 1);
    step(1);
    session_finish(&session, 1);
    run_job(false);
    check_session(1, 2, 21, 2);
}

static void test_prompts_that_are_refused(void **state)
{
    (void)state;
    int64_t script;
    struct job_video videos[] = {video_a(2)};
    check_fails(session_prompt(&session, "x", 1, &script), ERR_NONE, "no session");
    name_outputs();
    ask(1, false, videos, 1);
    step(2);
    check_fails(session_prompt(&session, "x", 1, &script), ERR_NONE, "script of its own");
    run_job(false);
    struct job_video video = live_video();
    ask(2, true, &video, 1);
    step(3);
    check_fails(session_prompt(&session, "   ", 2, &script), ERR_DATA, "");
    st.is_draining = true; /* SIGTERM ends it */
    run_job(false);
    check_fails(session_prompt(&session, "x", 3, &script), ERR_NONE, "no session");
}

/* SIGTERM ends a video at a block: its latents are those of its frames. */
static void test_latents_of_a_video_ended_early(void **state)
{
    (void)state;
    struct job_video videos[] = {video_a(50)};
    name_outputs();
    ask(1, false, videos, 1);
    step(4);
    st.is_draining = true;
    run_job(true);
    const int64_t n_blocks = (int64_t)st.ledger->sessions[0].n_blocks;
    assert_in_range(n_blocks, 1, 49);
    check_video(out_a, 0, ledger_frames_of(3 * n_blocks));
    check_latents(latents_a, session.latents.n_values, value, 3 * n_blocks);
}

/* --- failures
 * ------------------------------------------------------------------------------------- */

static void check_failed(const char *words)
{
    char text[256] = {0};
    const int fd = open(scratch_path("job.error"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    assert_int_equal(st.ledger->gateway.job_error, 73);
    if (!strstr(text, words) || text[strlen(text) - 1] != '\n')
        fail_msg("\"%s\" is not in: %s", words, text);
}

/* The first video cannot be written: the job ends, its second video is not begun. */
static void fail_at_open(const char *path, const char *words, bool kills)
{
    struct job_video videos[] = {video_a(5), video_b(3)};
    videos[0].out = (char *)(uintptr_t)path;
    name_outputs();
    ask(1, false, videos, 2);
    run_job(kills);
    check_failed(words);
    assert_int_equal(st.ledger->gateway.n_sessions, 1);
    assert_int_equal(st.ledger->sessions[0].n_blocks, LEDGER_VOID);
    /* The pipeline serves on. */
    videos[0].out = out_a;
    ask(2, false, videos, 2);
    run_job(kills);
    assert_int_equal(st.ledger->gateway.job_error, 0);
    check_session(1, 0, 0, 5);
    check_video(out_b, 57, 33);
}

static void test_output_in_a_missing_directory(void **state)
{
    (void)state;
    fail_at_open("/nowhere/at/all/x.y4m", "/nowhere/at/all/x.y4m", false);
}

static void test_output_in_a_missing_directory_with_deaths(void **state)
{
    (void)state;
    fail_at_open("/nowhere/at/all/x.y4m", "/nowhere/at/all/x.y4m", true);
}

static void test_output_to_a_full_device(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s", scratch_path("full.y4m"));
    unlink(path);
    assert_int_equal(symlink("/dev/full", path), 0);
    fail_at_open(path, "No space left", false);
}

/* The disk is full after some frames: those are kept, what was allowed is made and dropped. */
static void fill_the_disk(bool kills)
{
    struct job_video videos[] = {video_a(50), video_b(3)};
    const struct ledger_gateway *g = &st.ledger->gateway;
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    struct rlimit some = {60000, RLIM_INFINITY};
    struct stat s;
    videos[0].hashes = (char *)(uintptr_t) "";
    name_outputs();
    ask(1, false, videos, 2);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &some), 0);
    run_job(kills);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    check_failed("File too large");
    assert_int_equal(stat(out_a, &s), 0);
    assert_in_range(s.st_size, 30000, 60000);
    assert_int_equal(g->n_sessions, 1);
    assert_true(st.ledger->sessions[0].n_blocks > 0 && st.ledger->sessions[0].n_blocks < 50);
    assert_int_equal(st.ledger->vae.n_latents, g->want);
    assert_int_equal(g->n_committed, ledger_frames_of((int64_t)g->want));
    check_video(out_a, 0, s.st_size / (int64_t)y4m_frame_bytes(48, 32));
}

static void test_output_that_fills_up(void **state)
{
    (void)state;
    fill_the_disk(false);
}

static void test_output_that_fills_up_with_deaths(void **state)
{
    (void)state;
    fill_the_disk(true);
}

/* Killed after the failure was recorded and before the session was ended: its successor ends it. */
static void test_a_death_between_failure_and_end(void **state)
{
    (void)state;
    struct job_video video = live_video();
    int64_t script;
    name_outputs();
    ask(1, true, &video, 1);
    step(3);
    check_ok(session_prompt(&session, "a horse", 5, &script));
    step(20);
    st.ledger->gateway.job_error = 73;
    make_anew();
    run_job(false);
    assert_int_equal(st.ledger->gateway.job_error, 73);
    assert_true(st.ledger->sessions[0].n_blocks > 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    setenv("LONGLIVED_LOG", "error", 1);
    log_open("gateway");
    const struct CMUnitTest tests[] = {
        T(test_two_videos),
        T(test_two_videos_with_deaths),
        T(test_a_job_is_done_once),
        T(test_finish_before_any_prompt_voids),
        T(test_finish_midway_ends_at_a_block),
        T(test_finish_midway_with_deaths),
        T(test_an_end_is_not_forgotten),
        T(test_an_end_of_a_done_job_ends_nothing),
        T(test_prompts_that_are_refused),
        T(test_latents_of_a_video_ended_early),
        T(test_output_in_a_missing_directory),
        T(test_output_in_a_missing_directory_with_deaths),
        T(test_output_to_a_full_device),
        T(test_output_that_fills_up),
        T(test_output_that_fills_up_with_deaths),
        T(test_a_death_between_failure_and_end),
    };
    return cmocka_run_group_tests(tests, open_stage, close_stage);
}
