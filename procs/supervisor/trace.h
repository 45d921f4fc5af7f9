/* trace.h - what the stages did, gathered from the ledger's rings while they work, and in what
 * order blocks, latents and frames became ready by it.
 *
 * A time is CLOCK_MONOTONIC, in nanoseconds, read by the stage itself after its device had
 * finished: see struct ledger_span. Gathering reads the ledger and nothing else, so it delays
 * nobody.
 */
#ifndef SUPERVISOR_TRACE_H
#define SUPERVISOR_TRACE_H

#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"
#include "ipc/ledger.h"

struct trace {
    struct trace_list {
        struct ledger_span *v;
        int64_t n, cap;
    } of[WRITERS];
    uint64_t next[WRITERS]; /* the next to be read of each ring */
    uint64_t n_lost;        /* overwritten before they were read */
};

/* Takes what is new. A ring holds 8,192 spans: look more often than that many pass. */
MUST_USE err_t trace_look(struct trace *t, const struct ledger *l);

/* Forgets what it has, so that what comes next is all there is. */
void trace_clear(struct trace *t);
void trace_free(struct trace *t);

/* --- when what was ready ---------------------------------------------------------------------- */

enum { TIMES_STEPS_MAX = 8 };

/* 0 of a time that is not known. A unit that a restart did again has its last times. */
struct block_times {
    int64_t session, at;       /* whose, and which of it, from 0 */
    int64_t began_ns, made_ns; /* dit: from its begin to the commit of its latents */
    int64_t step_ns[TIMES_STEPS_MAX], prompt_ns, recache_ns; /* durations */
    int64_t clean_ns; /* duration; 0 of one beside the next block's first step (place.clean) */
    int64_t clean_began_ns, clean_ended_ns;
    int64_t given_ns; /* made, and if vae has left its clean pass the device, that too */
    int64_t ready_ns; /* its last frame is decoded */
};

struct latent_times {
    int64_t frame;              /* its first one, from 0 */
    int64_t began_ns, ready_ns; /* vae: its frames are decoded */
};

struct times {
    int32_t n_per_block;
    int64_t first_block, n_blocks; /* counted over the ledger */
    int64_t first_frame, n_frames;
    struct block_times *block;   /* [n_blocks] */
    struct latent_times *latent; /* [n_blocks * n_per_block] */
    int64_t *put_ns;             /* [n_frames], the frame is in the output, or was shown */
    int64_t *put_began_ns;       /* [n_frames] */
};

/* Of the blocks that were made from session `first` on, as far as the trace knows of them. */
MUST_USE err_t times_of(struct times *out, const struct trace *t, const struct ledger *l,
                        const struct conf *c, int64_t first_session);
void times_free(struct times *t);

#endif
