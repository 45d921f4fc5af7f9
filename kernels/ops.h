/* ops.h - every numeric operation the models use; one contract, one backend a device kind.
 *
 * Letters: S tokens or rows, N heads, D head dim, C channels (columns), F frames, Y X rows and
 * columns of a picture, M keys, T pixel or feature frames in time. Tensors are dense, row-major,
 * f32 unless said otherwise, in device memory. Pictures are channels-last: [T, Y, X, C].
 *
 * An op reads and writes only what it names, allocates nothing (a backend has one scratch arena
 * per device, sized by ops_open), and is asynchronous: its result is there after dev_sync, or for
 * work queued later on the same device. Output and input do not overlap unless said otherwise.
 * What may change from one call of a captured pass to the next (ring slots, positions, number of
 * keys, noise counters) is read from device memory; what is passed by value is fixed for a model.
 *
 * Results do not depend on the number of threads: every reduction has a fixed order, and rows are
 * shared out in chunks whose size is fixed.
 *
 * Every op may return ERR_SHAPE (the tensors break the contract) and ERR_DEVICE.
 */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include <stdbool.h>

#include "common/dev.h"
#include "common/err.h"
#include "common/rng.h"
#include "common/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Scratch for the ops of one device: convolution patches, attention scores. Allocated once. A
 * device without it answers every op with ERR_BUG. Close before dev_close. */
MUST_USE err_t ops_open(struct dev *d);
void ops_close(struct dev *d);
/* Begins, on a thread of its own, to load what ops on a device of this name need and what can be
 * loaded before it is open. Optional, once a process; ops_open waits for what it needs. */
void ops_load(const char *device);

/* What a library was asked once, and need not be asked again by the next process on this device:
 * which algorithm each kind of matrix product gets. ops_choices_bytes: memory for it, 0 where no
 * library is asked, and then ops_choices is not called. ops_choices: that much, aligned as malloc's
 * is, zeros or what an earlier process has left there; it is the caller's, and stays until
 * ops_close. Products of a kind that is in it have the same algorithm, and so the same bits; new
 * kinds are added while there is room, and a process that dies while it adds one leaves the rest
 * whole. What another version of the library chose is forgotten. One process at a time; after
 * ops_open, before the first op. */
size_t ops_choices_bytes(const struct dev *d);
void ops_choices(struct dev *d, void *memory);

/* --- rounding --------------------------------------------------------------------------------
 * A device of f32 tensors can repeat a model that ran in bf16: with bf16 on, what an op makes, and
 * what it makes on the way, is rounded to bf16 wherever PyTorch's bf16 modules round (to nearest,
 * ties to even). "keep" below stands for that rounding, and for nothing while bf16 is off, as it is
 * after ops_open. A device whose tensors are bf16 rounds by their type and ignores this. */
void ops_set_bf16(struct dev *d, bool is_on);
/* x = keep(x), for what no op made: weights, noise, constants. */
MUST_USE err_t ops_keep(struct dev *d, struct tensor x);

/* Ops run on this process's devices since start; the proof that a cache hit ran none. */
uint64_t ops_count(void);

/* Each op says to seen what it is before it is queued: its tensors in the order of the call. NULL:
 * nobody is told. For benches. */
void ops_watch(void (*seen)(void *self, const char *op, const struct tensor *t, size_t n),
               void *self);

/* --- linear ----------------------------------------------------------------------------------
 * y[s,o] = keep(sum_i x[s,i] * w[o,i] + b[o])
 *   y [S, O] out;  x [S, I];  w [O, I];  b [O] or absent
 * Floor: 2*S*I*O FLOP. */
MUST_USE err_t ops_linear(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                          struct tensor b);

/* y = keep(gelu_tanh(keep(x w^T + b))), the first half of a DiT feed-forward. Shapes as ops_linear.
 * gelu_tanh(z) = 0.5 z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))): Hendrycks & Gimpel 2016. */
MUST_USE err_t ops_linear_gelu(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                               struct tensor b);

/* y[s,:] = keep(y[s,:] + keep(gate[:] * keep(x w^T + b)[s,:])); gate [O] or absent (then 1): a
 * residual branch's end. */
MUST_USE err_t ops_linear_add(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                              struct tensor b, struct tensor gate);

/* ops_linear_add, and then, of what y has become, h = norm_modulate(y, scale, shift) as below or,
 * unless is_modulated, layer_norm(y, scale, shift): a residual branch's end together with what the
 * next branch begins with. The values are those of the two ops.
 *   h [S, O] out, of x's type;  scale, shift [O];  eps > 0 */
MUST_USE err_t ops_linear_add_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                                   struct tensor b, struct tensor gate, struct tensor h,
                                   struct tensor scale, struct tensor shift, bool is_modulated,
                                   float eps);

/* --- norms ------------------------------------------------------------------------------------
 * y[s,:] = keep(keep(x[s,:] / sqrt(mean(x[s,:]^2) + eps)) * w)        eps > 0; y may be x
 * Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4. */
MUST_USE err_t ops_rms_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                            float eps);

/* y[s,:] = keep((x[s,:] - mean) / sqrt(var + eps) * w + b), biased variance; w, b [C]; y may be
 * x. */
MUST_USE err_t ops_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                              struct tensor b, float eps);

/* y[s,:] = layer_norm(x[s,:]) without weights * (1 + scale) + shift, kept after each of its four
 * operations; scale, shift [C]; y may be x.
 * adaLN: Peebles & Xie 2022, arXiv:2212.09748, section 3.2. */
MUST_USE err_t ops_norm_modulate(struct dev *d, struct tensor y, struct tensor x,
                                 struct tensor scale, struct tensor shift, float eps);

/* y[r,:] = silu?(x[r,:] / max(|x[r,:]|, 1e-12) * sqrt(C) * g), |.| the Euclidean norm over C:
 * the VAE's RMS_norm, with the SiLU that follows it when with_silu; kept after each operation, the
 * norm too. x, y [..., C]; y may be x. */
MUST_USE err_t ops_l2_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor g,
                           int with_silu);

/* --- elementwise ------------------------------------------------------------------------------
 * The result is kept; of gelu_mul, every operation of the formula as it is written above, z^3 being
 * two: PyTorch takes this power as z * z * z (aten/src/ATen/native/cpu/PowKernel.cpp). */
MUST_USE err_t ops_silu(struct dev *d, struct tensor y, struct tensor x); /* y may be x */
/* y = x, rounded to the type of y. Any float types. */
MUST_USE err_t ops_cast(struct dev *d, struct tensor y, struct tensor x);
MUST_USE err_t ops_add(struct dev *d, struct tensor y, struct tensor a, struct tensor b);
/* y = a * gelu_tanh(g): the T5 feed-forward's gate. y may be a. */
MUST_USE err_t ops_gelu_mul(struct dev *d, struct tensor y, struct tensor a, struct tensor g);

/* y[s,:] = table[ids[s],:]; table [V, C]; ids i32 [S], each in [0, V). */
MUST_USE err_t ops_embed(struct dev *d, struct tensor y, struct tensor table, struct tensor ids);

/* --- attention -------------------------------------------------------------------------------
 * o[s,n,:] = sum_m softmax_m(scale * q[s,n,:].k[m,n,:] + bias(m)) v[m,n,:]
 *   o, q [S, N, D];  k, v [M, N, D]
 *   n_keys i32 [1] or absent: how many of the M keys take part (1..M; absent: all)
 *   last_bias f32 [1] or absent: added to the logit of the last key that takes part. It lets one
 *     key stand for c equal ones: bias ln(c).
 * No mask. Kept: the exponentials before they weigh the values, but not in their sum; the result.
 * Vaswani et al. 2017, eq. 1. Floor: 4*S*M*N*D FLOP. */
MUST_USE err_t ops_attention(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                             struct tensor v, struct tensor n_keys, struct tensor last_bias,
                             float scale);

/* Attention of a T5 encoder: no scale, and a learnt bias by relative position.
 *   o, q, k, v [S, N, D];  table [B, N], B buckets, B % 4 == 0
 * logit = q.k + table[bucket(j - i), n]; with half = B/2, exact = half/2, d = |j - i|:
 *   bucket = (j > i ? half : 0) + (d < exact ? d
 *            : min(half - 1, exact + trunc(ln(d / exact) / ln(128 / exact) * (half - exact))))
 * Kept: q.k, its sum with the bias, the softmax, the result.
 * Raffel et al. 2020, section 2.1; max distance 128. For B = 32 the thresholds are
 * 8 12 16 23 32 46 64 91. */
MUST_USE err_t ops_attention_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                                struct tensor v, struct tensor table);

/* --- rotary positions and the KV ring ---------------------------------------------------------
 * One op from the QKV product to the attention's inputs.
 *   qkv    [F*Y*X, 3*C]  columns: q, k, v, each C = N*D
 *   wq, wk [C]           weights of the RMS norm over all C channels (not per head), eps
 *   slots  i32 [F]       ring slot of each frame
 *   rot_t  [F, pt, 2]    cos, sin of the temporal angle of each frame, pt pairs
 *   rot_yx [G, ps, 2]    cos, sin by row or column index, ps pairs each; G >= max(Y, X)
 *   q      [F*Y*X, N, D] out: rope(rms_norm(q))
 *   k_ring [M, N, D]     out, rows slot*Y*X .. of each frame: rope(rms_norm(k))
 *   v_ring [M, N, D]     out, the same rows: v
 *   k_sink [P, N, D] or absent   out: rms_norm(k), not rotated, for slots < P/(Y*X)
 * A head's D/2 pairs (2j, 2j+1) are split t, y, x = pt, ps, ps (pt + 2*ps == D/2); a pair (a, b)
 * becomes (a cos - b sin, a sin + b cos), kept. Token order: frame, then row, then column.
 * Su et al. 2021, arXiv:2104.09864. */
MUST_USE err_t ops_qkv_rope_cache(struct dev *d, struct tensor q, struct tensor k_ring,
                                  struct tensor v_ring, struct tensor k_sink, struct tensor qkv,
                                  struct tensor wq, struct tensor wk, struct tensor slots,
                                  struct tensor rot_t, struct tensor rot_yx, int32_t n_rows,
                                  int32_t n_cols, float eps);

/* Rotates kept sink keys to where the window has moved.
 *   k_ring [M, N, D] out, its first F*Y*X rows;  k_sink [F*Y*X, N, D] (not rotated);
 *   rot_t [F, pt, 2], rot_yx [G, ps, 2] as above. */
MUST_USE err_t ops_rope_sink(struct dev *d, struct tensor k_ring, struct tensor k_sink,
                             struct tensor rot_t, struct tensor rot_yx, int32_t n_rows,
                             int32_t n_cols);

/* --- latents ---------------------------------------------------------------------------------
 * Latents are [F, C, Y, X] (channels first), patches 1 x 2 x 2.
 * y [F*(Y/2)*(X/2), C*4], columns ordered (c, q, r), c slowest: y = x[f, c, 2h+q, 2w+r]. */
MUST_USE err_t ops_patchify(struct dev *d, struct tensor y, struct tensor x);
/* The head's inverse; its columns are ordered (q, r, c), c fastest. */
MUST_USE err_t ops_unpatchify(struct dev *d, struct tensor y, struct tensor x);

/* x0 = keep(x - sigma * flow), computed in f64, rounded once to f32. Same shapes; x0 may be x. */
MUST_USE err_t ops_flow_to_x0(struct dev *d, struct tensor x0, struct tensor x, struct tensor flow,
                              float sigma);
/* y = keep((1 - sigma) * x0 + sigma * eps): products in f32, then one sum, no fma. y may be x0. */
MUST_USE err_t ops_renoise(struct dev *d, struct tensor y, struct tensor x0, struct tensor eps,
                           float sigma);

/* y[i] = mean + std * normal(key, i), element i in memory order; rng.h. std 1, mean 0 is exact.
 * key: u64 [2] = seed, stream, in device memory. */
MUST_USE err_t ops_randn(struct dev *d, struct tensor y, struct tensor key, float mean, float std);

/* --- VAE -------------------------------------------------------------------------------------
 * y[y,x,c] = keep(keep(latent[c,y,x] / inv_std[c]) + mean[c]); y [Y, X, C]; latent [C, Y, X] of one
 * frame. */
MUST_USE err_t ops_denorm(struct dev *d, struct tensor y, struct tensor latent,
                          struct tensor inv_std, struct tensor mean);

/* Causal convolution in time, zero padding in space.
 *   y    [T, Y, X, O]   = keep(keep(conv(x) + b) (+ residual))
 *   x    [T, Y, X, C]
 *   past [kt-1, Y, X, C]  the input frames before x; oldest first
 *   w    [O, kt, k, k, C]   kt 1 or 3, k 1 or 3; tap kt-1 is the current frame
 *   b    [O];  residual [T, Y, X, O] or absent; y may be residual
 * kt == 1: past absent. Cross-correlation. Floor: 2*T*Y*X*O*C*kt*k*k FLOP. */
MUST_USE err_t ops_conv3d(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                          struct tensor w, struct tensor b, struct tensor residual);

/* ops_conv3d, and then, of what y has become, h = ops_l2_norm(y, g) with SiLU: a convolution
 * together with what the next one begins with. The values are those of the two ops.
 *   h [T, Y, X, O] out, of x's type;  g [O];  y of x's type, or absent where nobody reads it */
MUST_USE err_t ops_conv3d_norm(struct dev *d, struct tensor h, struct tensor x, struct tensor past,
                               struct tensor w, struct tensor b, struct tensor residual,
                               struct tensor g, struct tensor y);

/* Nearest-neighbour doubling of rows and columns, then a 3 x 3 convolution with zero padding 1,
 * kept.
 *   y [T, 2Y, 2X, O];  x [T, Y, X, C];  w [O, 1, 3, 3, C];  b [O] */
MUST_USE err_t ops_upsample_conv(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                                 struct tensor b);

/* y[2t + j, y, x, c] = x[t, y, x, j*C + c], j = 0, 1.  y [2T, Y, X, C];  x [T, Y, X, 2C]. */
MUST_USE err_t ops_split_frames(struct dev *d, struct tensor y, struct tensor x);

/* [S, 3C] -> three [S, C]: q, k, v of the VAE's attention. */
MUST_USE err_t ops_split3(struct dev *d, struct tensor q, struct tensor k, struct tensor v,
                          struct tensor qkv);

/* y u8 [..., 3] = trunc(255 * (0.5 * clamp(x, -1, 1) + 0.5)); NaN gives 0. */
MUST_USE err_t ops_to_rgb8(struct dev *d, struct tensor y, struct tensor x);

#ifdef __cplusplus
}
#endif
#endif
