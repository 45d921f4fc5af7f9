/* edge.h - region `edge.N`: latents on their way from dit to vae when both compute on GPUs.
 *
 * A ring on vae's device that both map. dit copies a block's latents there, and to region
 * `latents`, before it commits the block: the one commit makes both visible, and nothing on a GPU
 * ever waits for a peer. The ring has a slot for each latent that dit may be ahead of vae
 * (plan_next), so none is overwritten before it is decoded.
 *
 * Region `latents` stays the truth. vae takes from there what the edge does not hold: latents from
 * before this memory was made, latents that it decodes again to restore its state, and all of them
 * where there is no edge: a stage on the CPU, GPUs that do not reach each other's memory, a system
 * that lets no process map another's.
 */
#ifndef IPC_EDGE_H
#define IPC_EDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "ipc/keeper.h"
#include "ipc/latents.h"
#include "ipc/ledger.h"

enum { EDGE_LAYOUT = 1 };

struct edge {
    struct region region; /* generation 0, no data: there is no edge */
    struct latents ring;  /* f32 [channels, rows, cols] a slot, on vae's device */
};

static inline int64_t edge_slots(const struct conf *c)
{
    return c->dit.ring_latents - LATENTS_OF_VAE_STATE;
}

/* Bytes on vae's device, which is d or the peer of d; 0: there is no edge between these. */
uint64_t edge_bytes(const struct conf *c, struct dev *d);

/* For dit and for vae, each with its own device. Where there is no edge, and where it cannot be
 * mapped, which is logged, *out stays empty. */
MUST_USE err_t edge_open(struct edge *out, struct keeper *k, struct dev *d, const struct conf *c);
void edge_close(struct edge *e); /* NULL-safe; the memory stays */

/* dit, on opening: whatever it commits from now on is in the edge of this generation, or in none
 * (0). What an earlier dit has put into the same memory stays there. */
void edge_begin(struct ledger *l, uint64_t generation);

/* vae, of a latent that is committed: is it in the edge of this generation? */
bool edge_holds(const struct ledger *l, const struct conf *c, uint64_t generation, int64_t latent);

/* Do both use the same one? For status. */
static inline bool edge_is_used(const struct ledger *l)
{
    const uint64_t generation = ledger_read(&l->dit.edge_generation);
    return generation != 0 && ledger_read(&l->vae.edge_generation) == generation;
}

#endif
