/* passes.h - the kinds of pass that a session can need, each recorded once.
 *
 * A kind is everything that is fixed for a pass: sizes. What changes from one pass of a kind to the
 * next (the step, ring slots, rotations, the prompt) is in device memory. Recording reads and
 * writes nothing, and takes the host a while.
 */
#ifndef PROCS_DIT_PASSES_H
#define PROCS_DIT_PASSES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dev.h"

struct pass {
    void *model;
    int32_t n_frames, n_tokens, n_slots, n_sinks;
    bool only_kv;
    struct dev_graph *graph; /* NULL: not recorded yet */
};

struct passes {
    struct dev *d;
    err_t (*work)(void *pass); /* queues a pass: what is recorded */
    int32_t window_max;        /* most n_slots */
    struct pass *at;           /* the kinds, in the order in which they became known */
    int32_t n, n_recorded;
    int32_t n_slots; /* of the kind that was wanted last */
};

/* d is borrowed. ERR_NOMEM. */
MUST_USE err_t passes_open(struct passes *s, struct dev *d, int32_t window_max,
                           err_t (*work)(void *pass));
void passes_close(struct passes *s); /* one that was not opened, but zeroed, too */

/* The kind of these sizes, which is new or not; *out stays put, and is ours. ERR_LIMIT: there are
 * more kinds than any window has. */
MUST_USE err_t passes_find(struct passes *s, const struct pass *kind, struct pass **out);
/* Records it, unless that is done: it is wanted now. */
MUST_USE err_t passes_record(struct passes *s, struct pass *p);
/* Records one more kind if there is one, the one that a session comes to first from the kind that
 * was wanted last: the window fills, is full for long, and begins again. */
MUST_USE err_t passes_record_next(struct passes *s);

#endif
