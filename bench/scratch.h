/* scratch.h - for benches that run the product's processes: a directory, children, their end. */
#ifndef BENCH_SCRATCH_H
#define BENCH_SCRATCH_H

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"

enum { SCRATCH_PATH_MAX = 300 };

/* A directory of one's own, in memory, where run directories lie unless told otherwise; run.sh
 * gives one, which it removes however the bench ends. */
static inline err_t scratch_make(char dir[SCRATCH_PATH_MAX])
{
    const char *const top = getenv("BENCH_SCRATCH");
    snprintf(dir, SCRATCH_PATH_MAX, "%s/longlived-bench-XXXXXX", top ? top : "/dev/shm");
    if (mkdtemp(dir)) return OK;
    const err_t e = FAIL(ERR_WRITE, "%s: no directory can be made: %s", dir, strerror(errno));
    dir[0] = '\0';
    return e;
}

/* With the files in it; "" is none. */
static inline void scratch_remove(const char *dir)
{
    DIR *const d = dir[0] ? opendir(dir) : NULL;
    if (!d) return;
    for (struct dirent *f; (f = readdir(d));) unlinkat(dirfd(d), f->d_name, 0);
    closedir(d);
    rmdir(dir);
}

/* fork; the child dies with us. */
static inline err_t scratch_fork(pid_t *pid)
{
    fflush(NULL);
    *pid = fork();
    if (*pid < 0) return FAIL(ERR_AGAIN, "no process can be started: %s", strerror(errno));
    if (*pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    return OK;
}

/* In a child: its log goes nowhere. */
static inline void scratch_quiet(void)
{
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) dup2(null, fd);
}

/* In a child: becomes PROGRAM of the directory that this program lies in, quietly. argv without
 * the name, at most 14. */
static inline void __attribute__((noreturn))
scratch_exec(const char *program, const char *const *args)
{
    char path[SCRATCH_PATH_MAX];
    const char *argv[16] = {path};
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    while (n > 0 && path[n - 1] != '/') n--;
    if (n <= 0) _exit(127);
    snprintf(path + n, 64, "%s", program);
    for (int i = 0; i < 14 && args[i]; i++) argv[i + 1] = args[i];
    scratch_quiet();
    execv(path, (char *const *)argv);
    _exit(127);
}

/* Waits for the child's end, which must be status 0. */
static inline err_t scratch_join(pid_t *pid)
{
    int status = -1;
    while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) continue;
    *pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return OK;
    return FAIL(ERR_BUG, "a process of the bench ended with status %#x", (unsigned)status);
}

/* Waits until n of the children have ended, each with status 0. The first that ends otherwise is
 * the error, at once: those that wait for it would wait for ever. */
static inline err_t scratch_join_all(pid_t *pids, int n_pids, int n)
{
    while (n > 0) {
        int status = -1;
        const pid_t ended = waitpid(-1, &status, 0);
        if (ended < 0 && errno == EINTR) continue;
        if (ended < 0) return FAIL(ERR_BUG, "a process of the bench is lost");
        for (int i = 0; i < n_pids; i++)
            if (pids[i] == ended) pids[i] = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            return FAIL(ERR_BUG, "a process of the bench ended with status %#x", (unsigned)status);
        n--;
    }
    return OK;
}

static inline void scratch_kill(pid_t *pid)
{
    if (*pid <= 0) return;
    kill(*pid, SIGKILL);
    waitpid(*pid, NULL, 0);
    *pid = 0;
}

#endif
