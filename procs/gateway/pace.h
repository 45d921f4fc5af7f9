/* pace.h - presentation time of a live session, and how far dit may run ahead. Pure arithmetic.
 *
 * Frame i of a session is due at t0 + i / fps. A frame that comes after its time moves t0 by its
 * lateness: presentation goes on at its rate from there, nothing is skipped.
 */
#ifndef GATEWAY_PACE_H
#define GATEWAY_PACE_H

#include <stdint.h>

struct pace {
    int32_t fps;    /* 0: not started */
    int64_t t0_ns;  /* when frame 0 was due */
    int64_t n_late; /* frames presented more than half a frame period after their time */
    int64_t late_ns_max;
};

/* The next frame to show is `frame`, and it is due now. */
void pace_start(struct pace *p, int32_t fps, int64_t frame, int64_t now_ns);
int64_t pace_due_ns(const struct pace *p, int64_t frame);
/* Frame `frame` is shown at now_ns; counts and absorbs its lateness. */
void pace_shown(struct pace *p, int64_t frame, int64_t now_ns);

/* Latents of the session that may be made so that `ahead_ms` of video after `n_played` frames can
 * exist, rounded up to whole blocks: a block is begun when any of its frames is wanted. */
int64_t pace_want(int64_t n_played, int32_t ahead_ms, int32_t fps, int32_t latents_per_block);

#endif
