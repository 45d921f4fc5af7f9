/* cuda.h - inside the CUDA backend: scratch, tensor maps, the pieces of an op, and the ops.
 *
 * An op serves f32 with plain kernels, for proof, and bf16 or f16 with the fast ones where the
 * shapes allow them; the plain ones serve every shape. Valid C and C++.
 */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include <cuda.h>

#include "common/dev_cuda.h"
#include "kernels/cuda/attn_plan.h"
#include "kernels/cuda/conv_plan.h"
#include "kernels/ops_impl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Scratch of a device: what the matrix library works in, and what an op keeps between its own
 * kernels: scores of attention, parts of cut tiles. Used by one op at a time, in stream order. */
enum { CUDA_GEMM_BYTES = 32 << 20, CUDA_SCRATCH_BYTES = 160 << 20, CUDA_FLAGS = 1024 };
struct cuda_scratch {
    void *gemm;      /* CUDA_GEMM_BYTES */
    void *data;      /* CUDA_SCRATCH_BYTES */
    uint32_t *flags; /* CUDA_FLAGS, all 0 between kernels */
    int32_t n_sms;
};
const struct cuda_scratch *cuda_scratch(const struct dev *d);

/* --- tensor maps: what the tensor copy needs to know of a tensor (tma.c) ---------------------- */

/* Heads of 128 in [rows, heads, 128] bf16, read as boxes of 64 channels by `box` rows. */
err_t cuda_map_heads(CUtensorMap *m, struct tensor t, int32_t box);
/* Pictures [frames, rows, cols, channels] f16, read as boxes of chunk channels of rows x cols. */
err_t cuda_map_pictures(CUtensorMap *m, struct tensor t, int32_t chunk, int32_t rows, int32_t cols);
/* A matrix [rows, cols] f16, read as boxes of chunk columns by `box` rows. */
err_t cuda_map_matrix(CUtensorMap *m, const void *data, int64_t rows, int64_t cols, int32_t chunk,
                      int32_t box);

/* --- matrix products (gemm.c) ----------------------------------------------------------------- */

/* What its library is called: opened there, and before that by whoever has time. */
#define CUDA_GEMM_LIBRARY "libcublasLt.so.13"
err_t cuda_gemm_open(struct dev *d);
void cuda_gemm_close(struct dev *d);
/* ops_choices. */
size_t cuda_choices_bytes(void);
void cuda_choices(struct dev *d, void *memory);

enum cuda_epilogue { CUDA_PLAIN, CUDA_GELU };

/* y[s, o] = epilogue(alpha * sum_i x[s, i] w[o, i] + b[o]) + beta * y[s, o], beta 0 or 1.
 *   y [S, O] f32, or the type of x;  x [S, I], w [O, I] of one type;  b [O] of y's type or NULL
 * strides in elements from row to row; batches of them at a distance. */
struct cuda_gemm {
    enum dtype type, y_type;
    int32_t S, O, I, n_batches;
    int64_t x_stride, w_stride, y_stride, x_batch, w_batch, y_batch;
    bool w_is_cols; /* w is [I, O] */
    enum cuda_epilogue epilogue;
    float alpha, beta;
    const void *x, *w;
    void *y;
    const void *b; /* of y_type, or NULL */
};
err_t cuda_gemm(struct dev *d, const struct cuda_gemm *g);

/* --- kernels that ops are put together from --------------------------------------------------- */

/* y[s, :] += gate * (z[s, :] + b), z of type `type`; b any float or absent, gate or NULL. */
err_t cuda_gate_add(struct dev *d, struct tensor y, const void *z, enum dtype type, struct tensor b,
                    const float *gate);
/* The same with y f32 and z of h's type, and h = the norm of what y has become:
 * ops_linear_add_norm. */
err_t cuda_gate_add_norm(struct dev *d, struct tensor y, const void *z, struct tensor b,
                         const float *gate, struct tensor h, struct tensor scale,
                         struct tensor shift, bool is_modulated, float eps);
/* y = y + b, or gelu(y + b); b any float or absent. */
err_t cuda_bias_act(struct dev *d, struct tensor y, struct tensor b, bool is_gelu);
/* Softmax over the rows of logits f32 [n, rows, keys], with what T5 adds, into p of type `type`. */
struct cuda_softmax {
    const float *logits;
    void *p;
    enum dtype type;
    int32_t n, rows, keys;
    int32_t first_head, first_row; /* of all, for the bias */
    const float *table;            /* [buckets, heads] or NULL */
    int32_t n_heads;
    uint8_t bucket[129]; /* of a distance up to 128 */
    int32_t half;        /* buckets / 2 */
};
err_t cuda_softmax(struct dev *d, const struct cuda_softmax *s);
/* Attention a row at a time, any type and shape. */
err_t cuda_attn_plain(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                      struct tensor v, const int32_t *n_keys, const float *last_bias, float scale);
/* T5's attention of heads of T5_HEAD in bf16 or f16, whose data lie at whole 16 bytes. Of s: keys,
 * table, n_heads, bucket, half. */
enum { T5_HEAD = 64 };
err_t cuda_attn_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                   struct tensor v, const struct cuda_softmax *s);
err_t cuda_attn_sm90(struct dev *d, const struct attn_plan *plan, struct tensor o,
                     const CUtensorMap *q, const CUtensorMap *k, const CUtensorMap *v,
                     const int32_t *n_keys, const float *last_bias, float scale, float *part_o,
                     float *part_ml);
err_t cuda_conv_plain(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                      struct tensor w, struct tensor b, struct tensor residual, bool is_upsampled);
/* h: only where a tile has all channels of its pixels, plan.n == plan.n_out.
 * parts: room for CONV_PARTS_MAX parts of a tile; flags: two for each. The maps are those of x,
 * past and the weights as conv.cu makes them. */
struct cuda_conv {
    struct conv_plan p;
    CUtensorMap x, past, w;
    void *y;
    const float *bias;
    const void *residual; /* f16, or NULL */
    void *h;              /* f16, silu(norm(y)) by gamma, and then y may be NULL; or NULL */
    const float *gamma;
    float *parts;
    uint32_t *flags;
    int is_f32; /* y, else f16 */
};
err_t cuda_conv_sm90(struct dev *d, const struct cuda_conv *c);

/* --- the ops, as in ops.h --------------------------------------------------------------------- */

err_t cuda_linear(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                  struct tensor b);
err_t cuda_linear_gelu(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                       struct tensor b);
err_t cuda_linear_add(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                      struct tensor b, struct tensor gate);
err_t cuda_linear_add_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                           struct tensor b, struct tensor gate, struct tensor h,
                           struct tensor scale, struct tensor shift, bool is_modulated, float eps);
err_t cuda_rms_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w, float eps);
err_t cuda_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                      struct tensor b, float eps);
err_t cuda_norm_modulate(struct dev *d, struct tensor y, struct tensor x, struct tensor scale,
                         struct tensor shift, float eps);
err_t cuda_l2_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor g, int with_silu);
err_t cuda_silu(struct dev *d, struct tensor y, struct tensor x);
err_t cuda_cast(struct dev *d, struct tensor y, struct tensor x);
err_t cuda_add(struct dev *d, struct tensor y, struct tensor a, struct tensor b);
err_t cuda_gelu_mul(struct dev *d, struct tensor y, struct tensor a, struct tensor g);
err_t cuda_embed(struct dev *d, struct tensor y, struct tensor table, struct tensor ids);
err_t cuda_attention(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                     struct tensor v, struct tensor n_keys, struct tensor last_bias, float scale);
err_t cuda_attention_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                        struct tensor v, struct tensor table);
err_t cuda_qkv_rope_cache(struct dev *d, struct tensor q, struct tensor k_ring,
                          struct tensor v_ring, struct tensor k_sink, struct tensor qkv,
                          struct tensor wq, struct tensor wk, struct tensor slots,
                          struct tensor rot_t, struct tensor rot_yx, int32_t n_rows, int32_t n_cols,
                          float eps);
err_t cuda_rope_sink(struct dev *d, struct tensor k_ring, struct tensor k_sink, struct tensor rot_t,
                     struct tensor rot_yx, int32_t n_rows, int32_t n_cols);
err_t cuda_patchify(struct dev *d, struct tensor y, struct tensor x);
err_t cuda_unpatchify(struct dev *d, struct tensor y, struct tensor x);
err_t cuda_flow_to_x0(struct dev *d, struct tensor x0, struct tensor x, struct tensor flow,
                      float sigma);
err_t cuda_renoise(struct dev *d, struct tensor y, struct tensor x0, struct tensor eps,
                   float sigma);
err_t cuda_randn(struct dev *d, struct tensor y, struct tensor key, float mean, float std);
err_t cuda_denorm(struct dev *d, struct tensor y, struct tensor latent, struct tensor inv_std,
                  struct tensor mean);
err_t cuda_conv3d(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                  struct tensor w, struct tensor b, struct tensor residual);
err_t cuda_conv3d_norm(struct dev *d, struct tensor h, struct tensor x, struct tensor past,
                       struct tensor w, struct tensor b, struct tensor residual, struct tensor g,
                       struct tensor y);
err_t cuda_upsample_conv(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                         struct tensor b);
err_t cuda_split_frames(struct dev *d, struct tensor y, struct tensor x);
err_t cuda_split3(struct dev *d, struct tensor q, struct tensor k, struct tensor v,
                  struct tensor qkv);
err_t cuda_to_rgb8(struct dev *d, struct tensor y, struct tensor x);

#ifdef __cplusplus
}
#endif
#endif
