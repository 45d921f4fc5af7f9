/* keeperd.h - the keeper's side of RUN_DIR/keeper.sock: connections, requests, deferred leases.
 *
 * One thread, one poll. A lease whose holder lives is not answered until the holder ends, the asker
 * goes away or its wait_ms pass. Connections are bounded: when a new one finds no room, the oldest
 * one that never said anything sensible goes, or else the new one. */
#ifndef PROCS_KEEPER_KEEPERD_H
#define PROCS_KEEPER_KEEPERD_H

#include <stdint.h>

#include "common/err.h"

enum { KEEPERD_CONNECTIONS_MAX = 32 };

struct keeperd;

/* Checks the run directory (ERR_CONFIG: a symlink, another user's, open to others), takes
 * RUN_DIR/keeper.lock (ERR_RUNNING names the holder), adopts RUN_DIR/regions, listens.
 * Sets the process's umask to 077. */
MUST_USE err_t keeperd_open(struct keeperd **out, const char *run_dir);
/* Removes the socket; regions and their table stay. */
void keeperd_close(struct keeperd **k);
/* Waits at most wait_ms (-1: until something happens) and serves what came. Signals are let in only
 * while it waits, whatever the caller blocks, and end the wait. */
MUST_USE err_t keeperd_step(struct keeperd *k, int32_t wait_ms);
/* Packets refused so far; connections open now. */
uint64_t keeperd_refused(const struct keeperd *k);
int32_t keeperd_connections(const struct keeperd *k);

#endif
