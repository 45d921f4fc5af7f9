/* session.h - one video after another: a job's sessions in the ledger, their frames in the output.
 *
 * RUN_DIR/job.json says what is asked, the ledger what has been begun, the output file how far it
 * is. All of it is read again after a death, so nothing here must be remembered. A job that fails
 * (output that cannot be written) leaves its status in the ledger and one line in
 * RUN_DIR/job.error; the blocks that were already allowed are made and dropped, and the pipeline
 * stays up.
 */
#ifndef GATEWAY_SESSION_H
#define GATEWAY_SESSION_H

#include <stdbool.h>

#include "common/job.h"
#include "ipc/frames.h"
#include "ipc/latents.h"
#include "ipc/prompts.h"
#include "procs/gateway/hashes.h"
#include "procs/gateway/out.h"
#include "procs/gateway/pace.h"
#include "procs/stage.h"

struct session {
    struct stage *st;
    struct ledger *ledger;
    const struct prompts *prompts;
    struct frames frames;
    struct latents latents;
    char plugin_dir[512];
    struct job *job; /* NULL: none runs */
    int64_t at;      /* index of the running session; -1 between two */
    struct out *out; /* NULL: no output asked, or given up */
    struct hashes *hashes;
    int latents_fd; /* -1: latents are not asked for, or given up */
    struct pace pace;
    int64_t n_put, n_shown; /* frames of the session */
    int64_t retry_ns;       /* paused: when room on the disk is looked for again; 0: not paused */
};

/* Does what there is to do; *did_work tells. Returns errors of our own only: a job's failures are
 * recorded, not returned. */
MUST_USE err_t session_step(struct session *s, bool *did_work);

/* No block of the job after those already allowed, and no further video; its file is finished. For
 * a job that is done, nothing. */
void session_finish(struct session *s, uint64_t job);
void session_close(struct session *s);

/* Appends a prompt that takes effect as soon as possible; asking twice with one request number is
 * asking once. ERR_NONE no live session runs, ERR_DATA, ERR_LIMIT. *script is its record. */
MUST_USE err_t session_prompt(struct session *s, const char *text, uint64_t request,
                              int64_t *script);

/* The same of a preset: steps and window that take effect as soon as possible. ERR_CONFIG says what
 * does not fit. *preset is its record. */
MUST_USE err_t session_preset(struct session *s, int32_t window, const char *steps,
                              uint64_t request, int64_t *preset);

/* How long nothing is due, for the loop's wait. */
int32_t session_wait_ms(const struct session *s);

#endif
