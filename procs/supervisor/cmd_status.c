/* cmd_status.c - status: the supervisor's processes, the ledger's counters. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "ipc/edge.h"
#include "ipc/ledger.h"
#include "procs/supervisor/cmd.h"
#include "procs/supervisor/control.h"
#include "procs/supervisor/pipeline.h"

static void set(json_t *o, const char *key, uint64_t v)
{
    json_object_set_new(o, key, json_integer((json_int_t)v));
}

/* What a stage says of itself, into its process's object. */
static void add_stage(json_t *o, const struct ledger *l, enum ledger_writer w)
{
    const struct ledger_head *h = ledger_head_of((struct ledger *)l, w);
    const uint64_t phase = ledger_read(&h->phase), n_units = ledger_read(&h->n_units);
    const int64_t beat_ns = (int64_t)ledger_read(&h->beat_ns);
    set(o, "incarnation", ledger_read(&h->incarnation));
    json_object_set_new(o, "phase", json_string(phase < PHASES ? ledger_phase_names[phase] : "?"));
    set(o, "unit", ledger_read(&h->unit));
    set(o, "n_units", n_units);
    json_object_set_new(o, "beat_age_ms",
                        json_real(beat_ns ? ((double)now_ns() - (double)beat_ns) / NS_PER_MS : -1));
    json_object_set_new(o, "unit_ms", json_real((double)ledger_read(&h->unit_ns) / NS_PER_MS));
    json_object_set_new(
        o, "unit_ms_mean",
        json_real(n_units ? (double)ledger_read(&h->unit_ns_sum) / (double)n_units / NS_PER_MS
                          : 0));
    set(o, "n_allocs_ready", ledger_read(&h->n_allocs_ready));
    set(o, "n_ops", ledger_read(&h->n_ops));
    set(o, "messages_dropped", ledger_read(&h->n_dropped));
}

/* Blocks of the newest session that began with a cache made anew. */
static uint64_t n_rebuilds(const struct ledger *l)
{
    const int64_t n = (int64_t)ledger_read(&l->dit.n_decisions);
    const int64_t session = (int64_t)ledger_read(&l->gateway.n_sessions) - 1;
    uint64_t n_rebuilds = 0;
    for (int64_t i = n - 1; i >= 0 && l->decisions[i].session == session; i--)
        n_rebuilds += l->decisions[i].kind == DECISION_REBUILD;
    return n_rebuilds;
}

static json_t *counters(const struct ledger *l)
{
    json_t *o = json_object();
    set(o, "latents_blocks", ledger_read(&l->dit.n_latents_blocks));
    set(o, "clean_blocks", ledger_read(&l->dit.n_clean_blocks));
    set(o, "decisions", ledger_read(&l->dit.n_decisions));
    set(o, "latents_decoded", ledger_read(&l->vae.n_latents));
    set(o, "block_passes", ledger_read(&l->dit.n_block_passes));
    set(o, "clean_passes", ledger_read(&l->dit.n_clean_passes));
    set(o, "vae_passes", ledger_read(&l->vae.n_passes));
    set(o, "frames_committed", ledger_read(&l->gateway.n_committed));
    set(o, "want", ledger_read(&l->gateway.want));
    set(o, "sessions", ledger_read(&l->gateway.n_sessions));
    set(o, "scripts", ledger_read(&l->gateway.n_scripts));
    set(o, "jobs", ledger_read(&l->gateway.job));
    set(o, "jobs_done", ledger_read(&l->gateway.job_done));
    set(o, "job_error", ledger_read(&l->gateway.job_error));
    set(o, "prompt_hits", ledger_read(&l->gateway.n_hits));
    set(o, "prompt_misses", ledger_read(&l->gateway.n_misses));
    set(o, "prompt_entries", ledger_read(&l->text.n_entries));
    set(o, "prompt_evictions", ledger_read(&l->text.n_evictions));
    set(o, "prompts_from_file", ledger_read(&l->text.n_from_file));
    set(o, "requests_refused", ledger_read(&l->gateway.n_refused));
    set(o, "encoder_runs", ledger_read(&l->text.n_encoded));
    set(o, "rebuilds", n_rebuilds(l));
    set(o, "latents_decoded_again", ledger_read(&l->vae.n_rebuilt));
    set(o, "latents_from_edge", ledger_read(&l->vae.n_from_edge));
    set(o, "paused", ledger_read(&l->gateway.is_paused));
    set(o, "late_frames", ledger_read(&l->gateway.n_late));
    json_object_set_new(o, "late_ms_max",
                        json_real((double)ledger_read(&l->gateway.late_ns_max) / NS_PER_MS));
    return o;
}

/* Memory of the GPU of a row of l->memory, by class, if no row before it is of the same; else NULL.
 * What the stages do not count are contexts, libraries, and programs that are not ours. */
static json_t *gpu_memory(const struct ledger *l, int first)
{
    const uint64_t gpu = ledger_read(&l->memory[first].gpu);
    const struct ledger_memory *newest = &l->memory[first];
    uint64_t bytes[MEMORY_CLASSES] = {0}, counted = 0;
    char name[32], key[32];
    if (gpu == 0) return NULL;
    for (int w = 0; w < LEDGER_MEMORIES; w++) {
        const struct ledger_memory *m = &l->memory[w];
        if (ledger_read(&m->gpu) != gpu) continue;
        if (w < first) return NULL;
        if (ledger_read(&m->ready_ns) > ledger_read(&newest->ready_ns)) newest = m;
        for (int i = 0; i < MEMORY_CLASSES; i++) bytes[i] += ledger_read(&m->bytes[i]);
    }
    json_t *o = json_object();
    snprintf(name, sizeof name, "cuda:%d", (int)(gpu - 1));
    json_object_set_new(o, "device", json_string(name));
    for (int i = 0; i < MEMORY_CLASSES; i++) {
        snprintf(key, sizeof key, "%s_bytes", ledger_memory_names[i]);
        set(o, key, bytes[i]);
        counted += bytes[i];
    }
    const uint64_t used = ledger_read(&newest->used_bytes);
    set(o, "other_bytes", used > counted ? used - counted : 0);
    set(o, "used_bytes", used);
    set(o, "all_bytes", ledger_read(&newest->all_bytes));
    return o;
}

static json_t *memory(const struct ledger *l)
{
    json_t *all = json_array();
    for (int w = 0; w < LEDGER_MEMORIES; w++) {
        json_t *one = gpu_memory(l, w);
        if (one) json_array_append_new(all, one);
    }
    return all;
}

static json_t *gather(const char *run, const char *answer)
{
    const struct ledger *l = NULL;
    json_t *o = json_loads(answer, 0, NULL), *p;
    size_t i;
    if (!o) return NULL;
    json_object_set_new(o, "run", json_string(run));
    if (ledger_map(run, &l) != OK) return o; /* not there yet */
    json_array_foreach(json_object_get(o, "processes"), i, p)
    {
        const char *name = json_string_value(json_object_get(p, "name"));
        for (enum ledger_writer w = 0; name && w < WRITERS; w++)
            if (strcmp(name, ledger_writer_names[w]) == 0) add_stage(p, l, w);
    }
    /* The frames of this session are those of an undisturbed run. */
    json_object_set_new(o, "exact", json_boolean(n_rebuilds(l) == 0));
    json_object_set_new(o, "edge", json_string(edge_is_used(l) ? "cuda_ipc" : "host"));
    json_object_set_new(o, "memory", memory(l));
    json_object_set_new(o, "counters", counters(l));
    ledger_unmap(&l);
    return o;
}

static long long integer(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s && *s ? s : "-";
}

/* A line a GPU, in MiB. */
static void print_memory(const json_t *memory)
{
    const json_t *gpu, *v;
    const char *key;
    size_t i;
    json_array_foreach(memory, i, gpu)
    {
        printf("%s  MiB", text(gpu, "device"));
        json_object_foreach((json_t *)gpu, key, v)
        {
            if (json_is_integer(v))
                printf("  %.*s %lld", (int)strcspn(key, "_"), key, json_integer_value(v) >> 20);
        }
        printf("\n%s", i + 1 == json_array_size(memory) ? "\n" : "");
    }
}

static void print_table(const json_t *o)
{
    const json_t *p, *v;
    const char *key;
    size_t i;
    int n = 0;
    printf("%s  %s  pid %lld  up %.0f s  requests refused %lld  edge %s\n\n", text(o, "run"),
           text(o, "state"), integer(o, "pid"), json_number_value(json_object_get(o, "up_s")),
           integer(o, "control_refused"), text(o, "edge"));
    printf("%-9s%-10s%8s%5s%10s  %-12s%-9s%8s%10s%10s\n", "process", "state", "pid", "inc",
           "restarts", "last exit", "phase", "unit", "ms/unit", "beat ms");
    json_array_foreach(json_object_get(o, "processes"), i, p)
    {
        printf("%-9s%-10s%8lld%5lld%10lld  %-12s%-9s%8lld%10.1f%10.0f\n", text(p, "name"),
               text(p, "state"), integer(p, "pid"), integer(p, "incarnation"),
               integer(p, "restarts"), text(p, "last_exit"), text(p, "phase"), integer(p, "unit"),
               json_number_value(json_object_get(p, "unit_ms")),
               json_number_value(json_object_get(p, "beat_age_ms")));
    }
    printf("\n");
    print_memory(json_object_get(o, "memory"));
    json_object_foreach(json_object_get((json_t *)o, "counters"), key, v)
    {
        printf("%-18s%10.0f%s", key, json_number_value(v), ++n % 3 == 0 ? "\n" : "    ");
    }
    if (n % 3 != 0) printf("\n");
}

/* Under another supervisor: what the stages themselves have written. */
static void stages_alone(const char *run, char *out, size_t cap)
{
    const struct ledger *l = NULL;
    size_t n = (size_t)snprintf(out, cap, "{\"state\":\"prepared\",\"processes\":[");
    if (ledger_map(run, &l) == OK)
        for (enum ledger_writer w = 0; w < WRITERS; w++)
            n += (size_t)snprintf(
                out + n, cap - n, "%s{\"name\":\"%s\",\"pid\":%llu}", w ? "," : "",
                ledger_writer_names[w],
                (unsigned long long)ledger_read(&ledger_head_of((struct ledger *)l, w)->pid));
    snprintf(out + n, cap - n, "]}");
    ledger_unmap(&l);
}

err_t cmd_status(const struct args *a, const char *bin_dir)
{
    char run[RUNDIR_PATH_MAX], answer[CONTROL_ANSWER_MAX + 1];
    err_t e = OK;
    json_t *o = NULL;
    TRY(pipeline_run(run, a, bin_dir, "main"));
    if (rundir_holder(run) == 0 && rundir_is_prepared(run))
        stages_alone(run, answer, sizeof answer);
    else TRY(control_ask(run, "status", 5000, answer, sizeof answer, NULL));
    o = gather(run, answer);
    if (!o) {
        e = FAIL(ERR_BUG, "status: the supervisor's answer is not JSON");
        goto out;
    }
    if (a->json) json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    else print_table(o);
    if (a->json) printf("\n");
out:
    json_decref(o);
    return e;
}
