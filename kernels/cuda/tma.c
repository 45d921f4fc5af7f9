/* tma.c - tensor maps. The driver's encoder is asked of the runtime, so nothing links the driver.
 */
#include <cuda_runtime_api.h>

#include "kernels/cuda/cuda.h"

typedef CUresult (*encoder)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                            const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                            const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static err_t find_encoder(encoder *out)
{
    static encoder found;
    void *f = NULL;
    enum cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    if (!found) {
        const cudaError_t ce = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                                cudaEnableDefault, &result);
        if (ce != cudaSuccess) return cuda_failed(ce, "cuTensorMapEncodeTiled");
        if (!f || result != cudaDriverEntryPointSuccess)
            return FAIL(ERR_DEVICE, "the driver has no cuTensorMapEncodeTiled");
        *(void **)&found = f;
    }
    *out = found;
    return OK;
}

/* dims innermost first; strides of all but the innermost, in bytes. */
static err_t encode(CUtensorMap *m, CUtensorMapDataType type, cuuint32_t rank, const void *data,
                    const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box)
{
    err_t e = OK;
    encoder f = NULL;
    static const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
    const CUtensorMapSwizzle swizzle = box[0] == 64   ? CU_TENSOR_MAP_SWIZZLE_128B
                                       : box[0] == 32 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                      : CU_TENSOR_MAP_SWIZZLE_32B;
    TRY(find_encoder(&f));
    const CUresult r =
        f(m, type, rank, (void *)data, dims, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE,
          swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r != CUDA_SUCCESS) e = FAIL(ERR_BUG, "tensor map of rank %u: error %d", rank, (int)r);
out:
    return e;
}

err_t cuda_map_heads(CUtensorMap *m, struct tensor t, int32_t box)
{
    const cuuint64_t heads = (cuuint64_t)t.shape[1], d = (cuuint64_t)t.shape[2];
    const cuuint64_t dims[3] = {d, heads, (cuuint64_t)t.shape[0]};
    const cuuint64_t strides[2] = {2 * d, 2 * d * heads};
    const cuuint32_t boxes[3] = {64, 1, (cuuint32_t)box};
    return encode(m, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, t.data, dims, strides, boxes);
}

err_t cuda_map_pictures(CUtensorMap *m, struct tensor t, int32_t chunk, int32_t rows, int32_t cols)
{
    const cuuint64_t c = (cuuint64_t)t.shape[3], x = (cuuint64_t)t.shape[2],
                     y = (cuuint64_t)t.shape[1];
    const cuuint64_t dims[4] = {c, x, y, (cuuint64_t)t.shape[0]};
    const cuuint64_t strides[3] = {2 * c, 2 * c * x, 2 * c * x * y};
    const cuuint32_t boxes[4] = {(cuuint32_t)chunk, (cuuint32_t)cols, (cuuint32_t)rows, 1};
    return encode(m, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, t.data, dims, strides, boxes);
}

err_t cuda_map_matrix(CUtensorMap *m, const void *data, int64_t rows, int64_t cols, int32_t chunk,
                      int32_t box)
{
    const cuuint64_t dims[2] = {(cuuint64_t)cols, (cuuint64_t)rows};
    const cuuint64_t strides[1] = {2 * (cuuint64_t)cols};
    const cuuint32_t boxes[2] = {(cuuint32_t)chunk, (cuuint32_t)box};
    return encode(m, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, data, dims, strides, boxes);
}
