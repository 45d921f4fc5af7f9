/* child.c - see child.h. */
#include "procs/supervisor/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Dispositions and the mask survive exec, so a child would inherit what we ignore and block. */
static void default_signals(void)
{
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int sig = 1; sig < NSIG; sig++) sigaction(sig, &by_default, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* First everything above the numbers that the child uses, so that no dup2 overwrites a source. */
static int place_fds(const struct child_conf *c)
{
    const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0) return -1;
    const int from[4] = {c->in_fd >= 0 ? c->in_fd : null_fd, c->out_fd >= 0 ? c->out_fd : null_fd,
                         c->err_fd >= 0 ? c->err_fd : STDERR_FILENO, c->ready_fd};
    int high[4] = {-1, -1, -1, -1};
    for (int i = 0; i < 4; i++)
        if (from[i] >= 0 && (high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 10)) < 0) return -1;
    for (int i = 0; i < 4; i++)
        if (high[i] >= 0 && dup2(high[i], i) < 0) return -1;
    close_range(c->ready_fd >= 0 ? CHILD_READY_FD + 1 : STDERR_FILENO + 1, ~0U, 0);
    return 0;
}

/* Async-signal-safety is no concern: we have one thread. */
static void run(const struct child_conf *c, pid_t parent)
{
    const char *name = strrchr(c->path, '/') ? strrchr(c->path, '/') + 1 : c->path;
    if (!c->in_our_group) setpgid(0, 0);
    default_signals();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(err_exit_status(ERR_AGAIN)); /* it died before the line above */
    if (place_fds(c) != 0) {
        fprintf(stderr, "level=error stage=%s ev=exit status=%d msg=\"file descriptors: %s\"\n",
                name, err_exit_status(ERR_AGAIN), strerror(errno));
        _exit(err_exit_status(ERR_AGAIN));
    }
    setenv("OMP_WAIT_POLICY", "passive", 1); /* a stage that waits leaves its core to the others */
    setenv("OPENBLAS_NUM_THREADS", "1", 1);  /* threaded BLAS changes bits */
    /* A stage has one stream. The driver's other channels, 8 if nobody says so, only cost time: at
     * the start, and before the memory of a killed process is free (docs/SPEED.md). */
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1", 1);
    execv(c->path, (char *const *)c->argv);
    fprintf(stderr, "level=error stage=%s ev=exit status=%d msg=\"cannot run %s: %s\"\n", name,
            err_exit_status(ERR_NOINPUT), c->path, strerror(errno));
    _exit(err_exit_status(ERR_NOINPUT));
}

err_t child_spawn(struct child *out, const struct child_conf *c)
{
    const pid_t us = getpid();
    fflush(NULL); /* or the child would write our buffers a second time */
    const pid_t pid = fork();
    if (pid < 0) return FAIL(ERR_AGAIN, "cannot start %s: %s", c->path, strerror(errno));
    if (pid == 0) run(c, us);
    if (!c->in_our_group) setpgid(pid, pid); /* in both: whoever comes first */
    const int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        const int why = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return FAIL(ERR_AGAIN, "cannot watch %s: %s", c->path, strerror(why));
    }
    *out = (struct child){.pid = pid, .pidfd = pidfd, .has_group = !c->in_our_group};
    return OK;
}

err_t child_spawn_ready(struct child *out, struct child_conf c, int *ready_fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return FAIL(ERR_AGAIN, "pipe for %s: %s", c.path, strerror(errno));
    fcntl(ends[1], F_SETFL, 0);
    c.ready_fd = ends[1];
    const err_t e = child_spawn(out, &c);
    close(ends[1]);
    if (e == OK) *ready_fd = ends[0];
    else close(ends[0]);
    return e;
}

void child_signal(const struct child *c, int sig)
{
    if (c->pid <= 0) return;
    if (!c->has_group || kill(-c->pid, sig) != 0) kill(c->pid, sig);
}

/* The group first, while the dead leader still holds its number: nobody else can have it. */
static void reap(struct child *c, int *status)
{
    if (c->has_group) kill(-c->pid, SIGKILL); /* what it may have started itself */
    while (waitpid(c->pid, status, 0) < 0 && errno == EINTR) continue;
    close(c->pidfd);
    *c = (struct child){.pidfd = -1};
}

bool child_has_ended(struct child *c, int *status)
{
    siginfo_t si = {0};
    if (c->pid <= 0) return false;
    if (waitid(P_PID, (id_t)c->pid, &si, WEXITED | WNOHANG | WNOWAIT) != 0 || si.si_pid == 0)
        return false;
    reap(c, status);
    return true;
}

void child_kill(struct child *c)
{
    int status;
    if (c->pid <= 0) return;
    child_signal(c, SIGKILL);
    reap(c, &status);
}
