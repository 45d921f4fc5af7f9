/* latents.h - region `latents.N`: the clean latents of a stream, the truth that KV cache and VAE
 * state can be rebuilt from. Written by dit before it commits a block, read by dit and vae.
 *
 * A ring of conf.dit.ring_latents slots; latent l (counted over the ledger) is in slot l mod ring:
 * f32 [channels, rows, cols].
 */
#ifndef IPC_LATENTS_H
#define IPC_LATENTS_H

#include <stdint.h>

#include "common/conf.h"

/* LATENTS_OF_VAE_STATE: decoding that many latents from an empty state leaves the state that a
 * whole decode has, to the bit: the sum of what the decoder's time convolutions look back. So dit
 * keeps them behind the VAE's position. */
enum { LATENTS_LAYOUT = 1, LATENTS_OF_VAE_STATE = 38 };

struct latents {
    float *data;
    int64_t n_slots, n_values; /* f32 values of one latent */
};

static inline int64_t latents_values(const struct conf *c)
{
    return (int64_t)c->model.latent_channels * c->model.latent_rows * c->model.latent_cols;
}

static inline uint64_t latents_bytes(const struct conf *c)
{
    return (uint64_t)c->dit.ring_latents * (uint64_t)latents_values(c) * sizeof(float);
}

static inline void latents_open(struct latents *l, const struct conf *c, void *base)
{
    *l = (struct latents){base, c->dit.ring_latents, latents_values(c)};
}

static inline float *latents_at(const struct latents *l, int64_t latent)
{
    return l->data + latent % l->n_slots * l->n_values;
}

#endif
