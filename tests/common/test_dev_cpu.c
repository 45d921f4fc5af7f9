/* test_dev_cpu.c - memory that several processes map: a file, whole or not there. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/dev.h"
#include "tests/check.h"

struct fixture {
    struct dev *d;
    char dir[64], path[96];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    strcpy(f->dir,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/test_dev_XXXXXX" : "/tmp/test_dev_XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/ring", f->dir);
    assert_ok(dev_open(&f->d, "cpu", 2));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    dev_close(&f->d);
    unlink(f->path);
    rmdir(f->dir);
    free(f);
    return check_teardown(state);
}

static void test_share(void **state)
{
    struct fixture *f = *state;
    struct dev_share s = {0};
    struct stat st;
    void *p = NULL, *q = NULL;
    assert_ok(dev_share_make(f->d, f->path, 10000, &s));
    assert_string_equal(s.path, f->path);
    assert_int_equal(s.n_bytes, 10000);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 10000);
    assert_true(st.st_blocks * 512 >= 10000); /* allocated, not a hole */
    assert_ok(dev_share_check(f->d, &s));
    assert_ok(dev_share_map(f->d, &s, &p));
    assert_ok(dev_share_map(f->d, &s, &q));
    for (int i = 0; i < 10000; i++) assert_int_equal(((uint8_t *)p)[i], 0);
    ((uint8_t *)p)[9999] = 7;
    assert_int_equal(((uint8_t *)q)[9999], 7);
    dev_share_drop(f->d, &s); /* the memory stays as long as it is mapped */
    assert_int_equal(dev_share_check(f->d, &s), ERR_NONE);
    assert_int_equal(((uint8_t *)q)[9999], 7);
    dev_share_unmap(f->d, &s, &p);
    assert_null(p);
    dev_share_unmap(f->d, &s, &p);
    dev_share_unmap(f->d, &s, &q);
    dev_share_unmap(f->d, &s, NULL);
    dev_share_drop(f->d, &s); /* gone already */
}

/* Another process writes, is killed, and what it wrote is there. */
static void test_share_outlives_a_process(void **state)
{
    struct fixture *f = *state;
    struct dev_share s = {0};
    void *p = NULL;
    int status = 0;
    assert_ok(dev_share_make(f->d, f->path, 4096, &s));
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (dev_share_map(f->d, &s, &p) != OK) _exit(1);
        strcpy(p, "written");
        raise(9);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_ok(dev_share_map(f->d, &s, &p));
    assert_string_equal((char *)p, "written");
    dev_share_unmap(f->d, &s, &p);
}

/* A file that was there goes, and who had mapped it keeps the old bytes. */
static void test_share_replaces(void **state)
{
    struct fixture *f = *state;
    struct dev_share s = {0}, again = {0};
    void *p = NULL, *q = NULL;
    assert_ok(dev_share_make(f->d, f->path, 100, &s));
    assert_ok(dev_share_map(f->d, &s, &p));
    memset(p, 1, 100);
    assert_ok(dev_share_make(f->d, f->path, 200, &again));
    assert_int_equal(dev_share_check(f->d, &s), ERR_NONE); /* another size now */
    assert_ok(dev_share_map(f->d, &again, &q));
    assert_int_equal(((uint8_t *)q)[0], 0);
    assert_int_equal(((uint8_t *)p)[0], 1);
    dev_share_unmap(f->d, &s, &p);
    dev_share_unmap(f->d, &again, &q);
}

static void test_share_refuses(void **state)
{
    struct fixture *f = *state;
    struct dev_share s = {0}, bad = {0};
    void *p = NULL;
    char path[300];
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(dev_share_make(f->d, path, 8, &s), ERR_LIMIT);
    assert_int_equal(dev_share_make(f->d, "", 8, &s), ERR_DATA);
    assert_int_equal(dev_share_make(f->d, f->path, 0, &s), ERR_DATA);
    assert_int_equal(dev_share_make(f->d, f->path, UINT64_MAX, &s), ERR_DATA);
    assert_int_equal(dev_share_make(f->d, "/nowhere/at/all", 8, &s), ERR_WRITE);
    assert_int_equal(s.n_bytes, 0);
    memset(bad.path, 'a', sizeof bad.path); /* a message whose path does not end */
    bad.n_bytes = 8;
    assert_int_equal(dev_share_map(f->d, &bad, &p), ERR_DATA);
    assert_int_equal(dev_share_check(f->d, &bad), ERR_DATA);
    assert_ok(dev_share_make(f->d, f->path, 100, &s));
    s.n_bytes = 101;
    assert_int_equal(dev_share_map(f->d, &s, &p), ERR_NONE);
    s.n_bytes = 100;
    /* A link is not followed, whoever put it there. */
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(symlink("/etc/passwd", f->path), 0);
    assert_int_equal(dev_share_map(f->d, &s, &p), ERR_NONE);
    assert_null(p);
}

/* More than the file system holds: an error with path and bytes, no file, and no SIGBUS. */
static void test_share_without_room(void **state)
{
    struct fixture *f = *state;
    struct dev_share s = {0};
    struct statvfs fs;
    char bytes[32];
    assert_int_equal(statvfs(f->dir, &fs), 0);
    const uint64_t n_bytes = (uint64_t)fs.f_frsize * fs.f_blocks + (1u << 30);
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)n_bytes);
    assert_int_equal(dev_share_make(f->d, f->path, n_bytes, &s), ERR_NOMEM);
    assert_non_null(strstr(err_text(), f->path));
    assert_non_null(strstr(err_text(), bytes));
    assert_int_equal(access(f->path, F_OK), -1);
    assert_int_equal(s.n_bytes, 0);
}

#define DEV_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DEV_TEST(test_share),
        DEV_TEST(test_share_outlives_a_process),
        DEV_TEST(test_share_replaces),
        DEV_TEST(test_share_refuses),
        DEV_TEST(test_share_without_room),
    };
    return cmocka_run_group_tests_name("dev_cpu", tests, NULL, NULL);
}
