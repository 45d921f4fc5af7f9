/* test_report.c - results as people see them. */
#include "procs/supervisor/report.h"

#include "tests/scratch.h"

static const char text[] =
    "{\"protocol\": \"seed\", \"commit\": \"abc\","
    " \"machine\": {\"cpu\": \"X\", \"cpus\": 2, \"dit\": \"cpu\"},"
    " \"runs\": [{\"load\": 9, \"old_ms\": {\"n\": 1, \"mean\": 1}},"
    "  {\"load\": 0.5, \"fresh\": {\"ss_mean\": 5.5, \"fps\": 4.25, \"meets_40ms\": true,"
    "   \"call_ms\": {\"n\": 99, \"mean\": 735.6, \"std\": 1, \"p50\": 2, \"p95\": 3, \"p99\": 4,"
    "    \"max\": 749.4, \"min\": 7, \"values\": []}}}]}";

static char *written(void (*write)(const json_t *, FILE *))
{
    static char out[16384];
    json_t *file = json_loads(text, 0, NULL);
    FILE *f = fmemopen(out, sizeof out, "w");
    write(file, f);
    fclose(f);
    json_decref(file);
    return out;
}

static void test_the_newest_run_is_a_table(void **state)
{
    (void)state;
    const char *out = written(report_table);
    assert_non_null(strstr(out, "seed at commit abc on 2 x X, dit on cpu, load 0.5\n"));
    assert_non_null(
        strstr(out, "fresh.call_ms                              99    735.600     1.000"));
    assert_non_null(strstr(out, "fresh.fps                              4.250\n"));
    assert_non_null(strstr(out, "fresh.meets_40ms                       yes\n"));
    assert_null(strstr(out, "ss_mean")); /* the row says it */
    assert_null(strstr(out, "old_ms"));
}

static void test_ops_of_a_stage_are_rows(void **state)
{
    (void)state;
    static char out[4096];
    json_t *file =
        json_pack("{s:s, s:s, s:{s:s, s:i, s:s}, s:[{s:f, s:{s:{s:{s:[{s:s, s:s, s:i, s:f, s:f, "
                  "s:f, s:f}]}}}}"
                  "]}",
                  "protocol", "stage", "commit", "abc", "machine", "cpu", "X", "cpus", 2, "dit",
                  "cpu", "runs", "load", 0.5, "dit", "passes", "step", "rows", "op", "linear",
                  "shape", "9x8x7", "n", 30, "ms", 2.0, "floor_ms", 0.5, "gflop", 4.0, "mb", 6.0);
    FILE *f = fmemopen(out, sizeof out, "w");
    report_table(file, f);
    fclose(f);
    assert_non_null(strstr(out,
                           "dit.step linear 9x8x7                      30      2.000      4.000"
                           "      6.000     0.5000    25 %\n"));
    json_decref(file);
}

static void test_every_run_has_its_rows(void **state)
{
    (void)state;
    assert_string_equal(written(report_csv),
                        "protocol,commit,run,series,n,mean,std,p50,p95,p99,max,min\n"
                        "seed,abc,0,old_ms,1,1.000000,0.000000,0.000000,0.000000,0.000000,"
                        "0.000000,0.000000\n"
                        "seed,abc,1,fresh.call_ms,99,735.600000,1.000000,2.000000,3.000000,"
                        "4.000000,749.400000,7.000000\n");
}

/* Whatever a name says, it ends no element: what is between the tags is the file. */
static void test_a_page_holds_the_file(void **state)
{
    (void)state;
    char *page = NULL;
    size_t n = 0;
    json_t *file = json_loads(text, 0, NULL);
    json_object_set_new(file, "commit", json_string("</script><script>alert(1)</script>"));
    FILE *f = open_memstream(&page, &n);
    check_ok(report_html(file, f));
    fclose(f);
    static const char tag[] = "<script id=\"data\" type=\"application/json\">";
    char *begin = strstr(page, tag) + sizeof tag - 1, *end = strstr(begin, "</script>");
    json_t *back = json_loadb(begin, (size_t)(end - begin), 0, NULL);
    assert_true(json_equal(file, back));
    assert_non_null(strstr(end, "</html>"));
    assert_null(strstr(page, "@DATA@"));
    json_decref(file);
    json_decref(back);
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_run_is_a_table),
        cmocka_unit_test(test_ops_of_a_stage_are_rows),
        cmocka_unit_test(test_every_run_has_its_rows),
        cmocka_unit_test(test_a_page_holds_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
