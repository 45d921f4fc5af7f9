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
    int64_t given_ns; /* when the job was handed in */
    double took_s;    /* from then */
    bool was_asked;   /* ended by a signal, or by look */
};

struct session_conf {
    int prompts_fd; /* its lines are prompts of a live job; -1: none */
    /* Called each turn while the job runs, at least 20 times a second, and once after its end; true
     * finishes it, as a signal does. NULL: nobody looks. */
    bool (*look)(void *self, const struct ledger *l);
    void *self;
};

/* Waits until the pipeline serves, gives it the job (whose id is set here), waits for its end. The
 * first SIGINT or SIGTERM finishes block and file; the second ends everything. The caller
 * ends the pipeline. */
MUST_USE err_t session_run(struct pipeline *p, const struct args *a, struct job *job,
                           const struct session_conf *c, struct session_result *out);

#endif
