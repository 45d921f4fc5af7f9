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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_run_is_a_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
