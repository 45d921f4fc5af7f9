/* test_fake_cuda.c - common/dev_cuda.c on machines that one does not have at hand: without GPUs,
 * with the wrong ones, under MPS, where IPC is refused, where any one call fails, where the process
 * whose memory it is has died. Always one sentence, the right code, and nothing left. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/dev.h"
#include "tests/check.h"
#include "tests/fake_cuda/calls.h"
#include "tests/fake_cuda/fake.h"

enum { BYTES = 5000, SCENARIO_CALLS_MAX = 100 };

static void want(err_t e, err_t code, const char *words)
{
    if (e != code) fail_msg("code %d, not %d: %s", e, code, e == OK ? "" : err_text());
    if (!strstr(err_text(), words)) fail_msg("\"%s\" is not in: %s", words, err_text());
    assert_null(strchr(err_text(), '\n'));
}

static int teardown(void **state)
{
    assert_int_equal(fake_cuda_live(), 0);
    return check_teardown(state);
}

/* --- opening ---------------------------------------------------------------------------------- */

static void test_what_cannot_be_opened(void **state)
{
    (void)state;
    static const struct {
        const char *machine, *device, *words;
    } bad[] = {
        {"driver=0", "cuda:0", "cuda:0: no NVIDIA driver for CUDA 13 is installed"},
        {"gpus=0", "cuda:0", "cuda:0: no GPU can be used: no CUDA-capable device"},
        {"gpus=2", "cuda:2", "cuda:2: this machine has 2 GPUs"},
        {"major=8", "cuda:0", "compute capability 8, this build is for 9.0"},
        {"major=10", "cuda:0", "compute capability 10, this build is for 9.0"},
        {"mode=2", "cuda:0", "compute mode"},
        {"mode=3", "cuda:0", "compute mode"},
        {"mps=1", "cuda:0", "MPS"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct dev *d = NULL;
        fake_cuda(bad[i].machine);
        want(dev_check(bad[i].device), ERR_NONE, bad[i].words);
        want(dev_open(&d, bad[i].device, 1), ERR_NONE, bad[i].words);
        assert_null(d);
    }
    fake_cuda("gpus=2");
    assert_ok(dev_check("cuda:1"));
}

/* --- memory that comes late, or never --------------------------------------------------------- */

static void test_memory_of_a_dead_process_comes_late(void **state)
{
    (void)state;
    struct dev *d = NULL;
    void *p = NULL;
    fake_cuda("late_ms=250");
    assert_ok(dev_open(&d, "cuda:0", 1));
    const int64_t began_ns = now_ns();
    assert_ok(dev_alloc(d, BYTES, &p));
    assert_true(now_ns() - began_ns >= 250 * NS_PER_MS);
    dev_free(d, &p);
    dev_close(&d);
}

static void test_memory_that_never_comes(void **state)
{
    (void)state;
    struct dev *d = NULL;
    void *p = NULL, *q = NULL;
    fake_cuda("memory_mb=4");
    assert_ok(dev_open(&d, "cuda:0", 1));
    assert_ok(dev_alloc(d, 3 << 20, &p));
    want(dev_alloc(d, 2 << 20, &q), ERR_NOMEM,
         "cuda:0: no memory for 2097152 bytes, 1048576 of 4194304 are free");
    assert_null(q);
    assert_int_equal(dev_live_bytes(d), 3 << 20);
    dev_free(d, &p);
    dev_close(&d);
}

/* --- any one call fails ----------------------------------------------------------------------- */

static err_t copy_once(void *self)
{
    void **p = self;
    struct dev *d = p[0];
    return dev_copy(d, p[1], p[2], BYTES);
}

static err_t everything(struct dev *d, void **p, void *host)
{
    err_t e = OK;
    struct dev_graph *g = NULL;
    struct dev_marks *m = NULL;
    struct dev *other = NULL;
    int64_t ns[2];
    struct dev_share s = {0};
    TRY(dev_pin(d, host, BYTES));
    TRY(dev_alloc(d, BYTES, &p[1]));
    TRY(dev_alloc(d, BYTES, &p[2]));
    TRY(dev_record(d, &g, copy_once, p));
    TRY(dev_upload(d, p[2], host, BYTES));
    TRY(dev_zero(d, p[1], BYTES));
    TRY(dev_marks_open(d, &m, 2));
    TRY(dev_mark(d, m, 0));
    TRY(dev_replay(d, g));
    TRY(dev_mark(d, m, 1));
    TRY(dev_download(d, host, p[1], BYTES));
    TRY(dev_sync(d));
    TRY(dev_marks_read(d, m, 2, ns));
    MUST(ns[0] == 0 && ns[1] >= 0);
    TRY(dev_open(&other, "cuda:0", 1));
    TRY(dev_order(other, d));
    TRY(dev_copy(other, p[2], p[1], BYTES));
    TRY(dev_order(d, other));
    TRY(dev_share_make(d, "shared", BYTES, &s));
    TRY(dev_share_check(d, &s));
out:
    dev_close(&other);
    if (s.n_bytes) dev_share_drop(d, &s);
    dev_graph_close(d, &g);
    dev_marks_close(d, &m);
    dev_free(d, &p[1]);
    dev_free(d, &p[2]);
    return e;
}

/* A stage's part: maps what another process has made. */
static err_t mapping(struct dev *d, void **p, void *host)
{
    err_t e = OK;
    const struct dev_share *s = p[1];
    void *at = NULL;
    TRY(dev_share_map(d, s, &at));
    TRY(dev_download(d, host, at, BYTES));
    TRY(dev_sync(d));
out:
    dev_share_unmap(d, s, &at);
    return e;
}

/* Calls whose fault nobody can act on: it is every later call's too. */
static bool is_unmaking(const char *call)
{
    static const char *const names[] = {
        "cudaFree",       "cudaStreamDestroy",    "cudaHostUnregister",    "cudaGraphDestroy",
        "cudaMemGetInfo", "cudaGraphExecDestroy", "cudaIpcCloseMemHandle", "cudaEventDestroy"};
    for (size_t i = 0; i < COUNT(names); i++)
        if (strcmp(names[i], call) == 0) return true;
    return false;
}

static void check_failed(const char *call, int error, err_t e)
{
    const bool is_retried = strcmp(call, "cudaMalloc") == 0 && error == 2;
    const bool is_quiet = is_unmaking(call) || is_retried || strcmp(call, "cudaSetDevice") == 0;
    if (e == OK && !is_quiet) fail_msg("%s fails with %d, and nobody says so", call, error);
    if (e == OK) return;
    if (e != ERR_DEVICE && e != ERR_NOMEM && e != ERR_NONE && e != ERR_REFUSED)
        fail_msg("%s fails with %d: code %d: %s", call, error, e, err_text());
    if (error == 700 && e != ERR_DEVICE && e != ERR_NONE)
        fail_msg("%s fails with 700: code %d: %s", call, e, err_text());
    assert_true(err_text()[0] != '\0' && !strchr(err_text(), '\n'));
}

static void fail_each(err_t (*scenario)(struct dev *, void **, void *), void **p)
{
    static const int errors[] = {1, 2, 700, 801};
    for (size_t i = 0; i < COUNT(errors); i++) {
        for (int nth = 1;; nth++) {
            char machine[64];
            static char host[BYTES];
            struct dev *d = NULL;
            snprintf(machine, sizeof machine, "fail=%d error=%d", nth, errors[i]);
            fake_cuda(machine);
            err_t e = dev_open(&d, "cuda:0", 1);
            p[0] = d;
            if (e == OK) e = scenario(d, p, host);
            if (d) dev_unpin(d, host);
            dev_close(&d);
            const char *failed = fake_cuda_failed();
            assert_int_equal(fake_cuda_live(), 0);
            if (!failed) {
                if (nth < 5) fail_msg("only %d calls", nth);
                assert_ok(e);
                break;
            }
            check_failed(failed, errors[i], e);
            assert_true(nth < SCENARIO_CALLS_MAX);
        }
    }
}

static void test_any_call_fails(void **state)
{
    (void)state;
    void *p[3] = {0};
    fail_each(everything, p);
}

/* One call on the device that is waited for, then one on the one that waits; none for itself. */
static void test_an_order_is_two_calls(void **state)
{
    (void)state;
    static const char *const calls[] = {"cudaEventRecord", "cudaStreamWaitEvent"};
    struct dev *a = NULL, *b = NULL;
    fake_cuda("gpus=2");
    assert_ok(dev_open(&a, "cuda:0", 1));
    assert_ok(dev_open(&b, "cuda:1", 1));
    for (int i = 0; i < 2; i++) {
        char machine[64];
        snprintf(machine, sizeof machine, "gpus=2 fail=%d error=801", 1 + i);
        fake_cuda(machine);
        want(dev_order(b, a), ERR_DEVICE, "order: ");
        assert_string_equal(fake_cuda_failed(), calls[i]);
    }
    fake_cuda("gpus=2 fail=3 error=801");
    assert_ok(dev_order(b, a));
    fake_cuda("gpus=2 fail=1 error=801");
    assert_ok(dev_order(a, a));
    assert_null(fake_cuda_failed());
    fake_cuda("gpus=2");
    dev_close(&a);
    dev_close(&b);
}

/* A process on two devices: whatever was called last, what is made for one is of that one. */
static void test_calls_are_about_their_own_device(void **state)
{
    (void)state;
    struct dev *a = NULL, *b = NULL;
    struct dev_graph *g = NULL;
    struct dev_marks *m = NULL;
    struct dev_info info;
    void *p[3] = {0};
    int64_t ns[1];
    fake_cuda("gpus=2");
    assert_ok(dev_open(&a, "cuda:0", 1));
    assert_ok(dev_open(&b, "cuda:1", 1));
    p[0] = a;
#define ON_A(call) (assert_ok(dev_enter(b)), assert_ok(call), fake_cuda_device())
    assert_int_equal(fake_cuda_device(), 1);
    assert_int_equal(ON_A(dev_enter(a)), 0);
    assert_int_equal(ON_A(dev_alloc(a, BYTES, &p[1])), 0);
    assert_int_equal(ON_A(dev_alloc(a, BYTES, &p[2])), 0);
    assert_int_equal(ON_A(dev_info(a, &info)), 0);
    assert_int_equal(ON_A(dev_record(a, &g, copy_once, p)), 0);
    assert_int_equal(ON_A(dev_replay(a, g)), 0);
    assert_int_equal(ON_A(dev_marks_open(a, &m, 1)), 0);
#undef ON_A
    assert_ok(dev_mark(a, m, 0));
    assert_ok(dev_marks_read(a, m, 1, ns));
    dev_marks_close(a, &m);
    dev_graph_close(a, &g);
    dev_free(a, &p[1]);
    dev_free(a, &p[2]);
    dev_close(&a);
    dev_close(&b);
}

static void test_a_fault_of_the_device_stays(void **state)
{
    (void)state;
    struct dev *d = NULL;
    void *p = NULL;
    fake_cuda("");
    assert_ok(dev_open(&d, "cuda:0", 1));
    assert_ok(dev_alloc(d, BYTES, &p));
    fake_cuda("fail=1 error=700");
    want(dev_zero(d, p, BYTES), ERR_DEVICE, "zero: ");
    want(dev_sync(d), ERR_DEVICE, "the GPU's work: ");
    dev_free(d, &p);
    dev_close(&d);
}

static err_t syncs(void *self)
{
    return dev_sync(self);
}

static err_t uploads(void *self)
{
    void **p = self;
    return dev_upload(p[0], p[1], p, sizeof *p);
}

/* Work that breaks dev_record's promise is refused, and the device is as before. */
static void test_work_that_cannot_be_recorded(void **state)
{
    (void)state;
    struct dev *d = NULL;
    void *p[2] = {0};
    struct dev_graph *g = NULL;
    fake_cuda("");
    assert_ok(dev_open(&d, "cuda:0", 1));
    assert_ok(dev_alloc(d, BYTES, &p[1]));
    p[0] = d;
    assert_int_equal(dev_record(d, &g, syncs, d), ERR_DEVICE);
    assert_int_equal(dev_record(d, &g, uploads, p), ERR_DEVICE);
    assert_null(g);
    assert_ok(dev_upload(d, p[1], p, sizeof *p));
    assert_ok(dev_sync(d));
    dev_free(d, &p[1]);
    dev_close(&d);
}

/* Without graphs work is called when it is replayed, each time, and nothing is recorded. */
static void test_without_graphs(void **state)
{
    (void)state;
    struct dev *d = NULL;
    void *p[2] = {0};
    struct dev_graph *g = NULL;
    fake_cuda("graph=0");
    assert_ok(dev_open(&d, "cuda:0", 1));
    assert_ok(dev_alloc(d, BYTES, &p[1]));
    p[0] = d;
    assert_int_equal(dev_record(d, &g, uploads, p), ERR_DEVICE);
    dev_set_graphs(d, false);
    assert_ok(dev_record(d, &g, uploads, p));
    for (int i = 0; i < 2; i++) {
        assert_ok(dev_zero(d, p[1], sizeof *p));
        assert_ok(dev_replay(d, g));
        assert_memory_equal(p[1], p, sizeof *p);
    }
    dev_graph_close(d, &g);
    dev_free(d, &p[1]);
    dev_close(&d);
}

/* --- memory of another process ---------------------------------------------------------------- */

struct keeper {
    pid_t pid;
    int in_fd; /* closed: it ends */
    struct dev_share s;
};

/* A keeper's part, in a process of its own, by exec: makes shared memory and waits. */
static int make_and_wait(void)
{
    struct dev *d = NULL;
    struct dev_share s = {0};
    char c;
    fake_cuda("");
    if (dev_open(&d, "cuda:0", 1) != OK || dev_share_make(d, "shared", BYTES, &s) != OK) return 1;
    if (write(STDOUT_FILENO, &s, sizeof s) != sizeof s) return 2;
    const bool is_end = read(STDIN_FILENO, &c, 1) == 0;
    dev_share_drop(d, &s);
    dev_close(&d);
    return is_end ? 0 : 3;
}

static void start(struct keeper *k)
{
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    k->pid = fork();
    assert_true(k->pid >= 0);
    if (k->pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        for (int i = 0; i < 2; i++) close(in[i]), close(out[i]);
        execl("/proc/self/exe", "test_fake_cuda", "make", NULL);
        _exit(9);
    }
    close(in[0]);
    close(out[1]);
    assert_int_equal(read(out[0], &k->s, sizeof k->s), sizeof k->s);
    close(out[0]);
    k->in_fd = in[1];
}

static void finish(struct keeper *k, int signo)
{
    int status = 0;
    if (signo) assert_int_equal(kill(k->pid, signo), 0);
    close(k->in_fd);
    assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
    assert_true(signo ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The mapping of a dead keeper's memory is good to the end; opened afresh, it is gone. */
static void test_the_keeper_dies(void **state)
{
    (void)state;
    struct keeper k;
    struct dev *d = NULL;
    void *at = NULL, *again = NULL;
    uint8_t in[BYTES], out[BYTES] = {1};
    memset(in, 7, sizeof in);
    fake_cuda("");
    start(&k);
    assert_ok(dev_open(&d, "cuda:0", 1));
    assert_ok(dev_share_map(d, &k.s, &at));
    assert_ok(dev_download(d, out, at, BYTES));
    for (int i = 0; i < BYTES; i++) assert_int_equal(out[i], 0);
    finish(&k, SIGKILL);
    assert_ok(dev_upload(d, at, in, BYTES));
    assert_ok(dev_download(d, out, at, BYTES));
    assert_ok(dev_sync(d));
    assert_memory_equal(out, in, BYTES);
    want(dev_share_map(d, &k.s, &again), ERR_NONE, "its memory is gone");
    assert_null(again);
    dev_share_unmap(d, &k.s, &at);
    dev_close(&d);
}

static void test_another_memorys_handle(void **state)
{
    (void)state;
    struct keeper k;
    struct dev *d = NULL;
    void *at = NULL;
    fake_cuda("");
    start(&k);
    assert_ok(dev_open(&d, "cuda:0", 1));
    for (size_t i = 0; i < sizeof k.s.nonce; i++) {
        struct dev_share s = k.s;
        s.nonce[i] ^= 0x80;
        want(dev_share_map(d, &s, &at), ERR_NONE, "the handle opens other memory");
        assert_null(at);
    }
    struct dev_share s = k.s;
    s.n_bytes = (uint64_t)64 << 20; /* its end is not in that memory */
    assert_int_not_equal(dev_share_map(d, &s, &at), OK);
    assert_null(at);
    dev_close(&d);
    finish(&k, 0);
}

static void test_any_call_of_a_mapping_fails(void **state)
{
    (void)state;
    struct keeper k;
    start(&k);
    void *p[3] = {NULL, &k.s, NULL};
    fail_each(mapping, p);
    finish(&k, 0);
}

static void test_ipc_is_refused(void **state)
{
    (void)state;
    struct keeper k;
    struct dev *d = NULL;
    struct dev_share s = {0};
    void *at = NULL;
    fake_cuda("ipc=0 gpus=2");
    assert_ok(dev_open(&d, "cuda:1", 1));
    want(dev_share_make(d, "kv", BYTES, &s), ERR_REFUSED, "kv: ");
    assert_int_equal(s.n_bytes, 0);
    start(&k);
    fake_cuda("ipc=2 gpus=2");
    want(dev_share_map(d, &k.s, &at), ERR_REFUSED, "shared: ");
    fake_cuda("peer=0 gpus=2"); /* the keeper's is on the other one */
    want(dev_share_map(d, &k.s, &at), ERR_REFUSED, "shared: ");
    assert_null(at);
    for (size_t i = 0; i < 2; i++) { /* call 1 sets the device */
        char machine[64];
        const int errors[] = {101, 711};
        snprintf(machine, sizeof machine, "gpus=2 fail=2 error=%d", errors[i]);
        fake_cuda(machine);
        want(dev_share_map(d, &k.s, &at), ERR_REFUSED, "shared: ");
        assert_string_equal(fake_cuda_failed(), "cudaIpcOpenMemHandle");
    }
    fake_cuda("gpus=2");
    assert_ok(dev_share_map(d, &k.s, &at));
    dev_share_unmap(d, &k.s, &at);
    dev_close(&d);
    finish(&k, 0);
}

/* The driver's word on two GPUs; a GPU and itself are one, a GPU and a CPU share nothing. */
static void test_peers(void **state)
{
    (void)state;
    struct dev *gpu = NULL, *cpu = NULL;
    fake_cuda("gpus=2");
    assert_ok(dev_open(&gpu, "cuda:0", 1));
    assert_ok(dev_open(&cpu, "cpu", 1));
    assert_ok(dev_check_peer(gpu, "cuda:1"));
    want(dev_check_peer(gpu, "cuda:2"), ERR_NONE, "peer access: ");
    want(dev_check_peer(gpu, "cpu"), ERR_REFUSED, "cpu");
    want(dev_check_peer(cpu, "cuda:0"), ERR_REFUSED, "cuda:0");
    want(dev_check_peer(cpu, "cpu"), ERR_REFUSED, "cpu");
    fake_cuda("gpus=2 peer=0");
    want(dev_check_peer(gpu, "cuda:1"), ERR_REFUSED, "cuda:0 and cuda:1 do not reach");
    assert_ok(dev_check_peer(gpu, "cuda:0"));
    fake_cuda("gpus=2 peer=2");
    want(dev_check_peer(gpu, "cuda:1"), ERR_REFUSED, "cuda:0 and cuda:1 do not reach");
    for (int nth = 1; nth <= 2; nth++) {
        char machine[64];
        snprintf(machine, sizeof machine, "gpus=2 fail=%d error=700", nth);
        fake_cuda(machine);
        want(dev_check_peer(gpu, "cuda:1"), ERR_DEVICE, "peer access: ");
    }
    fake_cuda("gpus=2");
    dev_close(&gpu);
    dev_close(&cpu);
}

/* Memory of one GPU, filled by a process that computes on the other, as dit fills the edge. */
static void test_a_copy_to_a_peer(void **state)
{
    (void)state;
    struct keeper k;
    struct dev *d = NULL;
    void *at = NULL, *p = NULL;
    uint8_t in[BYTES], out[BYTES] = {0};
    memset(in, 9, sizeof in);
    fake_cuda("gpus=2");
    start(&k);
    assert_ok(dev_open(&d, "cuda:1", 1));
    assert_ok(dev_share_map(d, &k.s, &at));
    assert_ok(dev_alloc(d, BYTES, &p));
    assert_ok(dev_upload(d, p, in, BYTES));
    assert_ok(dev_copy(d, at, p, BYTES));
    assert_ok(dev_download(d, out, at, BYTES));
    assert_ok(dev_sync(d));
    assert_memory_equal(out, in, BYTES);
    dev_free(d, &p);
    dev_share_unmap(d, &k.s, &at);
    dev_close(&d);
    finish(&k, 0);
}

#define FAKE_TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "make") == 0) _exit(make_and_wait()); /* frees nothing */
    const struct CMUnitTest tests[] = {
        FAKE_TEST(test_what_cannot_be_opened),
        FAKE_TEST(test_memory_of_a_dead_process_comes_late),
        FAKE_TEST(test_memory_that_never_comes),
        FAKE_TEST(test_any_call_fails),
        FAKE_TEST(test_an_order_is_two_calls),
        FAKE_TEST(test_calls_are_about_their_own_device),
        FAKE_TEST(test_a_fault_of_the_device_stays),
        FAKE_TEST(test_work_that_cannot_be_recorded),
        FAKE_TEST(test_without_graphs),
        FAKE_TEST(test_the_keeper_dies),
        FAKE_TEST(test_another_memorys_handle),
        FAKE_TEST(test_any_call_of_a_mapping_fails),
        FAKE_TEST(test_ipc_is_refused),
        FAKE_TEST(test_peers),
        FAKE_TEST(test_a_copy_to_a_peer),
    };
    return cmocka_run_group_tests_name("fake_cuda", tests, NULL, NULL);
}
