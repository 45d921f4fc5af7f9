/* cmd_generate.c - generate, serve, replay: from options to a job, the job through a pipeline. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/dump.h"
#include "common/prompt.h"
#include "procs/supervisor/cmd.h"
#include "procs/supervisor/pipeline.h"
#include "procs/supervisor/replay.h"
#include "procs/supervisor/script.h"
#include "procs/supervisor/session.h"

enum { BLOCKS_DEFAULT = 40, PATH_BYTES = 4096 };

/* Fewest blocks whose frames last that long: n blocks are 1 + 4 (3n - 1) frames. */
static int64_t blocks_of(int64_t ms, int32_t fps, int32_t n_per_block)
{
    const int64_t n_frames = (ms * fps + 999) / 1000;
    const int64_t n_latents = n_frames <= 1 ? 1 : (n_frames - 1 + 3) / 4 + 1;
    return (n_latents + n_per_block - 1) / n_per_block;
}

static err_t absolute(const char *path, char **out)
{
    char cwd[PATH_BYTES], whole[2 * PATH_BYTES];
    if (!getcwd(cwd, sizeof cwd)) return FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
    const int n = snprintf(whole, sizeof whole, "%s%s%s", *path == '/' ? "" : cwd,
                           *path == '/' ? "" : "/", path);
    if (n < 0 || n >= PATH_BYTES) return FAIL(ERR_WRITE, "%s: name too long", path);
    *out = strdup(whole);
    return *out ? OK : FAIL(ERR_NOMEM, "path");
}

/* Can a file be made there? Nothing is: an old one stays until the first frame. */
static err_t check_writable(const char *path)
{
    char dir[PATH_BYTES];
    struct stat st;
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    slash[slash == dir] = 0;
    if (stat(dir, &st) != 0 || access(dir, W_OK | X_OK) != 0)
        return FAIL(ERR_WRITE, "cannot write %s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return FAIL(ERR_WRITE, "cannot write %s: %s", path, strerror(ENOTDIR));
    if (stat(path, &st) != 0) return OK;
    if (S_ISDIR(st.st_mode)) return FAIL(ERR_WRITE, "cannot write %s: %s", path, strerror(EISDIR));
    if (access(path, W_OK) != 0)
        return FAIL(ERR_WRITE, "cannot write %s: %s", path, strerror(errno));
    return OK;
}

/* The i-th of n: name.mp4 -> name-003.mp4. */
static err_t numbered(const char *path, int32_t i, int32_t n, char **out)
{
    char name[PATH_BYTES];
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    err_t e = OK;
    *out = NULL;
    if (!dot || (slash && dot < slash + 2)) dot = path + strlen(path);
    if (strcmp(path, "-") == 0) {
        *out = strdup(path);
        return *out ? OK : FAIL(ERR_NOMEM, "path");
    }
    int n_name;
    if (n == 1) n_name = snprintf(name, sizeof name, "%s", path);
    else n_name = snprintf(name, sizeof name, "%.*s-%03d%s", (int)(dot - path), path, (int)i, dot);
    if (n_name < 0 || n_name >= PATH_BYTES) return FAIL(ERR_WRITE, "%.60s...: too long", path);
    TRY(absolute(name, out));
    TRY(check_writable(*out));
out:
    return e;
}

static err_t one_prompt(const char *text, int64_t at_block, struct job_video *v)
{
    err_t e = prompt_check(text, strlen(text));
    if (e != OK) return err_prefix(e, "--prompt");
    v->prompts = calloc(1, sizeof *v->prompts);
    if (!v->prompts) return FAIL(ERR_NOMEM, "prompt");
    v->n_prompts = 1;
    v->prompts[0].at_block = at_block;
    v->prompts[0].text = strdup(text);
    return v->prompts[0].text ? OK : FAIL(ERR_NOMEM, "prompt");
}

static err_t set_path(const char *path, char **out)
{
    free(*out);
    *out = NULL;
    if (path) return absolute(path, out);
    *out = strdup("");
    return *out ? OK : FAIL(ERR_NOMEM, "path");
}

/* An output that is also something else would be lost, or be what is read. */
static err_t check_distinct(const struct job_video *v)
{
    const struct {
        const char *what, *path;
    } files[] = {{"video", v->out},
                 {"hashes", v->hashes},
                 {"latents", v->latents},
                 {"noise", v->noise},
                 {"embeddings", v->embeds}};
    enum { OUTPUTS = 3, FILES = 5 };
    for (int i = 0; i < OUTPUTS; i++)
        for (int j = i + 1; j < FILES; j++)
            if (files[i].path[0] && strcmp(files[i].path, files[j].path) == 0)
                return FAIL(ERR_USAGE, "%s: both %s and %s", files[i].path, files[i].what,
                            files[j].what);
    return OK;
}

/* Files by which a run is repeated: looked at before anything starts. */
static err_t set_dumps(struct job *job, const struct args *a, const struct conf *c)
{
    err_t e = OK;
    struct checkpoint *f = NULL;
    struct job_video *v = &job->videos[0];
    if ((a->noise || a->embeds || a->latents) && job->n_videos > 1)
        return FAIL(ERR_USAGE,
                    "generate: --noise, --embeds and --latents are for one video, not"
                    " for %d",
                    (int)job->n_videos);
    for (int32_t i = 0; i < job->n_videos; i++) {
        TRY(set_path(a->noise, &job->videos[i].noise));
        TRY(set_path(a->embeds, &job->videos[i].embeds));
        TRY(set_path(a->latents, &job->videos[i].latents));
        TRY(check_distinct(&job->videos[i]));
    }
    if (a->noise) {
        const bool has_length = a->n_blocks || a->seconds_ms;
        TRY(dump_open_noise(&f, v->noise, c, has_length ? v->n_blocks : 0));
        if (!has_length) v->n_blocks = dump_blocks(f, c);
        checkpoint_close(&f);
    }
    if (a->embeds) {
        TRY(dump_open_embeds(&f, v->embeds, c, v->n_prompts));
        checkpoint_close(&f);
    }
    if (a->latents) TRY(check_writable(v->latents));
out:
    return e;
}

/* Every prompt of a script file, to be encoded ahead. */
static err_t read_prewarm(const char *path, const struct conf *c, struct job *job)
{
    int64_t at[CONF_SWITCHES_MAX];
    const int32_t n_at = conf_switches(c, at);
    const struct script_conf sc = {.block = c->dit.block, .at = n_at ? at : NULL, .n_at = n_at};
    struct job_video *videos = NULL;
    int32_t n_videos = 0;
    size_t n = 0;
    err_t e = OK;
    TRY(script_read(path, &sc, &videos, &n_videos));
    for (int32_t v = 0; v < n_videos; v++) n += (size_t)videos[v].n_prompts;
    job->prewarm = calloc(n + 1, sizeof *job->prewarm);
    if (!job->prewarm) {
        e = FAIL(ERR_NOMEM, "prewarm");
        goto out;
    }
    for (int32_t v = 0; v < n_videos; v++)
        for (int32_t i = 0; i < videos[v].n_prompts; i++) {
            job->prewarm[job->n_prewarm++] = videos[v].prompts[i].text; /* handed over */
            videos[v].prompts[i].text = NULL;
        }
out:
    job_videos_free(&videos, n_videos);
    return e;
}

/* Where each video goes. */
static err_t fill_outputs(struct job *job, const struct args *a)
{
    err_t e = OK;
    for (int32_t i = 0; i < job->n_videos; i++) {
        struct job_video *v = &job->videos[i];
        free(v->out); /* "" so far, or NULL */
        free(v->hashes);
        v->out = v->hashes = NULL;
        if (a->out) TRY(numbered(a->out, i, job->n_videos, &v->out));
        if (a->hashes) TRY(numbered(a->hashes, i, job->n_videos, &v->hashes));
        if (!v->out) v->out = strdup("");
        if (!v->hashes) v->hashes = strdup("");
        if (!v->out || !v->hashes) return FAIL(ERR_NOMEM, "job");
    }
out:
    return e;
}

static err_t fill_job(struct job *job, const struct args *a, const struct conf *c)
{
    const int64_t seed = a->seed >= 0 ? a->seed : c->run.seed;
    int64_t n_blocks = a->n_blocks ? a->n_blocks : BLOCKS_DEFAULT;
    int64_t at[CONF_SWITCHES_MAX];
    const int32_t n_at = conf_switches(c, at);
    err_t e = OK;
    if (a->seconds_ms) n_blocks = blocks_of(a->seconds_ms, c->run.fps, c->dit.block);
    if (job->is_live) n_blocks = 0;
    if (a->script) {
        const struct script_conf sc = {.block = c->dit.block,
                                       .n_blocks = n_blocks,
                                       .seed = seed,
                                       .at = n_at ? at : NULL,
                                       .n_at = n_at};
        TRY(script_read(a->script, &sc, &job->videos, &job->n_videos));
    } else {
        job->videos = calloc(1, sizeof *job->videos);
        if (!job->videos) return FAIL(ERR_NOMEM, "job");
        job->n_videos = 1;
        job->videos[0].n_blocks = n_blocks;
        job->videos[0].seed = seed;
        if (a->prompt) TRY(one_prompt(a->prompt, job->is_live ? -1 : 0, &job->videos[0]));
    }
    TRY(fill_outputs(job, a));
    TRY(set_dumps(job, a, c));
    if (a->prewarm) TRY(read_prewarm(a->prewarm, c, job));
out:
    return e;
}

static err_t check_outputs(const struct args *a, const struct conf *c, const char *bin_dir)
{
    err_t e = OK;
    TRY(pipeline_check(c, bin_dir));
    if (a->out && strlen(a->out) > 4 && strcmp(a->out + strlen(a->out) - 4, ".mp4") == 0)
        TRY(pipeline_check_mp4(bin_dir));
out:
    return e;
}

/* Everything that can be known before a process is started. */
static err_t prepare(struct job **out, const struct args *a, const struct conf *c,
                     const char *bin_dir)
{
    err_t e = OK;
    struct job *job = calloc(1, sizeof *job);
    if (!job) return FAIL(ERR_NOMEM, "job");
    job->is_live = a->cmd == CMD_SERVE;
    TRY(fill_job(job, a, c));
    TRY(check_outputs(a, c, bin_dir));
    *out = job;
    job = NULL;
out:
    job_free(&job);
    return e;
}

static void report(const struct args *a, const struct job *job, const struct conf *c,
                   const struct session_result *r)
{
    char more[32] = "";
    if (a->quiet) return;
    if (job->n_videos > 1) snprintf(more, sizeof more, " and %d more", (int)job->n_videos - 1);
    fprintf(a->cmd == CMD_SERVE ? stderr : stdout, "%s%s: %lld frames, %.2f s, %.1f fps%s\n",
            job->videos[0].out[0]  ? job->videos[0].out
            : a->cmd == CMD_REPLAY ? a->word
                                   : "live",
            more, (long long)r->n_frames, (double)r->n_frames / c->run.fps,
            r->took_s > 0 ? (double)r->n_frames / r->took_s : 0.0, r->was_asked ? ", ended" : "");
}

/* The job through the pipeline, and its end. The pipeline's own reason says more than the job's. */
static err_t run(struct pipeline *p, const struct args *a, struct job *job)
{
    struct session_result r;
    char kept[512];
    const struct session_conf sc = {.prompts_fd = a->cmd == CMD_SERVE ? STDIN_FILENO : -1};
    err_t e = session_run(p, a, job, &sc, &r);
    snprintf(kept, sizeof kept, "%s", err_text());
    const err_t ended = pipeline_end(p);
    if (ended != OK) return ended;
    if (e != OK) return FAIL(e, "%s", kept);
    report(a, job, &p->conf, &r);
    return OK;
}

err_t cmd_generate(const struct args *a, const char *bin_dir)
{
    char run_dir[RUNDIR_PATH_MAX], name[32];
    err_t e = OK;
    struct job *job = NULL;
    struct conf *c = calloc(1, sizeof *c);
    struct pipeline *p = calloc(1, sizeof *p);
    if (!c || !p) {
        e = FAIL(ERR_NOMEM, "configuration");
        goto out;
    }
    if (a->run) { /* somebody else's pipeline, if one runs there */
        TRY(rundir_path(run_dir, a->run, "main"));
        if (pipeline_is_there(run_dir)) {
            if (a->conf || a->n_sets) {
                e = FAIL(ERR_USAGE, "generate: a pipeline runs in %s: -c and --set are up's",
                         run_dir);
                goto out;
            }
            TRY(pipeline_attach(p, run_dir, bin_dir));
            e = prepare(&job, a, &p->conf, bin_dir);
            if (e == OK) e = run(p, a, job);
            else (void)!pipeline_end(p);
            goto out;
        }
    }
    TRY(pipeline_conf(c, a, bin_dir));
    TRY(prepare(&job, a, c, bin_dir));
    snprintf(name, sizeof name, "gen-%d", (int)getpid());
    TRY(rundir_path(run_dir, a->run ? a->run : c->run.dir, name));
    TRY(pipeline_start(p, a, c, run_dir, bin_dir, -1));
    e = run(p, a, job);
out:
    job_free(&job);
    free(c);
    free(p);
    return e;
}

err_t cmd_serve(const struct args *a, const char *bin_dir)
{
    char run_dir[RUNDIR_PATH_MAX];
    err_t e = OK;
    struct job *job = NULL;
    struct conf *c = calloc(1, sizeof *c);
    struct pipeline *p = calloc(1, sizeof *p);
    if (!c || !p) {
        e = FAIL(ERR_NOMEM, "configuration");
        goto out;
    }
    TRY(pipeline_conf(c, a, bin_dir));
    TRY(prepare(&job, a, c, bin_dir));
    TRY(rundir_path(run_dir, a->run ? a->run : c->run.dir, "main"));
    const bool is_stream = a->out && strcmp(a->out, "-") == 0;
    TRY(pipeline_start(p, a, c, run_dir, bin_dir, is_stream ? STDOUT_FILENO : -1));
    e = run(p, a, job);
out:
    job_free(&job);
    free(c);
    free(p);
    return e;
}

/* What was decided there, and its configuration. */
static err_t read_run(const char *dir, struct conf *c, struct job **job)
{
    char path[4200];
    const struct ledger *l = NULL;
    err_t e = OK;
    snprintf(path, sizeof path, "%.4096s/config.ini", dir);
    TRY(conf_load(c, path, NULL, 0));
    c->fault.point[0] = '\0'; /* whatever failed there is in the decisions */
    TRY(ledger_map(dir, &l));
    e = replay_job(l, job);
    if (e != OK) e = err_prefix(e, "%s", dir);
    ledger_unmap(&l);
out:
    return e;
}

err_t cmd_replay(const struct args *a, const char *bin_dir)
{
    char run_dir[RUNDIR_PATH_MAX], name[32];
    err_t e = OK;
    struct job *job = NULL;
    struct conf *c = calloc(1, sizeof *c);
    struct pipeline *p = calloc(1, sizeof *p);
    if (!c || !p) {
        e = FAIL(ERR_NOMEM, "configuration");
        goto out;
    }
    TRY(read_run(a->word, c, &job));
    TRY(fill_outputs(job, a));
    TRY(check_outputs(a, c, bin_dir));
    snprintf(name, sizeof name, "gen-%d", (int)getpid());
    TRY(rundir_path(run_dir, a->run, name));
    TRY(pipeline_start(p, a, c, run_dir, bin_dir, -1));
    e = run(p, a, job);
out:
    job_free(&job);
    free(c);
    free(p);
    return e;
}
