/* noise.h - a session's noise: drawn from its seed (docs/ARCHITECTURE.md: a pure function of seed,
 * block and step), or read from the file that its job names. */
#ifndef PROCS_DIT_NOISE_H
#define PROCS_DIT_NOISE_H

#include "common/checkpoint.h"
#include "common/tensor.h"
#include "procs/stage.h"

struct noise {
    struct stage *st;        /* borrowed */
    struct tensor key;       /* u64 [2] on the stage's device; the caller's */
    struct checkpoint *file; /* of `session`; NULL: it is drawn */
    float *block;            /* host [block, z, Y, X] */
    int64_t session;         /* -1: none */
};

/* bytes: of a block of noise. ERR_NOMEM. */
MUST_USE err_t noise_open(struct noise *n, struct stage *st, struct tensor key, size_t bytes);
void noise_close(struct noise *n); /* one that was not opened, but zeroed, too */

/* Before the blocks of a session: opens its file, if it has one. */
MUST_USE err_t noise_begin(struct noise *n, int64_t session);

/* to [block, z, Y, X] f32, for this block of the session: step -1 what the first step begins with,
 * else what is added behind that step. Complete on the device. */
MUST_USE err_t noise_draw(struct noise *n, struct tensor to, int64_t seed, int64_t block,
                          int32_t step);

#endif
