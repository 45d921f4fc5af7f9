/* parts.h - which part of a stage an op belongs to, and its arithmetic. Pure.
 *
 * Ops are told in the order in which a pass calls them (ops_watch). Parts of the DiT: self and
 * cross attention and ffn with their products, the last of which is one op with the norm of what it
 * is added to; other norms, kv (writing and rotating keys and values), other (patches, head, x0).
 * Of the encoder: attention, ffn, norms, other. Of the VAE: by the size of the picture, 1x to 8x of
 * the latent's, and rgb. What is copied between two ops counts for the former.
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

/* Least bytes that an op of n tensors moves: each once, of a ring or a table only what the op is
 * about. */
double parts_bytes(const char *op, const struct tensor *t, size_t n);

/* What tells calls of one op apart: "S x O x I" of a product, "S x M x N x D" of attention,
 * "T x Y x X x O x C k3" of a convolution and "k3x3" of one that sees three frames, else the shape
 * of what it makes. */
void parts_shape(const char *op, const struct tensor *t, char *out, size_t cap);

#endif
