/* kv.h - region `kv.N`: the KV ring of a stream and the embeddings in force. It outlives dit, and
 * so does `kv.clean`, which is the same for clean passes elsewhere (ahead.h).
 *
 * The ring has room for conf_window_max frame slots a layer and uses `window` of them. With b the
 * sink's first frame, frame f (a latent of the session) lives in slot f - b while that is below
 * `sink`, and else in slot sink + (f - b - sink) mod (window - sink): the sink stays, the window
 * rolls, nothing is moved, and a block's K/V go where its window no longer looks. When a preset
 * changes the window, a recache writes all frames to their new slots. Keys carry their rotary
 * position, so a key needs no knowledge of its slot, and attention reads occupied slots
 * [0, min(window, f_last + 1 - b)) in any order. Values are raw. LongLive's own update rule (roll
 * by copying) keeps the same set of frames.
 *
 * Relative positions (the "infinity" variant) keep the sink's keys unrotated as well and rotate
 * them anew for every pass, so that their distance to the window stays.
 */
#ifndef PROCS_DIT_KV_H
#define PROCS_DIT_KV_H

#include "common/conf.h"
#include "common/tensor.h"

enum { KV_LAYOUT = 1 };

struct kv {
    int32_t window; /* in force: whoever takes the decisions sets it */
    int32_t sink, frame_tokens, layers;
    struct tensor embed[2]; /* f32 [text_len, text_dim], by parity of the decision's index */
    struct tensor *k, *v;   /* layers x act [window_max * frame_tokens, heads, head_dim] */
    struct tensor *k_sink;  /* layers x act [sink * frame_tokens, heads, head_dim], or absent */
};

/* act: the type of keys and values. */
uint64_t kv_bytes(const struct conf *c, enum dtype act);
/* Views into the region. */
MUST_USE err_t kv_open(struct kv *kv, const struct conf *c, enum dtype act, void *base);
void kv_close(struct kv *kv);

int32_t kv_slot(const struct kv *kv, int64_t frame, int64_t sink_base);
/* Occupied slots once frames up to `end` (exclusive) are written. */
int32_t kv_slots_used(const struct kv *kv, int64_t end, int64_t sink_base);

#endif
