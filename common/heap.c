/* heap.c - see heap.h. */
#include "common/heap.h"

#include <stdatomic.h>
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

static void count(void)
{
    atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
}

void *__wrap_malloc(size_t n)
{
    count();
    return __real_malloc(n);
}

void *__wrap_calloc(size_t k, size_t n)
{
    count();
    return __real_calloc(k, n);
}

void *__wrap_realloc(void *p, size_t n)
{
    count();
    return __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    count();
    return __real_aligned_alloc(align, n);
}
