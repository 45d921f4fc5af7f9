/* comparison.c - see comparison.h. */
#include "procs/supervisor/comparison.h"

#include <string.h>

#include "procs/supervisor/diff.h"
#include "procs/supervisor/results.h"

static const char format[] = "longlived bench comparison";
static const char *const words[] = {"unknown", "same", "lower", "higher"};

json_t *comparison_new(const char *protocol, const char *what)
{
    return json_pack("{s:s, s:i, s:s, s:s, s:[], s:[]}", "format", format, "version", 1, "protocol",
                     protocol, "what", what, "variants", "figures");
}

err_t comparison_add(json_t *o, const char *name, const char *set, json_t *result)
{
    json_t *v = json_pack("{s:s, s:s, s:o}", "name", name, "set", set, "result", result);
    if (!v || json_array_append_new(json_object_get(o, "variants"), v) != 0)
        return FAIL(ERR_NOMEM, "comparison");
    return OK;
}

static json_t *variant(const json_t *o, size_t i)
{
    return json_array_get(json_object_get(o, "variants"), i);
}

json_t *comparison_result(const json_t *o, size_t i)
{
    return json_object_get(variant(o, i), "result");
}

static size_t n_variants(const json_t *o)
{
    return json_array_size(json_object_get(o, "variants"));
}

err_t comparison_merge(json_t *o, const char *path)
{
    err_t e = OK;
    json_t *there = NULL;
    TRY(results_read_as(path, format, "variants", &there));
    if (n_variants(there) != n_variants(o)) {
        e = FAIL(ERR_DATA, "%s: has %zu variants, not %zu: not merged", path, n_variants(there),
                 n_variants(o));
        goto out;
    }
    for (size_t i = 0; i < n_variants(o); i++) {
        e = results_check_same(comparison_result(there, i), comparison_result(o, i));
        if (e != OK) {
            e = err_prefix(e, "%s", path);
            goto out;
        }
    }
    json_object_update(o, there);
out:
    json_decref(there);
    return e;
}

/* --- figures ---------------------------------------------------------------------------------- */

struct figures {
    json_t *o, *list;
    err_t e;
};

/* Of the statistics mean, P99 and maximum; in how far the others differ follows from those. */
static bool is_told(const char *path)
{
    static const char *const no[] = {".p50", ".p95", ".min"};
    const size_t n = strlen(path);
    for (int i = 0; i < 3; i++) {
        const size_t k = strlen(no[i]);
        if (n > k && strcmp(path + n - k, no[i]) == 0) return false;
    }
    return true;
}

static bool has_figure(const json_t *list, const char *name)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
    {
        if (strcmp(json_string_value(json_object_get(v, "name")), name) == 0) return true;
    }
    return false;
}

static void put_figure(void *self, const char *path)
{
    struct figures *s = self;
    double of_first[DIFF_RUNS_MAX], v[DIFF_RUNS_MAX];
    if (!is_told(path) || has_figure(s->list, path)) return;
    const int32_t n_first = diff_values(comparison_result(s->o, 0), path, of_first);
    json_t *means = json_array(), *spreads = json_array(), *differs = json_array();
    for (size_t i = 0; i < n_variants(s->o); i++) {
        const int32_t n = diff_values(comparison_result(s->o, i), path, v);
        double mean = 0, spread = 0;
        if (n > 0) diff_range(v, n, &mean, &spread);
        json_array_append_new(means, n > 0 ? json_real(mean) : json_null());
        json_array_append_new(spreads, n > 0 ? json_real(spread) : json_null());
        const bool is_told_of = n > 0 && n_first > 0;
        json_array_append_new(
            differs,
            is_told_of ? json_string(words[diff_of(of_first, n_first, v, n, NULL)]) : json_null());
    }
    json_array_append_new(s->list, json_pack("{s:s, s:o, s:o, s:o}", "name", path, "means", means,
                                             "spreads", spreads, "differs", differs));
}

err_t comparison_figures(json_t *o)
{
    struct figures s = {.o = o, .list = json_array()};
    for (size_t i = 0; i < n_variants(o); i++) {
        const json_t *runs = json_object_get(comparison_result(o, i), "runs");
        if (json_array_size(runs) > DIFF_RUNS_MAX)
            s.e = FAIL(ERR_LIMIT, "more than %d runs of a variant", DIFF_RUNS_MAX);
    }
    for (size_t i = 0; i < n_variants(o) && s.e == OK; i++)
        diff_each(comparison_result(o, i), put_figure, &s);
    json_object_set_new(o, "figures", s.list);
    return s.e;
}

/* --- the table -------------------------------------------------------------------------------- */

/* How a variant stands to the first: per cent, and * if that is more than runs differ by. */
static void print_cell(const json_t *figure, size_t i, FILE *f)
{
    const json_t *means = json_object_get(figure, "means");
    const json_t *v = json_array_get(means, i), *first = json_array_get(means, 0);
    const char *word = json_string_value(json_array_get(json_object_get(figure, "differs"), i));
    if (!json_is_number(v)) {
        fprintf(f, " %12s %9s", "-", "");
        return;
    }
    fprintf(f, " %12.3f", json_number_value(v));
    if (i == 0 || !word || json_number_value(first) == 0) {
        fprintf(f, " %9s", "");
        return;
    }
    const double percent = 100 * (json_number_value(v) / json_number_value(first) - 1);
    const char mark = strcmp(word, "same") == 0 ? '=' : strcmp(word, "unknown") == 0 ? '?' : '*';
    fprintf(f, " %+7.1f%%%c", percent, mark);
}

void comparison_table(const json_t *o, FILE *f)
{
    const json_t *figure, *list = json_object_get(o, "figures");
    const json_t *head = comparison_result(o, 0), *m = json_object_get(head, "machine");
    size_t i;
    fprintf(f, "%s by turns, %s at commit %s on %lld x %s, dit on %s, %zu run(s) each\n",
            json_string_value(json_object_get(o, "what")),
            json_string_value(json_object_get(o, "protocol")),
            json_string_value(json_object_get(head, "commit")),
            (long long)json_integer_value(json_object_get(m, "cpus")),
            json_string_value(json_object_get(m, "cpu")),
            json_string_value(json_object_get(m, "dit")),
            json_array_size(json_object_get(head, "runs")));
    fprintf(f, "* differs from the first by more than the runs do, = does not, ? one run\n\n%-44s",
            "mean of the runs");
    for (i = 0; i < n_variants(o); i++)
        fprintf(f, " %22.22s", json_string_value(json_object_get(variant(o, i), "name")));
    fprintf(f, "\n");
    json_array_foreach(list, i, figure)
    {
        fprintf(f, "%-44s", json_string_value(json_object_get(figure, "name")));
        for (size_t k = 0; k < n_variants(o); k++) print_cell(figure, k, f);
        fprintf(f, "\n");
    }
}

void comparison_csv(const json_t *o, FILE *f)
{
    const json_t *figure, *list = json_object_get(o, "figures");
    size_t i;
    fprintf(f, "protocol,figure,variant,mean,spread,differs\n");
    json_array_foreach(list, i, figure)
    {
        for (size_t k = 0; k < n_variants(o); k++) {
            const json_t *v = json_array_get(json_object_get(figure, "means"), k);
            const json_t *spread = json_array_get(json_object_get(figure, "spreads"), k);
            const json_t *differs = json_array_get(json_object_get(figure, "differs"), k);
            if (!json_is_number(v)) continue;
            fprintf(f, "%s,%s,%s,%.6f,%.6f,%s\n", json_string_value(json_object_get(o, "protocol")),
                    json_string_value(json_object_get(figure, "name")),
                    json_string_value(json_object_get(variant(o, k), "name")), json_number_value(v),
                    json_number_value(spread),
                    json_is_string(differs) ? json_string_value(differs) : "");
        }
    }
}
