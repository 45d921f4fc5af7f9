/* sock.c - see sock.h. The only file that knows ZeroMQ. Never blocks but in zmq_poll.
 *
 * Settings. LINGER 0: the default is to wait for ever for a peer that is gone. IMMEDIATE 1: without
 * it what is sent while a peer is down is queued for its successor. ROUTER_MANDATORY 1: without it
 * a send to nobody succeeds. HWM: a bound on memory.
 */
#include "ipc/sock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

#include "common/clock.h"

/* TAKE_MAX: messages taken at one go, so that a flood does not hold the caller. */
enum {
    ENDPOINT_MAX = 6 + 107 + 1, /* "ipc://" and a UNIX socket's name */
    REQUEST_HWM = 64,
    TAKE_MAX = 256,
    CONNECT_MS = 2000
};

struct server {
    void *ctx, *router;
    struct bells *bells;
};

struct client {
    void *ctx, *dealer;
    char run_dir[ENDPOINT_MAX];
};

/* --- sockets --------------------------------------------------------------------------------- */

static err_t zmq_fail(const char *what, const char *where)
{
    const err_t code =
        errno == EMFILE || errno == ENFILE || errno == ENOMEM ? ERR_NOMEM : ERR_WRITE;
    return FAIL(code, "%s: %s: %s", where, what, zmq_strerror(errno));
}

static err_t endpoint_of(char out[ENDPOINT_MAX], const char *run_dir)
{
    const int n = snprintf(out, ENDPOINT_MAX, "ipc://%s/gateway.ctl", run_dir);
    if (n < 0 || n >= ENDPOINT_MAX)
        return FAIL(ERR_CONFIG, "%s/gateway.ctl: a socket's name has at most %d bytes", run_dir,
                    ENDPOINT_MAX - 7);
    return OK;
}

static err_t context_open(void **out)
{
    void *ctx = zmq_ctx_new();
    if (!ctx) return zmq_fail("context", "zeromq");
    if (zmq_ctx_set(ctx, ZMQ_IO_THREADS, 1) != 0 || zmq_ctx_set(ctx, ZMQ_BLOCKY, 0) != 0) {
        const err_t e = zmq_fail("settings", "zeromq"); /* before errno is another's */
        zmq_ctx_term(ctx);
        return e;
    }
    *out = ctx;
    return OK;
}

static bool set(void *s, int option, int value)
{
    return zmq_setsockopt(s, option, &value, sizeof value) == 0;
}

static err_t socket_open(void *ctx, int type, void **out)
{
    const int64_t n_bytes_max = MSG_BYTES_MAX;
    void *s = zmq_socket(ctx, type);
    if (!s) return zmq_fail("socket", "zeromq");
    bool is_set = set(s, ZMQ_LINGER, 0) && set(s, ZMQ_SNDHWM, REQUEST_HWM) &&
                  set(s, ZMQ_RCVHWM, REQUEST_HWM) && set(s, ZMQ_HANDSHAKE_IVL, 2000) &&
                  set(s, ZMQ_RECONNECT_IVL, 10) && set(s, ZMQ_RECONNECT_IVL_MAX, 200) &&
                  zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &n_bytes_max, sizeof n_bytes_max) == 0;
    if (type == ZMQ_DEALER) is_set = is_set && set(s, ZMQ_IMMEDIATE, 1);
    if (type == ZMQ_ROUTER) is_set = is_set && set(s, ZMQ_ROUTER_MANDATORY, 1);
    if (!is_set) {
        const err_t e = zmq_fail("settings", "zeromq");
        zmq_close(s);
        return e;
    }
    *out = s;
    return OK;
}

/* The socket's file takes its mode from the umask. */
static err_t bind_private(void *s, const char *endpoint)
{
    const mode_t kept = umask(077);
    const int rc = zmq_bind(s, endpoint);
    umask(kept);
    return rc == 0 ? OK : zmq_fail("bind", endpoint);
}

static bool has_more(void *s)
{
    int more = 0;
    size_t n = sizeof more;
    return zmq_getsockopt(s, ZMQ_RCVMORE, &more, &n) == 0 && more != 0;
}

/* Reads off the rest of a message, or the next receive would begin in its middle. */
static bool skip_rest(void *s)
{
    bool had_rest = false;
    char sink[1];
    while (has_more(s)) {
        had_rest = true;
        if (zmq_recv(s, sink, sizeof sink, ZMQ_DONTWAIT) < 0) break;
    }
    return had_rest;
}

enum took { TOOK_NOTHING, TOOK_MESSAGE, TOOK_GARBAGE };

/* The last part of a message: it must be that, and fit. */
static enum took take(void *s, uint8_t *buf, size_t cap, size_t *n_bytes)
{
    const int n = zmq_recv(s, buf, cap, ZMQ_DONTWAIT);
    if (n < 0) return TOOK_NOTHING;
    if (skip_rest(s) || n == 0 || (size_t)n > cap) return TOOK_GARBAGE;
    *n_bytes = (size_t)n;
    return TOOK_MESSAGE;
}

/* --- server ---------------------------------------------------------------------------------- */

err_t server_open(struct server **out, const char *run_dir, struct bells *bells)
{
    err_t e = OK;
    char endpoint[ENDPOINT_MAX];
    int fd;
    size_t n = sizeof fd;
    struct server *s = calloc(1, sizeof *s);
    if (!s) return FAIL(ERR_NOMEM, "server");
    TRY(endpoint_of(endpoint, run_dir));
    TRY(context_open(&s->ctx));
    TRY(socket_open(s->ctx, ZMQ_ROUTER, &s->router));
    TRY(bind_private(s->router, endpoint));
    if (zmq_getsockopt(s->router, ZMQ_FD, &fd, &n) != 0) {
        e = zmq_fail("descriptor", endpoint);
        goto out;
    }
    s->bells = bells;
    bells_watch(bells, fd);
    *out = s;
    s = NULL;
out:
    server_close(&s);
    return e;
}

void server_close(struct server **s)
{
    if (!s || !*s) return;
    if ((*s)->bells) bells_watch((*s)->bells, -1);
    if ((*s)->router) zmq_close((*s)->router);
    if ((*s)->ctx) zmq_ctx_term((*s)->ctx);
    free(*s);
    *s = NULL;
}

err_t server_next(struct server *s, uint8_t peer[SOCK_PEER_MAX], size_t *n_peer, uint8_t *buf,
                  size_t cap, size_t *n_bytes)
{
    *n_bytes = 0;
    for (int i = 0; i < TAKE_MAX; i++) {
        const int n = zmq_recv(s->router, peer, SOCK_PEER_MAX, ZMQ_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return OK;
        if (n < 0) return FAIL(ERR_BUG, "gateway.ctl: %s", zmq_strerror(errno));
        const bool has_body = has_more(s->router);
        const bool is_named = n > 0 && n <= SOCK_PEER_MAX;
        if (!has_body || take(s->router, buf, cap, n_bytes) != TOOK_MESSAGE || !is_named) {
            *n_bytes = 0;
            bells_drop(s->bells);
            continue;
        }
        *n_peer = (size_t)n;
        return OK;
    }
    return OK;
}

bool server_has_request(struct server *s)
{
    int events = 0;
    size_t n = sizeof events;
    return zmq_getsockopt(s->router, ZMQ_EVENTS, &events, &n) == 0 && (events & ZMQ_POLLIN);
}

void server_reply(struct server *s, const uint8_t *peer, size_t n_peer, const uint8_t *buf,
                  size_t n_bytes)
{
    if (zmq_send(s->router, peer, n_peer, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) return;
    (void)zmq_send(s->router, buf, n_bytes, ZMQ_DONTWAIT);
}

/* --- client ---------------------------------------------------------------------------------- */

err_t client_open(struct client **out, const char *run_dir)
{
    err_t e = OK;
    char endpoint[ENDPOINT_MAX];
    struct client *c = calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_NOMEM, "client");
    TRY(endpoint_of(endpoint, run_dir));
    snprintf(c->run_dir, sizeof c->run_dir, "%s", run_dir);
    TRY(context_open(&c->ctx));
    TRY(socket_open(c->ctx, ZMQ_DEALER, &c->dealer));
    if (zmq_connect(c->dealer, endpoint) != 0) {
        e = zmq_fail("connect", endpoint);
        goto out;
    }
    *out = c;
    c = NULL;
out:
    client_close(&c);
    return e;
}

void client_close(struct client **c)
{
    if (!c || !*c) return;
    if ((*c)->dealer) zmq_close((*c)->dealer);
    if ((*c)->ctx) zmq_ctx_term((*c)->ctx);
    free(*c);
    *c = NULL;
}

err_t client_send(struct client *c, const uint8_t *buf, size_t n_bytes)
{
    const int64_t deadline_ns = now_ns() + (int64_t)CONNECT_MS * NS_PER_MS;
    if (n_bytes > MSG_BYTES_MAX)
        return FAIL(ERR_LIMIT, "a message of %zu bytes, the limit is %d", n_bytes, MSG_BYTES_MAX);
    for (;;) {
        zmq_pollitem_t item = {.socket = c->dealer, .events = ZMQ_POLLOUT};
        if (zmq_send(c->dealer, buf, n_bytes, ZMQ_DONTWAIT) >= 0) return OK;
        if (errno != EAGAIN && errno != EINTR) return zmq_fail("send", c->run_dir);
        const int64_t left_ms = (deadline_ns - now_ns()) / NS_PER_MS;
        if (left_ms <= 0) return FAIL(ERR_NONE, "%s: no gateway answers there", c->run_dir);
        (void)zmq_poll(&item, 1, left_ms);
    }
}

err_t client_wait(struct client *c, int32_t wait_ms, int extra_fd, uint8_t *buf, size_t cap,
                  size_t *n_bytes)
{
    const int64_t deadline_ns = now_ns() + (int64_t)wait_ms * NS_PER_MS;
    zmq_pollitem_t items[2] = {{.socket = c->dealer, .events = ZMQ_POLLIN},
                               {.fd = extra_fd, .events = ZMQ_POLLIN}};
    *n_bytes = 0;
    for (;;) {
        if (take(c->dealer, buf, cap, n_bytes) == TOOK_MESSAGE) return OK;
        *n_bytes = 0;
        const int64_t left_ms = (deadline_ns - now_ns() + NS_PER_MS - 1) / NS_PER_MS;
        if (left_ms <= 0) return FAIL(ERR_TIMEOUT, "no answer within %d ms", wait_ms);
        const int n = zmq_poll(items, extra_fd >= 0 ? 2 : 1, left_ms);
        if (n < 0 && errno == EINTR) return OK;
        if (n < 0) return zmq_fail("poll", c->run_dir);
        if (extra_fd >= 0 && items[1].revents && !items[0].revents) return OK;
    }
}
