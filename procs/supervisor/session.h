/* session.h - one job through a pipeline: handed in, watched to its end. For generate and serve. */
#ifndef SUPERVISOR_SESSION_H
#define SUPERVISOR_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/job.h"
#include "procs/supervisor/args.h"
#include "procs/supervisor/pipeline.h"

struct session_result {
    int64_t n_frames;
    double took_s;  /* from the job's acceptance */
    bool was_asked; /* ended by a signal */
};

/* Waits until the pipeline serves, gives it the job (whose id is set here), waits for its end. The
 * first SIGINT or SIGTERM finishes block and file; the second ends everything. takes_stdin: lines
 * of our standard input are prompts. The caller ends the pipeline. */
MUST_USE err_t session_run(struct pipeline *p, const struct args *a, struct job *job,
                           bool takes_stdin, struct session_result *out);

#endif
