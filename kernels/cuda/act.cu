/* act.cu - elementwise ops, and what is added to a matrix product. */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256 };

CUDA_FN int64_t my_index(void)
{
    return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

template <class T> __global__ static void k_silu(T *y, const T *x, int64_t n)
{
    const int64_t i = my_index();
    if (i < n) set(y + i, silu(get(x + i)));
}

template <class Y, class X> __global__ static void k_cast(Y *y, const X *x, int64_t n)
{
    const int64_t i = my_index();
    if (i < n) set(y + i, get(x + i));
}

__global__ static void k_add(float *y, const float *a, const float *b, int64_t n)
{
    const int64_t i = my_index();
    if (i < n) y[i] = a[i] + b[i];
}

template <class T> __global__ static void k_gelu_mul(T *y, const T *a, const T *g, int64_t n)
{
    const int64_t i = my_index();
    if (i < n) set(y + i, get(a + i) * gelu(get(g + i)));
}

/* A token a row of blocks: embeddings are long. */
template <class T>
__global__ static void k_embed(float *y, const T *table, const int32_t *ids, int n)
{
    const int64_t row = blockIdx.y;
    const int c = (int)blockIdx.x * THREADS + (int)threadIdx.x;
    if (c < n) y[row * n + c] = get(table + (int64_t)ids[row] * n + c);
}

/* y += gate * (z + b), four columns a thread. n_cols is a multiple of 4. */
template <class Y, class Z, class B>
__global__ static void k_gate_add(Y *y, const Z *z, const B *b, const float *gate, int64_t n_fours,
                                  int n_cols)
{
    const int64_t i = my_index();
    if (i >= n_fours) return;
    const int c = (int)(i * 4 % n_cols);
    float4 v = get4(z + i * 4);
    const float4 old = get4(y + i * 4);
    if (b) {
        const float4 add = get4(b + c);
        v = make_float4(v.x + add.x, v.y + add.y, v.z + add.z, v.w + add.w);
    }
    if (gate) {
        const float4 k = get4(gate + c);
        v = make_float4(v.x * k.x, v.y * k.y, v.z * k.z, v.w * k.w);
    }
    set4(y + i * 4, make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w));
}

template <class Y, class Z, class B>
__global__ static void k_gate_add_odd(Y *y, const Z *z, const B *b, const float *gate, int64_t n,
                                      int n_cols)
{
    const int64_t i = my_index();
    if (i >= n) return;
    const int c = (int)(i % n_cols);
    const float v = get(z + i) + (b ? get(b + c) : 0.0f);
    set(y + i, get(y + i) + (gate ? gate[c] * v : v));
}

template <class Y, class B>
__global__ static void k_bias_act(Y *y, const B *b, int64_t n, int n_cols, bool is_gelu)
{
    const int64_t i = my_index();
    if (i >= n) return;
    const float v = get(y + i) + (b ? get(b + i % n_cols) : 0.0f);
    set(y + i, is_gelu ? gelu(v) : v);
}

extern "C" err_t cuda_silu(struct dev *d, struct tensor y, struct tensor x)
{
    const int64_t n = tensor_count(x);
    k_silu<<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>((float *)y.data,
                                                                 (const float *)x.data, n);
    return cuda_launched("silu");
}

extern "C" err_t cuda_cast(struct dev *d, struct tensor y, struct tensor x)
{
    const int64_t n = tensor_count(y);
    BY_TYPE(y.dtype, Y,
            BY_TYPE(x.dtype, X,
                    (k_cast<Y, X><<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>(
                        (Y *)y.data, (const X *)x.data, n))));
    return cuda_launched("cast");
}

extern "C" err_t cuda_add(struct dev *d, struct tensor y, struct tensor a, struct tensor b)
{
    const int64_t n = tensor_count(y);
    k_add<<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>(
        (float *)y.data, (const float *)a.data, (const float *)b.data, n);
    return cuda_launched("add");
}

extern "C" err_t cuda_gelu_mul(struct dev *d, struct tensor y, struct tensor a, struct tensor g)
{
    const int64_t n = tensor_count(y);
    BY_TYPE(y.dtype, T,
            (k_gelu_mul<T><<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>(
                (T *)y.data, (const T *)a.data, (const T *)g.data, n)));
    return cuda_launched("gelu_mul");
}

extern "C" err_t cuda_embed(struct dev *d, struct tensor y, struct tensor table, struct tensor ids)
{
    const int n = y.shape[1];
    const dim3 grid(n_blocks(n, THREADS), (unsigned)y.shape[0]);
    BY_TYPE(table.dtype, T,
            (k_embed<T><<<grid, THREADS, 0, cuda_stream(d)>>>(
                (float *)y.data, (const T *)table.data, (const int32_t *)ids.data, n)));
    return cuda_launched("embed");
}

template <class Y, class Z, class B>
static void gate_add(struct dev *d, struct tensor y, const void *z, const void *b,
                     const float *gate)
{
    const int n_cols = y.shape[1];
    const int64_t n = tensor_count(y);
    if (n_cols % 4 == 0)
        k_gate_add<Y, Z, B><<<n_blocks(n / 4, THREADS), THREADS, 0, cuda_stream(d)>>>(
            (Y *)y.data, (const Z *)z, (const B *)b, gate, n / 4, n_cols);
    else
        k_gate_add_odd<Y, Z, B><<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>(
            (Y *)y.data, (const Z *)z, (const B *)b, gate, n, n_cols);
}

extern "C" err_t cuda_gate_add(struct dev *d, struct tensor y, const void *z, enum dtype type,
                               struct tensor b, const float *gate)
{
    BY_TYPE(y.dtype, Y,
            BY_TYPE(type, Z,
                    BY_TYPE(b.data ? b.dtype : DTYPE_F32, B,
                            (gate_add<Y, Z, B>(d, y, z, b.data, gate)))));
    return cuda_launched("gate_add");
}

extern "C" err_t cuda_bias_act(struct dev *d, struct tensor y, struct tensor b, bool is_gelu)
{
    const int64_t n = tensor_count(y);
    BY_TYPE(y.dtype, Y,
            BY_TYPE(b.data ? b.dtype : DTYPE_F32, B,
                    (k_bias_act<Y, B><<<n_blocks(n, THREADS), THREADS, 0, cuda_stream(d)>>>(
                        (Y *)y.data, (const B *)b.data, n, y.shape[y.rank - 1], is_gelu))));
    return cuda_launched("bias");
}
