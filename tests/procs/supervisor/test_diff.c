/* test_diff.c - what is a difference, and what only how runs differ. */
#include "procs/supervisor/diff.h"

#include "tests/scratch.h"

static void test_verdicts(void **state)
{
    (void)state;
    const double a[] = {10, 12, 11}, near[] = {12, 13}, low[] = {8.5, 8.9}, high[] = {14, 13.5};
    const double wide[] = {10, 17}, edge[] = {13, 13};
    double spread;
    assert_int_equal(diff_of(a, 3, a, 3, &spread), DIFF_SAME);
    assert_true(spread == 2);
    assert_int_equal(diff_of(a, 3, near, 2, NULL), DIFF_SAME);
    assert_int_equal(diff_of(a, 3, edge, 2, NULL), DIFF_SAME); /* by as much as a's runs */
    assert_int_equal(diff_of(a, 3, low, 2, NULL), DIFF_LOWER);
    assert_int_equal(diff_of(a, 3, high, 2, NULL), DIFF_HIGHER);
    assert_int_equal(diff_of(low, 2, wide, 2, &spread), DIFF_SAME); /* b's runs differ by more */
    assert_true(spread == 7);
    assert_int_equal(diff_of(a, 1, high, 2, NULL), DIFF_UNKNOWN);
    assert_int_equal(diff_of(a, 3, high, 1, NULL), DIFF_UNKNOWN);
}

static json_t *file_of(const char *protocol, double x, double y, double step)
{
    return json_pack("{s:s, s:[{s:f, s:{s:f, s:{s:i, s:f, s:f}}}, {s:{s:f, s:{s:i, s:f, s:f}}}]}",
                     "protocol", protocol, "runs", "load", 3.0, "fresh", "ss_mean", x, "call_ms",
                     "n", 9, "mean", x, "std", 5.0, "fresh", "fps", y, "call_ms", "n", 9, "mean",
                     x + step, "std", 6.0);
}

static void test_rows(void **state)
{
    (void)state;
    char *out = NULL;
    size_t n = 0;
    json_t *a = file_of("seed", 100, 20, 1), *b = file_of("seed", 110, 21, 2);
    FILE *f = open_memstream(&out, &n);
    check_ok(diff_print(a, b, f));
    fclose(f);
    const char *row = strstr(out, "\nfresh.call_ms.mean");
    assert_non_null(row);
    assert_non_null(strstr(row, "100.500      111.000    +10.4 %      2.000  higher\n"));
    row = strstr(out, "\nfresh.fps");
    assert_non_null(row); /* one run has it */
    assert_non_null(strstr(row, "20.000       21.000     +5.0 %      0.000  one run: not known\n"));
    assert_null(strstr(out, "ss_mean"));
    assert_null(strstr(out, "std"));
    assert_null(strstr(out, "load"));
    free(out);
    json_t *paper = file_of("paper", 1, 1, 1);
    check_fails(diff_print(a, paper, stdout), ERR_DATA, "protocol seed, the other of paper");
    json_decref(a);
    json_decref(b);
    json_decref(paper);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
