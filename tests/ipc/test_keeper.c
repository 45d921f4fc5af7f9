/* test_keeper.c - the client against a keeper in a process of its own, with deaths on both sides.
 */
#include "ipc/keeper.h"

#include "common/log.h"
#include "tests/scratch.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "procs/keeper/keeperd.h"

enum { SOON_MS = 5000 };

static pid_t keeper_pid;
static struct dev *dev;
static const uint8_t one[32] = {1}, two[32] = {2};

static void start_keeper(void)
{
    keeper_pid = fork();
    if (keeper_pid == 0) {
        struct keeperd *k = NULL;
        if (keeperd_open(&k, scratch_dir) != OK) _exit(1);
        while (keeperd_step(k, -1) == OK) continue;
        _exit(2);
    }
}

static void end(pid_t pid)
{
    int status = 0;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); /* it was alive until now */
}

static int open_keeper(void **state)
{
    if (scratch_open(state) != 0 || dev_open(&dev, "cpu", 1) != OK) return -1;
    start_keeper();
    return 0;
}

static int close_keeper(void **state)
{
    dev_close(&dev);
    end(keeper_pid);
    return scratch_close(state);
}

static struct keeper *connected(void)
{
    struct keeper *k = NULL;
    want_ok(keeper_connect(&k, scratch_dir, SOON_MS));
    return k;
}

/* A stage that takes its lease and a region, puts c in it, seals it if asked, tells us, and stays.
 */
static pid_t stage(const char *name, const uint8_t *identity, char c, bool is_sealing)
{
    int fds[2];
    char done = 0;
    assert_int_equal(pipe(fds), 0);
    const pid_t child = fork();
    if (child == 0) {
        struct keeper *k = NULL;
        struct region r = {0};
        uint64_t incarnation = 0;
        if (keeper_connect(&k, scratch_dir, SOON_MS) != OK ||
            keeper_lease(k, name, SOON_MS, &incarnation) != OK ||
            keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, identity, &r) != OK)
            _exit(1);
        memset(r.data, c, r.n_bytes);
        if (is_sealing && keeper_seal(k, &r) != OK) _exit(1);
        if (write(fds[1], "x", 1) != 1) _exit(1);
        for (;;) pause();
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &done, 1), 1);
    close(fds[0]);
    return child;
}

static char first_byte(const struct region *r)
{
    return *(const char *)r->data;
}

/* --- connecting ------------------------------------------------------------------------------ */

static void test_connect(void **state)
{
    (void)state;
    struct keeper *k = NULL;
    char dir[200];
    int64_t began = now_ns();
    want_fails(keeper_connect(&k, "/nonexistent", 0), ERR_AGAIN, "no keeper at");
    want_fails(keeper_connect(&k, "/nonexistent", 60), ERR_AGAIN, "no keeper at");
    assert_true(now_ns() - began >= 60 * NS_PER_MS && now_ns() - began < NS_PER_S);
    memset(dir, 'x', sizeof dir);
    dir[0] = '/', dir[96] = '\0'; /* with "/keeper.sock" 108 bytes */
    want_fails(keeper_connect(&k, dir, SOON_MS), ERR_CONFIG, "at most 107");
    dir[95] = '\0';
    want_fails(keeper_connect(&k, dir, 0), ERR_AGAIN, "no keeper at");
    assert_null(k);

    k = connected(); /* although the keeper may only be starting */
    assert_true(keeper_fd(k) >= 0);
    keeper_close(&k);
    assert_null(k);
    keeper_close(&k);
    keeper_close(NULL);
}

/* --- leases ---------------------------------------------------------------------------------- */

static void test_lease_waits_until_the_holder_is_killed(void **state)
{
    (void)state;
    uint64_t incarnation = 0;
    char text[32];
    const pid_t holder = stage("dit", one, 'a', false);
    struct keeper *k = connected();
    snprintf(text, sizeof text, "process %d holds", (int)holder);
    want_fails(keeper_lease(k, "dit", 0, &incarnation), ERR_RUNNING, text);
    keeper_close(&k);
    k = connected();
    const int64_t began = now_ns();
    want_fails(keeper_lease(k, "dit", 200, &incarnation), ERR_RUNNING, text);
    assert_true(now_ns() - began >= 200 * NS_PER_MS && now_ns() - began < 2ll * NS_PER_S);

    const pid_t killer = fork();
    if (killer == 0) {
        usleep(200000);
        kill(holder, SIGKILL);
        _exit(0);
    }
    const int64_t waits = now_ns();
    keeper_close(&k);
    k = connected();
    want_ok(keeper_lease(k, "dit", 20000, &incarnation));
    assert_int_equal(incarnation, 2);
    assert_true(now_ns() - waits >= 100 * NS_PER_MS && now_ns() - waits < 5ll * NS_PER_S);
    want_ok(keeper_lease(k, "dit", 0, &incarnation)); /* ours */
    assert_int_equal(incarnation, 2);
    waitpid(killer, NULL, 0);
    waitpid(holder, NULL, 0);
    keeper_close(&k);
}

static void test_incarnations_count(void **state)
{
    (void)state;
    uint64_t incarnation = 0;
    for (int i = 0; i < 5; i++) end(stage("dit", one, 'a', false));
    struct keeper *k = connected();
    want_ok(keeper_lease(k, "dit", SOON_MS, &incarnation));
    assert_int_equal(incarnation, 6);
    want_ok(keeper_lease(k, "vae", SOON_MS, &incarnation));
    assert_int_equal(incarnation, 1);
    keeper_close(&k);
}

/* --- regions --------------------------------------------------------------------------------- */

static void test_region_outlives_its_writer(void **state)
{
    (void)state;
    struct region r = {0};
    struct keeper *k = connected();
    end(stage("dit", NULL, 'a', false));
    want_ok(keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, NULL, &r));
    assert_false(r.is_new);
    assert_int_equal(r.state, REGION_SEALED);
    assert_int_equal(r.generation, 1);
    assert_int_equal(r.n_bytes, 9000);
    assert_string_equal(r.name, "weights.dit");
    assert_int_equal(first_byte(&r), 'a');
    region_unmap(&r);
    assert_null(r.data);
    region_unmap(&r);
    region_unmap(NULL);
    keeper_close(&k);
}

static void test_filling_begins_again_and_sealed_stays(void **state)
{
    (void)state;
    struct region r = {0};
    struct keeper *k = connected();
    const pid_t filler = stage("dit", one, 'a', false);
    want_ok(keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, one, &r));
    assert_int_equal(r.state, REGION_FILLING);
    assert_false(r.is_new);
    want_fails(keeper_seal(k, &r), ERR_BUG, "seals what");
    keeper_close(&k);
    region_unmap(&r);
    end(filler);

    k = connected();
    want_ok(keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, one, &r));
    assert_true(r.is_new);
    assert_int_equal(r.generation, 2);
    assert_int_equal(r.state, REGION_FILLING);
    assert_int_equal(first_byte(&r), 0);
    memset(r.data, 'b', r.n_bytes);
    want_ok(keeper_seal(k, &r));
    assert_int_equal(r.state, REGION_SEALED);
    region_unmap(&r);

    end(stage("dit", two, 'c', true)); /* another identity: made anew */
    want_ok(keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, two, &r));
    assert_false(r.is_new);
    assert_int_equal(r.state, REGION_SEALED);
    assert_int_equal(r.generation, 3);
    assert_int_equal(first_byte(&r), 'c');
    region_unmap(&r);
    keeper_close(&k);
}

/* Memory of this process: zeroed, sealed without the keeper, which keeps nothing for it. */
static void test_own_memory_takes_the_place_of_a_region(void **state)
{
    (void)state;
    struct keeper *k = connected();
    struct keeper_reply rep;
    struct region r = {0};
    uint64_t incarnation = 0;
    want_ok(keeper_lease(k, "dit", SOON_MS, &incarnation));
    want_ok(keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, one, &r));
    region_unmap(&r);
    want_ok(keeper_own(k, dev, "weights.dit", 9000, 77, &r));
    assert_int_equal(r.n_bytes, 9000);
    assert_int_equal(r.generation, 77);
    assert_int_equal(r.state, REGION_FILLING);
    assert_int_equal(first_byte(&r), 0);
    assert_int_equal(dev_live_bytes(dev), 9000);
    want_fails(keeper_list(k, 0, &rep), ERR_NONE, "no more");
    want_ok(keeper_seal(k, &r));
    assert_int_equal(r.state, REGION_SEALED);
    region_unmap(&r);
    assert_int_equal(dev_live_bytes(dev), 0);
    keeper_close(&k);
}

/* Mapped, left by a dead process, or not there at all. */
static void test_a_region_is_given_back(void **state)
{
    (void)state;
    struct keeper *k = connected();
    struct keeper_reply rep;
    struct region r = {0};
    want_ok(keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, one, &r));
    want_ok(keeper_free(k, "weights.dit", &r));
    assert_null(r.data);
    want_fails(keeper_list(k, 0, &rep), ERR_NONE, "no more");
    keeper_close(&k);
    end(stage("dit", one, 'a', true));
    k = connected();
    for (int i = 0; i < 2; i++) want_ok(keeper_free(k, "weights.dit", &r));
    want_fails(keeper_list(k, 0, &rep), ERR_NONE, "no more");
    keeper_close(&k);
}

static void test_refusals_come_in_words(void **state)
{
    (void)state;
    struct region r = {0};
    struct keeper_reply reply;
    struct keeper *k = connected();
    want_fails(keeper_region(k, dev, "a/b", "cpu", 100, 1, NULL, &r), ERR_DATA, "a-z");
    want_fails(keeper_region(k, dev, "0123456789.0123456789.0123456789", "cpu", 100, 1, NULL, &r),
               ERR_DATA, "longer than 31");
    want_fails(keeper_region(k, dev, "huge", "cpu", UINT64_C(1) << 56, 1, NULL, &r), ERR_NOMEM,
               "region huge of 72057594037927936 bytes");
    want_fails(keeper_list(k, 0, &reply), ERR_NONE, "no more");
    assert_null(r.data);
    want_ok(keeper_region(k, dev, "small", "cpu", 100, 1, NULL, &r)); /* and it goes on */
    want_ok(keeper_list(k, 0, &reply));
    assert_string_equal(reply.name, "small");
    assert_int_equal(reply.share.n_bytes, 100);
    region_unmap(&r);
    keeper_close(&k);
}

/* --- the keeper's death ---------------------------------------------------------------------- */

static void test_a_restarted_keeper_adopts(void **state)
{
    (void)state;
    uint64_t incarnation = 0;
    struct region r = {0}, again = {0};
    struct keeper *k = connected();
    const pid_t holder = stage("dit", one, 's', true);
    want_ok(keeper_region(k, dev, "kv.0", "cpu", 5000, 1, NULL, &r));
    memset(r.data, 'k', r.n_bytes);
    end(keeper_pid);
    want_fails(keeper_lease(k, "vae", 0, &incarnation), ERR_AGAIN, "keeper is gone");
    want_fails(keeper_lease(k, "vae", 0, &incarnation), ERR_AGAIN, "did not answer before");
    keeper_close(&k);

    start_keeper();
    k = connected();
    want_ok(keeper_region(k, dev, "kv.0", "cpu", 5000, 1, NULL, &again));
    assert_false(again.is_new);
    assert_int_equal(first_byte(&again), 'k');
    memset(again.data, 'm', 1);
    assert_int_equal(first_byte(&r), 'm'); /* the very same memory */
    region_unmap(&again);
    want_ok(keeper_region(k, dev, "weights.dit", "cpu", 9000, 1, one, &again));
    assert_int_equal(again.state, REGION_SEALED);
    assert_int_equal(first_byte(&again), 's');
    want_fails(keeper_lease(k, "dit", 100, &incarnation), ERR_RUNNING, "holds the lease");
    end(holder); /* held over the keeper's death, and free now */
    want_ok(keeper_lease(k, "dit", SOON_MS, &incarnation));
    assert_int_equal(incarnation, 2);
    region_unmap(&again);
    region_unmap(&r);
    keeper_close(&k);
}

static void test_keeper_dies_while_a_lease_waits(void **state)
{
    (void)state;
    uint64_t incarnation = 0;
    const pid_t holder = stage("dit", one, 'a', false);
    struct keeper *k = connected();
    const pid_t killer = fork();
    if (killer == 0) {
        usleep(100000);
        kill(keeper_pid, SIGKILL);
        _exit(0);
    }
    const int64_t began = now_ns();
    want_fails(keeper_lease(k, "dit", 60000, &incarnation), ERR_AGAIN, "keeper is gone");
    assert_true(now_ns() - began < 5ll * NS_PER_S);
    waitpid(killer, NULL, 0);
    waitpid(keeper_pid, NULL, 0);
    keeper_close(&k);
    end(holder);
    start_keeper();
}

/* 64 connections that say nothing, held, and then a stage. */
static void test_raw_connections_do_not_stop_it(void **state)
{
    (void)state;
    int fds[64];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct keeper *k = connected();
    uint64_t incarnation = 0;
    want_ok(keeper_lease(k, "vae", 0, &incarnation));
    snprintf(at.sun_path, sizeof at.sun_path, "%s", scratch_path("keeper.sock"));
    for (int i = 0; i < 64; i++) {
        fds[i] = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&at, sizeof at), 0);
        (void)!send(fds[i], "wrong", 5, MSG_NOSIGNAL);
    }
    end(stage("dit", one, 'a', true));
    want_ok(keeper_lease(k, "vae", 0, &incarnation));
    for (int i = 0; i < 64; i++) close(fds[i]);
    keeper_close(&k);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_keeper, close_keeper)

int main(void)
{
    setenv("LONGLIVED_LOG", "error", 1);
    log_open("test");
    const struct CMUnitTest tests[] = {
        TEST(test_connect),
        TEST(test_lease_waits_until_the_holder_is_killed),
        TEST(test_incarnations_count),
        TEST(test_region_outlives_its_writer),
        TEST(test_filling_begins_again_and_sealed_stays),
        TEST(test_own_memory_takes_the_place_of_a_region),
        TEST(test_a_region_is_given_back),
        TEST(test_refusals_come_in_words),
        TEST(test_a_restarted_keeper_adopts),
        TEST(test_keeper_dies_while_a_lease_waits),
        TEST(test_raw_connections_do_not_stop_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
