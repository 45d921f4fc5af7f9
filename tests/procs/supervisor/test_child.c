/* test_child.c - a child's world: its fds, signals, group, environment, and its end. */
#include "procs/supervisor/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/scratch.h"

static struct child child;

/* Signals 32 and 33: libc lets nobody set them, so what a shell far above us ignores stays so. */
#define LIBC_SIGNALS (3ull << 31)

/* Runs a shell text; its standard output and error arrive in out. */
static int run(const char *text, char *out, size_t cap, int ready_fd)
{
    int fds[2], status = -1;
    size_t n = 0;
    ssize_t one;
    const char *const argv[] = {"/bin/sh", "-c", text, NULL};
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    const struct child_conf c = {.path = "/bin/sh",
                                 .argv = argv,
                                 .in_fd = -1,
                                 .out_fd = fds[1],
                                 .err_fd = fds[1],
                                 .ready_fd = ready_fd};
    check_ok(child_spawn(&child, &c));
    close(fds[1]);
    while ((one = read(fds[0], out + n, cap - 1 - n)) > 0) n += (size_t)one;
    out[n] = 0;
    close(fds[0]);
    struct pollfd p = {.fd = child.pidfd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_true(child_has_ended(&child, &status));
    assert_int_equal(child.pid, 0);
    assert_false(child_has_ended(&child, &status));
    return status;
}

/* By the shell alone: a pipe to another program would be among them for a moment. */
#define LIST_FDS "for f in /proc/$$/fd/*; do [ ! -e $f ] || printf '%s ' ${f##*/}; done"

static void test_only_its_own_fds(void **state)
{
    (void)state;
    char out[512];
    int ready[2];
    const int leaked = open("/dev/null", O_RDONLY); /* not close-on-exec, on purpose */
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    run(LIST_FDS, out, sizeof out, -1);
    assert_string_equal(out, "0 1 2 ");
    run(LIST_FDS "; echo >&3", out, sizeof out, ready[1]);
    assert_string_equal(out, "0 1 2 3 ");
    char c = 0;
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, '\n');
    close(leaked);
    close(ready[0]);
    close(ready[1]);
}

static void test_default_signals_and_group(void **state)
{
    (void)state;
    char out[512];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    unsigned long long blocked = 1, ignored = 1;
    run("grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2 | tr '\\n' ' '", out, sizeof out, -1);
    assert_int_equal(sscanf(out, "%llx %llx", &blocked, &ignored), 2);
    assert_int_equal(blocked, 0);
    assert_int_equal(ignored & ~LIBC_SIGNALS, 0);
    run("cut -d' ' -f1,5 /proc/$$/stat", out, sizeof out, -1);
    assert_int_equal(atoi(out), atoi(strchr(out, ' ')));
    const mode_t kept = umask(027); /* the user's own: videos are made by it */
    run("echo $OMP_WAIT_POLICY $OPENBLAS_NUM_THREADS $CUDA_DEVICE_MAX_CONNECTIONS; umask", out,
        sizeof out, -1);
    umask(kept);
    assert_string_equal(out, "passive 1 1\n0027\n");
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void test_statuses(void **state)
{
    (void)state;
    char out[512];
    int status = run("exit 78", out, sizeof out, -1);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 78);
    status = run("kill -SEGV $$", out, sizeof out, -1);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void test_a_program_that_is_missing(void **state)
{
    (void)state;
    const char *const argv[] = {"/no/program", NULL};
    const struct child_conf c = {.path = argv[0],
                                 .argv = argv,
                                 .in_fd = -1,
                                 .out_fd = -1,
                                 .err_fd = open("/dev/null", O_WRONLY | O_CLOEXEC),
                                 .ready_fd = -1};
    int status;
    check_ok(child_spawn(&child, &c));
    while (!child_has_ended(&child, &status)) usleep(1000);
    assert_int_equal(WEXITSTATUS(status), err_exit_status(ERR_NOINPUT));
    close(c.err_fd);
}

/* What the child has started goes with it. */
static void test_the_whole_group_is_killed(void **state)
{
    (void)state;
    int fds[2];
    char text[32] = "";
    const char *const argv[] = {"/bin/sh", "-c", "sleep 1000 & echo $!; wait", NULL};
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    const struct child_conf c = {.path = "/bin/sh",
                                 .argv = argv,
                                 .in_fd = -1,
                                 .out_fd = fds[1],
                                 .err_fd = -1,
                                 .ready_fd = -1};
    check_ok(child_spawn(&child, &c));
    close(fds[1]);
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    assert_true(atoi(text) > 1);
    child_kill(&child);
    assert_int_equal(child.pid, 0);
    /* The pipe ends when the last one that holds it has gone. */
    struct pollfd p = {.fd = fds[0], .events = POLLIN};
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(read(fds[0], text, 1), 0);
    close(fds[0]);
    child_kill(&child); /* none: nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_its_own_fds),
        cmocka_unit_test(test_default_signals_and_group),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_a_program_that_is_missing),
        cmocka_unit_test(test_the_whole_group_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
