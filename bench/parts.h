/* parts.h - which part of a stage an op belongs to, and its arithmetic. Pure.
 *
 * Ops are told in the order in which a pass calls them (ops_watch). Parts of the DiT: self and
 * cross attention with their projections, ffn, norms, kv (writing and rotating keys and values),
 * other (patches, head, x0). Of the encoder: attention, ffn, norms, other. Of the VAE: by the size
 * of the picture, 1x to 8x of the latent's, and rgb. What is copied between two ops counts for the
 * former.
 */
#ifndef BENCH_PARTS_H
#define BENCH_PARTS_H

#include "common/tensor.h"

struct parts {
    int32_t latent_rows, latent_cols; /* VAE */
    const char *section;              /* where the pass has come to */
};

/* t: the op's tensors; a part's name lives for ever. */
const char *parts_of_dit(struct parts *p, const char *op, const struct tensor *t);
const char *parts_of_text(struct parts *p, const char *op, const struct tensor *t);
const char *parts_of_vae(struct parts *p, const char *op, const struct tensor *t);

/* FLOP of an op's products, 2 a multiply and add; 0 for an op without. Attention counts all keys
 * that it is given. */
double parts_flops(const char *op, const struct tensor *t);

#endif
