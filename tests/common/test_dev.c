/* test_dev.c - the device contract: names, memory, accounting, moves, broken promises. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/dev_impl.h"
#include "tests/check.h"

static int setup(void **state)
{
    struct dev *d = NULL;
    assert_ok(dev_open(&d, "cpu", 2));
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct dev *d = *state;
    dev_close(&d);
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
    assert_string_equal(dev_name(d), "cpu");
    dev_close(&d);
    assert_null(d);
    dev_close(&d);
    dev_close(NULL);
}

static void test_alloc(void **state)
{
    struct dev *d = *state;
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
    struct dev *d = *state;
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
    struct dev *d = *state;
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
    struct dev *d = *state;
    void *p = NULL, *late = NULL;
    assert_ok(dev_alloc(d, 8, &p));
    assert_int_equal(dev_allocs_sealed(d), 0);
    dev_seal(d);
    for (uint64_t i = 1; i < 4; i++) {
        assert_int_equal(dev_alloc(d, 8, &late), ERR_LIMIT);
        assert_null(late);
        assert_int_equal(dev_allocs_sealed(d), i);
    }
    dev_unseal(d);
    assert_ok(dev_alloc(d, 8, &late));
    assert_int_equal(dev_allocs_sealed(d), 3);
    dev_free(d, &late);
    dev_free(d, &p);
}

static void test_moves(void **state)
{
    struct dev *d = *state;
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

/* A CPU's work is done when its call returns: it is in order with that of any other. */
static void test_order(void **state)
{
    struct dev *d = *state, *other = NULL;
    void *a = NULL, *b = NULL;
    int32_t value = 7, got = 0;
    assert_ok(dev_open(&other, "cpu", 1));
    assert_ok(dev_alloc(d, sizeof value, &a));
    assert_ok(dev_alloc(other, sizeof value, &b));
    assert_ok(dev_order(d, other));
    assert_ok(dev_upload(d, a, &value, sizeof value));
    assert_ok(dev_order(other, d));
    assert_ok(dev_copy(other, b, a, sizeof value));
    assert_ok(dev_download(other, &got, b, sizeof got));
    assert_ok(dev_sync(other));
    assert_int_equal(got, 7);
    assert_ok(dev_order(d, d));
    assert_ok(dev_enter(d));
    dev_free(d, &a);
    dev_free(other, &b);
    dev_close(&other);
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

/* A GPU by name alone: nothing is called before the kinds are compared. */
static void order_of_two_kinds(bool is_after)
{
    struct dev *d = NULL, gpu = {.kind = DEV_CUDA};
    if (dev_open(&d, "cpu", 1) != OK) return;
    if (dev_order(is_after ? &gpu : d, is_after ? d : &gpu) != OK) return;
}

static void order_gpu_after_cpu(void)
{
    order_of_two_kinds(true);
}

static void order_cpu_after_gpu(void)
{
    order_of_two_kinds(false);
}

/* Times that do not fall, from the first mark on, and what lies between is in them. */
static void test_marks(void **state)
{
    struct dev *d = *state;
    struct dev_marks *m = NULL;
    int64_t ns[3];
    const struct timespec pause = {.tv_nsec = 2000000};
    assert_ok(dev_marks_open(d, &m, 3));
    for (int32_t i = 0; i < 3; i++) {
        assert_ok(dev_mark(d, m, i));
        if (i == 0) nanosleep(&pause, NULL);
    }
    assert_ok(dev_sync(d));
    assert_ok(dev_marks_read(d, m, 3, ns));
    assert_int_equal(ns[0], 0);
    assert_true(ns[1] >= 2000000 && ns[2] >= ns[1]);
    dev_marks_close(d, &m);
    assert_null(m);
    dev_marks_close(d, &m);
}

static void test_broken_promises_abort(void **state)
{
    (void)state;
    check_aborts(close_with_live_memory);
    check_aborts(copy_over_itself);
    check_aborts(alloc_nothing);
    check_aborts(free_of_a_stranger);
    check_aborts(order_gpu_after_cpu);
    check_aborts(order_cpu_after_gpu);
}

#define DEV_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* Times of one name are one time, and more names than there is room for are not said. */
static void test_what_a_start_took(void **state)
{
    struct dev *d = *state;
    char text[400], name[40][16];
    dev_took_text(d, text, sizeof text);
    assert_string_equal(text, "");
    dev_took(d, "map", now_ns() - 20 * NS_PER_MS);
    dev_took(d, "gemm", now_ns() - 5 * NS_PER_MS);
    dev_took(d, "map", now_ns() - 20 * NS_PER_MS);
    double map_ms = 0, gemm_ms = 0;
    dev_took_text(d, text, sizeof text);
    assert_int_equal(sscanf(text, " map_ms=%lf gemm_ms=%lf", &map_ms, &gemm_ms), 2);
    assert_true(map_ms >= 40 && gemm_ms >= 5);
    for (int i = 0; i < 40; i++) {
        snprintf(name[i], sizeof name[i], "n%d", i);
        dev_took(d, name[i], now_ns());
    }
    dev_took_text(d, text, sizeof text);
    assert_non_null(strstr(text, " n13_ms="));
    assert_null(strstr(text, " n14_ms="));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DEV_TEST(test_names),
        DEV_TEST(test_no_cuda),
        DEV_TEST(test_threads),
        DEV_TEST(test_alloc),
        DEV_TEST(test_too_much),
        DEV_TEST(test_fail_at),
        DEV_TEST(test_marks),
        DEV_TEST(test_seal),
        DEV_TEST(test_moves),
        DEV_TEST(test_order),
        DEV_TEST(test_broken_promises_abort),
        DEV_TEST(test_what_a_start_took),
    };
    return cmocka_run_group_tests_name("dev", tests, NULL, NULL);
}
