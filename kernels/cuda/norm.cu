/* norm.cu - norms over rows.
 *
 * Rows of the models' lengths are held in registers between what is measured of them and what is
 * made of them, three chunks a lane, so that all of a row is on its way at once and is read once.
 * Rows of any other length are a warp's, read again from the cache.
 */
#include "kernels/cuda/chunk.cuh"

enum { ROWS = 8 };                  /* of any length, a block */
enum { HELD = 3, LANES_MAX = 128 }; /* chunks a lane, lanes a row */

enum kind { RMS, LAYER, L2, L2_SILU };

/* RMS: x / sqrt(mean of squares + eps) * w.  LAYER: (x - mean) / sqrt(variance + eps) *
 * (one + w) + b.  L2, and its SiLU: x / max(|x|, 1e-12) * sqrt(n) * w. */
struct how {
    const float *w, *b;
    float one, eps;
    float inv, root; /* 1 / n, sqrt(n): for the kernel's caller */
};

/* What a row is multiplied by; sq: the sum of squares of x, or of x - mean. */
template <enum kind K> CUDA_FN float scale_of(const struct how &h, float sq)
{
    const bool is_l2 = K == L2 || K == L2_SILU;
    return is_l2 ? l2_scale(h.root, sq) : rsqrtf(sq * h.inv + h.eps);
}

template <enum kind K, class X>
CUDA_FN float normed(float x, float mean, float scale, float w, float b)
{
    if (K == LAYER) return (x - mean) * scale * w + b;
    const float y = x * scale * w;
    if (K != L2_SILU) return y;
    return sizeof(X) == 2 ? silu_of_half(y) : silu(y);
}

/* --- rows of 3 G chunks, G lanes a row -------------------------------------------------------- */

/* Over the G lanes of a row; room: a float a warp. */
template <int G> CUDA_FN float lanes_sum(float x, float *room)
{
#pragma unroll
    for (int i = (G < 32 ? G : 32) / 2; i > 0; i /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, i);
    if (G <= 32) return x;
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    const float *mine = room + threadIdx.x / G * (G / 32);
    x = 0;
#pragma unroll
    for (int i = 0; i < G / 32; i++) x += mine[i];
    return x;
}

/* Makes the row y of the one whose columns from first, and a chunk of each lane further, are in
 * raw; is_row: there is one. */
template <enum kind K, class Y, class X, int G>
CUDA_FN void norm_held(Y *y, const uint4 (&raw)[HELD], const struct how &h, int first, bool is_row)
{
    enum { N = chunk<X>::N, WARPS = LANES_MAX / 32 };
    __shared__ float room[2][WARPS];
    float f[N], mean = 0, sq = 0;
    if (K == LAYER) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            unpack<X>(f, raw[i]);
#pragma unroll
            for (int j = 0; j < N; j++) mean += f[j];
        }
        mean = lanes_sum<G>(mean, room[0]) * h.inv;
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        unpack<X>(f, raw[i]);
#pragma unroll
        for (int j = 0; j < N; j++) sq += (f[j] - mean) * (f[j] - mean);
    }
    const float scale = scale_of<K>(h, lanes_sum<G>(sq, room[1]));
    if (!is_row) return;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int c = first + i * G * N;
        float w[N], b[N] = {0};
        get_floats(w, h.w + c);
        if (K == LAYER) get_floats(b, h.b + c);
        unpack<X>(f, raw[i]);
#pragma unroll
        for (int j = 0; j < N; j++)
            f[j] = normed<K, X>(f[j], mean, scale, K == LAYER ? h.one + w[j] : w[j], b[j]);
        put(y + c, f);
    }
}

template <enum kind K, class Y, class X, int G>
__global__ static void __launch_bounds__(LANES_MAX)
    k_norm_held(Y *y, const X *x, const struct how h, int64_t n_rows)
{
    enum { N = chunk<X>::N, C = HELD * G * N };
    const int64_t r = (int64_t)blockIdx.x * (LANES_MAX / G) + threadIdx.x / G;
    const int first = (int)threadIdx.x % G * N;
    uint4 raw[HELD];
#pragma unroll
    for (int i = 0; i < HELD; i++)
        raw[i] = r < n_rows ? *(const uint4 *)(x + r * C + first + i * G * N) : zeros();
    norm_held<K, Y, X, G>(y + r * C, raw, h, first, r < n_rows);
}

/* A row of BRANCH_COLS a block: y += gate * (z + b), and out is the norm of what y has become, with
 * the bits of k_gate_add and k_norm_held one after the other: k_gate_add's product is rounded,
 * since a branch parts it from the sum, so __fmul_rn keeps this one out of an fma. BRANCH_BLOCKS a
 * multiprocessor leave registers for all that a row reads; left to itself the compiler makes room
 * for more blocks and reads y last. */
enum { BRANCH_COLS = HELD * LANES_MAX * chunk<float>::N, BRANCH_BLOCKS = 8 };

template <class T>
__global__ static void __launch_bounds__(LANES_MAX, BRANCH_BLOCKS)
    k_gate_add_norm(float *y, const T *z, const float *b, const float *gate, T *out,
                    const struct how h)
{
    enum { N = chunk<float>::N, STEP = LANES_MAX * N };
    const int64_t row = (int64_t)blockIdx.x * BRANCH_COLS;
    const int first = (int)threadIdx.x * N;
    uint4 raw[HELD];
    float4 part[HELD];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        raw[i] = *(const uint4 *)(y + row + first + i * STEP);
        part[i] = get4(z + row + first + i * STEP);
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const float v[N] = {part[i].x, part[i].y, part[i].z, part[i].w};
        float f[N], add[N], k[N];
        get_floats(add, b + first + i * STEP);
        get_floats(k, gate + first + i * STEP);
        unpack<float>(f, raw[i]);
#pragma unroll
        for (int j = 0; j < N; j++) f[j] += __fmul_rn(k[j], v[j] + add[j]);
        raw[i] = pack<float>(f);
        put_chunk(y + row + first + i * STEP, raw[i]);
    }
    norm_held<LAYER, T, float, LANES_MAX>(out + row, raw, h, first, true);
}

/* --- rows of any length, a warp a row --------------------------------------------------------- */

/* The sums of (x - shift) and of its square, four elements at a time where n allows it. */
template <bool IS_SQUARE, class X> CUDA_FN float row_sum(const X *x, int n, float shift)
{
    float sum = 0;
    if (n % 4 == 0) {
        for (int c = (int)threadIdx.x % 32 * 4; c < n; c += 128) {
            const float4 v = get4(x + c);
            const float a = v.x - shift, b = v.y - shift, p = v.z - shift, q = v.w - shift;
            sum += IS_SQUARE ? (a * a + b * b) + (p * p + q * q) : (a + b) + (p + q);
        }
    } else {
        for (int c = (int)threadIdx.x % 32; c < n; c += 32) {
            const float a = get(x + c) - shift;
            sum += IS_SQUARE ? a * a : a;
        }
    }
    return warp_sum(sum);
}

template <enum kind K, class Y, class X>
__global__ static void __launch_bounds__(32 * ROWS)
    k_norm(Y *y, const X *x, const struct how h, int64_t n_rows, int n)
{
    const int64_t r = (int64_t)blockIdx.x * ROWS + threadIdx.x / 32;
    const int lane = (int)threadIdx.x % 32;
    if (r >= n_rows) return;
    x += r * n;
    y += r * n;
    const float mean = K == LAYER ? row_sum<false>(x, n, 0) * h.inv : 0;
    const float scale = scale_of<K>(h, row_sum<true>(x, n, mean));
    const auto at = [&](float v, int c) {
        const float w = K == LAYER ? h.one + h.w[c] : h.w[c];
        return normed<K, X>(v, mean, scale, w, K == LAYER ? h.b[c] : 0);
    };
    if (n % 4 == 0) {
        for (int c = lane * 4; c < n; c += 128) {
            const float4 v = get4(x + c);
            set4(y + c, make_float4(at(v.x, c), at(v.y, c + 1), at(v.z, c + 2), at(v.w, c + 3)));
        }
    } else {
        for (int c = lane; c < n; c += 32) set(y + c, at(get(x + c), c));
    }
}

/* --- ops -------------------------------------------------------------------------------------- */

#define HELD_ROWS(G)                                                                               \
    k_norm_held<K, Y, X, G><<<n_blocks(n_rows, LANES_MAX / G), LANES_MAX, 0, cuda_stream(d)>>>(    \
        (Y *)y.data, (const X *)x.data, h, n_rows)

/* The kernel for rows of n: of the lengths that pictures and tokens have, or of any. */
template <enum kind K, class Y, class X>
static void norm_rows(struct dev *d, struct tensor y, struct tensor x, struct how h)
{
    enum { IS_PICTURE = K == L2 || K == L2_SILU, N = HELD * chunk<X>::N };
    const int n = x.shape[x.rank - 1];
    const int64_t n_rows = tensor_count(x) / n;
    h.inv = 1.0f / (float)n;
    h.root = sqrtf((float)n);
    const int n_lanes = n % N == 0 && at_chunks(y.data, x.data, h.w, h.b) ? n / N : 0;
    if constexpr (IS_PICTURE) {
        if (n_lanes == 4) return HELD_ROWS(4);
        if (n_lanes == 8) return HELD_ROWS(8);
        if (n_lanes == 16) return HELD_ROWS(16);
    } else {
        if (n_lanes == 64) return HELD_ROWS(64);
        if (n_lanes == 128) return HELD_ROWS(128);
    }
    k_norm<K, Y, X><<<n_blocks(n_rows, ROWS), 32 * ROWS, 0, cuda_stream(d)>>>(
        (Y *)y.data, (const X *)x.data, h, n_rows, n);
}

extern "C" err_t cuda_rms_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                               float eps)
{
    const struct how h = {(const float *)w.data, NULL, 0, eps, 0, 0};
    BY_TYPE(y.dtype, Y, BY_TYPE(x.dtype, X, (norm_rows<RMS, Y, X>(d, y, x, h))));
    return cuda_launched("rms_norm");
}

static err_t layer_norm(struct dev *d, struct tensor y, struct tensor x, struct how h)
{
    BY_TYPE(y.dtype, Y, (norm_rows<LAYER, Y, float>(d, y, x, h)));
    return cuda_launched("layer_norm");
}

extern "C" err_t cuda_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                                 struct tensor b, float eps)
{
    return layer_norm(d, y, x, {(const float *)w.data, (const float *)b.data, 0, eps, 0, 0});
}

extern "C" err_t cuda_norm_modulate(struct dev *d, struct tensor y, struct tensor x,
                                    struct tensor scale, struct tensor shift, float eps)
{
    return layer_norm(d, y, x,
                      {(const float *)scale.data, (const float *)shift.data, 1, eps, 0, 0});
}

extern "C" err_t cuda_gate_add_norm(struct dev *d, struct tensor y, const void *z, struct tensor b,
                                    const float *gate, struct tensor out, struct tensor scale,
                                    struct tensor shift, bool is_modulated, float eps)
{
    const float one = is_modulated ? 1.0f : 0.0f, inv = 1.0f / (float)y.shape[1];
    const struct how h = {(const float *)scale.data, (const float *)shift.data, one, eps, inv, 0};
    const bool is_held = y.shape[1] == BRANCH_COLS && gate && b.data && b.dtype == DTYPE_F32 &&
                         at_chunks(y.data, z, b.data, gate) && at_chunks(out.data, h.w, h.b, NULL);
    if (!is_held) {
        const err_t e = cuda_gate_add(d, y, z, out.dtype, b, gate);
        return e != OK ? e : layer_norm(d, out, y, h);
    }
    BY_TYPE(out.dtype, T,
            (k_gate_add_norm<T><<<(unsigned)y.shape[0], LANES_MAX, 0, cuda_stream(d)>>>(
                (float *)y.data, (const T *)z, (const float *)b.data, gate, (T *)out.data, h)));
    return cuda_launched("gate_add_norm");
}

extern "C" err_t cuda_l2_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor g,
                              int with_silu)
{
    const struct how h = {(const float *)g.data, NULL, 0, 0, 0, 0};
    BY_TYPE(x.dtype, X, {
        if (with_silu) norm_rows<L2_SILU, X, X>(d, y, x, h);
        else norm_rows<L2, X, X>(d, y, x, h);
    });
    return cuda_launched("l2_norm");
}
