/* plan.h - what vae does next: a pure function of the ledger.
 *
 * l counts latents decoded, over the ledger. Everything about a unit, its place in the session and
 * the frames it makes, follows from l; so a successor does the unit again from the same histories.
 */
#ifndef PROCS_VAE_PLAN_H
#define PROCS_VAE_PLAN_H

#include "common/conf.h"
#include "ipc/ledger.h"

struct vae_plan {
    bool is_due;         /* false: no latent to decode, or no room for its frames */
    int64_t latent;      /* l, counted over the ledger */
    int64_t r;           /* the same, counted in its session: vae_decode's index */
    int64_t first_frame; /* of its frames, counted over the ledger */
    int32_t n_frames;
};

struct vae_plan vae_plan_next(const struct ledger *l, const struct conf *c);

#endif
