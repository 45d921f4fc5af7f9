/* sock.h - ZeroMQ: doorbells between stages, requests to the gateway. No call waits without an end.
 *
 * A doorbell says "look at the ledger". It may be lost, doubled or late: everybody also looks every
 * few milliseconds. Endpoints are ipc:// sockets in the run directory (mode 0700): bell.NAME of a
 * stage (PULL, bound by its lease holder, everybody else PUSHes), and gateway.ctl (ROUTER).
 */
#ifndef IPC_SOCK_H
#define IPC_SOCK_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "ipc/ledger.h"

enum { SOCK_MESSAGE_MAX = 65536, SOCK_PEER_MAX = 64 };

struct bells;

/* Binds our own bell and connects to the others. Take the lease first: binding steals. */
MUST_USE err_t bells_open(struct bells **out, const char *run_dir, enum ledger_writer self);
void bells_close(struct bells **b);
void bells_ring(struct bells *b, enum ledger_writer to); /* never blocks, never fails */
/* Waits for a bell, at most wait_ms (0: only takes what is there), and empties the queue.
 * extra_fds: woken by these too (may be NULL). Malformed bells are counted and dropped. */
void bells_wait(struct bells *b, int32_t wait_ms, const int *extra_fds, int32_t n_extra_fds);
uint64_t bells_dropped(const struct bells *b);
/* A file descriptor is no use: ZMQ_FD is edge triggered. A server joins the wait instead. */

struct server; /* the gateway's side of gateway.ctl */
MUST_USE err_t server_open(struct server **out, const char *run_dir, struct bells *wait_with);
void server_close(struct server **s);
/* Next request, if one is there: OK and *n_bytes > 0, or *n_bytes = 0. peer names the asker. */
MUST_USE err_t server_next(struct server *s, uint8_t peer[SOCK_PEER_MAX], size_t *n_peer,
                           uint8_t *buf, size_t cap, size_t *n_bytes);
void server_reply(struct server *s, const uint8_t *peer, size_t n_peer, const uint8_t *buf,
                  size_t n_bytes); /* a peer that is gone is not an error */

struct client; /* longlived-ctl's side */
MUST_USE err_t client_open(struct client **out, const char *run_dir);
void client_close(struct client **c);
/* ERR_NONE: nobody there. ERR_LIMIT: more than SOCK_MESSAGE_MAX bytes. */
MUST_USE err_t client_send(struct client *c, const uint8_t *buf, size_t n_bytes);
/* ERR_TIMEOUT after wait_ms. extra_fd (or -1) readable, or a signal: OK with *n_bytes = 0. */
MUST_USE err_t client_wait(struct client *c, int32_t wait_ms, int extra_fd, uint8_t *buf,
                           size_t cap, size_t *n_bytes);
#endif
