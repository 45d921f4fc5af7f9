/* test_super.c - real processes under the supervisor: order, restarts, ends, and no orphan. */
#include "procs/supervisor/super.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "procs/supervisor/control.h"
#include "tests/procs/supervisor/fake.h"

static struct super *s;
static struct rundir dir;
static struct conf conf;

static int open_all(void **state)
{
    fake_conf(&conf);
    return scratch_open(state);
}

static bool was_started_twice(const struct super *sup)
{
    return super_is_ready(sup) && fake_count("start dit ") == 2;
}

static void test_order_of_start_and_end(void **state)
{
    (void)state;
    static const char *const stages[] = {"text", "dit", "vae", "gateway"};
    char words[32];
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    assert_int_equal(fake_trace("start keeper", 0), 0);
    fake_close(&s, &dir);
    for (int i = 0; i < 4; i++) {
        snprintf(words, sizeof words, "start %s ", stages[i]);
        assert_int_equal(fake_count(words), 1);
        snprintf(words, sizeof words, "term %s", stages[i]);
        assert_true(fake_trace(words, 0) > 0);
        assert_true(fake_trace(words, 0) >= fake_trace("term gateway", 0));
        assert_true(fake_trace(words, 0) < fake_trace("term keeper", 0));
    }
}

static void test_a_death_is_answered_and_alone(void **state)
{
    (void)state;
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    kill(fake_pid("dit", 0), SIGKILL);
    const int64_t at_ns = now_ns();
    assert_true(fake_until(s, was_started_twice));
    assert_true(now_ns() - at_ns < (int64_t)5 * NS_PER_S);
    assert_int_equal(fake_count("start "), 6);
    fake_close(&s, &dir);
}

/* The first dit says that it holds its pipe, and lets go of it a second before it is dead. */
static void put_slow_death(const char *end)
{
    char text[300];
    snprintf(text, sizeof text,
             "[ -e $dir/dit.was ] || { : > $dir/dit.was; printf '\\n.' >&3; sleep 0.2; exec 3>&-\n"
             "sleep 1; echo \"dead dit\" >> $dir/trace; %s; }\n",
             end);
    scratch_put("dit.before", text);
}

static bool has_next(const struct super *sup)
{
    (void)sup;
    return fake_count("start dit ") == 2;
}

static bool is_nobody(int pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

static void test_the_next_begins_while_one_dies(void **state)
{
    (void)state;
    put_slow_death("kill -9 $$");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    assert_true(fake_until(s, was_started_twice));
    assert_in_range(fake_trace("start dit ", 1), 0, fake_trace("dead dit", 0));
    const int64_t until_ns = now_ns() + NS_PER_S;
    while (now_ns() < until_ns || !super_is_ready(s)) super_step(s, 20);
    assert_int_equal(fake_count("start dit "), 2);
    assert_false(is_nobody(fake_pid("dit", 1)));
    fake_close(&s, &dir);
    assert_true(is_nobody(fake_pid("dit", 1)));
}

/* No heir is left where there is to be none: the end was asked for, or coming again cannot help. */
static void test_a_next_that_is_not_wanted_goes(void **state)
{
    (void)state;
    put_slow_death("sleep 30");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, has_next));
    fake_close(&s, &dir);
    assert_true(is_nobody(fake_pid("dit", 1)));
}

static void test_nor_one_after_a_final_status(void **state)
{
    (void)state;
    put_slow_death("exit 78");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_gone));
    assert_int_equal(super_verdict(s), ERR_CONFIG);
    assert_int_equal(fake_count("start dit "), 2);
    assert_true(is_nobody(fake_pid("dit", 1)));
    fake_close(&s, &dir);
}

static bool all_started_twice(const struct super *sup)
{
    return super_is_ready(sup) && fake_count("start ") == 10;
}

static void test_the_keepers_death_restarts_all(void **state)
{
    (void)state;
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    kill(fake_pid("keeper", 0), SIGKILL);
    assert_true(fake_until(s, all_started_twice));
    /* Stages that had it end before there is a new one; then it, then they. */
    for (int i = 0; i < 4; i++)
        assert_in_range(fake_trace("hup ", i), 1, fake_trace("start keeper", 1));
    assert_true(fake_trace("start keeper", 1) < fake_trace("start text", 1));
    fake_close(&s, &dir);
}

static void test_a_final_status_ends_all(void **state)
{
    (void)state;
    scratch_put(
        "dit.before",
        "echo 'level=error stage=dit ev=exit status=78 msg=\"a \"bad\" key\"' >&2; exit 78\n");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_gone));
    check_fails(super_verdict(s), ERR_CONFIG, "dit: a \"bad\" key");
    assert_int_equal(fake_count("start dit "), 1);
    fake_close(&s, &dir);
}

static void test_a_missing_program_is_named(void **state)
{
    (void)state;
    fake_programs();
    check_ok(rundir_open(&dir, scratch_path("run")));
    const struct super_conf sc = {
        .bin_dir = "/nonexistent", .dir = &dir, .conf = &conf, .gateway_out_fd = -1};
    check_ok(super_open(&s, &sc));
    assert_true(fake_until(s, super_is_gone));
    check_fails(super_verdict(s), ERR_NOINPUT, "cannot run /nonexistent/longlived-keeper");
    fake_close(&s, &dir);
}

static void test_gives_up_on_a_poison_unit(void **state)
{
    (void)state;
    conf.supervisor.fault_deaths = 3;
    scratch_put("vae.after", "echo 'level=error stage=vae ev=exit status=70 msg=\"boom\"' >&2\n"
                             "kill -ABRT $$\n");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_gone));
    check_fails(super_verdict(s), ERR_GAVE_UP, "vae: gave up at latent 0 after 3 deaths");
    check_fails(super_verdict(s), ERR_GAVE_UP, "signal 6 (boom)");
    assert_int_equal(fake_count("start vae "), 3);
    fake_close(&s, &dir);
}

static void test_gives_up_on_many_deaths(void **state)
{
    (void)state;
    conf.supervisor.deaths = 4;
    scratch_put("text.before", "kill -KILL $$\n");
    fake_open(&s, &dir, &conf);
    const int64_t at_ns = now_ns();
    assert_true(fake_until(s, super_is_gone));
    check_fails(super_verdict(s), ERR_GAVE_UP, "text: gave up");
    assert_int_equal(fake_count("start text "), 4);
    assert_true(now_ns() - at_ns >= (int64_t)600 * NS_PER_MS); /* 0, 0.2, 0.4 s between */
    fake_close(&s, &dir);
}

static void test_a_deaf_stage_is_killed(void **state)
{
    (void)state;
    scratch_put("gateway.before", "trap '' TERM\n");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    const int64_t at_ns = now_ns();
    fake_close(&s, &dir);
    assert_true(now_ns() - at_ns >= (int64_t)NS_PER_S);
    assert_true(now_ns() - at_ns < (int64_t)5 * NS_PER_S);
}

static void test_one_that_never_serves_is_ended(void **state)
{
    (void)state;
    conf.supervisor.ready_s_max = 1;
    scratch_put("dit.before", "if [ ! -e $dir/slow ]; then : > $dir/slow\n"
                              "while :; do sleep 0.05; done; fi\n");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, was_started_twice));
    fake_close(&s, &dir);
}

static bool none_is_first(const struct super *sup)
{
    return fake_count("start ") > 5 && super_is_ready(sup);
}

static void test_a_silent_stage_is_ended(void **state)
{
    (void)state;
    char path[RUNDIR_PATH_MAX + 16];
    conf.supervisor.beat_s_max = 1;
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    snprintf(path, sizeof path, "%s/ledger", dir.path);
    const int fd = open(path, O_RDWR | O_CREAT, 0600); /* a ledger in which nobody beats */
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof(struct ledger)), 0);
    close(fd);
    assert_true(fake_until(s, none_is_first));
    assert_int_equal(fake_count("start keeper "), 1);
    fake_close(&s, &dir);
}

/* A process that asks, while this one supervises. */
static int ask(const char *line)
{
    char answer[CONTROL_ANSWER_MAX];
    int status = -1;
    const pid_t pid = fork();
    if (pid == 0) _exit(control_ask(dir.path, line, 15000, answer, sizeof answer, NULL));
    const int64_t end_ns = now_ns() + (int64_t)20 * NS_PER_S;
    while (waitpid(pid, &status, WNOHANG) == 0 && now_ns() < end_ns) super_step(s, 20);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_restart_on_demand(void **state)
{
    (void)state;
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    assert_int_equal(ask("restart dit"), OK);
    assert_int_equal(fake_count("hup dit"), 1);
    assert_int_equal(fake_count("start dit "), 2);
    assert_int_equal(ask("restart gateway"), OK);
    assert_int_equal(fake_count("hup gateway"), 1);
    assert_int_equal(fake_count("term "), 0);
    assert_int_equal(ask("restart vae kill"), OK);
    assert_int_equal(fake_count("hup vae"), 0);
    assert_int_equal(fake_count("start vae "), 2);
    assert_int_equal(ask("restart keeper kill"), OK);
    assert_true(fake_until(s, super_is_ready));
    assert_int_equal(fake_count("start dit "), 3);
    assert_int_equal(ask("restart nobody"), ERR_USAGE);
    assert_int_equal(ask("dance"), ERR_USAGE);
    assert_int_equal(ask("status"), OK);
    fake_close(&s, &dir);
}

static void test_signals_are_counted_and_kill_is_quick(void **state)
{
    (void)state;
    scratch_put("text.before", "trap '' TERM\n");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    raise(SIGINT);
    super_step(s, 10);
    assert_int_equal(super_signals(s), 1);
    const int64_t at_ns = now_ns();
    super_kill(s);
    assert_true(fake_until(s, super_is_gone));
    assert_true(now_ns() - at_ns < (int64_t)NS_PER_S);
    check_ok(super_verdict(s));
    fake_close(&s, &dir);
}

static void test_logs_and_warnings(void **state)
{
    (void)state;
    char path[RUNDIR_PATH_MAX + 32], *text;
    size_t n;
    scratch_put("text.before", "echo 'level=warn stage=text ev=cut msg=\"prompt cut\"' >&2\n");
    fake_open(&s, &dir, &conf);
    assert_true(fake_until(s, super_is_ready));
    assert_string_equal(super_warning(s), "text: prompt cut");
    assert_null(super_warning(s));
    snprintf(path, sizeof path, "%s/log/text.log", dir.path);
    check_ok(file_read(path, 1 << 20, &text, &n));
    assert_non_null(strstr(text, "level=warn stage=text ev=cut"));
    free(text);
    fake_close(&s, &dir);
}

/* The dead are not gone before somebody reaps them; after the supervisor that is us. */
static bool is_gone(int pid)
{
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    return kill(pid, 0) != 0;
}

/* The last of them may be there before the others have said who they are. */
static bool all_have_begun(const char *const names[5])
{
    if (access(scratch_path("trace"), F_OK) != 0) return false;
    for (int i = 0; i < 5; i++)
        if (fake_pid(names[i], 0) == 0) return false;
    return true;
}

static void test_no_orphan_when_the_supervisor_is_killed(void **state)
{
    (void)state;
    static const char *const names[] = {"keeper", "text", "dit", "vae", "gateway"};
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    const pid_t pid = fork();
    if (pid == 0) {
        fake_open(&s, &dir, &conf);
        while (true) super_step(s, 100);
    }
    const int64_t end_ns = now_ns() + (int64_t)20 * NS_PER_S;
    while (now_ns() < end_ns && !all_have_begun(names)) usleep(10000);
    assert_true(all_have_begun(names));
    kill(pid, SIGKILL);
    const int64_t at_ns = now_ns();
    for (int i = 0; i < 5; i++)
        while (!is_gone(fake_pid(names[i], 0)) && now_ns() - at_ns < (int64_t)3 * NS_PER_S)
            usleep(5000);
    assert_true(now_ns() - at_ns < (int64_t)2 * NS_PER_S);
    /* What it left is the next one's to remove. */
    assert_int_equal(access(scratch_path("run/super.sock"), F_OK), 0);
    check_ok(rundir_open(&dir, scratch_path("run")));
    assert_int_not_equal(access(scratch_path("run/super.sock"), F_OK), 0);
    rundir_close(&dir, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order_of_start_and_end, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_death_is_answered_and_alone, open_all,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_the_next_begins_while_one_dies, open_all,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_a_next_that_is_not_wanted_goes, open_all,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_nor_one_after_a_final_status, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_the_keepers_death_restarts_all, open_all,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_a_final_status_ends_all, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_missing_program_is_named, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_gives_up_on_a_poison_unit, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_gives_up_on_many_deaths, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_deaf_stage_is_killed, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_one_that_never_serves_is_ended, open_all,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_a_silent_stage_is_ended, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_restart_on_demand, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_signals_are_counted_and_kill_is_quick, open_all,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_logs_and_warnings, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_no_orphan_when_the_supervisor_is_killed, open_all,
                                        scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
