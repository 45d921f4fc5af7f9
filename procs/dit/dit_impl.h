/* dit_impl.h - inside the DiT: the model itself, and what of it is weights. */
#ifndef PROCS_DIT_DIT_IMPL_H
#define PROCS_DIT_DIT_IMPL_H

#include "procs/dit/dit.h"
#include "procs/dit/passes.h"

enum { SHIFT1, SCALE1, GATE1, SHIFT2, SCALE2, GATE2, MODS };

struct dit_layer {
    struct tensor modulation;       /* [MODS, C] */
    struct tensor qkv_w, qkv_b;     /* [3C, C], [3C] */
    struct tensor norm_q, norm_k;   /* [C] */
    struct tensor o_w, o_b;         /* [C, C], [C] */
    struct tensor norm3_w, norm3_b; /* [C] */
    struct tensor xq_w, xq_b, xk_w, xk_b, xv_w, xv_b, xo_w, xo_b, xnorm_q, xnorm_k;
    struct tensor ffn0_w, ffn0_b, ffn2_w, ffn2_b; /* [ffn, C], [ffn], [C, ffn], [C] */
    struct tensor cross_k, cross_v;               /* [text_len + 1, C], derived from the prompt */
};

struct dit {
    struct dev *d;
    enum dtype act; /* of activations, weights, keys and values; the residual stream is f32 */
    int32_t C, heads, ffn, layers, freq_dim, z, rows, cols, text_len, text_dim, frame_tokens;
    int32_t window_max, block, pairs_t, pairs_s; /* rotary pairs: time, row and column */
    struct sched sched;
    const struct kv *kv;

    struct tensor patch_w, patch_b, text0_w, text0_b, text2_w, text2_b;
    struct tensor time0_w, time0_b, time2_w, time2_b, time_proj_w, time_proj_b;
    struct tensor head_mod, head_w, head_b;

    void *memory;                                  /* one allocation holds all that follows */
    struct tensor mod;                             /* [timesteps, layers * MODS + 2, C] */
    struct tensor mod_now;                         /* the rows of the step in hand */
    struct tensor time_s, time_e, time_h, time_e0; /* dit_prepare's scratch */
    struct tensor x, h, qkv, q, o, f, patch, out;  /* activations, window frames of tokens */
    struct tensor text_in, text_mid, text_c;       /* the prompt's MLP, text_len + 1 rows */
    struct tensor slots, n_keys, pad_bias;         /* i32 [window], i32 [1], f32 [1] */
    struct tensor rot_t, rot_sink, rot_yx;         /* [window, pt, 2] twice, [G, ps, 2] */

    struct tensor x_in, flow; /* f32 [window, z, rows, cols]: a pass's input and output */
    struct passes passes;

    struct pass *clean; /* dit_clean_begin's */

    int32_t n_text_keys;
    void (*beat)(void *self);
    void *beat_self;
    err_t (*before)(void *self, int32_t layer); /* or NULL */
    void *before_self;
    struct dit_layer layer[];
};

/* Rooms and names of all weights, as they are in the checkpoints. */
MUST_USE err_t dit_declare(struct dit *m, struct weights *w);

#endif
