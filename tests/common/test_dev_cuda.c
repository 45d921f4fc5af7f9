/* test_dev_cuda.c - a GPU behind the device contract: memory, order, recorded work, shared memory.
 * Where there is none, that it is said in one sentence. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/dev.h"
#include "tests/check.h"

static struct dev *d;

static bool has_gpu(void)
{
    return dev_check("cuda:0") == OK;
}

static int setup(void **state)
{
    (void)state;
    if (has_gpu()) assert_ok(dev_open(&d, "cuda:0", 1));
    return 0;
}

static int teardown(void **state)
{
    dev_close(&d);
    return check_teardown(state);
}

static void test_no_gpu_is_said(void **state)
{
    (void)state;
    if (has_gpu()) skip();
    assert_int_equal(dev_open(&d, "cuda:0", 1), ERR_NONE);
    assert_null(d);
    assert_non_null(strstr(err_text(), "cuda:0"));
}

static void test_memory(void **state)
{
    (void)state;
    void *a = NULL, *b = NULL;
    uint8_t in[1000], out[1000];
    if (!d) skip();
    for (int i = 0; i < 1000; i++) in[i] = (uint8_t)(i * 7);
    assert_ok(dev_alloc(d, sizeof in, &a));
    assert_ok(dev_alloc(d, sizeof in, &b));
    memset(out, 1, sizeof out);
    assert_ok(dev_download(d, out, a, sizeof out));
    assert_ok(dev_sync(d));
    for (int i = 0; i < 1000; i++) assert_int_equal(out[i], 0);
    assert_ok(dev_upload(d, a, in, sizeof in));
    assert_ok(dev_copy(d, b, a, sizeof in));
    assert_ok(dev_zero(d, b, 10));
    assert_ok(dev_download(d, out, b, sizeof out));
    assert_ok(dev_sync(d));
    for (int i = 0; i < 1000; i++) assert_int_equal(out[i], i < 10 ? 0 : in[i]);
    assert_int_equal(dev_live_bytes(d), 2000);
    dev_free(d, &a);
    dev_free(d, &b);
    assert_int_equal(dev_live_bytes(d), 0);
}

struct copies {
    void *from, *to;
};

static err_t copy_once(void *self)
{
    const struct copies *c = self;
    return dev_copy(d, c->to, c->from, 4);
}

/* Recording runs nothing; every replay copies what is there then. */
static void test_recorded_work(void **state)
{
    (void)state;
    struct copies c = {0};
    struct dev_graph *g = NULL;
    int32_t value = 0;
    if (!d) skip();
    assert_ok(dev_alloc(d, 4, &c.from));
    assert_ok(dev_alloc(d, 4, &c.to));
    assert_ok(dev_record(d, &g, copy_once, &c));
    for (int32_t i = 1; i < 4; i++) {
        assert_ok(dev_upload(d, c.from, &i, sizeof i));
        assert_ok(dev_download(d, &value, c.to, sizeof value));
        assert_ok(dev_sync(d));
        assert_int_equal(value, i - 1);
        assert_ok(dev_replay(d, g));
        assert_ok(dev_download(d, &value, c.to, sizeof value));
        assert_ok(dev_sync(d));
        assert_int_equal(value, i);
    }
    dev_graph_close(d, &g);
    assert_null(g);
    dev_free(d, &c.from);
    dev_free(d, &c.to);
}

/* --- order ------------------------------------------------------------------------------------ */

enum { LONG_BYTES = 32 << 20, CHAIN_MS = 20, CHAIN_MAX = 2000 };

/* Two ends of a long copy, and an int each of: what the chain begins with, what it ends with, what
 * the other device takes. */
struct chain {
    void *a, *b;
    int32_t *from, *mid, *to;
};

static void chain_open(struct chain *c, struct dev *other)
{
    void *p[3] = {0};
    assert_ok(dev_alloc(d, LONG_BYTES, &c->a));
    assert_ok(dev_alloc(d, LONG_BYTES, &c->b));
    assert_ok(dev_alloc(d, 4, &p[0]));
    assert_ok(dev_alloc(d, 4, &p[1]));
    assert_ok(dev_alloc(other, 4, &p[2]));
    c->from = p[0], c->mid = p[1], c->to = p[2];
}

static void chain_close(struct chain *c, struct dev *other)
{
    void *p[3] = {c->from, c->mid, c->to};
    dev_free(d, &c->a);
    dev_free(d, &c->b);
    dev_free(d, &p[0]);
    dev_free(d, &p[1]);
    dev_free(other, &p[2]);
}

/* So many long copies take CHAIN_MS on this device. */
static int32_t chain_length(const struct chain *c)
{
    assert_ok(dev_copy(d, c->b, c->a, LONG_BYTES));
    assert_ok(dev_sync(d));
    const int64_t began_ns = now_ns();
    assert_ok(dev_copy(d, c->b, c->a, LONG_BYTES));
    assert_ok(dev_sync(d));
    const int64_t n = CHAIN_MS * NS_PER_MS / (now_ns() - began_ns + 1) + 1;
    return (int32_t)(n < CHAIN_MAX ? n : CHAIN_MAX);
}

/* The chain is queued and not waited for; what is then queued on the other device sees its end. */
static void check_order(struct dev *other)
{
    struct chain c = {0};
    chain_open(&c, other);
    const int32_t n = chain_length(&c);
    for (int32_t i = 1; i < 4; i++) {
        int32_t got = -1;
        assert_ok(dev_upload(d, c.from, &i, sizeof i));
        assert_ok(dev_sync(d));
        for (int32_t k = 0; k < n; k++)
            assert_ok(dev_copy(d, k % 2 ? c.a : c.b, k % 2 ? c.b : c.a, LONG_BYTES));
        assert_ok(dev_copy(d, c.mid, c.from, sizeof i));
        assert_ok(dev_order(other, d));
        assert_ok(dev_copy(other, c.to, c.mid, sizeof i));
        assert_ok(dev_download(other, &got, c.to, sizeof got));
        assert_ok(dev_sync(other));
        assert_int_equal(got, i);
        assert_ok(dev_order(d, other)); /* and back, as a pass on either does */
    }
    assert_ok(dev_order(d, d));
    assert_ok(dev_sync(d));
    chain_close(&c, other);
}

static void test_order(void **state)
{
    (void)state;
    static const char *const names[] = {"cuda:0", "cuda:1"};
    if (!d) skip();
    assert_string_equal(dev_name(d), "cuda:0");
    for (size_t i = 0; i < COUNT(names); i++) {
        struct dev *other = NULL;
        if (dev_check(names[i]) != OK) continue;
        assert_ok(dev_open(&other, names[i], 1));
        assert_string_equal(dev_name(other), names[i]);
        assert_ok(dev_order(other, d)); /* of nothing */
        check_order(other);
        assert_ok(dev_enter(d));
        dev_close(&other);
    }
}

/* Another process, by exec: maps what it is told, writes, ends without a word of goodbye. */
static int map_and_write(void)
{
    struct dev_share s;
    void *p = NULL;
    const char text[] = "written";
    if (read(STDIN_FILENO, &s, sizeof s) != sizeof s) return 1;
    if (dev_open(&d, "cuda:0", 1) != OK || dev_share_map(d, &s, &p) != OK) return 2;
    if (dev_upload(d, p, text, sizeof text) != OK || dev_sync(d) != OK) return 3;
    s.nonce[0] ^= 1; /* a handle of other memory */
    void *q = NULL;
    dev_share_unmap(d, &s, &p);
    _exit(dev_share_map(d, &s, &q) == ERR_NONE ? 42 : 4);
}

static void test_share(void **state)
{
    (void)state;
    struct dev_share s = {0};
    int fds[2], status = 0;
    if (!d) skip();
    assert_ok(dev_share_make(d, "cuda:0/test", 100, &s));
    assert_ok(dev_share_check(d, &s));
    assert_int_equal(pipe(fds), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[0], STDIN_FILENO);
        execl("/proc/self/exe", "test_dev_cuda", "map", NULL);
        _exit(9);
    }
    assert_int_equal(write(fds[1], &s, sizeof s), sizeof s);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 42);
    dev_share_drop(d, &s);
    assert_int_equal(dev_share_check(d, &s), ERR_NONE);
    dev_share_drop(d, &s);
}

/* A ring of frames is shared memory of the CPU, of no round size. */
static void test_pin_shared_memory(void **state)
{
    (void)state;
    enum { BYTES = 3 * 4608 };
    struct dev *host = NULL;
    struct dev_share s = {0};
    void *p = NULL, *on_gpu = NULL;
    char path[] = "/dev/shm/test_dev_cuda.XXXXXX";
    uint8_t in[BYTES];
    if (!d) skip();
    for (int i = 0; i < BYTES; i++) in[i] = (uint8_t)(i * 11);
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_ok(dev_open(&host, "cpu", 1));
    assert_ok(dev_share_make(host, path, BYTES, &s));
    assert_ok(dev_share_map(host, &s, &p));
    assert_ok(dev_pin(d, p, BYTES));
    assert_ok(dev_alloc(d, BYTES, &on_gpu));
    assert_ok(dev_upload(d, on_gpu, in, BYTES));
    assert_ok(dev_download(d, p, on_gpu, BYTES));
    assert_ok(dev_sync(d));
    assert_memory_equal(p, in, BYTES);
    dev_unpin(d, p);
    dev_free(d, &on_gpu);
    dev_share_unmap(host, &s, &p);
    dev_share_drop(host, &s);
    dev_close(&host);
    close(fd);
}

#define GPU_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "map") == 0) return map_and_write();
    const struct CMUnitTest tests[] = {
        GPU_TEST(test_no_gpu_is_said),    GPU_TEST(test_memory),
        GPU_TEST(test_recorded_work),     GPU_TEST(test_share),
        GPU_TEST(test_pin_shared_memory), GPU_TEST(test_order),
    };
    return cmocka_run_group_tests_name("dev_cuda", tests, NULL, NULL);
}
