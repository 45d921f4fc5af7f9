/* test_file.c - offsets, cuts and refusals of procs/gateway/file.c. */
#include "procs/gateway/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];
static char path[96];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/longlived-file.XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/f", dir);
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static int64_t size_of(const char *name)
{
    struct stat st;
    return stat(name, &st) == 0 ? st.st_size : -1;
}

/* A video is made as any program of the user's makes files. */
static void test_mode_is_the_umasks(void **state)
{
    (void)state;
    const mode_t masks[] = {022, 027, 0};
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        struct stat st;
        int fd = -1;
        int64_t n = -1;
        const mode_t kept = umask(masks[i]);
        assert_int_equal(file_open(&fd, path, false, &n), OK);
        umask(kept);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0666 & ~masks[i]);
        close(fd);
        unlink(path);
    }
}

static void test_writes_reads_and_resumes(void **state)
{
    (void)state;
    int fd = -1;
    int64_t n = -1;
    char got[6] = "";
    assert_int_equal(file_open(&fd, path, true, &n), OK);
    assert_int_equal(n, 0);
    assert_int_equal(file_write_at(fd, path, 3, "defgh", 5), OK);
    assert_int_equal(file_write_at(fd, path, 0, "abc", 3), OK);
    assert_int_equal(file_read_at(fd, path, 2, got, 5), OK);
    assert_string_equal(got, "cdefg");
    assert_int_equal(file_read_at(fd, path, 5, got, 5), ERR_NOINPUT);
    assert_non_null(strstr(err_text(), path));
    close(fd);
    assert_int_equal(file_open(&fd, path, true, &n), OK);
    assert_int_equal(n, 8);
    assert_int_equal(file_cut(fd, path, 5), OK);
    assert_int_equal(size_of(path), 5);
    close(fd);
    assert_int_equal(file_open(&fd, path, false, &n), OK);
    assert_int_equal(n, 0);
    assert_int_equal(size_of(path), 0);
    close(fd);
}

static void test_is_closed_over_exec(void **state)
{
    (void)state;
    int fd = -1;
    int64_t n = 0;
    assert_int_equal(file_open(&fd, path, false, &n), OK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

/* A limit on the size of files stands in for a full disk: it too ends a write in its middle. */
static void test_a_failed_write_is_cut_off(void **state)
{
    (void)state;
    static const char bytes[4096];
    struct rlimit was, small;
    int fd = -1;
    int64_t n = 0;
    assert_int_equal(file_open(&fd, path, false, &n), OK);
    assert_int_equal(file_write_at(fd, path, 0, bytes, 1000), OK);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &was);
    small = was;
    small.rlim_cur = 3000;
    setrlimit(RLIMIT_FSIZE, &small);
    const err_t e = file_write_at(fd, path, 1000, bytes, sizeof bytes);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_int_equal(e, ERR_WRITE);
    assert_non_null(strstr(err_text(), path));
    assert_non_null(strstr(err_text(), strerror(EFBIG)));
    assert_int_equal(size_of(path), 1000);
    close(fd);
}

static void test_commit_that_fails_is_cut_off(void **state)
{
    (void)state;
    struct rlimit was, small;
    int fd = -1;
    int64_t n = 0;
    char got[13] = "";
    unlink(path);
    assert_int_equal(file_open(&fd, path, false, &n), OK);
    assert_int_equal(file_write_at(fd, path, 0, "ab", 2), OK);
    assert_int_equal(file_commit_at(fd, path, 2, "HEADbodyxy", 10, 4), OK);
    assert_int_equal(file_read_at(fd, path, 0, got, 12), OK);
    assert_string_equal(got, "abHEADbodyxy");
    getrlimit(RLIMIT_FSIZE, &was);
    small = was;
    small.rlim_cur = 18;
    setrlimit(RLIMIT_FSIZE, &small);
    const err_t e = file_commit_at(fd, path, 12, "HEADbodyxy", 10, 4);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_int_equal(e, ERR_WRITE);
    assert_int_equal(size_of(path), 12); /* not 16: the hole for the head is gone as well */
    close(fd);
}

/* The limit's signal, not ignored, is a death at a byte of one's choice. */
static void test_commit_writes_its_head_last(void **state)
{
    (void)state;
    for (int64_t at = 5; at < 10; at++) {
        int fd = -1, status = 0;
        int64_t n = 0;
        char got[10] = "";
        unlink(path);
        const pid_t pid = fork();
        if (pid == 0) {
            const struct rlimit limit = {(rlim_t)at, RLIM_INFINITY}, none = {0, 0};
            signal(SIGXFSZ, SIG_DFL);
            setrlimit(RLIMIT_CORE, &none);
            setrlimit(RLIMIT_FSIZE, &limit);
            err_t e = file_open(&fd, path, false, &n);
            if (e == OK) e = file_commit_at(fd, path, 0, "HEADbodyxy", 10, 4);
            _exit(e == OK ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
        assert_int_equal(file_open(&fd, path, true, &n), OK);
        assert_int_equal(n, at);
        assert_int_equal(file_read_at(fd, path, 0, got, (size_t)n), OK);
        assert_memory_equal(got, "\0\0\0\0bodyxy", n);
        close(fd);
    }
}

static void test_refuses_what_is_no_file(void **state)
{
    (void)state;
    int fd = -1;
    int64_t n = 0;
    assert_int_equal(file_open(&fd, dir, true, &n), ERR_WRITE);
    assert_int_equal(file_open(&fd, "/no/such/dir/f", true, &n), ERR_WRITE);
    assert_non_null(strstr(err_text(), strerror(ENOENT)));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_open(&fd, path, true, &n), ERR_WRITE);
    assert_non_null(strstr(err_text(), "not a file"));
    unlink(path);
    assert_int_equal(fd, -1);
}

static void test_a_device_is_neither_cut_nor_resumed(void **state)
{
    (void)state;
    int fd = -1;
    int64_t n = -1;
    assert_int_equal(file_open(&fd, "/dev/full", false, &n), OK);
    assert_int_equal(n, 0);
    assert_int_equal(file_cut(fd, "/dev/full", 0), OK);
    assert_int_equal(file_write_at(fd, "/dev/full", 0, "x", 1), ERR_FULL);
    assert_non_null(strstr(err_text(), strerror(ENOSPC)));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mode_is_the_umasks),
        cmocka_unit_test(test_writes_reads_and_resumes),
        cmocka_unit_test(test_is_closed_over_exec),
        cmocka_unit_test(test_a_failed_write_is_cut_off),
        cmocka_unit_test(test_commit_that_fails_is_cut_off),
        cmocka_unit_test(test_commit_writes_its_head_last),
        cmocka_unit_test(test_refuses_what_is_no_file),
        cmocka_unit_test(test_a_device_is_neither_cut_nor_resumed),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
