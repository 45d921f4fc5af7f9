/* latent.cu - what happens to latents between the transformer's steps, their noise, and what the
 * VAE does besides convolution. */
#include "kernels/cuda/chunk.cuh"

#include "common/rng.h"

enum { THREADS = 256 };

CUDA_FN int64_t my_index(void)
{
    return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

/* Element i of x [F, C, Y, X] as its place among the patches: row and column (c, q, r). */
template <class T>
__global__ static void k_patchify(T *y, const float *x, int n_c, int n_y, int n_x, int64_t n)
{
    const int64_t i = my_index();
    if (i >= n) return;
    const int xx = (int)(i % n_x), yy = (int)(i / n_x % n_y), c = (int)(i / n_x / n_y % n_c);
    const int64_t f = i / n_x / n_y / n_c;
    const int64_t row = (f * (n_y / 2) + yy / 2) * (n_x / 2) + xx / 2;
    set(y + (row * n_c + c) * 4 + yy % 2 * 2 + xx % 2, x[i]);
}

/* The head's columns are (q, r, c). */
__global__ static void k_unpatchify(float *y, const float *x, int n_c, int n_y, int n_x, int64_t n)
{
    const int64_t i = my_index();
    if (i >= n) return;
    const int xx = (int)(i % n_x), yy = (int)(i / n_x % n_y), c = (int)(i / n_x / n_y % n_c);
    const int64_t f = i / n_x / n_y / n_c;
    const int64_t row = (f * (n_y / 2) + yy / 2) * (n_x / 2) + xx / 2;
    y[i] = x[row * 4 * n_c + (yy % 2 * 2 + xx % 2) * n_c + c];
}

__global__ static void k_flow_to_x0(float *x0, const float *x, const float *flow, double sigma,
                                    int64_t n)
{
    const int64_t i = my_index();
    if (i < n) x0[i] = (float)__dsub_rn((double)x[i], __dmul_rn(sigma, (double)flow[i]));
}

__global__ static void k_renoise(float *y, const float *x0, const float *eps, float keep,
                                 float sigma, int64_t n)
{
    const int64_t i = my_index();
    if (i < n) y[i] = __fadd_rn(__fmul_rn(keep, x0[i]), __fmul_rn(sigma, eps[i]));
}

/* Four numbers a thread: one block of the generator. */
template <class T>
__global__ static void k_randn(T *y, const uint64_t *key, float mean, float std, int64_t n)
{
    const int64_t at = my_index();
    if (at * 4 >= n) return;
    const struct rng_key k = {key[0], key[1]};
    const struct rng_four z = rng_normal4(k, (uint64_t)at);
    for (int j = 0; j < 4 && at * 4 + j < n; j++)
        set(y + at * 4 + j, __fadd_rn(mean, __fmul_rn(std, z.z[j])));
}

template <class T>
__global__ static void k_denorm(T *y, const float *latent, const float *inv_std, const float *mean,
                                int64_t n_pixels, int n_c)
{
    const int64_t i = my_index();
    if (i >= n_pixels * n_c) return;
    const int64_t p = i / n_c, c = i % n_c;
    set(y + i, __fadd_rn(__fdiv_rn(latent[c * n_pixels + p], inv_std[c]), mean[c]));
}

/* y[2t + j, :] = x[t, :, j * C + c] */
template <class T>
__global__ static void k_split_frames(T *y, const T *x, int64_t n_pixels, int n_c, int64_t n)
{
    const int64_t i = my_index();
    if (i >= n) return;
    const int64_t c = i % n_c, p = i / n_c % n_pixels, f = i / n_c / n_pixels;
    y[i] = x[((f / 2 * n_pixels + p) * 2 + f % 2) * n_c + c];
}

/* The same, 16 bytes at once and in the order of x. per_row: chunks of C channels; n: all. */
__global__ static void k_split_chunks(uint4 *y, const uint4 *x, uint32_t n_pixels, uint32_t per_row,
                                      uint32_t n)
{
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x, row = i / per_row;
    const uint32_t t = row / (2 * n_pixels), in_t = row % (2 * n_pixels);
    if (i < n)
        y[(uint64_t)((2 * t + in_t % 2) * n_pixels + in_t / 2) * per_row + i % per_row] = x[i];
}

template <class T>
__global__ static void k_split3(T *q, T *k, T *v, const T *qkv, int n_c, int64_t n)
{
    const int64_t i = my_index();
    if (i >= n) return;
    const int64_t from = i / n_c * 3 * n_c + i % n_c;
    q[i] = qkv[from];
    k[i] = qkv[from + n_c];
    v[i] = qkv[from + 2 * n_c];
}

template <class T> __global__ static void k_to_rgb8(uint8_t *y, const T *x, int64_t n)
{
    const int64_t i = my_index();
    if (i >= n) return;
    const float v = get(x + i);
    y[i] = v != v ? 0 : (uint8_t)(255.0f * (0.5f * fminf(fmaxf(v, -1.0f), 1.0f) + 0.5f));
}

#define LAUNCH(k, n) k<<<n_blocks((n), THREADS), THREADS, 0, cuda_stream(d)>>>

extern "C" err_t cuda_patchify(struct dev *d, struct tensor y, struct tensor x)
{
    const int64_t n = tensor_count(x);
    BY_TYPE(y.dtype, T,
            (LAUNCH(k_patchify<T>, n)((T *)y.data, (const float *)x.data, x.shape[1], x.shape[2],
                                      x.shape[3], n)));
    return cuda_launched("patchify");
}

extern "C" err_t cuda_unpatchify(struct dev *d, struct tensor y, struct tensor x)
{
    const int64_t n = tensor_count(y);
    LAUNCH(k_unpatchify, n)
    ((float *)y.data, (const float *)x.data, y.shape[1], y.shape[2], y.shape[3], n);
    return cuda_launched("unpatchify");
}

extern "C" err_t cuda_flow_to_x0(struct dev *d, struct tensor x0, struct tensor x,
                                 struct tensor flow, float sigma)
{
    const int64_t n = tensor_count(x0);
    LAUNCH(k_flow_to_x0, n)
    ((float *)x0.data, (const float *)x.data, (const float *)flow.data, (double)sigma, n);
    return cuda_launched("flow_to_x0");
}

extern "C" err_t cuda_renoise(struct dev *d, struct tensor y, struct tensor x0, struct tensor eps,
                              float sigma)
{
    const int64_t n = tensor_count(y);
    LAUNCH(k_renoise, n)
    ((float *)y.data, (const float *)x0.data, (const float *)eps.data, 1.0f - sigma, sigma, n);
    return cuda_launched("renoise");
}

extern "C" err_t cuda_randn(struct dev *d, struct tensor y, struct tensor key, float mean,
                            float std)
{
    const int64_t n = tensor_count(y);
    BY_TYPE(
        y.dtype, T,
        (LAUNCH(k_randn<T>, (n + 3) / 4)((T *)y.data, (const uint64_t *)key.data, mean, std, n)));
    return cuda_launched("randn");
}

extern "C" err_t cuda_denorm(struct dev *d, struct tensor y, struct tensor latent,
                             struct tensor inv_std, struct tensor mean)
{
    const int64_t n = tensor_count(y), n_pixels = (int64_t)y.shape[0] * y.shape[1];
    BY_TYPE(y.dtype, T,
            (LAUNCH(k_denorm<T>, n)((T *)y.data, (const float *)latent.data,
                                    (const float *)inv_std.data, (const float *)mean.data, n_pixels,
                                    y.shape[2])));
    return cuda_launched("denorm");
}

extern "C" err_t cuda_split_frames(struct dev *d, struct tensor y, struct tensor x)
{
    const int64_t n = tensor_count(y), n_pixels = (int64_t)y.shape[1] * y.shape[2];
    const int64_t n_chunks = (int64_t)tensor_bytes(y) / 16, n_rows = y.shape[0] * n_pixels;
    const bool is_whole = tensor_bytes(y) % (16 * (size_t)n_rows) == 0;
    if (is_whole && n_chunks < INT32_MAX && at_chunks(y.data, x.data, NULL, NULL)) {
        LAUNCH(k_split_chunks, n_chunks)
        ((uint4 *)y.data, (const uint4 *)x.data, (uint32_t)n_pixels, (uint32_t)(n_chunks / n_rows),
         (uint32_t)n_chunks);
    } else {
        BY_TYPE(y.dtype, T,
                (LAUNCH(k_split_frames<T>, n)((T *)y.data, (const T *)x.data, n_pixels, y.shape[3],
                                              n)));
    }
    return cuda_launched("split_frames");
}

extern "C" err_t cuda_split3(struct dev *d, struct tensor q, struct tensor k, struct tensor v,
                             struct tensor qkv)
{
    const int64_t n = tensor_count(q);
    BY_TYPE(q.dtype, T,
            (LAUNCH(k_split3<T>, n)((T *)q.data, (T *)k.data, (T *)v.data, (const T *)qkv.data,
                                    q.shape[1], n)));
    return cuda_launched("split3");
}

extern "C" err_t cuda_to_rgb8(struct dev *d, struct tensor y, struct tensor x)
{
    const int64_t n = tensor_count(y);
    BY_TYPE(x.dtype, T, (LAUNCH(k_to_rgb8<T>, n)((uint8_t *)y.data, (const T *)x.data, n)));
    return cuda_launched("to_rgb8");
}
