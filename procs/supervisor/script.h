/* script.h - what `generate --script FILE` takes.
 *
 *   FILE.jsonl  one video a line: {"prompts": ["a", "b"], "switch": [40]}
 *               switch_frame_indices is another name of switch; 40 and "40, 80" are lists too
 *   FILE.txt    one prompt a line, each a video
 *
 * Empty lines are skipped. A switch index counts latent frames from 0; there is one switch fewer
 * than prompts, and indices do not decrease. The switch happens at the first block that starts at
 * or after its index, one switch a block at most, so that two indices in one block make the second
 * switch one block late (LongLive, pipeline/interactive_causal_inference.py:188-199). Index 0 puts
 * prompt 1 in the place of prompt 0, which then is not in the result.
 *
 * Errors are ERR_DATA, `FILE:LINE: why`; a missing file is ERR_NOINPUT.
 */
#ifndef PROCS_SUPERVISOR_SCRIPT_H
#define PROCS_SUPERVISOR_SCRIPT_H

#include <stdint.h>

#include "common/err.h"
#include "common/job.h"

struct script_conf {
    int32_t block;     /* latent frames a block: dit.block */
    int64_t n_blocks;  /* of every video; a switch must come before the end; 0: endless */
    int64_t seed;      /* of every video */
    const int64_t *at; /* switch indices of a line that has none; NULL: it must have them */
    int32_t n_at;
};

/* The videos of a file: prompts clean and with their blocks, out and hashes "". The caller frees
 * them by job_videos_free. */
MUST_USE err_t script_read(const char *path, const struct script_conf *conf,
                           struct job_video **videos, int32_t *n_videos);

/* The blocks of prompts 0..n_prompts-1, from the n_prompts-1 indices that begin their switches. A
 * prompt replaced at block 0 has block 0 too. */
void script_blocks(const int64_t *at, int32_t n_prompts, int32_t block, int64_t *blocks);

#endif
