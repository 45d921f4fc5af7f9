/* diff.c - see diff.h. */
#include "procs/supervisor/diff.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { PATH_BYTES = 200 };

void diff_range(const double *v, int32_t n, double *mean, double *spread)
{
    double lo = v[0], hi = v[0], sum = 0;
    for (int32_t i = 0; i < n; i++) {
        lo = fmin(lo, v[i]);
        hi = fmax(hi, v[i]);
        sum += v[i];
    }
    *mean = sum / n;
    *spread = hi - lo;
}

enum diff diff_of(const double *a, int32_t n_a, const double *b, int32_t n_b, double *spread)
{
    double mean_a, mean_b, spread_a, spread_b;
    diff_range(a, n_a, &mean_a, &spread_a);
    diff_range(b, n_b, &mean_b, &spread_b);
    const double most = fmax(spread_a, spread_b);
    if (spread) *spread = most;
    if (n_a < 2 || n_b < 2) return DIFF_UNKNOWN;
    if (fabs(mean_b - mean_a) <= most) return DIFF_SAME;
    return mean_b < mean_a ? DIFF_LOWER : DIFF_HIGHER;
}

/* The number at a path of keys "a.b.c" in an object; false: there is none. */
static bool number_at(const json_t *o, const char *path, double *out)
{
    char key[PATH_BYTES];
    while (*path) {
        const size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        o = json_object_get(o, key);
        path += n + (path[n] == '.');
    }
    *out = json_number_value(o);
    return json_is_number(o);
}

int32_t diff_values(const json_t *file, const char *path, double out[DIFF_RUNS_MAX])
{
    int32_t n = 0;
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(file, "runs"), i, run)
    {
        n += number_at(run, path, &out[n]);
    }
    return n;
}

struct print {
    const json_t *a, *b;
    FILE *f;
};

static void print_row(void *self, const char *path)
{
    const struct print *p = self;
    FILE *f = p->f;
    static const char *const words[] = {"one run: not known", "same", "lower", "higher"};
    double of_a[DIFF_RUNS_MAX], of_b[DIFF_RUNS_MAX], spread, mean_a, mean_b, own;
    const int32_t n_a = diff_values(p->a, path, of_a), n_b = diff_values(p->b, path, of_b);
    if (n_a == 0 || n_b == 0) return;
    const enum diff d = diff_of(of_a, n_a, of_b, n_b, &spread);
    diff_range(of_a, n_a, &mean_a, &own);
    diff_range(of_b, n_b, &mean_b, &own);
    fprintf(f, "%-44s %12.3f %12.3f ", path, mean_a, mean_b);
    if (mean_a != 0) fprintf(f, "%+8.1f %%", 100 * (mean_b - mean_a) / mean_a);
    else fprintf(f, "%10s", "");
    fprintf(f, " %10.3f  %s\n", spread, words[d]);
}

static void walk(const json_t *o, const char *path, void (*visit)(void *, const char *), void *self)
{
    const char *key;
    json_t *v;
    const bool is_stats = json_is_number(json_object_get(o, "mean"));
    json_object_foreach((json_t *)o, key, v)
    {
        char name[PATH_BYTES];
        if (is_stats && (strcmp(key, "n") == 0 || strcmp(key, "std") == 0)) continue;
        if (strncmp(key, "ss_", 3) == 0 || strncmp(key, "ps_", 3) == 0) continue;
        snprintf(name, sizeof name, "%s%s%s", path, path[0] ? "." : "", key);
        if (json_is_object(v)) walk(v, name, visit, self);
        else if (json_is_real(v) && strcmp(name, "load") != 0) visit(self, name);
    }
}

void diff_each(const json_t *file, void (*visit)(void *self, const char *path), void *self)
{
    json_t *all = json_object(), *run; /* one run may have what another lacks */
    size_t i;
    json_array_foreach(json_object_get(file, "runs"), i, run)
    {
        json_t *copy = json_deep_copy(run);
        json_object_update_recursive(all, copy);
        json_decref(copy);
    }
    walk(all, "", visit, self);
    json_decref(all);
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "?";
}

static void print_file(const char *name, const json_t *file, FILE *f)
{
    const json_t *m = json_object_get(file, "machine"), *c = json_object_get(file, "config");
    const size_t n = json_array_size(json_object_get(file, "runs"));
    fprintf(f, "%s: commit %s, %zu run%s, %s, dit on %s, %s\n", name, text(file, "commit"), n,
            n == 1 ? "" : "s", text(m, "cpu"), text(m, "dit"), text(c, "file"));
}

err_t diff_print(const json_t *a, const json_t *b, FILE *f)
{
    const json_t *runs = json_object_get(a, "runs");
    if (strcmp(text(a, "protocol"), text(b, "protocol")) != 0)
        return FAIL(ERR_DATA, "one is of protocol %s, the other of %s", text(a, "protocol"),
                    text(b, "protocol"));
    if (json_array_size(runs) > DIFF_RUNS_MAX ||
        json_array_size(json_object_get(b, "runs")) > DIFF_RUNS_MAX)
        return FAIL(ERR_LIMIT, "more than %d runs in a file", DIFF_RUNS_MAX);
    struct print p = {a, b, f};
    print_file("A", a, f);
    print_file("B", b, f);
    fprintf(f, "\n%-44s %12s %12s %10s %10s  %s\n", "mean of the runs", "A", "B", "B to A",
            "spread", "B is");
    diff_each(a, print_row, &p);
    return OK;
}
