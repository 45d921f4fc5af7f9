/* norm.cu - norms over rows: a warp a row. A row is read from memory once and then from the cache,
 * so that any length is served by the same lines.
 */
#include "kernels/cuda/cuda.cuh"

enum { ROWS = 8 }; /* a block */

/* What the norms have in common; the sum of squares is of x minus shift. */
template <class X> CUDA_FN float row_sum(const X *x, int n)
{
    float sum = 0;
    for (int c = (int)threadIdx.x % 32 * 4; c < n; c += 128) {
        const float4 v = get4(x + c);
        sum += (v.x + v.y) + (v.z + v.w);
    }
    return warp_sum(sum);
}

template <class X> CUDA_FN float row_sum_sq(const X *x, int n, float shift)
{
    float sum = 0;
    for (int c = (int)threadIdx.x % 32 * 4; c < n; c += 128) {
        const float4 v = get4(x + c);
        const float a = v.x - shift, b = v.y - shift, p = v.z - shift, q = v.w - shift;
        sum += (a * a + b * b) + (p * p + q * q);
    }
    return warp_sum(sum);
}

/* Rows whose length is no multiple of 4: the same, an element at a time. */
template <class X> CUDA_FN float row_sum_odd(const X *x, int n)
{
    float sum = 0;
    for (int c = (int)threadIdx.x % 32; c < n; c += 32) sum += get(x + c);
    return warp_sum(sum);
}

template <class X> CUDA_FN float row_sum_sq_odd(const X *x, int n, float shift)
{
    float sum = 0;
    for (int c = (int)threadIdx.x % 32; c < n; c += 32) {
        const float a = get(x + c) - shift;
        sum += a * a;
    }
    return warp_sum(sum);
}

/* y = x * k * w */
struct by_weight {
    const float *w;
    float k;
    CUDA_FN float at(const struct by_weight &s, float x, int c)
    {
        return x * s.k * s.w[c];
    }
};

/* y = silu?(x * k * w) */
struct by_weight_silu {
    const float *w;
    float k;
    CUDA_FN float at(const struct by_weight_silu &s, float x, int c)
    {
        return silu(x * s.k * s.w[c]);
    }
};

/* y = (x - mean) * k * (one + w) + b */
struct by_affine {
    const float *w, *b;
    float mean, k, one;
    CUDA_FN float at(const struct by_affine &s, float x, int c)
    {
        return (x - s.mean) * s.k * (s.one + s.w[c]) + s.b[c];
    }
};

template <class Y, class X, class F> CUDA_FN void map_row(Y *y, const X *x, int n, const F &f)
{
    if (n % 4 == 0) {
        for (int c = (int)threadIdx.x % 32 * 4; c < n; c += 128) {
            const float4 v = get4(x + c);
            set4(y + c, make_float4(F::at(f, v.x, c), F::at(f, v.y, c + 1), F::at(f, v.z, c + 2),
                                    F::at(f, v.w, c + 3)));
        }
    } else {
        for (int c = (int)threadIdx.x % 32; c < n; c += 32) set(y + c, F::at(f, get(x + c), c));
    }
}

CUDA_FN int64_t my_row(void)
{
    return (int64_t)blockIdx.x * ROWS + threadIdx.x / 32;
}

template <class Y, class X>
__global__ static void __launch_bounds__(32 * ROWS)
    k_rms_norm(Y *y, const X *x, const float *w, int64_t n_rows, int n, float eps)
{
    const int64_t r = my_row();
    if (r >= n_rows) return;
    const X *row = x + r * n;
    const float sq = n % 4 == 0 ? row_sum_sq(row, n, 0) : row_sum_sq_odd(row, n, 0);
    const struct by_weight f = {w, rsqrtf(sq / (float)n + eps)};
    map_row(y + r * n, row, n, f);
}

template <class Y>
__global__ static void __launch_bounds__(32 * ROWS)
    k_layer_norm(Y *y, const float *x, const float *w, const float *b, float one, int64_t n_rows,
                 int n, float eps)
{
    const int64_t r = my_row();
    if (r >= n_rows) return;
    const float *row = x + r * n;
    const bool is_four = n % 4 == 0;
    const float mean = (is_four ? row_sum(row, n) : row_sum_odd(row, n)) / (float)n;
    const float sq = is_four ? row_sum_sq(row, n, mean) : row_sum_sq_odd(row, n, mean);
    const struct by_affine f = {w, b, mean, rsqrtf(sq / (float)n + eps), one};
    map_row(y + r * n, row, n, f);
}

template <class X>
__global__ static void __launch_bounds__(32 * ROWS)
    k_l2_norm(X *y, const X *x, const float *g, int64_t n_rows, int n, int with_silu)
{
    const int64_t r = my_row();
    if (r >= n_rows) return;
    const X *row = x + r * n;
    const float sq = n % 4 == 0 ? row_sum_sq(row, n, 0) : row_sum_sq_odd(row, n, 0);
    const float k = sqrtf((float)n) / fmaxf(sqrtf(sq), 1e-12f);
    const struct by_weight plain = {g, k};
    const struct by_weight_silu curved = {g, k};
    if (with_silu) map_row(y + r * n, row, n, curved);
    else map_row(y + r * n, row, n, plain);
}

extern "C" err_t cuda_rms_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                               float eps)
{
    const int64_t rows = x.shape[0];
    BY_TYPE(y.dtype, Y,
            BY_TYPE(x.dtype, X,
                    (k_rms_norm<Y, X><<<n_blocks(rows, ROWS), 32 * ROWS, 0, cuda_stream(d)>>>(
                        (Y *)y.data, (const X *)x.data, (const float *)w.data, rows, x.shape[1],
                        eps))));
    return cuda_launched("rms_norm");
}

static err_t layer_norm(struct dev *d, struct tensor y, struct tensor x, const void *w,
                        const void *b, float one, float eps)
{
    const int64_t rows = x.shape[0];
    BY_TYPE(y.dtype, Y,
            (k_layer_norm<Y><<<n_blocks(rows, ROWS), 32 * ROWS, 0, cuda_stream(d)>>>(
                (Y *)y.data, (const float *)x.data, (const float *)w, (const float *)b, one, rows,
                x.shape[1], eps)));
    return cuda_launched("layer_norm");
}

extern "C" err_t cuda_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                                 struct tensor b, float eps)
{
    return layer_norm(d, y, x, w.data, b.data, 0.0f, eps);
}

extern "C" err_t cuda_norm_modulate(struct dev *d, struct tensor y, struct tensor x,
                                    struct tensor scale, struct tensor shift, float eps)
{
    return layer_norm(d, y, x, scale.data, shift.data, 1.0f, eps);
}

extern "C" err_t cuda_l2_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor g,
                              int with_silu)
{
    const int n = x.shape[x.rank - 1];
    const int64_t rows = tensor_count(x) / n;
    BY_TYPE(x.dtype, X,
            (k_l2_norm<X><<<n_blocks(rows, ROWS), 32 * ROWS, 0, cuda_stream(d)>>>(
                (X *)y.data, (const X *)x.data, (const float *)g.data, rows, n, with_silu)));
    return cuda_launched("l2_norm");
}
