/* report.c - see report.h. */
#include "procs/supervisor/report.h"

#include <stdbool.h>
#include <string.h>

#include "procs/supervisor/results.h"

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void print_row(void *self, const char *path, json_t *s)
{
    FILE *f = self;
    fprintf(f, "%-38s %6lld %10.3f %9.3f %10.3f %10.3f %10.3f %10.3f %10.3f\n", path,
            (long long)json_integer_value(json_object_get(s, "n")), number(s, "mean"),
            number(s, "std"), number(s, "p50"), number(s, "p95"), number(s, "p99"),
            number(s, "max"), number(s, "min"));
}

/* Numbers of an object that is no series, a line each. */
static void print_numbers(const json_t *o, const char *path, FILE *f)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
    {
        char name[160];
        const bool is_seed = strncmp(key, "ss_", 3) == 0 || strncmp(key, "ps_", 3) == 0;
        snprintf(name, sizeof name, "%s%s%s", path, path[0] ? "." : "", key);
        if (json_is_object(v) && !json_object_get(v, "mean")) print_numbers(v, name, f);
        else if (json_is_integer(v))
            fprintf(f, "%-38s %lld\n", name, (long long)json_integer_value(v));
        else if (json_is_number(v) && !is_seed)
            fprintf(f, "%-38s %.3f\n", name, json_number_value(v));
        else if (json_is_boolean(v)) fprintf(f, "%-38s %s\n", name, json_is_true(v) ? "yes" : "no");
    }
}

void report_table(const json_t *file, FILE *f)
{
    const json_t *runs = json_object_get(file, "runs"), *head = json_object_get(file, "machine");
    json_t *run = json_array_get(runs, json_array_size(runs) - 1);
    fprintf(f, "%s at commit %s on %lld x %s, dit on %s, load %.1f\n\n",
            json_string_value(json_object_get(file, "protocol")),
            json_string_value(json_object_get(file, "commit")),
            (long long)json_integer_value(json_object_get(head, "cpus")),
            json_string_value(json_object_get(head, "cpu")),
            json_string_value(json_object_get(head, "dit")), number(run, "load"));
    fprintf(f, "%-38s %6s %10s %9s %10s %10s %10s %10s %10s\n", "ms", "n", "mean", "std", "P50",
            "P95", "P99", "max", "min");
    results_walk(run, print_row, f);
    fprintf(f, "\n");
    print_numbers(run, "", f);
}
