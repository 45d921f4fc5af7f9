/* test_stage.c - what of the shell needs no keeper: arguments, a run directory that is not there,
 * the durations of units. The rest is shown end to end. */
#include "procs/stage.h"

#include "tests/scratch.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "common/clock.h"

static err_t no_open(struct stage *st, void **self)
{
    (void)st;
    (void)self;
    abort(); /* nothing here may come so far */
}

static err_t no_step(struct stage *st, void *self, bool *did_work, bool *is_done)
{
    (void)st;
    (void)self;
    (void)did_work;
    (void)is_done;
    abort();
}

static void no_close(void **self)
{
    (void)self;
    abort();
}

/* Exit status of a stage with these arguments, in a process of its own; its log goes to `log`. */
static int run(const char *const *args, const char *log)
{
    static const struct stage_def def = {
        .writer = WRITER_VAE, .open = no_open, .step = no_step, .close = no_close};
    char *argv[8] = {(char *)(uintptr_t) "longlived-vae"};
    int argc = 1, status = 0;
    for (; args[argc - 1]; argc++) argv[argc] = (char *)(uintptr_t)args[argc - 1];
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, STDERR_FILENO);
        setenv("OMP_WAIT_POLICY", "passive", 1); /* else the stage begins by exec of itself */
        _exit(stage_main(argc, argv, &def));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void check_run(const char *const *args, int status, const char *words)
{
    char log[1024] = {0};
    const char *path = scratch_path("log");
    assert_int_equal(run(args, path), status);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, log, sizeof log - 1) > 0);
    close(fd);
    if (!strstr(log, "stage=vae ev=exit") || !strstr(log, words))
        fail_msg("\"%s\" is not in: %s", words, log);
}

static void test_bad_arguments_give_2(void **state)
{
    (void)state;
    static const char *const bad[][5] = {
        {NULL},
        {"--bogus", NULL},
        {"--run", NULL},
        {"--run", "/tmp", "--ready-fd", NULL},
        {"--run", "/tmp", "--ready-fd", "x", NULL},
        {"--run", "/tmp", "--ready-fd", "-1", NULL},
        {"--run", "/tmp", "--ready-fd", "65536", NULL},
        {"--ready-fd", "3", NULL},
    };
    static const char *const words[] = {"--run DIR is missing",
                                        "--bogus",
                                        "--run",
                                        "--ready-fd",
                                        "--ready-fd x",
                                        "--ready-fd -1",
                                        "--ready-fd 65536",
                                        "--run DIR is missing"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) check_run(bad[i], 2, words[i]);
}

static void test_a_missing_run_directory_gives_66(void **state)
{
    (void)state;
    check_run((const char *const[]){"--run", "/nowhere/at/all", NULL}, 66, "/nowhere/at/all");
    check_run((const char *const[]){"--run", scratch_dir, NULL}, 66, "config.ini");
}

static void test_a_bad_configuration_gives_78(void **state)
{
    (void)state;
    scratch_put("config.ini", "[dit]\nwindows = 12\n");
    check_run((const char *const[]){"--run", scratch_dir, NULL}, 78, "dit.window");
}

static void test_units_are_timed_and_beaten(void **state)
{
    (void)state;
    static struct ledger_spans spans;
    struct ledger_head head = {0};
    struct stage st = {.head = &head, .spans = &spans};
    conf_default(&st.conf);
    uint64_t sum = 0;
    for (uint64_t i = 1; i <= 3; i++) {
        const int64_t before = now_ns();
        stage_unit_begin(&st, PHASE_DECODE, 40 + i);
        assert_int_equal(head.phase, PHASE_DECODE);
        assert_int_equal(head.unit, 40 + i);
        assert_true((int64_t)head.beat_ns >= before && (int64_t)head.beat_ns <= now_ns());
        sleep_ns((int64_t)i * NS_PER_MS);
        stage_unit_end(&st, 7);
        const struct ledger_span s = spans.ring[i - 1];
        assert_int_equal(spans.n, i);
        assert_true(s.began_ns >= before && s.ended_ns <= now_ns());
        assert_true(s.ended_ns - s.began_ns >= (int64_t)i * NS_PER_MS);
        assert_true(s.unit == (int64_t)(40 + i) && s.phase == PHASE_DECODE && s.part == 7);
        assert_true(head.unit_ns >= i * NS_PER_MS);
        assert_true((int64_t)head.unit_ns <= now_ns() - before);
        sum += head.unit_ns;
        assert_int_equal(head.unit_ns_sum, sum);
        assert_int_equal(head.n_units, i);
    }
}

/* A stage that hangs is ended by its own alarm: later than the supervisor would. */
static void test_a_beat_arms_the_alarm(void **state)
{
    (void)state;
    struct ledger_head head = {0};
    struct stage st = {.head = &head};
    conf_default(&st.conf);
    st.conf.supervisor.beat_s_max = 100;
    st.conf.supervisor.ready_s_max = 900;
    stage_beat(&st, PHASE_IDLE, 0);
    assert_in_range(alarm(0), 199, 200);
    stage_beat(&st, PHASE_OPENING, 0);
    assert_in_range(alarm(0), 899, 900);
}

static void test_pieces_of_a_start(void **state)
{
    (void)state;
    double lease_ms, model_ms;
    struct stage st = {.began_ns = now_ns(), .piece_ns = now_ns()};
    sleep_ns(NS_PER_MS);
    stage_piece(&st, "lease");
    stage_piece(&st, "model");
    assert_int_equal(sscanf(st.pieces, " lease_ms=%lf model_ms=%lf", &lease_ms, &model_ms), 2);
    assert_true(lease_ms >= 0.9 && model_ms < lease_ms);
    for (int i = 0; i < 50; i++) stage_piece(&st, "more"); /* than there is room for */
    assert_in_range(strlen(st.pieces), 100, sizeof st.pieces - 1);
}

static int end_alarm(void **state)
{
    alarm(0);
    return scratch_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_arguments_give_2),
        cmocka_unit_test(test_a_missing_run_directory_gives_66),
        cmocka_unit_test(test_a_bad_configuration_gives_78),
        cmocka_unit_test(test_units_are_timed_and_beaten),
        cmocka_unit_test(test_a_beat_arms_the_alarm),
        cmocka_unit_test(test_pieces_of_a_start),
    };
    return cmocka_run_group_tests(tests, scratch_open, end_alarm);
}
