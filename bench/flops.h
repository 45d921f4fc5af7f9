/* flops.h - the arithmetic of one unit of each stage: what its floor is made of.
 *
 * A product of an [m, k] and a [k, n] matrix counts 2 m n k. Norms, rotations, softmax and other
 * work by element are not counted: they are small next to the products.
 */
#ifndef BENCH_FLOPS_H
#define BENCH_FLOPS_H

#include <stdbool.h>

#include "common/conf.h"

/* The encoder on n tokens: four projections, logits and their product with the values, and a
 * feed-forward of three matrices, in every layer. */
static inline double flops_text(const struct conf *c, double n)
{
    const double dim = c->text.dim, attn = (double)c->text.heads * c->text.head_dim;
    const double projections = 4 * 2 * n * dim * attn, attention = 2 * 2 * n * n * attn;
    return c->text.layers * (projections + attention + 3 * 2 * n * dim * c->text.ffn_dim);
}

/* One pass over n_frames frames that look at n_slots frames of the ring and n_text text keys. With
 * only_kv the last layer ends after q, k and v, and there is no head. */
static inline double flops_dit(const struct conf *c, double n_frames, double n_slots, double n_text,
                               bool only_kv)
{
    const double S = n_frames * conf_frame_tokens(c), M = n_slots * conf_frame_tokens(c);
    const double C = c->dit.dim, patch = 4.0 * c->model.latent_channels;
    const double qkv = 2 * S * C * 3 * C, out = 2 * S * C * C, self = 2 * 2 * S * M * C;
    const double cross = 2 * (2 * S * C * C) + 2 * 2 * S * n_text * C;
    const double ffn = 2 * (2 * S * C * c->dit.ffn_dim), rest = out + self + cross + ffn;
    const double ends = (only_kv ? 1 : 2) * (2 * S * patch * C);
    return c->dit.layers * qkv + (c->dit.layers - only_kv) * rest + ends;
}

/* All denoising passes of a block at a full window, and the clean pass after them. */
static inline double flops_dit_block(const struct conf *c, double n_steps, double n_text)
{
    return n_steps * flops_dit(c, c->dit.block, c->dit.window, n_text, false) +
           flops_dit(c, c->dit.block, c->dit.window, n_text, true);
}

/* Convolution of n positions, `taps` neighbours each. */
static inline double flops_conv(double n, double taps, double n_in, double n_out)
{
    return 2 * n * taps * n_in * n_out;
}

/* Two causal 3 x 3 x 3 convolutions, and a third of one tap where the width changes. */
static inline double flops_vae_res(double n, double n_in, double n_out)
{
    return flops_conv(n, 27, n_in, n_out) + flops_conv(n, 27, n_out, n_out) +
           (n_in == n_out ? 0 : flops_conv(n, 1, n_in, n_out));
}

/* One latent that is not a session's first, as defined: the doubled picture is convolved whole. */
static inline double flops_vae(const struct conf *c)
{
    const double z = c->model.latent_channels, b = c->vae.base_dim, top = 4 * b;
    const double width[4] = {top, top, 2 * b, b}, frames[4] = {1, 2, 4, 4};
    double P = (double)c->model.latent_rows * c->model.latent_cols;
    double sum = flops_conv(P, 1, z, z) + flops_conv(P, 27, z, top);
    sum += 2 * flops_vae_res(P, top, top);
    sum += flops_conv(P, 1, top, 3 * top) + 4 * P * P * top + flops_conv(P, 1, top, top);
    for (int i = 0; i < 4; i++, P *= 4) {
        const double n = frames[i] * P, w = width[i];
        sum += flops_vae_res(n, i ? width[i - 1] / 2 : w, w) + 2 * flops_vae_res(n, w, w);
        if (i < 2) sum += flops_conv(n, 3, w, 2 * w);
        if (i < 3) sum += flops_conv(frames[i + 1] * P * 4, 9, w, w / 2);
    }
    return sum + flops_conv(frames[3] * P / 4, 27, b, 3); /* the loop went one doubling too far */
}

#endif
