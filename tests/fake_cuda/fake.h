/* fake.h - a CUDA runtime over host memory, for tests of common/dev_cuda.c without a GPU.
 *
 * Several GPUs, allocations, streams, graphs, and IPC handles that another process opens. What was
 * measured on real ones holds here: a handle of a dead process opens no more, a mapping of its
 * memory stays; a child of fork can use nothing; an allocation is not zeroed; a fault of the device
 * is every later call's answer. Work runs when it is queued. A pointer that is not of a device
 * where one must be is refused, and so is an event that is not of its stream's.
 *
 * What the machine is like is a text of words "key=value", from the environment variable FAKE_CUDA
 * or from fake_cuda:
 *   gpus=1       how many; 0: none
 *   driver=1     0: none, or one that is too old
 *   major=9      compute capability
 *   mode=0       compute mode: 2 prohibited, 3 exclusive to a process
 *   mps=0        1: MPS runs
 *   peer=1       0: a GPU cannot map the memory of another; 2: the driver says that one way is open
 *   graph=1      0: nothing can be recorded
 *   pin=1        0: no host memory can be pinned
 *   ipc=1        0: no handle is given; 2: it is given, and opens nowhere
 *   memory_mb=0  memory of a GPU; 0: no bound
 *   late_ms=0    from a process's first allocation on, how long there is no memory
 *   fail=0       the n-th call from now fails; 0: none does
 *   error=2      with this error
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdint.h>

#include "common/err.h"

/* This machine from now on; what exists stays. A fault of the device is over. */
void fake_cuda(const char *text);

/* The call that `fail` has made fail; NULL: none yet. */
const char *fake_cuda_failed(void);
/* What was made and not unmade: memory, mappings, streams, graphs, pinned ranges. */
int32_t fake_cuda_live(void);
/* The next capture makes a graph that calls this: ops of the CPU cannot be recorded. */
void fake_cuda_graph_is(err_t (*work)(void *self), void *self);

#endif
