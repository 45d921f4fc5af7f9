/* math.h - exp and what stands on it, written so that a loop over them becomes vector code.
 *
 * libm's are calls, and without fast-math a loop around a call stays scalar.
 */
#ifndef KERNELS_CPU_MATH_H
#define KERNELS_CPU_MATH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline float cpu_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t cpu_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* is ? a : b in bits: a comparison that is a value and no branch leaves the loop vectorisable,
 * where the plain form does not, as the compiler must keep the traps of the side not taken. */
static inline float cpu_select(int is, float a, float b)
{
    const uint32_t mask = 0u - (uint32_t)is;
    return cpu_of_bits((cpu_bits(a) & mask) | (cpu_bits(b) & ~mask));
}

/* x rounded to what bf16 holds, to nearest, ties to even; NaN stays. */
static inline float cpu_bf16(float x)
{
    const uint32_t bits = cpu_bits(x);
    const float y = cpu_of_bits((bits + 0x7FFFu + (bits >> 16 & 1u)) & 0xFFFF0000u);
    return cpu_select(x == x, y, x);
}

/* What ops.h calls keep. is_bf16 does not change within a loop, which is then made twice. */
static inline float keep(float x, bool is_bf16)
{
    return is_bf16 ? cpu_bf16(x) : x;
}

/* e^x, relative error < 2e-7; below -87.33, where floats end, 0; above 88.72, infinity; NaN stays.
 * x = n ln 2 + r, |r| <= ln 2 / 2; e^r is the polynomial of Cephes' expf (Moshier 1989). */
static inline float cpu_exp(float x)
{
    /* Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits. */
    const float magic = 12582912.0f;
    const float t = __builtin_fmaf(x, 1.44269504f, magic);
    const float n = t - magic;
    float r = __builtin_fmaf(n, -0.693359375f, x);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p, r * r, r) + 1.0f;
    /* 2^n in two factors: 2^128 is no float, but e^88.7 is. */
    const int32_t whole = (int32_t)(cpu_bits(t) - cpu_bits(magic));
    const int32_t half = whole >> 1;
    const uint32_t a = (uint32_t)half, b = (uint32_t)whole - (uint32_t)half;
    const float y = p * cpu_of_bits((a + 127u) << 23) * cpu_of_bits((b + 127u) << 23);
    return cpu_select(x > 88.72283f, __builtin_inff(), cpu_select(x < -87.33654f, 0.0f, y));
}

static inline float cpu_silu1(float x)
{
    return x / (1.0f + cpu_exp(-x));
}

/* gelu_tanh: 0.5 (1 + tanh(u)) is the sigmoid of 2u, which loses nothing where tanh nears -1. */
static inline float cpu_gelu1(float x)
{
    const float u2 = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2/pi) */
    return x / (1.0f + cpu_exp(-u2));
}

/* --- reductions: 16 lanes in a fixed order, the same wherever the row lies ------------------- */

enum { CPU_LANES = 16 };

static inline float cpu_fold(const float *lane)
{
    float sum = 0.0f;
    for (int32_t i = 0; i < CPU_LANES; i++) sum += lane[i];
    return sum;
}

static inline float cpu_sum(const float *x, int64_t n)
{
    float lane[CPU_LANES] = {0};
    int64_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        for (int32_t l = 0; l < CPU_LANES; l++) lane[l] += x[i + l];
    for (int32_t l = 0; i < n; i++, l++) lane[l] += x[i];
    return cpu_fold(lane);
}

/* sum of (x[i] - center)^2 */
static inline float cpu_sum_sq(const float *x, int64_t n, float center)
{
    float lane[CPU_LANES] = {0};
    int64_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        for (int32_t l = 0; l < CPU_LANES; l++)
            lane[l] += (x[i + l] - center) * (x[i + l] - center);
    for (int32_t l = 0; i < n; i++, l++) lane[l] += (x[i] - center) * (x[i] - center);
    return cpu_fold(lane);
}

/* NaN is passed over. n > 0. */
static inline float cpu_largest(const float *x, int64_t n)
{
    float lane[CPU_LANES];
    int64_t i = 0;
    for (int32_t l = 0; l < CPU_LANES; l++) lane[l] = -__builtin_inff();
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        for (int32_t l = 0; l < CPU_LANES; l++)
            lane[l] = cpu_select(x[i + l] > lane[l], x[i + l], lane[l]);
    for (int32_t l = 0; i < n; i++, l++) lane[l] = x[i] > lane[l] ? x[i] : lane[l];
    float m = lane[0];
    for (int32_t l = 1; l < CPU_LANES; l++) m = lane[l] > m ? lane[l] : m;
    return m;
}

#endif
