/* test_sock.c - bells and requests between sockets of one process, and of two. */
#include "ipc/sock.h"

#include "tests/scratch.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <zmq.h>

#include "common/clock.h"
#include "ipc/msg.h"

enum { SOON_MS = 2000 };

/* True if something ended the wait before its time. */
static bool wakes(struct bells *b, int32_t wait_ms)
{
    const int64_t began = now_ns();
    bells_wait(b, wait_ms, NULL, 0);
    return now_ns() - began < (int64_t)(wait_ms - 1) * NS_PER_MS;
}

/* Rings until it is heard: connecting takes its time. */
static void ring_until_heard(struct bells *from, struct bells *to, enum ledger_writer to_name)
{
    for (int i = 0; i < SOON_MS / 10; i++) {
        bells_ring(from, to_name);
        if (wakes(to, 10)) return;
    }
    fail_msg("no bell came");
}

static void *raw_socket(void *ctx, int type, const char *name)
{
    char endpoint[256];
    const int linger = 500;
    void *s = zmq_socket(ctx, type);
    snprintf(endpoint, sizeof endpoint, "ipc://%s", scratch_path(name));
    assert_int_equal(zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_connect(s, endpoint), 0);
    return s;
}

/* --- bells ----------------------------------------------------------------------------------- */

static void test_bell_wakes(void **state)
{
    (void)state;
    struct bells *dit = NULL, *vae = NULL;
    struct stat st;
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    assert_int_equal(stat(scratch_path("bell.vae"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    ring_until_heard(dit, vae, WRITER_VAE);
    ring_until_heard(vae, dit, WRITER_DIT);
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
    assert_false(wakes(vae, 500));
    ring_until_heard(dit, vae, WRITER_VAE);

    bells_close(&vae);
    sleep_ns(50 * NS_PER_MS);
    const int64_t began = now_ns();
    for (int i = 0; i < 1000; i++) bells_ring(dit, WRITER_VAE);
    assert_true(now_ns() - began < 100 * NS_PER_MS);
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    assert_false(wakes(vae, 500));
    ring_until_heard(dit, vae, WRITER_VAE);
    bells_close(&vae);
    bells_close(&dit);
}

static void send_text(void *s, const char *text, int flags)
{
    assert_int_equal(zmq_send(s, text, strlen(text), flags), (int)strlen(text));
}

static void test_garbage_is_dropped_and_counted(void **state)
{
    (void)state;
    static uint8_t big[SOCK_MESSAGE_MAX + 1];
    struct bells *vae = NULL, *dit = NULL;
    void *ctx = zmq_ctx_new();
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    void *s = raw_socket(ctx, ZMQ_PUSH, "bell.vae");
    send_text(s, "garbage", 0);
    send_text(s, "", 0);
    send_text(s,
              "\x83\xa1v\x01\xa1t\xa4"
              "bell\xa4"
              "from\x01",
              ZMQ_SNDMORE);
    send_text(s, "and more", 0);
    assert_int_equal(zmq_send(s, big, 1000, 0), 1000);
    send_text(s,
              "\x83\xa1v\x01\xa1t\xa6"
              "finish\xa7request\x01",
              0);
    for (int i = 0; i < SOON_MS / 10 && bells_dropped(vae) < 5; i++) bells_wait(vae, 10, NULL, 0);
    assert_int_equal(bells_dropped(vae), 5);
    send_text(s,
              "\x83\xa1v\x01\xa1t\xa4"
              "bell\xa4"
              "from\x01",
              0);
    assert_true(wakes(vae, SOON_MS));
    assert_int_equal(bells_dropped(vae), 5);

    assert_int_equal(zmq_send(s, big, sizeof big, 0), (int)sizeof big); /* cuts this peer off */
    assert_false(wakes(vae, 200));
    ring_until_heard(dit, vae, WRITER_VAE);
    zmq_close(s);
    zmq_ctx_term(ctx);
    bells_close(&dit);
    bells_close(&vae);
}

/* Bytes that are no ZMTP at all. */
static void test_garbage_on_the_wire(void **state)
{
    (void)state;
    struct bells *vae = NULL, *dit = NULL;
    uint64_t r = 5;
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    want_ok(bells_open(&dit, scratch_dir, WRITER_DIT));
    for (int i = 0; i < 100; i++) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        uint8_t noise[256];
        snprintf(at.sun_path, sizeof at.sun_path, "%s", scratch_path("bell.vae"));
        const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)((r = r * 6364136223846793005u + 1442695040888963407u) >> 56);
        if (i % 2) memcpy(noise, "\xff\0\0\0\0\0\0\0\x01\x7f\x03", 11); /* begins as ZMTP does */
        (void)!send(fd, noise, sizeof noise, MSG_NOSIGNAL);
        close(fd);
    }
    ring_until_heard(dit, vae, WRITER_VAE);
    bells_close(&dit);
    bells_close(&vae);
}

static void test_extra_fd_wakes(void **state)
{
    (void)state;
    struct bells *vae = NULL;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    want_ok(bells_open(&vae, scratch_dir, WRITER_VAE));
    bells_wait(vae, 0, fds, 1);
    assert_int_equal(write(fds[1], "x", 1), 1);
    const int64_t began = now_ns();
    bells_wait(vae, SOON_MS, fds, 1);
    assert_true(now_ns() - began < 100 * NS_PER_MS);
    bells_close(&vae);
    close(fds[0]);
    close(fds[1]);
}

static void test_name_too_long(void **state)
{
    (void)state;
    struct bells *b = NULL;
    struct client *c = NULL;
    char dir[200];
    memset(dir, 'x', sizeof dir);
    dir[0] = '/', dir[107 - 8] = '\0'; /* with "/bell.vae" 108 bytes */
    want_fails(bells_open(&b, dir, WRITER_VAE), ERR_CONFIG, "at most 107");
    want_fails(client_open(&c, dir), ERR_CONFIG, "at most 107");
    want_fails(bells_open(&b, "/nonexistent", WRITER_VAE), ERR_WRITE, "bind");
    assert_null(b);
    assert_null(c);
}

static void ring_back(const char *dir)
{
    struct bells *vae = NULL;
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
    const pid_t child = fork(); /* before this process has a context */
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
    ring_until_heard(dit, vae, WRITER_VAE);
    bells_close(&vae);
    bells_close(&dit);
}

/* --- requests -------------------------------------------------------------------------------- */

static struct bells *gateway;
static struct server *server;
static uint8_t buf[SOCK_MESSAGE_MAX], peer[SOCK_PEER_MAX];
static size_t n_peer;

static int open_server(void **state)
{
    if (scratch_open(state) != 0) return -1;
    if (bells_open(&gateway, scratch_dir, WRITER_GATEWAY) != OK) return -1;
    return server_open(&server, scratch_dir, gateway) == OK ? 0 : -1;
}

static int close_server(void **state)
{
    server_close(&server);
    bells_close(&gateway);
    return scratch_close(state);
}

/* The next request's bytes in buf. */
static size_t next_request(void)
{
    size_t n = 0;
    for (int i = 0; i < SOON_MS / 10 && n == 0; i++) {
        bells_wait(gateway, 10, NULL, 0);
        want_ok(server_next(server, peer, &n_peer, buf, sizeof buf, &n));
    }
    assert_true(n > 0);
    return n;
}

static void test_request_and_reply(void **state)
{
    (void)state;
    static uint8_t most[SOCK_MESSAGE_MAX];
    struct client *c = NULL;
    size_t n = 1;
    want_ok(server_next(server, peer, &n_peer, buf, sizeof buf, &n));
    assert_int_equal(n, 0);
    want_ok(client_open(&c, scratch_dir));
    for (size_t size = 1; size <= sizeof most; size = size * 4 - (size == 65536 / 4)) {
        memset(most, (int)size, sizeof most);
        want_ok(client_send(c, most, size));
        assert_int_equal(next_request(), size);
        assert_memory_equal(buf, most, size);
        server_reply(server, peer, n_peer, buf, size);
        memset(buf, 0, size);
        want_ok(client_wait(c, SOON_MS, -1, buf, sizeof buf, &n));
        assert_int_equal(n, size);
        assert_memory_equal(buf, most, size);
    }
    want_fails(client_send(c, most, sizeof most + 1), ERR_LIMIT, "limit is 65536");
    want_fails(client_wait(c, 30, -1, buf, sizeof buf, &n), ERR_TIMEOUT, "30 ms");
    assert_int_equal(n, 0);
    client_close(&c);
    assert_null(c);
    client_close(&c);
}

static void test_client_wait_ends_by_fd(void **state)
{
    (void)state;
    struct client *c = NULL;
    size_t n = 1;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    want_ok(client_open(&c, scratch_dir));
    assert_int_equal(write(fds[1], "x", 1), 1);
    want_ok(client_wait(c, SOON_MS, fds[0], buf, sizeof buf, &n));
    assert_int_equal(n, 0);
    want_ok(client_send(c, (const uint8_t *)"x", 1));
    (void)next_request();
    server_reply(server, peer, n_peer, (const uint8_t *)"yz", 2);
    for (int i = 0; i < SOON_MS && n == 0; i++) { /* a message goes before the fd */
        sleep_ns(NS_PER_MS);
        want_ok(client_wait(c, SOON_MS, fds[0], buf, sizeof buf, &n));
    }
    assert_int_equal(n, 2);
    client_close(&c);
    close(fds[0]);
    close(fds[1]);
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct client *c = NULL;
    want_ok(client_open(&c, scratch_dir));
    const int64_t began = now_ns();
    want_fails(client_send(c, (const uint8_t *)"x", 1), ERR_NONE, "no gateway");
    assert_true(now_ns() - began < 4ll * NS_PER_S);
    client_close(&c);
}

/* The server drops what is not two parts, and reads the next request from its beginning. */
static void test_server_drops_garbage(void **state)
{
    (void)state;
    static uint8_t big[SOCK_MESSAGE_MAX + 1];
    struct client *c = NULL;
    void *ctx = zmq_ctx_new();
    void *s = raw_socket(ctx, ZMQ_DEALER, "gateway.ctl");
    for (int i = 0; i < 5; i++) send_text(s, "part", ZMQ_SNDMORE);
    send_text(s, "end", 0);
    send_text(s, "", 0);
    send_text(s, "good", 0);
    assert_int_equal(next_request(), 4);
    assert_memory_equal(buf, "good", 4);
    assert_int_equal(bells_dropped(gateway), 2);
    assert_int_equal(zmq_send(s, big, sizeof big, 0), (int)sizeof big);

    want_ok(client_open(&c, scratch_dir));
    want_ok(client_send(c, (const uint8_t *)"after", 5));
    assert_int_equal(next_request(), 5);
    server_reply(server, (const uint8_t *)"nobody", 6, buf, 5); /* no error */
    client_close(&c);
    sleep_ns(50 * NS_PER_MS);
    server_reply(server, peer, n_peer, buf, 5); /* gone: no error */
    zmq_close(s);
    zmq_ctx_term(ctx);
}

/* A routing id that does not fit peer[] must not name anyone. */
static void test_server_drops_long_names(void **state)
{
    (void)state;
    char endpoint[256], id[200];
    const int linger = 500;
    void *ctx = zmq_ctx_new();
    void *s = zmq_socket(ctx, ZMQ_DEALER);
    memset(id, 'i', sizeof id);
    snprintf(endpoint, sizeof endpoint, "ipc://%s", scratch_path("gateway.ctl"));
    assert_int_equal(zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_setsockopt(s, ZMQ_ROUTING_ID, id, sizeof id), 0);
    assert_int_equal(zmq_connect(s, endpoint), 0);
    send_text(s, "hello", 0);
    for (int i = 0; i < SOON_MS / 10 && bells_dropped(gateway) == 0; i++) {
        size_t n = 0;
        bells_wait(gateway, 10, NULL, 0);
        want_ok(server_next(server, peer, &n_peer, buf, sizeof buf, &n));
        assert_int_equal(n, 0);
    }
    assert_int_equal(bells_dropped(gateway), 1);
    zmq_close(s);
    zmq_ctx_term(ctx);
}

static void test_close_in_either_order(void **state)
{
    (void)state;
    bells_close(&gateway);
    server_close(&server);
    assert_null(server);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_open, scratch_close)
#define TEST_SERVER(f) cmocka_unit_test_setup_teardown(f, open_server, close_server)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_two_processes),
        TEST(test_bell_wakes),
        TEST(test_bell_is_lost_when_nobody_is_there),
        TEST(test_garbage_is_dropped_and_counted),
        TEST(test_garbage_on_the_wire),
        TEST(test_extra_fd_wakes),
        TEST(test_name_too_long),
        TEST_SERVER(test_request_and_reply),
        TEST_SERVER(test_client_wait_ends_by_fd),
        TEST(test_nobody_there),
        TEST_SERVER(test_server_drops_garbage),
        TEST_SERVER(test_server_drops_long_names),
        TEST_SERVER(test_close_in_either_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
