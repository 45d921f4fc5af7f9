/* super.c - see super.h. */
#include "procs/supervisor/super.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "procs/supervisor/child.h"
#include "procs/supervisor/control.h"
#include "procs/supervisor/logs.h"
#include "procs/supervisor/progress.h"
#include "procs/supervisor/super_policy.h"

#define GAP_NS ((int64_t)NS_PER_S)
#define IDLE_NS ((int64_t)NS_PER_S)
enum {
    FD_SIGNALS,
    FDS_MAX = 1 + 3 * PROCS + 1 + CONTROL_CONNS,
    WARNINGS_MAX = 2,
    KEEPER_PATIENCE = 6
};

struct proc {
    struct policy policy;
    struct child child;
    struct log_pipe log;
    int ready_fd;      /* -1: none, or it was closed; the keeper beats there */
    bool holds_it;     /* a stage that closes it only by dying */
    int64_t beat_ns;   /* the keeper's last */
    struct child next; /* started before the death of `child` was known; pid 0: none */
    int next_ready_fd; /* its */
    uint64_t progress_at_start;
    char last_exit[32];
    int32_t asked_conn;    /* control connection that waits for the next one to serve; -1 */
    uint64_t asked_starts; /* n_starts when it asked */
};

struct super {
    char bin_dir[256];
    const struct rundir *dir;
    struct policy_limits limits;
    int64_t beat_ns_max;
    int gateway_out_fd;
    bool is_verbose;
    int signal_fd;
    int32_t n_signals;
    int32_t n_warnings;
    const struct ledger *ledger;
    struct control control;
    struct log_pipe own_log;
    struct proc procs[PROCS];
    bool is_stopping;
    int64_t opened_ns;
    int64_t stepped_ns,
        grace_ns;           /* last step; beats before grace_ns are not held against a stage */
    uint64_t idle_progress; /* while it stops: as of idle_ns, when somebody last did something */
    int64_t idle_ns;
    err_t verdict;
    char sentence[LOG_TEXT_MAX + 200];
};

/* An event of ours: in super.log, and for somebody who watches. */
static void __attribute__((format(printf, 3, 4)))
tell(struct super *s, enum super_proc i, const char *fmt, ...)
{
    char text[LOG_TEXT_MAX + 100], line[LOG_TEXT_MAX + 200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(line, sizeof line, "level=info stage=super ev=child name=%s pid=%d msg=\"%s\"",
             super_proc_names[i], (int)s->procs[i].child.pid, text);
    log_pipe_write(&s->own_log, line);
    if (s->is_verbose) fprintf(stderr, "longlived: %s: %s\n", super_proc_names[i], text);
}

/* --- what the ledger says --------------------------------------------------------------------- */

static const struct ledger_head *head_of(const struct super *s, enum super_proc i)
{
    if (!s->ledger || i == PROC_KEEPER) return NULL;
    return ledger_head_of((struct ledger *)s->ledger, (enum ledger_writer)(i - PROC_TEXT));
}

/* Only when a stage serves: before, the file may be one that a dead keeper began, and the next will
 * replace. */
static void look_for_ledger(struct super *s)
{
    bool has_stage = false;
    for (enum super_proc i = PROC_TEXT; i < PROCS; i++)
        has_stage |= s->procs[i].policy.state == STATE_UP;
    if (s->ledger || !has_stage || ledger_map(s->dir->path, &s->ledger) != OK) return;
    for (enum super_proc i = PROC_TEXT; i < PROCS; i++)
        s->procs[i].progress_at_start = progress_of(s->ledger, i);
}

/* --- doing what the policy says --------------------------------------------------------------- */

static void do_event(struct super *s, enum super_proc i, enum policy_event ev);

static err_t start_next(struct super *s, enum super_proc i)
{
    char path[320], fd[16];
    struct proc *p = &s->procs[i];
    snprintf(path, sizeof path, "%s/longlived-%s", s->bin_dir, super_proc_names[i]);
    snprintf(fd, sizeof fd, "%d", CHILD_READY_FD);
    const char *const argv[] = {path, "--run", s->dir->path, "--ready-fd", fd, NULL};
    const struct child_conf c = {.path = path,
                                 .argv = argv,
                                 .in_fd = -1,
                                 .out_fd = i == PROC_GATEWAY ? s->gateway_out_fd : -1,
                                 .err_fd = p->log.write_fd};
    return child_spawn_ready(&p->next, c, &p->next_ready_fd);
}

static void drop_next(struct proc *p)
{
    if (p->next.pid == 0) return;
    child_kill(&p->next);
    close(p->next_ready_fd);
}

static err_t spawn(struct super *s, enum super_proc i)
{
    err_t e = OK;
    int status;
    struct proc *p = &s->procs[i];
    if (child_has_ended(&p->next, &status)) close(p->next_ready_fd);
    if (p->next.pid == 0) TRY(start_next(s, i));
    if (p->ready_fd >= 0) close(p->ready_fd);
    p->child = p->next;
    p->ready_fd = p->next_ready_fd;
    p->next = (struct child){.pidfd = -1};
    p->holds_it = false;
    p->log.error[0] = 0;
    p->progress_at_start = progress_of(s->ledger, i);
out:
    return e;
}

static void act(struct super *s, enum super_proc i, enum policy_action action)
{
    struct proc *p = &s->procs[i];
    switch (action) {
    case ACTION_NONE:
        break;
    case ACTION_SPAWN:
        if (spawn(s, i) != OK) {
            tell(s, i, "%s", err_text());
            do_event(s, i, EVENT_NOT_STARTED);
        } else if (p->policy.n_starts > 1) {
            tell(s, i, "starts again");
        }
        break;
    case ACTION_TERM: /* a stage that is to come again ends before its next unit */
        child_signal(&p->child, p->policy.is_wanted && i != PROC_KEEPER ? SIGHUP : SIGTERM);
        break;
    case ACTION_ABORT:
        tell(s, i, "no sign of life, ended");
        child_signal(&p->child, SIGABRT);
        break;
    case ACTION_KILL:
        child_signal(&p->child, SIGKILL);
        break;
    }
}

static void do_event(struct super *s, enum super_proc i, enum policy_event ev)
{
    act(s, i, policy_event(&s->procs[i].policy, ev, now_ns(), &s->limits));
}

static void conclude(struct super *s, err_t code, const char *sentence)
{
    if (s->verdict == OK) {
        s->verdict = code;
        snprintf(s->sentence, sizeof s->sentence, "%s", sentence);
    }
    super_stop(s);
}

static void conclude_death(struct super *s, enum super_proc i, const struct policy_death *d,
                           enum policy_verdict v)
{
    const struct proc *p = &s->procs[i];
    const char *name = super_proc_names[i];
    const char *unit = i == PROC_DIT ? "block" : i == PROC_VAE ? "latent" : "unit";
    char text[LOG_TEXT_MAX + 200];
    if (v == VERDICT_FINAL) {
        if (p->log.error[0]) snprintf(text, sizeof text, "%s: %s", name, p->log.error);
        else snprintf(text, sizeof text, "%s: ended with status %d", name, d->number);
        conclude(s, policy_code_of(d->number), text);
        return;
    }
    int n = snprintf(text, sizeof text, "%s: gave up at %s %llu after %d deaths %s, last: %s", name,
                     unit, (unsigned long long)d->unit,
                     v == VERDICT_POISON ? s->limits.n_faults_max : s->limits.n_deaths_max,
                     policy_why(&p->policy, v), p->last_exit);
    if (p->log.error[0] && n > 0 && n < (int)sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, " (%s)", p->log.error);
    conclude(s, ERR_GAVE_UP, text);
}

static void keeper_died(struct super *s)
{
    /* Whatever it held for them is gone with it: they end, and come again after it. */
    for (enum super_proc i = PROC_TEXT; i < PROCS; i++) do_event(s, i, EVENT_END);
    ledger_unmap(&s->ledger);
}

static void died(struct super *s, enum super_proc i, int status)
{
    struct proc *p = &s->procs[i];
    const struct ledger_head *h = head_of(s, i);
    const struct policy_death d = {
        .is_signal = WIFSIGNALED(status),
        .number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
        .unit = h ? ledger_read(&h->unit) : 0,
        .has_committed = progress_of(s->ledger, i) != p->progress_at_start,
    };
    log_pipe_flush(&p->log);
    if (p->ready_fd >= 0) close(p->ready_fd);
    p->ready_fd = -1;
    snprintf(p->last_exit, sizeof p->last_exit, "%s %d", d.is_signal ? "signal" : "status",
             d.number);
    const bool was_asked = p->policy.is_asked;
    const enum policy_verdict v = policy_died(&p->policy, &d, now_ns(), &s->limits);
    if (!was_asked) tell(s, i, "died, %s", p->last_exit);
    /* Asked to end, and could not end well: the file's last block, say. */
    if (v == VERDICT_OFF && !d.is_signal && policy_is_final(d.number))
        conclude_death(s, i, &d, VERDICT_FINAL);
    if (v == VERDICT_FINAL || v == VERDICT_DEATHS || v == VERDICT_POISON)
        conclude_death(s, i, &d, v);
    if (i == PROC_KEEPER) keeper_died(s);
    if (p->policy.state != STATE_WAITING || p->policy.due_ns > now_ns()) drop_next(p);
}

/* --- order ------------------------------------------------------------------------------------ */

static bool any_runs(const struct super *s, enum super_proc from, enum super_proc to)
{
    for (enum super_proc i = from; i <= to; i++)
        if (policy_is_running(s->procs[i].policy.state)) return true;
    return false;
}

/* Keeper before its stages, and never a new keeper under old stages. */
static bool may_start(const struct super *s, enum super_proc i)
{
    if (i == PROC_KEEPER) return !any_runs(s, PROC_TEXT, PROC_GATEWAY);
    return s->procs[PROC_KEEPER].policy.state == STATE_UP;
}

/* A process on a GPU takes its time to die: until the driver has taken everything back its pidfd
 * says nothing. Its successor has something to do in that time that needs no lease: it opens its
 * device, and waits. Dead is only who is dead: that the pipe is closed decides nothing else. */
static void is_going(struct super *s, enum super_proc i)
{
    struct proc *p = &s->procs[i];
    const bool has_committed = progress_of(s->ledger, i) != p->progress_at_start;
    if (i == PROC_KEEPER || s->is_stopping || !may_start(s, i) || p->next.pid != 0 ||
        !policy_answers_at_once(&p->policy, has_committed, now_ns()))
        return;
    if (start_next(s, i) == OK) tell(s, i, "goes, %d is to come after it", (int)p->next.pid);
}

/* A maker is gone for good, and nobody else has done anything for a while: what the gateway still
 * waits for will not come. Its file is whole at any instant. */
static bool nothing_comes(struct super *s)
{
    bool has_lost_one = false, is_busy = false;
    uint64_t progress = 0;
    for (enum super_proc i = PROC_TEXT; i < PROCS; i++) {
        const struct ledger_head *h = head_of(s, i);
        const enum policy_state state = s->procs[i].policy.state;
        has_lost_one |= state == STATE_OFF;
        is_busy |= policy_is_running(state) && h && ledger_read(&h->phase) != PHASE_IDLE;
        progress += progress_of(s->ledger, i);
    }
    if (!has_lost_one || is_busy || progress != s->idle_progress || s->idle_ns == 0) {
        s->idle_progress = progress;
        s->idle_ns = now_ns();
    }
    return now_ns() - s->idle_ns > IDLE_NS;
}

/* Consumers of what others make go first: gateway, then the makers, then the keeper. */
static void stop_in_order(struct super *s)
{
    do_event(s, PROC_GATEWAY, nothing_comes(s) ? EVENT_STOP_KILL : EVENT_STOP);
    if (any_runs(s, PROC_GATEWAY, PROC_GATEWAY)) return;
    for (enum super_proc i = PROC_TEXT; i <= PROC_VAE; i++) do_event(s, i, EVENT_STOP);
    if (any_runs(s, PROC_TEXT, PROC_VAE)) return;
    do_event(s, PROC_KEEPER, EVENT_STOP);
}

/* Its last sign of life; INT64_MAX: none is to be expected. */
static int64_t beat_of(const struct super *s, enum super_proc i)
{
    const struct ledger_head *h = head_of(s, i);
    if (i == PROC_KEEPER) return s->procs[i].ready_fd >= 0 ? s->procs[i].beat_ns : INT64_MAX;
    return h ? (int64_t)ledger_read(&h->beat_ns) : INT64_MAX;
}

static void check_beats(struct super *s, int64_t at_ns)
{
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) {
        const struct policy *p = &s->procs[i].policy;
        int64_t alive_ns = beat_of(s, i);
        if (p->state != STATE_UP) continue;
        if (p->up_ns > alive_ns) alive_ns = p->up_ns;
        if (s->grace_ns > alive_ns) alive_ns = s->grace_ns;
        /* Making a large region takes the keeper longer than a layer takes a stage. */
        const int64_t max_ns = i == PROC_KEEPER ? KEEPER_PATIENCE * s->beat_ns_max : s->beat_ns_max;
        if (at_ns - alive_ns > max_ns) do_event(s, i, EVENT_HUNG);
    }
}

/* --- control ---------------------------------------------------------------------------------- */

static void answer_status(struct super *s, int32_t conn)
{
    char text[CONTROL_ANSWER_MAX];
    size_t n = (size_t)snprintf(text, sizeof text,
                                "{\"pid\":%d,\"state\":\"%s\",\"up_s\":%.1f,\"processes\":[",
                                (int)getpid(),
                                s->is_stopping      ? "stopping"
                                : super_is_ready(s) ? "running"
                                                    : "starting",
                                (double)(now_ns() - s->opened_ns) / NS_PER_S);
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) {
        const struct proc *p = &s->procs[i];
        const uint64_t n_restarts = p->policy.n_starts > 0 ? p->policy.n_starts - 1 : 0;
        n +=
            (size_t)snprintf(text + n, sizeof text - n,
                             "%s{\"name\":\"%s\",\"state\":\"%s\",\"pid\":%d,\"restarts\":%llu,"
                             "\"deaths\":%llu,\"last_exit\":\"%s\",\"log_lines_dropped\":%llu}",
                             i ? "," : "", super_proc_names[i], policy_state_names[p->policy.state],
                             (int)p->child.pid, (unsigned long long)n_restarts,
                             (unsigned long long)p->policy.n_deaths, p->last_exit,
                             (unsigned long long)p->log.n_dropped);
    }
    snprintf(text + n, sizeof text - n, "],\"control_refused\":%llu}\n",
             (unsigned long long)s->control.n_refused);
    control_answer(&s->control, conn, text);
}

static void ask_restart(struct super *s, const struct control_request *r)
{
    enum super_proc i = PROC_KEEPER;
    while (i < PROCS && strcmp(r->words[1], super_proc_names[i]) != 0) i++;
    if (i == PROCS || s->is_stopping) {
        if (i == PROCS) control_refuse(&s->control, r->conn, "error 2 restart: no such process\n");
        else control_answer(&s->control, r->conn, "error 69 the pipeline is stopping\n");
        return;
    }
    struct proc *p = &s->procs[i];
    if (p->asked_conn >= 0) {
        control_answer(&s->control, r->conn, "error 75 a restart of it is under way\n");
        return;
    }
    p->asked_conn = r->conn;
    p->asked_starts = p->policy.n_starts;
    do_event(s, i, strcmp(r->words[2], "kill") == 0 ? EVENT_END_KILL : EVENT_END);
}

static void serve_control(struct super *s)
{
    struct control_request r;
    while (control_next(&s->control, now_ns(), &r)) {
        if (strcmp(r.words[0], "status") == 0) answer_status(s, r.conn);
        else if (strcmp(r.words[0], "restart") == 0) ask_restart(s, &r);
        else if (strcmp(r.words[0], "down") == 0)
            super_stop(s); /* the connection stays until we are gone */
        else control_refuse(&s->control, r.conn, "error 2 no such request\n");
    }
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) {
        struct proc *p = &s->procs[i];
        if (p->asked_conn < 0) continue;
        const bool is_back = p->policy.state == STATE_UP && p->policy.n_starts > p->asked_starts;
        if (!is_back && !s->is_stopping) continue;
        control_answer(&s->control, p->asked_conn,
                       is_back ? "ok\n" : "error 69 the pipeline is stopping\n");
        p->asked_conn = -1;
    }
}

/* --- one step --------------------------------------------------------------------------------- */

static void take_signals(struct super *s)
{
    struct signalfd_siginfo si;
    while (read(s->signal_fd, &si, sizeof si) == sizeof si) s->n_signals++;
}

static void look_at(struct super *s, enum super_proc i)
{
    struct proc *p = &s->procs[i];
    int status;
    char c;
    log_pipe_read(&p->log);
    while (p->ready_fd >= 0) {
        const ssize_t n = read(p->ready_fd, &c, 1);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (n == 1 && c == '\n') do_event(s, i, EVENT_READY);
        if (n == 1) p->beat_ns = now_ns();
        p->holds_it |= n == 1 && c == '.';
        if (n == 1) continue;
        close(p->ready_fd);
        p->ready_fd = -1;
        if (p->holds_it) is_going(s, i);
    }
    if (child_has_ended(&p->child, &status)) died(s, i, status);
}

static int wait_of(const struct super *s, int32_t wait_ms)
{
    int64_t ns = (int64_t)wait_ms * NS_PER_MS;
    const int64_t at_ns = now_ns();
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) {
        const struct policy *p = &s->procs[i].policy;
        /* One that waits for another, and not for a time, is started when that one's fd speaks. */
        if (p->due_ns == 0 || (p->state == STATE_WAITING && !may_start(s, i))) continue;
        if (p->due_ns - at_ns < ns) ns = p->due_ns - at_ns;
    }
    return ns <= 0 ? 0 : (int)((ns + NS_PER_MS - 1) / NS_PER_MS);
}

static void wait_for_something(struct super *s, int32_t wait_ms)
{
    struct pollfd fds[FDS_MAX] = {[FD_SIGNALS] = {.fd = s->signal_fd, .events = POLLIN}};
    int32_t n = 1;
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) { /* poll passes over fd -1 */
        const struct proc *p = &s->procs[i];
        fds[n++] = (struct pollfd){.fd = p->child.pidfd, .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = p->log.read_fd, .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = p->ready_fd, .events = POLLIN};
    }
    n += control_polls(&s->control, fds + n);
    poll(fds, (nfds_t)n, wait_of(s, wait_ms)); /* an error is a step with nothing to do */
}

void super_step(struct super *s, int32_t wait_ms)
{
    wait_for_something(s, wait_ms < 250 ? wait_ms : 250); /* beats are looked at that often */
    const int64_t at_ns = now_ns();
    /* We were stopped ourselves, or the machine was: so were they, perhaps. */
    if (at_ns - s->stepped_ns > GAP_NS) s->grace_ns = at_ns;
    s->stepped_ns = at_ns;
    take_signals(s);
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) look_at(s, i);
    look_for_ledger(s);
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) {
        const struct policy *p = &s->procs[i].policy;
        if (s->is_stopping || !may_start(s, i)) drop_next(&s->procs[i]);
        if (p->due_ns == 0 || p->due_ns > now_ns()) continue;
        if (p->state != STATE_WAITING || may_start(s, i)) do_event(s, i, EVENT_TIMER);
    }
    check_beats(s, now_ns());
    if (s->is_stopping) stop_in_order(s);
    serve_control(s);
}

/* --- the rest --------------------------------------------------------------------------------- */

static err_t open_signals(struct super *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* stderr may be a pipe whose reader has gone */
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0) return FAIL(ERR_AGAIN, "signalfd: %s", strerror(errno));
    return OK;
}

err_t super_open(struct super **out, const struct super_conf *c)
{
    err_t e = OK;
    struct super *s = calloc(1, sizeof *s);
    if (!s) return FAIL(ERR_NOMEM, "supervisor");
    s->signal_fd = s->control.listen_fd = s->own_log.read_fd = -1;
    s->own_log.write_fd = s->own_log.file_fd = -1;
    s->dir = c->dir;
    s->gateway_out_fd = c->gateway_out_fd;
    s->is_verbose = c->is_verbose;
    s->limits = (struct policy_limits){
        .n_deaths_max = c->conf->supervisor.deaths,
        .n_faults_max = c->conf->supervisor.fault_deaths,
        .deaths_ns = (int64_t)c->conf->supervisor.deaths_s * NS_PER_S,
        .ready_ns = (int64_t)c->conf->supervisor.ready_s_max * NS_PER_S,
        .stop_ns = (int64_t)c->conf->supervisor.stop_s_max * NS_PER_S,
    };
    s->beat_ns_max = (int64_t)c->conf->supervisor.beat_s_max * NS_PER_S;
    s->opened_ns = s->stepped_ns = now_ns();
    snprintf(s->bin_dir, sizeof s->bin_dir, "%s", c->bin_dir);
    for (int i = 0; i < PROCS; i++) {
        s->procs[i].child.pidfd = s->procs[i].ready_fd = s->procs[i].asked_conn = -1;
        s->procs[i].log.read_fd = s->procs[i].log.write_fd = s->procs[i].log.file_fd = -1;
    }
    for (int i = 0; i < CONTROL_CONNS; i++) s->control.conns[i].fd = -1;
    TRY(open_signals(s));
    TRY(log_pipe_open(&s->own_log, c->dir->log_fd, "super"));
    for (int i = 0; i < PROCS; i++)
        TRY(log_pipe_open(&s->procs[i].log, c->dir->log_fd, super_proc_names[i]));
    TRY(control_open(&s->control, c->dir->path));
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) do_event(s, i, EVENT_START);
    *out = s;
    s = NULL;
out:
    super_close(&s);
    return e;
}

void super_close(struct super **sp)
{
    struct super *s = *sp;
    if (!s) return;
    for (int i = PROCS - 1; i >= 0; i--) {
        drop_next(&s->procs[i]);
        child_kill(&s->procs[i].child);
        if (s->procs[i].ready_fd >= 0) close(s->procs[i].ready_fd);
        log_pipe_close(&s->procs[i].log);
    }
    log_pipe_close(&s->own_log);
    control_close(&s->control);
    ledger_unmap(&s->ledger);
    if (s->signal_fd >= 0) close(s->signal_fd);
    free(s);
    *sp = NULL;
}

bool super_is_ready(const struct super *s)
{
    for (int i = 0; i < PROCS; i++)
        if (s->procs[i].policy.state != STATE_UP) return false;
    return true;
}

bool super_is_gone(const struct super *s)
{
    for (int i = 0; i < PROCS; i++)
        if (s->procs[i].policy.state != STATE_OFF) return false;
    return true;
}

int32_t super_signals(const struct super *s)
{
    return s->n_signals;
}

void super_stop(struct super *s)
{
    s->is_stopping = true;
    /* Nothing new comes while the old ones go. */
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++)
        if (!policy_is_running(s->procs[i].policy.state)) do_event(s, i, EVENT_STOP);
}

void super_kill(struct super *s)
{
    s->is_stopping = true;
    for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) do_event(s, i, EVENT_STOP_KILL);
}

err_t super_verdict(const struct super *s)
{
    return s->verdict == OK ? OK : FAIL(s->verdict, "%s", s->sentence);
}

const struct ledger *super_ledger(const struct super *s)
{
    return s->ledger;
}

const char *super_warning(struct super *s)
{
    static char text[LOG_TEXT_MAX + 40];
    for (int i = 0; i < PROCS && s->n_warnings < WARNINGS_MAX; i++) {
        struct log_pipe *p = &s->procs[i].log;
        if (!p->warning[0]) continue;
        snprintf(text, sizeof text, "%s: %s", super_proc_names[i], p->warning);
        p->warning[0] = 0;
        s->n_warnings++;
        return text;
    }
    return NULL;
}
