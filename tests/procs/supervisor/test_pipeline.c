/* test_pipeline.c - which configuration and directory a command means, and a pipeline's whole life.
 */
#include "procs/supervisor/pipeline.h"

#include <signal.h>
#include <sys/stat.h>

#include "common/dev.h"

#include "tests/procs/supervisor/fake.h"

static struct conf conf;
static struct args args;
static struct pipeline p;

static int open_all(void **state)
{
    fake_conf(&conf);
    args = (struct args){.cmd = CMD_UP, .seed = -1, .status_fd = -1};
    return scratch_open(state);
}

static void test_whose_configuration(void **state)
{
    (void)state;
    /* No demo.ini beside it, wherever scratch lies. */
    check_fails(pipeline_conf(&conf, &args, scratch_path("no/bin")), ERR_USAGE, "up: -c FILE?");
    args.conf = scratch_put("a.ini", "[run]\nfps = 25\n");
    args.sets[args.n_sets++] = "run.seed=7";
    check_ok(pipeline_conf(&conf, &args, scratch_dir));
    assert_int_equal(conf.run.fps, 25);
    assert_int_equal(conf.run.seed, 7);
    args.conf = "/nonexistent.ini";
    check_fails(pipeline_conf(&conf, &args, scratch_dir), ERR_NOINPUT, "/nonexistent.ini");
}

static void test_which_directory(void **state)
{
    (void)state;
    char run[RUNDIR_PATH_MAX];
    check_ok(pipeline_run(run, &args, scratch_dir, "main"));
    assert_non_null(strstr(run, "/main"));
    args.conf = scratch_put("a.ini", "[run]\ndir = /tmp/elsewhere\n");
    check_ok(pipeline_run(run, &args, scratch_dir, "main"));
    assert_string_equal(run, "/tmp/elsewhere");
    args.run = "/tmp/here";
    check_ok(pipeline_run(run, &args, scratch_dir, "main"));
    assert_string_equal(run, "/tmp/here");
}

static void test_devices_are_looked_for(void **state)
{
    (void)state;
    check_ok(conf_set(&conf, "place.text=cpu"));
    check_ok(conf_set(&conf, "place.vae=cpu"));
    check_ok(conf_set(&conf, "place.dit=cuda:0"));
    /* scratch_dir has no programs: whoever cannot be asked says no. */
    check_fails(pipeline_check(&conf, scratch_dir), ERR_NONE, "place.dit = cuda:0");
    check_ok(conf_set(&conf, "place.dit=cpu"));
    check_ok(pipeline_check(&conf, scratch_dir)); /* place.clean is empty: no device at all */
    check_ok(conf_set(&conf, "place.clean=cuda:1"));
    check_fails(pipeline_check(&conf, scratch_dir), ERR_NONE, "place.clean = cuda:1");
    check_ok(conf_set(&conf, "place.clean=cpu"));
    check_ok(pipeline_check(&conf, scratch_dir));
}

static void test_a_life(void **state)
{
    (void)state;
    char path[RUNDIR_PATH_MAX + 16];
    struct conf read;
    fake_programs();
    check_ok(pipeline_start(&p, &args, &conf, scratch_path("run"), scratch_dir, -1));
    for (int i = 0; i < 1000 && !pipeline_is_ready(&p); i++) pipeline_step(&p, 20);
    assert_true(pipeline_is_ready(&p));
    snprintf(path, sizeof path, "%s/config.ini", p.run);
    check_ok(conf_load(&read, path, NULL, 0)); /* what the stages read */
    assert_string_equal(read.run.dir, p.run);
    assert_int_equal(read.supervisor.stop_s_max, 1);
    assert_false(pipeline_is_gone(&p));
    raise(SIGTERM);
    pipeline_step(&p, 20);
    assert_int_equal(pipeline_signals(&p), 1);
    check_ok(pipeline_end(&p));
    assert_int_not_equal(access(scratch_path("run"), F_OK), 0);
}

static void test_its_own_end_is_told(void **state)
{
    (void)state;
    fake_programs();
    scratch_put("text.before", "echo 'level=error stage=text ev=exit status=66 msg=\"no weights\"' "
                               ">&2; exit 66\n");
    check_ok(pipeline_start(&p, &args, &conf, scratch_path("run"), scratch_dir, -1));
    for (int i = 0; i < 1000 && !pipeline_is_gone(&p); i++) pipeline_step(&p, 20);
    check_fails(pipeline_end(&p), ERR_NOINPUT, "text: no weights");
    assert_int_not_equal(access(scratch_path("run"), F_OK), 0);
}

static void test_a_directory_in_use_is_left_alone(void **state)
{
    (void)state;
    struct rundir dir;
    check_ok(rundir_open(&dir, scratch_path("run")));
    check_fails(pipeline_start(&p, &args, &conf, scratch_path("run"), scratch_dir, -1), ERR_RUNNING,
                "already running");
    assert_int_equal(access(scratch_path("run/log"), F_OK), 0);
    check_fails(pipeline_attach(&p, scratch_path("run"), scratch_dir), ERR_NOINPUT, "config.ini");
    rundir_close(&dir, false);
}

static void test_shared_objects_beside_the_programs(void **state)
{
    (void)state;
    char dir[300];
    pipeline_lib_dir("/x/build/bin", dir, sizeof dir);
    assert_string_equal(dir, "/x/build/lib");
    pipeline_lib_dir("/x/build/san-bin", dir, sizeof dir);
    assert_string_equal(dir, "/x/build/san-lib");
    pipeline_lib_dir("/opt/longlived", dir, sizeof dir);
    assert_string_equal(dir, "/opt/longlived/../lib");
    check_fails(pipeline_check_mp4("/nonexistent/bin"), ERR_NONE, "libavcodec-dev");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whose_configuration, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_which_directory, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_devices_are_looked_for, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_life, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_its_own_end_is_told, open_all, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_directory_in_use_is_left_alone, open_all,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_shared_objects_beside_the_programs, open_all,
                                        scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
