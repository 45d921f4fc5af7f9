/* plan.h - what the gateway does next with a job, its sessions and their frames: pure functions.
 *
 * They take the ledger and the few numbers that a gateway keeps of the running session: the session
 * `at`, the frames of it that are in its output (n_put) and that are shown (n_shown; an output by
 * blocks may lag). A successor has the first from the ledger and the others from the output.
 */
#ifndef PROCS_GATEWAY_PLAN_H
#define PROCS_GATEWAY_PLAN_H

#include "common/conf.h"
#include "common/job.h"
#include "ipc/ledger.h"
#include "procs/gateway/pace.h"

enum { GATEWAY_FRAMES_PER_PUT_MAX = 128 };

/* --- jobs ------------------------------------------------------------------------------------- */

enum gateway_job {
    GATEWAY_JOB_NONE,  /* the job that is asked is done, or we are draining */
    GATEWAY_JOB_BEGIN, /* new: its prewarmed prompts are appended, then it is counted */
    GATEWAY_JOB_RESUME /* a predecessor counted it */
};

/* For the job `id` that RUN_DIR/job.json asks. */
enum gateway_job gateway_plan_job(const struct ledger *l, uint64_t id, bool is_draining);

/* Somebody asks job `id` to end: is that news? It is written down (job_end), for a successor. */
bool gateway_plan_ends(const struct ledger *l, uint64_t id);
/* The job makes the blocks that are allowed, and begins nothing more. */
bool gateway_job_is_ending(const struct ledger *l, uint64_t id);

enum gateway_action {
    GATEWAY_RUN,    /* the session goes on: want, show, put */
    GATEWAY_ENTER,  /* found in the ledger, session `session`: its prompts, then its output */
    GATEWAY_APPEND, /* a new session for video `video` of the job; then it is entered */
    GATEWAY_END_JOB
};

struct gateway_plan {
    enum gateway_action action;
    int64_t session, video;
};

/* at: the session that this gateway has entered, or -1. */
struct gateway_plan gateway_plan_next(const struct ledger *l, const struct conf *c,
                                      const struct job *job, int64_t at, int64_t n_put,
                                      bool is_draining);

/* --- sessions --------------------------------------------------------------------------------- */

/* Where a session after all those in the ledger begins. */
void gateway_plan_begin(const struct ledger *l, const struct conf *c, int64_t *first_block,
                        int64_t *first_frame);

/* n_blocks to publish so that the session ends with the blocks that are already allowed; 0: it ends
 * there or before. */
uint64_t gateway_plan_finish(const struct ledger *l, const struct conf *c, int64_t at);

/* Records of the session that came with the job, not from clients: the next to append is the
 * job's prompt of this number. */
int64_t gateway_n_scripted(const struct ledger *l, int64_t session);

/* The same of preset records. */
int64_t gateway_n_scripted_presets(const struct ledger *l, int64_t session);

/* The session's output was begun by a predecessor: continue it; else it is begun, emptied. */
bool gateway_resumes_output(const struct ledger *l, int64_t at);

/* --- flow and frames -------------------------------------------------------------------------- */

/* Latents, counted over the ledger, that dit may make now. Never less than it may already, and
 * never past the session's end. */
int64_t gateway_plan_want(const struct ledger *l, const struct conf *c, int64_t at, int64_t n_put,
                          int64_t n_shown);

/* Frames of the session that vae has committed. */
int64_t gateway_frames_made(const struct ledger *l, const struct conf *c, int64_t at);

/* Frames of the session that may be shown now: all that are made, or, in a live session that has no
 * end yet, those whose time has come; they are noted in p. */
int64_t gateway_frames_due(const struct ledger *l, const struct conf *c, int64_t at,
                           int64_t n_shown, bool is_draining, struct pace *p, int64_t now_ns);

/* Frames to put next: any number up to what is shown; for an output of blocks one block, or 0. */
int32_t gateway_frames_to_put(const struct conf *c, int64_t n_put, int64_t n_shown,
                              bool wants_block);

/* All frames of the session are in its output, or dropped. */
bool gateway_is_whole(const struct ledger *l, const struct conf *c, int64_t at, int64_t n_put);

/* --- prompts and presets from clients --------------------------------------------------------- */

/* The record of a client's request, or -1: asking twice is asking once. */
int64_t gateway_find_request(const struct ledger *l, uint64_t request);
int64_t gateway_find_preset(const struct ledger *l, uint64_t request);

/* The decision that took the prompt, or one newer than it in its session; -1: not decided yet. */
int64_t gateway_decision_of(const struct ledger *l, int64_t script);
int64_t gateway_decision_of_preset(const struct ledger *l, int64_t preset);

#endif
