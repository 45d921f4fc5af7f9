/* plan.c - see plan.h. */
#include "procs/vae/plan.h"

/* The first block of a prompt: somebody waits for its frames. */
static bool is_new(const struct ledger *l, int64_t block)
{
    const uint64_t n = ledger_read(&l->dit.n_decisions);
    return n > 0 && l->decisions[n - 1].block == block &&
           l->decisions[n - 1].kind != DECISION_STEPS;
}

/* The clean pass of the block comes first, if dit makes it now: the next block is wanted, and dit
 * has what the pass reads. */
static bool waits_for_clean(const struct ledger *l, const struct conf *c, int64_t block)
{
    return conf_cleans_first(c) && block >= (int64_t)ledger_read(&l->dit.n_clean_blocks) &&
           ledger_is_wanted(l, block + 1, c->dit.block) && !is_new(l, block) &&
           !ledger_session_is_over(l, ledger_session_of(l, block)) && !ledger_cache_is_lost(l);
}

struct vae_plan vae_plan_next(const struct ledger *l, const struct conf *c)
{
    const int64_t NB = c->dit.block, at_latent = (int64_t)ledger_read(&l->vae.n_latents);
    struct vae_plan p = {.latent = at_latent};
    if (at_latent >= NB * (int64_t)ledger_read(&l->dit.n_latents_blocks)) return p;

    const int64_t at = ledger_session_of(l, at_latent / NB);
    MUST(at >= 0); /* dit made this latent for a session */
    if (waits_for_clean(l, c, at_latent / NB)) return p;
    const struct ledger_session *s = &l->sessions[at];
    p.r = at_latent - s->first_block * NB;
    p.first_frame = s->first_frame + ledger_frames_of(p.r);
    p.n_frames = (int32_t)(ledger_frames_of(p.r + 1) - ledger_frames_of(p.r));
    /* A slot is free once the gateway has committed the frame that lies in it. */
    p.is_due = p.first_frame + p.n_frames <=
               (int64_t)ledger_read(&l->gateway.n_committed) + c->vae.ring_frames;
    return p;
}
