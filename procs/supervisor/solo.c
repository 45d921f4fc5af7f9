/* solo.c - see solo.h. */
#include "procs/supervisor/solo.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "procs/supervisor/child.h"
#include "procs/supervisor/machine.h"

enum { LINE_BYTES = 400, WAIT_MS = 500 };
static const char own_prefix[] = "longlived: ";

/* What the program said last, as an error of its exit status. */
static err_t failure(const char *stage, int status, int err_fd)
{
    char line[LINE_BYTES] = "";
    FILE *f = fdopen(dup(err_fd), "r");
    if (f) rewind(f);
    while (f && fgets(line, sizeof line, f)) continue;
    if (f) fclose(f);
    line[strcspn(line, "\n")] = '\0';
    const size_t n = sizeof own_prefix - 1;
    for (int e = OK + 1; e < ERR_CODES && WIFEXITED(status); e++)
        if (err_exit_status((err_t)e) == WEXITSTATUS(status) && strncmp(line, own_prefix, n) == 0)
            return FAIL((err_t)e, "%s", line + n);
    return FAIL(ERR_BUG, "bench-stage %s ends with status %#x: %s", stage, (unsigned)status, line);
}

static err_t spawn_and_wait(const struct child_conf *c, void (*wait)(void *), void *self,
                            int *status)
{
    struct child child = {.pidfd = -1};
    const err_t e = child_spawn(&child, c);
    if (e != OK) return e;
    struct pollfd end = {.fd = child.pidfd, .events = POLLIN};
    while (!child_has_ended(&child, status)) {
        wait(self);
        poll(&end, 1, WAIT_MS);
    }
    child_kill(&child);
    return OK;
}

static err_t read_object(const char *stage, int fd, json_t **out)
{
    json_error_t why;
    if (lseek(fd, 0, SEEK_SET) != 0) return FAIL(ERR_BUG, "bench-stage: %s", strerror(errno));
    *out = json_loadfd(fd, 0, &why);
    if (json_is_object(*out)) return OK;
    json_decref(*out);
    *out = NULL;
    return FAIL(ERR_BUG, "bench-stage %s: what it prints: %s", stage, why.text);
}

err_t solo_run(const char *bin_dir, const char *stage, const struct conf *c, int32_t n_runs,
               void (*wait)(void *self), void *self, json_t **out)
{
    err_t e = OK;
    char path[340], runs[16];
    int status = 0, fd[3] = {-1, -1, -1};
    const char *const argv[] = {"bench-stage", stage, runs, NULL};
    snprintf(path, sizeof path, "%.320s/bench-stage", bin_dir);
    snprintf(runs, sizeof runs, "%d", n_runs);
    if (access(path, X_OK) != 0) return FAIL(ERR_NOINPUT, "%s: not built: make benches", path);
    TRY(machine_conf(c, &fd[0]));
    fd[1] = memfd_create("output", MFD_CLOEXEC);
    fd[2] = memfd_create("errors", MFD_CLOEXEC);
    if (fd[1] < 0 || fd[2] < 0) {
        e = FAIL(ERR_AGAIN, "bench-stage: %s", strerror(errno));
        goto out;
    }
    const struct child_conf cc = {.path = path,
                                  .argv = argv,
                                  .in_fd = fd[0],
                                  .out_fd = fd[1],
                                  .err_fd = fd[2],
                                  .ready_fd = -1,
                                  .in_our_group = true};
    TRY(spawn_and_wait(&cc, wait, self, &status));
    if (status != 0) e = failure(stage, status, fd[2]);
    else e = read_object(stage, fd[1], out);
out:
    for (int i = 0; i < 3; i++)
        if (fd[i] >= 0) close(fd[i]);
    return e;
}
