/* measure.h - series of durations out of the times of a run. Pure arithmetic: no clock is read
 * here.
 *
 * The words are those of docs/BENCHMARKS.md. All durations are in nanoseconds; blocks and latents
 * are counted from the first of the times.
 */
#ifndef SUPERVISOR_MEASURE_H
#define SUPERVISOR_MEASURE_H

#include <stdbool.h>
#include <stdint.h>

#include "procs/supervisor/trace.h"

/* From the ready time of each block to that of the next, of blocks [from, to): to - from - 1. */
int64_t measure_gaps(const struct times *t, int64_t from, int64_t to, int64_t *out);

/* What lies between two frames, or latents, that follow each other in one session. */
enum interval {
    INTERVAL_NORMAL,   /* both in one block */
    INTERVAL_BOUNDARY, /* of two blocks, before the window is full */
    INTERVAL_FULL,     /* of two blocks, and the second's K/V take the place of older ones */
    INTERVALS
};
extern const char *const interval_names[INTERVALS];

/* Intervals of one kind, or of all (INTERVALS). Of completion: between latents, whose frames become
 * ready at once; at most n_blocks * n_per_block. Of presentation: between frames; at most n_frames.
 * The times are of one session. */
int64_t measure_completion(const struct times *t, int32_t window, enum interval kind, int64_t *out);
int64_t measure_presentation(const struct times *t, int32_t window, enum interval kind,
                             int64_t *out);

/* From a request to the pictures it asked for. The parts, in their order, sum to total. */
struct switch_times {
    int64_t block;                /* of the session */
    int64_t asked_ns, decided_ns; /* when */
    bool is_hit;                  /* the embedding was there */
    int32_t n_tokens;
    int32_t n_recached; /* latents whose K/V were written anew */
    int64_t encode_ns;  /* until the embedding was there; encoder_ns of it in the encoder */
    int64_t lead_ns;    /* dit idle: no block was wanted yet */
    int64_t block_ns;   /* dit at work on blocks before it */
    int64_t prompt_ns, recache_ns, denoise_ns;
    int64_t decode_ns; /* its first latent, without the wait for the vae */
    int64_t other_ns;  /* noise, hand-offs, the wait for the vae */
    int64_t total_ns;  /* to its first frame decoded */
    int64_t whole_ns;  /* to its last frame decoded */
    int64_t shown_ns;  /* to its first frame put or shown */
    int64_t encoder_ns;
};

/* Of a decision whose block is in t and complete; false if it is not. */
bool measure_switch(const struct times *t, const struct trace *tr, const struct ledger *l,
                    const struct conf *c, int64_t decision, struct switch_times *out);

/* The seed's components, each a mean over blocks [from, to), from >= 1. */
struct components {
    double step_ns[TIMES_STEPS_MAX], decode_ns, kv_ns, encode_ns, sync_ns;
};

/* One call after the other: sync is what remains of a call. is_overlapped: dit and vae work side by
 * side, and sync is what remains of a block's period beside the busier of them. */
struct components measure_components(const struct times *t, const struct trace *tr, int64_t from,
                                     int64_t to, bool is_overlapped);

/* dit's time at work on blocks [from, to), waits for others left out. */
int64_t measure_dit_busy(const struct times *t, int64_t from, int64_t to);

/* From the commit of dit to the begin of vae, and from that of vae to the begin of the gateway's
 * put, where the taker had nothing else to do; the latter of sessions that are not live, where a
 * put has no time to wait for. At most n_blocks, and n_blocks * n_per_block. */
int64_t measure_dit_to_vae(const struct times *t, int64_t *out);
int64_t measure_vae_to_gateway(const struct times *t, int64_t *out);

#endif
