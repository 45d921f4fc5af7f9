/* bench.h - times a call many times and puts beside it how fast this machine could be at best.
 *
 * A result is one text line on standard output and one JSON line appended to build/bench.jsonl.
 * Every percentile is a value that was measured: nearest rank, so P99 of 51 runs is the slowest.
 *
 * The floor is the larger of two times: the case's FLOP at this machine's matrix rate, and, only
 * where caches are emptied before each run, its least bytes at this machine's memory rate. Both
 * rates are measured when a bench starts, with as many threads as the case has. A floor that is
 * known otherwise can be given instead.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { BENCH_RUNS = 51, BENCH_THREADS_MAX = 2, BENCH_SHAPE_MAX = 64 };

struct bench;

struct bench_case {
    const char *name; /* STAGE.OP or STAGE.UNIT */
    char shape[BENCH_SHAPE_MAX];
    const char *device;          /* NULL: the CPU, whose ceilings the bench has measured */
    int32_t threads;             /* of the CPU */
    bool is_cold;                /* no cache has what a run reads */
    double flops, bytes;         /* least work of one run; 0: not counted */
    double flop_rate, byte_rate; /* of a device that is named, a microsecond */
    double floor_us;             /* above 0: the floor, whatever flops and bytes say */
    const char *more;            /* members of the JSON line, each behind ", "; NULL: none */
    err_t (*run)(void *self);
    void *self;
};

struct bench_times {
    int32_t n;
    double median_us, p95_us, p99_us, min_us, max_us;
};

/* Measures the machine, for 1 to BENCH_THREADS_MAX threads, and prints what it found. Call it
 * first in main: it may exec the program again, with OpenMP's idle threads asleep as in a stage. */
MUST_USE err_t bench_open(struct bench **out, char **argv);
void bench_close(struct bench **b);

/* Warms up, runs BENCH_RUNS times and until 0.1 s have passed, but stops after 4 s once there are
 * 11; then reports. The first error of run ends it. */
MUST_USE err_t bench_run(struct bench *b, const struct bench_case *c);

/* For a bench that times by itself: n durations, which it sorts; n > 0. */
MUST_USE err_t bench_report(struct bench *b, const struct bench_case *c, int64_t *took_ns,
                            int32_t n);

/* Empties the caches that the threads of a device use. */
void bench_flush(struct bench *b);

/* Bytes per microsecond of memory with this many threads; for a floor of one's own. */
double bench_memory_rate(const struct bench *b, int32_t threads);

/* What bench_run does with a bench's result code: 0, or the sentence on stderr and 1. */
int bench_exit(err_t e);

/* --- the arithmetic --------------------------------------------------------------------------- */

/* Sorts took_ns. */
struct bench_times bench_times_of(int64_t *took_ns, int32_t n);
/* What a thing costs that was done in every other of n pairs of runs: the median of the pairs'
 * differences, as a share of the median without; and the standard error of that median, taken from
 * the median distance from it (1.2533 * 1.4826 of it by the square root of n), so that a few slow
 * runs make neither larger. n > 0. */
struct bench_cost {
    double share, error;
};
struct bench_cost bench_cost_of(const int64_t *with_ns, const int64_t *without_ns, int32_t n);

/* The floor of a case, in microseconds; rates per microsecond. 0: none is known. */
double bench_floor(const struct bench_case *c, double flop_rate, double byte_rate);

#endif
