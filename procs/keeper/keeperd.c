/* keeperd.c - see keeperd.h. */
#include "procs/keeper/keeperd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "procs/keeper/vault.h"

/* FDS_MIN: connections, holders, and what a process has anyway, twice over. */
enum { BACKLOG = 64, FDS_MIN = 128, ACCEPTS_MAX = 64 };

struct conn {
    int fd; /* -1: free */
    struct process who;
    uint64_t order;      /* of arrival; while it waits, of its request */
    bool has_spoken;     /* said something sensible */
    bool is_waiting;     /* for a lease */
    bool is_logged;      /* a refusal of it is in the log */
    int64_t deadline_ns; /* of the wait */
    int watch_fd;        /* the holder's end; the vault's */
    char name[KEEPER_NAME_MAX];
};

struct keeperd {
    int lock_fd, listen_fd;
    struct sockaddr_un at;
    struct vault *vault;
    uint64_t n_arrivals, n_refused;
    struct conn conns[KEEPERD_CONNECTIONS_MAX];
};

/* --- opening --------------------------------------------------------------------------------- */

static err_t check_dir(const char *run_dir, char real[PATH_MAX])
{
    struct stat st;
    char path[PATH_MAX];
    size_t n = strlen(run_dir);
    if (n == 0 || n >= sizeof path) return FAIL(ERR_CONFIG, "run directory: empty or too long");
    while (n > 1 && run_dir[n - 1] == '/') n--; /* a trailing slash would follow a symlink */
    memcpy(path, run_dir, n);
    path[n] = '\0';
    if (lstat(path, &st) != 0) return FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
    if (S_ISLNK(st.st_mode)) return FAIL(ERR_CONFIG, "%s: a symbolic link", path);
    if (!S_ISDIR(st.st_mode)) return FAIL(ERR_CONFIG, "%s: not a directory", path);
    if (st.st_uid != geteuid())
        return FAIL(ERR_CONFIG, "%s: belongs to user %u, not to %u", path, (unsigned)st.st_uid,
                    (unsigned)geteuid());
    if (st.st_mode & 077)
        return FAIL(ERR_CONFIG, "%s: mode %03o is open to others, must be 700", path,
                    (unsigned)st.st_mode & 0777);
    if (!realpath(path, real)) return FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
    return OK;
}

static err_t take_lock(const char *dir, int *out)
{
    err_t e = OK;
    char path[PATH_MAX + 16], pid[16] = "";
    snprintf(path, sizeof path, "%s/keeper.lock", dir);
    const int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        const ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
        e = FAIL(ERR_RUNNING, "%s: keeper %s holds the run directory", dir, pid[0] ? pid : "?");
        goto out;
    }
    const int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n)
        e = FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
out:
    if (e == OK) *out = fd;
    else close(fd);
    return e;
}

static err_t start_listening(struct keeperd *k, const char *dir)
{
    char path[PATH_MAX + 16];
    const int n = snprintf(path, sizeof path, "%s/keeper.sock", dir);
    if (n >= (int)sizeof k->at.sun_path)
        return FAIL(ERR_CONFIG, "%s: %d bytes, a socket's name has at most %zu", path, n,
                    sizeof k->at.sun_path - 1);
    if (unlink(path) != 0 && errno != ENOENT) /* a dead keeper's: we hold the lock */
        return FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
    k->at.sun_family = AF_UNIX;
    memcpy(k->at.sun_path, path, (size_t)n + 1);
    k->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (k->listen_fd < 0 || bind(k->listen_fd, (struct sockaddr *)&k->at, sizeof k->at) != 0 ||
        listen(k->listen_fd, BACKLOG) != 0)
        return FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
    return OK;
}

err_t keeperd_open(struct keeperd **out, const char *run_dir)
{
    err_t e = OK;
    char dir[PATH_MAX];
    struct rlimit fds;
    struct keeperd *k = calloc(1, sizeof *k);
    if (!k) return FAIL(ERR_NOMEM, "keeper");
    k->lock_fd = k->listen_fd = -1;
    for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++) k->conns[i].fd = -1;

    umask(077);
    if (getrlimit(RLIMIT_NOFILE, &fds) == 0 && fds.rlim_cur < FDS_MIN) {
        e = FAIL(ERR_CONFIG, "ulimit -n is %llu, the keeper needs %d",
                 (unsigned long long)fds.rlim_cur, FDS_MIN);
        goto out;
    }
    TRY(check_dir(run_dir, dir));
    TRY(take_lock(dir, &k->lock_fd));
    TRY(vault_open(&k->vault, dir));
    TRY(start_listening(k, dir));

    *out = k;
    k = NULL;
out:
    keeperd_close(&k);
    return e;
}

static void conn_close(struct conn *c)
{
    close(c->fd);
    *c = (struct conn){.fd = -1, .watch_fd = -1};
}

void keeperd_close(struct keeperd **k)
{
    if (!k || !*k) return;
    for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++)
        if ((*k)->conns[i].fd >= 0) conn_close(&(*k)->conns[i]);
    if ((*k)->at.sun_path[0]) unlink((*k)->at.sun_path);
    if ((*k)->listen_fd >= 0) close((*k)->listen_fd);
    vault_close(&(*k)->vault);
    if ((*k)->lock_fd >= 0) close((*k)->lock_fd); /* last: nobody else may come in before */
    free(*k);
    *k = NULL;
}

/* --- connections ----------------------------------------------------------------------------- */

/* A free place, made by closing the oldest connection that never spoke if need be; or NULL. */
static struct conn *place(struct keeperd *k)
{
    struct conn *oldest = NULL;
    for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++) {
        struct conn *c = &k->conns[i];
        if (c->fd < 0) return c;
        if (!c->has_spoken && (!oldest || c->order < oldest->order)) oldest = c;
    }
    if (oldest) conn_close(oldest);
    return oldest;
}

static void welcome(struct keeperd *k, int fd)
{
    struct ucred peer = {0};
    socklen_t n = sizeof peer;
    struct process who;
    struct conn *c = NULL;
    const bool is_ours = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.pid > 0 &&
                         peer.uid == geteuid();
    if (is_ours && process_of(peer.pid, &who) == OK) c = place(k);
    if (!c) {
        close(fd);
        return;
    }
    *c = (struct conn){.fd = fd, .who = who, .order = ++k->n_arrivals, .watch_fd = -1};
}

static err_t accept_all(struct keeperd *k)
{
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        const int fd = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) welcome(k, fd);
        else if (errno == EAGAIN) return OK;
        else if (errno != EINTR && errno != ECONNABORTED)
            return FAIL(ERR_BUG, "keeper.sock: accept: %s", strerror(errno));
    }
    return OK;
}

static void answer(struct conn *c, err_t status, struct keeper_reply *rep)
{
    if (status != OK) {
        memset(rep, 0, sizeof *rep);
        snprintf(rep->text, sizeof rep->text, "%.*s", KEEPER_TEXT_MAX - 1, err_text());
    }
    rep->version = KEEPER_VERSION;
    rep->status = status;
    /* Whoever asks without reading the answers has no place here. */
    if (send(c->fd, rep, sizeof *rep, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof *rep)
        conn_close(c);
}

static err_t ask_lease(struct keeperd *k, struct conn *c)
{
    struct keeper_reply rep = {0};
    const err_t e = vault_lease(k->vault, c->name, &c->who, &rep.incarnation, &c->watch_fd);
    c->is_waiting = e == ERR_RUNNING && now_ns() < c->deadline_ns;
    if (!c->is_waiting) answer(c, e, &rep);
    return e;
}

static void serve(struct keeperd *k, struct conn *c, const struct keeper_request *req)
{
    struct keeper_reply rep = {0};
    err_t e = OK;
    switch (req->op) {
    case KEEPER_LEASE:
        memcpy(c->name, req->name, sizeof c->name);
        c->deadline_ns = now_ns() + (int64_t)req->wait_ms * NS_PER_MS;
        c->order = ++k->n_arrivals;
        if (ask_lease(k, c) == ERR_RUNNING && c->is_waiting)
            log_info("lease_waits", "name=%s pid=%d", c->name, (int)c->who.pid);
        return;
    case KEEPER_REGION:
        e = vault_region(k->vault, &c->who, req, &rep);
        break;
    case KEEPER_SEAL:
        e = vault_seal(k->vault, &c->who, req->name, &rep);
        break;
    case KEEPER_FREE:
        e = vault_free(k->vault, &c->who, req->name);
        break;
    case KEEPER_LIST:
        e = vault_list(k->vault, req->index, &rep);
        break;
    default: /* refuse_reason has let nothing else pass */
        e = FAIL(ERR_DATA, "unknown request %u", req->op);
    }
    answer(c, e, &rep);
}

static const char *refuse_reason(const struct keeper_request *req, ssize_t n_bytes)
{
    if (n_bytes != (ssize_t)sizeof *req) return "wrong size";
    if (req->version != KEEPER_VERSION) return "another version";
    if (req->op < KEEPER_LEASE || req->op > KEEPER_LIST) return "unknown request";
    if (!memchr(req->name, '\0', sizeof req->name)) return "name without an end";
    if (!memchr(req->device, '\0', sizeof req->device)) return "device without an end";
    return NULL;
}

/* One packet. */
static void listen_to(struct keeperd *k, struct conn *c)
{
    struct keeper_request req = {0};
    struct keeper_reply rep = {0};
    const ssize_t n = recv(c->fd, &req, sizeof req, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    /* Nobody has a reason to speak while the answer is being waited for. */
    if (n <= 0 || c->is_waiting) {
        conn_close(c);
        return;
    }
    const char *why = refuse_reason(&req, n);
    if (!why) {
        c->has_spoken = true;
        serve(k, c, &req);
        return;
    }
    k->n_refused++;
    if (!c->is_logged) /* once, or a mad client would fill the disk */
        log_warn("refused", "pid=%d bytes=%zd why=\"%s\"", (int)c->who.pid, n, why);
    c->is_logged = true;
    answer(c, FAIL(ERR_DATA, "packet of %zd bytes: %s", n, why), &rep);
}

/* --- the loop -------------------------------------------------------------------------------- */

/* In the order in which they asked, those that wait ask again. */
static void settle_waiters(struct keeperd *k)
{
    uint64_t last = 0;
    for (;;) {
        struct conn *next = NULL;
        for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++) {
            struct conn *c = &k->conns[i];
            if (c->fd >= 0 && c->is_waiting && c->order > last && (!next || c->order < next->order))
                next = c;
        }
        if (!next) return;
        last = next->order;
        (void)ask_lease(k, next);
    }
}

static int32_t until_deadline_ms(const struct keeperd *k, int32_t wait_ms)
{
    const int64_t now = now_ns();
    int64_t ms = wait_ms < 0 ? INT32_MAX : wait_ms;
    for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++) {
        const struct conn *c = &k->conns[i];
        if (c->fd < 0 || !c->is_waiting) continue;
        const int64_t left = (c->deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
        if (left < ms) ms = left > 0 ? left : 0;
    }
    return ms == INT32_MAX ? -1 : (int32_t)ms;
}

err_t keeperd_step(struct keeperd *k, int32_t wait_ms)
{
    struct pollfd fds[1 + 2 * KEEPERD_CONNECTIONS_MAX];
    fds[0] = (struct pollfd){.fd = k->listen_fd, .events = POLLIN};
    for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++) { /* poll skips a negative fd */
        const struct conn *c = &k->conns[i];
        const int watch_fd = c->fd >= 0 && c->is_waiting ? c->watch_fd : -1;
        fds[1 + 2 * i] = (struct pollfd){.fd = c->fd, .events = POLLIN};
        fds[2 + 2 * i] = (struct pollfd){.fd = watch_fd, .events = POLLIN};
    }
    const int32_t ms = until_deadline_ms(k, wait_ms);
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * NS_PER_MS};
    sigset_t none; /* what main blocks comes in here, and only here */
    sigemptyset(&none);
    const int n = ppoll(fds, sizeof fds / sizeof *fds, ms < 0 ? NULL : &t, &none);
    if (n < 0 && errno == EINTR) return OK;
    if (n < 0) return FAIL(ERR_BUG, "poll: %s", strerror(errno));

    /* Those that went away first, so that no lease goes to them. */
    for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++)
        if (k->conns[i].fd >= 0 && fds[1 + 2 * i].revents) listen_to(k, &k->conns[i]);
    settle_waiters(k);
    return fds[0].revents ? accept_all(k) : OK;
}

uint64_t keeperd_refused(const struct keeperd *k)
{
    return k->n_refused;
}

int32_t keeperd_connections(const struct keeperd *k)
{
    int32_t n = 0;
    for (int i = 0; i < KEEPERD_CONNECTIONS_MAX; i++) n += k->conns[i].fd >= 0;
    return n;
}
