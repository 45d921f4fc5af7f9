/* test_vault.c - the table of leases and regions, its death and adoption; no sockets. */
#include "procs/keeper/vault.h"

#include "common/log.h"
#include "tests/scratch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct vault *vault;
static struct process us;

static int open_vault(void **state)
{
    if (scratch_open(state) != 0) return -1;
    if (process_of(getpid(), &us) != OK) return -1;
    return vault_open(&vault, scratch_dir) == OK ? 0 : -1;
}

static int close_vault(void **state)
{
    vault_close(&vault);
    return scratch_close(state);
}

/* As a keeper killed and started again. */
static void reopen(void)
{
    vault_close(&vault);
    want_ok(vault_open(&vault, scratch_dir));
}

static struct process other_process(void)
{
    struct process p;
    const pid_t child = fork();
    if (child == 0)
        for (;;) pause();
    assert_true(child > 0);
    want_ok(process_of(child, &p));
    return p;
}

static void end(const struct process *p)
{
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
}

static bool exists(const char *name)
{
    return access(scratch_path(name), F_OK) == 0;
}

/* --- processes ------------------------------------------------------------------------------- */

static void test_processes(void **state)
{
    (void)state;
    struct process p = other_process(), wrong = p, none;
    const int fd = process_watch(&p);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    assert_true(fd >= 0);
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    wrong.start--;
    assert_int_equal(process_watch(&wrong), -1); /* the same pid, another life */
    kill(p.pid, SIGKILL);
    assert_int_equal(poll(&poll_fd, 1, 2000), 1);
    assert_int_equal(process_watch(&p), -1); /* not yet waited for, and yet gone */
    waitpid(p.pid, NULL, 0);
    assert_int_equal(process_watch(&p), -1);
    want_fails(process_of(p.pid, &none), ERR_NONE, "gone");
    close(fd);
}

/* --- leases ---------------------------------------------------------------------------------- */

static uint64_t lease(const char *name, const struct process *who)
{
    uint64_t incarnation = 0;
    int fd = -1;
    want_ok(vault_lease(vault, name, who, &incarnation, &fd));
    return incarnation;
}

static void test_lease_goes_to_one_process(void **state)
{
    (void)state;
    uint64_t incarnation = 77;
    int fd = -1;
    struct process a = other_process(), b = other_process();
    char text[32];
    assert_int_equal(lease("dit", &a), 1);
    assert_int_equal(lease("dit", &a), 1); /* asked again */
    assert_int_equal(lease("vae", &a), 1);
    snprintf(text, sizeof text, "process %d holds", (int)a.pid);
    want_fails(vault_lease(vault, "dit", &b, &incarnation, &fd), ERR_RUNNING, text);
    assert_int_equal(incarnation, 77);
    reopen(); /* a keeper's death frees nothing */
    want_fails(vault_lease(vault, "dit", &b, &incarnation, &fd), ERR_RUNNING, text);
    assert_int_equal(lease("dit", &a), 1);

    end(&a);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 2000), 1);
    assert_int_equal(lease("dit", &b), 2);
    end(&b);
    reopen();
    assert_int_equal(lease("dit", &us), 3);
    assert_int_equal(lease("vae", &us), 2);
    want_fails(vault_lease(vault, "text", &b, &incarnation, &fd), ERR_NONE, "gone");
}

static void test_lease_names(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "Dit", "a/b", "..x/", "a b", "a\n", "d\xc3\xa9", "12345678901234567890123456789012"};
    uint64_t incarnation;
    int fd;
    char name[16];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        want_fails(vault_lease(vault, bad[i], &us, &incarnation, &fd), ERR_DATA, "a-z");
    for (int i = 0; i < VAULT_LEASES_MAX; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(lease(name, &us), 1);
    }
    want_fails(vault_lease(vault, "more", &us, &incarnation, &fd), ERR_LIMIT, "taken");
    assert_int_equal(lease("n3", &us), 1);
}

/* --- regions --------------------------------------------------------------------------------- */

static struct keeper_reply reply;

static struct keeper_request want(const char *name, uint64_t n_bytes, uint8_t identity)
{
    struct keeper_request r = {.version = KEEPER_VERSION, .op = KEEPER_REGION, .n_bytes = n_bytes};
    snprintf(r.name, sizeof r.name, "%s", name);
    strcpy(r.device, "cpu");
    r.layout = 1;
    r.identity[31] = identity;
    return r;
}

/* Asks; compares newness, state and generation. */
static void region(const struct process *who, struct keeper_request req, bool is_new,
                   enum region_state s, uint64_t generation)
{
    memset(&reply, 0, sizeof reply);
    want_ok(vault_region(vault, who, &req, &reply));
    assert_int_equal(reply.is_new, is_new);
    assert_int_equal(reply.state, s);
    assert_int_equal(reply.generation, generation);
    assert_int_equal(reply.share.n_bytes, req.n_bytes);
}

static void write_byte(char c)
{
    const int fd = open(reply.share.path, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, &c, 1, 5) == 1);
    close(fd);
}

static char read_byte(void)
{
    char c = 0x55;
    const int fd = open(reply.share.path, O_RDONLY);
    assert_true(fd >= 0 && pread(fd, &c, 1, 5) == 1);
    close(fd);
    return c;
}

static void test_plain_memory(void **state)
{
    (void)state;
    struct stat st;
    region(&us, want("kv.0", 5000, 0), true, REGION_SEALED, 1);
    assert_string_equal(reply.share.path, scratch_path("region.kv.0"));
    assert_int_equal(stat(reply.share.path, &st), 0);
    assert_int_equal(st.st_size, 5000);
    assert_int_equal(st.st_mode & 0777, 0600);
    write_byte('x');
    region(&us, want("kv.0", 5000, 0), false, REGION_SEALED, 1);
    reopen();
    region(&us, want("kv.0", 5000, 0), false, REGION_SEALED, 1);
    assert_int_equal(read_byte(), 'x');
    region(&us, want("ledger", 8192, 0), true, REGION_SEALED, 1);
    assert_string_equal(reply.share.path, scratch_path("ledger"));
}

static void test_another_content_is_made_anew(void **state)
{
    (void)state;
    region(&us, want("a", 5000, 0), true, REGION_SEALED, 1);
    write_byte('x');
    region(&us, want("a", 6000, 0), true, REGION_SEALED, 2); /* size */
    assert_int_equal(read_byte(), 0);
    struct keeper_request r = want("a", 6000, 0);
    r.layout = 2;
    region(&us, r, true, REGION_SEALED, 3);
    r.identity[0] = 1;
    region(&us, r, true, REGION_FILLING, 4);
    reopen(); /* the generation goes on */
    r.identity[0] = 2;
    region(&us, r, true, REGION_FILLING, 5);
    assert_int_equal(unlink(reply.share.path), 0); /* somebody removed it */
    region(&us, r, true, REGION_FILLING, 6);
}

static void test_filling(void **state)
{
    (void)state;
    struct process a = other_process(), b = other_process();
    const struct keeper_request w = want("weights.dit", 5000, 1);
    region(&a, w, true, REGION_FILLING, 1);
    write_byte('x');
    region(&a, w, false, REGION_FILLING, 1);
    region(&b, w, false, REGION_FILLING, 1); /* as it is: another one lives and fills */
    want_fails(vault_seal(vault, &b, w.name, &reply), ERR_BUG, "seals what");
    struct keeper_request other = want("weights.dit", 5000, 2);
    want_fails(vault_region(vault, &b, &other, &reply), ERR_RUNNING, "fills it");
    want_fails(vault_free(vault, &b, w.name), ERR_RUNNING, "fills it");
    region(&b, w, false, REGION_FILLING, 1);
    assert_int_equal(read_byte(), 'x');

    end(&a);
    reopen();
    region(&b, w, true, REGION_FILLING, 2); /* from the beginning */
    assert_int_equal(read_byte(), 0);
    write_byte('y');
    want_ok(vault_seal(vault, &b, w.name, &reply));
    assert_int_equal(reply.state, REGION_SEALED);
    want_ok(vault_seal(vault, &b, w.name, &reply)); /* twice is once */
    end(&b);
    reopen();
    region(&us, w, false, REGION_SEALED, 2); /* sealed outlives its filler */
    assert_int_equal(read_byte(), 'y');
    want_fails(vault_seal(vault, &us, "nothing", &reply), ERR_NONE, "there is none");

    want_ok(vault_free(vault, &us, w.name));
    assert_false(exists("region.weights.dit"));
    want_fails(vault_free(vault, &us, w.name), ERR_NONE, "there is none");
    region(&us, w, true, REGION_FILLING, 3);
}

static void test_no_memory_leaves_nothing(void **state)
{
    (void)state;
    struct keeper_request r = want("huge", UINT64_C(1) << 56, 0);
    region(&us, want("other", 5000, 0), true, REGION_SEALED, 1);
    want_fails(vault_region(vault, &us, &r, &reply), ERR_NOMEM,
               "region huge of 72057594037927936 bytes");
    assert_false(exists("region.huge"));
    want_fails(vault_list(vault, 1, &reply), ERR_NONE, "no more");
    reopen();
    region(&us, want("other", 5000, 0), false, REGION_SEALED, 1);
    region(&us, want("huge", 4096, 0), true, REGION_SEALED, 2); /* and hinders nothing */
}

static void test_requests_that_make_no_sense(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "Kv", "a/b", "../x", "a_b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct keeper_request r = want(bad[i], 4096, 0);
        want_fails(vault_region(vault, &us, &r, &reply), ERR_DATA, "a-z");
    }
    struct keeper_request r = want("a", 0, 0);
    want_fails(vault_region(vault, &us, &r, &reply), ERR_DATA, "0 bytes");
    r = want("a", 4096, 0);
    strcpy(r.device, "cuda:99");
    want_fails(vault_region(vault, &us, &r, &reply), dev_check("cuda:99"), "cuda:99");
    strcpy(r.device, "tape");
    want_fails(vault_region(vault, &us, &r, &reply), dev_check("tape"), "tape");
    for (int i = 0; i < KEEPER_REGIONS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "r%d", i);
        region(&us, want(name, 100, 0), true, REGION_SEALED, 1);
    }
    r = want("more", 100, 0);
    want_fails(vault_region(vault, &us, &r, &reply), ERR_LIMIT, "taken");
    region(&us, want("r7", 100, 0), false, REGION_SEALED, 1);
}

static void test_list(void **state)
{
    (void)state;
    region(&us, want("a", 100, 0), true, REGION_SEALED, 1);
    region(&us, want("b", 200, 1), true, REGION_FILLING, 1);
    region(&us, want("c", 300, 0), true, REGION_SEALED, 1);
    want_ok(vault_free(vault, &us, "a"));
    reopen();
    want_ok(vault_list(vault, 0, &reply));
    assert_string_equal(reply.name, "b");
    assert_string_equal(reply.device, "cpu");
    assert_int_equal(reply.share.n_bytes, 200);
    assert_int_equal(reply.state, REGION_FILLING);
    want_ok(vault_list(vault, 1, &reply));
    assert_string_equal(reply.name, "c");
    want_fails(vault_list(vault, 2, &reply), ERR_NONE, "no more");
    want_fails(vault_list(vault, UINT32_MAX, &reply), ERR_NONE, "no more");
}

/* --- the file -------------------------------------------------------------------------------- */

/* A table of another boot or version, cut, or of noise, is begun anew. */
static void test_a_table_that_is_none(void **state)
{
    (void)state;
    static char kept[65536];
    region(&us, want("a", 100, 0), true, REGION_SEALED, 1);
    vault_close(&vault);
    FILE *f = fopen(scratch_path("regions"), "rb");
    const size_t n = fread(kept, 1, sizeof kept, f);
    fclose(f);
    assert_true(n > 4096 && n < sizeof kept);
    for (int i = 0; i < 5; i++) {
        static char spoilt[65536];
        memcpy(spoilt, kept, n);
        if (i == 0) spoilt[0]++;          /* version */
        if (i == 1) spoilt[20] ^= 1;      /* boot */
        if (i == 2) memset(spoilt, 0, n); /* of an interrupted first start */
        if (i == 3) memset(spoilt, 'x', n);
        scratch_put_bytes("regions", spoilt, i == 4 ? n / 2 : n);
        want_ok(vault_open(&vault, scratch_dir));
        want_fails(vault_list(vault, 0, &reply), ERR_NONE, "no more");
        region(&us, want("a", 100, 0), true, REGION_SEALED, 1);
        vault_close(&vault);
    }
    unlink(scratch_path("regions"));
    assert_int_equal(symlink("/dev/zero", scratch_path("regions")), 0);
    want_fails(vault_open(&vault, scratch_dir), ERR_WRITE, "regions");
    assert_null(vault);
}

/* A keeper that dies at any moment of a making leaves a table that its successor can use. */
static void test_killed_anywhere(void **state)
{
    (void)state;
    uint64_t generation = 0;
    for (int i = 0; i < 60; i++) {
        int fds[2];
        char c;
        assert_int_equal(pipe(fds), 0);
        vault_close(&vault);
        const pid_t child = fork();
        if (child == 0) {
            if (vault_open(&vault, scratch_dir) != OK) _exit(1);
            if (write(fds[1], "x", 1) != 1) _exit(1);
            for (uint64_t k = 0;; k++) {
                struct keeper_request r = want("a", 1000 + k % 7, (uint8_t)(k % 3));
                if (vault_region(vault, &us, &r, &reply) != OK) _exit(1);
            }
        }
        assert_int_equal(read(fds[0], &c, 1), 1);
        usleep((useconds_t)(i * 37));
        kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        close(fds[0]);
        close(fds[1]);

        want_ok(vault_open(&vault, scratch_dir));
        struct keeper_request r = want("a", 5000, 0);
        memset(&reply, 0, sizeof reply);
        want_ok(vault_region(vault, &us, &r, &reply));
        assert_int_equal(reply.state, REGION_SEALED);
        assert_int_equal(read_byte(), i > 0 && !reply.is_new ? 'z' : 0);
        assert_true(reply.generation > generation || !reply.is_new);
        generation = reply.generation;
        write_byte('z');
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_vault, close_vault)

int main(void)
{
    setenv("LONGLIVED_LOG", "error", 1);
    log_open("test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_processes),
        TEST(test_lease_goes_to_one_process),
        TEST(test_lease_names),
        TEST(test_plain_memory),
        TEST(test_another_content_is_made_anew),
        TEST(test_filling),
        TEST(test_no_memory_leaves_nothing),
        TEST(test_requests_that_make_no_sense),
        TEST(test_list),
        TEST(test_a_table_that_is_none),
        TEST(test_killed_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
