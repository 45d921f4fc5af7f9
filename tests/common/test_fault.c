/* test_fault.c - names, the page, and every action in a process of its own. */
#include "common/fault.h"

#include "tests/scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/conf.h"

static struct conf conf;

static void arm(const char *point, enum fault_action action, int32_t at, bool repeat)
{
    conf_default(&conf);
    snprintf(conf.fault.point, sizeof conf.fault.point, "%s", point);
    conf.fault.action = action;
    conf.fault.at = at;
    conf.fault.repeat = repeat;
    conf.fault.delay_ms = 30;
    want_ok(fault_check(&conf));
    want_ok(fault_make(scratch_dir, &conf));
}

/* A process that passes the place up to n times, and exits with 100 + the code it is answered. */
static int pass_in_child(const char *process, enum fault_point p, int n)
{
    int status = 0;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        err_t e = fault_open(scratch_dir, process);
        for (int i = 0; i < n && e == OK; i++) e = fault(p);
        _exit(100 + (int)e);
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    if (!WIFSTOPPED(status)) return status;
    const int stopped = status;
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 100 + OK); /* went on where it stood */
    return stopped;
}

static const struct fault_page *page(void)
{
    static struct fault_page copy;
    const int fd = open(scratch_path("faults"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, &copy, sizeof copy), sizeof copy);
    close(fd);
    return &copy;
}

static uint64_t passed(const char *name)
{
    return page()->n_passed[fault_find(name)];
}

static void test_every_name_is_found_once(void **state)
{
    (void)state;
    char name[FAULT_NAME_MAX];
    int n = 0;
    for (int32_t i = 0; i < FAULT_NAMES; i++) {
        const char *s = fault_name(i, name);
        if (!s) continue;
        assert_true(strlen(s) < FAULT_NAME_MAX);
        assert_int_equal(fault_find(s), i);
        n++;
    }
    assert_int_equal(n, FAULT_NAMES - 3); /* the gateway has no weights */
    assert_int_equal(fault_find("gateway.weights.filled"), -1);
    assert_int_equal(fault_find("keeper.leased"), fault_find("keeper.lease") + 2);
    assert_int_equal(fault_find("leased"), -1);
    assert_int_equal(fault_find(""), -1);
}

static void test_without_a_page_nothing_happens(void **state)
{
    (void)state;
    unlink(scratch_path("faults"));
    conf_default(&conf);
    want_ok(fault_make(scratch_dir, &conf)); /* nothing is armed: no page */
    assert_int_equal(access(scratch_path("faults"), F_OK), -1);
    want_ok(fault_open(scratch_dir, "dit"));
    assert_null(fault_page);
    want_ok(fault(FAULT_DIT_STEP));
}

static void test_the_nth_passage_kills_once(void **state)
{
    (void)state;
    arm("dit.step", FAULT_KILL, 3, false);
    const int status = pass_in_child("dit", FAULT_DIT_STEP, 9);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(passed("dit.step"), 3);
    /* Its successor passes on, counting on. */
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_STEP, 9)), 100 + OK);
    assert_int_equal(passed("dit.step"), 12);
    assert_int_equal(page()->n_fired, 1);
}

/* Who arms has read the count, and the stage has gone on since. */
static void test_a_passage_that_is_over_is_made_up_for(void **state)
{
    (void)state;
    arm("dit.step", FAULT_NOMEM, 100, false);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_STEP, 9)), 100 + OK);
    const uint64_t at = 5;
    const int fd = open(scratch_path("faults"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &at, sizeof at, offsetof(struct fault_page, at)), sizeof at);
    close(fd);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_STEP, 9)), 100 + ERR_NOMEM);
    assert_int_equal(passed("dit.step"), 10);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_STEP, 9)), 100 + OK);
    assert_int_equal(page()->n_fired, 1);
}

static void test_repeat_kills_each_successor(void **state)
{
    (void)state;
    arm("vae.begin", FAULT_KILL, 2, true);
    for (uint64_t i = 0; i < 3; i++) {
        assert_true(WIFSIGNALED(pass_in_child("vae", FAULT_VAE_BEGIN, 9)));
        assert_int_equal(passed("vae.begin"), 2 + i);
        assert_int_equal(page()->n_fired, 1 + i);
    }
}

static void test_a_stage_passes_its_own_places_of_the_shell(void **state)
{
    (void)state;
    arm("vae.leased", FAULT_KILL, 1, false);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_LEASED, 2)), 100 + OK);
    assert_int_equal(passed("dit.leased"), 2);
    assert_int_equal(passed("vae.leased"), 0);
    assert_true(WIFSIGNALED(pass_in_child("vae", FAULT_LEASED, 1)));
    /* A process that is no stage has none. */
    assert_int_equal(WEXITSTATUS(pass_in_child("keeper", FAULT_LEASED, 2)), 100 + OK);
    assert_int_equal(passed("vae.leased"), 1);
}

static void test_every_action(void **state)
{
    (void)state;
    arm("dit.block", FAULT_COUNT, 1, false);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_BLOCK, 2)), 100 + OK);
    arm("dit.block", FAULT_ABORT, 1, false);
    assert_int_equal(WTERMSIG(pass_in_child("dit", FAULT_DIT_BLOCK, 1)), SIGABRT);
    arm("dit.block", FAULT_STOP, 1, false);
    assert_true(WIFSTOPPED(pass_in_child("dit", FAULT_DIT_BLOCK, 2)));
    arm("dit.block", FAULT_ENOSPC, 2, false);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_BLOCK, 9)), 100 + ERR_WRITE);
    assert_int_equal(passed("dit.block"), 2);
    arm("dit.block", FAULT_NOMEM, 1, false);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_BLOCK, 9)), 100 + ERR_NOMEM);
    arm("dit.block", FAULT_DELAY, 1, false);
    const int64_t before_ns = now_ns();
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_BLOCK, 2)), 100 + OK);
    assert_true(now_ns() - before_ns >= 30 * NS_PER_MS);
}

static void test_a_page_that_is_none_is_refused(void **state)
{
    (void)state;
    scratch_put("faults", "not a page");
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_BLOCK, 1)), 100 + ERR_CONFIG);
    arm("dit.block", FAULT_COUNT, 1, false);
    const int fd = open(scratch_path("faults"), O_WRONLY | O_CLOEXEC);
    const uint64_t version = FAULT_VERSION + 1;
    assert_int_equal(pwrite(fd, &version, sizeof version, 0), sizeof version);
    close(fd);
    assert_int_equal(WEXITSTATUS(pass_in_child("dit", FAULT_DIT_BLOCK, 1)), 100 + ERR_CONFIG);
}

static void test_what_cannot_be_armed(void **state)
{
    (void)state;
    conf_default(&conf);
    want_ok(fault_check(&conf));
    snprintf(conf.fault.point, sizeof conf.fault.point, "dit.stepp");
    want_fails(fault_check(&conf), ERR_CONFIG, "fault.point = dit.stepp");
    /* A beat has nobody to tell of an error. */
    snprintf(conf.fault.point, sizeof conf.fault.point, "dit.layer");
    want_ok(fault_check(&conf));
    conf.fault.action = FAULT_NOMEM;
    want_fails(fault_check(&conf), ERR_CONFIG, "nomem");
    conf.fault.action = FAULT_ENOSPC;
    want_fails(fault_check(&conf), ERR_CONFIG, "enospc");
    snprintf(conf.fault.point, sizeof conf.fault.point, "dit.step");
    want_ok(fault_check(&conf));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_is_found_once),
        cmocka_unit_test(test_without_a_page_nothing_happens),
        cmocka_unit_test(test_the_nth_passage_kills_once),
        cmocka_unit_test(test_a_passage_that_is_over_is_made_up_for),
        cmocka_unit_test(test_repeat_kills_each_successor),
        cmocka_unit_test(test_a_stage_passes_its_own_places_of_the_shell),
        cmocka_unit_test(test_every_action),
        cmocka_unit_test(test_a_page_that_is_none_is_refused),
        cmocka_unit_test(test_what_cannot_be_armed),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
