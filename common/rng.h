/* rng.h - normal numbers from a counter: the same bits on every device.
 *
 * A number is a pure function of (key, index): Philox 4x32-10 (Salmon et al. 2011, "Parallel
 * random numbers: as easy as 1, 2, 3", section 3.3) gives 128 bits for a counter, and Box-Muller
 * turns two 32-bit words into two normals. Logarithm, sine and cosine are polynomials written in
 * explicit fma, and the square root is IEEE's, so there is no libm in the result: whoever compiles
 * this header without contraction and without fast-math, C or CUDA, gets the same bits.
 *
 * Header only: the CPU backend and the CUDA kernels compile the same lines.
 */
#ifndef COMMON_RNG_H
#define COMMON_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define RNG_FN static __host__ __device__ __forceinline__
#define RNG_SQRT(x) sqrtf(x)
#define RNG_FMA(a, b, c) fmaf((a), (b), (c))
#ifdef __CUDA_ARCH__
#define RNG_CLZ(v) __clzll((long long)(v))
#else
#define RNG_CLZ(v) __builtin_clzll(v) /* the host half of a CUDA file */
#endif
#else
#define RNG_FN static inline
#define RNG_SQRT(x) __builtin_sqrtf(x)
#define RNG_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#define RNG_CLZ(v) __builtin_clzll(v)
#endif

/* Names a sequence of numbers. */
struct rng_key {
    uint64_t seed;
    uint64_t stream; /* which sequence of this seed: a tensor's name, or RNG_NOISE(...) */
};

struct rng_words {
    uint32_t w[4];
};

struct rng_pair {
    float a, b;
};

struct rng_four {
    float z[4];
};

RNG_FN struct rng_words rng_philox(struct rng_key key, uint64_t at)
{
    uint32_t c0 = (uint32_t)at, c1 = (uint32_t)(at >> 32);
    uint32_t c2 = (uint32_t)key.stream, c3 = (uint32_t)(key.stream >> 32);
    uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const struct rng_words r = {{c0, c1, c2, c3}};
    return r;
}

/* ln(u) for u = (w + 1) / 2^32, w a 32-bit word: u in (0, 1]. Absolute error < 1.5e-6: half a unit
 * in the last place at |ln u| up to 22.2, and of u only the 24 leading bits. */
RNG_FN float rng_log_unit(uint32_t w)
{
    /* u = m * 2^e with m in [0.75, 1.5): ln u = e ln 2 + ln m, ln m = 2 atanh((m-1)/(m+1)). */
    const uint64_t v = (uint64_t)w + 1;                             /* 1 .. 2^32 */
    const int zeros = RNG_CLZ(v);                                   /* 31 .. 63 */
    const uint32_t mant = (uint32_t)((v << (zeros - 31)) >> 9);     /* 24 bits, the top one set */
    const float m1 = (float)(int32_t)mant * 1.1920928955078125e-7f; /* [1, 2) */
    const int is_high = m1 >= 1.5f;
    const float m = is_high ? 0.5f * m1 : m1;
    const float e = (float)(31 - zeros + is_high);
    const float s = (m - 1.0f) / (m + 1.0f); /* [-1/7, 1/5] */
    const float s2 = s * s;
    float p = 0.11111111f;
    p = RNG_FMA(p, s2, 0.14285715f);
    p = RNG_FMA(p, s2, 0.2f);
    p = RNG_FMA(p, s2, 0.33333334f);
    p = RNG_FMA(p, s2, 1.0f);
    return RNG_FMA(e, 0.6931472f, 2.0f * s * p);
}

/* cos and sin of 2 pi w / 2^32. Absolute error < 2e-7. */
RNG_FN struct rng_pair rng_cos_sin(uint32_t w)
{
    /* An octant either side of a quarter turn: angle = quarter * pi/2 + x, |x| <= pi/4. */
    const uint32_t quarter = ((w >> 29) + 1) >> 1;
    const int32_t rest = (int32_t)(w - (quarter << 30));  /* [-2^29, 2^29) */
    const float x = (float)rest * 1.4629180792671596e-9f; /* 2 pi / 2^32 */
    const float x2 = x * x;
    float s = 2.7557319e-6f;
    s = RNG_FMA(s, x2, -1.9841270e-4f);
    s = RNG_FMA(s, x2, 8.3333333e-3f);
    s = RNG_FMA(s, x2, -0.16666667f);
    s = RNG_FMA(s * x2, x, x);
    float c = 2.4801587e-5f;
    c = RNG_FMA(c, x2, -1.3888889e-3f);
    c = RNG_FMA(c, x2, 4.1666668e-2f);
    c = RNG_FMA(c, x2, -0.5f);
    c = RNG_FMA(c, x2, 1.0f);
    /* Quarter turns: (c, s), (-s, c), (-c, -s), (s, -c). */
    const float a = (quarter & 1u) ? s : c, b = (quarter & 1u) ? c : s;
    struct rng_pair r;
    r.a = ((quarter + 1) & 2u) ? -a : a;
    r.b = (quarter & 2u) ? -b : b;
    return r;
}

RNG_FN struct rng_pair rng_box_muller(uint32_t w0, uint32_t w1)
{
    const float radius = RNG_SQRT(-2.0f * rng_log_unit(w0));
    struct rng_pair r = rng_cos_sin(w1);
    r.a = radius * r.a;
    r.b = radius * r.b;
    return r;
}

/* Number `index` of the sequence, N(0, 1). */
RNG_FN float rng_normal(struct rng_key key, uint64_t index)
{
    const struct rng_words r = rng_philox(key, index >> 2);
    const struct rng_pair z =
        (index & 2u) ? rng_box_muller(r.w[2], r.w[3]) : rng_box_muller(r.w[0], r.w[1]);
    return (index & 1u) ? z.b : z.a;
}

/* Numbers 4*block to 4*block + 3: the same bits for a quarter of the work. */
RNG_FN struct rng_four rng_normal4(struct rng_key key, uint64_t block)
{
    const struct rng_words r = rng_philox(key, block);
    const struct rng_pair p = rng_box_muller(r.w[0], r.w[1]), q = rng_box_muller(r.w[2], r.w[3]);
    const struct rng_four four = {{p.a, p.b, q.a, q.b}};
    return four;
}

/* The sequence of a name: FNV-1a, 64 bits. */
RNG_FN uint64_t rng_stream(const char *name)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 0x100000001B3u;
    return h;
}

#endif
