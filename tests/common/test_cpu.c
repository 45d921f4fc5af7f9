/* test_cpu.c - the machine's name, against the file that it is from. */
#include "common/cpu.h"

#include <stdbool.h>

#include "tests/scratch.h"

static void test_the_name_is_the_file_s(void **state)
{
    (void)state;
    char name[96], want[128], line[256];
    bool is_there = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    cpu_name(name, sizeof name);
    assert_true(name[0] != '\0' && !strpbrk(name, "\"\\\n"));
    snprintf(want, sizeof want, ": %s", name);
    while (f && fgets(line, sizeof line, f))
        is_there |= strncmp(line, "model name", 10) == 0 && strstr(line, want);
    if (f) fclose(f);
    assert_true(is_there || strcmp(name, "unknown") == 0);
    char shorter[5];
    cpu_name(shorter, sizeof shorter);
    assert_int_equal(strlen(shorter), 4);
    assert_memory_equal(shorter, name, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_name_is_the_file_s)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
