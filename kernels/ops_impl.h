/* ops_impl.h - the table that a backend fills: one function an op, same arguments as ops.h.
 *
 * ops.c checks shapes and types once for all backends and forwards; a backend checks only what its
 * own tiling adds. `scratch` is what ops_open made on the device.
 */
#ifndef KERNELS_OPS_IMPL_H
#define KERNELS_OPS_IMPL_H

#include "kernels/ops.h"

struct ops {
    void (*load)(void);
    err_t (*open)(struct dev *d);
    void (*close)(struct dev *d);
    size_t (*choices_bytes)(void);
    void (*choices)(struct dev *d, void *memory);
    /* Both NULL in a backend that rounds by its tensors' types. */
    void (*set_bf16)(struct dev *d, bool is_on);
    err_t (*keep)(struct dev *d, struct tensor x);
    err_t (*linear)(struct dev *, struct tensor y, struct tensor x, struct tensor w,
                    struct tensor b);
    err_t (*linear_gelu)(struct dev *, struct tensor y, struct tensor x, struct tensor w,
                         struct tensor b);
    err_t (*linear_add)(struct dev *, struct tensor y, struct tensor x, struct tensor w,
                        struct tensor b, struct tensor gate);
    err_t (*linear_add_norm)(struct dev *, struct tensor y, struct tensor x, struct tensor w,
                             struct tensor b, struct tensor gate, struct tensor h,
                             struct tensor scale, struct tensor shift, bool is_modulated,
                             float eps);
    err_t (*rms_norm)(struct dev *, struct tensor y, struct tensor x, struct tensor w, float eps);
    err_t (*layer_norm)(struct dev *, struct tensor y, struct tensor x, struct tensor w,
                        struct tensor b, float eps);
    err_t (*norm_modulate)(struct dev *, struct tensor y, struct tensor x, struct tensor scale,
                           struct tensor shift, float eps);
    err_t (*l2_norm)(struct dev *, struct tensor y, struct tensor x, struct tensor g,
                     int with_silu);
    err_t (*silu)(struct dev *, struct tensor y, struct tensor x);
    err_t (*cast)(struct dev *, struct tensor y, struct tensor x);
    err_t (*add)(struct dev *, struct tensor y, struct tensor a, struct tensor b);
    err_t (*gelu_mul)(struct dev *, struct tensor y, struct tensor a, struct tensor g);
    err_t (*embed)(struct dev *, struct tensor y, struct tensor table, struct tensor ids);
    err_t (*attention)(struct dev *, struct tensor o, struct tensor q, struct tensor k,
                       struct tensor v, struct tensor n_keys, struct tensor last_bias, float scale);
    err_t (*attention_t5)(struct dev *, struct tensor o, struct tensor q, struct tensor k,
                          struct tensor v, struct tensor table);
    err_t (*qkv_rope_cache)(struct dev *, struct tensor q, struct tensor k_ring,
                            struct tensor v_ring, struct tensor k_sink, struct tensor qkv,
                            struct tensor wq, struct tensor wk, struct tensor slots,
                            struct tensor rot_t, struct tensor rot_yx, int32_t n_rows,
                            int32_t n_cols, float eps);
    err_t (*rope_sink)(struct dev *, struct tensor k_ring, struct tensor k_sink,
                       struct tensor rot_t, struct tensor rot_yx, int32_t n_rows, int32_t n_cols);
    err_t (*patchify)(struct dev *, struct tensor y, struct tensor x);
    err_t (*unpatchify)(struct dev *, struct tensor y, struct tensor x);
    err_t (*flow_to_x0)(struct dev *, struct tensor x0, struct tensor x, struct tensor flow,
                        float sigma);
    err_t (*renoise)(struct dev *, struct tensor y, struct tensor x0, struct tensor eps,
                     float sigma);
    err_t (*randn)(struct dev *, struct tensor y, struct tensor key, float mean, float std);
    err_t (*denorm)(struct dev *, struct tensor y, struct tensor latent, struct tensor inv_std,
                    struct tensor mean);
    err_t (*conv3d)(struct dev *, struct tensor y, struct tensor x, struct tensor past,
                    struct tensor w, struct tensor b, struct tensor residual);
    err_t (*conv3d_norm)(struct dev *, struct tensor h, struct tensor x, struct tensor past,
                         struct tensor w, struct tensor b, struct tensor residual, struct tensor g,
                         struct tensor y);
    err_t (*upsample_conv)(struct dev *, struct tensor y, struct tensor x, struct tensor w,
                           struct tensor b);
    err_t (*split_frames)(struct dev *, struct tensor y, struct tensor x);
    err_t (*split3)(struct dev *, struct tensor q, struct tensor k, struct tensor v,
                    struct tensor qkv);
    err_t (*to_rgb8)(struct dev *, struct tensor y, struct tensor x);
};

extern const struct ops ops_cpu;
/* In programs that are linked with it; else its address is NULL. */
extern const struct ops ops_cuda __attribute__((weak));

#endif
