/* test_bells.c - bells between sockets of one process, and of two. */
#include "ipc/bells.h"

#include "tests/scratch.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/clock.h"

enum { SOON_MS = 2000 };

/* True if something ended the wait before its time. */
static bool wakes(struct bells *b, int32_t wait_ms)
{
    const int64_t began = now_ns();
    bells_wait(b, wait_ms);
    return now_ns() - began < (int64_t)(wait_ms - 1) * NS_PER_MS;
}

static void ring_is_heard(struct bells *from, struct bells *to, enum ledger_writer to_name)
{
    bells_ring(from, to_name);
    assert_true(wakes(to, SOON_MS));
}

/* A socket that sends what no stage would. */
static int raw_socket(const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    snprintf(at.sun_path, sizeof at.sun_path, "%s", scratch_path(name));
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void test_bell_wakes(void **state)
{
    (void)state;
    struct bells *dit = NULL, *vae = NULL;
    struct stat st;
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    assert_int_equal(stat(scratch_path("bell.vae"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    ring_is_heard(dit, vae, WRITER_VAE);
    ring_is_heard(vae, dit, WRITER_DIT);
    assert_false(wakes(vae, 50)); /* the queue is empty again */
    for (int i = 0; i < 20; i++) {
        bells_ring(dit, WRITER_VAE);
        const int64_t began = now_ns();
        assert_true(wakes(vae, SOON_MS));
        assert_true(now_ns() - began < 100 * NS_PER_MS);
    }
    for (int i = 0; i < 1000; i++) bells_ring(dit, WRITER_VAE); /* more than fit */
    sleep_ns(50 * NS_PER_MS);
    for (int i = 0; i < 100 && wakes(vae, 20); i++) continue;
    assert_false(wakes(vae, 20));
    bells_ring(dit, WRITER_DIT); /* ourselves: nothing */
    assert_int_equal(bells_dropped(vae), 0);
    bells_close(&vae);
    bells_close(&dit);
    assert_null(dit);
    bells_close(&dit);
    bells_close(NULL);
}

/* What is rung while nobody is there reaches no successor. */
static void test_bell_is_lost_when_nobody_is_there(void **state)
{
    (void)state;
    struct bells *dit = NULL, *vae = NULL;
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    for (int i = 0; i < 10; i++) bells_ring(dit, WRITER_VAE);
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    assert_false(wakes(vae, 100));
    ring_is_heard(dit, vae, WRITER_VAE);

    bells_close(&vae);
    sleep_ns(50 * NS_PER_MS);
    const int64_t began = now_ns();
    for (int i = 0; i < 1000; i++) bells_ring(dit, WRITER_VAE);
    assert_true(now_ns() - began < 100 * NS_PER_MS);
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    assert_false(wakes(vae, 100));
    ring_is_heard(dit, vae, WRITER_VAE);
    bells_close(&vae);
    bells_close(&dit);
}

static void test_garbage_is_dropped_and_counted(void **state)
{
    (void)state;
    static const char bell[] = "\x83\xa1v\x01\xa1t\xa4"
                               "bell\xa4"
                               "from\x01";
    static const char finish[] = "\x83\xa1v\x01\xa1t\xa6"
                                 "finish\xa7request\x01";
    static const uint8_t big[65000];
    struct bells *vae = NULL, *dit = NULL;
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    const int s = raw_socket("bell.vae");
    assert_int_equal(send(s, "garbage", 7, 0), 7);
    assert_int_equal(send(s, "", 0, 0), 0);
    assert_int_equal(send(s, bell, sizeof bell, 0), sizeof bell); /* a byte after its end */
    assert_int_equal(send(s, big, sizeof big, 0), sizeof big);
    assert_int_equal(send(s, finish, sizeof finish - 1, 0), sizeof finish - 1);
    bells_wait(vae, SOON_MS);
    assert_int_equal(bells_dropped(vae), 5);
    assert_int_equal(send(s, bell, sizeof bell - 1, 0), sizeof bell - 1);
    assert_true(wakes(vae, SOON_MS));
    assert_int_equal(bells_dropped(vae), 5);
    bells_drop(vae);
    assert_int_equal(bells_dropped(vae), 6);
    ring_is_heard(dit, vae, WRITER_VAE);
    close(s);
    bells_close(&dit);
    bells_close(&vae);
}

/* More than any queue holds, faster than they are read: the ringer never waits. */
static void test_flood(void **state)
{
    (void)state;
    struct bells *vae = NULL, *dit = NULL;
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    const int s = raw_socket("bell.vae");
    uint64_t n_sent = 0;
    while (send(s, "x", 1, MSG_DONTWAIT) == 1) n_sent++;
    assert_true(n_sent > 0);
    bells_ring(dit, WRITER_VAE); /* lost */
    bells_wait(vae, SOON_MS);
    assert_int_equal(bells_dropped(vae), n_sent);
    ring_is_heard(dit, vae, WRITER_VAE);
    close(s);
    bells_close(&dit);
    bells_close(&vae);
}

static void test_watched_fd_wakes(void **state)
{
    (void)state;
    struct bells *vae = NULL;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    bells_watch(vae, fds[0]);
    assert_false(wakes(vae, 50));
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_true(wakes(vae, SOON_MS));
    bells_watch(vae, -1);
    assert_false(wakes(vae, 50));
    bells_close(&vae);
    close(fds[0]);
    close(fds[1]);
}

static void test_name_too_long(void **state)
{
    (void)state;
    struct bells *b = NULL;
    char dir[200];
    memset(dir, 'x', sizeof dir);
    dir[0] = '/', dir[107 - 8] = '\0'; /* with "/bell.vae" 108 bytes */
    want_fails(bells_open(&b, dir, WRITER_VAE), ERR_CONFIG, "at most 107");
    want_fails(bells_open(&b, "/nonexistent", WRITER_VAE), ERR_WRITE, "bind");
    assert_null(b);
}

static void ring_back(const char *dir)
{
    struct bells *vae = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failing test ends no child */
    if (bells_open(&vae, dir, WRITER_VAE) != OK) _exit(1);
    for (;;)
        if (wakes(vae, 1000)) bells_ring(vae, WRITER_DIT);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* There and back between two processes, and what that takes. */
static void test_two_processes(void **state)
{
    (void)state;
    enum { ROUNDS = 400 };
    static int64_t took[ROUNDS];
    struct bells *dit = NULL;
    const pid_t child = fork();
    if (child == 0) ring_back(scratch_dir);
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    bool is_heard = false;
    for (int i = 0; i < SOON_MS / 10 && !is_heard; i++) {
        bells_ring(dit, WRITER_VAE);
        is_heard = wakes(dit, 10);
    }
    assert_true(is_heard);
    while (wakes(dit, 50)) continue;
    for (int i = 0; i < ROUNDS; i++) {
        const int64_t began = now_ns();
        bells_ring(dit, WRITER_VAE);
        assert_true(wakes(dit, 1000));
        took[i] = now_ns() - began;
    }
    qsort(took, ROUNDS, sizeof *took, by_value);
    print_message("bell there and back: median %lld us, p99 %lld us\n",
                  (long long)took[ROUNDS / 2] / 1000, (long long)took[ROUNDS * 99 / 100] / 1000);
    assert_true(took[ROUNDS / 2] < 20 * NS_PER_MS);

    kill(child, SIGKILL); /* its successor is heard as well */
    waitpid(child, NULL, 0);
    struct bells *vae = NULL;
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    ring_is_heard(dit, vae, WRITER_VAE);
    bells_close(&vae);
    bells_close(&dit);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_open, scratch_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_two_processes),
        TEST(test_bell_wakes),
        TEST(test_bell_is_lost_when_nobody_is_there),
        TEST(test_garbage_is_dropped_and_counted),
        TEST(test_flood),
        TEST(test_watched_fd_wakes),
        TEST(test_name_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
