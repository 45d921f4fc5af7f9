/* test_probe.c - a device is tried, and memory is mapped by another process: this program again. */
#include "procs/keeper/probe.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "tests/check.h"

static void test_device(void **state)
{
    (void)state;
    char line[200];
    assert_ok(probe_device("cpu", line, sizeof line));
    assert_string_equal(line, "0 0 cpu");
    assert_int_equal(probe_device("gpu", line, sizeof line), ERR_CONFIG);
}

static int n_files(void)
{
    int n = 0;
    DIR *d = opendir("/dev/shm");
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) n += strstr(f->d_name, "longlived-probe-") != NULL;
    closedir(d);
    return n;
}

static void test_share(void **state)
{
    (void)state;
    assert_ok(probe_share("cpu", "cpu"));
    assert_int_equal(probe_share("cpu", "nowhere"), ERR_REFUSED);
    assert_non_null(strstr(err_text(), "device 'nowhere'"));
    assert_int_equal(probe_share("nowhere", "cpu"), ERR_CONFIG);
    assert_int_equal(n_files(), 0);
}

int main(int argc, char **argv)
{
    log_open("test");
    if (argc == 3 && strcmp(argv[1], "--map") == 0) {
        const err_t e = probe_map(argv[2]);
        if (e != OK) printf("%s\n", err_text());
        return e == OK ? 0 : 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_device), cmocka_unit_test(test_share)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
