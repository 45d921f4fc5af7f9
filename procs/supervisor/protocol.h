/* protocol.h - what bench's protocols let a pipeline make: jobs, made by rule. Pure.
 *
 * A call is a video of one block, from an empty window: what the benchmark that this one is
 * measured against calls a frame. A stream is one video, of any length. Both take eight prompts by
 * turns.
 */
#ifndef SUPERVISOR_PROTOCOL_H
#define SUPERVISOR_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/job.h"

enum { PROTOCOL_PROMPTS = 8, PROTOCOL_TEXT_MAX = 160 };

struct protocol_length {
    int64_t n_blocks;     /* calls, or blocks of the stream; 0: a stream until it is finished */
    int64_t call_blocks;  /* of a call; 0 is 1 */
    int64_t n_warm;       /* of them, before the first that counts */
    int64_t switch_every; /* behind those each so many-th has a new prompt; 0: none */
};

/* Block i of the length takes a prompt whose text was not used before. */
bool protocol_is_switch(const struct protocol_length *n, int64_t i);

/* Prompt i, its text the same for all i that are equal mod 8, but with a take: that is new each. */
void protocol_prompt(int64_t i, int64_t take, char text[PROTOCOL_TEXT_MAX]);

/* The caller frees by job_free. A call's seed is run.seed and its number. Calls that are no switch
 * take the eight prompts by turns; a stream keeps its first one until a switch. */
MUST_USE err_t protocol_calls(struct job **out, const struct conf *c,
                              const struct protocol_length *n);
MUST_USE err_t protocol_stream(struct job **out, const struct conf *c,
                               const struct protocol_length *n);

#endif
