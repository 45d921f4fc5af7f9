/* cpu.h - inside the CPU backend: scratch, chunks, the two matrix products, and the ops.
 *
 * Work is cut into chunks whose size follows from the shapes alone, each chunk is done by one
 * thread from start to end, and BLAS runs on that thread. So the result does not depend on how
 * many threads there are.
 */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "kernels/ops_impl.h"

/* Scratch of one thread: 4 MiB. */
enum { CPU_SLOT_FLOATS = 1 << 20 };

/* BLAS on the calling thread only. */
void cpu_blas_open(void);

/* The scratch of all threads of a device, and in it the slot of the calling OpenMP thread. What a
 * slot holds when a chunk starts is undefined. */
float *cpu_scratch(const struct dev *d);
float *cpu_slot(float *scratch);

/* Whether results are rounded to bf16: the `is_bf16` of keep (math.h). */
bool cpu_is_bf16(const struct dev *d);

/* n in equal chunks of at most max: the size of all but the last. */
static inline int32_t cpu_chunk(int64_t n, int64_t max)
{
    const int64_t n_chunks = (n + max - 1) / max;
    return (int32_t)((n + n_chunks - 1) / n_chunks);
}

static inline int64_t cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t cpu_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Matrices by their first element and the distance between rows. */
struct cpu_mat {
    const float *at;
    int64_t stride;
};

/* c[m, n] = alpha * a[m, k] b[n, k]^T + beta * c; beta 0 or 1, and 0 does not read c. */
void cpu_mul_nt(float *c, int64_t c_stride, struct cpu_mat a, struct cpu_mat b, int32_t m,
                int32_t n, int32_t k, float alpha, float beta);
/* c[m, n] = a[m, k] b[k, n] */
void cpu_mul_nn(float *c, int64_t c_stride, struct cpu_mat a, struct cpu_mat b, int32_t m,
                int32_t n, int32_t k);

/* y [m, n] rounded to bf16. */
void cpu_keep_rows(float *y, int64_t stride, int32_t m, int32_t n);

/* The ops, as in ops.h. */
err_t cpu_keep_all(struct dev *d, struct tensor x);
err_t cpu_linear(struct dev *d, struct tensor y, struct tensor x, struct tensor w, struct tensor b);
err_t cpu_linear_gelu(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                      struct tensor b);
err_t cpu_linear_add(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                     struct tensor b, struct tensor gate);
err_t cpu_linear_add_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                          struct tensor b, struct tensor gate, struct tensor h, struct tensor scale,
                          struct tensor shift, bool is_modulated, float eps);
err_t cpu_rms_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w, float eps);
err_t cpu_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                     struct tensor b, float eps);
err_t cpu_norm_modulate(struct dev *d, struct tensor y, struct tensor x, struct tensor scale,
                        struct tensor shift, float eps);
err_t cpu_l2_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor g, int with_silu);
err_t cpu_silu(struct dev *d, struct tensor y, struct tensor x);
err_t cpu_cast(struct dev *d, struct tensor y, struct tensor x);
err_t cpu_add(struct dev *d, struct tensor y, struct tensor a, struct tensor b);
err_t cpu_gelu_mul(struct dev *d, struct tensor y, struct tensor a, struct tensor g);
err_t cpu_embed(struct dev *d, struct tensor y, struct tensor table, struct tensor ids);
err_t cpu_attention(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                    struct tensor v, struct tensor n_keys, struct tensor last_bias, float scale);
err_t cpu_attention_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                       struct tensor v, struct tensor table);
err_t cpu_qkv_rope_cache(struct dev *d, struct tensor q, struct tensor k_ring, struct tensor v_ring,
                         struct tensor k_sink, struct tensor qkv, struct tensor wq,
                         struct tensor wk, struct tensor slots, struct tensor rot_t,
                         struct tensor rot_yx, int32_t n_rows, int32_t n_cols, float eps);
err_t cpu_rope_sink(struct dev *d, struct tensor k_ring, struct tensor k_sink, struct tensor rot_t,
                    struct tensor rot_yx, int32_t n_rows, int32_t n_cols);
err_t cpu_patchify(struct dev *d, struct tensor y, struct tensor x);
err_t cpu_unpatchify(struct dev *d, struct tensor y, struct tensor x);
err_t cpu_flow_to_x0(struct dev *d, struct tensor x0, struct tensor x, struct tensor flow,
                     float sigma);
err_t cpu_renoise(struct dev *d, struct tensor y, struct tensor x0, struct tensor eps, float sigma);
err_t cpu_randn(struct dev *d, struct tensor y, struct tensor key, float mean, float std);
err_t cpu_denorm(struct dev *d, struct tensor y, struct tensor latent, struct tensor inv_std,
                 struct tensor mean);
err_t cpu_conv3d(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                 struct tensor w, struct tensor b, struct tensor residual);
err_t cpu_conv3d_norm(struct dev *d, struct tensor h, struct tensor x, struct tensor past,
                      struct tensor w, struct tensor b, struct tensor residual, struct tensor g,
                      struct tensor y);
err_t cpu_upsample_conv(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                        struct tensor b);
err_t cpu_split_frames(struct dev *d, struct tensor y, struct tensor x);
err_t cpu_split3(struct dev *d, struct tensor q, struct tensor k, struct tensor v,
                 struct tensor qkv);
err_t cpu_to_rgb8(struct dev *d, struct tensor y, struct tensor x);

#endif
