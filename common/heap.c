/* heap.c - see heap.h. */
#include "common/heap.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

static _Atomic uint64_t n_calls;

uint64_t heap_calls(void)
{
    return atomic_load_explicit(&n_calls, memory_order_relaxed);
}

/* Weak, because a program linked without --wrap has no __real_*; it never calls __wrap_* either. */
extern void *__real_malloc(size_t) __attribute__((weak));
extern void *__real_calloc(size_t, size_t) __attribute__((weak));
extern void *__real_realloc(void *, size_t) __attribute__((weak));
extern void *__real_aligned_alloc(size_t, size_t) __attribute__((weak));
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t k, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

static _Atomic int fail_in = -1;

void heap_fail_at(int n)
{
    atomic_store(&fail_in, n);
}

/* Counts the call; tells whether it is to fail. */
static bool count(void)
{
    atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
    if (__builtin_expect(atomic_load_explicit(&fail_in, memory_order_relaxed) < 0, 1)) return false;
    return atomic_fetch_sub(&fail_in, 1) == 0;
}

void *__wrap_malloc(size_t n)
{
    return count() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t k, size_t n)
{
    return count() ? NULL : __real_calloc(k, n);
}

void *__wrap_realloc(void *p, size_t n)
{
    return count() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return count() ? NULL : __real_aligned_alloc(align, n);
}
