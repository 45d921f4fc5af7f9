/* conv.cu - convolution for what the tensor-core kernel does not serve, and the choice. */
#include "kernels/cuda/cuda.cuh"

/* Scratch: taps that were made, then parts of tiles: up to 192 f32 for each of 256 pixels. */
enum {
    THREADS = 128,
    PARTS_BYTES = CONV_PARTS_MAX * 192 * 256 * 4,
    PARTS_AT = CUDA_SCRATCH_BYTES - PARTS_BYTES
};
static_assert(CUDA_FLAGS >= CONV_PARTS_MAX * CONV_GROUPS, "flags");
static_assert(PARTS_AT > 32 << 20, "taps");

struct conv_shape {
    int rows, cols; /* of the output */
    int n_in, n_out, kt, k;
    int shift; /* 1: an input row and column stand for two of the output */
    int64_t n; /* output values */
};

/* An output value a thread. */
template <class T, class Y>
__global__ static void k_plain(Y *y, const T *x, const T *past, const T *w, const float *b,
                               const T *residual, const struct conv_shape c)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= c.n) return;
    const int o = (int)(i % c.n_out), xx = (int)(i / c.n_out % c.cols);
    const int yy = (int)(i / c.n_out / c.cols % c.rows);
    const int t = (int)(i / c.n_out / c.cols / c.rows);
    const int rows_in = c.rows >> c.shift, cols_in = c.cols >> c.shift;
    const int64_t frame_in = (int64_t)rows_in * cols_in * c.n_in;
    float sum = 0;
    for (int kt = 0; kt < c.kt; kt++) {
        const int f = t + kt - (c.kt - 1);
        const T *frame = f < 0 ? past + (f + c.kt - 1) * frame_in : x + f * frame_in;
        for (int ky = 0; ky < c.k; ky++) {
            const int r = yy + ky - c.k / 2;
            if (r < 0 || r >= c.rows) continue;
            for (int kx = 0; kx < c.k; kx++) {
                const int q = xx + kx - c.k / 2;
                if (q < 0 || q >= c.cols) continue;
                const T *in = frame + ((int64_t)(r >> c.shift) * cols_in + (q >> c.shift)) * c.n_in;
                const T *tap = w + ((((int64_t)o * c.kt + kt) * c.k + ky) * c.k + kx) * c.n_in;
                for (int j = 0; j < c.n_in; j++) sum = fmaf(get(in + j), get(tap + j), sum);
            }
        }
    }
    set(y + i, sum + b[o] + (residual ? get(residual + i) : 0.0f));
}

extern "C" err_t cuda_conv_plain(struct dev *d, struct tensor y, struct tensor x,
                                 struct tensor past, struct tensor w, struct tensor b,
                                 struct tensor residual, bool is_upsampled)
{
    const struct conv_shape c = {y.shape[1], y.shape[2], x.shape[3],   y.shape[3],
                                 w.shape[1], w.shape[2], is_upsampled, tensor_count(y)};
    BY_TYPE(x.dtype, T,
            BY_TYPE(y.dtype, Y,
                    (k_plain<T, Y><<<n_blocks(c.n, THREADS), THREADS, 0, cuda_stream(d)>>>(
                        (Y *)y.data, (const T *)x.data, (const T *)past.data, (const T *)w.data,
                        (const float *)b.data, (const T *)residual.data, c))));
    return cuda_launched("conv3d");
}

/* The taps of the four phases: y [4, O, 2, 2, C] from w [O, 3, 3, C]. An even row of the doubled
 * picture sees taps 0 | 1 + 2 of two rows of the picture, an odd one 0 + 1 | 2. */
__global__ static void k_phase_taps(__half *y, const __half *w, int n_out, int n_in)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= (int64_t)16 * n_out * n_in) return;
    const int c = (int)(i % n_in), q = (int)(i / n_in % 2), r = (int)(i / n_in / 2 % 2);
    const int o = (int)(i / n_in / 4 % n_out), phase = (int)(i / n_in / 4 / n_out);
    const int row = phase / 2 ? 2 * r : r, col = phase % 2 ? 2 * q : q;
    const int rows = phase / 2 ? 2 - r : 1 + r, cols = phase % 2 ? 2 - q : 1 + q;
    float sum = 0;
    for (int y0 = row; y0 < row + rows; y0++)
        for (int x0 = col; x0 < col + cols; x0++)
            sum += get(w + (((int64_t)o * 3 + y0) * 3 + x0) * n_in + c);
    set(y + i, sum);
}

/* All taps of a unit side by side: y [CONV_GATHER_N, kt, C] from w [O, kt, 3, 3, C]. Row
 * tap * O + o; what is left is zero. */
__global__ static void k_gather_taps(__half *y, const __half *w, int n_out, int kt, int n_in)
{
    const int i = (int)blockIdx.x * THREADS + threadIdx.x;
    if (i >= CONV_GATHER_N * kt * n_in) return;
    const int c = i % n_in, t = i / n_in % kt, tap = i / n_in / kt / n_out,
              o = i / n_in / kt % n_out;
    y[i] = tap < 9 ? w[((o * kt + t) * 9 + tap) * n_in + c] : __half(0.0f);
}

/* h and g absent: nothing is normed. y absent: nobody reads it. */
static err_t fast(struct dev *d, const struct conv_plan *p, struct tensor y, struct tensor x,
                  struct tensor past, struct tensor w, struct tensor b, struct tensor residual,
                  struct tensor h, struct tensor g)
{
    err_t e = OK;
    const struct cuda_scratch *s = cuda_scratch(d);
    const int32_t rows = CONV_ROWS + p->k - 1, cols = 8 * p->blocks + p->k - 1;
    struct cuda_conv c = {*p};
    TRY(cuda_map_pictures(&c.x, x, p->chunk, rows, cols));
    TRY(cuda_map_pictures(&c.past, past.data ? past : x, p->chunk, rows, cols));
    if (p->n == CONV_GATHER_N) {
        const int32_t n_cols = p->kt * p->n_in;
        k_gather_taps<<<n_blocks(CONV_GATHER_N * n_cols, THREADS), THREADS, 0, cuda_stream(d)>>>(
            (__half *)s->data, (const __half *)w.data, p->n_out, p->kt, p->n_in);
        TRY(cuda_map_matrix(&c.w, s->data, CONV_GATHER_N, n_cols, p->chunk, CONV_GATHER_N));
    } else {
        TRY(cuda_map_matrix(&c.w, w.data, (int64_t)p->phases * p->n_out,
                            (int64_t)p->kt * p->k * p->k * p->n_in, p->chunk, p->n));
    }
    c.y = y.data;
    c.bias = (const float *)b.data;
    c.residual = residual.data;
    c.h = h.data;
    c.gamma = (const float *)g.data;
    c.parts = (float *)((char *)s->data + PARTS_AT);
    c.flags = s->flags;
    c.is_f32 = y.dtype == DTYPE_F32;
    TRY(cuda_conv_sm90(d, &c));
out:
    return e;
}

/* What 16 bytes at a time are read from or written to. */
static bool is_aligned(struct tensor t)
{
    return (uintptr_t)t.data % 16 == 0;
}

/* Whether the tensor cores serve the convolution of x to y. */
static bool is_served(struct dev *d, struct conv_plan *p, struct tensor y, struct tensor x,
                      struct tensor w, struct tensor b, struct tensor residual)
{
    return x.dtype == DTYPE_F16 && is_aligned(y) && is_aligned(b) && is_aligned(residual) &&
           conv_plan_of(p, y.shape[0], y.shape[1], y.shape[2], x.shape[3], y.shape[3], w.shape[1],
                        w.shape[2], residual.data != NULL, cuda_scratch(d)->n_sms) &&
           (y.dtype == DTYPE_F16 || p->n == CONV_GATHER_N);
}

extern "C" err_t cuda_conv3d(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                             struct tensor w, struct tensor b, struct tensor residual)
{
    struct conv_plan p;
    if (is_served(d, &p, y, x, w, b, residual))
        return fast(d, &p, y, x, past, w, b, residual, TENSOR_NONE, TENSOR_NONE);
    return cuda_conv_plain(d, y, x, past, w, b, residual, false);
}

extern "C" err_t cuda_conv3d_norm(struct dev *d, struct tensor h, struct tensor x,
                                  struct tensor past, struct tensor w, struct tensor b,
                                  struct tensor residual, struct tensor g, struct tensor y)
{
    struct conv_plan p;
    const struct tensor plain = y.data ? y : h;
    if (is_aligned(h) && is_aligned(g) && is_served(d, &p, plain, x, w, b, residual) &&
        conv_plan_norms(&p, residual.data != NULL, y.data != NULL))
        return fast(d, &p, y, x, past, w, b, residual, h, g);
    const err_t e = cuda_conv3d(d, plain, x, past, w, b, residual);
    return e != OK ? e : cuda_l2_norm(d, h, plain, g, 1);
}

extern "C" err_t cuda_upsample_conv(struct dev *d, struct tensor y, struct tensor x,
                                    struct tensor w, struct tensor b)
{
    struct conv_plan p;
    const int n_in = x.shape[3], n_out = y.shape[3];
    const int64_t n = (int64_t)16 * n_out * n_in;
    const bool is_fast = x.dtype == DTYPE_F16 && n * 2 <= PARTS_AT && is_aligned(y) &&
                         is_aligned(b) &&
                         conv_plan_of(&p, x.shape[0], x.shape[1], x.shape[2], n_in, n_out, 1, 2,
                                      false, cuda_scratch(d)->n_sms);
    if (!is_fast) return cuda_conv_plain(d, y, x, TENSOR_NONE, w, b, TENSOR_NONE, true);
    struct tensor taps = w;
    taps.data = cuda_scratch(d)->data;
    k_phase_taps<<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>(
        (__half *)taps.data, (const __half *)w.data, n_out, n_in);
    return fast(d, &p, y, x, TENSOR_NONE, taps, b, TENSOR_NONE, TENSOR_NONE, TENSOR_NONE);
}
