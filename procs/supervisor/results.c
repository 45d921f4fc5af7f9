/* results.c - see results.h. */
#include "procs/supervisor/results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cpu.h"
#include "common/file.h"
#include "common/stats.h"

enum { FILE_BYTES_MAX = 64 << 20, PATH_BYTES = 200 };
static const char file_format[] = "longlived bench";

static void put_ms(json_t *o, const char *prefix, const char *key, double ns)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", prefix, key);
    json_object_set_new(o, name, json_real(ns / NS_PER_MS));
}

static void put_stats(json_t *o, const char *prefix, const char *count, const int64_t *ns,
                      int64_t n)
{
    char name[64];
    int64_t *sorted = malloc(((size_t)n + 1) * sizeof *sorted);
    if (!sorted) return;
    if (n > 0) memcpy(sorted, ns, (size_t)n * sizeof *sorted);
    const struct stats s = stats_of(sorted, n);
    snprintf(name, sizeof name, "%s%s", prefix, count);
    json_object_set_new(o, name, json_integer((json_int_t)n));
    put_ms(o, prefix, "mean", s.mean);
    put_ms(o, prefix, "std", s.std);
    put_ms(o, prefix, "p50", (double)s.p50);
    put_ms(o, prefix, "p95", (double)s.p95);
    put_ms(o, prefix, "p99", (double)s.p99);
    put_ms(o, prefix, "max", (double)s.max);
    put_ms(o, prefix, "min", (double)s.min);
    free(sorted);
}

json_t *results_stats(const int64_t *ns, int64_t n)
{
    json_t *o = json_object(), *values = json_array();
    put_stats(o, "", "n", ns, n);
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(values, json_real((double)ns[i] / NS_PER_MS));
    json_object_set_new(o, "values", values);
    return o;
}

void results_put_seed(json_t *o, const char *prefix, const int64_t *ns, int64_t n)
{
    char with_line[16];
    snprintf(with_line, sizeof with_line, "%s_", prefix);
    put_stats(o, with_line, "samples", ns, n);
}

json_t *results_head(const char *protocol, const char *commit, const char *conf_file,
                     const char *preset, const struct conf *c)
{
    char cpu[96];
    cpu_name(cpu, sizeof cpu);
    return json_pack(
        "{s:s, s:i, s:s, s:s, s:{s:s, s:i, s:s, s:s, s:s, s:s}, s:{s:s, s:s, s:i, s:i, s:i, s:i, "
        "s:i,"
        " s:s, s:b, s:b, s:b, s:b, s:i, s:i}, s:[]}",
        "format", file_format, "version", 1, "protocol", protocol, "commit", commit, "machine",
        "cpu", cpu, "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "text", c->place.text, "dit",
        c->place.dit, "vae", c->place.vae, "clean", c->place.clean, "config", "file",
        conf_file ? conf_file : "demo.ini", "preset", preset, "width_px", (int)conf_width_px(c),
        "height_px", (int)conf_height_px(c), "block", (int)c->dit.block, "window",
        (int)c->dit.window, "sink", (int)c->dit.sink, "steps", c->dit.steps, "graphs",
        (int)c->gpu.graphs, "edge", (int)c->gpu.edge, "overlap", (int)conf_overlaps(c), "reuse",
        (int)c->cache.reuse, "fps", (int)c->run.fps, "ahead_ms", (int)c->run.ahead_ms, "runs");
}

static bool has_phase(const json_t *run, const char *phase)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(run, "phases"), i, v)
    {
        if (strcmp(json_string_value(v), phase) == 0) return true;
    }
    return false;
}

static bool fits(const json_t *newest, const json_t *run)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(run, "phases"), i, v)
    {
        if (has_phase(newest, json_string_value(v))) return false;
    }
    return json_equal(json_object_get(newest, "quick"), json_object_get(run, "quick"));
}

err_t results_add(json_t *file, json_t *run)
{
    json_t *runs = json_object_get(file, "runs");
    json_t *newest = json_array_get(runs, json_array_size(runs) - 1);
    if (!newest || !fits(newest, run))
        return json_array_append_new(runs, run) == 0 ? OK : FAIL(ERR_NOMEM, "results");
    json_t *phases = json_copy(json_object_get(newest, "phases"));
    const bool is_ok = json_array_extend(phases, json_object_get(run, "phases")) == 0 &&
                       json_object_set_new(run, "phases", phases) == 0 &&
                       json_object_update_recursive(newest, run) == 0;
    json_decref(run);
    return is_ok ? OK : FAIL(ERR_NOMEM, "results");
}

err_t results_read(const char *path, json_t **out)
{
    return results_read_as(path, file_format, "runs", out);
}

err_t results_read_as(const char *path, const char *format, const char *list, json_t **out)
{
    err_t e = OK;
    char *text = NULL;
    size_t n = 0;
    json_error_t why;
    TRY(file_read(path, FILE_BYTES_MAX, &text, &n));
    json_t *o = json_loadb(text, n, 0, &why);
    if (!o) {
        e = FAIL(ERR_DATA, "%s:%d: %s", path, why.line, why.text);
        goto out;
    }
    const char *is = json_string_value(json_object_get(o, "format"));
    if (!is || strcmp(is, format) != 0 || json_integer_value(json_object_get(o, "version")) != 1 ||
        !json_is_array(json_object_get(o, list))) {
        e = FAIL(ERR_DATA, "%s: not a result of longlived bench", path);
        json_decref(o);
        goto out;
    }
    *out = o;
out:
    free(text);
    return e;
}

err_t results_check_same(const json_t *file, const json_t *head)
{
    static const char *const keys[] = {"protocol", "commit", "machine", "config"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_equal(json_object_get(file, keys[i]), json_object_get(head, keys[i])))
            return FAIL(ERR_DATA, "what is there has another %s: not merged", keys[i]);
    return OK;
}

err_t results_write(const char *path, const json_t *file)
{
    char *text = json_dumps(file, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    if (!text) return FAIL(ERR_NOMEM, "results");
    const err_t e = file_write(path, text, strlen(text));
    free(text);
    return e;
}

static void walk(json_t *o, const char *path, void (*visit)(void *, const char *, json_t *),
                 void *self)
{
    const char *key;
    json_t *v;
    if (json_is_number(json_object_get(o, "mean"))) {
        visit(self, path, o);
        return;
    }
    json_object_foreach(o, key, v)
    {
        char name[PATH_BYTES];
        if (!json_is_object(v)) continue;
        snprintf(name, sizeof name, "%s%s%s", path, path[0] ? "." : "", key);
        walk(v, name, visit, self);
    }
}

void results_walk(json_t *o, void (*visit)(void *self, const char *path, json_t *stats), void *self)
{
    walk(o, "", visit, self);
}
