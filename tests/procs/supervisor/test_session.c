/* test_session.c - a job through somebody's pipeline, whose gateway is a process of this test. */
#include "procs/supervisor/session.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/procs/supervisor/fake.h"

static struct rundir dir;
static struct pipeline p;
static struct ledger *l; /* the gateway's side */
static struct args args;
static struct job job;
static char prompt_text[] = "a";
static struct job_prompt prompt = {.text = prompt_text, .at_block = 0};
static struct job_video video;
static struct session_result result;
static const struct session_conf conf = {.prompts_fd = -1};

static const char *in_run(const char *name)
{
    static char path[2][RUNDIR_PATH_MAX + 32];
    static int at;
    at = 1 - at;
    snprintf(path[at], sizeof path[at], "%s/%s", dir.path, name);
    return path[at];
}

static int open_all(void **state)
{
    static struct conf c;
    if (scratch_open(state) != 0) return -1;
    check_ok(rundir_open(&dir, scratch_path("run")));
    fake_conf(&c);
    FILE *f = fopen(in_run("config.ini"), "w");
    conf_write(&c, f);
    fclose(f);
    const int fd = open(in_run("ledger"), O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, sizeof *l), 0);
    l = mmap(NULL, sizeof *l, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    fake_programs();
    check_ok(pipeline_attach(&p, dir.path, scratch_dir));
    args = (struct args){.cmd = CMD_GENERATE, .seed = -1, .status_fd = -1, .quiet = true};
    video = (struct job_video){
        .prompts = &prompt, .n_prompts = 1, .n_blocks = 4, .out = "x.y4m", .hashes = ""};
    job = (struct job){.videos = &video, .n_videos = 1};
    return 0;
}

static int close_all(void **state)
{
    check_ok(pipeline_end(&p));
    munmap(l, sizeof *l);
    rundir_close(&dir, false);
    return scratch_close(state);
}

/* Takes the job when it is there and ends it with a status; waits for `finish` first, if told. */
static pid_t gateway(int status, const char *line, bool awaits_finish)
{
    const pid_t pid = fork();
    if (pid != 0) return pid;
    struct job *read = NULL;
    while (access(in_run("job.json"), F_OK) != 0) usleep(1000);
    if (job_read(in_run("job.json"), &read) != OK) _exit(1);
    ledger_publish(&l->gateway.job, read->id);
    while (awaits_finish && fake_trace("start ctl", 0) < 0) usleep(1000);
    ledger_publish(&l->gateway.n_committed, ledger_read(&l->gateway.n_committed) + 45);
    if (line && file_write(in_run("job.error"), line, strlen(line)) != OK) _exit(1);
    ledger_publish(&l->gateway.job_error, (uint64_t)status);
    ledger_publish(&l->gateway.job_done, read->id);
    job_free(&read);
    _exit(0);
}

static void reap(pid_t pid)
{
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void test_a_job_that_succeeds(void **state)
{
    (void)state;
    ledger_publish(&l->gateway.job, 3);
    ledger_publish(&l->gateway.job_done, 3);
    ledger_publish(&l->gateway.n_committed, 1000);
    const pid_t pid = gateway(0, NULL, false);
    check_ok(session_run(&p, &args, &job, &conf, &result));
    assert_int_equal(job.id, 4);
    assert_int_equal(result.n_frames, 45);
    assert_false(result.was_asked);
    reap(pid);
}

static void test_a_job_that_fails(void **state)
{
    (void)state;
    pid_t pid = gateway(73, "x.y4m: No space left on device\nmore\n", false);
    check_fails(session_run(&p, &args, &job, &conf, &result), ERR_WRITE,
                "x.y4m: No space left on device");
    assert_null(strchr(err_text(), '\n'));
    reap(pid);
    assert_int_equal(unlink(in_run("job.json")), 0);
    pid = gateway(70, NULL, false); /* the line of the job before is not this one's */
    check_fails(session_run(&p, &args, &job, &conf, &result), ERR_BUG, "ended with status 70");
    reap(pid);
}

static void test_one_session_at_a_time(void **state)
{
    (void)state;
    int fd;
    ledger_publish(&l->gateway.job, 1);
    check_fails(session_run(&p, &args, &job, &conf, &result), ERR_AGAIN, "a session runs in");
    ledger_publish(&l->gateway.job_done, 1);
    check_ok(rundir_lock_file(dir.path, "job.lock", &fd));
    check_fails(session_run(&p, &args, &job, &conf, &result), ERR_AGAIN, "another command");
    close(fd);
    assert_int_not_equal(access(in_run("job.json"), F_OK), 0);
}

static void test_a_signal_finishes(void **state)
{
    (void)state;
    const pid_t pid = gateway(0, NULL, true);
    const pid_t sender = fork();
    if (sender == 0) {
        while (ledger_read(&l->gateway.job) == 0) usleep(1000);
        kill(getppid(), SIGINT);
        _exit(0);
    }
    check_ok(session_run(&p, &args, &job, &conf, &result));
    assert_true(result.was_asked);
    assert_int_equal(fake_count("start ctl"), 1);
    reap(pid);
    reap(sender);
}

struct looks {
    int n;
    bool has_seen_end;
};

static bool has_two_looks(void *self, const struct ledger *seen)
{
    struct looks *looks = self;
    assert_false(looks->has_seen_end);
    looks->has_seen_end = ledger_read(&seen->gateway.job_done) == job.id;
    return ++looks->n >= 2;
}

/* Asked for by who looks, not by a signal; and once, however often it is said. */
static void test_a_look_finishes(void **state)
{
    (void)state;
    struct looks seen = {0};
    const struct session_conf looks = {.prompts_fd = -1, .look = has_two_looks, .self = &seen};
    const int64_t before = now_ns();
    const pid_t pid = gateway(0, NULL, true);
    check_ok(session_run(&p, &args, &job, &looks, &result));
    assert_true(result.was_asked);
    assert_true(seen.n >= 3 && seen.has_seen_end);
    assert_true(result.given_ns >= before && result.given_ns <= now_ns());
    assert_int_equal(fake_count("start ctl"), 1);
    reap(pid);
}

static void test_two_signals_end(void **state)
{
    (void)state;
    const pid_t sender = fork();
    if (sender == 0) {
        while (access(in_run("job.json"), F_OK) != 0) usleep(1000);
        kill(getppid(), SIGTERM);
        while (fake_trace("start ctl", 0) < 0) usleep(1000);
        kill(getppid(), SIGTERM);
        _exit(0);
    }
    check_fails(session_run(&p, &args, &job, &conf, &result), ERR_AGAIN, "interrupted");
    reap(sender);
}

static void test_a_pipeline_that_goes_away(void **state)
{
    (void)state;
    close(dir.lock_fd); /* as when its holder is killed */
    dir.lock_fd = -1;
    check_fails(session_run(&p, &args, &job, &conf, &result), ERR_NONE, "has ended");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_job_that_succeeds, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_job_that_fails, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_one_session_at_a_time, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_signal_finishes, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_look_finishes, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_two_signals_end, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_pipeline_that_goes_away, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
