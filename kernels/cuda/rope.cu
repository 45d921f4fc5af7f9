/* rope.cu - from the QKV product to rotated queries and the KV ring; sink keys rotated anew. */
#include "kernels/cuda/chunk.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };
enum { PAIRS_MAX = 64 }; /* a head's, for the kernel that moves chunks */

/* Where the pairs of a token's heads turn to: t, y, x. */
struct grid {
    int n_rows, n_cols, n_d, n_t, n_yx;
    const float2 *rot_t, *rot_yx; /* (cos, sin) */
};

CUDA_FN float2 turn_of(const struct grid &g, int frame, int y, int x, int pair)
{
    if (pair < g.n_t) return g.rot_t[frame * g.n_t + pair];
    if (pair < g.n_t + g.n_yx) return g.rot_yx[y * g.n_yx + pair - g.n_t];
    return g.rot_yx[x * g.n_yx + pair - g.n_t - g.n_yx];
}

template <class T> CUDA_FN void get_pair(const T *p, float &a, float &b)
{
    a = get(p);
    b = get(p + 1);
}

CUDA_FN float block_sum(float x, float *room)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += room[i];
    __syncthreads();
    return sum;
}

/* A token a block. */
template <class T>
__global__ static void __launch_bounds__(THREADS)
    k_qkv(T *q, T *k_ring, T *v_ring, T *k_sink, const T *qkv, const float *wq, const float *wk,
          const int32_t *slots, const struct grid g, int n_c, int n_sinks, float eps)
{
    __shared__ float room[WARPS];
    const int n_frame = g.n_rows * g.n_cols, token = (int)blockIdx.x;
    const int frame = token / n_frame, in_frame = token % n_frame;
    const int y = in_frame / g.n_cols, x = in_frame % g.n_cols;
    const int slot = slots[frame];
    const int64_t to = ((int64_t)slot * n_frame + in_frame) * n_c;
    const T *row = qkv + (int64_t)token * 3 * n_c;
    float sq = 0, sk = 0;
    for (int c = (int)threadIdx.x * 2; c < n_c; c += 2 * THREADS) {
        float a, b;
        get_pair(row + c, a, b);
        sq += a * a + b * b;
        get_pair(row + n_c + c, a, b);
        sk += a * a + b * b;
    }
    const float kq = rsqrtf(block_sum(sq, room) / (float)n_c + eps);
    const float kk = rsqrtf(block_sum(sk, room) / (float)n_c + eps);
    for (int c = (int)threadIdx.x * 2; c < n_c; c += 2 * THREADS) {
        const float2 t = turn_of(g, frame, y, x, c % g.n_d / 2);
        float a, b;
        get_pair(row + c, a, b);
        a *= kq * wq[c];
        b *= kq * wq[c + 1];
        set(q + (int64_t)token * n_c + c, a * t.x - b * t.y);
        set(q + (int64_t)token * n_c + c + 1, a * t.y + b * t.x);
        get_pair(row + n_c + c, a, b);
        a *= kk * wk[c];
        b *= kk * wk[c + 1];
        set(k_ring + to + c, a * t.x - b * t.y);
        set(k_ring + to + c + 1, a * t.y + b * t.x);
        if (slot < n_sinks) {
            set(k_sink + to + c, a);
            set(k_sink + to + c + 1, b);
        }
        v_ring[to + c] = row[2 * n_c + c];
        v_ring[to + c + 1] = row[2 * n_c + c + 1];
    }
}

/* The sums of two values over a block of up to WARPS warps, the same in every thread. */
CUDA_FN float2 block_sums(float a, float b, float2 (&room)[WARPS])
{
    a = warp_sum(a);
    b = warp_sum(b);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = make_float2(a, b);
    if (threadIdx.x < WARPS && threadIdx.x >= blockDim.x / 32)
        room[threadIdx.x] = make_float2(0, 0);
    __syncthreads();
    float2 sum = make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        sum.x += room[i].x;
        sum.y += room[i].y;
    }
    return sum;
}

/* A chunk of a row as it is normed, and as it is turned from there. turn: its pairs'. */
template <class T>
CUDA_FN void norm_and_turn(uint4 &normed, uint4 &turned, uint4 raw, float k, const float *weights,
                           const float2 *turn)
{
    float a[chunk<T>::N], b[chunk<T>::N], w[chunk<T>::N];
    get_floats(w, weights);
    unpack<T>(a, raw);
#pragma unroll
    for (int i = 0; i < chunk<T>::N; i++) a[i] *= k * w[i];
#pragma unroll
    for (int i = 0; i < chunk<T>::N; i += 4) {
        const float4 t = *(const float4 *)(turn + i / 2);
        b[i] = a[i] * t.x - a[i + 1] * t.y;
        b[i + 1] = a[i] * t.y + a[i + 1] * t.x;
        b[i + 2] = a[i + 2] * t.z - a[i + 3] * t.w;
        b[i + 3] = a[i + 2] * t.w + a[i + 3] * t.z;
    }
    normed = pack<T>(a);
    turned = pack<T>(b);
}

template <class T> CUDA_FN float sum_of_squares(uint4 raw)
{
    float a[chunk<T>::N], sum = 0;
    unpack<T>(a, raw);
#pragma unroll
    for (int i = 0; i < chunk<T>::N; i++) sum += a[i] * a[i];
    return sum;
}

/* A token a block, a chunk of its q, of its k and of its v a thread: all are on their way before
 * the first is needed. Blocks are (place, frame). inv_c: 1 / n_c. */
template <class T>
__global__ static void __launch_bounds__(THREADS)
    k_qkv_chunks(T *q, T *k_ring, T *v_ring, T *k_sink, const T *qkv, const float *wq,
                 const float *wk, const int32_t *slots, const struct grid g, int n_c, int n_sinks,
                 float inv_c, float eps)
{
    enum { N = chunk<T>::N };
    __shared__ float2 room[WARPS];
    __shared__ __align__(16) float2 turns[PAIRS_MAX];
    const int n_frame = (int)gridDim.x, in_frame = (int)blockIdx.x, frame = (int)blockIdx.y;
    const int c = (int)threadIdx.x * N;
    const int64_t token = (int64_t)frame * n_frame + in_frame;
    uint4 raw[3];
#pragma unroll
    for (int i = 0; i < 3; i++)
        raw[i] = c < n_c ? *(const uint4 *)(qkv + (token * 3 + i) * n_c + c) : zeros();
    const int slot = slots[frame], y = in_frame / g.n_cols, x = in_frame % g.n_cols;
#pragma unroll 1
    for (int pair = (int)threadIdx.x; pair < g.n_d / 2; pair += (int)blockDim.x)
        turns[pair] = turn_of(g, frame, y, x, pair);
    const float2 sq = block_sums(sum_of_squares<T>(raw[0]), sum_of_squares<T>(raw[1]), room);
    if (c >= n_c) return;
    const float2 *turn = turns + c % g.n_d / 2;
    const int64_t to = ((int64_t)slot * n_frame + in_frame) * n_c + c;
    uint4 normed, turned;
    norm_and_turn<T>(normed, turned, raw[0], rsqrtf(sq.x * inv_c + eps), wq + c, turn);
    put_chunk(q + token * n_c + c, turned);
    norm_and_turn<T>(normed, turned, raw[1], rsqrtf(sq.y * inv_c + eps), wk + c, turn);
    put_chunk(k_ring + to, turned);
    if (slot < n_sinks) put_chunk(k_sink + to, normed);
    put_chunk(v_ring + to, raw[2]);
}

template <class T>
__global__ static void __launch_bounds__(THREADS)
    k_sink(T *k_ring, const T *k_sink, const struct grid g, int n_c)
{
    const int n_frame = g.n_rows * g.n_cols, token = (int)blockIdx.x;
    const int frame = token / n_frame, in_frame = token % n_frame;
    const int64_t at = (int64_t)token * n_c;
    for (int c = (int)threadIdx.x * 2; c < n_c; c += 2 * THREADS) {
        const float2 t = turn_of(g, frame, in_frame / g.n_cols, in_frame % g.n_cols, c % g.n_d / 2);
        float a, b;
        get_pair(k_sink + at + c, a, b);
        set(k_ring + at + c, a * t.x - b * t.y);
        set(k_ring + at + c + 1, a * t.y + b * t.x);
    }
}

static struct grid grid_of(struct tensor rot_t, struct tensor rot_yx, int32_t n_d, int32_t n_rows,
                           int32_t n_cols)
{
    struct grid g;
    g.n_rows = n_rows;
    g.n_cols = n_cols;
    g.n_d = n_d;
    g.n_t = rot_t.shape[1];
    g.n_yx = rot_yx.shape[1];
    g.rot_t = (const float2 *)rot_t.data;
    g.rot_yx = (const float2 *)rot_yx.data;
    return g;
}

extern "C" err_t cuda_qkv_rope_cache(struct dev *d, struct tensor q, struct tensor k_ring,
                                     struct tensor v_ring, struct tensor k_sink, struct tensor qkv,
                                     struct tensor wq, struct tensor wk, struct tensor slots,
                                     struct tensor rot_t, struct tensor rot_yx, int32_t n_rows,
                                     int32_t n_cols, float eps)
{
    const int n_c = wq.shape[0], n_frame = n_rows * n_cols;
    const int n_sinks = k_sink.data ? k_sink.shape[0] / n_frame : 0;
    const struct grid g = grid_of(rot_t, rot_yx, k_ring.shape[2], n_rows, n_cols);
    BY_TYPE(q.dtype, T, {
        const int n_threads = (n_c / chunk<T>::N + 31) / 32 * 32;
        T *const to[4] = {(T *)q.data, (T *)k_ring.data, (T *)v_ring.data, (T *)k_sink.data};
        const T *const from = (const T *)qkv.data;
        const float *const weights[2] = {(const float *)wq.data, (const float *)wk.data};
        const int32_t *const at = (const int32_t *)slots.data;
        if (g.n_d % chunk<T>::N == 0 && g.n_d / 2 <= PAIRS_MAX && n_threads <= THREADS &&
            at_chunks(to[0], to[1], to[2], to[3]) && at_chunks(from, weights[0], weights[1], NULL))
            k_qkv_chunks<T><<<dim3((unsigned)n_frame, (unsigned)slots.shape[0]), n_threads, 0,
                              cuda_stream(d)>>>(to[0], to[1], to[2], to[3], from, weights[0],
                                                weights[1], at, g, n_c, n_sinks, 1.0f / (float)n_c,
                                                eps);
        else
            k_qkv<T><<<(unsigned)q.shape[0], THREADS, 0, cuda_stream(d)>>>(
                to[0], to[1], to[2], to[3], from, weights[0], weights[1], at, g, n_c, n_sinks, eps);
    });
    return cuda_launched("qkv_rope_cache");
}

extern "C" err_t cuda_rope_sink(struct dev *d, struct tensor k_ring, struct tensor k_sink,
                                struct tensor rot_t, struct tensor rot_yx, int32_t n_rows,
                                int32_t n_cols)
{
    const int n_c = k_ring.shape[1] * k_ring.shape[2];
    const struct grid g = grid_of(rot_t, rot_yx, k_ring.shape[2], n_rows, n_cols);
    BY_TYPE(k_ring.dtype, T,
            (::k_sink<T><<<(unsigned)k_sink.shape[0], THREADS, 0, cuda_stream(d)>>>(
                (T *)k_ring.data, (const T *)k_sink.data, g, n_c)));
    return cuda_launched("rope_sink");
}
