/* test_plan.c - what the gateway does next: tables of cases. */
#include "procs/gateway/plan.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/check.h"

static struct ledger *l;
static struct conf c; /* block 3 */

static int open_ledger(void **state)
{
    (void)state;
    conf_default(&c);
    c.run.fps = 16;
    c.run.ahead_ms = 0;
    l = malloc(sizeof *l);
    return l ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(l);
    return 0;
}

static void clear(void)
{
    memset(l, 0, sizeof *l);
}

/* The last of the ledger's sessions: n_blocks 0 open, from block `first`. */
static struct ledger_session *put_session(int64_t first, uint64_t n_blocks, int64_t job)
{
    struct ledger_session *s = &l->sessions[l->gateway.n_sessions++];
    s->first_block = first;
    s->n_blocks = n_blocks;
    s->job = job;
    return s;
}

/* --- jobs ---------------------------------------------------------------------------------------
 */

static void test_which_job(void **state)
{
    (void)state;
    static const struct {
        uint64_t job, done, id;
        bool is_draining;
        enum gateway_job want;
    } row[] = {
        {0, 0, 1, false, GATEWAY_JOB_BEGIN},  {0, 0, 1, true, GATEWAY_JOB_NONE},
        {1, 0, 1, false, GATEWAY_JOB_RESUME}, {1, 0, 1, true, GATEWAY_JOB_RESUME},
        {1, 1, 1, false, GATEWAY_JOB_NONE},   {1, 1, 2, false, GATEWAY_JOB_BEGIN},
        {1, 1, 3, false, GATEWAY_JOB_NONE},   {2, 1, 3, false, GATEWAY_JOB_NONE},
        {2, 1, 2, false, GATEWAY_JOB_RESUME},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        clear();
        l->gateway.job = row[i].job;
        l->gateway.job_done = row[i].done;
        assert_int_equal(gateway_plan_job(l, row[i].id, row[i].is_draining), row[i].want);
    }
}

/* An end is written down once, for a job that is not done; one for a later job holds for it too. */
static void test_ending(void **state)
{
    (void)state;
    static const struct {
        uint64_t done, ending, id;
        bool is_news, is_ending;
    } row[] = {
        {0, 0, 1, true, false}, {0, 1, 1, false, true}, {1, 0, 1, false, false},
        {1, 1, 2, true, false}, {1, 2, 2, false, true}, {1, 2, 1, false, true},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        clear();
        l->gateway.job_done = row[i].done;
        l->gateway.job_end = row[i].ending;
        assert_int_equal(gateway_plan_ends(l, row[i].id), row[i].is_news);
        assert_int_equal(gateway_job_is_ending(l, row[i].id), row[i].is_ending);
    }
}

/* A job of three videos. Its last session in the ledger, if any, is of `video` and 2 blocks: 21
 * frames. */
static void test_what_next(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool is_ours;
        int64_t video, at, n_put;
        bool failed, is_ending; /* by SIGTERM, or because somebody asked */
        enum gateway_action action;
        int64_t which;
    } row[] = {
        {"begins with video 0", false, 2, -1, 0, false, false, GATEWAY_APPEND, 0},
        {"draining: does not begin", false, 2, -1, 0, false, true, GATEWAY_END_JOB, 0},
        {"found after a death", true, 1, -1, 0, false, false, GATEWAY_ENTER, 0},
        {"found draining: is finished", true, 1, -1, 0, false, true, GATEWAY_ENTER, 0},
        {"found failed: is dropped", true, 1, -1, 0, true, false, GATEWAY_ENTER, 0},
        {"goes on", true, 1, 0, 0, false, false, GATEWAY_RUN, 0},
        {"to the last frame", true, 1, 0, 20, false, false, GATEWAY_RUN, 0},
        {"then the next video", true, 1, 0, 21, false, false, GATEWAY_APPEND, 2},
        {"or not, draining", true, 1, 0, 21, false, true, GATEWAY_END_JOB, 0},
        {"or not, failed", true, 1, 0, 21, true, false, GATEWAY_END_JOB, 0},
        {"failed, but blocks are coming", true, 1, 0, 20, true, false, GATEWAY_RUN, 0},
        {"after the last", true, 2, 0, 21, false, false, GATEWAY_END_JOB, 0},
    };
    const struct job job = {.id = 7, .n_videos = 3};
    for (size_t i = 0; i < COUNT(row); i++) {
        clear();
        put_session(0, 2, row[i].is_ours ? 7 : 6)->video = row[i].video;
        l->gateway.job_error = row[i].failed;
        const struct gateway_plan p =
            gateway_plan_next(l, &c, &job, row[i].at, row[i].n_put, row[i].is_ending);
        l->gateway.job_end = row[i].is_ending ? 7 : 6;
        const struct gateway_plan q =
            gateway_plan_next(l, &c, &job, row[i].at, row[i].n_put, false);
        assert_int_equal(p.action, q.action);
        if (p.action != row[i].action) fail_msg("%s: action %d", row[i].name, p.action);
        if (p.action == GATEWAY_APPEND) assert_int_equal(p.video, row[i].which);
        else if (p.action != GATEWAY_END_JOB) assert_int_equal(p.session, row[i].which);
    }
}

/* An open session never is whole; one that ended before its first block always is. */
static void test_whole(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_blocks;
        int64_t n_put;
        bool want;
    } row[] = {{0, 1 << 20, false}, {LEDGER_VOID, 0, true}, {1, 8, false}, {1, 9, true}};
    for (size_t i = 0; i < COUNT(row); i++) {
        clear();
        put_session(5, row[i].n_blocks, 1);
        assert_int_equal(gateway_is_whole(l, &c, 0, row[i].n_put), row[i].want);
    }
}

/* --- sessions ------------------------------------------------------------------------------------
 */

static void test_where_sessions_begin(void **state)
{
    (void)state;
    int64_t block, frame;
    clear();
    gateway_plan_begin(l, &c, &block, &frame);
    assert_int_equal(block, 0);
    assert_int_equal(frame, 0);
    put_session(0, 2, 1);
    gateway_plan_begin(l, &c, &block, &frame);
    assert_int_equal(block, 2);
    assert_int_equal(frame, 1 + 4 * 5);
    put_session(2, LEDGER_VOID, 1)->first_frame = 21;
    gateway_plan_begin(l, &c, &block, &frame);
    assert_int_equal(block, 2);
    assert_int_equal(frame, 21);
}

static void test_finish(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_blocks, want, n; /* want in blocks over the ledger; the session begins at 4 */
    } row[] = {
        {0, 0, LEDGER_VOID}, {0, 4, LEDGER_VOID},  {0, 5, 1}, {0, 9, 5},
        {9, 9, 5},           {9, 4, LEDGER_VOID},  {5, 9, 0}, {5, 12, 0},
        {LEDGER_VOID, 4, 0}, {LEDGER_VOID, 12, 0},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        clear();
        put_session(4, row[i].n_blocks, 1);
        l->gateway.want = row[i].want * 3;
        assert_int_equal(gateway_plan_finish(l, &c, 0), row[i].n);
    }
}

static void put_script(int64_t session, int64_t at_block, uint64_t request)
{
    l->scripts[l->gateway.n_scripts++] =
        (struct ledger_script){.session = session, .at_block = at_block, .request = request};
}

static void test_scripts(void **state)
{
    (void)state;
    clear();
    assert_int_equal(gateway_n_scripted(l, 0), 0);
    assert_int_equal(gateway_find_request(l, 5), -1);
    put_script(-1, SCRIPT_PREWARM, 0);
    put_script(0, 0, 0);
    put_script(0, SCRIPT_ASAP, 5);
    put_script(0, 7, 0);
    put_script(1, 9, 0);
    assert_int_equal(gateway_n_scripted(l, 0), 2);
    assert_int_equal(gateway_n_scripted(l, 1), 1);
    assert_int_equal(gateway_find_request(l, 5), 2);
    assert_int_equal(gateway_find_request(l, 6), -1);
}

/* The oldest decision of the prompt's session that is not older than the prompt. */
static void test_decision_of(void **state)
{
    (void)state;
    static const int64_t decided[][2] = {{0, 0}, {2, 0}, {3, 0}, {4, 1}}; /* script, session */
    static const int64_t want[] = {0, 1, 1, 2, 3, -1};
    clear();
    for (int i = 0; i < 6; i++) put_script(i >= 4, SCRIPT_ASAP, 0);
    for (size_t i = 0; i < COUNT(decided); i++) {
        l->decisions[i].script = decided[i][0];
        l->decisions[i].session = decided[i][1];
    }
    l->dit.n_decisions = COUNT(decided);
    for (int i = 0; i < 6; i++) assert_int_equal(gateway_decision_of(l, i), want[i]);
}

/* Presets are counted, found and decided apart from prompts. */
static void test_presets(void **state)
{
    (void)state;
    static const int64_t decided[][2] = {{0, 0}, {2, 0}, {2, 0}, {0, 1}}; /* preset, session */
    static const int64_t want[] = {1, 1, -1, -1};
    clear();
    assert_int_equal(gateway_n_scripted_presets(l, 0), 0);
    assert_int_equal(gateway_find_preset(l, 5), -1);
    for (int i = 0; i < 4; i++)
        l->presets[i] = (struct ledger_preset){.session = i == 3, .request = i == 1 ? 5 : 0};
    l->gateway.n_presets = 4;
    assert_int_equal(gateway_n_scripted_presets(l, 0), 2);
    assert_int_equal(gateway_find_preset(l, 5), 1);
    assert_int_equal(gateway_find_request(l, 5), -1);
    for (size_t i = 0; i < COUNT(decided); i++) {
        l->decisions[i].preset = decided[i][0];
        l->decisions[i].session = decided[i][1];
        l->dit.n_decisions = i < 3 ? i + 1 : i;
    }
    for (int i = 0; i < 4; i++) assert_int_equal(gateway_decision_of_preset(l, i), want[i]);
}

static void test_output(void **state)
{
    (void)state;
    clear();
    l->gateway.n_outputs = 2;
    assert_false(gateway_resumes_output(l, 2));
    assert_true(gateway_resumes_output(l, 1));
}

/* --- flow and frames ----------------------------------------------------------------------------
 */

static void test_want(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool is_live, has_prompt;
        uint64_t n_blocks;
        int64_t n_put, n_shown, now, want; /* now and want in blocks; the session begins at 4 */
    } row[] = {
        {"no prompt", false, false, 9, 0, 0, 4, 4},
        {"three blocks ahead", false, true, 9, 0, 0, 4, 7},
        {"of what is put", false, true, 9, 8, 21, 4, 7},
        {"a block put", false, true, 9, 9, 21, 4, 8},
        {"not past the end", false, true, 2, 9, 21, 4, 6},
        {"never less", false, true, 9, 0, 0, 8, 8},
        {"live: the block of the next frame", true, true, 0, 0, 0, 4, 5},
        {"live: what is shown counts", true, true, 0, 0, 9, 4, 6},
        {"live: that block's last frame", true, true, 0, 0, 8, 4, 5},
        {"live: to the end", true, true, 1, 9, 9, 4, 5},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        clear();
        put_session(4, row[i].n_blocks, 1)->is_live = row[i].is_live;
        if (row[i].has_prompt) put_script(0, SCRIPT_ASAP, 0);
        l->gateway.want = (uint64_t)row[i].now * 3;
        const int64_t want = gateway_plan_want(l, &c, 0, row[i].n_put, row[i].n_shown);
        if (want != row[i].want * 3) fail_msg("%s: %lld", row[i].name, (long long)want);
    }
}

static void test_frames_made(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_blocks, n_latents;
        int64_t want;
    } row[] = {{0, 12, 0}, {0, 13, 1}, {0, 18, 21}, {1, 18, 9}, {1, 11, 0}, {LEDGER_VOID, 18, 0}};
    for (size_t i = 0; i < COUNT(row); i++) {
        clear();
        put_session(4, row[i].n_blocks, 1);
        l->vae.n_latents = row[i].n_latents;
        assert_int_equal(gateway_frames_made(l, &c, 0), row[i].want);
    }
}

/* 21 frames are made; the clock shows them one by one, and all of them when it does not rule. */
static void test_frames_due(void **state)
{
    (void)state;
    const int64_t began_ns = (int64_t)5 * NS_PER_S, frame_ns = NS_PER_S / 16;
    struct pace p = {0};
    clear();
    put_session(0, 0, 1)->is_live = 1;
    l->vae.n_latents = 6;
    assert_int_equal(gateway_frames_due(l, &c, 0, 0, false, &p, began_ns), 1);
    assert_int_equal(gateway_frames_due(l, &c, 0, 1, false, &p, began_ns), 1);
    assert_int_equal(gateway_frames_due(l, &c, 0, 1, false, &p, began_ns + frame_ns - 1), 1);
    assert_int_equal(gateway_frames_due(l, &c, 0, 1, false, &p, began_ns + frame_ns), 2);
    assert_int_equal(p.n_late, 0);
    assert_int_equal(gateway_frames_due(l, &c, 0, 2, false, &p, began_ns + 4 * frame_ns), 3);
    assert_int_equal(p.n_late, 1); /* two frames late: the rest is due as much later */
    assert_int_equal(gateway_frames_due(l, &c, 0, 3, true, &p, began_ns), 21);
    l->gateway.job_error = 73;
    assert_int_equal(gateway_frames_due(l, &c, 0, 3, false, &p, began_ns), 21);
    l->gateway.job_error = 0;
    l->sessions[0].n_blocks = 1;
    assert_int_equal(gateway_frames_due(l, &c, 0, 3, false, &p, began_ns), 9);
    l->sessions[0].n_blocks = 0;
    l->sessions[0].is_live = 0;
    assert_int_equal(gateway_frames_due(l, &c, 0, 3, false, &p, began_ns), 21);
}

static void test_frames_to_put(void **state)
{
    (void)state;
    static const struct {
        int64_t n_put, n_shown;
        bool wants_block;
        int32_t want;
    } row[] = {
        {0, 0, false, 0}, {0, 5, false, 5}, {5, 500, false, 128}, {0, 8, true, 0},
        {0, 9, true, 9},  {0, 21, true, 9}, {9, 20, true, 0},     {9, 33, true, 12},
    };
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(
            gateway_frames_to_put(&c, row[i].n_put, row[i].n_shown, row[i].wants_block),
            row[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_which_job),
        TEST(test_ending),
        TEST(test_what_next),
        TEST(test_whole),
        TEST(test_finish),
        TEST(test_scripts),
        TEST(test_where_sessions_begin),
        TEST(test_output),
        TEST(test_want),
        TEST(test_presets),
        TEST(test_decision_of),
        TEST(test_frames_due),
        TEST(test_frames_made),
        TEST(test_frames_to_put),
    };
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
