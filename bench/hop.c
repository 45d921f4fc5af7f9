/* hop.c - one hop over an edge: from a stage's commit to the next stage's seeing it.
 *
 * Three processes, as in the product: longlived-keeper, and two stages on the product's own shell
 * (procs/stage.c) whose steps commit and look, and compute nothing. The maker stamps the time,
 * raises dit's counter and rings as dit does; the taker reads the clock as soon as its step sees
 * the counter. Between two hops the maker sleeps 1 to 7 ms: the taker always sleeps when a hop
 * begins, and its own look at the ledger, every 5 ms, falls on every phase.
 *
 * The floor is the kernel's part, measured the same way: one process wakes another over an eventfd.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/scratch.h"
#include "common/clock.h"
#include "common/stats.h"
#include "procs/stage.h"

enum { HOPS = 1500, HOPS_WARM = 100, TAKER_MS_MAX = 1000 };

/* Of all three processes. */
static struct shared {
    counter sent_ns, n_sent, n_seen;
    int64_t took_ns[HOPS_WARM + HOPS];
} * shared;

/* 1 to 7 ms, spread evenly, never the same twice in a row. */
static void sleep_between(uint64_t i)
{
    sleep_ns(NS_PER_MS + (int64_t)(i * 2654435761u % 6000) * NS_PER_US);
}

static void see(uint64_t i)
{
    shared->took_ns[i] = now_ns() - (int64_t)ledger_read(&shared->sent_ns);
    ledger_publish(&shared->n_seen, i + 1);
}

/* --- the product's way ------------------------------------------------------------------------ */

static err_t no_open(struct stage *st, void **self)
{
    (void)st;
    *self = shared;
    return OK;
}

static void no_close(void **self)
{
    *self = NULL;
}

/* Blocks belong to a session, or the ledger is refused by whoever maps it next. */
static err_t make_open(struct stage *st, void **self)
{
    ledger_publish(&st->ledger->gateway.n_sessions, 1); /* all zeros: from block 0, without end */
    return no_open(st, self);
}

static err_t make(struct stage *st, void *self, bool *did_work, bool *is_done)
{
    const uint64_t n = ledger_read(&st->ledger->dit.n_latents_blocks);
    (void)self;
    if (ledger_read(&st->ledger->vae.n_latents) < n) return OK; /* the last is on its way */
    *is_done = n == HOPS_WARM + HOPS;
    if (*is_done) return OK;
    sleep_between(n);
    ledger_publish(&shared->sent_ns, (uint64_t)now_ns());
    ledger_publish(&st->ledger->dit.n_latents_blocks, n + 1);
    bells_ring(st->bells, WRITER_VAE);
    *did_work = true;
    return OK;
}

static err_t take(struct stage *st, void *self, bool *did_work, bool *is_done)
{
    const uint64_t n = ledger_read(&st->ledger->vae.n_latents);
    (void)self;
    *is_done = n == HOPS_WARM + HOPS;
    if (*is_done || ledger_read(&st->ledger->dit.n_latents_blocks) == n) return OK;
    see(n);
    ledger_publish(&st->ledger->vae.n_latents, n + 1);
    bells_ring(st->bells, WRITER_GATEWAY);
    bells_ring(st->bells, WRITER_DIT);
    *did_work = true;
    return OK;
}

static void run_stage(enum ledger_writer writer, char *run_dir)
{
    char name[] = "stage", option[] = "--run";
    char *argv[] = {name, option, run_dir, NULL};
    const struct stage_def def = {.writer = writer,
                                  .open = writer == WRITER_DIT ? make_open : no_open,
                                  .step = writer == WRITER_DIT ? make : take,
                                  .close = no_close};
    scratch_quiet();
    _exit(stage_main(3, argv, &def));
}

static err_t write_conf(const char *run_dir)
{
    struct conf c;
    char path[SCRATCH_PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/config.ini", run_dir);
    FILE *f = fopen(path, "w");
    if (!f) return FAIL(ERR_WRITE, "%s: cannot be written", path);
    conf_default(&c);
    conf_write(&c, f);
    return fclose(f) == 0 ? OK : FAIL(ERR_WRITE, "%s: cannot be written", path);
}

static err_t hop_by_stages(const char *run_dir)
{
    err_t e = OK;
    pid_t pid[3] = {0};
    char dir[SCRATCH_PATH_MAX];
    snprintf(dir, sizeof dir, "%s", run_dir);
    TRY(write_conf(dir));
    for (int i = 0; i < 3; i++) {
        TRY(scratch_fork(&pid[i]));
        if (pid[i] > 0) continue;
        if (i == 0) scratch_exec("longlived-keeper", (const char *[]){"--run", dir, NULL});
        run_stage(i == 1 ? WRITER_VAE : WRITER_DIT, dir);
    }
    TRY(scratch_join_all(pid, 3, 2)); /* the keeper stays until it is ended */
out:
    for (int i = 0; i < 3; i++) scratch_kill(&pid[i]);
    return e;
}

/* --- the kernel's part ------------------------------------------------------------------------ */

static void take_events(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t n;
    while (ledger_read(&shared->n_seen) < HOPS_WARM + HOPS) {
        if (poll(&p, 1, TAKER_MS_MAX) != 1 || read(fd, &n, sizeof n) != sizeof n) _exit(1);
        see(ledger_read(&shared->n_seen));
    }
    _exit(0);
}

static err_t hop_by_eventfd(void)
{
    err_t e = OK;
    const uint64_t one = 1;
    pid_t pid = 0;
    const int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0) return FAIL(ERR_AGAIN, "eventfd");
    TRY(scratch_fork(&pid));
    if (pid == 0) take_events(fd);
    for (uint64_t i = 0; i < HOPS_WARM + HOPS; i++) {
        sleep_between(i);
        ledger_publish(&shared->sent_ns, (uint64_t)now_ns());
        if (write(fd, &one, sizeof one) != sizeof one) {
            e = FAIL(ERR_BUG, "eventfd cannot be written");
            goto out;
        }
        while (ledger_read(&shared->n_seen) <= i) sleep_ns(20 * NS_PER_US);
    }
    TRY(scratch_join(&pid));
out:
    scratch_kill(&pid);
    close(fd);
    return e;
}

/* --- both ------------------------------------------------------------------------------------- */

static err_t bench(struct bench *b, const char *run_dir)
{
    err_t e = OK;
    struct bench_case floor = {.name = "hop.eventfd", .shape = "kernel alone", .threads = 1};
    struct bench_case hop = {.name = "hop", .shape = "dit to vae", .threads = 1};
    TRY(hop_by_eventfd());
    TRY(bench_report(b, &floor, shared->took_ns + HOPS_WARM, HOPS));
    hop.floor_us = (double)stats_percentile(shared->took_ns + HOPS_WARM, HOPS, 50) / NS_PER_US;
    memset(shared, 0, sizeof *shared);
    TRY(hop_by_stages(run_dir));
    TRY(bench_report(b, &hop, shared->took_ns + HOPS_WARM, HOPS));
out:
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct bench *b = NULL;
    char run_dir[SCRATCH_PATH_MAX] = "";
    (void)argc;
    TRY(bench_open(&b, argv));
    TRY(scratch_make(run_dir));
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        e = FAIL(ERR_NOMEM, "shared memory");
        goto out;
    }
    TRY(bench(b, run_dir));
out:
    scratch_remove(run_dir);
    bench_close(&b);
    return bench_exit(e);
}
