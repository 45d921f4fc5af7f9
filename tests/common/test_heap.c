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

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_each_call_counts)};
    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
