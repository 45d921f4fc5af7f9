/* job.h - what the command line asks of a pipeline: RUN_DIR/job.json.
 *
 * The command line writes it whole (a file beside it, then rename), the gateway reads it when it
 * starts and again when it restarts: the file, not a process, remembers what was asked.
 */
#ifndef COMMON_JOB_H
#define COMMON_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { JOB_VIDEOS_MAX = 65536, JOB_PROMPTS_MAX = 16384 };

struct job_prompt {
    char *text;       /* as it was given, and prompt_check takes it; or clean */
    int64_t at_block; /* counted from the session's first block; -1: as soon as possible */
    bool is_rebuild;  /* a replay: there the KV cache had been lost */
    bool is_clean;    /* a replay: from a ledger, where texts are; cleaned again it may differ */
};

/* A replay: steps and window from a block of the session on. */
struct job_preset {
    char *steps; /* spelt as dit.steps */
    int64_t at_block;
    int32_t window;
};

struct job_video {
    struct job_prompt *prompts; /* blocks of 0 and more strictly increase */
    int32_t n_prompts;
    int64_t n_blocks; /* 0: endless */
    int64_t seed;
    char *out;    /* path, "-" standard output, "" none */
    char *hashes; /* path, "" none */
    /* Files of dump.h, "" none: noise and embeddings to use, latents to write. */
    char *noise, *embeds, *latents;
    struct job_preset *presets; /* blocks strictly increase */
    int32_t n_presets;
};

struct job {
    uint64_t id;
    bool is_live; /* prompts come from clients too; a video may have none of its own */
    struct job_video *videos;
    int32_t n_videos;
    char **prewarm; /* prompts to encode before they are asked for */
    int32_t n_prewarm;
};

/* ERR_WRITE naming path; ERR_DATA if a text is not UTF-8 or the job breaks the bounds above. */
MUST_USE err_t job_write(const char *path, const struct job *job);

/* ERR_DATA naming path and reason for whatever is wrong, a missing file too; *job is untouched.
 * At most 16 MiB. */
MUST_USE err_t job_read(const char *path, struct job **job);

void job_free(struct job **job);
void job_videos_free(struct job_video **videos, int32_t n);

#endif
