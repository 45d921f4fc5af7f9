/* test_comparison.c - variants side by side. */
#include "procs/supervisor/comparison.h"

#include "procs/supervisor/results.h"
#include "tests/scratch.h"

/* A result of two runs, whose figures are x and x + 1, and of which the second has one more. */
static json_t *result_of(const char *commit, double x)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:{s:s, s:i, s:s}, s:{s:s},"
                     " s:[{s:{s:{s:i, s:f, s:f, s:f}}}, {s:{s:{s:i, s:f, s:f, s:f}, s:f}}]}",
                     "protocol", "seed", "commit", commit, "format", "longlived bench", "version",
                     1, "machine", "cpu", "X", "cpus", 2, "dit", "cpu", "config", "file", "a.ini",
                     "runs", "fresh", "call_ms", "n", 9, "mean", x, "p50", 1.0, "max", x + 10,
                     "fresh", "call_ms", "n", 9, "mean", x + 1, "p50", 1.0, "max", x + 10, "fps",
                     x / 2);
}

static json_t *three(const char *commit)
{
    json_t *o = comparison_new("seed", "window");
    check_ok(comparison_add(o, "12", "dit.window=12", result_of(commit, 20)));
    check_ok(comparison_add(o, "10", "dit.window=10", result_of(commit, 20.5)));
    check_ok(comparison_add(o, "6", "dit.window=6", result_of(commit, 10)));
    return o;
}

static void want_figure(const json_t *o, size_t i, const char *name, double mean, double spread,
                        const char *second, const char *third)
{
    const json_t *f = json_array_get(json_object_get(o, "figures"), i);
    const json_t *differs = json_object_get(f, "differs");
    assert_string_equal(json_string_value(json_object_get(f, "name")), name);
    assert_true(json_number_value(json_array_get(json_object_get(f, "means"), 2)) == mean);
    assert_true(json_number_value(json_array_get(json_object_get(f, "spreads"), 2)) == spread);
    assert_string_equal(json_string_value(json_array_get(differs, 1)), second);
    assert_string_equal(json_string_value(json_array_get(differs, 2)), third);
}

static void test_figures(void **state)
{
    (void)state;
    json_t *o = three("a");
    check_ok(comparison_figures(o));
    assert_int_equal(json_array_size(json_object_get(o, "figures")), 3); /* no P50 */
    want_figure(o, 0, "fresh.call_ms.mean", 10.5, 1, "same", "lower");
    want_figure(o, 1, "fresh.call_ms.max", 20, 0, "higher", "lower");
    want_figure(o, 2, "fresh.fps", 5, 0, "unknown", "unknown"); /* one run has it */
    json_decref(o);
}

static char *written(void (*write)(const json_t *, FILE *), const json_t *o)
{
    static char out[8192];
    FILE *f = fmemopen(out, sizeof out, "w");
    write(o, f);
    fclose(f);
    return out;
}

static void test_table_and_csv(void **state)
{
    (void)state;
    json_t *o = three("a");
    json_t *run = json_array_get(json_object_get(comparison_result(o, 1), "runs"), 1);
    json_object_del(json_object_get(run, "fresh"), "fps");
    check_ok(comparison_figures(o));
    const char *out = written(comparison_table, o);
    static const char *const rows[] = {
        "window by turns, seed at commit a on 2 x X, dit on cpu, 2 run(s)",
        "      20.500                 21.000    +2.4%=       10.500   -48.8%*\n",
        "      10.000                      -                  5.000   -50.0%?\n"};
    for (size_t i = 0; i < 3; i++) assert_non_null(strstr(out, rows[i]));
    out = written(comparison_csv, o);
    assert_non_null(strstr(out, "seed,fresh.call_ms.mean,6,10.500000,1.000000,lower\n"));
    assert_null(strstr(out, "seed,fresh.fps,10,"));
    json_decref(o);
}

/* Runs of a later turn go behind those of the file, if nothing else has changed. */
static void test_merging(void **state)
{
    (void)state;
    json_t *o = three("a"), *later = three("a"), *other = three("b"), *two;
    check_ok(results_write(scratch_path("c.json"), o));
    check_ok(comparison_merge(later, scratch_path("c.json")));
    assert_true(json_equal(later, o));
    check_fails(comparison_merge(other, scratch_path("c.json")), ERR_DATA, "another commit");
    two = comparison_new("seed", "window");
    check_ok(comparison_add(two, "12", "dit.window=12", result_of("a", 20)));
    check_fails(comparison_merge(two, scratch_path("c.json")), ERR_DATA, "has 3 variants, not 1");
    check_fails(comparison_merge(two, scratch_put("x", "{\"format\": \"longlived bench\"}")),
                ERR_DATA, "not a result");
    json_decref(o);
    json_decref(later);
    json_decref(other);
    json_decref(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_table_and_csv),
        cmocka_unit_test_setup_teardown(test_merging, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
