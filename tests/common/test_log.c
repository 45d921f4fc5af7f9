/* test_log.c - what reaches standard error, one write a line. */
#include "common/log.h"

#include <fcntl.h>

#include "tests/scratch.h"

static int saved_fd, read_fd;

/* A pipe of packets: every write(2) is one read(2). */
static int to_pipe(void **state)
{
    int fds[2];
    (void)state;
    saved_fd = dup(STDERR_FILENO);
    if (pipe2(fds, O_DIRECT | O_NONBLOCK | O_CLOEXEC) < 0) return -1;
    read_fd = fds[0];
    return dup2(fds[1], STDERR_FILENO) < 0 || close(fds[1]) < 0 ? -1 : 0;
}

static int to_stderr(void **state)
{
    (void)state;
    close(read_fd);
    unsetenv("LONGLIVED_LOG");
    return dup2(saved_fd, STDERR_FILENO) < 0 || close(saved_fd) < 0 ? -1 : 0;
}

/* What one write wrote; "" if there was none. */
static const char *written(void)
{
    static char text[4096];
    const ssize_t n = read(read_fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void test_a_line(void **state)
{
    (void)state;
    log_open("dit");
    log_info("block", "block=%d took_ms=%d", 7, 93);
    assert_string_equal(written(), "level=info stage=dit ev=block block=7 took_ms=93\n");
    log_error("end", "why=\"%s\"", "no");
    assert_string_equal(written(), "level=error stage=dit ev=end why=\"no\"\n");
    log_warn("end", "n=%d", 1);
    assert_string_equal(written(), "level=warn stage=dit ev=end n=1\n");
    assert_string_equal(written(), "");
}

static void test_levels(void **state)
{
    (void)state;
    static const struct {
        const char *env;
        int n_written;
    } cases[] = {{"error", 1}, {"warn", 2}, {"info", 3}, {"debug", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = 0;
        setenv("LONGLIVED_LOG", cases[i].env, 1);
        log_open("vae");
        log_error("a", "x=%d", 1);
        log_warn("a", "x=%d", 1);
        log_info("a", "x=%d", 1);
        log_debug("a", "x=%d", 1);
        while (written()[0] != '\0') n++;
        assert_int_equal(n, cases[i].n_written);
    }
    setenv("LONGLIVED_LOG", "info", 1);
    log_open("vae");
}

/* A line that is too long is cut, still one write and still one line; nothing is written past. */
static void test_long_lines_are_cut(void **state)
{
    (void)state;
    char text[3000];
    for (size_t n = 900; n < 1100; n++) {
        memset(text, 'x', n);
        text[n] = '\0';
        log_open("s");
        log_info("e", "%s", text);
        const char *line = written();
        const size_t head = strlen("level=info stage=s ev=e ");
        const size_t want = head + n + 1 < 1023 ? head + n + 1 : 1023;
        assert_int_equal(strlen(line), want);
        assert_int_equal(line[want - 1], '\n');
        assert_string_equal(written(), "");
    }
}

/* A reader that does not read must not stop a stage. */
static void test_nobody_reads(void **state)
{
    (void)state;
    log_open("s");
    for (int i = 0; i < 100; i++) log_info("full", "i=%d", i); /* the pipe fills, writes fail */
    while (written()[0] != '\0') continue;
    log_info("after", "i=%d", 1);
    assert_string_equal(written(), "level=info stage=s ev=after i=1\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_line, to_pipe, to_stderr),
        cmocka_unit_test_setup_teardown(test_levels, to_pipe, to_stderr),
        cmocka_unit_test_setup_teardown(test_long_lines_are_cut, to_pipe, to_stderr),
        cmocka_unit_test_setup_teardown(test_nobody_reads, to_pipe, to_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
