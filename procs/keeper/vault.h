/* vault.h - what the keeper holds: leases on names, and regions. No sockets.
 *
 * The table of both is a mapped file, RUN_DIR/regions, that outlives the keeper. A record is
 * written whole and then made valid by one store, and a change of state is one store, so a keeper
 * killed anywhere leaves a table that its successor adopts: regions whose memory still exists,
 * leases whose holder still lives, incarnations that go on counting. A table of another boot or
 * version is not adopted.
 *
 * Errors of a request (ERR_DATA, ERR_NOMEM, ERR_LIMIT, ERR_NONE, ERR_RUNNING, ERR_BUG) leave the
 * vault as it was, but that memory to be replaced is gone before its successor is made.
 */
#ifndef PROCS_KEEPER_VAULT_H
#define PROCS_KEEPER_VAULT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/dev.h"
#include "common/err.h"
#include "ipc/keeper.h"

enum { VAULT_LEASES_MAX = 16 };

/* A process, so that another one with its reused pid is not taken for it. */
struct process {
    pid_t pid;
    uint64_t start; /* jiffies from boot, /proc/PID/stat */
};

/* ERR_NONE: no such process. */
MUST_USE err_t process_of(pid_t pid, struct process *out);
/* A pidfd, readable once the process has ended with all its threads; -1: it has. Caller closes. */
int process_watch(const struct process *p);

struct vault;

/* run_dir: absolute. The caller holds the keeper's lock. */
MUST_USE err_t vault_open(struct vault **out, const char *run_dir);
void vault_close(struct vault **v); /* everything durable stays */

/* ERR_RUNNING: another process holds the name; *watch_fd becomes readable when it ends. It stays
 * the vault's, and good until the next vault_lease of this name. */
MUST_USE err_t vault_lease(struct vault *v, const char *name, const struct process *who,
                           uint64_t *incarnation, int *watch_fd);

/* The answer to KEEPER_REGION: finds or makes. */
MUST_USE err_t vault_region(struct vault *v, const struct process *who,
                            const struct keeper_request *req, struct keeper_reply *rep);
MUST_USE err_t vault_seal(struct vault *v, const struct process *who, const char *name,
                          struct keeper_reply *rep);
MUST_USE err_t vault_free(struct vault *v, const struct process *who, const char *name);
MUST_USE err_t vault_list(const struct vault *v, uint32_t index, struct keeper_reply *rep);

#endif
