/* stage.c - see stage.h. */
#include "procs/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/heap.h"
#include "common/log.h"
#include "common/source.h"

enum { HOLD_FD = 1000 }; /* above all others, below what a process may have by default */

static volatile sig_atomic_t got_term, got_hup;

static void on_term(int sig)
{
    (void)sig;
    got_term = 1;
}

static void on_hup(int sig)
{
    (void)sig;
    got_hup = 1;
}

static err_t parse_args(int argc, char **argv, const char **run_dir, int *ready_fd, bool *is_need)
{
    *is_need = argc == 2 && strcmp(argv[1], "--need") == 0;
    if (*is_need) return OK;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--run") == 0 && i + 1 < argc) {
            *run_dir = argv[++i];
        } else if (strcmp(argv[i], "--ready-fd") == 0 && i + 1 < argc) {
            char *end;
            const long fd = strtol(argv[++i], &end, 10);
            if (*end || fd < 0 || fd > 65535)
                return FAIL(ERR_USAGE, "--ready-fd %s: a file descriptor", argv[i]);
            *ready_fd = (int)fd;
        } else {
            return FAIL(ERR_USAGE, "unknown argument %s (--run DIR [--ready-fd N])", argv[i]);
        }
    }
    return *run_dir ? OK : FAIL(ERR_USAGE, "--run DIR is missing");
}

/* What procs/supervisor/child.c tells the libraries of a stage, for one that is run by hand: they
 * look before main. Same pid, so supervision does not notice. */
static void exec_with_environment(char **argv)
{
    if (getenv("OMP_WAIT_POLICY")) return;
    setenv("OMP_WAIT_POLICY", "passive", 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1", 1);
    execv("/proc/self/exe", argv); /* on failure: slower, not wrong */
}

static void arm_signals(void)
{
    struct sigaction term = {.sa_handler = on_term}, hup = {.sa_handler = on_hup};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    sigaction(SIGTERM, &term, NULL);
    sigaction(SIGHUP, &hup, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* a terminal's ^C is for the supervisor, which then drains */
    signal(SIGALRM, SIG_DFL);
}

static const char *place_of(const struct conf *c, enum ledger_writer w)
{
    switch (w) {
    case WRITER_TEXT:
        return c->place.text;
    case WRITER_DIT:
        return c->place.dit;
    case WRITER_VAE:
        return c->place.vae;
    default:
        return "cpu";
    }
}

static err_t open_devices(struct stage *st, const struct stage_def *def)
{
    err_t e = OK;
    st->device = place_of(&st->conf, def->writer);
    TRY(dev_open(&st->host, "cpu", st->conf.cpu.threads));
    if (strcmp(st->device, "cpu") == 0) st->dev = st->host;
    else TRY(dev_open(&st->dev, st->device, st->conf.cpu.threads));
    dev_set_graphs(st->dev, st->conf.gpu.graphs);
    if (def->writer == WRITER_DIT && st->conf.place.clean[0]) {
        TRY(dev_open(&st->clean_dev, st->conf.place.clean, st->conf.cpu.threads));
        dev_set_graphs(st->clean_dev, st->conf.gpu.graphs);
    }
out:
    return e;
}

static void close_devices(struct stage *st)
{
    dev_close(&st->clean_dev);
    if (st->dev != st->host) dev_close(&st->dev);
    dev_close(&st->host);
}

static err_t say_need(struct stage *st, const struct stage_def *def)
{
    err_t e = OK;
    struct stage_need n = {0};
    TRY(conf_load(&st->conf, "/dev/stdin", NULL, 0));
    TRY(open_devices(st, def));
    if (def->need) TRY(def->need(st, &n));
    printf("%llu %llu %llu\n", (unsigned long long)n.weights, (unsigned long long)n.state,
           (unsigned long long)n.scratch);
out:
    if (e != OK) printf("%s\n", err_text());
    close_devices(st);
    return e;
}

static void forget_memory(struct ledger_memory *m)
{
    ledger_publish(&m->gpu, 0);
    for (int i = 0; i < MEMORY_CLASSES; i++) ledger_publish(&m->bytes[i], 0);
}

static err_t stage_open(struct stage *st, const struct stage_def *def)
{
    err_t e = OK;
    char path[512];
    const char *name = ledger_writer_names[def->writer];

    snprintf(path, sizeof path, "%s/config.ini", st->run_dir);
    TRY(fault_open(st->run_dir, name));
    TRY(fault(FAULT_STARTED));
    TRY(conf_load(&st->conf, path, NULL, 0));
    if (def->load) def->load(place_of(&st->conf, def->writer));
    TRY(source_resolve(&st->conf));
    TRY(keeper_connect(&st->keeper, st->run_dir, 10000));
    TRY(fault(FAULT_CONNECTED));
    TRY(open_devices(st, def)); /* perhaps while the predecessor is still dying */
    stage_piece(st, "device");
    TRY(keeper_lease(st->keeper, name, 10000, &st->incarnation));
    TRY(fault(FAULT_LEASED));
    stage_piece(st, "lease");

    TRY(keeper_region(st->keeper, st->host, "ledger", "cpu", sizeof(struct ledger), LEDGER_LAYOUT,
                      NULL, &st->ledger_region));
    st->ledger = st->ledger_region.data;
    TRY(ledger_check(st->ledger));
    TRY(fault(FAULT_LEDGER));
    st->head = ledger_head_of(st->ledger, def->writer);
    st->spans = &st->ledger->spans[def->writer];
    st->memory = &st->ledger->memory[def->writer];
    forget_memory(st->memory);
    if (def->writer == WRITER_DIT) {
        st->clean_memory = &st->ledger->memory[LEDGER_MEMORY_CLEAN];
        forget_memory(st->clean_memory);
    }
    ledger_publish(&st->head->incarnation, st->incarnation);
    ledger_publish(&st->head->pid, (uint64_t)getpid());
    ledger_publish(&st->head->n_units, 0);
    ledger_publish(&st->head->unit_ns_sum, 0);
    ledger_publish(&st->head->n_allocs_ready, 0);
    stage_beat(st, PHASE_OPENING, 0);
    TRY(fault(FAULT_NAMED));
    TRY(bells_open(&st->bells, st->run_dir, def->writer));
    TRY(fault(FAULT_BOUND));
out:
    return e;
}

static void stage_close(struct stage *st)
{
    bells_close(&st->bells);
    region_unmap(&st->ledger_region);
    region_unmap(&st->choices_region);
    close_devices(st);
    keeper_close(&st->keeper);
}

/* Regions are counted already. Those that are this process's own are the device's live bytes, too.
 */
static err_t tell_memory(struct dev *d, struct ledger_memory *m, uint64_t own_bytes)
{
    err_t e = OK;
    struct dev_info info = {0};
    int n = -1;
    if (sscanf(dev_name(d), "cuda:%d", &n) == 1) {
        TRY(dev_info(d, &info));
        ledger_publish(&m->bytes[MEMORY_SCRATCH], dev_live_bytes(d) - own_bytes);
    }
    ledger_publish(&m->gpu, (uint64_t)(n + 1));
    ledger_publish(&m->all_bytes, info.all_bytes);
    ledger_publish(&m->used_bytes, info.all_bytes - info.free_bytes);
    ledger_publish(&m->ready_ns, (uint64_t)now_ns());
out:
    return e;
}

err_t stage_tell_memory(struct stage *st)
{
    const err_t e = tell_memory(st->dev, st->memory, st->own_bytes);
    if (e != OK || !st->clean_dev) return e;
    return tell_memory(st->clean_dev, st->clean_memory, st->own_clean_bytes);
}

/* The fd says when this process begins to die, which takes the driver of a GPU a while: Linux lets
 * go of a dying process's descriptors from the highest down, so this one goes before the GPU's. A
 * dot says that it is held to the end. */
static bool holds(int ready_fd)
{
    const int high_fd = fcntl(ready_fd, F_DUPFD_CLOEXEC, HOLD_FD);
    return high_fd >= 0 && write(high_fd, ".", 1) == 1;
}

static err_t say_ready(struct stage *st, int ready_fd)
{
    err_t e = OK;
    char on_gpu[400] = "";
    TRY(stage_tell_memory(st));
    dev_seal(st->dev);
    if (st->clean_dev) dev_seal(st->clean_dev);
    stage_beat(st, PHASE_IDLE, 0); /* no unit yet: the number was the per mille of its weights */
    st->is_ready = true;
    st->allocs_at_ready = (int64_t)heap_calls();
    if (st->dev != st->host) dev_took_text(st->dev, on_gpu, sizeof on_gpu);
    log_info("ready", "incarnation=%llu took_ms=%.1f%s%s", (unsigned long long)st->incarnation,
             (double)(now_ns() - st->began_ns) / NS_PER_MS, st->pieces, on_gpu);
    if (ready_fd < 0) return OK;
    if (write(ready_fd, "\n", 1) != 1) return FAIL(ERR_BUG, "ready fd: %s", strerror(errno));
    if (st->dev == st->host || !holds(ready_fd)) close(ready_fd);
out:
    return e;
}

static bool keeper_is_gone(const struct stage *st)
{
    struct pollfd p = {.fd = keeper_fd(st->keeper), .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static err_t stage_loop(struct stage *st, void *self, const struct stage_def *def)
{
    err_t e = OK;
    bool is_done = false;
    while (!is_done && !got_hup) {
        bool did_work = false;
        st->is_draining = got_term != 0;
        TRY(def->step(st, self, &did_work, &is_done));
        ledger_publish(&st->head->n_dropped, bells_dropped(st->bells));
        ledger_publish(&st->head->n_allocs_ready,
                       heap_calls() - (uint64_t)st->allocs_at_ready + dev_allocs_sealed(st->dev) +
                           (st->clean_dev ? dev_allocs_sealed(st->clean_dev) : 0));
        if (did_work || is_done) continue;
        if (keeper_is_gone(st)) {
            e = FAIL(ERR_AGAIN, "the keeper is gone");
            goto out;
        }
        stage_beat(st, PHASE_IDLE, ledger_read(&st->head->unit));
        bells_wait(st->bells, def->wait_ms ? def->wait_ms(st, self) : STAGE_POLL_MS);
    }
out:
    return e;
}

int stage_main(int argc, char **argv, const struct stage_def *def)
{
    err_t e = OK;
    struct stage st = {.began_ns = now_ns(), .piece_ns = now_ns()};
    void *self = NULL;
    int ready_fd = -1;
    bool is_need = false;

    log_open(ledger_writer_names[def->writer]);
    exec_with_environment(argv);
    arm_signals();
    TRY(parse_args(argc, argv, &st.run_dir, &ready_fd, &is_need));
    if (is_need) return err_exit_status(say_need(&st, def));
    TRY(stage_open(&st, def));
    TRY(def->open(&st, &self));
    TRY(fault(FAULT_OPENED));
    TRY(say_ready(&st, ready_fd));
    TRY(fault(FAULT_READY));
    TRY(stage_loop(&st, self, def));
    TRY(fault(FAULT_DRAINED));
    log_info("drained", "units=%llu", (unsigned long long)ledger_read(&st.head->n_units));
out:
    if (e != OK) log_error("exit", "status=%d msg=\"%s\"", err_exit_status(e), err_text());
    alarm(0);
    if (self) def->close(&self);
    stage_close(&st);
    fault(FAULT_CLOSED);
    return err_exit_status(e);
}

void stage_piece(struct stage *st, const char *name)
{
    const int64_t at_ns = now_ns();
    const size_t n = strlen(st->pieces);
    snprintf(st->pieces + n, sizeof st->pieces - n, " %s_ms=%.1f", name,
             (double)(at_ns - st->piece_ns) / NS_PER_MS);
    st->piece_ns = at_ns;
}

void stage_beat(struct stage *st, enum ledger_phase phase, uint64_t unit)
{
    ledger_publish(&st->head->phase, (uint64_t)phase);
    ledger_publish(&st->head->unit, unit);
    ledger_publish(&st->head->beat_ns, (uint64_t)now_ns());
    /* Twice the supervisor's patience: it speaks first, and in words. */
    alarm(2 * (unsigned)st->conf.supervisor.beat_s_max);
    if (phase == PHASE_OPENING) alarm((unsigned)st->conf.supervisor.ready_s_max);
}

void stage_unit_begin(struct stage *st, enum ledger_phase phase, uint64_t unit)
{
    st->unit_began_ns = now_ns();
    st->unit_phase = phase;
    st->unit = unit;
    stage_beat(st, phase, unit);
}

void stage_span(struct stage *st, enum ledger_phase phase, int64_t unit, int32_t part,
                int64_t began_ns)
{
    ledger_span_add(st->spans, (struct ledger_span){.began_ns = began_ns,
                                                    .ended_ns = now_ns(),
                                                    .unit = unit,
                                                    .phase = (int32_t)phase,
                                                    .part = part});
}

void stage_unit_end(struct stage *st, int32_t part)
{
    const uint64_t took_ns = (uint64_t)(now_ns() - st->unit_began_ns);
    stage_span(st, st->unit_phase, (int64_t)st->unit, part, st->unit_began_ns);
    ledger_publish(&st->head->unit_ns, took_ns);
    ledger_add(&st->head->unit_ns_sum, took_ns);
    ledger_add(&st->head->n_units, 1);
}

err_t stage_job(const struct stage *st, int64_t session, struct job **out)
{
    char path[512];
    err_t e = OK;
    struct job *job = NULL;
    snprintf(path, sizeof path, "%s/job.json", st->run_dir);
    TRY(job_read(path, &job));
    MUST((int64_t)job->id == st->ledger->sessions[session].job);
    *out = job;
out:
    return e;
}

/* Above all that the keeper counts. */
#define OWN_GENERATION ((uint64_t)1 << 63)

static counter *memory_of(struct stage *st, const struct dev *d, const char *region)
{
    const bool is_weights = strncmp(region, "weights.", 8) == 0;
    struct ledger_memory *m = d == st->clean_dev ? st->clean_memory : st->memory;
    return &m->bytes[is_weights ? MEMORY_WEIGHTS : MEMORY_STATE];
}

static uint64_t *own_bytes_of(struct stage *st, const struct dev *d)
{
    return d == st->clean_dev ? &st->own_clean_bytes : &st->own_bytes;
}

err_t stage_region(struct stage *st, struct dev *d, const char *name, uint64_t n_bytes,
                   uint64_t layout, const uint8_t *identity, struct region *out)
{
    err_t e = keeper_region(st->keeper, d, name, dev_name(d), n_bytes, layout, identity, out);
    if (e == ERR_REFUSED) {
        if (!st->owns_memory)
            log_warn("own_memory", "msg=\"%s: a restart loads weights again, and is not exact\"",
                     err_text());
        st->owns_memory = true;
        *own_bytes_of(st, d) += n_bytes;
        e = keeper_own(st->keeper, d, name, n_bytes, OWN_GENERATION | st->incarnation, out);
    }
    if (e != OK) return e;
    if (dev_kind(d) != DEV_CPU) ledger_add(memory_of(st, d, name), n_bytes);
    return fault(FAULT_MAPPED);
}

err_t stage_region_free(struct stage *st, const char *name, struct region *r)
{
    if (r->data && dev_kind(r->dev) != DEV_CPU) {
        counter *bytes = memory_of(st, r->dev, name);
        ledger_publish(bytes, ledger_read(bytes) - r->n_bytes);
    }
    if (r->is_own) *own_bytes_of(st, r->dev) -= r->n_bytes;
    return keeper_free(st->keeper, name, r);
}
