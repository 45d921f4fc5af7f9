/* heap.h - counts the heap calls of our own code, so that "steady state allocates nothing" can be
 * shown instead of claimed. Stages are linked with --wrap for malloc, calloc, realloc and
 * aligned_alloc; what libraries allocate inside themselves is not counted. */
#ifndef COMMON_HEAP_H
#define COMMON_HEAP_H

#include <stdint.h>

/* Heap calls of this process since start; stays 0 in a program linked without --wrap. */
uint64_t heap_calls(void);

/* The n-th heap call from now (0 = the next) gives NULL; negative: none does. */
void heap_fail_at(int n);

#endif
