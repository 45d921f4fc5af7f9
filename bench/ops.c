/* ops.c - `bench-ops [CONFIG DEVICE [KEY=VALUE ...]]`: each op that the models of a configuration
 * call, alone, with the shapes and types that they call it with (calls.h).
 *
 * Without arguments the demo's on the CPU, with 1 and 2 threads, timed by bench_run: an op with a
 * product runs with warm caches, as in a pass, and has its FLOP as the floor; the others are bound
 * by memory, and caches are emptied before each run.
 *
 * On a device that is named, runs are queued behind work that takes longer than queueing them, so
 * that on a GPU the host's time is in none of them, with a mark between each two: a run is from one
 * mark to the next, as the ops of a pass follow each other. Runs go by turns over copies of all
 * that the op reads and writes that together are several times the cache, so that a run finds there
 * what another op has left and nothing of its own. That is more than an op of a pass has to fetch,
 * whose input was just made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/calls.h"
#include "bench/rates.h"
#include "kernels/ops.h"

enum {
    COPIES_MAX = 64,
    BATCH = 24,        /* queued at once */
    BATCHES = 3,       /* of each the first run, which others were before, is not counted */
    WARM_UPS = 3,      /* the first of a kind may choose its algorithm */
    RATE_ROUNDS = 3,   /* of several tries each */
    AHEAD_NS = 1500000 /* longer than it takes to queue a batch */
};
static const size_t ROTATED_BYTES = (size_t)256 << 20; /* an H100's second-level cache: 50 MB */
static const int64_t LONG_NS = 10000000;               /* a run as long is in one batch */
static const size_t AHEAD_BYTES = (size_t)64 << 20;

/* A call on a device, and its tensors: n_copies times each. */
struct rig {
    struct bench *b;
    const struct conf *conf;
    struct dev *d;
    const char *device; /* NULL: none is named */
    char card[160];
    double flop_rate[DTYPES], byte_rate; /* of a named device, a nanosecond */
    struct dev_marks *marks;
    void *ahead; /* twice AHEAD_BYTES */
    int32_t n_ahead;
    const struct call *call;
    void *memory;
    int32_t n_copies;
    struct tensor t[COPIES_MAX][CALL_ARGS_MAX];
};

/* --- tensors ---------------------------------------------------------------------------------- */

static size_t room_of(struct tensor t)
{
    return (tensor_bytes(t) + 255) / 256 * 256;
}

static err_t fill(struct rig *r, struct tensor t, const void *kept, struct tensor key)
{
    err_t e = OK;
    if (kept) {
        TRY(dev_upload(r->d, t.data, kept, tensor_bytes(t)));
    } else if (t.dtype == DTYPE_F32 || t.dtype == DTYPE_BF16 || t.dtype == DTYPE_F16) {
        const uint64_t seed[2] = {1, (uint64_t)tensor_count(t)};
        TRY(dev_upload(r->d, key.data, seed, sizeof seed));
        TRY(ops_randn(r->d, t, key, 0, 1));
    }
    TRY(dev_sync(r->d));
out:
    return e;
}

/* Random numbers, and the pass's integers; as many copies as the cache cannot hold, or one. */
static err_t place(struct rig *r, const struct call *k)
{
    err_t e = OK;
    const size_t key_room = 256;
    size_t n_bytes = 0;
    for (int32_t i = 0; i < k->n_args; i++) n_bytes += room_of(k->t[i]);
    const size_t n = r->device ? ROTATED_BYTES / n_bytes + 2 : 1;
    r->call = k;
    r->n_copies = (int32_t)(n < COPIES_MAX ? n : COPIES_MAX);
    TRY(dev_alloc(r->d, key_room + n_bytes * (size_t)r->n_copies, &r->memory));
    char *at = (char *)r->memory + key_room;
    for (int32_t c = 0; c < r->n_copies; c++) {
        for (int32_t i = 0; i < k->n_args; i++) {
            struct tensor *const t = &r->t[c][i];
            *t = k->t[i];
            if (t->rank == 0) continue;
            t->data = at;
            at += room_of(*t);
            TRY(fill(r, *t, k->kept[i], TENSOR(r->memory, DTYPE_U64, 2)));
        }
    }
out:
    return e;
}

/* --- a row ------------------------------------------------------------------------------------ */

static err_t run_copy(struct rig *r, int32_t i)
{
    return calls_run(r->call, r->d, r->t[i % r->n_copies], r->conf);
}

static err_t run_one(void *self)
{
    struct rig *r = self;
    const err_t e = run_copy(r, 0);
    return e == OK ? dev_sync(r->d) : e;
}

static err_t batch(struct rig *r, int32_t first, int64_t at_ns[BATCH + 1])
{
    err_t e = OK;
    char *const ahead = r->ahead;
    for (int32_t i = 0; i < r->n_ahead; i++)
        TRY(dev_copy(r->d, ahead, ahead + AHEAD_BYTES, AHEAD_BYTES));
    for (int32_t i = 0; i <= BATCH; i++) {
        TRY(dev_mark(r->d, r->marks, i));
        if (i < BATCH) TRY(run_copy(r, first + i));
    }
    TRY(dev_sync(r->d));
    TRY(dev_marks_read(r->d, r->marks, BATCH + 1, at_ns));
out:
    return e;
}

static err_t time_by_marks(struct rig *r, const struct bench_case *c)
{
    err_t e = OK;
    int64_t at_ns[BATCH + 1], took_ns[BATCHES * BATCH];
    int32_t n = 0;
    for (int32_t i = 0; i < WARM_UPS; i++) TRY(run_copy(r, i));
    for (int32_t k = 0; k < BATCHES; k++) {
        TRY(batch(r, k * BATCH, at_ns));
        for (int32_t i = 1; i < BATCH; i++) took_ns[n++] = at_ns[i + 1] - at_ns[i];
        if (took_ns[0] > LONG_NS) break;
    }
    TRY(bench_report(r->b, c, took_ns, n));
out:
    return e;
}

/* "bf16 4680x1536", or null. */
static size_t write_tensor(struct tensor t, char *out, size_t cap)
{
    size_t n = 0;
    if (t.rank == 0) return (size_t)snprintf(out, cap, "null");
    n += (size_t)snprintf(out, cap, "\"%s ", dtype_name(t.dtype));
    for (int32_t i = 0; i < t.rank && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%d", i ? "x" : "", t.shape[i]);
    return n < cap ? n + (size_t)snprintf(out + n, cap - n, "\"") : n;
}

/* The ceilings (0 where no device is named, or there is no product), and the tensors as a stranger
 * needs them to do the same: bench/yardstick.py. */
static void write_more(const struct rig *r, const struct call *k, char *out, size_t cap)
{
    size_t n =
        (size_t)snprintf(out, cap,
                         ", \"card\": \"%s\", \"ceiling_tflops\": %.4g, "
                         "\"ceiling_gbs\": %.4g, \"stage\": \"%s\", \"op\": \"%s\", "
                         "\"tensors\": [",
                         r->card, r->flop_rate[k->t[1].dtype] / 1e3, r->byte_rate, k->stage, k->op);
    for (int32_t i = 0; i < k->n_args && n < cap; i++) {
        if (i) n += (size_t)snprintf(out + n, cap - n, ", ");
        if (n < cap) n += write_tensor(k->t[i], out + n, cap - n);
    }
    MUST(n + 2 < cap);
    snprintf(out + n, cap - n, "]");
}

static err_t bench_call(struct rig *r, const struct call *k)
{
    err_t e = OK;
    char name[40], more[640];
    struct bench_case c = {.name = name,
                           .device = r->device,
                           .threads = dev_threads(r->d),
                           .is_cold = r->device || k->flops == 0,
                           .flops = k->flops,
                           .bytes = k->bytes,
                           .flop_rate = r->flop_rate[k->t[1].dtype] * 1e3,
                           .byte_rate = r->byte_rate * 1e3,
                           .more = more,
                           .run = run_one,
                           .self = r};
    snprintf(name, sizeof name, "%s.%s", k->stage, k->op);
    calls_text(k, c.shape, sizeof c.shape);
    write_more(r, k, more, sizeof more);
    TRY(place(r, k));
    if (r->device) TRY(time_by_marks(r, &c));
    else TRY(bench_run(r->b, &c));
out:
    dev_free(r->d, &r->memory);
    return e;
}

/* --- the device ------------------------------------------------------------------------------- */

/* Its ceilings, for the types that there are products of; and how much work a batch is queued
 * behind. */
static err_t measure_device(struct rig *r, const struct calls *c)
{
    err_t e = OK;
    struct dev_info info;
    bool is_wanted[DTYPES] = {false};
    TRY(dev_info(r->d, &info));
    snprintf(r->card, sizeof r->card, "%s", info.text);
    for (int32_t i = 0; i < c->n; i++)
        if (c->call[i].flops > 0) is_wanted[c->call[i].t[1].dtype] = true;
    for (int i = 0; i < RATE_ROUNDS; i++) {
        for (enum dtype t = 0; t < DTYPES; t++)
            if (is_wanted[t]) TRY(rates_product(r->d, t, &r->flop_rate[t]));
        TRY(rates_memory(r->d, &r->byte_rate));
    }
    printf("# %s, %s\n", r->device, r->card);
    for (enum dtype t = 0; t < DTYPES; t++)
        if (is_wanted[t])
            printf("# %s: %.4g TFLOP/s (product, %s)\n", r->device, r->flop_rate[t] / 1e3,
                   dtype_name(t));
    printf("# %s: %.4g GB/s (copy)\n", r->device, r->byte_rate);
    const double copy_ns = 2.0 * (double)AHEAD_BYTES / r->byte_rate;
    r->n_ahead = (int32_t)(AHEAD_NS / copy_ns) + 1;
    TRY(dev_marks_open(r->d, &r->marks, BATCH + 1));
    TRY(dev_alloc(r->d, 2 * AHEAD_BYTES, &r->ahead));
out:
    return e;
}

static err_t bench_all(struct bench *b, const struct conf *conf, const char *device,
                       const struct calls *c, int32_t threads)
{
    err_t e = OK;
    struct rig r = {.b = b, .conf = conf, .device = device, .card = "cpu"};
    TRY(dev_open(&r.d, device ? device : "cpu", threads));
    TRY(ops_open(r.d));
    if (device) TRY(measure_device(&r, c));
    for (int32_t i = 0; i < c->n; i++) TRY(bench_call(&r, &c->call[i]));
out:
    if (r.d) {
        dev_marks_close(r.d, &r.marks);
        dev_free(r.d, &r.ahead);
        ops_close(r.d);
    }
    dev_close(&r.d);
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct bench *b = NULL;
    struct conf conf;
    struct calls *calls = calloc(1, sizeof *calls);
    const char *const file = argc > 1 ? argv[1] : "configs/demo.ini";
    const char *const device = argc > 1 ? argv[2] : NULL;
    if (!calls) return bench_exit(FAIL(ERR_NOMEM, "calls"));
    if (argc == 2) {
        e = FAIL(ERR_USAGE, "usage: bench-ops [CONFIG DEVICE [KEY=VALUE ...]]");
        goto out;
    }
    TRY(conf_load(&conf, file, (const char *const *)argv + 3, argc > 3 ? argc - 3 : 0));
    if (device) TRY(dev_check(device));
    TRY(bench_open(&b, argv));
    TRY(calls_collect(calls, &conf, device ? device : "cpu"));
    if (device) {
        TRY(bench_all(b, &conf, device, calls, 1));
        goto out;
    }
    for (int32_t threads = 1; threads <= BENCH_THREADS_MAX; threads++)
        TRY(bench_all(b, &conf, NULL, calls, threads));
out:
    calls_drop(calls);
    free(calls);
    bench_close(&b);
    return bench_exit(e);
}
