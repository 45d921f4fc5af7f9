/* cmd_bench.h - what the files of the command bench share. */
#ifndef SUPERVISOR_CMD_BENCH_H
#define SUPERVISOR_CMD_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "procs/supervisor/args.h"
#include "procs/supervisor/gpus.h"
#include "procs/supervisor/measure.h"
#include "procs/supervisor/pipeline.h"
#include "procs/supervisor/protocol.h"
#include "procs/supervisor/trace.h"

struct bench {
    const struct args *args;
    struct pipeline p;
    struct trace trace; /* of the running job, or the last one */
    json_t *run;        /* what is measured goes here */
    struct gpus *gpus;
    int64_t exec_ns; /* when the processes were started; 0: their first job is over */
};

struct bench_phase {
    const char *protocol, *name;
    err_t (*run)(struct bench *b, int series);
    int series; /* of the seed's: which */
};
enum { BENCH_PHASES = 9 };
extern const struct bench_phase bench_phases[BENCH_PHASES];

/* What a job ends by, before its own end; a stream without one is endless. */
struct bench_until {
    int64_t n_warm;     /* blocks */
    int64_t limit_ns;   /* after those are ready; 0: none */
    int64_t n_shown;    /* blocks shown of a live session; 0: none */
    int64_t n_switches; /* prompts asked meanwhile, at the times of bench_switch_at */
};

/* A job through the pipeline, and its times; the trace is the job's. given_ns may be NULL. */
MUST_USE err_t bench_job(struct bench *b, struct job *job, const struct bench_until *until,
                         struct times *t, int64_t *given_ns);

/* Block whose presentation the i-th prompt is asked after. */
int64_t bench_switch_at(int64_t i);

/* Object NAME of o, made if it is missing. */
json_t *bench_object(json_t *o, const char *name);
/* Peak of the memory that the processes hold now: they allocate before they serve, and no more. */
void bench_put_memory(struct bench *b, json_t *o);

#endif
