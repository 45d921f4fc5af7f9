/* test_logs.c - a stage's log: lines whole, files rotated, a full disk survived, the last error
 * kept. */
#include "procs/supervisor/logs.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/file.h"
#include "tests/scratch.h"

static struct log_pipe p;
static int dir_fd;

static int open_all(void **state)
{
    if (scratch_open(state) != 0) return -1;
    dir_fd = open(scratch_dir, O_RDONLY | O_DIRECTORY);
    return log_pipe_open(&p, dir_fd, "dit") == OK ? 0 : -1;
}

static int close_all(void **state)
{
    log_pipe_close(&p);
    close(dir_fd);
    return scratch_close(state);
}

static void say(const char *text)
{
    assert_int_equal(write(p.write_fd, text, strlen(text)), strlen(text));
}

static bool file_has(const char *name, const char *words)
{
    char *text;
    size_t n;
    check_ok(file_read(scratch_path(name), LOG_FILE_BYTES + (1 << 20), &text, &n));
    const bool has = strstr(text, words) != NULL;
    free(text);
    return has;
}

static void test_lines_and_the_last_error(void **state)
{
    (void)state;
    say("level=info stage=dit ev=block block=7\nlevel=error stage=dit ev=ex");
    log_pipe_read(&p);
    assert_true(file_has("dit.log", "Z level=info stage=dit ev=block block=7\n"));
    assert_false(file_has("dit.log", "ev=ex"));
    assert_string_equal(p.error, "");
    say("it status=70 msg=\"the \"first\" one\"\nlevel=error stage=dit ev=x what=\"the last\"\n");
    log_pipe_read(&p);
    assert_string_equal(p.error, "the last");
    say("level=warn stage=dit ev=slow msg=\"too slow\"\nlevel=warn stage=dit ev=slow n=3\n"
        "level=warn stage=gateway ev=job_failed msg=\"said elsewhere\"\n");
    log_pipe_read(&p);
    assert_string_equal(p.warning, "too slow");
    say("level=error stage=dit ev=torn"); /* killed within a line */
    log_pipe_flush(&p);
    assert_true(file_has("dit.log", "ev=torn\n"));
    assert_string_equal(p.error, "ev=torn");
}

static void test_sentences(void **state)
{
    (void)state;
    char out[64];
    log_sentence("level=error stage=a ev=exit status=65 msg=\"a: \"b\" c\"", out, sizeof out);
    assert_string_equal(out, "a: \"b\" c");
    log_sentence("level=error stage=a ev=oops n=1", out, sizeof out);
    assert_string_equal(out, "ev=oops n=1");
    log_sentence("anything", out, sizeof out);
    assert_string_equal(out, "anything");
    log_sentence("level=error msg=\"cut", out, sizeof out);
    assert_string_equal(out, "cut");
    log_sentence("level=error msg=\"0123456789\"", out, 8);
    assert_string_equal(out, "0123456");
}

static void test_a_line_without_end_is_cut(void **state)
{
    (void)state;
    char big[4096];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    for (int i = 0; i < 10; i++) {
        say(big);
        log_pipe_read(&p);
    }
    say("\nlevel=info stage=dit ev=after\n\x1b[2J\n");
    log_pipe_read(&p);
    assert_true(file_has("dit.log", "ev=after"));
    assert_false(file_has("dit.log", "\x1b"));
    assert_int_equal(p.n_dropped, 1);
    assert_true(p.n_file_bytes < LOG_LINE_MAX + 200);
}

static void test_files_are_rotated_and_four(void **state)
{
    (void)state;
    char line[4000];
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = 0;
    for (int i = 0; i < 6 * LOG_FILE_BYTES / 4000; i++) log_pipe_write(&p, line);
    for (int i = 0; i < LOG_FILES; i++) {
        struct stat st;
        char name[32];
        snprintf(name, sizeof name, i == 0 ? "dit.log" : "dit.log.%d", i);
        assert_int_equal(stat(scratch_path(name), &st), 0);
        assert_true(st.st_size <= LOG_FILE_BYTES + LOG_LINE_MAX);
    }
    assert_int_equal(scratch_count(), LOG_FILES);
    assert_int_equal(p.n_dropped, 0);
}

/* A limit on file size stands for a full disk: the write fails, the stage does not wait. */
static void test_what_cannot_be_written_is_counted(void **state)
{
    (void)state;
    struct rlimit old, none = {.rlim_cur = 0};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    none.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &none);
    say("level=error stage=dit ev=exit status=73 msg=\"full\"\n");
    log_pipe_read(&p);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(p.n_dropped, 1);
    assert_string_equal(p.error, "full"); /* still known */
    say("level=info stage=dit ev=again\n");
    log_pipe_read(&p);
    assert_true(file_has("dit.log", "ev=again"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines_and_the_last_error, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_sentences, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_line_without_end_is_cut, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_files_are_rotated_and_four, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_written_is_counted, open_all,
                                        close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
