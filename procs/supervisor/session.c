/* session.c - see session.h. */
#include "procs/supervisor/session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "procs/supervisor/child.h"
#include "procs/supervisor/super_policy.h"
#include "procs/supervisor/watch.h"

enum { STEP_MS = 50 };

struct session {
    struct pipeline *p;
    const struct args *args;
    struct job *job;
    struct watch watch;
    struct child feed, finish;
    const struct session_conf *conf;
    bool is_given, is_fed, is_finishing;
    int64_t given_ns, looked_ns;
    int64_t frames_before;
    int64_t decisions_seen;
    bool has_told_cut;
    int lock_fd;
};

/* longlived-ctl speaks to the gateway, so that ZeroMQ is not in this process. */
static err_t start_ctl(struct session *s, struct child *out, const char *verb, const char *word,
                       int in_fd)
{
    const bool is_ours = in_fd == STDIN_FILENO; /* then its answers are for who types */
    char path[300];
    snprintf(path, sizeof path, "%s/longlived-ctl", s->p->bin_dir);
    const char *const argv[] = {path, verb, "--run", s->p->run, word, NULL};
    const struct child_conf c = {.path = path,
                                 .argv = argv,
                                 .in_fd = in_fd,
                                 .out_fd = is_ours ? STDERR_FILENO : -1,
                                 .err_fd = -1,
                                 .ready_fd = -1,
                                 .in_our_group = is_ours};
    return child_spawn(out, &c);
}

static err_t give(struct session *s, const struct ledger *l)
{
    char path[RUNDIR_PATH_MAX + 16];
    err_t e = OK;
    TRY(rundir_lock_file(s->p->run, "job.lock", &s->lock_fd));
    const uint64_t n_jobs = ledger_read(&l->gateway.job);
    if (n_jobs != ledger_read(&l->gateway.job_done)) {
        e = FAIL(ERR_AGAIN, "a session runs in %s", s->p->run);
        goto out;
    }
    s->job->id = n_jobs + 1;
    s->frames_before = (int64_t)ledger_read(&l->gateway.n_committed);
    snprintf(path, sizeof path, "%s/job.error", s->p->run);
    unlink(path);
    snprintf(path, sizeof path, "%s/job.json", s->p->run);
    TRY(job_write(path, s->job));
    s->is_given = true;
    s->given_ns = now_ns();
    enum watch_mode mode = isatty(STDERR_FILENO) ? WATCH_TTY : WATCH_LINES;
    if (s->args->progress) mode = WATCH_JSON;
    if (s->args->quiet) mode = WATCH_OFF;
    watch_open(&s->watch, mode, &s->p->conf, s->frames_before, s->job->n_videos);
out:
    return e;
}

/* The gateway's line on why the job failed. */
static err_t job_error(const struct session *s, int32_t status)
{
    char path[RUNDIR_PATH_MAX + 16], *text = NULL;
    size_t n_text = 0;
    err_t e = policy_code_of(status);
    if (status == 0) return OK;
    snprintf(path, sizeof path, "%s/job.error", s->p->run);
    if (file_read(path, 4096, &text, &n_text) == OK && text[0] && text[0] != '\n')
        e = FAIL(e, "%.*s", (int)strcspn(text, "\n"), text);
    else e = FAIL(e, "gateway: the session ended with status %d", (int)status);
    free(text);
    return e;
}

static void look_at_children(struct session *s)
{
    int status;
    if (s->finish.pid > 0 && child_has_ended(&s->finish, &status) && status != 0 && s->p->super)
        super_stop(s->p->super); /* the gateway does not listen: it ends the file on SIGTERM too */
    if (s->feed.pid > 0) child_has_ended(&s->feed, &status);
}

static void start_feed(struct session *s, const struct ledger *l)
{
    const int fd = s->conf->prompts_fd;
    if (fd < 0 || s->is_fed || ledger_read(&l->gateway.job) < s->job->id) return;
    s->is_fed = true;
    if (fcntl(fd, F_GETFD) < 0) return;
    if (start_ctl(s, &s->feed, "feed", NULL, fd) != OK)
        fprintf(stderr, "longlived: %s\n", err_text());
}

static void finish(struct session *s)
{
    char job[24];
    if (s->is_finishing) return;
    s->is_finishing = true;
    snprintf(job, sizeof job, "%llu", (unsigned long long)s->job->id);
    if (start_ctl(s, &s->finish, "finish", job, -1) != OK && s->p->super) super_stop(s->p->super);
}

static err_t take_signals(struct session *s)
{
    const int32_t n = pipeline_signals(s->p);
    if (n == 0) return OK;
    if (!s->is_given) return FAIL(ERR_AGAIN, "interrupted before the session began");
    if (n > 1) {
        if (s->p->super) super_kill(s->p->super);
        return FAIL(ERR_AGAIN, "interrupted: what was written is whole up to its last block");
    }
    finish(s);
    return OK;
}

/* Says once that a prompt of the job is longer than the model takes. Clients' prompts are told by
 * their receipts. */
static void show_cut(struct session *s, const struct ledger *l)
{
    const int64_t n = (int64_t)ledger_read(&l->dit.n_decisions);
    for (; s->decisions_seen < n; s->decisions_seen++) {
        const struct ledger_decision *d = &l->decisions[s->decisions_seen];
        if (s->has_told_cut || d->n_tokens_full <= d->n_tokens) continue;
        if (l->sessions[d->session].job != (int64_t)s->job->id || l->scripts[d->script].request)
            continue;
        s->has_told_cut = true;
        watch_close(&s->watch, stderr);
        fprintf(stderr, "longlived: a prompt has %d tokens, %d are used\n", (int)d->n_tokens_full,
                (int)d->n_tokens);
    }
}

static void show(struct session *s, const struct ledger *l)
{
    const char *warning = s->p->super ? super_warning(s->p->super) : NULL;
    if (warning && !s->args->quiet) {
        watch_close(&s->watch, stderr);
        fprintf(stderr, "longlived: %s\n", warning);
    }
    /* Before that there is nothing to say but another job's numbers. */
    const int64_t n = s->is_given ? (int64_t)ledger_read(&l->gateway.n_sessions) : 0;
    if (n == 0 || l->sessions[n - 1].job != (int64_t)s->job->id) return;
    if (!s->args->quiet) show_cut(s, l);
    watch_show(&s->watch, l, now_ns(), stderr);
}

/* One turn; *is_over: the job is done. */
static err_t turn(struct session *s, bool *is_over)
{
    err_t e = OK;
    pipeline_step(s->p, STEP_MS);
    const struct ledger *l = pipeline_ledger(s->p);
    TRY(take_signals(s));
    look_at_children(s);
    if (l && !s->is_given && pipeline_is_ready(s->p)) TRY(give(s, l));
    if (l && s->is_given) start_feed(s, l);
    const bool is_done = l && s->is_given && ledger_read(&l->gateway.job_done) >= s->job->id;
    if (l && s->is_given && s->conf->look && s->conf->look(s->conf->self, l) && !is_done) finish(s);
    if (l) show(s, l); /* after that look, so that nothing of the job is unsaid */
    if (is_done) {
        *is_over = true;
        return job_error(s, (int32_t)ledger_read(&l->gateway.job_error));
    }
    const int64_t at_ns = now_ns();
    if (!s->p->super && at_ns - s->looked_ns < NS_PER_S) return OK; /* a look costs a file */
    s->looked_ns = at_ns;
    if (!pipeline_is_gone(s->p)) return OK;
    *is_over = true;
    /* Why it ended is pipeline_end's to say, when it is ours. */
    if (!s->p->super) return FAIL(ERR_NONE, "the pipeline in %s has ended", s->p->run);
out:
    return e;
}

static int64_t frames_of_job(const struct session *s)
{
    const struct ledger *l = pipeline_ledger(s->p);
    if (!l || !s->is_given) return 0;
    const int64_t n = (int64_t)ledger_read(&l->gateway.n_committed) - s->frames_before;
    return n > 0 ? n : 0;
}

/* One who asked for a length and got less, and did not interrupt, is told. */
static err_t check_whole(const struct session *s)
{
    int64_t n_want = 0;
    if (s->job->is_live || s->is_finishing || !s->is_given) return OK;
    for (int32_t i = 0; i < s->job->n_videos; i++)
        n_want += ledger_frames_of(s->job->videos[i].n_blocks * s->p->conf.dit.block);
    const int64_t n = frames_of_job(s);
    if (n >= n_want) return OK;
    return FAIL(ERR_AGAIN, "the pipeline was taken down after %lld of %lld frames", (long long)n,
                (long long)n_want);
}

err_t session_run(struct pipeline *p, const struct args *a, struct job *job,
                  const struct session_conf *c, struct session_result *out)
{
    err_t e = OK;
    bool is_over = false;
    struct session s = {.p = p, .args = a, .job = job, .conf = c, .lock_fd = -1};
    s.feed.pidfd = s.finish.pidfd = -1;
    *out = (struct session_result){0};
    while (!is_over) TRY(turn(&s, &is_over));
    TRY(check_whole(&s));
out:
    out->n_frames = frames_of_job(&s);
    out->given_ns = s.given_ns;
    out->took_s = (double)(now_ns() - s.given_ns) / NS_PER_S;
    out->was_asked = s.is_finishing;
    child_kill(&s.feed);
    child_kill(&s.finish);
    watch_close(&s.watch, stderr);
    if (s.lock_fd >= 0) close(s.lock_fd);
    return e;
}
