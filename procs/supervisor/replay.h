/* replay.h - the job that makes a ledger's sessions again: what was decided, as a script.
 *
 * A frame depends on the configuration, the session's seed and the decision in force at its block,
 * so a run whose prompts take effect at the recorded blocks shows the recorded frames. Of several
 * decisions for one block the last was in force when the block was made.
 */
#ifndef SUPERVISOR_REPLAY_H
#define SUPERVISOR_REPLAY_H

#include "common/err.h"
#include "common/job.h"
#include "ipc/ledger.h"

/* A video for each session that has blocks: those whose latents are committed. Outputs are "". The
 * ledger may be a running pipeline's. ERR_NONE: nothing was made; ERR_DATA: the ledger contradicts
 * itself; ERR_NOMEM. The caller frees by job_free. */
MUST_USE err_t replay_job(const struct ledger *l, struct job **out);

#endif
