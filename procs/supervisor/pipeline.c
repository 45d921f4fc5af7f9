/* pipeline.c - see pipeline.h. */
#include "procs/supervisor/pipeline.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/dev.h"
#include "common/fault.h"
#include "common/file.h"
#include "common/source.h"
#include "procs/supervisor/machine.h"

err_t pipeline_conf(struct conf *c, const struct args *a, const char *bin_dir)
{
    static const char *const ups[] = {"../..", ".."}; /* of build/bin; of a bundle's bin */
    char demo[512];
    if (a->conf) return conf_load(c, a->conf, a->sets, a->n_sets);
    for (int i = 0; i < 2; i++) {
        snprintf(demo, sizeof demo, "%s/%s/configs/demo.ini", bin_dir, ups[i]);
        if (access(demo, F_OK) == 0) return conf_load(c, demo, a->sets, a->n_sets);
    }
    return FAIL(ERR_USAGE, "%s: -c FILE? (%s does not exist)", args_name(a->cmd), demo);
}

err_t pipeline_run(char out[RUNDIR_PATH_MAX], const struct args *a, const char *bin_dir,
                   const char *name)
{
    err_t e = OK;
    struct conf *c = NULL;
    if (a->run) return rundir_path(out, a->run, name);
    /* Without -c there is nothing that could name another one: the demo's names none. */
    if (!a->conf && a->n_sets == 0) return rundir_path(out, "", name);
    c = calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_NOMEM, "configuration");
    TRY(pipeline_conf(c, a, bin_dir));
    TRY(rundir_path(out, c->run.dir, name));
out:
    free(c);
    return e;
}

err_t pipeline_check(const struct conf *c, const char *bin_dir)
{
    static const char *const keys[] = {"place.text", "place.dit", "place.vae", "place.clean"};
    const char *const devices[] = {c->place.text, c->place.dit, c->place.vae, c->place.clean};
    for (int i = 0; i < 4 && devices[i][0]; i++) {
        if (i > 0 && strcmp(devices[i], devices[i - 1]) == 0) continue;
        const err_t e = machine_device(bin_dir, devices[i], NULL);
        if (e != OK) return err_prefix(e, "%s = %s", keys[i], devices[i]);
    }
    return OK;
}

/* config.ini as it is for this run directory. */
static err_t conf_text(const char *run, struct conf *c, char **text, size_t *n_text)
{
    snprintf(c->run.dir, sizeof c->run.dir, "%s", run);
    FILE *f = open_memstream(text, n_text);
    if (!f) return FAIL(ERR_NOMEM, "configuration");
    conf_write(c, f);
    if (fclose(f) != 0 || !*text) return FAIL(ERR_NOMEM, "configuration");
    return OK;
}

static err_t write_conf(const struct rundir *dir, struct conf *c)
{
    char path[RUNDIR_PATH_MAX + 16];
    err_t e = OK;
    char *text = NULL;
    size_t n_text = 0;
    TRY(conf_text(dir->path, c, &text, &n_text));
    snprintf(path, sizeof path, "%s/config.ini", dir->path);
    TRY(file_write(path, text, n_text));
out:
    free(text);
    return e;
}

/* Prepared before, and with this configuration. */
static err_t is_prepared_so(const char *run, struct conf *c, bool *is_so)
{
    char path[RUNDIR_PATH_MAX + 16];
    err_t e = OK;
    char *text = NULL, *there = NULL;
    size_t n_text = 0, n_there = 0;
    *is_so = false;
    snprintf(path, sizeof path, "%s/config.ini", run);
    if (!rundir_is_prepared(run) || file_read(path, 1 << 20, &there, &n_there) != OK) return OK;
    TRY(conf_text(run, c, &text, &n_text));
    *is_so = n_text == n_there && memcmp(text, there, n_text) == 0;
out:
    free(text);
    free(there);
    return e;
}

err_t pipeline_prepare(const struct conf *c, const char *run)
{
    struct rundir dir = {.dir_fd = -1, .lock_fd = -1, .log_fd = -1};
    bool is_so = false;
    err_t e = OK;
    struct conf *own = malloc(sizeof *own);
    if (!own) return FAIL(ERR_NOMEM, "configuration");
    *own = *c;
    TRY(is_prepared_so(run, own, &is_so));
    if (is_so) goto out;
    TRY(rundir_open(&dir, run));
    TRY(write_conf(&dir, own));
    TRY(rundir_prepared(&dir));
out:
    rundir_close(&dir, false);
    free(own);
    return e;
}

bool pipeline_is_there(const char *run)
{
    return rundir_holder(run) != 0 || rundir_is_prepared(run);
}

err_t pipeline_start(struct pipeline *p, const struct args *a, const struct conf *c,
                     const char *run, const char *bin_dir, int gateway_out_fd)
{
    err_t e = OK;
    *p = (struct pipeline){.conf = *c, .bin_dir = bin_dir, .signal_fd = -1};
    p->dir = (struct rundir){.dir_fd = -1, .lock_fd = -1, .log_fd = -1};
    p->keeps_log = a->keep_run;
    snprintf(p->run, sizeof p->run, "%s", run);
    TRY(source_resolve(&p->conf));
    TRY(rundir_open(&p->dir, run));
    TRY(write_conf(&p->dir, &p->conf));
    TRY(fault_make(p->dir.path, &p->conf));
    const struct super_conf sc = {.bin_dir = bin_dir,
                                  .dir = &p->dir,
                                  .conf = &p->conf,
                                  .gateway_out_fd = gateway_out_fd,
                                  .is_verbose = a->foreground && a->status_fd < 0};
    TRY(super_open(&p->super, &sc));
out:
    if (e != OK) rundir_close(&p->dir, false);
    return e;
}

err_t pipeline_attach(struct pipeline *p, const char *run, const char *bin_dir)
{
    char path[RUNDIR_PATH_MAX + 16];
    err_t e = OK;
    sigset_t set;
    *p = (struct pipeline){.bin_dir = bin_dir, .signal_fd = -1};
    p->dir = (struct rundir){.dir_fd = -1, .lock_fd = -1, .log_fd = -1};
    snprintf(p->run, sizeof p->run, "%s", run);
    snprintf(path, sizeof path, "%s/config.ini", run);
    TRY(conf_load(&p->conf, path, NULL, 0));
    TRY(ledger_map(run, &p->ledger));
    TRY(ledger_check(p->ledger));
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (p->signal_fd < 0) e = FAIL(ERR_AGAIN, "signalfd: %s", strerror(errno));
out:
    if (e != OK) ledger_unmap(&p->ledger);
    return e;
}

void pipeline_step(struct pipeline *p, int32_t wait_ms)
{
    if (p->super) {
        super_step(p->super, wait_ms);
        return;
    }
    struct pollfd fd = {.fd = p->signal_fd, .events = POLLIN};
    struct signalfd_siginfo si;
    poll(&fd, 1, wait_ms);
    while (read(p->signal_fd, &si, sizeof si) == sizeof si) p->n_signals++;
}

bool pipeline_is_ready(const struct pipeline *p)
{
    return p->super ? super_is_ready(p->super) : true;
}

bool pipeline_is_gone(const struct pipeline *p)
{
    return p->super ? super_is_gone(p->super) : !pipeline_is_there(p->run);
}

int32_t pipeline_signals(const struct pipeline *p)
{
    return p->super ? super_signals(p->super) : p->n_signals;
}

const struct ledger *pipeline_ledger(const struct pipeline *p)
{
    return p->super ? super_ledger(p->super) : p->ledger;
}

err_t pipeline_end(struct pipeline *p)
{
    err_t e = OK;
    if (p->super) {
        const int32_t n_signals = super_signals(p->super);
        super_stop(p->super);
        while (!super_is_gone(p->super)) {
            super_step(p->super, 100);
            if (super_signals(p->super) > n_signals) super_kill(p->super);
        }
        e = super_verdict(p->super);
        super_close(&p->super);
    }
    ledger_unmap(&p->ledger);
    if (p->signal_fd >= 0) close(p->signal_fd);
    p->signal_fd = -1;
    rundir_close(&p->dir, p->keeps_log);
    return e;
}

void pipeline_lib_dir(const char *bin_dir, char *out, size_t cap)
{
    const size_t n = strlen(bin_dir);
    if (n >= 3 && strcmp(bin_dir + n - 3, "bin") == 0) /* build/san-bin has build/san-lib */
        snprintf(out, cap, "%.*slib", (int)(n - 3), bin_dir);
    else snprintf(out, cap, "%s/../lib", bin_dir);
}

err_t pipeline_check_mp4(const char *bin_dir)
{
    char dir[300], path[340];
    int status = 0;
    pipeline_lib_dir(bin_dir, dir, sizeof dir);
    snprintf(path, sizeof path, "%s/longlived-mp4.so", dir);
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) _exit(dlopen(path, RTLD_NOW | RTLD_LOCAL) ? 0 : 1);
    if (pid < 0) return FAIL(ERR_AGAIN, "cannot start a process: %s", strerror(errno));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return OK;
    return FAIL(ERR_NONE,
                "MP4 needs libav: install libavcodec-dev libavformat-dev libavutil-dev and run "
                "make; .y4m needs nothing");
}
