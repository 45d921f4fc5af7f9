/* chunk.cuh - sixteen bytes at once: what a lane moves where memory is the limit. */
#ifndef KERNELS_CUDA_CHUNK_CUH
#define KERNELS_CUDA_CHUNK_CUH

#include "kernels/cuda/cuda.cuh"

/* N elements of T in 16 bytes. */
template <class T> struct chunk {
    enum { N = 16 / sizeof(T) };
};

CUDA_FN uint4 zeros(void)
{
    return make_uint4(0, 0, 0, 0);
}

/* A word of two halves, the first below. It stays a word for as long as it can: halves that are
 * taken out through memory are taken out where they are loaded, and wait there. */
CUDA_FN float2 of_two(const bf16 *, uint32_t word)
{
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u));
}
CUDA_FN float2 of_two(const __half *, uint32_t word)
{
    return __half22float2(*(const __half2 *)&word);
}

template <class T> CUDA_FN void unpack(float (&f)[chunk<T>::N], uint4 raw)
{
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (chunk<T>::N == 4) {
            f[i] = __uint_as_float(word[i]);
        } else {
            const float2 v = of_two((const T *)NULL, word[i]);
            f[2 * i] = v.x;
            f[2 * i + 1] = v.y;
        }
    }
}

CUDA_FN uint32_t two(const bf16 *, float a, float b)
{
    const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *(const uint32_t *)&v;
}
CUDA_FN uint32_t two(const __half *, float a, float b)
{
    const __half2 v = __floats2half2_rn(a, b);
    return *(const uint32_t *)&v;
}

template <class T> CUDA_FN uint4 pack(const float (&f)[chunk<T>::N])
{
    if constexpr (chunk<T>::N == 4) {
        return make_uint4(__float_as_uint(f[0]), __float_as_uint(f[1]), __float_as_uint(f[2]),
                          __float_as_uint(f[3]));
    } else {
        const T *const type = NULL;
        return make_uint4(two(type, f[0], f[1]), two(type, f[2], f[3]), two(type, f[4], f[5]),
                          two(type, f[6], f[7]));
    }
}

/* One store, where an assignment may be taken apart into four. */
CUDA_FN void put_chunk(void *p, uint4 v)
{
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
                 "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w));
}

/* To a place aligned to them all. */
template <int N, class Y> CUDA_FN void put(Y *p, const float (&f)[N])
{
    if constexpr (N == chunk<Y>::N) {
        put_chunk(p, pack<Y>(f));
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4) set4(p + i, make_float4(f[i], f[i + 1], f[i + 2], f[i + 3]));
    }
}

/* Of f32 that nobody writes meanwhile. */
template <int N> CUDA_FN void get_floats(float (&f)[N], const float *p)
{
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        const float4 v = __ldg((const float4 *)(p + i));
        f[i] = v.x;
        f[i + 1] = v.y;
        f[i + 2] = v.z;
        f[i + 3] = v.w;
    }
}

/* Whether all of them start where a chunk may. */
static inline bool at_chunks(const void *a, const void *b, const void *c, const void *d)
{
    return ((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d) % 16 == 0;
}

#endif
