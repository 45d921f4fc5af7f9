/* vae.h - the causal 3-D VAE's decoder, one latent at a time, its state in durable memory.
 *
 * Wan Team 2025 (arXiv:2503.20314), section 4.1. Widths 4d 4d 4d 2d d for base width d, three
 * residual blocks a stage, space doubled three times, time twice. Every causal convolution needs
 * the last two frames of its input: its history. Histories are kept twice and used in turn, by
 * parity of the latent's index: decoding latent r reads set r mod 2 and writes set (r + 1) mod 2,
 * so a decode that is cut short can be done again. Latent 0 of a session zeroes both sets as its
 * first act.
 *
 * The two temporal upsamplers skip their time convolution on latent 0, and on latent 1 it sees a
 * history of zeros; so latent 0 gives one RGB frame and every later one four.
 *
 * Keys are those of Wan2.1_VAE.pth (`conv2.*`, `decoder.*`).
 */
#ifndef PROCS_VAE_VAE_H
#define PROCS_VAE_VAE_H

#include "common/conf.h"
#include "procs/weights.h"

enum { VAE_LAYOUT = 1, VAE_FRAMES_MAX = 4 };

struct vae;

MUST_USE err_t vae_open(struct vae **out, struct dev *d, const struct conf *c, struct weights *w);
void vae_close(struct vae **v);

/* Region `vae.N`: both history sets. */
uint64_t vae_state_bytes(const struct vae *v);
/* Nothing of the base is read or written. */
void vae_bind_state(struct vae *v, void *base);

/* There are a few kinds of latent: the first, odd ones, even ones. The ops of each are recorded
 * once, with weights and state bound, which reads and writes nothing, and takes the host a while. A
 * kind that is wanted before that is recorded first; each decode, while the device is at work on
 * it, records one more, until there is none left. */
MUST_USE err_t vae_record(struct vae *v, int64_t r); /* the kind of the session's latent r */
MUST_USE err_t vae_record_next(struct vae *v);       /* for whoever has nothing else to do */
MUST_USE err_t vae_record_all(struct vae *v);
int32_t vae_kinds(const struct vae *v, int32_t *n_recorded); /* there are; of them recorded */

/* Decodes the session's latent r: [z, Y, X] f32 on the device to rgb u8 [n, 8Y, 8X, 3] on the
 * device, n = 1 for r = 0, else 4. beat(self) is called once a stage. */
MUST_USE err_t vae_decode(struct vae *v, struct tensor rgb, struct tensor latent, int64_t r,
                          void (*beat)(void *self), void *self);

/* A decode's first act: the latent with the statistics that it was trained without, y [Y, X, z]. */
MUST_USE err_t vae_denorm(struct vae *v, struct tensor y, struct tensor latent);

/* What the last decode made before it became bytes: f32 [n, 8Y, 8X, 3] on the device, until the
 * next one. */
struct tensor vae_pixels(const struct vae *v);

#endif
