/* test_keeperd.c - the keeper's socket, stepped by hand in this process. */
#include "procs/keeper/keeperd.h"

#include "common/log.h"
#include "tests/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "ipc/keeper.h"

static struct keeperd *keeper;

static int open_keeper(void **state)
{
    return scratch_open(state) == 0 && keeperd_open(&keeper, scratch_dir) == OK ? 0 : -1;
}

static int close_keeper(void **state)
{
    keeperd_close(&keeper);
    return scratch_close(state);
}

static int raw_connect(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", scratch_path("keeper.sock"));
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void step(void)
{
    for (int i = 0; i < 3; i++) want_ok(keeperd_step(keeper, 0));
}

static struct keeper_request request(enum keeper_op op, const char *name)
{
    struct keeper_request r = {.version = KEEPER_VERSION, .op = op, .n_bytes = 4096};
    snprintf(r.name, sizeof r.name, "%s", name);
    strcpy(r.device, "cpu");
    return r;
}

static void say(int fd, const struct keeper_request *r)
{
    assert_int_equal(send(fd, r, sizeof *r, MSG_NOSIGNAL), sizeof *r);
}

static struct keeper_reply reply;

/* True if there is an answer, then in reply. */
static bool hears(int fd)
{
    memset(&reply, 0xee, sizeof reply);
    const ssize_t n = recv(fd, &reply, sizeof reply, 0);
    if (n < 0) assert_int_equal(errno, EAGAIN);
    if (n > 0) assert_int_equal(n, sizeof reply);
    return n > 0;
}

static err_t ask(int fd, struct keeper_request r)
{
    say(fd, &r);
    step();
    assert_true(hears(fd));
    assert_int_equal(reply.version, KEEPER_VERSION);
    return (err_t)reply.status;
}

/* --- the run directory ----------------------------------------------------------------------- */

static void test_run_directory_must_be_private(void **state)
{
    (void)state;
    struct keeperd *k = NULL;
    char link[128], slash[300], deep[256];
    want_ok(keeperd_open(&k, scratch_dir));
    struct stat st;
    assert_int_equal(stat(scratch_path("keeper.sock"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    keeperd_close(&k);
    assert_null(k);
    assert_int_not_equal(access(scratch_path("keeper.sock"), F_OK), 0);
    assert_int_equal(access(scratch_path("regions"), F_OK), 0);

    static const mode_t open_to_others[] = {0750, 0705, 0710, 0701, 0777};
    for (size_t i = 0; i < sizeof open_to_others / sizeof *open_to_others; i++) {
        assert_int_equal(chmod(scratch_dir, open_to_others[i]), 0);
        want_fails(keeperd_open(&k, scratch_dir), ERR_CONFIG, "open to others");
    }
    assert_int_equal(chmod(scratch_dir, 0700), 0);
    snprintf(link, sizeof link, "%s.link", scratch_dir);
    snprintf(slash, sizeof slash, "%s/", link);
    assert_int_equal(symlink(scratch_dir, link), 0);
    want_fails(keeperd_open(&k, link), ERR_CONFIG, "symbolic link");
    want_fails(keeperd_open(&k, slash), ERR_CONFIG, "symbolic link");
    unlink(link);
    want_fails(keeperd_open(&k, scratch_path("none")), ERR_NOINPUT, "none");
    want_fails(keeperd_open(&k, scratch_path("regions")), ERR_CONFIG, "not a directory");
    want_fails(keeperd_open(&k, ""), ERR_CONFIG, "empty");
    if (geteuid() != 0) want_fails(keeperd_open(&k, "/root"), ERR_CONFIG, "belongs to");

    snprintf(deep, sizeof deep, "%s/%0*d", scratch_dir, 80, 0);
    assert_int_equal(mkdir(deep, 0700), 0);
    want_fails(keeperd_open(&k, deep), ERR_CONFIG, "at most 107");
    snprintf(slash, sizeof slash, "%s/regions", deep);
    unlink(slash);
    snprintf(slash, sizeof slash, "%s/keeper.lock", deep);
    unlink(slash);
    assert_int_equal(rmdir(deep), 0);
    assert_null(k);
}

static void test_one_keeper_a_directory(void **state)
{
    (void)state;
    struct keeperd *second = NULL;
    char text[64];
    snprintf(text, sizeof text, "keeper %d holds", (int)getpid());
    want_fails(keeperd_open(&second, scratch_dir), ERR_RUNNING, text);
    assert_int_equal(err_exit_status(ERR_RUNNING), 100);
    close(raw_connect()); /* the first one's socket is still there */
    keeperd_close(&keeper);
    want_ok(keeperd_open(&keeper, scratch_dir));
}

static void test_too_few_files(void **state)
{
    (void)state;
    struct keeperd *k = NULL;
    struct rlimit kept, few = {.rlim_cur = 64, .rlim_max = 64};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &kept), 0);
    few.rlim_max = kept.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    const err_t e = keeperd_open(&k, scratch_dir);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &kept), 0);
    want_fails(e, ERR_CONFIG, "ulimit -n");
}

/* --- packets --------------------------------------------------------------------------------- */

static void test_requests_are_answered(void **state)
{
    (void)state;
    const int fd = raw_connect();
    assert_int_equal(ask(fd, request(KEEPER_LEASE, "dit")), OK);
    assert_int_equal(reply.incarnation, 1);
    assert_int_equal(ask(fd, request(KEEPER_REGION, "kv.0")), OK);
    assert_int_equal(reply.is_new, 1);
    assert_int_equal(reply.state, REGION_SEALED);
    assert_string_equal(reply.share.path, scratch_path("region.kv.0"));
    assert_int_equal(ask(fd, request(KEEPER_LIST, "")), OK);
    assert_string_equal(reply.name, "kv.0");
    assert_int_equal(ask(fd, request(KEEPER_FREE, "kv.0")), OK);
    assert_int_equal(ask(fd, request(KEEPER_LIST, "")), ERR_NONE);
    assert_string_equal(reply.text, "no more regions");
    struct keeper_request huge = request(KEEPER_REGION, "huge");
    huge.n_bytes = UINT64_C(1) << 56;
    assert_int_equal(ask(fd, huge), ERR_NOMEM);
    assert_non_null(strstr(reply.text, "region huge of 72057594037927936 bytes"));
    assert_int_equal(ask(fd, request(KEEPER_SEAL, "huge")), ERR_NONE);
    assert_int_equal(keeperd_refused(keeper), 0);
    close(fd);
    step();
    assert_int_equal(keeperd_connections(keeper), 0);
}

static void test_packets_that_are_none(void **state)
{
    (void)state;
    char big[100000];
    const int fd = raw_connect();
    struct keeper_request r = request(KEEPER_LIST, "");
    memset(big, 'x', sizeof big);
    static const size_t sizes[] = {1, sizeof r - 1, sizeof r + 1, 4096, sizeof big};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(send(fd, big, sizes[i], MSG_NOSIGNAL), sizes[i]);
        step();
        assert_true(hears(fd));
        assert_int_equal(reply.status, ERR_DATA);
        assert_non_null(strstr(reply.text, "wrong size"));
    }
    r.version++;
    assert_int_equal(ask(fd, r), ERR_DATA);
    assert_non_null(strstr(reply.text, "another version"));
    r = request(0, "");
    assert_int_equal(ask(fd, r), ERR_DATA);
    r = request(KEEPER_LIST + 1, "");
    assert_int_equal(ask(fd, r), ERR_DATA);
    assert_non_null(strstr(reply.text, "unknown request"));
    r = request(KEEPER_REGION, "a");
    memset(r.name, 'a', sizeof r.name);
    assert_int_equal(ask(fd, r), ERR_DATA);
    r = request(KEEPER_REGION, "a");
    memset(r.device, 'a', sizeof r.device);
    assert_int_equal(ask(fd, r), ERR_DATA);
    assert_int_equal(keeperd_refused(keeper), 10);
    r = request(KEEPER_REGION, "a");
    strcpy(r.device, "cuda:0");
    const err_t no_device = dev_check("cuda:0");
    if (no_device != OK) assert_int_equal(ask(fd, r), no_device);
    assert_int_equal(ask(fd, request(KEEPER_REGION, "a")), OK);
    close(fd);
}

/* Whoever asks and never reads is cut off, and blocks nobody. */
static void test_a_client_that_does_not_read(void **state)
{
    (void)state;
    const int fd = raw_connect();
    const struct keeper_request r = request(KEEPER_LIST, "");
    ssize_t n = 1;
    for (int i = 0; i < 100000 && (n > 0 || errno == EAGAIN); i++) {
        n = send(fd, &r, sizeof r, MSG_NOSIGNAL);
        want_ok(keeperd_step(keeper, 0));
    }
    assert_true(n < 0);
    assert_int_equal(keeperd_connections(keeper), 0);
    close(fd);
}

/* 64 that say nothing do not keep one out that has something to say; nor do they cost files. */
static void test_many_raw_connections(void **state)
{
    (void)state;
    int fds[64], good[KEEPERD_CONNECTIONS_MAX];
    const int first = raw_connect();
    assert_int_equal(ask(first, request(KEEPER_LEASE, "dit")), OK);
    for (int i = 0; i < 64; i++) {
        fds[i] = raw_connect();
        step();
        assert_true(keeperd_connections(keeper) <= KEEPERD_CONNECTIONS_MAX);
    }
    assert_int_equal(ask(first, request(KEEPER_REGION, "a")), OK); /* those who spoke stay */
    for (int i = 1; i < KEEPERD_CONNECTIONS_MAX; i++) {
        good[i] = raw_connect();
        step();
        assert_int_equal(ask(good[i], request(KEEPER_REGION, "a")), OK);
    }
    const int over = raw_connect(); /* all have spoken: this one is closed */
    step();
    assert_int_equal(recv(over, &reply, sizeof reply, 0), 0);
    assert_int_equal(ask(first, request(KEEPER_REGION, "a")), OK);
    for (int i = 0; i < 64; i++) close(fds[i]);
    for (int i = 1; i < KEEPERD_CONNECTIONS_MAX; i++) close(good[i]);
    close(over);
    close(first);
    step();
    assert_int_equal(keeperd_connections(keeper), 0);
}

/* --- deferred leases ------------------------------------------------------------------------- */

/* A process that holds name, as seen by this keeper. */
static pid_t holder_of(const char *name)
{
    const struct keeper_request r = request(KEEPER_LEASE, name);
    const pid_t child = fork();
    if (child == 0) {
        const int fd = raw_connect();
        say(fd, &r);
        for (;;) pause();
    }
    for (int i = 0; i < 200; i++) {
        want_ok(keeperd_step(keeper, 10));
        if (keeperd_connections(keeper) > 0) break;
    }
    for (int i = 0; i < 5; i++) want_ok(keeperd_step(keeper, 10));
    return child;
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void test_lease_waits_for_the_holders_end(void **state)
{
    (void)state;
    const pid_t child = holder_of("dit");
    const int a = raw_connect(), b = raw_connect(), gone = raw_connect();
    struct keeper_request r = request(KEEPER_LEASE, "dit");
    r.wait_ms = 60000;
    say(gone, &r);
    step();
    say(a, &r);
    step();
    r.wait_ms = 100;
    say(b, &r);
    step();
    assert_false(hears(a) || hears(b));
    close(gone); /* gave up */
    const int64_t began = now_ns();
    for (int i = 0; i < 20 && !hears(b); i++) want_ok(keeperd_step(keeper, 1000));
    assert_int_equal(reply.status, ERR_RUNNING);
    char text[32];
    snprintf(text, sizeof text, "process %d holds", (int)child);
    assert_non_null(strstr(reply.text, text));
    assert_true(now_ns() - began >= 50 * NS_PER_MS && now_ns() - began < 900 * NS_PER_MS);
    assert_false(hears(a));

    end(child);
    for (int i = 0; i < 20 && !hears(a); i++) want_ok(keeperd_step(keeper, 100));
    assert_int_equal(reply.status, OK);
    assert_int_equal(reply.incarnation, 2);
    close(a);
    close(b);
}

static void test_lease_without_patience(void **state)
{
    (void)state;
    const pid_t child = holder_of("dit");
    const int fd = raw_connect();
    assert_int_equal(ask(fd, request(KEEPER_LEASE, "dit")), ERR_RUNNING);
    assert_int_equal(ask(fd, request(KEEPER_LEASE, "vae")), OK);
    struct keeper_request r = request(KEEPER_LEASE, "dit");
    r.wait_ms = 60000;
    say(fd, &r);
    step();
    say(fd, &r); /* speaks while it waits: out */
    step();
    assert_int_equal(recv(fd, &reply, sizeof reply, 0), 0);
    end(child);
    close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_keeper, close_keeper)

int main(void)
{
    setenv("LONGLIVED_LOG", "error", 1);
    log_open("test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_run_directory_must_be_private, scratch_open,
                                        scratch_close),
        TEST(test_one_keeper_a_directory),
        cmocka_unit_test_setup_teardown(test_too_few_files, scratch_open, scratch_close),
        TEST(test_requests_are_answered),
        TEST(test_packets_that_are_none),
        TEST(test_a_client_that_does_not_read),
        TEST(test_many_raw_connections),
        TEST(test_lease_waits_for_the_holders_end),
        TEST(test_lease_without_patience),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
