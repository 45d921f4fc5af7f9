/* control.c - see control.h. */
#include "procs/supervisor/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "procs/supervisor/super_policy.h"

#define CONTROL_NS ((int64_t)2 * NS_PER_S)

static err_t address(struct sockaddr_un *a, const char *run_dir)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    const int n = snprintf(a->sun_path, sizeof a->sun_path, "%s/super.sock", run_dir);
    if (n < 0 || n >= (int)sizeof a->sun_path)
        return FAIL(ERR_CONFIG, "run directory %s: too long for a socket", run_dir);
    return OK;
}

err_t control_open(struct control *c, const char *run_dir)
{
    struct sockaddr_un a;
    err_t e = OK;
    for (int i = 0; i < CONTROL_CONNS; i++) c->conns[i].fd = -1;
    c->listen_fd = -1;
    c->n_refused = 0;
    TRY(address(&a, run_dir));
    c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(a.sun_path);
    if (c->listen_fd < 0 || bind(c->listen_fd, (const struct sockaddr *)&a, sizeof a) != 0 ||
        listen(c->listen_fd, CONTROL_CONNS) != 0)
        e = FAIL(ERR_CONFIG, "%s: %s", a.sun_path, strerror(errno));
out:
    if (e != OK) control_close(c);
    return e;
}

static void drop(struct control *c, int32_t i)
{
    close(c->conns[i].fd);
    c->conns[i].fd = -1;
}

void control_close(struct control *c)
{
    for (int32_t i = 0; i < CONTROL_CONNS; i++)
        if (c->conns[i].fd >= 0) drop(c, i);
    if (c->listen_fd >= 0) close(c->listen_fd);
    c->listen_fd = -1;
}

int32_t control_polls(const struct control *c, struct pollfd *out)
{
    int32_t n = 0;
    if (c->listen_fd < 0) return 0;
    out[n++] = (struct pollfd){.fd = c->listen_fd, .events = POLLIN};
    for (int i = 0; i < CONTROL_CONNS; i++) /* one that has asked is only waiting for us */
        if (c->conns[i].fd >= 0 && !c->conns[i].has_asked)
            out[n++] = (struct pollfd){.fd = c->conns[i].fd, .events = POLLIN};
    return n;
}

static void take_new(struct control *c, int64_t at_ns)
{
    int fd;
    while ((fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        int32_t i = 0;
        while (i < CONTROL_CONNS && c->conns[i].fd >= 0) i++;
        if (i == CONTROL_CONNS) {
            send(fd, "error 75 busy\n", 14, MSG_NOSIGNAL | MSG_DONTWAIT);
            close(fd);
            c->n_refused++;
            continue;
        }
        c->conns[i].fd = fd;
        c->conns[i].n_line = 0;
        c->conns[i].has_asked = false;
        c->conns[i].since_ns = at_ns;
    }
}

static void split(struct control_request *r, const char *line)
{
    *r = (struct control_request){0};
    while (r->n_words < 3) {
        line += strspn(line, " \t\r\n");
        const size_t n = strcspn(line, " \t\r\n");
        if (n == 0) break;
        snprintf(r->words[r->n_words++], sizeof r->words[0], "%.*s", (int)(n < 31 ? n : 31), line);
        line += n;
    }
}

bool control_next(struct control *c, int64_t at_ns, struct control_request *out)
{
    if (c->listen_fd < 0) return false;
    take_new(c, at_ns);
    for (int32_t i = 0; i < CONTROL_CONNS; i++) {
        if (c->conns[i].fd < 0 || c->conns[i].has_asked) continue;
        const int32_t room = CONTROL_LINE_MAX - 1 - c->conns[i].n_line;
        char *at = c->conns[i].line + c->conns[i].n_line;
        const ssize_t n = recv(c->conns[i].fd, at, (size_t)room, MSG_DONTWAIT);
        if (n > 0) c->conns[i].n_line += (int32_t)n;
        c->conns[i].line[c->conns[i].n_line] = 0;
        if (n > 0 && strchr(c->conns[i].line, '\n')) {
            split(out, c->conns[i].line);
            out->conn = i;
            c->conns[i].has_asked = true;
            return true;
        }
        const bool is_over = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
        if (!is_over && room != n && at_ns - c->conns[i].since_ns <= CONTROL_NS) continue;
        c->n_refused++;
        drop(c, i);
    }
    return false;
}

void control_answer(struct control *c, int32_t conn, const char *text)
{
    MUST(conn >= 0 && conn < CONTROL_CONNS);
    if (c->conns[conn].fd < 0) return;
    /* A fresh socket's buffer holds the longest answer; one who does not read it is not waited for.
     */
    send(c->conns[conn].fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    drop(c, conn);
}

void control_refuse(struct control *c, int32_t conn, const char *text)
{
    c->n_refused++;
    control_answer(c, conn, text);
}

static err_t read_all(int fd, int32_t wait_ms, char *out, size_t cap)
{
    const int64_t end_ns = now_ns() + (int64_t)wait_ms * NS_PER_MS;
    size_t n_out = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        const int64_t left_ms = (end_ns - now_ns()) / NS_PER_MS;
        if (left_ms <= 0) return FAIL(ERR_TIMEOUT, "the supervisor does not answer");
        if (poll(&p, 1, (int)left_ms) < 0 && errno != EINTR)
            return FAIL(ERR_BUG, "poll: %s", strerror(errno));
        if (!p.revents) continue;
        char buf[1024];
        const ssize_t n = read(fd, buf, sizeof buf);
        if (n <= 0) break;
        for (ssize_t i = 0; i < n && n_out + 1 < cap; i++) out[n_out++] = buf[i];
    }
    out[n_out] = 0;
    return OK;
}

static err_t told(const char *answer)
{
    char *rest;
    if (strncmp(answer, "error ", 6) != 0) return OK;
    const long status = strtol(answer + 6, &rest, 10);
    return FAIL(policy_code_of((int32_t)status), "%.*s", (int)strcspn(rest + (*rest == ' '), "\n"),
                rest + (*rest == ' '));
}

err_t control_ask(const char *run_dir, const char *line, int32_t wait_ms, char *out, size_t cap,
                  pid_t *pid)
{
    err_t e = OK;
    struct sockaddr_un a;
    struct ucred who = {0};
    socklen_t n_who = sizeof who;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(cap > 0);
    out[0] = 0;
    TRY(address(&a, run_dir));
    if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof a) != 0) {
        e = FAIL(ERR_NONE, "nothing runs in %s", run_dir);
        goto out;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n_who) == 0 && pid) *pid = who.pid;
    char text[CONTROL_LINE_MAX];
    const int n = snprintf(text, sizeof text, "%s\n", line);
    MUST(n > 0 && n < (int)sizeof text);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
        e = FAIL(ERR_NONE, "nothing runs in %s", run_dir);
        goto out;
    }
    TRY(read_all(fd, wait_ms, out, cap));
    e = told(out);
out:
    if (fd >= 0) close(fd);
    return e;
}
