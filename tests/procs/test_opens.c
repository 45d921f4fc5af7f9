/* test_opens.c - every *_open with its n-th allocation failing, for each n until none does: it says
 * ERR_NOMEM, hands nothing out, and leaves nothing behind (under ASan: not a byte). */
#include "tests/check.h"

#include "tests/scratch.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "common/checkpoint.h"
#include "common/heap.h"
#include "common/job.h"
#include "common/lora.h"
#include "ipc/keeper.h"
#include "ipc/sock.h"
#include "kernels/ops.h"
#include "procs/dit/ahead.h"
#include "procs/dit/dit.h"
#include "procs/gateway/hashes.h"
#include "procs/gateway/out.h"
#include "procs/keeper/keeperd.h"
#include "procs/keeper/vault.h"
#include "procs/supervisor/super.h"
#include "procs/text/store.h"
#include "procs/text/umt5.h"
#include "procs/vae/vae.h"

static struct conf conf;
static struct dev *dev;

/* Opens and, if that went well, closes; with heap call n failing. */
typedef err_t open_call(int n);

/* Only what `call` does may fail. */
#define FAILING(n, call) (heap_fail_at(n), failing_end(call))
static err_t failing_end(err_t e)
{
    heap_fail_at(-1);
    return e;
}

static int open_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* At least n_min allocations, each of which may fail. */
static void check_open(open_call *call, int n_min)
{
    want_ok(call(INT_MAX)); /* what a first call makes for good is not a leak */
    const int fds = open_fds();
    int n = 0;
    for (err_t e = ERR_NOMEM; e != OK; n++) {
        const size_t live = dev_live_bytes(dev);
        e = call(n);
        if (e != OK) want_fails(e, ERR_NOMEM, "");
        assert_int_equal(dev_live_bytes(dev), live);
        assert_int_equal(open_fds(), fds);
    }
    if (n - 1 < n_min) fail_msg("%d allocations, at least %d were expected", n - 1, n_min);
}

#define SIMPLE(name, type, open, close)                                                            \
    static err_t name(int n)                                                                       \
    {                                                                                              \
        struct type *x = NULL;                                                                     \
        const err_t e = FAILING(n, open);                                                          \
        assert_int_equal(e == OK, x != NULL);                                                      \
        close(&x);                                                                                 \
        return e;                                                                                  \
    }

SIMPLE(open_dev, dev, dev_open(&x, "cpu", 1), dev_close)
SIMPLE(open_weights, weights, weights_open(&x), weights_close)
SIMPLE(open_client, client, client_open(&x, scratch_dir), client_close)
SIMPLE(open_bells, bells, bells_open(&x, scratch_dir, WRITER_DIT), bells_close)
SIMPLE(open_vault, vault, vault_open(&x, scratch_dir), vault_close)
SIMPLE(open_keeperd, keeperd, keeperd_open(&x, scratch_dir), keeperd_close)
SIMPLE(open_store, store, store_open(&x, scratch_path("prompts"), &conf), store_close)
SIMPLE(open_checkpoint, checkpoint, checkpoint_open(&x, "tests/golden/lora-nano.safetensors"),
       checkpoint_close)
SIMPLE(open_lora, lora, lora_open(&x, "tests/golden/lora-adapter.safetensors", 0), lora_close)

/* A model declares its weights first; all of it may fail. */
#define MODEL(name, type, open, close)                                                             \
    static err_t name(int n)                                                                       \
    {                                                                                              \
        struct type *x = NULL;                                                                     \
        struct weights *w = NULL;                                                                  \
        want_ok(weights_open(&w));                                                                 \
        const err_t e = FAILING(n, open(&x, dev, &conf, w));                                       \
        assert_int_equal(e == OK, x != NULL);                                                      \
        close(&x);                                                                                 \
        weights_close(&w);                                                                         \
        return e;                                                                                  \
    }

MODEL(open_dit, dit, dit_open, dit_close)
MODEL(open_vae, vae, vae_open, vae_close)
MODEL(open_umt5, umt5, umt5_open, umt5_close)

static err_t open_server(int n)
{
    struct bells *b = NULL;
    struct server *x = NULL;
    want_ok(bells_open(&b, scratch_dir, WRITER_GATEWAY));
    const err_t e = FAILING(n, server_open(&x, scratch_dir, b));
    assert_int_equal(e == OK, x != NULL);
    server_close(&x);
    bells_close(&b);
    return e;
}

static err_t open_ahead(int n)
{
    struct stage st = {.conf = conf};
    struct ahead *x = NULL;
    want_ok(dev_open(&st.clean_dev, "cpu", 1));
    const err_t e = FAILING(n, ahead_open(&x, &st));
    assert_true((e == OK) == (x != NULL));
    ahead_close(&x);
    dev_close(&st.clean_dev); /* which must find nothing */
    return e;
}

static err_t open_keeper(int n)
{
    struct keeperd *d = NULL;
    struct keeper *x = NULL;
    want_ok(keeperd_open(&d, scratch_dir));
    const err_t e = FAILING(n, keeper_connect(&x, scratch_dir, 100));
    assert_int_equal(e == OK, x != NULL);
    keeper_close(&x);
    keeperd_close(&d);
    return e;
}

static err_t open_hashes(int n)
{
    struct hashes *x = NULL;
    int64_t n_lines = 0;
    const err_t e = FAILING(n, hashes_open(&x, scratch_path("sums"), true, &n_lines));
    assert_int_equal(e == OK, x != NULL);
    hashes_close(&x);
    return e;
}

static err_t open_y4m(int n)
{
    struct out *x = NULL;
    int64_t n_frames = 0;
    const struct out_conf oc = {.path = scratch_path("video.y4m"),
                                .width_px = 48,
                                .height_px = 32,
                                .fps = 16,
                                .plugin_dir = "",
                                .resume = true};
    const err_t e = FAILING(n, out_open(&x, &oc, &n_frames));
    assert_int_equal(e == OK, x != NULL);
    out_close(&x);
    return e;
}

static err_t load_conf(int n)
{
    struct conf c;
    return FAILING(n, conf_load(&c, "configs/nano.ini", NULL, 0));
}

static err_t read_job(int n)
{
    struct job *x = NULL;
    const err_t e = FAILING(n, job_read(scratch_path("job.json"), &x));
    assert_int_equal(e == OK, x != NULL);
    job_free(&x);
    return e;
}

static void test_models(void **state)
{
    (void)state;
    check_open(open_dev, 1);
    check_open(open_weights, 1);
    check_open(open_dit, 3);   /* itself, its weights' names, its memory */
    check_open(open_ahead, 3); /* itself, its weights' names, its memory */
    check_open(open_vae, 3);
    check_open(open_umt5, 3);
    check_open(open_checkpoint, 2);
    check_open(open_lora, 3);
}

static void test_sockets(void **state)
{
    (void)state;
    check_open(open_bells, 1);
    check_open(open_server, 1);
    check_open(open_client, 1);
    check_open(open_keeper, 1);
}

static void test_keeper(void **state)
{
    (void)state;
    check_open(open_vault, 1);
    check_open(open_keeperd, 2);
}

static void test_files(void **state)
{
    (void)state;
    char text[] = "a", none[] = "";
    struct job_prompt prompt = {.text = text};
    struct job_video v = {
        .prompts = &prompt, .n_prompts = 1, .n_blocks = 2, .out = none, .hashes = none};
    const struct job job = {.id = 1, .videos = &v, .n_videos = 1};
    want_ok(job_write(scratch_path("job.json"), &job));
    check_open(open_store, 2);
    check_open(open_hashes, 2);
    check_open(open_y4m, 2);
    check_open(load_conf, 2);
    check_open(read_job, 3);
}

static int open_all(void **state)
{
    if (scratch_open(state) != 0) return -1;
    if (conf_load(&conf, "configs/nano.ini", NULL, 0) != OK) return -1;
    return dev_open(&dev, "cpu", 1) == OK && ops_open(dev) == OK ? 0 : -1;
}

static int close_all(void **state)
{
    ops_close(dev);
    dev_close(&dev);
    return scratch_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_keeper),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
