/* rundir.h - the run directory: whose it is, that we hold it alone, and that nothing of it is left.
 *
 * A run directory is ours when it carries the marker file `longlived.run`; nothing else is ever
 * emptied. The lock is an OFD lock on RUN_DIR/lock: it goes with the process that holds it, so what
 * a killed supervisor left is stale, and the next start removes it. */
#ifndef SUPERVISOR_RUNDIR_H
#define SUPERVISOR_RUNDIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

/* Socket names in it must fit 107 bytes. */
enum { RUNDIR_PATH_MAX = 81 };

struct rundir {
    char path[RUNDIR_PATH_MAX]; /* absolute */
    int dir_fd, lock_fd, log_fd;
};

/* The run directory for a wish: "" is /dev/shm/longlived-UID/NAME; made absolute, not made. */
MUST_USE err_t rundir_path(char out[RUNDIR_PATH_MAX], const char *wish, const char *name);

/* Makes or takes over the directory, mode 0700, locks it, removes what a former run left.
 * ERR_RUNNING names the holder. ERR_CONFIG: a symlink, not ours, or in use for something else. */
MUST_USE err_t rundir_open(struct rundir *out, const char *path);

/* Removes everything in it, and it; is_log_kept: all but log/, ledger,
 * config.ini and the marker. Lets go of the lock.
 */
void rundir_close(struct rundir *r, bool is_log_kept);

/* Marks the directory as prepared for another supervisor, and lets go of it. */
MUST_USE err_t rundir_prepared(struct rundir *r);
/* Is it? Then it is nobody's to empty while its keeper lives: rundir_open gives ERR_RUNNING. */
bool rundir_is_prepared(const char *path);

/* The process that holds the directory; 0: nobody. */
pid_t rundir_holder(const char *path);

/* A second lock, for what several commands on one run directory must not do at once: NAME in it.
 * *fd is to be closed. ERR_AGAIN: somebody has it. */
MUST_USE err_t rundir_lock_file(const char *path, const char *name, int *fd);

#endif
