/* dit.h - the causal Wan DiT: one pass over F latent frames against the KV ring.
 *
 * Yin et al. 2025 (Self-Forcing, arXiv:2506.08009), Yang et al. 2025 (LongLive, arXiv:2509.22622),
 * Wan Team 2025 (arXiv:2503.20314). Keys are those of the LongLive checkpoint without its `model.`
 * prefix. Order of a layer: modulated self-attention, cross-attention, modulated feed-forward.
 */
#ifndef PROCS_DIT_DIT_H
#define PROCS_DIT_DIT_H

#include <stdbool.h>

#include "procs/dit/kv.h"
#include "procs/dit/sched.h"
#include "procs/weights.h"

struct dit;

/* The type of activations, weights, keys and values on this device. */
enum dtype dit_act(const struct conf *c, const struct dev *d);

/* Declares the weights in w, allocates activations for the largest window. */
MUST_USE err_t dit_open(struct dit **out, struct dev *d, const struct conf *c, struct weights *w);
void dit_close(struct dit **m);

/* Derives the tables that depend on weights alone, modulation for each timestep, for these steps,
 * spelt as dit.steps, and the window that kv has; and lists the kinds of pass that a session can
 * need. Once, after the weights are bound and filled. kv is borrowed. steps NULL: for passes
 * without a flow alone, which take none. ERR_CONFIG: no such steps. */
MUST_USE err_t dit_prepare(struct dit *m, const struct kv *kv, const char *steps);

/* Goes over to these steps and to the window that kv has now: the same for what is new. */
MUST_USE err_t dit_set_preset(struct dit *m, const char *steps);

/* --- recording --------------------------------------------------------------------------------
 * A kind of pass is recorded once, which reads and writes nothing, and takes the host a while. One
 * that is wanted before that is recorded first; each pass, while the device is at work on it,
 * records one more, those that the session comes to first, until there is none left. Where nothing
 * can be recorded there is nothing to wait for. */

/* The kind that dit_pass takes for n_frames of which the last is end - 1, counted from the sink
 * base; only_kv: without a flow. */
MUST_USE err_t dit_record(struct dit *m, int32_t n_frames, int64_t end, bool only_kv);
MUST_USE err_t dit_record_next(struct dit *m); /* for whoever has nothing else to do */
MUST_USE err_t dit_record_all(struct dit *m);
int32_t dit_kinds(const struct dit *m, int32_t *n_recorded); /* that are known; of them recorded */

const struct sched *dit_sched(const struct dit *m);

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

/* --- a pass that follows another, layer by layer -----------------------------------------------
 */

/* While it is set, passes are queued op by op, not as they were recorded, and each layer's ops
 * after what before(self, layer) queues. NULL: none. */
void dit_before_layer(struct dit *m, err_t (*before)(void *self, int32_t layer), void *self);

/* dit_pass without a flow at t = 0 in pieces: dit_clean_begin; then of each layer in turn
 * dit_clean_kv, with which K and V of these frames are queued, and dit_clean_rest. */
MUST_USE err_t dit_clean_begin(struct dit *m, struct tensor x, int64_t first, int64_t sink_base);
MUST_USE err_t dit_clean_kv(struct dit *m, int32_t layer);
MUST_USE err_t dit_clean_rest(struct dit *m, int32_t layer);

#endif
