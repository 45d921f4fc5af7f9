/* bells.h - doorbells between stages: "look at the ledger". No call waits without an end.
 *
 * A bell may be lost, doubled or late: everybody also looks every few milliseconds. Each stage has
 * a UNIX datagram socket bell.NAME in the run directory (mode 0700), bound by its lease holder; a
 * bell is one datagram, the message MSG_BELL. One thread wakes another, and nothing in between:
 * over ZeroMQ a bell woke two I/O threads on its way, and took three times as long.
 */
#ifndef IPC_BELLS_H
#define IPC_BELLS_H

#include <stdint.h>

#include "common/err.h"
#include "ipc/ledger.h"

struct bells;

/* Binds our own bell. Take the lease first: binding steals. ERR_CONFIG: the path is too long. */
MUST_USE err_t bells_open(struct bells **out, const char *run_dir, enum ledger_writer self);
void bells_close(struct bells **b);
void bells_ring(struct bells *b, enum ledger_writer to); /* never blocks, never fails */
/* Another descriptor that ends a wait while it is readable; -1: none. It stays its owner's. */
void bells_watch(struct bells *b, int fd);
/* Waits for a bell, at most wait_ms (0: only takes what is there), and empties the queue. A signal
 * ends it too. Malformed bells are counted and dropped. */
void bells_wait(struct bells *b, int32_t wait_ms);
/* Messages dropped; bells_drop counts one that another socket of this stage refused. */
uint64_t bells_dropped(const struct bells *b);
void bells_drop(struct bells *b);

#endif
