/* sock.h - ZeroMQ: requests to the gateway and its answers. No call waits without an end.
 *
 * The endpoint is the ipc:// socket gateway.ctl in the run directory (mode 0700): a ROUTER, bound
 * by the gateway; clients are DEALERs.
 */
#ifndef IPC_SOCK_H
#define IPC_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "ipc/bells.h"
#include "ipc/msg.h"

enum { SOCK_PEER_MAX = 64 };

struct server; /* the gateway's side of gateway.ctl */
/* A request ends the wait of bells, which also counts what is dropped. bells outlives the server.
 */
MUST_USE err_t server_open(struct server **out, const char *run_dir, struct bells *bells);
void server_close(struct server **s);
/* Next request, if one is there: OK and *n_bytes > 0, or *n_bytes = 0. peer names the asker. */
MUST_USE err_t server_next(struct server *s, uint8_t peer[SOCK_PEER_MAX], size_t *n_peer,
                           uint8_t *buf, size_t cap, size_t *n_bytes);
/* Ask before each wait: ZeroMQ's descriptor tells of a request once, not until it is read. */
bool server_has_request(struct server *s);
void server_reply(struct server *s, const uint8_t *peer, size_t n_peer, const uint8_t *buf,
                  size_t n_bytes); /* a peer that is gone is not an error */

struct client; /* longlived-ctl's side */
MUST_USE err_t client_open(struct client **out, const char *run_dir);
void client_close(struct client **c);
/* ERR_NONE: nobody there. ERR_LIMIT: more than MSG_BYTES_MAX bytes. */
MUST_USE err_t client_send(struct client *c, const uint8_t *buf, size_t n_bytes);
/* ERR_TIMEOUT after wait_ms. extra_fd (or -1) readable, or a signal: OK with *n_bytes = 0. */
MUST_USE err_t client_wait(struct client *c, int32_t wait_ms, int extra_fd, uint8_t *buf,
                           size_t cap, size_t *n_bytes);
#endif
