/* test_sock.c - requests and answers, through sockets of one process. */
#include "ipc/sock.h"

#include "tests/scratch.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <zmq.h>

#include "common/clock.h"

enum { SOON_MS = 2000 };

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

static void send_text(void *s, const char *text, int flags)
{
    assert_int_equal(zmq_send(s, text, strlen(text), flags), (int)strlen(text));
}

static struct bells *gateway;
static struct server *server;
static uint8_t buf[MSG_BYTES_MAX], peer[SOCK_PEER_MAX];
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
        bells_wait(gateway, server_has_request(server) ? 0 : 10);
        want_ok(server_next(server, peer, &n_peer, buf, sizeof buf, &n));
    }
    assert_true(n > 0);
    return n;
}

static void test_request_and_reply(void **state)
{
    (void)state;
    static uint8_t most[MSG_BYTES_MAX];
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
    static uint8_t big[MSG_BYTES_MAX + 1];
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

/* Bytes that are no ZMTP at all. */
static void test_garbage_on_the_wire(void **state)
{
    (void)state;
    struct client *c = NULL;
    uint64_t r = 5;
    for (int i = 0; i < 100; i++) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        uint8_t noise[256];
        snprintf(at.sun_path, sizeof at.sun_path, "%s", scratch_path("gateway.ctl"));
        const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)((r = r * 6364136223846793005u + 1442695040888963407u) >> 56);
        if (i % 2) memcpy(noise, "\xff\0\0\0\0\0\0\0\x01\x7f\x03", 11); /* begins as ZMTP does */
        (void)!send(fd, noise, sizeof noise, MSG_NOSIGNAL);
        close(fd);
    }
    want_ok(client_open(&c, scratch_dir));
    want_ok(client_send(c, (const uint8_t *)"after", 5));
    while (next_request() != 5 || memcmp(buf, "after", 5) != 0)
        continue; /* noise may be a message */
    client_close(&c);
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
        bells_wait(gateway, server_has_request(server) ? 0 : 10);
        want_ok(server_next(server, peer, &n_peer, buf, sizeof buf, &n));
        assert_int_equal(n, 0);
    }
    assert_int_equal(bells_dropped(gateway), 1);
    zmq_close(s);
    zmq_ctx_term(ctx);
}

static void test_server_wakes_the_wait(void **state)
{
    (void)state;
    struct client *c = NULL;
    size_t n = 0;
    want_ok(client_open(&c, scratch_dir));
    for (int i = 0; i < 20; i++) {
        want_ok(client_send(c, (const uint8_t *)"x", 1));
        const int64_t began = now_ns();
        while (!server_has_request(server) && now_ns() - began < SOON_MS * NS_PER_MS)
            bells_wait(gateway, SOON_MS);
        assert_true(now_ns() - began < 500 * NS_PER_MS);
        want_ok(server_next(server, peer, &n_peer, buf, sizeof buf, &n));
        assert_int_equal(n, 1);
        assert_false(server_has_request(server));
    }
    client_close(&c);
}

static void test_name_too_long(void **state)
{
    (void)state;
    struct client *c = NULL;
    char dir[200];
    memset(dir, 'x', sizeof dir);
    dir[0] = '/', dir[107 - 11] = '\0'; /* with "/gateway.ctl" 108 bytes */
    want_fails(client_open(&c, dir), ERR_CONFIG, "at most 107");
    assert_null(c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_open, scratch_close)
#define TEST_SERVER(f) cmocka_unit_test_setup_teardown(f, open_server, close_server)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_SERVER(test_request_and_reply),
        TEST_SERVER(test_client_wait_ends_by_fd),
        TEST(test_nobody_there),
        TEST_SERVER(test_server_drops_garbage),
        TEST_SERVER(test_server_drops_long_names),
        TEST_SERVER(test_server_wakes_the_wait),
        TEST_SERVER(test_garbage_on_the_wire),
        TEST(test_name_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
