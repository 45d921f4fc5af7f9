/* test_control.c - the supervisor's socket: requests, rubbish, and clients that say nothing. */
#include "procs/supervisor/control.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "tests/scratch.h"

static struct control c;
static struct control_request r;

static int open_all(void **state)
{
    return scratch_open(state) == 0 && control_open(&c, scratch_dir) == OK ? 0 : -1;
}

static int close_all(void **state)
{
    control_close(&c);
    return scratch_close(state);
}

static int dial(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/super.sock", scratch_dir);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* What the other end reads until EOF; "" for nothing. */
static void expect(int fd, const char *text)
{
    char got[256];
    ssize_t n = 0, one;
    while ((one = recv(fd, got + n, sizeof got - 1 - (size_t)n, 0)) > 0) n += one;
    got[n] = 0;
    assert_string_equal(got, text);
    close(fd);
}

static void test_a_request_and_its_answer(void **state)
{
    (void)state;
    const int fd = dial();
    assert_false(control_next(&c, 1, &r));
    say(fd, "restart ");
    assert_false(control_next(&c, 2, &r));
    say(fd, "dit kill\r\n");
    assert_true(control_next(&c, 3, &r));
    assert_int_equal(r.n_words, 3);
    assert_string_equal(r.words[0], "restart");
    assert_string_equal(r.words[1], "dit");
    assert_string_equal(r.words[2], "kill");
    assert_false(
        control_next(&c, (int64_t)100 * NS_PER_S, &r)); /* waits for us as long as it must */
    control_answer(&c, r.conn, "ok\n");
    expect(fd, "ok\n");
}

static void test_rubbish_is_dropped(void **state)
{
    (void)state;
    char long_line[CONTROL_LINE_MAX + 20];
    memset(long_line, 'x', sizeof long_line);
    long_line[sizeof long_line - 1] = 0;
    const int too_long = dial(), gone = dial(), silent = dial();
    assert_false(control_next(&c, 1, &r)); /* all three are in */
    say(too_long, long_line);
    close(gone);
    assert_false(control_next(&c, 2, &r));
    char byte;
    assert_true(recv(too_long, &byte, 1, 0) <= 0);
    close(too_long);
    assert_false(control_next(&c, (int64_t)3 * NS_PER_S, &r)); /* 2 s to say something */
    expect(silent, "");
    assert_int_equal(c.n_refused, 3);
    struct pollfd fds[CONTROL_CONNS + 1];
    assert_int_equal(control_polls(&c, fds), 1);
}

static void test_a_word_too_long_is_cut_and_an_empty_line_is_no_word(void **state)
{
    (void)state;
    const int fd = dial();
    say(fd, "restart 0123456789012345678901234567890123456789 a b c\n");
    assert_true(control_next(&c, 1, &r));
    assert_int_equal(strlen(r.words[1]), 31);
    control_answer(&c, r.conn, "x");
    expect(fd, "x");
    const int empty = dial();
    say(empty, "\n");
    assert_true(control_next(&c, 1, &r));
    assert_int_equal(r.n_words, 0);
    control_refuse(&c, r.conn, "x");
    expect(empty, "x");
    assert_int_equal(c.n_refused, 1);
}

static void test_a_crowd_is_told_so(void **state)
{
    (void)state;
    int fds[CONTROL_CONNS + 1];
    for (int i = 0; i < CONTROL_CONNS; i++) fds[i] = dial();
    assert_false(control_next(&c, 1, &r));
    fds[CONTROL_CONNS] = dial();
    assert_false(control_next(&c, 1, &r));
    expect(fds[CONTROL_CONNS], "error 75 busy\n");
    assert_int_equal(c.n_refused, 1);
    for (int i = 0; i < CONTROL_CONNS; i++) close(fds[i]);
    assert_false(control_next(&c, 2, &r));
    assert_int_equal(c.conns[0].fd, -1);
}

static void test_the_client(void **state)
{
    (void)state;
    char answer[64];
    pid_t pid = 0;
    const pid_t child = fork();
    if (child == 0) {
        for (int n = 0; n < 3;) {
            static const char *const answers[] = {"ok\n", "error 78 a key: is wrong\n", "{}\n"};
            if (control_next(&c, now_ns(), &r)) control_answer(&c, r.conn, answers[n++]);
            else usleep(1000);
        }
        _exit(0);
    }
    check_ok(control_ask(scratch_dir, "down", 5000, answer, sizeof answer, &pid));
    assert_string_equal(answer, "ok\n");
    assert_int_equal(pid, getpid()); /* who listened first: the credentials are the listener's */
    check_fails(control_ask(scratch_dir, "down", 5000, answer, sizeof answer, NULL), ERR_CONFIG,
                "a key: is wrong");
    check_ok(control_ask(scratch_dir, "status", 5000, answer, 3, NULL));
    assert_string_equal(answer, "{}");
    waitpid(child, NULL, 0);
    check_fails(control_ask(scratch_dir, "status", 50, answer, sizeof answer, NULL), ERR_TIMEOUT,
                "does not answer");
    check_fails(control_ask("/nonexistent", "status", 50, answer, sizeof answer, NULL), ERR_NONE,
                "nothing runs in /nonexistent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_request_and_its_answer, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_rubbish_is_dropped, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_word_too_long_is_cut_and_an_empty_line_is_no_word,
                                        open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_crowd_is_told_so, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_the_client, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
