/* test_heap.c - each of our heap calls is counted once; a free is none. */
#include "common/heap.h"

#include <stdlib.h>

#include "tests/check.h"

/* Through volatile, or the compiler leaves out what nobody looks at. */
static void *volatile seen;

static void test_each_call_counts(void **state)
{
    (void)state;
    const uint64_t n = heap_calls();
    seen = malloc(10);
    assert_int_equal(heap_calls(), n + 1);
    seen = realloc(seen, 100);
    assert_int_equal(heap_calls(), n + 2);
    free(seen);
    seen = calloc(3, 7);
    for (int i = 0; i < 21; i++) assert_int_equal(((char *)seen)[i], 0);
    assert_int_equal(heap_calls(), n + 3);
    free(seen);
    seen = aligned_alloc(64, 128);
    assert_int_equal((uintptr_t)seen % 64, 0);
    assert_int_equal(heap_calls(), n + 4);
    free(seen);
    assert_int_equal(heap_calls(), n + 4);
}

static void test_the_nth_fails_once(void **state)
{
    (void)state;
    heap_fail_at(2);
    void *first = malloc(10), *second = calloc(1, 10), *third = malloc(10), *fourth = malloc(10);
    assert_true(first && second && !third && fourth);
    heap_fail_at(0);
    seen = realloc(NULL, 20);
    assert_null(seen);
    heap_fail_at(0);
    seen = aligned_alloc(64, 64);
    assert_null(seen);
    heap_fail_at(0);
    heap_fail_at(-1);
    seen = malloc(1);
    assert_non_null(seen);
    free(seen);
    free(first);
    free(second);
    free(fourth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_each_call_counts), TEST(test_the_nth_fails_once)};
    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
