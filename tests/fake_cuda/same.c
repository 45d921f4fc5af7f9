/* same.c - what common/dev_cuda.c uses of the CUDA runtime, as the fake declares it. Compiled
 * against the fake's header always and against the toolkit's where there is one: the two agree in
 * every value and in every type, or the build ends here. */
#include <cuda_runtime_api.h>
#include <stdint.h>

#define SAME(name, value) _Static_assert((int)(name) == (value), #name)

SAME(cudaSuccess, 0);
SAME(cudaErrorInvalidValue, 1);
SAME(cudaErrorMemoryAllocation, 2);
SAME(cudaErrorInitializationError, 3);
SAME(cudaErrorInsufficientDriver, 35);
SAME(cudaErrorDevicesUnavailable, 46);
SAME(cudaErrorNoDevice, 100);
SAME(cudaErrorInvalidDevice, 101);
SAME(cudaErrorDeviceUninitialized, 201);
SAME(cudaErrorMapBufferObjectFailed, 205);
SAME(cudaErrorPeerAccessUnsupported, 217);
SAME(cudaErrorOperatingSystem, 304);
SAME(cudaErrorInvalidResourceHandle, 400);
SAME(cudaErrorIllegalAddress, 700);
SAME(cudaErrorTooManyPeers, 711);
SAME(cudaErrorHostMemoryAlreadyRegistered, 712);
SAME(cudaErrorHostMemoryNotRegistered, 713);
SAME(cudaErrorLaunchFailure, 719);
SAME(cudaErrorNotPermitted, 800);
SAME(cudaErrorNotSupported, 801);
SAME(cudaErrorMpsConnectionFailed, 805);
SAME(cudaErrorStreamCaptureUnsupported, 900);
SAME(cudaErrorStreamCaptureInvalidated, 901);
SAME(cudaDevAttrComputeMode, 20);
SAME(cudaDevAttrComputeCapabilityMajor, 75);
SAME(cudaDevAttrComputeCapabilityMinor, 76);
SAME(cudaDevAttrMpsEnabled, 133);
SAME(cudaComputeModeDefault, 0);
SAME(cudaComputeModeProhibited, 2);
SAME(cudaComputeModeExclusiveProcess, 3);
SAME(cudaMemcpyHostToDevice, 1);
SAME(cudaMemcpyDeviceToHost, 2);
SAME(cudaMemcpyDeviceToDevice, 3);
SAME(cudaStreamCaptureModeThreadLocal, 1);
SAME(cudaStreamCaptureModeRelaxed, 2);
SAME(cudaIpcMemLazyEnablePeerAccess, 1);
SAME(cudaStreamNonBlocking, 1);
SAME(cudaHostRegisterDefault, 0);
SAME(sizeof(cudaUUID_t), 16);
SAME(sizeof(cudaIpcMemHandle_t), 64);
SAME(sizeof(((struct cudaDeviceProp *)NULL)->name), 256);

/* A call of another type would not be one of these. */
#define TYPED(f, ...)                                                                              \
    _Static_assert(_Generic(&(f), cudaError_t(*)(__VA_ARGS__) : 1, default : 0), #f)

TYPED(cudaGetLastError, void);
TYPED(cudaGetDeviceCount, int *);
TYPED(cudaSetDevice, int);
TYPED(cudaDeviceGetAttribute, int *, enum cudaDeviceAttr, int);
TYPED(cudaGetDeviceProperties, struct cudaDeviceProp *, int);
TYPED(cudaDeviceCanAccessPeer, int *, int, int);
TYPED(cudaDriverGetVersion, int *);
TYPED(cudaRuntimeGetVersion, int *);
TYPED(cudaMalloc, void **, size_t);
TYPED(cudaFree, void *);
TYPED(cudaMemGetInfo, size_t *, size_t *);
TYPED(cudaMemcpyAsync, void *, const void *, size_t, enum cudaMemcpyKind, cudaStream_t);
TYPED(cudaMemsetAsync, void *, int, size_t, cudaStream_t);
TYPED(cudaHostRegister, void *, size_t, unsigned);
TYPED(cudaHostUnregister, void *);
TYPED(cudaStreamCreateWithFlags, cudaStream_t *, unsigned);
TYPED(cudaStreamDestroy, cudaStream_t);
TYPED(cudaStreamSynchronize, cudaStream_t);
TYPED(cudaStreamBeginCapture, cudaStream_t, enum cudaStreamCaptureMode);
TYPED(cudaStreamEndCapture, cudaStream_t, cudaGraph_t *);
TYPED(cudaGraphInstantiate, cudaGraphExec_t *, cudaGraph_t, unsigned long long);
TYPED(cudaGraphUpload, cudaGraphExec_t, cudaStream_t);
TYPED(cudaGraphLaunch, cudaGraphExec_t, cudaStream_t);
TYPED(cudaGraphExecDestroy, cudaGraphExec_t);
TYPED(cudaGraphDestroy, cudaGraph_t);
TYPED(cudaIpcGetMemHandle, cudaIpcMemHandle_t *, void *);
TYPED(cudaIpcOpenMemHandle, void **, cudaIpcMemHandle_t, unsigned);
TYPED(cudaIpcCloseMemHandle, void *);
