/* test_dev.c - the device contract on the CPU: names, memory, accounting, sharing. */
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

static void test_names(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",        "CPU",    "cpu ",    "cpu:0",    "cuda",
        "cuda:",   "cuda:x", "cuda:-1", "cuda:1x",  "cuda:64",
        "cuda:1 ", "gpu",    " cpu",    "cuda:100", "cuda:99999999999999"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct dev *d = NULL;
        assert_int_equal(dev_check(bad[i]), ERR_CONFIG);
        assert_int_equal(dev_open(&d, bad[i], 1), ERR_CONFIG);
        assert_null(d);
    }
    assert_ok(dev_check("cpu"));
}

/* Without a GPU, cuda:N is a device that is not there, and the sentence names it. */
static void test_no_cuda(void **state)
{
    (void)state;
    struct dev *d = NULL;
    if (dev_check("cuda:63") == OK) skip();
    assert_int_equal(dev_check("cuda:63"), ERR_NONE);
    assert_int_equal(dev_open(&d, "cuda:63", 1), ERR_NONE);
    assert_null(d);
    assert_memory_equal(err_text(), "cuda:63", 7);
}

static void test_threads(void **state)
{
    (void)state;
    static const int32_t bad[] = {0, -1, 257};
    struct dev *d = NULL;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(dev_open(&d, "cpu", bad[i]), ERR_CONFIG);
        assert_null(d);
    }
    assert_ok(dev_open(&d, "cpu", 256));
    assert_int_equal(dev_threads(d), 256);
    assert_int_equal(dev_kind(d), DEV_CPU);
    dev_close(&d);
    assert_null(d);
    dev_close(&d);
    dev_close(NULL);
}

static void test_alloc(void **state)
{
    struct dev *d = ((struct fixture *)*state)->d;
    static const size_t sizes[] = {1, 63, 64, 65, 4097, 1 << 20};
    void *p[COUNT(sizes)] = {0};
    size_t live = 0;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        assert_ok(dev_alloc(d, sizes[i], &p[i]));
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++) assert_int_equal(((uint8_t *)p[i])[j], 0);
        memset(p[i], 0x5A, sizes[i]);
        assert_int_equal(dev_live_bytes(d), live += sizes[i]);
    }
    for (size_t i = 0; i < COUNT(sizes); i++) {
        dev_free(d, &p[i]);
        assert_null(p[i]);
        assert_int_equal(dev_live_bytes(d), live -= sizes[i]);
        dev_free(d, &p[i]);
    }
    dev_free(d, NULL);
    assert_int_equal(dev_live_bytes(d), 0);
}

static void test_too_much(void **state)
{
    struct dev *d = ((struct fixture *)*state)->d;
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 64, SIZE_MAX / 2 + 1};
    void *p = NULL;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        assert_int_equal(dev_alloc(d, sizes[i], &p), ERR_NOMEM);
        assert_null(p);
    }
    assert_int_equal(dev_live_bytes(d), 0);
}

static void test_fail_at(void **state)
{
    struct dev *d = ((struct fixture *)*state)->d;
    for (int nth = 0; nth < 3; nth++) {
        void *p[4] = {0};
        dev_fail_at(d, nth);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(dev_alloc(d, 8, &p[i]), i == nth ? ERR_NOMEM : OK);
            assert_true((p[i] == NULL) == (i == nth));
        }
        for (int i = 0; i < 4; i++) dev_free(d, &p[i]);
    }
    void *p = NULL;
    dev_fail_at(d, 0);
    dev_fail_at(d, -1);
    assert_ok(dev_alloc(d, 8, &p));
    dev_free(d, &p);
}

static void test_seal(void **state)
{
    struct dev *d = ((struct fixture *)*state)->d;
    void *p = NULL, *late = NULL;
    assert_ok(dev_alloc(d, 8, &p));
    assert_int_equal(dev_allocs_sealed(d), 0);
    dev_seal(d);
    for (uint64_t i = 1; i < 4; i++) {
        assert_int_equal(dev_alloc(d, 8, &late), ERR_LIMIT);
        assert_null(late);
        assert_int_equal(dev_allocs_sealed(d), i);
    }
    dev_free(d, &p);
}

static void test_moves(void **state)
{
    struct dev *d = ((struct fixture *)*state)->d;
    void *a = NULL, *b = NULL;
    uint8_t host[100], back[100] = {0};
    for (int i = 0; i < 100; i++) host[i] = (uint8_t)(i + 1);
    assert_ok(dev_alloc(d, 100, &a));
    assert_ok(dev_alloc(d, 100, &b));
    assert_ok(dev_upload(d, a, host, 100));
    assert_ok(dev_copy(d, b, a, 90));
    assert_ok(dev_zero(d, (uint8_t *)b + 10, 5));
    assert_ok(dev_download(d, back, b, 100));
    assert_ok(dev_sync(d));
    for (int i = 0; i < 100; i++)
        assert_int_equal(back[i], i >= 90 || (i >= 10 && i < 15) ? 0 : i + 1);
    assert_ok(dev_copy(d, (uint8_t *)a + 50, a, 50)); /* neighbours do not overlap */
    assert_ok(dev_upload(d, a, NULL, 0));
    assert_ok(dev_zero(d, a, 0));
    dev_free(d, &a);
    dev_free(d, &b);
}

/* --- broken promises ----------------------------------------------------------------------------
 */

static void close_with_live_memory(void)
{
    struct dev *d = NULL;
    void *p = NULL;
    if (dev_open(&d, "cpu", 1) == OK && dev_alloc(d, 8, &p) == OK) dev_close(&d);
}

static void copy_over_itself(void)
{
    struct dev *d = NULL;
    char x[16] = {0};
    if (dev_open(&d, "cpu", 1) != OK || dev_copy(d, x + 1, x, 15) != OK) return;
}

static void alloc_nothing(void)
{
    struct dev *d = NULL;
    void *p = NULL;
    if (dev_open(&d, "cpu", 1) != OK || dev_alloc(d, 0, &p) != OK) return;
}

static void free_of_a_stranger(void)
{
    struct dev *d = NULL;
    static char x[256];
    void *p = x + 128;
    if (dev_open(&d, "cpu", 1) == OK) dev_free(d, &p);
}

static void test_broken_promises_abort(void **state)
{
    (void)state;
    check_aborts(close_with_live_memory);
    check_aborts(copy_over_itself);
    check_aborts(alloc_nothing);
    check_aborts(free_of_a_stranger);
}

/* --- sharing ------------------------------------------------------------------------------------
 */

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
        DEV_TEST(test_names),
        DEV_TEST(test_no_cuda),
        DEV_TEST(test_threads),
        DEV_TEST(test_alloc),
        DEV_TEST(test_too_much),
        DEV_TEST(test_fail_at),
        DEV_TEST(test_seal),
        DEV_TEST(test_moves),
        DEV_TEST(test_broken_promises_abort),
        DEV_TEST(test_share),
        DEV_TEST(test_share_outlives_a_process),
        DEV_TEST(test_share_replaces),
        DEV_TEST(test_share_refuses),
        DEV_TEST(test_share_without_room),
    };
    return cmocka_run_group_tests_name("dev", tests, NULL, NULL);
}
