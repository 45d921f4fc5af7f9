/* conv_sm90.cu - causal 3-D convolution in fp16 as an implicit matrix product on wgmma.
 *
 * A tile is 16 x 16 pixels of one output frame by N output channels. The inputs under it, with the
 * rim that the spatial taps need, are brought once a frame and chunk of channels by the tensor
 * copy, which fills what lies outside the picture with zeros; every tap then multiplies the same
 * buffer, read from another first row. A wgmma's 64 rows are 8 x 8 pixels: 8 rows of 8 pixels, one
 * buffer row apart. Past frames are read where they lie: nothing is padded, joined or copied.
 *
 * Doubling a picture and convolving it by 3 x 3 is, for the output pixels of each of four phases
 * (even or odd row and column), a 2 x 2 convolution of the picture itself, with taps that are sums
 * of the nine: four ninths of the work, and nothing is doubled in memory.
 *
 * Two warpgroups own two blocks of 64 pixels each, a third one only loads.
 */
#include <cuda_fp16.h>

#include "kernels/cuda/conv_plan.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ptx.cuh"

enum {
    CONSUMERS = 2,
    BLOCKS = 2, /* of 64 pixels, a warpgroup */
    THREADS = 128 * (1 + CONSUMERS),
    TILE = CONV_TILE,
    STAGES_MAX = 8
};

struct conv_args {
    CUtensorMap x, past, w;
    struct conv_plan p;
    void *y;
    const float *bias;
    const __half *residual; /* or NULL */
};

/* How one kind of tile lies in shared memory: C channels a chunk, N outputs, K x K taps, TAPS of
 * them a stage of weights. */
template <int C, int N, int K, int TAPS> struct shape {
    static constexpr int row_bytes = 2 * C;
    static constexpr int side = TILE + K - 1;
    static constexpr int halo_bytes = side * side * row_bytes;
    static constexpr int halo_room = (halo_bytes + 1023) / 1024 * 1024;
    static constexpr int tap_bytes = N * row_bytes;
    static constexpr int tap_room = (tap_bytes + 1023) / 1024 * 1024;
    static constexpr int stage_room = TAPS * tap_room;
    static constexpr int halos = 2;
    static constexpr int room = 220 * 1024 - halos * halo_room;
    static constexpr int stages = room / stage_room < STAGES_MAX ? room / stage_room : STAGES_MAX;
    static constexpr int smem_bytes = 1024 + halos * halo_room + stages * stage_room;
    static constexpr int groups = K * K / TAPS; /* stages a halo */
    static_assert(K * K % TAPS == 0 && stages >= 2, "tile");
};

struct conv_barriers {
    uint64_t halo_full[2], halo_empty[2], w_full[STAGES_MAX], w_empty[STAGES_MAX];
};

struct counter {
    int at;
    uint32_t phase;
};

template <int N> PTX_FN void count(struct counter *c)
{
    if (++c->at == N) {
        c->at = 0;
        c->phase ^= 1;
    }
}

/* --- the loading warp ------------------------------------------------------------------------- */

template <int C, int N, int K, int TAPS>
PTX_FN void load_all(const struct conv_args *a, struct conv_barriers *b, unsigned char *halo,
                     unsigned char *weights)
{
    typedef struct shape<C, N, K, TAPS> sh;
    const struct conv_plan *p = &a->p;
    struct counter h = {0, 0}, w = {0, 0};
    tma_prefetch(&a->x);
    tma_prefetch(&a->past);
    tma_prefetch(&a->w);
    for (int tile = (int)blockIdx.x; tile < p->n_tiles; tile += (int)gridDim.x) {
        const struct conv_tile t = conv_tile_at(p, tile);
        for (int kt = 0; kt < p->kt; kt++) {
            const int frame = t.frame + kt - (p->kt - 1); /* negative: past */
            for (int c = 0; c < p->n_in; c += C) {
                barrier_wait(&b->halo_empty[h.at], h.phase ^ 1);
                barrier_expect(&b->halo_full[h.at], sh::halo_bytes);
                tma_load_4d(halo + h.at * sh::halo_room, frame < 0 ? &a->past : &a->x,
                            &b->halo_full[h.at], c, t.col - K / 2 + t.phase % 2,
                            t.row - K / 2 + t.phase / 2, frame < 0 ? frame + p->kt - 1 : frame);
                count<2>(&h);
                for (int g = 0; g < sh::groups; g++) {
                    barrier_wait(&b->w_empty[w.at], w.phase ^ 1);
                    barrier_expect(&b->w_full[w.at], TAPS * sh::tap_bytes);
                    for (int i = 0; i < TAPS; i++)
                        tma_load_2d(weights + w.at * sh::stage_room + i * sh::tap_room, &a->w,
                                    &b->w_full[w.at], (kt * K * K + g * TAPS + i) * p->n_in + c,
                                    t.phase * p->n_out + t.out);
                    count<sh::stages>(&w);
                }
            }
        }
    }
}

/* --- the two warpgroups that compute ---------------------------------------------------------- */

/* One stage of weights. halo: of the warpgroup's first block. Not waited for. */
template <int C, int N, int K, int TAPS>
PTX_FN void issue(float (&acc)[BLOCKS][N / 2], uint32_t halo, uint32_t weights, int group, int adds)
{
    typedef struct shape<C, N, K, TAPS> sh;
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < TAPS; i++) {
        const int tap = group * TAPS + i;
        const uint32_t from = halo + (uint32_t)(tap / K * sh::side + tap % K) * sh::row_bytes;
#pragma unroll
        for (int k = 0; k < C / 16; k++) {
            const uint64_t w = wgmma_desc<sh::row_bytes>(weights + i * sh::tap_room + 32 * k, 16,
                                                         8 * sh::row_bytes);
#pragma unroll
            for (int m = 0; m < BLOCKS; m++)
                wgmma_ss_f16(acc[m],
                             wgmma_desc<sh::row_bytes>(from + m * 8 * sh::row_bytes + 32 * k, 16,
                                                       sh::side * sh::row_bytes),
                             w, adds || i > 0 || k > 0);
        }
    }
    wgmma_commit();
}

/* Two neighbours of a row, or the last one alone. Rows of an odd length are not aligned to two. */
PTX_FN void put(__half *y, float a, float b, int left)
{
    if (left > 1 && ((uintptr_t)y & 3) == 0) {
        *(__half2 *)y = __floats2half2_rn(a, b);
    } else {
        y[0] = __float2half_rn(a);
        if (left > 1) y[1] = __float2half_rn(b);
    }
}

PTX_FN void put(float *y, float a, float b, int left)
{
    y[0] = a;
    if (left > 1) y[1] = b;
}

/* acc + bias (+ residual). A warpgroup's blocks lie side by side; group 1 is 8 rows further down.
 * Some of a row's residual is read before any of that is written: y may be the residual, so the
 * compiler would else wait for each. */
template <int N, class OUT>
PTX_FN void store(const struct conv_args *a, const struct conv_tile *t, int group,
                  const float (&acc)[BLOCKS][N / 2])
{
    const struct conv_plan *p = &a->p;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32 % 4;
    const int grow = p->phases == 4 ? 2 : 1;
#pragma unroll
    for (int m = 0; m < BLOCKS; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = warp * 16 + lane / 4 + 8 * h; /* of 64: 8 rows of 8 pixels */
            const int row = t->row + group * 8 + r / 8, col = t->col + m * 8 + r % 8;
            if (row >= p->rows || col >= p->cols) continue;
            const int64_t at =
                (((int64_t)t->frame * p->rows * grow + row * grow + t->phase / 2) * p->cols * grow +
                 col * grow + t->phase % 2) *
                    p->n_out +
                t->out;
            OUT *y = (OUT *)a->y + at;
            constexpr int some = N / 8 > 12 ? 8 : N / 8; /* as many as registers hold */
#pragma unroll
            for (int first = 0; first < N / 8; first += some) {
                uint32_t add[some]; /* two halves */
#pragma unroll
                for (int i = 0; i < some; i++) {
                    const int c = 8 * (first + i) + lane % 4 * 2;
                    add[i] = a->residual && c + 1 < p->n_out - t->out
                                 ? *(const uint32_t *)(a->residual + at + c)
                                 : 0;
                }
#pragma unroll
                for (int i = 0; i < some; i++) {
                    const int c = 8 * (first + i) + lane % 4 * 2, left = p->n_out - t->out - c;
                    if (left <= 0) continue;
                    const float b0 = __ldg(a->bias + t->out + c);
                    const float b1 = left > 1 ? __ldg(a->bias + t->out + c + 1) : 0.0f;
                    const float2 more = __half22float2(*(const __half2 *)&add[i]);
                    put(y + c, acc[m][4 * (first + i) + 2 * h] + b0 + more.x,
                        acc[m][4 * (first + i) + 2 * h + 1] + b1 + more.y, left);
                }
            }
        }
    }
}

template <int C, int N, int K, int TAPS, class OUT>
PTX_FN void compute_all(const struct conv_args *a, struct conv_barriers *b, unsigned char *halo,
                        unsigned char *weights, int group)
{
    typedef struct shape<C, N, K, TAPS> sh;
    const struct conv_plan *p = &a->p;
    const bool speaks = threadIdx.x % 128 == 0;
    const uint32_t mine = (uint32_t)(group * 8 * sh::side) * sh::row_bytes;
    const uint32_t halo0 = smem_of(halo) + mine, w0 = smem_of(weights);
    const int n_steps = p->kt * (p->n_in / C) * sh::groups;
    struct counter h = {0, 0}, w = {0, 0};
    for (int tile = (int)blockIdx.x; tile < p->n_tiles; tile += (int)gridDim.x) {
        const struct conv_tile t = conv_tile_at(p, tile);
        float acc[BLOCKS][N / 2];
        int g = 0, w_before = 0, h_before = 0;
        /* The first step; what the later ones wait for is one step behind. */
        barrier_wait(&b->halo_full[h.at], h.phase);
        barrier_wait(&b->w_full[w.at], w.phase);
        issue<C, N, K, TAPS>(acc, halo0 + h.at * sh::halo_room, w0 + w.at * sh::stage_room, 0, 0);
#pragma unroll 1
        for (int s = 1; s < n_steps; s++) {
            w_before = w.at;
            h_before = -1;
            count<sh::stages>(&w);
            if (++g == sh::groups) {
                g = 0;
                h_before = h.at;
                count<2>(&h);
                barrier_wait(&b->halo_full[h.at], h.phase);
            }
            barrier_wait(&b->w_full[w.at], w.phase);
            issue<C, N, K, TAPS>(acc, halo0 + h.at * sh::halo_room, w0 + w.at * sh::stage_room, g,
                                 1);
            wgmma_wait<1>();
            if (speaks) {
                barrier_arrive(&b->w_empty[w_before]);
                if (h_before >= 0) barrier_arrive(&b->halo_empty[h_before]);
            }
        }
        wgmma_wait<0>();
        wgmma_hold(acc[0]);
        wgmma_hold(acc[1]);
        if (speaks) {
            barrier_arrive(&b->w_empty[w.at]);
            barrier_arrive(&b->halo_empty[h.at]);
        }
        count<sh::stages>(&w);
        count<2>(&h);
        store<N, OUT>(a, &t, group, acc);
    }
}

template <int C, int N, int K, int TAPS, class OUT>
__global__ static void __launch_bounds__(THREADS, 1)
    k_conv(const __grid_constant__ struct conv_args a)
{
    typedef struct shape<C, N, K, TAPS> sh;
    extern __shared__ __align__(1024) unsigned char smem[];
    struct conv_barriers *b = (struct conv_barriers *)smem;
    unsigned char *halo = smem + 1024, *weights = halo + sh::halos * sh::halo_room;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            barrier_init(&b->halo_full[i], 1);
            barrier_init(&b->halo_empty[i], CONSUMERS);
        }
        for (int i = 0; i < sh::stages; i++) {
            barrier_init(&b->w_full[i], 1);
            barrier_init(&b->w_empty[i], CONSUMERS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    const int group = (int)threadIdx.x / 128;
    if (group == 0) {
        registers_fewer<40>();
        if (threadIdx.x == 0) load_all<C, N, K, TAPS>(&a, b, halo, weights);
    } else {
        registers_more<232>();
        compute_all<C, N, K, TAPS, OUT>(&a, b, halo, weights, group - 1);
    }
}

template <int C, int N, int K, int TAPS, class OUT>
static err_t launch(struct dev *d, const struct conv_args *a)
{
    typedef struct shape<C, N, K, TAPS> sh;
    const cudaError_t ce = cudaFuncSetAttribute(
        k_conv<C, N, K, TAPS, OUT>, cudaFuncAttributeMaxDynamicSharedMemorySize, sh::smem_bytes);
    if (ce != cudaSuccess) return cuda_failed(ce, "conv3d");
    k_conv<C, N, K, TAPS, OUT>
        <<<(unsigned)a->p.n_ctas, THREADS, sh::smem_bytes, cuda_stream(d)>>>(*a);
    return cuda_launched("conv3d");
}

extern "C" err_t cuda_conv_sm90(struct dev *d, const struct conv_plan *p, const CUtensorMap *x,
                                const CUtensorMap *past, const CUtensorMap *w, void *y,
                                const float *bias, const void *residual, int is_f32)
{
    struct conv_args a;
    a.x = *x;
    a.past = *past;
    a.w = *w;
    a.p = *p;
    a.y = y;
    a.bias = bias;
    a.residual = (const __half *)residual;
    if (p->k == 1 && p->chunk == 64 && p->n == 192) return launch<64, 192, 1, 1, __half>(d, &a);
    if (p->k == 3 && p->chunk == 64 && p->n == 192) return launch<64, 192, 3, 1, __half>(d, &a);
    if (p->k == 2 && p->chunk == 64 && p->n == 192) return launch<64, 192, 2, 1, __half>(d, &a);
    if (p->k == 2 && p->chunk == 64 && p->n == 96) return launch<64, 96, 2, 2, __half>(d, &a);
    if (p->k == 3 && p->chunk == 16 && p->n == 192) return launch<16, 192, 3, 3, __half>(d, &a);
    if (p->k == 3 && p->chunk == 64 && p->n == 96) return launch<64, 96, 3, 3, __half>(d, &a);
    if (p->k == 3 && p->chunk == 32 && p->n == 96) return launch<32, 96, 3, 3, __half>(d, &a);
    if (p->k == 3 && p->chunk == 32 && p->n == 8)
        return is_f32 ? launch<32, 8, 3, 9, float>(d, &a) : launch<32, 8, 3, 9, __half>(d, &a);
    return FAIL(ERR_BUG, "conv3d: no kernel for k %d, chunk %d, n %d", p->k, p->chunk, p->n);
}
