/* dit.h - the causal Wan DiT: one pass over F latent frames against the KV ring.
 *
 * Yin et al. 2025 (Self-Forcing, arXiv:2506.08009), Yang et al. 2025 (LongLive, arXiv:2509.22622),
 * Wan Team 2025 (arXiv:2503.20314). Keys are those of the LongLive checkpoint without its `model.`
 * prefix. Order of a layer: modulated self-attention, cross-attention, modulated feed-forward.
 */
#ifndef PROCS_DIT_DIT_H
#define PROCS_DIT_DIT_H

#include "procs/dit/kv.h"
#include "procs/dit/sched.h"
#include "procs/weights.h"

struct dit;

/* The type of activations, weights, keys and values on this device. */
enum dtype dit_act(const struct conf *c, const struct dev *d);

/* Declares the weights in w, allocates activations for the largest window. */
MUST_USE err_t dit_open(struct dit **out, struct dev *d, const struct conf *c, struct weights *w);
void dit_close(struct dit **m);

/* Derives the tables that depend on weights alone: modulation for each timestep; and records every
 * kind of pass that a session can need, which reads and writes nothing. Once, after the weights are
 * bound and filled. kv is borrowed. */
MUST_USE err_t dit_prepare(struct dit *m, const struct kv *kv);

const struct sched *dit_sched(const struct dit *m);

/* Goes over to these steps, spelt as dit.steps, and to the window that kv has now: derives the
 * tables of the steps and records the kinds of pass that are new. Until then a pass is of the
 * configuration's. ERR_CONFIG: no such steps. */
MUST_USE err_t dit_set_preset(struct dit *m, const char *steps);

/* Derives the cross-attention K/V of every layer from kv->embed[parity], whose first n_tokens rows
 * are valid. The text_len - n_tokens padding rows are equal, so one row stands for all of them with
 * ln(text_len - n_tokens) added to its logit: exact, not an approximation. */
MUST_USE err_t dit_set_prompt(struct dit *m, int32_t parity, int32_t n_tokens);

/* Called once a layer. */
void dit_on_layer(struct dit *m, void (*beat)(void *self), void *self);

/* One pass over frames [first, first + F) of the session, x [F, z, Y, X] on the device.
 *   step       index into the sampler's timesteps; SCHED_CLEAN is t = 0
 *   sink_base  first sink frame
 *   flow       out [F, z, Y, X]; absent: only K and V are wanted, the last layer stops after them
 * Writes the K/V of these frames to their slots, then attends to all occupied slots. */
MUST_USE err_t dit_pass(struct dit *m, struct tensor flow, struct tensor x, int32_t step,
                        int64_t first, int64_t sink_base);

#endif
