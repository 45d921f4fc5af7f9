/* child.h - starting a process so that it can never outlive us, and knowing when it has ended.
 *
 * Fork only from the main thread: PR_SET_PDEATHSIG fires when the forking thread ends. */
#ifndef SUPERVISOR_CHILD_H
#define SUPERVISOR_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

enum { CHILD_READY_FD = 3 };

struct child_conf {
    const char *path;        /* program */
    const char *const *argv; /* NULL-terminated */
    int in_fd, out_fd;       /* -1: /dev/null */
    int err_fd;              /* -1: ours */
    int ready_fd;            /* becomes CHILD_READY_FD; -1: none */
    bool in_our_group;       /* reads our terminal; else a group of its own, away from Ctrl-C */
};

struct child {
    pid_t pid; /* 0: none */
    int pidfd; /* readable when it has ended; -1: none */
    bool has_group;
};

/* The child has default signal dispositions, an empty signal mask, no fd of ours but those above,
 * and dies by SIGKILL when we do. A program that cannot be run ends with status 66 and one line on
 * err_fd. ERR_AGAIN: the system has no process or fd to spare. */
MUST_USE err_t child_spawn(struct child *out, const struct child_conf *c);

/* The same, with a pipe as its ready_fd; *ready_fd is our end, to be closed by the caller, and does
 * not block. */
MUST_USE err_t child_spawn_ready(struct child *out, struct child_conf c, int *ready_fd);

/* To its whole group, where it has one. */
void child_signal(const struct child *c, int sig);

/* true: it has ended and is reaped; *status is that of waitpid. Does not wait. */
bool child_has_ended(struct child *c, int *status);

/* SIGKILL, and waits for the end. */
void child_kill(struct child *c);

#endif
