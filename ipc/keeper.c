/* keeper.c - a stage's side of the keeper; see keeper.h. */
#include "ipc/keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"

_Static_assert(sizeof(struct keeper_request) == 128, "a packet has no padding of its own");
_Static_assert(sizeof(struct keeper_reply) ==
                   8 + KEEPER_TEXT_MAX + 2 * KEEPER_NAME_MAX + 24 + sizeof(struct dev_share),
               "a packet has no padding of its own");

/* ANSWER_MS: the keeper may be reserving the gigabytes of another stage first. A keeper that dies
 * is noticed at once. GRACE_MS: what its answer at the end of a wait may take. */
enum { RETRY_MS = 10, SEND_MS = 10000, ANSWER_MS = 120000, GRACE_MS = 10000 };

struct keeper {
    int fd;
    bool is_broken; /* an answer may still come that nobody waits for: not used again */
};

err_t keeper_connect(struct keeper **out, const char *run_dir, int32_t wait_ms)
{
    err_t e = OK;
    const int64_t deadline_ns = now_ns() + (int64_t)wait_ms * NS_PER_MS;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char path[sizeof at.sun_path + 1];
    struct keeper *k = NULL;
    const int n = snprintf(path, sizeof path, "%s/keeper.sock", run_dir);
    if (n < 0 || n >= (int)sizeof at.sun_path)
        return FAIL(ERR_CONFIG, "%s/keeper.sock: %d bytes, a socket's name has at most %zu",
                    run_dir, n, sizeof at.sun_path - 1);
    memcpy(at.sun_path, path, (size_t)n + 1);

    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return FAIL(ERR_NOMEM, "socket: %s", strerror(errno));
    while (connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        const bool is_fleeting =
            errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR;
        if (!is_fleeting || now_ns() >= deadline_ns) {
            e = FAIL(ERR_AGAIN, "no keeper at %s: %s", at.sun_path, strerror(errno));
            goto out;
        }
        sleep_ns((int64_t)RETRY_MS * NS_PER_MS);
    }
    k = calloc(1, sizeof *k);
    if (!k) {
        e = FAIL(ERR_NOMEM, "keeper");
        goto out;
    }
    k->fd = fd;
    *out = k;
out:
    if (e != OK) close(fd);
    return e;
}

void keeper_close(struct keeper **k)
{
    if (!k || !*k) return;
    close((*k)->fd);
    free(*k);
    *k = NULL;
}

int keeper_fd(const struct keeper *k)
{
    return k->fd;
}

static err_t wait_for(struct keeper *k, short events, int64_t deadline_ns)
{
    for (;;) {
        struct pollfd p = {.fd = k->fd, .events = events};
        const int64_t left_ms = (deadline_ns - now_ns()) / NS_PER_MS;
        const int n = poll(&p, 1, left_ms > 0 ? (int)left_ms : 0);
        if (n > 0) return OK;
        if (n < 0 && errno != EINTR) return FAIL(ERR_BUG, "poll: %s", strerror(errno));
        if (now_ns() >= deadline_ns) return FAIL(ERR_TIMEOUT, "the keeper does not answer");
    }
}

static err_t send_request(struct keeper *k, const struct keeper_request *req)
{
    err_t e = OK;
    TRY(wait_for(k, POLLOUT, now_ns() + (int64_t)SEND_MS * NS_PER_MS));
    if (send(k->fd, req, sizeof *req, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof *req)
        e = FAIL(ERR_AGAIN, "the keeper is gone: %s", strerror(errno));
out:
    return e;
}

static err_t take_reply(struct keeper *k, int32_t wait_ms, struct keeper_reply *rep)
{
    err_t e = OK;
    TRY(wait_for(k, POLLIN, now_ns() + (int64_t)wait_ms * NS_PER_MS));
    const ssize_t n = recv(k->fd, rep, sizeof *rep, MSG_DONTWAIT | MSG_TRUNC);
    if (n <= 0)
        return FAIL(ERR_AGAIN, "the keeper is gone: %s", n < 0 ? strerror(errno) : "it hung up");
    if (n != (ssize_t)sizeof *rep || rep->version != KEEPER_VERSION || rep->status >= ERR_CODES ||
        rep->state > REGION_SEALED)
        return FAIL(ERR_DATA, "the keeper speaks another version: %zd bytes, version %u", n,
                    rep->version);
    rep->text[sizeof rep->text - 1] = '\0';
    rep->name[sizeof rep->name - 1] = '\0';
    rep->device[sizeof rep->device - 1] = '\0';
    rep->share.path[sizeof rep->share.path - 1] = '\0';
out:
    return e;
}

/* One question, one answer. */
static err_t ask(struct keeper *k, const struct keeper_request *req, int32_t wait_ms,
                 struct keeper_reply *rep)
{
    err_t e = OK;
    if (k->is_broken) return FAIL(ERR_AGAIN, "the keeper did not answer before");
    TRY(send_request(k, req));
    TRY(take_reply(k, wait_ms, rep));
    if (rep->status != OK) return FAIL((err_t)rep->status, "%s", rep->text);
out:
    k->is_broken = e != OK;
    return e;
}

static err_t set_name(char to[KEEPER_NAME_MAX], const char *name)
{
    const size_t n = strlen(name);
    if (n >= KEEPER_NAME_MAX)
        return FAIL(ERR_DATA, "%s: name longer than %d", name, KEEPER_NAME_MAX - 1);
    memcpy(to, name, n + 1);
    return OK;
}

err_t keeper_lease(struct keeper *k, const char *stage, int32_t wait_ms, uint64_t *incarnation)
{
    err_t e = OK;
    const int32_t ms = wait_ms < 0                      ? 0
                       : wait_ms < INT32_MAX - GRACE_MS ? wait_ms
                                                        : INT32_MAX - GRACE_MS;
    struct keeper_request req = {
        .version = KEEPER_VERSION, .op = KEEPER_LEASE, .wait_ms = (uint32_t)ms};
    struct keeper_reply rep;
    TRY(set_name(req.name, stage));
    TRY(ask(k, &req, ms + GRACE_MS, &rep));
    *incarnation = rep.incarnation;
out:
    return e;
}

/* The region's memory goes, if there is any. Nobody may have it mapped. */
static err_t drop(struct keeper *k, const char *name)
{
    err_t e = OK;
    struct keeper_request req = {.version = KEEPER_VERSION, .op = KEEPER_FREE};
    struct keeper_reply rep;
    TRY(set_name(req.name, name));
    e = ask(k, &req, ANSWER_MS, &rep);
    if (e == ERR_NONE) e = OK;
out:
    return e;
}

err_t keeper_region(struct keeper *k, struct dev *d, const char *name, const char *device,
                    uint64_t n_bytes, uint64_t layout, const uint8_t *identity, struct region *out)
{
    err_t e = OK;
    void *data = NULL;
    struct keeper_request req = {
        .version = KEEPER_VERSION, .op = KEEPER_REGION, .n_bytes = n_bytes, .layout = layout};
    struct keeper_reply rep;
    TRY(set_name(req.name, name));
    TRY(set_name(req.device, device));
    if (identity) memcpy(req.identity, identity, sizeof req.identity);
    TRY(ask(k, &req, ANSWER_MS, &rep));
    if (rep.share.n_bytes != n_bytes)
        return FAIL(ERR_DATA, "region %s: %" PRIu64 " bytes, not the %" PRIu64 " asked for", name,
                    rep.share.n_bytes, n_bytes);
    e = dev_share_map(d, &rep.share, &data);
    if (e != OK) {
        e = err_prefix(e, "region %s", name);
        const err_t gone = rep.is_new ? drop(k, name) : OK;
        return gone != OK ? gone : e;
    }

    *out = (struct region){.data = data,
                           .n_bytes = n_bytes,
                           .generation = rep.generation,
                           .state = (enum region_state)rep.state,
                           .is_new = rep.is_new != 0,
                           .share = rep.share,
                           .dev = d};
    memcpy(out->name, req.name, sizeof out->name);
out:
    return e;
}

err_t keeper_own(struct keeper *k, struct dev *d, const char *name, uint64_t n_bytes,
                 uint64_t generation, struct region *out)
{
    err_t e = OK;
    struct region r = {.n_bytes = n_bytes,
                       .generation = generation,
                       .state = REGION_FILLING,
                       .is_new = true,
                       .is_own = true,
                       .dev = d};
    TRY(set_name(r.name, name));
    TRY(drop(k, name));
    TRY(dev_alloc(d, n_bytes, &r.data));
    *out = r;
out:
    return e;
}

err_t keeper_seal(struct keeper *k, struct region *r)
{
    err_t e = OK;
    struct keeper_request req = {.version = KEEPER_VERSION, .op = KEEPER_SEAL};
    struct keeper_reply rep;
    memcpy(req.name, r->name, sizeof req.name);
    TRY(dev_sync(r->dev)); /* sealed means that the bytes are there, not that they were asked for */
    if (!r->is_own) TRY(ask(k, &req, ANSWER_MS, &rep));
    r->state = REGION_SEALED;
out:
    return e;
}

err_t keeper_free(struct keeper *k, const char *name, struct region *r)
{
    region_unmap(r);
    return drop(k, name);
}

err_t keeper_list(struct keeper *k, uint32_t index, struct keeper_reply *out)
{
    const struct keeper_request req = {
        .version = KEEPER_VERSION, .op = KEEPER_LIST, .index = index};
    return ask(k, &req, ANSWER_MS, out);
}

void region_unmap(struct region *r)
{
    if (!r || !r->data) return;
    if (r->is_own) dev_free(r->dev, &r->data);
    else dev_share_unmap(r->dev, &r->share, &r->data);
    *r = (struct region){0};
}
