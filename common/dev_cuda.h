/* dev_cuda.h - what the CUDA kernels and their launchers know of a device. Valid C and C++. */
#ifndef COMMON_DEV_CUDA_H
#define COMMON_DEV_CUDA_H

#include <cuda_runtime_api.h>

#include "common/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The stream on which all work of a device is queued, in order. */
cudaStream_t cuda_stream(const struct dev *d);

/* ERR_DEVICE, ERR_NOMEM or ERR_NONE, with the runtime's name of the error and what was tried. */
err_t cuda_failed(cudaError_t e, const char *what);
/* Whether the launches before this call were accepted. */
err_t cuda_launched(const char *what);

#ifdef __cplusplus
}
#endif
#endif
