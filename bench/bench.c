/* bench.c - see bench.h. */
#include "bench/bench.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cpu.h"
#include "common/rng.h"
#include "common/stats.h"

enum {
    GEMM_DIM = 768,   /* three matrices of 2.25 MiB */
    RATE_TRIES = 7,   /* the best of them is the machine's */
    RUNS_MIN = 11,    /* of a slow case */
    RUNS_MAX = 20000, /* of a fast one */
    WARM_UPS = 3,
    FLUSH_BYTES_MIN = 64 << 20,
    TEXT_MAX = 96
};
static const int64_t WANTED_NS = NS_PER_S / 10, ENOUGH_NS = 4LL * NS_PER_S;

struct bench {
    FILE *json;
    char cpu[TEXT_MAX], commit[TEXT_MAX], command[TEXT_MAX];
    double load;  /* of the machine when the bench began: 0 on an idle one */
    float *flush; /* larger than the last-level cache */
    int64_t n_flush;
    double flop_rate[BENCH_THREADS_MAX + 1], byte_rate[BENCH_THREADS_MAX + 1]; /* by threads */
    int64_t took_ns[RUNS_MAX];
};

/* --- the arithmetic --------------------------------------------------------------------------- */

struct bench_times bench_times_of(int64_t *took_ns, int32_t n)
{
    MUST(n > 0);
    const struct stats s = stats_of(took_ns, n);
    return (struct bench_times){
        .n = n,
        .median_us = (double)s.p50 / NS_PER_US,
        .p95_us = (double)s.p95 / NS_PER_US,
        .p99_us = (double)s.p99 / NS_PER_US,
        .min_us = (double)s.min / NS_PER_US,
        .max_us = (double)s.max / NS_PER_US,
    };
}

double bench_floor(const struct bench_case *c, double flop_rate, double byte_rate)
{
    if (c->floor_us > 0) return c->floor_us;
    const double by_flops = c->flops / flop_rate;
    const double by_bytes = c->is_cold ? c->bytes / byte_rate : 0;
    return by_flops > by_bytes ? by_flops : by_bytes;
}

/* --- the machine ------------------------------------------------------------------------------ */

static void fill(float *p, int64_t n, uint64_t stream)
{
    const struct rng_key key = {1, stream};
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)(int32_t)rng_philox(key, (uint64_t)i).w[0] * 1e-9f;
}

/* FLOP per microsecond of `threads` matrix products side by side, each on one thread: how the
 * backend uses BLAS. */
static err_t measure_flops(int32_t threads, double *rate)
{
    const int64_t n = GEMM_DIM * GEMM_DIM;
    float *const m = aligned_alloc(64, (size_t)(3 * n * threads) * sizeof *m);
    int64_t best_ns = INT64_MAX;
    if (!m) return FAIL(ERR_NOMEM, "matrices of the rate");
    fill(m, 3 * n * threads, 1);
    for (int32_t i = 0; i < RATE_TRIES; i++) {
        const int64_t began_ns = now_ns();
#pragma omp parallel for schedule(static, 1) num_threads(threads)
        for (int32_t t = 0; t < threads; t++) {
            float *const a = m + 3 * n * t;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, GEMM_DIM, GEMM_DIM, GEMM_DIM, 1, a,
                        GEMM_DIM, a + n, GEMM_DIM, 0, a + 2 * n, GEMM_DIM);
        }
        const int64_t ns = now_ns() - began_ns;
        if (ns < best_ns) best_ns = ns;
    }
    free(m);
    *rate = 2.0 * GEMM_DIM * GEMM_DIM * GEMM_DIM * threads / (double)best_ns * NS_PER_US;
    return OK;
}

/* Bytes per microsecond: the better of reading alone and a = b + s * c, which counts three. */
static err_t measure_bytes(const struct bench *b, int32_t threads, double *rate)
{
    const int64_t n = b->n_flush;
    float *const a = malloc((size_t)n * sizeof *a), *const c = malloc((size_t)n * sizeof *c);
    const float *const from = b->flush;
    int64_t triad_ns = INT64_MAX, read_ns = INT64_MAX;
    float sum = 0;
    if (!a || !c) {
        free(a);
        free(c);
        return FAIL(ERR_NOMEM, "arrays of the rate");
    }
    memcpy(a, from, (size_t)n * sizeof *a);
    memcpy(c, from, (size_t)n * sizeof *c);
    for (int32_t i = 0; i < RATE_TRIES; i++) {
        int64_t began_ns = now_ns();
#pragma omp parallel for simd schedule(static) num_threads(threads)
        for (int64_t k = 0; k < n; k++) a[k] = from[k] + 0.5f * c[k];
        int64_t ns = now_ns() - began_ns;
        if (ns < triad_ns) triad_ns = ns;
        began_ns = now_ns();
#pragma omp parallel for simd schedule(static) num_threads(threads) reduction(+ : sum)
        for (int64_t k = 0; k < n; k++) sum += a[k];
        ns = now_ns() - began_ns;
        if (ns < read_ns) read_ns = ns;
    }
    *(volatile float *)c = sum; /* or nobody would need it */
    free(a);
    free(c);
    const double bytes = (double)n * sizeof *a;
    *rate = fmax(3 * bytes / (double)triad_ns, bytes / (double)read_ns) * NS_PER_US;
    return OK;
}

void bench_flush(struct bench *b)
{
    /* Every core reads and writes its half: larger than its own cache, and all of it than theirs.
     */
#pragma omp parallel for simd schedule(static) num_threads(BENCH_THREADS_MAX)
    for (int64_t i = 0; i < b->n_flush; i++) b->flush[i] = -b->flush[i];
}

static err_t measure_machine(struct bench *b)
{
    err_t e = OK;
    const long llc = sysconf(_SC_LEVEL3_CACHE_SIZE);
    const int64_t more = llc + llc / 4, bytes = more > FLUSH_BYTES_MIN ? more : FLUSH_BYTES_MIN;
    b->n_flush = bytes / (int64_t)sizeof *b->flush;
    b->flush = malloc((size_t)bytes);
    if (!b->flush) return FAIL(ERR_NOMEM, "a buffer larger than the cache");
    fill(b->flush, b->n_flush, 2);
    for (int32_t t = 1; t <= BENCH_THREADS_MAX; t++) {
        TRY(measure_flops(t, &b->flop_rate[t]));
        TRY(measure_bytes(b, t, &b->byte_rate[t]));
        printf("# %d thread%s: %.1f GFLOP/s (sgemm), %.1f GB/s (memory)\n", t, t > 1 ? "s" : "",
               b->flop_rate[t] / 1e3, b->byte_rate[t] / 1e3);
    }
out:
    return e;
}

err_t bench_open(struct bench **out, char **argv)
{
    err_t e = OK;
    if (!getenv("OMP_WAIT_POLICY")) {
        setenv("OMP_WAIT_POLICY", "passive", 1);
        execv("/proc/self/exe", argv); /* on failure: the waits spin, the times are still times */
    }
    const char *const commit = getenv("BENCH_COMMIT"), *const path = getenv("BENCH_JSON");
    struct bench *b = calloc(1, sizeof *b);
    if (!b) return FAIL(ERR_NOMEM, "bench");
    openblas_set_num_threads(1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    cpu_name(b->cpu, sizeof b->cpu);
    snprintf(b->commit, sizeof b->commit, "%s", commit ? commit : "none");
    snprintf(b->command, sizeof b->command, "%s", argv[0]);
    if (getloadavg(&b->load, 1) != 1) b->load = -1;
    b->json = fopen(path ? path : "build/bench.jsonl", "a");
    if (!b->json) {
        e = FAIL(ERR_WRITE, "%s: cannot be written", path ? path : "build/bench.jsonl");
        goto out;
    }
    TRY(measure_machine(b));
    *out = b;
    b = NULL;
out:
    bench_close(&b);
    return e;
}

void bench_close(struct bench **b)
{
    if (!*b) return;
    if ((*b)->json) fclose((*b)->json);
    free((*b)->flush);
    free(*b);
    *b = NULL;
}

double bench_memory_rate(const struct bench *b, int32_t threads)
{
    return b->byte_rate[threads];
}

/* --- a case ----------------------------------------------------------------------------------- */

err_t bench_report(struct bench *b, const struct bench_case *c, int64_t *took_ns, int32_t n)
{
    MUST(c->threads >= 1 && c->threads <= BENCH_THREADS_MAX);
    const struct bench_times t = bench_times_of(took_ns, n);
    const double flop_rate = c->device ? c->flop_rate : b->flop_rate[c->threads];
    const double byte_rate = c->device ? c->byte_rate : b->byte_rate[c->threads];
    const double floor_us = bench_floor(c, flop_rate, byte_rate);
    const char *const cache = c->is_cold ? "cold" : "warm";
    char floor_json[32] = "null", floor_text[64] = "", work[48] = "";
    if (c->flops > 0 || c->bytes > 0)
        snprintf(work, sizeof work, "  %8.4g GFLOP %8.4g MB", c->flops / 1e9, c->bytes / 1e6);
    if (floor_us > 0) {
        snprintf(floor_json, sizeof floor_json, "%.3f", floor_us);
        snprintf(floor_text, sizeof floor_text, "  floor %10.2f us %5.1f %%", floor_us,
                 100 * floor_us / t.median_us);
    }
    printf(
        "%-20s %-40s t%d %s n %-5d med %10.2f p95 %10.2f p99 %10.2f min %10.2f max %10.2f us%s%s\n",
        c->name, c->shape, c->threads, cache, t.n, t.median_us, t.p95_us, t.p99_us, t.min_us,
        t.max_us, work, floor_text);
    fprintf(
        b->json,
        "{\"name\": \"%s\", \"shape\": \"%s\", \"device\": \"%s\", \"threads\": %d, "
        "\"cache\": \"%s\", \"cpu\": \"%s\", \"cpus\": %ld, \"load\": %.1f, \"commit\": \"%s\", "
        "\"command\": \"%s\", \"n\": %d, "
        "\"median_us\": %.3f, \"p95_us\": %.3f, \"p99_us\": %.3f, \"min_us\": %.3f, "
        "\"max_us\": %.3f, \"floor_us\": %s, \"flops\": %.0f, \"bytes\": %.0f%s}\n",
        c->name, c->shape, c->device ? c->device : "cpu", c->threads, cache, b->cpu,
        sysconf(_SC_NPROCESSORS_ONLN), b->load, b->commit, b->command, t.n, t.median_us, t.p95_us,
        t.p99_us, t.min_us, t.max_us, floor_json, c->flops, c->bytes, c->more ? c->more : "");
    if (fflush(b->json) != 0) return FAIL(ERR_WRITE, "the file of results cannot be written");
    return OK;
}

err_t bench_run(struct bench *b, const struct bench_case *c)
{
    err_t e = OK;
    int32_t n = 0;
    for (int32_t i = 0; i < WARM_UPS; i++) TRY(c->run(c->self));
    const int64_t began_ns = now_ns();
    for (;;) {
        const int64_t so_far_ns = now_ns() - began_ns;
        if (n == RUNS_MAX || (n >= BENCH_RUNS && so_far_ns >= WANTED_NS) ||
            (n >= RUNS_MIN && so_far_ns >= ENOUGH_NS))
            break;
        if (c->is_cold) bench_flush(b);
        const int64_t run_ns = now_ns();
        TRY(c->run(c->self));
        b->took_ns[n++] = now_ns() - run_ns;
    }
    TRY(bench_report(b, c, b->took_ns, n));
out:
    return e;
}

static int64_t median_of(const int64_t *v, int32_t n)
{
    int64_t sorted[RUNS_MAX];
    MUST(n > 0 && n <= RUNS_MAX);
    memcpy(sorted, v, (size_t)n * sizeof *v);
    return stats_of(sorted, n).p50;
}

struct bench_cost bench_cost_of(const int64_t *with_ns, const int64_t *without_ns, int32_t n)
{
    int64_t off_ns[RUNS_MAX];
    const double base = (double)median_of(without_ns, n);
    for (int32_t i = 0; i < n; i++) off_ns[i] = with_ns[i] - without_ns[i];
    const int64_t cost = median_of(off_ns, n);
    for (int32_t i = 0; i < n; i++) off_ns[i] = llabs(off_ns[i] - cost);
    const double error = 1.2533 * 1.4826 * (double)median_of(off_ns, n) / sqrt(n);
    return (struct bench_cost){(double)cost / base, error / base};
}

int bench_exit(err_t e)
{
    if (e != OK) fprintf(stderr, "bench: %s\n", err_text());
    return e == OK ? 0 : 1;
}
