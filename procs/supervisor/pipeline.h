/* pipeline.h - a pipeline for a command: one of our own, or one that somebody else runs. */
#ifndef SUPERVISOR_PIPELINE_H
#define SUPERVISOR_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"
#include "ipc/ledger.h"
#include "procs/supervisor/args.h"
#include "procs/supervisor/rundir.h"
#include "procs/supervisor/super.h"

struct pipeline {
    char run[RUNDIR_PATH_MAX];
    struct conf conf;
    const char *bin_dir;
    struct rundir dir;           /* of our own */
    struct super *super;         /* NULL: somebody else's */
    const struct ledger *ledger; /* of somebody else's */
    int signal_fd;
    int32_t n_signals;
    bool keeps_log;
};

/* The configuration that the arguments ask for: -c or configs/demo.ini, and --set. */
MUST_USE err_t pipeline_conf(struct conf *c, const struct args *a, const char *bin_dir);

/* The run directory that the arguments mean: --run, run.dir, or the default NAME. */
MUST_USE err_t pipeline_run(char out[RUNDIR_PATH_MAX], const struct args *a, const char *bin_dir,
                            const char *name);

/* Devices that the configuration names are there. */
MUST_USE err_t pipeline_check(const struct conf *c, const char *bin_dir);

/* The run directory with config.ini, for other supervisors; kept as it is when it has been prepared
 * with the same configuration. ERR_RUNNING: a keeper holds it, with another one. */
MUST_USE err_t pipeline_prepare(const struct conf *c, const char *run);

/* Does a pipeline run there, or can one by another supervisor? */
bool pipeline_is_there(const char *run);

/* Takes the run directory, writes config.ini, begins to start the processes. */
MUST_USE err_t pipeline_start(struct pipeline *p, const struct args *a, const struct conf *c,
                              const char *run, const char *bin_dir, int gateway_out_fd);

/* Uses the one that runs there; ERR_NONE: none. Its configuration is read from there. */
MUST_USE err_t pipeline_attach(struct pipeline *p, const char *run, const char *bin_dir);

void pipeline_step(struct pipeline *p, int32_t wait_ms);
bool pipeline_is_ready(const struct pipeline *p);
bool pipeline_is_gone(const struct pipeline *p);
int32_t pipeline_signals(const struct pipeline *p);
const struct ledger *pipeline_ledger(const struct pipeline *p);

/* Ends our own in order (a further signal: at once), or lets go of somebody else's; removes what is
 * left. The reason, if it ended by itself. */
MUST_USE err_t pipeline_end(struct pipeline *p);

/* The directory of a build's shared objects: beside bin, lib. */
void pipeline_lib_dir(const char *bin_dir, char *out, size_t cap);

/* OK if the MP4 writer can be loaded. Tried in a process of its own: libav is not ours to trust. */
MUST_USE err_t pipeline_check_mp4(const char *bin_dir);

#endif
