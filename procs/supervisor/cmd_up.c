/* cmd_up.c - up, down, restart: a pipeline in the background. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "procs/supervisor/cmd.h"
#include "procs/supervisor/control.h"
#include "procs/supervisor/pipeline.h"
#include "procs/supervisor/super_policy.h"

enum { STEP_MS = 250 };

/* The command line that started us has its answer; nothing of its terminal is held any longer. */
static void let_go(int status_fd)
{
    const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= STDERR_FILENO && null_fd >= 0; fd++) dup2(null_fd, fd);
    if (null_fd > STDERR_FILENO) close(null_fd);
    if (write(status_fd, "\n", 1) != 1) { /* nobody waits any more: serve all the same */
    }
    close(status_fd);
}

static err_t foreground(const struct args *a, const char *bin_dir, const struct conf *c,
                        const char *run)
{
    err_t e = OK;
    struct pipeline p;
    bool was_ready = false;
    if (a->status_fd >= 0) fcntl((int)a->status_fd, F_SETFD, FD_CLOEXEC);
    TRY(pipeline_start(&p, a, c, run, bin_dir, -1));
    while (!pipeline_is_gone(&p) && pipeline_signals(&p) == 0) {
        pipeline_step(&p, STEP_MS);
        if (was_ready || !pipeline_is_ready(&p)) continue;
        was_ready = true;
        if (a->status_fd >= 0) {
            let_go((int)a->status_fd);
        } else {
            printf("longlived: ready in %s, pid %d\n", run, (int)getpid());
            fflush(stdout);
        }
    }
    e = pipeline_end(&p);
    if (e == OK && !was_ready) e = FAIL(ERR_AGAIN, "interrupted before all processes were ready");
out:
    return e;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* Ready is one byte; an end without it is the child's failure, which it has printed itself. */
static err_t await_child(pid_t pid, int fd, const char *run)
{
    const struct sigaction sa = {.sa_handler = on_signal};
    bool was_told = false;
    int status = 0;
    char c;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    for (;;) {
        const ssize_t n = read(fd, &c, 1);
        if (n == 1) {
            printf("longlived: ready in %s, pid %d\n", run, (int)pid);
            return OK;
        }
        if (n == 0 || errno != EINTR) break;
        if (interrupted && !was_told) {
            was_told = true;
            kill(pid, SIGTERM);
        }
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFSIGNALED(status))
        fprintf(stderr, "longlived: the supervisor died by signal %d\n", WTERMSIG(status));
    fflush(NULL);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : err_exit_status(ERR_BUG));
}

/* A process of its own, from exec on: no state of ours, no terminal. */
static void become_background(const struct args *a, const char *bin_dir, int status_fd)
{
    char path[300], fd[16];
    const char *argv[16 + 2 * ARGS_SETS_MAX];
    int n = 0;
    snprintf(path, sizeof path, "%s/longlived", bin_dir);
    snprintf(fd, sizeof fd, "%d", status_fd);
    argv[n++] = path;
    argv[n++] = "up";
    argv[n++] = "--foreground";
    argv[n++] = "--status-fd";
    argv[n++] = fd;
    if (a->keep_run) argv[n++] = "--keep-run";
    if (a->conf) argv[n++] = "--config";
    if (a->conf) argv[n++] = a->conf;
    if (a->run) argv[n++] = "--run";
    if (a->run) argv[n++] = a->run;
    for (int32_t i = 0; i < a->n_sets; i++) {
        argv[n++] = "--set";
        argv[n++] = a->sets[i];
    }
    argv[n] = NULL;
    setsid();
    execv("/proc/self/exe", (char *const *)argv);
    fprintf(stderr, "longlived: %s: %s\n", path, strerror(errno));
    _exit(err_exit_status(ERR_NOINPUT));
}

static err_t background(const struct args *a, const char *bin_dir, const char *run)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return FAIL(ERR_AGAIN, "pipe: %s", strerror(errno));
    fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0) return FAIL(ERR_AGAIN, "cannot start a process: %s", strerror(errno));
    if (pid == 0) {
        fcntl(fds[1], F_SETFD, 0);
        become_background(a, bin_dir, fds[1]);
    }
    close(fds[1]);
    const err_t e = await_child(pid, fds[0], run);
    close(fds[0]);
    return e;
}

/* The configuration, seen to be possible here, and the run directory that it or --run names. */
static err_t plan_run(const struct args *a, const char *bin_dir, struct conf *c,
                      char run[RUNDIR_PATH_MAX])
{
    err_t e = OK;
    TRY(pipeline_conf(c, a, bin_dir));
    TRY(rundir_path(run, a->run ? a->run : c->run.dir, "main"));
    TRY(pipeline_check(c, bin_dir));
out:
    return e;
}

err_t cmd_up(const struct args *a, const char *bin_dir)
{
    char run[RUNDIR_PATH_MAX];
    err_t e = OK;
    struct conf *c = calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_NOMEM, "configuration");
    TRY(plan_run(a, bin_dir, c, run));
    e = a->foreground ? foreground(a, bin_dir, c, run) : background(a, bin_dir, run);
out:
    free(c);
    return e;
}

err_t cmd_prepare(const struct args *a, const char *bin_dir)
{
    char run[RUNDIR_PATH_MAX];
    err_t e = OK;
    struct conf *c = calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_NOMEM, "configuration");
    TRY(plan_run(a, bin_dir, c, run));
    TRY(pipeline_prepare(c, run));
    printf("longlived: prepared %s\n", run);
out:
    free(c);
    return e;
}

err_t cmd_down(const struct args *a, const char *bin_dir)
{
    enum { WAIT_MS = 600000 };
    char run[RUNDIR_PATH_MAX], answer[256];
    err_t e = OK;
    pid_t pid = 0;
    TRY(pipeline_run(run, a, bin_dir, "main"));
    TRY(control_ask(run, "down", WAIT_MS, answer, sizeof answer, &pid));
    /* The socket closes first; the run directory is gone when the process is. */
    struct pollfd p = {.fd = pid > 0 ? pidfd_open(pid, 0) : -1, .events = POLLIN};
    if (p.fd >= 0) {
        poll(&p, 1, WAIT_MS);
        close(p.fd);
    }
out:
    return e;
}

err_t cmd_restart(const struct args *a, const char *bin_dir)
{
    enum { WAIT_MS = 900000 };
    char run[RUNDIR_PATH_MAX], line[CONTROL_LINE_MAX], answer[256];
    err_t e = OK;
    bool is_known = false;
    for (int i = 0; i < PROCS; i++) is_known |= strcmp(a->word, super_proc_names[i]) == 0;
    if (!is_known)
        return FAIL(ERR_USAGE, "restart %.40s: keeper, text, dit, vae or gateway", a->word);
    TRY(pipeline_run(run, a, bin_dir, "main"));
    snprintf(line, sizeof line, "restart %s%s", a->word, a->kill ? " kill" : "");
    TRY(control_ask(run, line, WAIT_MS, answer, sizeof answer, NULL));
    if (strncmp(answer, "ok", 2) != 0)
        e = FAIL(ERR_NONE, "restart %s: the supervisor ended before it was back", a->word);
out:
    return e;
}
