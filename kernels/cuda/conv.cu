/* conv.cu - convolution for what the tensor-core kernel does not serve, and the choice. */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 128 };

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

static err_t fast(struct dev *d, const struct conv_plan *p, struct tensor y, struct tensor x,
                  struct tensor past, struct tensor w, struct tensor b, struct tensor residual)
{
    err_t e = OK;
    CUtensorMap mx, mp, mw;
    const int32_t side = CONV_TILE + p->k - 1;
    TRY(cuda_map_pictures(&mx, x, p->chunk, side));
    TRY(cuda_map_pictures(&mp, past.data ? past : x, p->chunk, side));
    TRY(cuda_map_matrix(&mw, w.data, (int64_t)p->phases * p->n_out,
                        (int64_t)p->kt * p->k * p->k * p->n_in, p->chunk, p->n));
    TRY(cuda_conv_sm90(d, p, &mx, &mp, &mw, y.data, (const float *)b.data, residual.data,
                       y.dtype == DTYPE_F32));
out:
    return e;
}

extern "C" err_t cuda_conv3d(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                             struct tensor w, struct tensor b, struct tensor residual)
{
    struct conv_plan p;
    const bool is_half = x.dtype == DTYPE_F16 && (y.dtype == DTYPE_F16 || y.shape[3] <= 8);
    if (is_half && conv_plan_of(&p, y.shape[0], y.shape[1], y.shape[2], x.shape[3], y.shape[3],
                                w.shape[1], w.shape[2], cuda_scratch(d)->n_sms))
        return fast(d, &p, y, x, past, w, b, residual);
    return cuda_conv_plain(d, y, x, past, w, b, residual, false);
}

extern "C" err_t cuda_upsample_conv(struct dev *d, struct tensor y, struct tensor x,
                                    struct tensor w, struct tensor b)
{
    struct conv_plan p;
    const int n_in = x.shape[3], n_out = y.shape[3];
    const int64_t n = (int64_t)16 * n_out * n_in;
    const bool is_fast = x.dtype == DTYPE_F16 && n * 2 <= CUDA_SCRATCH_BYTES &&
                         conv_plan_of(&p, x.shape[0], x.shape[1], x.shape[2], n_in, n_out, 1, 2,
                                      cuda_scratch(d)->n_sms);
    if (!is_fast) return cuda_conv_plain(d, y, x, TENSOR_NONE, w, b, TENSOR_NONE, true);
    struct tensor taps = w;
    taps.data = cuda_scratch(d)->data;
    k_phase_taps<<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>(
        (__half *)taps.data, (const __half *)w.data, n_out, n_in);
    return fast(d, &p, y, x, TENSOR_NONE, taps, b, TENSOR_NONE);
}
