/* ahead.h - clean passes on a device of their own (place.clean), ahead of the DiT's next block.
 *
 * A second model of the same weights makes them, against a KV cache of its own, region kv.clean,
 * which only clean passes write. What a pass writes there of a layer is sent on to the same slots
 * of region kv.0, so the first step of the next block need not wait for the pass to end: its layer
 * i comes after K and V of layer i have arrived. The other steps find all of them.
 *
 * A recache is made by both, each for its own cache: the same ops, the same bits.
 *
 * Killed at any moment, the pass is made again: kv.clean still holds all that it reads, since only
 * the slots of its own frames are written, and the first step of the next block, which may have
 * written into kv.0, has put its K and V where no window looks any more.
 */
#ifndef PROCS_DIT_AHEAD_H
#define PROCS_DIT_AHEAD_H

#include "ipc/latents.h"
#include "procs/dit/dit.h"
#include "procs/stage.h"

struct ahead;

/* The model on st->clean_dev; nothing is mapped yet. */
MUST_USE err_t ahead_open(struct ahead **out, struct stage *st);
void ahead_close(struct ahead **a); /* NULL-safe */

/* Its weights, its KV cache, and kv.0 as this device sees it; `kv` is that of the stage's own
 * device, `latents` the region's. Both are borrowed. *generation: of region kv.clean. ERR_REFUSED:
 * the device does not reach the memory of kv.0. */
MUST_USE err_t ahead_map(struct ahead *a, const struct kv *kv, const struct region *kv_region,
                         const struct latents *latents, uint64_t *generation);
/* Once, after ahead_map and when kv.window is known. */
MUST_USE err_t ahead_prepare(struct ahead *a);
/* The model, for what is recorded. */
struct dit *ahead_model(struct ahead *a);

/* Goes over to the window that kv has now. */
MUST_USE err_t ahead_set_window(struct ahead *a);
/* dit_set_prompt. The embedding is in kv.0, complete; it is taken from there. */
MUST_USE err_t ahead_set_prompt(struct ahead *a, int32_t parity, int32_t n_tokens);

/* Queued: K and V of latents [first, first + n) of the ledger, frames from `frame` on of the
 * session, into kv.clean alone. */
MUST_USE err_t ahead_recache(struct ahead *a, int64_t first, int32_t n, int64_t frame,
                             int64_t sink_base);

/* A clean pass: ahead_begin; for each layer in turn ahead_layer, after which the stage's own device
 * does not go on before K and V of that layer are in kv.0; ahead_end, which waits for all of it.
 * self: a struct ahead. */
MUST_USE err_t ahead_begin(struct ahead *a, int64_t first, int32_t n, int64_t frame,
                           int64_t sink_base);
MUST_USE err_t ahead_layer(void *self, int32_t layer);
MUST_USE err_t ahead_end(struct ahead *a);

#endif
