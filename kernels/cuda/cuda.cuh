/* cuda.cuh - what every kernel file needs: loads and stores of any float type, reductions,
 * and the choice of a kernel by type. Arithmetic is f32 whatever the memory holds.
 */
#ifndef KERNELS_CUDA_CUDA_CUH
#define KERNELS_CUDA_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/cuda.h"

#define CUDA_FN static __device__ __forceinline__

typedef __nv_bfloat16 bf16;

CUDA_FN float get(const float *p)
{
    return *p;
}
CUDA_FN float get(const bf16 *p)
{
    return __bfloat162float(*p);
}
CUDA_FN float get(const __half *p)
{
    return __half2float(*p);
}
CUDA_FN void set(float *p, float x)
{
    *p = x;
}
CUDA_FN void set(bf16 *p, float x)
{
    *p = __float2bfloat16_rn(x);
}
CUDA_FN void set(__half *p, float x)
{
    *p = __float2half_rn(x);
}

/* Four neighbours at once; p is aligned to them. */
CUDA_FN float4 get4(const float *p)
{
    return *(const float4 *)p;
}
CUDA_FN float4 get4(const bf16 *p)
{
    const uint2 raw = *(const uint2 *)p;
    const float2 a = __bfloat1622float2(*(const __nv_bfloat162 *)&raw.x);
    const float2 b = __bfloat1622float2(*(const __nv_bfloat162 *)&raw.y);
    return make_float4(a.x, a.y, b.x, b.y);
}
CUDA_FN float4 get4(const __half *p)
{
    const uint2 raw = *(const uint2 *)p;
    const float2 a = __half22float2(*(const __half2 *)&raw.x);
    const float2 b = __half22float2(*(const __half2 *)&raw.y);
    return make_float4(a.x, a.y, b.x, b.y);
}
CUDA_FN void set4(float *p, float4 x)
{
    *(float4 *)p = x;
}
CUDA_FN void set4(bf16 *p, float4 x)
{
    uint2 raw;
    *(__nv_bfloat162 *)&raw.x = __floats2bfloat162_rn(x.x, x.y);
    *(__nv_bfloat162 *)&raw.y = __floats2bfloat162_rn(x.z, x.w);
    *(uint2 *)p = raw;
}
CUDA_FN void set4(__half *p, float4 x)
{
    uint2 raw;
    *(__half2 *)&raw.x = __floats2half2_rn(x.x, x.y);
    *(__half2 *)&raw.y = __floats2half2_rn(x.z, x.w);
    *(uint2 *)p = raw;
}

CUDA_FN float warp_sum(float x)
{
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, i);
    return x;
}

CUDA_FN float warp_max(float x)
{
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, i));
    return x;
}

CUDA_FN float silu(float x)
{
    return x / (1.0f + expf(-x));
}

/* By the chip's own 2^x and 1 / x, whose error is far below what a half can tell. */
CUDA_FN float silu_of_half(float x)
{
    float e, r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * -1.4426950409f));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + e));
    return x * r;
}

/* What the VAE's norm multiplies a row by: sq is the sum of its squares, root the square root of
 * their number. */
CUDA_FN float l2_scale(float root, float sq)
{
    return root * fminf(rsqrtf(sq), 1e12f);
}

/* gelu_tanh: 0.5 (1 + tanh(u)) is the sigmoid of 2u. */
CUDA_FN float gelu(float x)
{
    return x / (1.0f + expf(-1.5957691216f * (x + 0.044715f * x * x * x)));
}

/* Runs `call` with the C type of a dtype under the name T. */
#define BY_TYPE(dtype, T, ...)                                                                     \
    do {                                                                                           \
        if ((dtype) == DTYPE_F32) {                                                                \
            typedef float T;                                                                       \
            __VA_ARGS__;                                                                           \
        } else if ((dtype) == DTYPE_BF16) {                                                        \
            typedef bf16 T;                                                                        \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            typedef __half T;                                                                      \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

/* Of the four neighbouring lanes that share a row of a matrix unit's result. */
CUDA_FN float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

CUDA_FN float quad_sum(float x)
{
    x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

static inline unsigned n_blocks(int64_t n, int64_t per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

#endif
