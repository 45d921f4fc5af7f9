/* report.c - see report.h. */
#include "procs/supervisor/report.h"

#include <stdbool.h>
#include <stdlib.h>
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

/* Of a stage alone: an op and shape a row, and how near its products come to their floor. */
static void print_ops(const char *stage, const char *pass, const json_t *rows, FILE *f)
{
    size_t i;
    json_t *r;
    fprintf(f, "\n%-38s %6s %10s %10s %10s %10s %7s\n", "op", "calls", "ms", "GFLOP", "MB",
            "floor ms", "of it");
    json_array_foreach(rows, i, r)
    {
        char name[96];
        const double ms = number(r, "ms"), floor_ms = number(r, "floor_ms");
        snprintf(name, sizeof name, "%s.%s %s %s", stage, pass,
                 json_string_value(json_object_get(r, "op")),
                 json_string_value(json_object_get(r, "shape")));
        fprintf(f, "%-38s %6lld %10.3f %10.3f %10.3f", name,
                (long long)json_integer_value(json_object_get(r, "n")), ms, number(r, "gflop"),
                number(r, "mb"));
        if (floor_ms > 0) fprintf(f, " %10.4f %5.0f %%", floor_ms, 100 * floor_ms / ms);
        fprintf(f, "\n");
    }
}

static void print_passes(json_t *run, FILE *f)
{
    static const char *const stages[] = {"text", "dit", "vae"};
    for (int i = 0; i < 3; i++) {
        json_t *passes = json_object_get(json_object_get(run, stages[i]), "passes"), *pass;
        const char *name;
        json_object_foreach(passes, name, pass)
            print_ops(stages[i], name, json_object_get(pass, "rows"), f);
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
    print_passes(run, f);
}

/* --- CSV -------------------------------------------------------------------------------------- */

struct csv {
    const json_t *file;
    FILE *f;
    size_t run;
};

static void write_row(void *self, const char *path, json_t *s)
{
    const struct csv *c = self;
    fprintf(c->f, "%s,%s,%zu,%s,%lld,%.6f,%.6f,%.6f,%.6f,%.6f,%.6f,%.6f\n",
            json_string_value(json_object_get(c->file, "protocol")),
            json_string_value(json_object_get(c->file, "commit")), c->run, path,
            (long long)json_integer_value(json_object_get(s, "n")), number(s, "mean"),
            number(s, "std"), number(s, "p50"), number(s, "p95"), number(s, "p99"),
            number(s, "max"), number(s, "min"));
}

void report_csv(const json_t *file, FILE *f)
{
    struct csv c = {.file = file, .f = f};
    json_t *run;
    fprintf(f, "protocol,commit,run,series,n,mean,std,p50,p95,p99,max,min\n");
    json_array_foreach(json_object_get(file, "runs"), c.run, run)
    {
        results_walk(run, write_row, &c);
    }
}

/* --- HTML ------------------------------------------------------------------------------------- */

__asm__(".section .rodata\n"
        "report_page: .incbin \"procs/supervisor/report.html\"\n"
        "report_page_end: .byte 0\n"
        ".previous\n");
extern const char report_page[], report_page_end[];

err_t report_html(const json_t *file, FILE *f)
{
    static const char place[] = "@DATA@";
    const char *at = strstr(report_page, place);
    char *text = json_dumps(file, JSON_COMPACT | JSON_REAL_PRECISION(9));
    MUST(at && at < report_page_end);
    if (!text) return FAIL(ERR_NOMEM, "report");
    fwrite(report_page, 1, (size_t)(at - report_page), f);
    for (const char *c = text; *c; c++) { /* nothing in it may end the element that it is in */
        if (*c == '<') fputs("\\u003c", f);
        else fputc(*c, f);
    }
    fputs(at + sizeof place - 1, f);
    free(text);
    return OK;
}
