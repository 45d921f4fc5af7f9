/* cmd_bench.c - bench: a protocol's phases through a pipeline of its own, and what they showed into
 * a file. The phases are cmd_bench_phases.c. */
#include "procs/supervisor/cmd_bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "procs/supervisor/cmd.h"
#include "procs/supervisor/comparison.h"
#include "procs/supervisor/diff.h"
#include "procs/supervisor/report.h"
#include "procs/supervisor/results.h"
#include "procs/supervisor/session.h"
#include "procs/supervisor/solo.h"
#include "procs/supervisor/variants.h"

enum { PATH_BYTES = 4096, ROUNDS = 3, SOLO_RUNS = 51, SOLO_RUNS_QUICK = 11 };
static const char *const stages[WRITERS] = {"text", "dit", "vae", "gateway"};

/* --- a job ------------------------------------------------------------------------------------ */

struct look {
    struct bench *b;
    const struct bench_until *until;
    err_t e; /* what went wrong, and its sentence, while others write theirs */
    char why[200];
    int prompts_fd; /* -1: none */
    int64_t n_asked, first_session;
    uint64_t incarnation[WRITERS]; /* of the stages when the job began; 0: it has not */
};

int64_t bench_switch_at(int64_t i)
{
    return 6 + 4 * i;
}

/* Each second one comes back to a prompt that was used before. */
static void ask(struct look *k, int64_t n_shown)
{
    char text[PROTOCOL_TEXT_MAX + 1];
    const int64_t n_blocks = (n_shown + 3) / 4 / k->b->p.conf.dit.block;
    if (k->n_asked >= k->until->n_switches || n_blocks < bench_switch_at(k->n_asked)) return;
    k->n_asked++;
    protocol_prompt(k->n_asked % 2, k->n_asked % 2 ? k->n_asked : 0, text);
    strcat(text, "\n");
    if (write(k->prompts_fd, text, strlen(text)) < 0) k->e = FAIL(ERR_AGAIN, "a prompt: pipe");
}

/* A death and what it costs is not what is measured here. */
static err_t check_alive(struct look *k, const struct ledger *l)
{
    for (int w = 0; w < WRITERS; w++) {
        const struct ledger_head *h = ledger_head_of((struct ledger *)l, (enum ledger_writer)w);
        const uint64_t now = ledger_read(&h->incarnation), was = k->incarnation[w];
        k->incarnation[w] = now;
        if (was != 0 && now != was)
            return FAIL(ERR_AGAIN, "%s died while it was measured", stages[w]);
    }
    return OK;
}

/* Frames of the job's one live session: the trace has no other's. */
static int64_t shown(const struct look *k, const struct ledger *l)
{
    const struct trace_list *puts = &k->b->trace.of[WRITER_GATEWAY];
    if (puts->n == 0) return 0;
    const struct ledger_span *last = &puts->v[puts->n - 1];
    return last->unit + last->part - l->sessions[k->first_session].first_frame;
}

static bool look(void *self, const struct ledger *l)
{
    struct look *k = self;
    const struct trace_list *vae = &k->b->trace.of[WRITER_VAE];
    const int32_t n_per_block = k->b->p.conf.dit.block;
    if (k->e == OK) k->e = trace_look(&k->b->trace, l);
    if (k->e == OK) k->e = check_alive(k, l);
    if (k->prompts_fd >= 0) ask(k, shown(k, l));
    gpus_look(k->b->gpus, now_ns());
    if (k->e != OK) {
        if (!k->why[0]) snprintf(k->why, sizeof k->why, "%s", err_text());
        return true;
    }
    if (k->until->n_shown > 0)
        return shown(k, l) >= ledger_frames_of(k->until->n_shown * n_per_block);
    const int64_t last = k->until->n_warm * n_per_block - 1;
    return k->until->limit_ns > 0 && vae->n > last &&
           now_ns() - vae->v[last].ended_ns > k->until->limit_ns;
}

/* What the ring still has of a job before is not this one's. */
static err_t forget(struct bench *b)
{
    err_t e = OK;
    const struct ledger *l = pipeline_ledger(&b->p);
    if (l) TRY(trace_look(&b->trace, l));
    trace_clear(&b->trace);
out:
    return e;
}

err_t bench_job(struct bench *b, struct job *job, const struct bench_until *until, struct times *t,
                int64_t *given_ns)
{
    err_t e = OK;
    struct session_result r;
    struct look k = {.b = b, .until = until, .prompts_fd = -1};
    struct session_conf sc = {.prompts_fd = -1, .look = look, .self = &k};
    int fds[2] = {-1, -1};
    TRY(forget(b));
    const struct ledger *l = pipeline_ledger(&b->p);
    k.first_session = l ? (int64_t)ledger_read(&l->gateway.n_sessions) : 0;
    if (until->n_switches > 0) {
        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
            e = FAIL(ERR_AGAIN, "pipe: %s", strerror(errno));
            goto out;
        }
        sc.prompts_fd = fds[0];
        k.prompts_fd = fds[1];
    }
    TRY(session_run(&b->p, b->args, job, &sc, &r));
    if (k.e != OK) {
        e = FAIL(k.e, "%s", k.why);
        goto out;
    }
    if (pipeline_signals(&b->p) > 0) {
        e = FAIL(ERR_AGAIN, "interrupted: nothing is written");
        goto out;
    }
    if (b->trace.n_lost > 0) {
        e = FAIL(ERR_LIMIT, "%llu spans passed unseen: this machine is too busy to measure on",
                 (unsigned long long)b->trace.n_lost);
        goto out;
    }
    TRY(times_of(t, &b->trace, pipeline_ledger(&b->p), &b->p.conf, k.first_session));
    if (given_ns) *given_ns = r.given_ns;
out:
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0) close(fds[i]);
    return e;
}

json_t *bench_object(json_t *o, const char *name)
{
    json_t *v = json_object_get(o, name);
    if (!v) {
        v = json_object();
        json_object_set_new(o, name, v);
    }
    return v;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* KiB behind a key of /proc/PID/smaps_rollup: what is shared counts by halves, thirds ... */
static double pss_kib(pid_t pid, const char *key)
{
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "r");
    const size_t n = strlen(key);
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ':') kib = strtod(line + n + 1, NULL);
    if (f) fclose(f);
    return kib;
}

void bench_put_memory(struct bench *b, json_t *o)
{
    static const char *const own[] = {"Pss_Anon", "Pss_File", "Pss_Shmem"};
    static const char *const own_names[] = {"own_gb", "files_gb", "regions_gb"};
    const struct ledger *l = pipeline_ledger(&b->p);
    json_t *list = json_array();
    double all_gb = 0;
    for (int w = 0; w < WRITERS; w++) {
        const struct ledger_head *h = ledger_head_of((struct ledger *)l, (enum ledger_writer)w);
        json_t *one = json_pack("{s:s}", "process", stages[w]);
        for (int i = 0; i < 3; i++) {
            const double gb = pss_kib((pid_t)ledger_read(&h->pid), own[i]) * 1024 / 1e9;
            json_object_set_new(one, own_names[i], json_real(gb));
            all_gb += gb;
        }
        for (int i = 0; i < MEMORY_CLASSES; i++) {
            char name[48];
            uint64_t bytes = ledger_read(&l->memory[w].bytes[i]);
            if (w == WRITER_DIT) bytes += ledger_read(&l->memory[LEDGER_MEMORY_CLEAN].bytes[i]);
            const double gb = (double)bytes / 1e9;
            snprintf(name, sizeof name, "device_%s_gb", ledger_memory_names[i]);
            json_object_set_new(one, name, json_real(gb));
            all_gb += gb;
        }
        json_array_append_new(list, one);
    }
    json_object_set_new(o, "peak_memory_gb", json_real(all_gb));
    json_object_set_new(o, "memory", list);
}

/* What is measured: a configuration of its own, and the file of its runs. */
struct bench_variant {
    struct variant variant;
    struct args args;
    struct conf conf;
    json_t *file;
};

/* --- the command ------------------------------------------------------------------------------ */

static json_t *new_run(const struct args *a)
{
    char at[32];
    double load = -1;
    const time_t now = time(NULL);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    getloadavg(&load, 1);
    return json_pack("{s:s, s:f, s:b, s:[]}", "timestamp", at, "load", load, "quick", a->quick,
                     "phases");
}

/* It is measured; beside its figures is how the GPUs were meanwhile. */
static void end_phase(struct bench *b, const char *name)
{
    json_t *gpus = gpus_take(b->gpus);
    if (json_object_size(gpus) > 0) json_object_set(bench_object(b->run, "gpu"), name, gpus);
    json_decref(gpus);
    json_array_append_new(json_object_get(b->run, "phases"), json_string(name));
}

static err_t run_phases(struct bench *b)
{
    err_t e = OK;
    for (int i = 0; i < BENCH_PHASES; i++) {
        const struct bench_phase *ph = &bench_phases[i];
        if (strcmp(ph->protocol, b->args->protocol) != 0) continue;
        if (b->args->phase && strcmp(ph->name, b->args->phase) != 0) continue;
        e = ph->run(b, ph->series);
        if (e != OK) {
            e = err_prefix(e, "%s", ph->name);
            goto out;
        }
        end_phase(b, ph->name);
    }
out:
    return e;
}

static err_t check_phase(const struct args *a)
{
    char names[200] = "";
    for (int i = 0; i < BENCH_PHASES; i++) {
        if (strcmp(bench_phases[i].protocol, a->protocol) != 0) continue;
        if (!a->phase || strcmp(bench_phases[i].name, a->phase) == 0) return OK;
        strcat(strcat(names, names[0] ? ", " : ""), bench_phases[i].name);
    }
    return FAIL(ERR_USAGE, "bench: --phase %s: %s has %s", a->phase, a->protocol, names);
}

/* The file to merge with, if there is one, or one without runs. */
static err_t open_file(const struct args *a, const char *path, json_t **head)
{
    err_t e = OK;
    json_t *there = NULL;
    if (!a->merge || access(path, F_OK) != 0) return OK;
    TRY(results_read(path, &there));
    e = results_check_same(there, *head);
    if (e != OK) {
        e = err_prefix(e, "%s", path);
        goto out;
    }
    json_decref(*head);
    *head = there;
    there = NULL;
out:
    json_decref(there);
    return e;
}

/* The phases through a pipeline of its own. */
static err_t run_pipeline(struct bench *b, const struct conf *c, const char *bin_dir)
{
    char run_dir[RUNDIR_PATH_MAX], name[32], kept[512];
    err_t e = OK;
    snprintf(name, sizeof name, "bench-%d", (int)getpid());
    TRY(rundir_path(run_dir, b->args->run ? b->args->run : c->run.dir, name));
    b->exec_ns = now_ns();
    TRY(pipeline_start(&b->p, b->args, c, run_dir, bin_dir, -1));
    e = run_phases(b);
    snprintf(kept, sizeof kept, "%s", err_text());
    const err_t ended = pipeline_end(&b->p);
    if (ended != OK) e = ended;
    else if (e != OK) e = FAIL(e, "%s", kept);
out:
    return e;
}

static void look_at_gpus(void *self)
{
    gpus_look(((struct bench *)self)->gpus, now_ns());
}

/* A phase that needs none. */
static err_t run_stage(struct bench *b, const struct conf *c, const char *bin_dir)
{
    const char *stage = b->args->stage;
    json_t *o = NULL;
    const int32_t n_runs = b->args->quick ? SOLO_RUNS_QUICK : SOLO_RUNS;
    const err_t e = solo_run(bin_dir, stage, c, n_runs, look_at_gpus, b, &o);
    if (e != OK) return e;
    json_object_set_new(b->run, stage, o);
    end_phase(b, stage);
    return OK;
}

/* One run into the file. */
static err_t measure(struct bench_variant *v, const char *bin_dir)
{
    err_t e = OK;
    const struct args *a = &v->args;
    struct bench *b = calloc(1, sizeof *b);
    if (!b) return FAIL(ERR_NOMEM, "bench");
    b->args = a;
    b->run = new_run(a);
    TRY(gpus_open(&b->gpus, &v->conf, NULL, getenv("CUDA_VISIBLE_DEVICES")));
    if (a->stage) TRY(run_stage(b, &v->conf, bin_dir));
    else TRY(run_pipeline(b, &v->conf, bin_dir));
    e = results_add(v->file, b->run);
    b->run = NULL;
out:
    json_decref(b->run);
    trace_free(&b->trace);
    gpus_close(&b->gpus);
    free(b);
    return e;
}

static err_t make_dir(const char *dir)
{
    if (mkdir(dir, 0777) == 0 || errno == EEXIST) return OK;
    return FAIL(ERR_WRITE, "%s: %s", dir, strerror(errno));
}

enum report { REPORT_CSV, REPORT_HTML, REPORTS };

/* DIR/NAME.csv and .html, beside the results that they show. */
static err_t write_reports(const json_t *file, const char *stem,
                           void (*csv)(const json_t *, FILE *))
{
    char path[PATH_BYTES];
    err_t e = OK;
    for (enum report k = 0; k < REPORTS; k++) {
        char *text = NULL;
        size_t n = 0;
        FILE *f = open_memstream(&text, &n);
        if (!f) return FAIL(ERR_NOMEM, "report");
        if (k == REPORT_HTML) e = report_html(file, f);
        else csv(file, f);
        if (fclose(f) != 0 && e == OK) e = FAIL(ERR_NOMEM, "report");
        snprintf(path, sizeof path, "%.4050s.%s", stem, k == REPORT_HTML ? "html" : "csv");
        if (e == OK) e = file_write(path, text, n);
        free(text);
        TRY(e);
        printf("%s\n", path);
    }
out:
    return e;
}

static err_t measure_one(const struct args *a, struct bench_variant *v, const char *stem,
                         const char *bin_dir)
{
    char path[PATH_BYTES];
    err_t e = OK;
    snprintf(path, sizeof path, "%.4050s.json", stem);
    TRY(open_file(a, path, &v->file));
    TRY(measure(v, bin_dir));
    TRY(results_write(path, v->file));
    report_table(v->file, stdout);
    printf("\n%s\n", path);
    TRY(write_reports(v->file, stem, report_csv));
out:
    return e;
}

/* Every other round backwards: what drifts with time meets all alike. */
static err_t measure_by_turns(const struct args *a, struct bench_variant *v, int32_t n,
                              const char *stem, const char *bin_dir)
{
    char path[PATH_BYTES];
    err_t e = OK;
    json_t *all = comparison_new(a->protocol, a->ablate ? a->ablate : "compare");
    if (!all) return FAIL(ERR_NOMEM, "comparison");
    snprintf(path, sizeof path, "%.4050s.json", stem);
    for (int32_t i = 0; i < n; i++)
        TRY(comparison_add(all, v[i].variant.name, v[i].variant.set, json_incref(v[i].file)));
    if (a->merge && access(path, F_OK) == 0) TRY(comparison_merge(all, path));
    for (int64_t round = 0; round < (a->n_rounds ? a->n_rounds : ROUNDS); round++)
        for (int32_t k = 0; k < n; k++) {
            const int32_t i = round % 2 ? n - 1 - k : k;
            json_decref(v[i].file);
            v[i].file = json_incref(comparison_result(all, (size_t)i));
            e = measure(&v[i], bin_dir);
            if (e != OK) {
                e = err_prefix(e, "%s", v[i].variant.name);
                goto out;
            }
        }
    TRY(comparison_figures(all));
    TRY(results_write(path, all));
    comparison_table(all, stdout);
    printf("\n%s\n", path);
    TRY(write_reports(all, stem, comparison_csv));
out:
    json_decref(all);
    return e;
}

/* Two files side by side, as variants are that were measured by turns. */
static err_t write_diff(const struct args *a, json_t *before, json_t *after)
{
    char stem[PATH_BYTES], path[PATH_BYTES];
    err_t e = OK;
    json_t *all = comparison_new(json_string_value(json_object_get(before, "protocol")), "diff");
    if (!all) return FAIL(ERR_NOMEM, "comparison");
    TRY(comparison_add(all, a->diff, "", json_incref(before)));
    TRY(comparison_add(all, a->word, "", json_incref(after)));
    TRY(comparison_figures(all));
    TRY(make_dir(a->out));
    snprintf(stem, sizeof stem, "%.3900s/diff", a->out);
    snprintf(path, sizeof path, "%.4050s.json", stem);
    TRY(results_write(path, all));
    printf("\n%s\n", path);
    TRY(write_reports(all, stem, comparison_csv));
out:
    json_decref(all);
    return e;
}

static err_t diff(const struct args *a)
{
    err_t e = OK;
    json_t *before = NULL, *after = NULL;
    TRY(results_read(a->diff, &before));
    TRY(results_read(a->word, &after));
    TRY(diff_print(before, after, stdout));
    if (a->out) TRY(write_diff(a, before, after));
out:
    json_decref(before);
    json_decref(after);
    return e;
}

/* Its configuration, which must be one that this machine can run, and a file without runs. */
static err_t open_variant(struct bench_variant *v, const struct args *a, const char *bin_dir)
{
    err_t e = OK;
    TRY(variants_args(a, &v->variant, &v->args));
    TRY(pipeline_conf(&v->conf, &v->args, bin_dir));
    TRY(pipeline_check(&v->conf, bin_dir));
    v->file =
        results_head(variants_protocol(a), a->commit, a->conf, variants_preset(&v->args), &v->conf);
    if (!v->file) e = FAIL(ERR_NOMEM, "results");
out:
    return e;
}

err_t cmd_bench(const struct args *a, const char *bin_dir)
{
    if (a->diff) return diff(a);
    char stem[PATH_BYTES], name[64];
    err_t e = OK;
    int32_t n = 0;
    struct variant variants[VARIANTS_MAX];
    const char *dir = a->out ? a->out : "results";
    struct bench_variant *v = calloc(VARIANTS_MAX, sizeof *v);
    if (!v) return FAIL(ERR_NOMEM, "bench");
    if (!a->stage) TRY(check_phase(a));
    TRY(variants_of(a, variants, &n));
    for (int32_t i = 0; i < n; i++) {
        v[i].variant = variants[i];
        TRY(open_variant(&v[i], a, bin_dir));
    }
    TRY(make_dir(dir));
    variants_file(a, name, sizeof name);
    snprintf(stem, sizeof stem, "%.3900s/%s", dir, name);
    if (n == 1) TRY(measure_one(a, v, stem, bin_dir));
    else TRY(measure_by_turns(a, v, n, stem, bin_dir));
out:
    for (int32_t i = 0; i < VARIANTS_MAX; i++) json_decref(v[i].file);
    free(v);
    return e;
}
