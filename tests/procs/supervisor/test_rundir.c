/* test_rundir.c - the run directory: held once, emptied only if ours, and gone afterwards. */
#include "procs/supervisor/rundir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/scratch.h"

static struct rundir r;

static void put(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", scratch_dir, name);
    const int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static bool is_there(const char *name)
{
    return access(scratch_path(name), F_OK) == 0;
}

static void test_paths(void **state)
{
    (void)state;
    char path[RUNDIR_PATH_MAX], want[RUNDIR_PATH_MAX], name[200] = "/";
    check_ok(rundir_path(path, "", "main"));
    snprintf(want, sizeof want, "/dev/shm/longlived-%u/main", (unsigned)getuid());
    assert_string_equal(path, want);
    check_ok(rundir_path(path, "/tmp/x//", "main"));
    assert_string_equal(path, "/tmp/x");
    assert_int_equal(chdir(scratch_dir), 0);
    check_ok(rundir_path(path, "x", "main"));
    assert_string_equal(path, scratch_path("x"));
    assert_int_equal(chdir("/"), 0);
    memset(name + 1, 'n', 120);
    check_fails(rundir_path(path, name, "main"), ERR_CONFIG, "longer than 80 bytes");
}

static void test_opens_and_leaves_nothing(void **state)
{
    (void)state;
    struct stat st;
    check_ok(rundir_open(&r, scratch_path("run")));
    assert_int_equal(stat(scratch_path("run"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_true(is_there("run/longlived.run") && is_there("run/log"));
    put("run/ledger");
    put("run/log/dit.log");
    assert_int_equal(symlink("/etc", scratch_path("run/link")), 0);
    rundir_close(&r, false);
    assert_false(is_there("run"));
    assert_true(access("/etc/passwd", F_OK) == 0);
}

static void test_logs_and_ledger_are_kept_on_demand(void **state)
{
    (void)state;
    check_ok(rundir_open(&r, scratch_path("run")));
    put("run/ledger");
    put("run/config.ini");
    put("run/region.kv.0");
    put("run/log/dit.log");
    rundir_close(&r, true);
    assert_true(is_there("run/log/dit.log"));
    assert_true(is_there("run/ledger") && is_there("run/config.ini")); /* for a replay */
    assert_false(is_there("run/region.kv.0") || is_there("run/lock"));
    check_ok(rundir_open(&r, scratch_path("run"))); /* and the next start removes them */
    assert_false(is_there("run/log/dit.log") || is_there("run/ledger"));
    rundir_close(&r, false);
}

static void test_held_once(void **state)
{
    (void)state;
    struct rundir other;
    char words[64];
    check_ok(rundir_open(&r, scratch_path("run")));
    put("run/ledger");
    snprintf(words, sizeof words, "already running in %s/run, pid %d", scratch_dir, (int)getpid());
    check_fails(rundir_open(&other, scratch_path("run")), ERR_RUNNING, words);
    assert_true(is_there("run/ledger"));
    assert_int_equal(rundir_holder(scratch_path("run")), getpid());
    rundir_close(&r, false);
    assert_int_equal(rundir_holder(scratch_path("run")), 0);
}

static void test_a_stale_one_is_reused(void **state)
{
    (void)state;
    const pid_t pid = fork();
    if (pid == 0) {
        if (rundir_open(&r, scratch_path("run")) == OK) put("run/ledger");
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    assert_true(is_there("run/ledger"));
    assert_int_equal(rundir_holder(scratch_path("run")), 0);
    check_ok(rundir_open(&r, scratch_path("run")));
    assert_false(is_there("run/ledger"));
    rundir_close(&r, false);
}

/* Prepared for another supervisor: emptied by the next one, but not while its keeper lives. */
static void test_prepared_for_others(void **state)
{
    (void)state;
    struct rundir other;
    check_ok(rundir_open(&r, scratch_path("run")));
    assert_false(rundir_is_prepared(scratch_path("run")));
    check_ok(rundir_prepared(&r));
    rundir_close(&r, false); /* let go of already */
    assert_true(rundir_is_prepared(scratch_path("run")));
    assert_int_equal(rundir_holder(scratch_path("run")), 0);
    put("run/keeper.lock");
    const int fd = open(scratch_path("run/keeper.lock"), O_RDWR);
    assert_int_equal(write(fd, "77\n", 3), 3);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    check_fails(rundir_open(&other, scratch_path("run")), ERR_RUNNING, "keeper 77");
    assert_true(is_there("run/keeper.lock"));
    close(fd);
    check_ok(rundir_open(&other, scratch_path("run")));
    assert_false(is_there("run/keeper.lock"));
    assert_false(rundir_is_prepared(scratch_path("run")));
    rundir_close(&other, false);
}

static void test_what_is_not_ours_stays(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path("mine"), 0755), 0);
    put("mine/thesis");
    check_fails(rundir_open(&r, scratch_path("mine")), ERR_CONFIG, "is not one of longlived's");
    assert_true(is_there("mine/thesis"));
    assert_false(is_there("mine/lock") || is_there("mine/longlived.run"));
    assert_int_equal(unlink(scratch_path("mine/thesis")), 0);

    check_ok(rundir_open(&r, scratch_path("mine"))); /* empty: may be used */
    rundir_close(&r, false);
    assert_int_equal(mkdir(scratch_path("mine"), 0755), 0);
    assert_int_equal(symlink(scratch_path("mine"), scratch_path("link")), 0);
    check_fails(rundir_open(&r, scratch_path("link")), ERR_CONFIG, "symbolic link");
    put("file");
    check_fails(rundir_open(&r, scratch_path("file")), ERR_CONFIG, "not a directory");
    check_fails(rundir_open(&r, scratch_path("no/where")), ERR_CONFIG, "No such file");
    assert_int_equal(rmdir(scratch_path("mine")), 0);
    if (getuid() != 0) return;
    assert_int_equal(mkdir(scratch_path("theirs"), 0755), 0);
    assert_int_equal(chown(scratch_path("theirs"), 12345, 12345), 0);
    check_fails(rundir_open(&r, scratch_path("theirs")), ERR_CONFIG, "belongs to uid 12345");
    assert_int_equal(rmdir(scratch_path("theirs")), 0);
}

/* Many take and leave the same directory: one at a time, and nobody fails but for that. */
static void test_a_crowd(void **state)
{
    (void)state;
    enum { CROWD = 4, TIMES = 200 };
    pid_t pids[CROWD];
    for (int i = 0; i < CROWD; i++) {
        pids[i] = fork();
        if (pids[i] != 0) continue;
        for (int k = 0; k < TIMES; k++) {
            const err_t e = rundir_open(&r, scratch_path("run"));
            if (e == ERR_RUNNING || e == ERR_AGAIN) continue;
            if (e != OK) {
                fprintf(stderr, "%s\n", err_text());
                _exit(1);
            }
            const int fd = open(scratch_path("run/alone"), O_WRONLY | O_CREAT | O_EXCL, 0600);
            if (fd < 0) _exit(2);
            close(fd);
            rundir_close(&r, false);
        }
        _exit(0);
    }
    for (int i = 0; i < CROWD; i++) {
        int status;
        waitpid(pids[i], &status, 0);
        assert_int_equal(status, 0);
    }
    assert_false(is_there("run/alone"));
    rmdir(scratch_path("run"));
}

static void test_a_second_lock(void **state)
{
    (void)state;
    int fd = -1, other = -1;
    check_ok(rundir_open(&r, scratch_path("run")));
    check_ok(rundir_lock_file(scratch_path("run"), "job.lock", &fd));
    check_fails(rundir_lock_file(scratch_path("run"), "job.lock", &other), ERR_AGAIN, "at work");
    close(fd);
    check_ok(rundir_lock_file(scratch_path("run"), "job.lock", &other));
    close(other);
    rundir_close(&r, false);
    check_fails(rundir_lock_file(scratch_path("run"), "job.lock", &fd), ERR_NONE, "job.lock");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paths, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_opens_and_leaves_nothing, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_logs_and_ledger_are_kept_on_demand, scratch_open,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(test_held_once, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_stale_one_is_reused, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_prepared_for_others, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_what_is_not_ours_stays, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_crowd, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_a_second_lock, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
