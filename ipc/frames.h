/* frames.h - region `frames.N`: finished RGB frames between vae and gateway.
 *
 * A ring of conf.vae.ring_frames slots; frame f (counted over the ledger) is in slot f mod ring: u8
 * [height, width, 3]. vae writes frame f only when the gateway has committed f - ring_frames.
 */
#ifndef IPC_FRAMES_H
#define IPC_FRAMES_H

#include <stdint.h>

#include "common/conf.h"

enum { FRAMES_LAYOUT = 1 };

struct frames {
    uint8_t *data;
    int64_t n_slots, n_bytes; /* of one frame */
};

static inline uint64_t frames_bytes(const struct conf *c)
{
    return (uint64_t)c->vae.ring_frames * (uint64_t)conf_frame_bytes(c);
}

static inline void frames_open(struct frames *f, const struct conf *c, void *base)
{
    *f = (struct frames){base, c->vae.ring_frames, conf_frame_bytes(c)};
}

static inline uint8_t *frames_at(const struct frames *f, int64_t frame)
{
    return f->data + frame % f->n_slots * f->n_bytes;
}

#endif
