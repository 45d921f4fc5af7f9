/* events.c - events of the fake CUDA runtime: work runs when it is queued, so that an event is the
 * host's clock. */
#include <cuda_runtime_api.h>

#include <stdlib.h>

#include "common/clock.h"
#include "tests/fake_cuda/calls.h"

struct CUevent_st {
    int64_t at_ns; /* 0: never recorded */
    int device;
};

static cudaError_t create(cudaEvent_t *event, cudaError_t ce)
{
    if (ce != cudaSuccess) return ce;
    *event = calloc(1, sizeof **event);
    MUST(*event);
    (*event)->device = fake_cuda_device();
    fake_cuda_made(1);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return create(event, fake_cuda_enter(__func__));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    return create(event, fake_cuda_enter(__func__));
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    const cudaError_t ce = fake_cuda_enter(__func__);
    free(event);
    fake_cuda_made(-1);
    return ce;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    const cudaError_t ce = fake_cuda_enter(__func__);
    MUST(stream);
    if (ce != cudaSuccess) return ce;
    if (event->device != fake_cuda_device_of(stream)) return cudaErrorInvalidResourceHandle;
    event->at_ns = now_ns();
    return ce;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    const cudaError_t ce = fake_cuda_enter(__func__);
    (void)flags;
    MUST(stream && event->at_ns);
    return ce;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    const cudaError_t ce = fake_cuda_enter(__func__);
    if (ce == cudaSuccess && (!begin->at_ns || !end->at_ns)) return cudaErrorInvalidResourceHandle;
    *ms = (float)(end->at_ns - begin->at_ns) / 1e6f;
    return ce;
}
