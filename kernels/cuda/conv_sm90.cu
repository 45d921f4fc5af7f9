/* conv_sm90.cu - causal 3-D convolution in fp16 as an implicit matrix product on wgmma.
 *
 * A tile is 16 rows of pixels of one output frame by N output channels. The inputs under it, with
 * the rim that the spatial taps need, are brought once a frame and chunk of channels by the tensor
 * copy, which fills what lies outside the picture with zeros; every tap then multiplies the same
 * buffer, read from another first row. A wgmma's 64 rows are 8 x 8 pixels: 8 rows of 8 pixels, one
 * buffer row apart. Past frames are read where they lie: nothing is padded, joined or copied.
 *
 * Doubling a picture and convolving it by 3 x 3 is, for the output pixels of each of four phases
 * (even or odd row and column), a 2 x 2 convolution of the picture itself, with taps that are sums
 * of the nine: four ninths of the work, and nothing is doubled in memory.
 *
 * Two warpgroups own the upper and the lower half of a tile, a third one only loads.
 *
 * Of three outputs or fewer a wgmma of a tap would read as much of shared memory as one of a
 * hundred. There all nine taps lie side by side: each input pixel is multiplied by all of them at
 * once, and an output is the sum of nine neighbours' products.
 */
#include <cuda_fp16.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/conv_plan.h"
#include "kernels/cuda/ptx.cuh"

enum {
    CONSUMERS = CONV_GROUPS,
    THREADS = 128 * (1 + CONSUMERS),
    STAGES_MAX = 8,
    HALOS_MAX = 3,
    SMEM_BYTES = 220 * 1024, /* to be shared out, after the barriers */
};

/* How one kind of tile lies in shared memory: C channels a chunk, N outputs, K x K taps, TAPS of
 * them a stage of weights, BLOCKS of 8 x 8 pixels a warpgroup. */
template <int C, int N, int K, int TAPS, int BLOCKS> struct shape {
    static constexpr int row_bytes = 2 * C;
    static constexpr int pitch = 8 * BLOCKS + K - 1; /* pixels */
    static constexpr int halo_bytes = (CONV_ROWS + K - 1) * pitch * row_bytes;
    static constexpr int halo_room = (halo_bytes + 1023) / 1024 * 1024;
    static constexpr int tap_bytes = N * row_bytes;
    static constexpr int tap_room = (tap_bytes + 1023) / 1024 * 1024;
    static constexpr int stage_room = TAPS * tap_room;
    static constexpr int halos =
        SMEM_BYTES - HALOS_MAX * halo_room >= 4 * stage_room ? HALOS_MAX : 2;
    static constexpr int room = SMEM_BYTES - halos * halo_room;
    static constexpr int stages = room / stage_room < STAGES_MAX ? room / stage_room : STAGES_MAX;
    static constexpr int smem_bytes = 1024 + halos * halo_room + stages * stage_room;
    static constexpr int groups = K * K / TAPS; /* stages a halo */
    static_assert(K * K % TAPS == 0 && stages >= 2, "tile");
};

struct conv_barriers {
    uint64_t halo_full[HALOS_MAX], halo_empty[HALOS_MAX], w_full[STAGES_MAX], w_empty[STAGES_MAX];
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

/* Unit `unit` of a tile: the inputs under it, into halo; k: of the taps that walk over them. */
PTX_FN void load_halo(const struct cuda_conv *a, const struct conv_tile *t, int unit, int k,
                      unsigned char *halo, uint64_t *full)
{
    const struct conv_plan *p = &a->p;
    const int n_chunks = p->n_in / p->chunk, kt = unit / n_chunks;
    const int frame = t->frame + kt - (p->kt - 1); /* negative: past */
    tma_load_4d(halo, frame < 0 ? &a->past : &a->x, full, unit % n_chunks * p->chunk,
                t->col - k / 2 + t->phase % 2, t->row - k / 2 + t->phase / 2,
                frame < 0 ? frame + p->kt - 1 : frame);
}

/* What the end of a tile will add: its rows, all their channels. */
PTX_FN void prefetch_residual(const struct cuda_conv *a, const struct conv_tile *t)
{
    const struct conv_plan *p = &a->p;
    if (!a->residual || t->out > 0) return;
    const int most = p->cols - t->col, n_cols = most < 8 * p->blocks ? most : 8 * p->blocks;
    for (int row = t->row; row < t->row + CONV_ROWS && row < p->rows; row++)
        l2_prefetch((const __half *)a->residual +
                        (((int64_t)t->frame * p->rows + row) * p->cols + t->col) * p->n_out,
                    (uint32_t)(n_cols * p->n_out * 2));
}

template <int C, int N, int K, int TAPS, int BLOCKS>
PTX_FN void load_all(const struct cuda_conv *a, struct conv_barriers *b, unsigned char *halo,
                     unsigned char *weights)
{
    typedef struct shape<C, N, K, TAPS, BLOCKS> sh;
    const struct conv_plan *p = &a->p;
    struct counter h = {0, 0}, w = {0, 0};
    struct conv_work work;
    tma_prefetch(&a->x);
    tma_prefetch(&a->past);
    tma_prefetch(&a->w);
    for (int i = 0; conv_work_at(p, (int)blockIdx.x, i, &work); i++) {
        const struct conv_tile t = conv_tile_at(p, work.tile);
        prefetch_residual(a, &t);
        for (int unit = work.first; unit < work.end; unit++) {
            barrier_wait(&b->halo_empty[h.at], h.phase ^ 1);
            barrier_expect(&b->halo_full[h.at], sh::halo_bytes);
            load_halo(a, &t, unit, K, halo + h.at * sh::halo_room, &b->halo_full[h.at]);
            count<sh::halos>(&h);
            const int n_chunks = p->n_in / C, kt = unit / n_chunks, c = unit % n_chunks * C;
            for (int g = 0; g < sh::groups; g++) {
                barrier_wait(&b->w_empty[w.at], w.phase ^ 1);
                barrier_expect(&b->w_full[w.at], TAPS * sh::tap_bytes);
                for (int tap = 0; tap < TAPS; tap++)
                    tma_load_2d(weights + w.at * sh::stage_room + tap * sh::tap_room, &a->w,
                                &b->w_full[w.at], (kt * K * K + g * TAPS + tap) * p->n_in + c,
                                t.phase * p->n_out + t.out);
                count<sh::stages>(&w);
            }
        }
    }
}

/* --- the two warpgroups that compute ---------------------------------------------------------- */

/* One stage of weights. halo: of the warpgroup's first block. Not waited for. */
template <int C, int N, int K, int TAPS, int BLOCKS>
PTX_FN void issue(float (&acc)[BLOCKS][N / 2], uint32_t halo, uint32_t weights, int group, int adds)
{
    typedef struct shape<C, N, K, TAPS, BLOCKS> sh;
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < TAPS; i++) {
        const int tap = group * TAPS + i;
        const uint32_t from = halo + (uint32_t)(tap / K * sh::pitch + tap % K) * sh::row_bytes;
#pragma unroll
        for (int k = 0; k < C / 16; k++) {
            const uint64_t w = wgmma_desc<sh::row_bytes>(weights + i * sh::tap_room + 32 * k, 16,
                                                         8 * sh::row_bytes);
#pragma unroll
            for (int m = 0; m < BLOCKS; m++)
                wgmma_ss_f16(acc[m],
                             wgmma_desc<sh::row_bytes>(from + m * 8 * sh::row_bytes + 32 * k, 16,
                                                       sh::pitch * sh::row_bytes),
                             w, adds || i > 0 || k > 0);
        }
    }
    wgmma_commit();
}

/* Of four neighbouring lanes, lane i's v[j] and lane j's v[i] change places. */
PTX_FN void quad_transpose(uint32_t (&v)[4])
{
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, odd ? v[i] : v[i + 1], 1);
        if (odd) v[i] = got;
        else v[i + 1] = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, high ? v[i] : v[i + 2], 2);
        if (high) v[i] = got;
        else v[i + 2] = got;
    }
}

/* Where a thread's pixels are written: a row of the accumulator is a pixel, and a thread holds two
 * of its channels of every eight. */
struct place {
    int64_t frame;          /* the frame's first element */
    uint32_t at;            /* from there to the first pixel and channel */
    int step_row, step_col; /* elements from row to row and from block to block */
    int n_rows, n_cols;     /* how many of both lie in the picture */
};

PTX_FN struct place place_of(const struct conv_plan *p, const struct conv_tile *t, int group)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32 % 4;
    const int grow = p->phases == 4 ? 2 : 1;
    const int row = t->row + group * 8 + warp * 2, col = t->col + lane / 4;
    struct place w;
    w.frame = (int64_t)t->frame * p->rows * grow * p->cols * grow * p->n_out;
    w.at = ((row * grow + t->phase / 2) * p->cols * grow + col * grow + t->phase % 2) * p->n_out +
           t->out;
    w.step_row = grow * grow * p->cols * p->n_out;
    w.step_col = 8 * grow * p->n_out;
    w.n_rows = p->rows - row;
    w.n_cols = (p->cols - col + 7) / 8;
    return w;
}

/* What ends a tile beside the bias. NORMS alone writes h alone; with ADDS y, too, if it is there.
 */
enum { ADDS = 1, NORMS = 2 };

/* A chunk of a pixel: lane q of four has channels 8 q to 8 q + 7 of each 32. */
template <int N, int BLOCKS> struct made {
    uint4 chunk[BLOCKS][2][N / 32];
};

/* What a pixel is multiplied by. The squares are summed up in the order of ops_l2_norm (norm.cu),
 * which shares a row of 96 out to four lanes in the same way, and one of 192 to eight, of whose
 * chunks a lane has every other one here: the same bits. */
template <int N> PTX_FN float scale_of(const uint4 (&chunk)[N / 32])
{
    constexpr int n_sums = N / 96;
    float sq[n_sums] = {}, f[8];
#pragma unroll
    for (int i = 0; i < N / 32; i++) {
        unpack<__half>(f, chunk[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) sq[i % n_sums] += f[j] * f[j];
    }
    float sum = sq[0];
    if (n_sums > 1) sum += sq[n_sums - 1];
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    return l2_scale(sqrtf((float)N), sum);
}

/* h = silu(norm(y)) of what was made of y. */
template <int N, int BLOCKS>
PTX_FN void store_normed(const struct cuda_conv *a, const struct place *w,
                         const struct made<N, BLOCKS> *made)
{
    const int q = (int)threadIdx.x % 4;
    __half *frame = (__half *)a->h + w->frame;
    float scale[BLOCKS][2];
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) scale[m][h] = scale_of<N>(made->chunk[m][h]);
#pragma unroll
    for (int i = 0; i < N / 32; i++) {
        float g[8], f[8];
        get_floats(g, a->gamma + 32 * i + 8 * q);
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                unpack<__half>(f, made->chunk[m][h][i]);
#pragma unroll
                for (int j = 0; j < 8; j++) f[j] = silu_of_half(f[j] * scale[m][h] * g[j]);
                if (h < w->n_rows && m < w->n_cols)
                    put(frame + (w->at + h * w->step_row + m * w->step_col + 32 * i + 8 * q), f);
            }
    }
}

/* acc + bias (+ residual), and its norm. Lanes trade channels so that each writes and reads 16
 * bytes at a place: lane q of four has channels 8 q to 8 q + 7 of 32. A step is 32 channels of a
 * pair of blocks, or of one where what is normed leaves no registers for two. Its residual is asked
 * for before the steps before it are written, which the compiler could not do: y may be the
 * residual. */
template <int N, int BLOCKS, int END>
PTX_FN void store(const struct cuda_conv *a, const struct conv_tile *t, int group,
                  const float (&acc)[BLOCKS][N / 2])
{
    constexpr bool adds = END & ADDS, norms = END & NORMS;
    constexpr int side = BLOCKS == 1 || (norms && BLOCKS * N > 192) ? 1 : 2, n_m = BLOCKS / side;
    constexpr int n_steps = n_m * (N / 32), n_ahead = side < BLOCKS ? 2 : 1;
    const struct place w = place_of(&a->p, t, group);
    const bool writes = !norms || (adds && a->y);
    const int q = (int)threadIdx.x % 4;
    __half *y = (__half *)a->y + w.frame;
    const __half *residual = (const __half *)a->residual + w.frame;
    uint4 add[n_ahead][side][2] = {};
    struct made<N, BLOCKS> made;
    auto ask = [&](int step) {
        const int c = step / n_m * 32 + 8 * q;
#pragma unroll
        for (int i = 0; i < side; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int m = step % n_m * side + i;
                if (h < w.n_rows && m < w.n_cols)
                    add[step % n_ahead][i][h] =
                        *(const uint4 *)(residual + (w.at + h * w.step_row + m * w.step_col + c));
            }
    };
    if (adds) ask(0);
#pragma unroll
    for (int step = 0; step < n_steps; step++) {
        const int c = step / n_m * 32, m0 = step % n_m * side;
        uint32_t v[side][2][4];
        float2 b[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            b[j] = __ldg((const float2 *)(a->bias + t->out + c + 8 * j + 2 * q));
#pragma unroll
        for (int i = 0; i < side; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint4 raw = add[step % n_ahead][i][h];
                uint32_t more[4] = {raw.x, raw.y, raw.z, raw.w};
                if (adds) quad_transpose(more);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float *s = &acc[m0 + i][4 * (c / 8 + j) + 2 * h];
                    float2 sum = make_float2(s[0] + b[j].x, s[1] + b[j].y);
                    if (adds) {
                        const float2 r = __half22float2(*(const __half2 *)&more[j]);
                        sum = make_float2(sum.x + r.x, sum.y + r.y);
                    }
                    v[i][h][j] = two((const __half *)NULL, sum.x, sum.y);
                }
            }
#pragma unroll
        for (int next = step ? step + n_ahead : 1; next <= step + n_ahead; next++)
            if (adds && next < n_steps) ask(next);
#pragma unroll
        for (int i = 0; i < side; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                quad_transpose(v[i][h]);
                const uint4 out = make_uint4(v[i][h][0], v[i][h][1], v[i][h][2], v[i][h][3]);
                if (norms) made.chunk[m0 + i][h][c / 32] = out;
                if (writes && h < w.n_rows && m0 + i < w.n_cols)
                    *(uint4 *)(y + (w.at + h * w.step_row + (m0 + i) * w.step_col + c + 8 * q)) =
                        out;
            }
    }
    if (norms) store_normed(a, &w, &made);
}

/* --- a tile in parts -------------------------------------------------------------------------- */

/* A warpgroup's share of a part, four of a thread's numbers after another. */
template <int N, int BLOCKS>
PTX_FN float4 *part_of(const struct cuda_conv *a, const struct conv_work *work, int part, int group)
{
    const int at = (work->cut * (a->p.n_parts - 1) + part) * CONSUMERS + group;
    return (float4 *)a->parts + (int64_t)at * BLOCKS * N / 8 * 128 + threadIdx.x % 128;
}

PTX_FN uint32_t *flag_of(const struct cuda_conv *a, const struct conv_work *work, int part,
                         int group)
{
    return a->flags + (work->cut * (a->p.n_parts - 1) + part) * CONSUMERS + group;
}

template <int N, int BLOCKS>
PTX_FN void leave_part(const struct cuda_conv *a, const struct conv_work *work, int group,
                       const float (&acc)[BLOCKS][N / 2])
{
    float4 *to = part_of<N, BLOCKS>(a, work, work->part, group);
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int i = 0; i < N / 8; i++)
            __stcg(to + (m * N / 8 + i) * 128, make_float4(acc[m][4 * i], acc[m][4 * i + 1],
                                                           acc[m][4 * i + 2], acc[m][4 * i + 3]));
    __threadfence();
    named_sync(1 + group, 128);
    if (threadIdx.x % 128 == 0) flag_raise(flag_of(a, work, work->part, group));
}

/* All parts but the last, which is acc. */
template <int N, int BLOCKS>
PTX_FN void take_parts(const struct cuda_conv *a, const struct conv_work *work, int group,
                       float (&acc)[BLOCKS][N / 2])
{
    constexpr int some = 4; /* as many as registers hold */
    static_assert(N / 8 % some == 0, "parts");
#pragma unroll 1
    for (int part = 0; part < a->p.n_parts - 1; part++) {
        if (threadIdx.x % 128 == 0) flag_take(flag_of(a, work, part, group));
        named_sync(1 + group, 128);
        const float4 *from = part_of<N, BLOCKS>(a, work, part, group);
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int first = 0; first < N / 8; first += some) {
                float4 v[some];
#pragma unroll
                for (int i = 0; i < some; i++) v[i] = __ldcg(from + (m * N / 8 + first + i) * 128);
#pragma unroll
                for (int i = 0; i < some; i++) {
                    float *s = &acc[m][4 * (first + i)];
                    s[0] += v[i].x;
                    s[1] += v[i].y;
                    s[2] += v[i].z;
                    s[3] += v[i].w;
                }
            }
    }
}

template <int C, int N, int K, int TAPS, int BLOCKS, int END>
PTX_FN void compute_all(const struct cuda_conv *a, struct conv_barriers *b, unsigned char *halo,
                        unsigned char *weights, int group)
{
    typedef struct shape<C, N, K, TAPS, BLOCKS> sh;
    const struct conv_plan *p = &a->p;
    const bool speaks = threadIdx.x % 128 == 0;
    const uint32_t mine = (uint32_t)(group * 8 * sh::pitch) * sh::row_bytes;
    const uint32_t halo0 = smem_of(halo) + mine, w0 = smem_of(weights);
    struct counter h = {0, 0}, w = {0, 0};
    struct conv_work work;
    for (int i = 0; conv_work_at(p, (int)blockIdx.x, i, &work); i++) {
        const struct conv_tile t = conv_tile_at(p, work.tile);
        const int n_steps = (work.end - work.first) * sh::groups;
        float acc[BLOCKS][N / 2];
        int g = 0, w_before = 0, h_before = 0;
        /* The first step; what the later ones wait for is one step behind. */
        barrier_wait(&b->halo_full[h.at], h.phase);
        barrier_wait(&b->w_full[w.at], w.phase);
        issue<C, N, K, TAPS, BLOCKS>(acc, halo0 + h.at * sh::halo_room, w0 + w.at * sh::stage_room,
                                     0, 0);
#pragma unroll 1
        for (int s = 1; s < n_steps; s++) {
            w_before = w.at;
            h_before = -1;
            count<sh::stages>(&w);
            if (++g == sh::groups) {
                g = 0;
                h_before = h.at;
                count<sh::halos>(&h);
                barrier_wait(&b->halo_full[h.at], h.phase);
            }
            barrier_wait(&b->w_full[w.at], w.phase);
            issue<C, N, K, TAPS, BLOCKS>(acc, halo0 + h.at * sh::halo_room,
                                         w0 + w.at * sh::stage_room, g, 1);
            wgmma_wait<1>();
            if (speaks) {
                barrier_arrive(&b->w_empty[w_before]);
                if (h_before >= 0) barrier_arrive(&b->halo_empty[h_before]);
            }
        }
        wgmma_wait<0>();
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) wgmma_hold(acc[m]);
        if (speaks) {
            barrier_arrive(&b->w_empty[w.at]);
            barrier_arrive(&b->halo_empty[h.at]);
        }
        count<sh::stages>(&w);
        count<sh::halos>(&h);
        if (work.part < p->n_parts - 1 && work.cut >= 0) {
            leave_part<N, BLOCKS>(a, &work, group, acc);
        } else {
            if (work.cut >= 0) take_parts<N, BLOCKS>(a, &work, group, acc);
            store<N, BLOCKS, END>(a, &t, group, acc);
        }
    }
}

template <int C, int N, int K, int TAPS, int BLOCKS, int END>
__global__ static void __launch_bounds__(THREADS, 1)
    k_conv(const __grid_constant__ struct cuda_conv a)
{
    typedef struct shape<C, N, K, TAPS, BLOCKS> sh;
    extern __shared__ __align__(1024) unsigned char smem[];
    struct conv_barriers *b = (struct conv_barriers *)smem;
    unsigned char *halo = smem + 1024, *weights = halo + sh::halos * sh::halo_room;
    if (threadIdx.x == 0) {
        for (int i = 0; i < sh::halos; i++) {
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
        if (threadIdx.x == 0) load_all<C, N, K, TAPS, BLOCKS>(&a, b, halo, weights);
    } else {
        registers_more<232>();
        compute_all<C, N, K, TAPS, BLOCKS, END>(&a, b, halo, weights, group - 1);
    }
}

/* --- three outputs or fewer ------------------------------------------------------------------- */

/* The weights of all units stay in shared memory. A tile's 18 x 18 inputs are rows of the product
 * one after another, up to a whole number of blocks: what the last rows multiply is nobody's. */
struct gather {
    static constexpr int side = CONV_ROWS + 2, row_bytes = 64, blocks = 3, halos = 4;
    static constexpr int halo_bytes = side * side * row_bytes;
    static constexpr int halo_room = CONSUMERS * blocks * 64 * row_bytes;
    static constexpr int unit_bytes = CONV_GATHER_N * row_bytes;
    static constexpr int columns = 27, pitch = 388; /* of products: lanes meet different banks */
    static constexpr int products_bytes = columns * pitch * 4;
    static_assert(halo_bytes <= halo_room && CONSUMERS * blocks * 64 <= pitch, "tile");
    static_assert(halo_room % 1024 == 0 && unit_bytes % 1024 == 0, "alignment");
};

struct gather_barriers {
    uint64_t full[gather::halos], empty[gather::halos], weights;
};

PTX_FN void gather_load(const struct cuda_conv *a, struct gather_barriers *b, unsigned char *halo,
                        unsigned char *weights)
{
    const struct conv_plan *p = &a->p;
    struct counter h = {0, 0};
    struct conv_work work;
    tma_prefetch(&a->x);
    tma_prefetch(&a->past);
    tma_prefetch(&a->w);
    barrier_expect(&b->weights, (uint32_t)(p->n_units * gather::unit_bytes));
    for (int unit = 0; unit < p->n_units; unit++)
        tma_load_2d(weights + unit * gather::unit_bytes, &a->w, &b->weights, unit * p->chunk, 0);
    for (int i = 0; conv_work_at(p, (int)blockIdx.x, i, &work); i++) {
        const struct conv_tile t = conv_tile_at(p, work.tile);
        for (int unit = 0; unit < p->n_units; unit++) {
            barrier_wait(&b->empty[h.at], h.phase ^ 1);
            barrier_expect(&b->full[h.at], gather::halo_bytes);
            load_halo(a, &t, unit, 3, halo + h.at * gather::halo_room, &b->full[h.at]);
            count<gather::halos>(&h);
        }
    }
}

/* A thread's products, by column and input pixel. */
PTX_FN void put_products(float *products, int group, int n_columns,
                         const float (&acc)[gather::blocks][CONV_GATHER_N / 2])
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32 % 4;
#pragma unroll
    for (int m = 0; m < gather::blocks; m++)
#pragma unroll
        for (int i = 0; i < CONV_GATHER_N / 2; i++) {
            const int pixel =
                (group * gather::blocks + m) * 64 + warp * 16 + lane / 4 + i / 2 % 2 * 8;
            const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            if (column < n_columns) products[column * gather::pitch + pixel] = acc[m][i];
        }
}

/* An output pixel a thread of the two warpgroups. */
template <class OUT>
PTX_FN void gather_store(const struct cuda_conv *a, const struct conv_tile *t, int group,
                         const float *products)
{
    const struct conv_plan *p = &a->p;
    const int i = group * 128 + (int)threadIdx.x % 128, r = i / 16, c = i % 16;
    const int row = t->row + r, col = t->col + c;
    if (row >= p->rows || col >= p->cols) return;
    const int64_t at = (((int64_t)t->frame * p->rows + row) * p->cols + col) * p->n_out;
    for (int o = 0; o < p->n_out; o++) {
        float sum = 0;
#pragma unroll
        for (int tap = 0; tap < 9; tap++)
            sum += products[(tap * p->n_out + o) * gather::pitch + (r + tap / 3) * gather::side +
                            c + tap % 3];
        sum += __ldg(a->bias + o);
        if (a->residual) sum += get((const __half *)a->residual + at + o);
        set((OUT *)a->y + at + o, sum);
    }
}

template <class OUT>
PTX_FN void gather_compute(const struct cuda_conv *a, struct gather_barriers *b,
                           unsigned char *halo, unsigned char *weights, float *products, int group)
{
    const struct conv_plan *p = &a->p;
    const bool speaks = threadIdx.x % 128 == 0;
    const uint32_t mine = (uint32_t)(group * gather::blocks * 64 * gather::row_bytes);
    const uint32_t halo0 = smem_of(halo) + mine, w0 = smem_of(weights);
    struct counter h = {0, 0};
    struct conv_work work;
    barrier_wait(&b->weights, 0);
    for (int i = 0; conv_work_at(p, (int)blockIdx.x, i, &work); i++) {
        const struct conv_tile t = conv_tile_at(p, work.tile);
        float acc[gather::blocks][CONV_GATHER_N / 2];
        int before = -1;
#pragma unroll 1
        for (int unit = 0; unit < p->n_units; unit++) {
            barrier_wait(&b->full[h.at], h.phase);
            const uint32_t from = halo0 + h.at * gather::halo_room;
            wgmma_begin();
#pragma unroll
            for (int k = 0; k < 2; k++)
#pragma unroll
                for (int m = 0; m < gather::blocks; m++)
                    wgmma_ss_f16(
                        acc[m],
                        wgmma_desc<gather::row_bytes>(from + m * 64 * gather::row_bytes + 32 * k,
                                                      16, 8 * gather::row_bytes),
                        wgmma_desc<gather::row_bytes>(w0 + unit * gather::unit_bytes + 32 * k, 16,
                                                      8 * gather::row_bytes),
                        unit > 0 || k > 0);
            wgmma_commit();
            wgmma_wait<1>();
            if (speaks && before >= 0) barrier_arrive(&b->empty[before]);
            before = h.at;
            count<gather::halos>(&h);
        }
        wgmma_wait<0>();
#pragma unroll
        for (int m = 0; m < gather::blocks; m++) wgmma_hold(acc[m]);
        if (speaks) barrier_arrive(&b->empty[before]);
        put_products(products, group, 9 * p->n_out, acc);
        named_sync(1, 128 * CONSUMERS);
        gather_store<OUT>(a, &t, group, products);
        named_sync(1, 128 * CONSUMERS);
    }
}

template <class OUT>
__global__ static void __launch_bounds__(THREADS, 1)
    k_conv_gather(const __grid_constant__ struct cuda_conv a)
{
    extern __shared__ __align__(1024) unsigned char smem[];
    struct gather_barriers *b = (struct gather_barriers *)smem;
    unsigned char *halo = smem + 1024, *weights = halo + gather::halos * gather::halo_room;
    float *products = (float *)(weights + a.p.n_units * gather::unit_bytes);
    if (threadIdx.x == 0) {
        for (int i = 0; i < gather::halos; i++) {
            barrier_init(&b->full[i], 1);
            barrier_init(&b->empty[i], CONSUMERS);
        }
        barrier_init(&b->weights, 1);
        barrier_init_fence();
    }
    __syncthreads();
    const int group = (int)threadIdx.x / 128;
    if (group > 0) gather_compute<OUT>(&a, b, halo, weights, products, group - 1);
    else if (threadIdx.x == 0) gather_load(&a, b, halo, weights);
}

/* --- launch ----------------------------------------------------------------------------------- */

typedef void kernel(struct cuda_conv a);

static err_t launch(struct dev *d, const struct cuda_conv *a, kernel *k, int smem_bytes)
{
    const cudaError_t ce =
        cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, smem_bytes);
    if (ce != cudaSuccess) return cuda_failed(ce, "conv3d");
    k<<<(unsigned)a->p.n_ctas, THREADS, smem_bytes, cuda_stream(d)>>>(*a);
    return cuda_launched("conv3d");
}

template <int C, int N, int K, int TAPS, int BLOCKS, int END>
static err_t launch_end(struct dev *d, const struct cuda_conv *a)
{
    return launch(d, a, k_conv<C, N, K, TAPS, BLOCKS, END>,
                  shape<C, N, K, TAPS, BLOCKS>::smem_bytes);
}

/* With what ends it; conv_plan.h says which there are. */
template <int C, int N, int K, int TAPS, int BLOCKS>
static err_t launch_conv(struct dev *d, const struct cuda_conv *a)
{
    if constexpr (K == 3 && C >= 32) {
        if constexpr (BLOCKS < 4)
            if (a->h && a->residual) return launch_end<C, N, K, TAPS, BLOCKS, ADDS | NORMS>(d, a);
        if (a->h) return launch_end<C, N, K, TAPS, BLOCKS, NORMS>(d, a);
    }
    if constexpr (K != 2 && BLOCKS < 4)
        if (a->residual) return launch_end<C, N, K, TAPS, BLOCKS, ADDS>(d, a);
    return launch_end<C, N, K, TAPS, BLOCKS, 0>(d, a);
}

static err_t launch_gather(struct dev *d, const struct cuda_conv *a)
{
    const int n_bytes = 1024 + gather::halos * gather::halo_room +
                        a->p.n_units * gather::unit_bytes + gather::products_bytes;
    return launch(d, a, a->is_f32 ? k_conv_gather<float> : k_conv_gather<__half>, n_bytes);
}

/* A kernel by what a plan has of k, chunk, n and blocks. */
static constexpr int key(int k, int chunk, int n, int blocks)
{
    return ((k * 100 + chunk) * 1000 + n) * 10 + blocks;
}

extern "C" err_t cuda_conv_sm90(struct dev *d, const struct cuda_conv *a)
{
    const struct conv_plan *p = &a->p;
    if (p->n == CONV_GATHER_N) return launch_gather(d, a);
    switch (key(p->k, p->chunk, p->n, p->blocks)) {
    case key(1, 64, 192, 2):
        return launch_conv<64, 192, 1, 1, 2>(d, a);
    case key(2, 64, 192, 2):
        return launch_conv<64, 192, 2, 1, 2>(d, a);
    case key(2, 64, 96, 2):
        return launch_conv<64, 96, 2, 2, 2>(d, a);
    case key(3, 16, 192, 2):
        return launch_conv<16, 192, 3, 3, 2>(d, a);
    case key(3, 32, 96, 2):
        return launch_conv<32, 96, 3, 3, 2>(d, a);
    case key(3, 32, 96, 4):
        return launch_conv<32, 96, 3, 3, 4>(d, a);
    case key(3, 64, 96, 2):
        return launch_conv<64, 96, 3, 3, 2>(d, a);
    case key(3, 64, 192, 1):
        return launch_conv<64, 192, 3, 1, 1>(d, a);
    case key(3, 64, 192, 2):
        return launch_conv<64, 192, 3, 1, 2>(d, a);
    }
    return FAIL(ERR_BUG, "conv3d: no kernel for k %d, chunk %d, n %d, blocks %d", p->k, p->chunk,
                p->n, p->blocks);
}
