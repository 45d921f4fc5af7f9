/* pace.c - see pace.h. */
#include "procs/gateway/pace.h"

#include "common/clock.h"

void pace_start(struct pace *p, int32_t fps, int64_t frame, int64_t now)
{
    p->fps = fps;
    p->t0_ns = now - frame * NS_PER_S / fps;
}

int64_t pace_due_ns(const struct pace *p, int64_t frame)
{
    return p->t0_ns + frame * NS_PER_S / p->fps;
}

void pace_shown(struct pace *p, int64_t frame, int64_t now)
{
    const int64_t late_ns = now - pace_due_ns(p, frame);
    if (2 * late_ns <= NS_PER_S / p->fps) return;
    p->n_late++;
    p->t0_ns += late_ns;
    if (late_ns > p->late_ns_max) p->late_ns_max = late_ns;
}

int64_t pace_want(int64_t n_played, int32_t ahead_ms, int32_t fps, int32_t latents_per_block)
{
    /* Frame f belongs to latent 0 for f = 0, else to latent (f + 3) / 4. */
    const int64_t last_frame = n_played + (int64_t)ahead_ms * fps / 1000;
    const int64_t last_latent = (last_frame + 3) / 4;
    return (last_latent / latents_per_block + 1) * latents_per_block;
}
