/* probe.c - see probe.h. */
#include "procs/keeper/probe.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/dev.h"

enum { SHARE_BYTES = 4096 };

err_t probe_device(const char *name, char *out, size_t cap)
{
    err_t e = OK;
    struct dev *d = NULL;
    struct dev_info info;
    void *p = NULL;
    TRY(dev_open(&d, name, 1));
    TRY(dev_alloc(d, 1, &p));
    TRY(dev_info(d, &info));
    snprintf(out, cap, "%llu %llu %s", (unsigned long long)info.free_bytes >> 20,
             (unsigned long long)info.all_bytes >> 20, info.text);
out:
    if (d) dev_free(d, &p);
    dev_close(&d);
    return e;
}

/* By exec: a child of fork can use no CUDA. Its standard input and output are `fd`. */
static pid_t start_peer(const char *peer, int fd)
{
    const pid_t pid = fork();
    if (pid != 0) return pid;
    if (dup2(fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0)
        execl("/proc/self/exe", "longlived-keeper", "--map", peer, NULL);
    _exit(127);
}

static err_t ask_peer(const struct dev_share *s, const char *peer)
{
    err_t e = OK;
    char line[512] = "";
    size_t n_line = 0;
    ssize_t n = 0;
    int fds[2], status = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return FAIL(ERR_AGAIN, "socketpair: %s", strerror(errno));
    const pid_t pid = start_peer(peer, fds[1]);
    close(fds[1]);
    if (pid < 0) {
        e = FAIL(ERR_AGAIN, "cannot start a process: %s", strerror(errno));
        goto out;
    }
    if (send(fds[0], s, sizeof *s, MSG_NOSIGNAL) == (ssize_t)sizeof *s)
        while (n_line < sizeof line - 1 &&
               (n = read(fds[0], line + n_line, sizeof line - 1 - n_line)) > 0)
            n_line += (size_t)n;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        e = FAIL(ERR_REFUSED, "%.*s", (int)strcspn(line, "\n"),
                 n_line ? line : "the other process died");
out:
    close(fds[0]);
    return e;
}

err_t probe_share(const char *name, const char *peer)
{
    err_t e = OK;
    struct dev *d = NULL;
    struct dev_share s = {0};
    char path[64] = "memory";
    bool is_made = false;
    if (strcmp(name, "cpu") == 0)
        snprintf(path, sizeof path, "/dev/shm/longlived-probe-%d", (int)getpid());
    TRY(dev_open(&d, name, 1));
    TRY(dev_share_make(d, path, SHARE_BYTES, &s));
    is_made = true;
    TRY(ask_peer(&s, peer));
out:
    if (is_made) dev_share_drop(d, &s);
    dev_close(&d);
    return e;
}

err_t probe_map(const char *peer)
{
    err_t e = OK;
    struct dev *d = NULL;
    struct dev_share s;
    void *p = NULL;
    if (read(STDIN_FILENO, &s, sizeof s) != (ssize_t)sizeof s)
        return FAIL(ERR_USAGE, "--map %s: nothing to map on standard input", peer);
    TRY(dev_open(&d, peer, 1));
    TRY(dev_share_map(d, &s, &p));
    dev_share_unmap(d, &s, &p);
out:
    dev_close(&d);
    return e;
}
