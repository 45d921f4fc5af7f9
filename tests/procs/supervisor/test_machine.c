/* test_machine.c - what other programs say, and how they fail to: shell scripts in their place. */
#include "procs/supervisor/machine.h"

#include <stdio.h>
#include <sys/stat.h>

#include "tests/scratch.h"

static void program(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/longlived-%s", scratch_dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n%s\n", text);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0700), 0);
}

static void test_device(void **state)
{
    (void)state;
    struct machine_device d;
    want_ok(machine_device(scratch_dir, "cpu", &d));
    assert_int_equal(d.all_mib, 0);
    assert_string_equal(d.text, "cpu");
    want_fails(machine_device(scratch_dir, "gpu", &d), ERR_CONFIG, "device 'gpu'");
    want_fails(machine_device(scratch_dir, "cuda:0", &d), ERR_NONE, "longlived-keeper");

    program("keeper",
            "[ \"$*\" = '--device cuda:3' ] && echo noise >&2 && echo 70 80 NVIDIA X, 13.0");
    want_ok(machine_device(scratch_dir, "cuda:3", &d));
    assert_int_equal(d.free_mib, 70);
    assert_int_equal(d.all_mib, 80);
    assert_string_equal(d.text, "NVIDIA X, 13.0");
    want_ok(machine_device(scratch_dir, "cuda:3", NULL));

    program("keeper", "echo cuda:3: it is broken; exit 69");
    want_fails(machine_device(scratch_dir, "cuda:3", &d), ERR_NONE, "cuda:3: it is broken");
    program("keeper", "kill -9 $$");
    want_fails(machine_device(scratch_dir, "cuda:3", &d), ERR_NONE, "does not answer");
    program("keeper", "echo what?");
    want_fails(machine_device(scratch_dir, "cuda:3", &d), ERR_BUG, "what?");
}

static void test_share(void **state)
{
    (void)state;
    program("keeper", "[ \"$*\" = '--device cuda:0 --peer cuda:1' ] && echo");
    want_ok(machine_share(scratch_dir, "cuda:0", "cuda:1"));
    program("keeper", "yes | head -n 9000; echo no way; exit 69"); /* more than is kept */
    want_fails(machine_share(scratch_dir, "cuda:0", "cuda:1"), ERR_NONE, "y");
}

static void test_need(void **state)
{
    (void)state;
    static struct conf c;
    struct machine_need n = {0};
    conf_default(&c);
    c.dit.layers = 77;
    program("dit", "[ \"$*\" = --need ] && grep -q 'layers *= *77' && echo 1 22 333");
    want_ok(machine_need(scratch_dir, "dit", &c, &n));
    assert_int_equal(n.weights, 1);
    assert_int_equal(n.state, 22);
    assert_int_equal(n.scratch, 333);
    program("dit", "echo no memory; exit 75");
    want_fails(machine_need(scratch_dir, "dit", &c, &n), ERR_NONE, "no memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_device, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_share, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_need, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
