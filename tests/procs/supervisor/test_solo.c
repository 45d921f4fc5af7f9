/* test_solo.c - what bench-stage says, and how it fails to: shell scripts in its place. */
#include "procs/supervisor/solo.h"

#include <stdio.h>
#include <sys/stat.h>

#include "tests/scratch.h"

static struct conf c;
static json_t *out;

static int n_ticks;

static void tick(void *self)
{
    assert_ptr_equal(self, &n_ticks);
    n_ticks++;
}

static void program(const char *text)
{
    FILE *f = fopen(scratch_path("bench-stage"), "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n%s\n", text);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(scratch_path("bench-stage"), 0700), 0);
}

static void test_an_object(void **state)
{
    (void)state;
    conf_default(&c);
    c.dit.layers = 77;
    program("[ \"$*\" = 'dit 11' ] && grep -q 'layers *= *77' && echo '{\"sync_ms\": 3}'");
    want_ok(solo_run(scratch_dir, "dit", &c, 11, tick, &n_ticks, &out));
    assert_int_equal(json_integer_value(json_object_get(out, "sync_ms")), 3);
    assert_true(n_ticks > 0);
    json_decref(out);
}

static void test_failures(void **state)
{
    (void)state;
    conf_default(&c);
    want_fails(solo_run("/nowhere", "dit", &c, 11, tick, &n_ticks, &out), ERR_NOINPUT,
               "not built: make benches");
    program("echo noise >&2; echo 'longlived: cuda:7: this machine has 1 GPUs' >&2; exit 69");
    want_fails(solo_run(scratch_dir, "dit", &c, 11, tick, &n_ticks, &out), ERR_NONE,
               "cuda:7: this machine has 1");
    program("echo 'it broke' >&2; exit 1");
    want_fails(solo_run(scratch_dir, "vae", &c, 11, tick, &n_ticks, &out), ERR_BUG,
               "bench-stage vae ends with status 0x100: it broke");
    program("kill -9 $$");
    want_fails(solo_run(scratch_dir, "vae", &c, 11, tick, &n_ticks, &out), ERR_BUG,
               "ends with status 0x9");
    program("echo '{\"a\": '");
    want_fails(solo_run(scratch_dir, "vae", &c, 11, tick, &n_ticks, &out), ERR_BUG,
               "what it prints");
    program("echo '[]'");
    want_fails(solo_run(scratch_dir, "vae", &c, 11, tick, &n_ticks, &out), ERR_BUG,
               "what it prints");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_object, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_failures, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
