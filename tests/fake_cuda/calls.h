/* calls.h - for calls of the fake CUDA runtime that are not in runtime.c. */
#ifndef FAKE_CUDA_CALLS_H
#define FAKE_CUDA_CALLS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "common/err.h"

/* What a call that cannot be captured answers before it does anything. */
cudaError_t fake_cuda_enter(const char *call);
/* So many more things, or less, that are made and not unmade. */
void fake_cuda_made(int32_t n);
/* The current device; the one that was current when the stream was made. */
int fake_cuda_device(void);
int fake_cuda_device_of(cudaStream_t stream);

#endif
