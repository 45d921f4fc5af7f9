/* bells.c - see bells.h. */
#include "ipc/bells.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipc/msg.h"

/* TAKE_MAX: datagrams taken at one go, so that a flood does not hold the caller. */
enum { BELL_BYTES_MAX = 64, TAKE_MAX = 256 };

struct bells {
    int fd, watched_fd; /* -1: none */
    enum ledger_writer self;
    struct sockaddr_un at[WRITERS];
    uint8_t ring[BELL_BYTES_MAX]; /* the one message that we send */
    size_t n_ring;
    uint64_t n_dropped;
    struct msg m; /* the last one taken; too large for the stack of a loop */
};

static err_t name_bells(struct bells *b, const char *run_dir)
{
    for (int i = 0; i < WRITERS; i++) {
        struct sockaddr_un *at = &b->at[i];
        at->sun_family = AF_UNIX;
        const int n = snprintf(at->sun_path, sizeof at->sun_path, "%s/bell.%s", run_dir,
                               ledger_writer_names[i]);
        if (n < 0 || (size_t)n >= sizeof at->sun_path)
            return FAIL(ERR_CONFIG, "%s/bell.%s: a socket's name has at most %zu bytes", run_dir,
                        ledger_writer_names[i], sizeof at->sun_path - 1);
    }
    return OK;
}

/* Whoever held the name before is dead: its lease is ours. The file takes its mode from the umask.
 */
static err_t bind_own(struct bells *b)
{
    const struct sockaddr_un *at = &b->at[b->self];
    b->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (b->fd < 0) return FAIL(ERR_NOMEM, "%s: socket: %s", at->sun_path, strerror(errno));
    (void)unlink(at->sun_path);
    const mode_t kept = umask(077);
    const int rc = bind(b->fd, (const struct sockaddr *)at, sizeof *at);
    umask(kept);
    return rc == 0 ? OK : FAIL(ERR_WRITE, "%s: bind: %s", at->sun_path, strerror(errno));
}

err_t bells_open(struct bells **out, const char *run_dir, enum ledger_writer self)
{
    err_t e = OK;
    MUST(self >= 0 && self < WRITERS);
    struct bells *b = calloc(1, sizeof *b);
    if (!b) return FAIL(ERR_NOMEM, "bells");
    b->fd = b->watched_fd = -1;
    b->self = self;
    b->m = (struct msg){.type = MSG_BELL, .from = (uint64_t)self};
    b->n_ring = msg_pack(&b->m, b->ring, sizeof b->ring);
    MUST(b->n_ring > 0);
    TRY(name_bells(b, run_dir));
    TRY(bind_own(b));
    *out = b;
    b = NULL;
out:
    bells_close(&b);
    return e;
}

void bells_close(struct bells **b)
{
    if (!b || !*b) return;
    if ((*b)->fd >= 0) close((*b)->fd);
    free(*b);
    *b = NULL;
}

/* Fails when nobody is there, or its queue is full of bells: either way it looks at the ledger. */
void bells_ring(struct bells *b, enum ledger_writer to)
{
    MUST(to >= 0 && to < WRITERS);
    if (to == b->self) return;
    (void)!sendto(b->fd, b->ring, b->n_ring, MSG_DONTWAIT | MSG_NOSIGNAL,
                  (const struct sockaddr *)&b->at[to], sizeof b->at[to]);
}

void bells_watch(struct bells *b, int fd)
{
    b->watched_fd = fd;
}

static void take_bells(struct bells *b)
{
    uint8_t buf[BELL_BYTES_MAX];
    for (int i = 0; i < TAKE_MAX; i++) {
        const ssize_t n = recv(b->fd, buf, sizeof buf, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0) return;
        if (n == 0 || n > (ssize_t)sizeof buf || msg_unpack(&b->m, buf, (size_t)n) != OK ||
            b->m.type != MSG_BELL)
            b->n_dropped++;
    }
}

void bells_wait(struct bells *b, int32_t wait_ms)
{
    struct pollfd fds[2] = {{.fd = b->fd, .events = POLLIN},
                            {.fd = b->watched_fd, .events = POLLIN}};
    (void)poll(fds, 2, wait_ms > 0 ? wait_ms : 0); /* a signal: the caller has a flag to look at */
    take_bells(b);
}

uint64_t bells_dropped(const struct bells *b)
{
    return b->n_dropped;
}

void bells_drop(struct bells *b)
{
    b->n_dropped++;
}
