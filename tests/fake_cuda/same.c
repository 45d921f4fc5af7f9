/* same.c - what common/dev_cuda.c uses of the CUDA runtime and kernels/cuda/gemm.c of cuBLASLt, as
 * the fakes declare it. Compiled against the fakes' headers always and against the toolkit's where
 * there is one: the two agree in every value and in every type, or the build ends here. */
#include <cublasLt.h>
#include <cuda.h>
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
SAME(cudaEventDisableTiming, 2);
SAME(sizeof(cudaUUID_t), 16);
SAME(sizeof(cudaIpcMemHandle_t), 64);
SAME(sizeof(((struct cudaDeviceProp *)NULL)->name), 256);

SAME(CUBLAS_STATUS_SUCCESS, 0);
SAME(CUBLAS_STATUS_INVALID_VALUE, 7);
SAME(CUBLAS_STATUS_INTERNAL_ERROR, 14);
SAME(CUBLAS_STATUS_NOT_SUPPORTED, 15);
SAME(CUDA_R_32F, 0);
SAME(CUDA_R_16F, 2);
SAME(CUDA_R_16BF, 14);
SAME(CUBLAS_COMPUTE_32F, 68);
SAME(CUBLAS_OP_N, 0);
SAME(CUBLAS_OP_T, 1);
SAME(CUBLASLT_EPILOGUE_DEFAULT, 1);
SAME(CUBLASLT_EPILOGUE_BIAS, 4);
SAME(CUBLASLT_EPILOGUE_GELU, 32);
SAME(CUBLASLT_EPILOGUE_GELU_BIAS, 36);
SAME(CUBLASLT_MATMUL_DESC_TRANSA, 3);
SAME(CUBLASLT_MATMUL_DESC_EPILOGUE, 7);
SAME(CUBLASLT_MATMUL_DESC_BIAS_POINTER, 8);
SAME(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, 26);
SAME(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 5);
SAME(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 6);
SAME(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 1);
SAME(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 5);
SAME(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 6);
SAME(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 7);
SAME(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 8);
SAME(CUBLASLT_ALGO_CONFIG_ID, 0);
SAME(CUBLASLT_ALGO_CONFIG_TILE_ID, 1);
SAME(CUBLASLT_ALGO_CONFIG_STAGES_ID, 6);
SAME(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 8);
SAME(CUBLASLT_MATMUL_TILE_128x192, 32);
SAME(CUBLASLT_MATMUL_TILE_128x224, 414);
SAME(CUBLASLT_MATMUL_TILE_128x288, 421);
SAME(CUBLASLT_MATMUL_STAGES_64xAUTO, 35);
SAME(CUBLASLT_CLUSTER_SHAPE_2x1x1, 3);
SAME(sizeof(cublasLtMatmulAlgo_t), 64);
SAME(sizeof(cublasLtMatmulHeuristicResult_t), 96);
SAME(offsetof(cublasLtMatmulHeuristicResult_t, state), 72);
SAME(sizeof(CUtensorMap), 128);

/* A call of another type would not be one of these. */
#define ANSWERS(type, f, ...)                                                                      \
    _Static_assert(_Generic(&(f), type(*)(__VA_ARGS__) : 1, default : 0), #f)
#define TYPED(f, ...) ANSWERS(cudaError_t, f, __VA_ARGS__)
#define LT(f, ...) ANSWERS(cublasStatus_t, f, __VA_ARGS__)

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
TYPED(cudaStreamWaitEvent, cudaStream_t, cudaEvent_t, unsigned);
TYPED(cudaEventCreate, cudaEvent_t *);
TYPED(cudaEventCreateWithFlags, cudaEvent_t *, unsigned);
TYPED(cudaEventDestroy, cudaEvent_t);
TYPED(cudaEventRecord, cudaEvent_t, cudaStream_t);
TYPED(cudaEventElapsedTime, float *, cudaEvent_t, cudaEvent_t);
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

ANSWERS(size_t, cublasLtGetVersion, void);
LT(cublasLtCreate, cublasLtHandle_t *);
LT(cublasLtDestroy, cublasLtHandle_t);
LT(cublasLtMatmulDescCreate, cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t);
LT(cublasLtMatmulDescDestroy, cublasLtMatmulDesc_t);
LT(cublasLtMatmulDescSetAttribute, cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
   const void *, size_t);
LT(cublasLtMatrixLayoutCreate, cublasLtMatrixLayout_t *, cudaDataType_t, uint64_t, uint64_t,
   int64_t);
LT(cublasLtMatrixLayoutDestroy, cublasLtMatrixLayout_t);
LT(cublasLtMatrixLayoutSetAttribute, cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t,
   const void *, size_t);
LT(cublasLtMatmulPreferenceCreate, cublasLtMatmulPreference_t *);
LT(cublasLtMatmulPreferenceDestroy, cublasLtMatmulPreference_t);
LT(cublasLtMatmulPreferenceSetAttribute, cublasLtMatmulPreference_t,
   cublasLtMatmulPreferenceAttributes_t, const void *, size_t);
LT(cublasLtMatmulAlgoGetHeuristic, cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
   cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
   cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t *, int *);
LT(cublasLtMatmulAlgoConfigGetAttribute, const cublasLtMatmulAlgo_t *,
   cublasLtMatmulAlgoConfigAttributes_t, void *, size_t, size_t *);
LT(cublasLtMatmul, cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *,
   cublasLtMatrixLayout_t, const void *, cublasLtMatrixLayout_t, const void *, const void *,
   cublasLtMatrixLayout_t, void *, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *,
   size_t, cudaStream_t);
