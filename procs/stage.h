/* stage.h - the shell that text, dit, vae and gateway share: arguments, lease, regions, loop, beat.
 *
 * A stage is a plain foreground program: `longlived-NAME --run DIR [--ready-fd N]`. It reads
 * DIR/config.ini, takes the lease on its name, opens its model and regions, writes a newline to the
 * ready fd, and then works in steps until SIGTERM (which drains), SIGHUP (which ends it before its
 * next unit, for a successor) or until the keeper is gone. On a fault it logs one line (`ev=exit
 * status=NN msg="..."`) and exits with the status of the code.
 *
 * The ledger's counters say what work there is; bells only shorten the wait for it.
 */
#ifndef PROCS_STAGE_H
#define PROCS_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/dev.h"
#include "common/err.h"
#include "common/job.h"
#include "ipc/bells.h"
#include "ipc/keeper.h"
#include "ipc/ledger.h"

enum { STAGE_POLL_MS = 5 };

struct stage {
    const char *run_dir;
    struct conf conf;
    struct dev *host; /* "cpu": host regions */
    struct dev *dev;  /* where this stage computes; the same device as host if that is the CPU */
    struct dev *clean_dev; /* of dit: where its clean passes are made, if not on dev; else NULL */
    const char *device;
    struct keeper *keeper;
    struct region ledger_region;
    struct region choices_region; /* choices.h */
    struct ledger *ledger;
    struct ledger_head *head;                    /* our page */
    struct ledger_spans *spans;                  /* ours */
    struct ledger_memory *memory, *clean_memory; /* on dev, on clean_dev */
    struct bells *bells;
    uint64_t incarnation;
    int64_t unit_began_ns;
    enum ledger_phase unit_phase;
    uint64_t unit;
    int64_t allocs_at_ready;
    int64_t began_ns, piece_ns; /* of the start, since main(), and of its piece in hand */
    char pieces[200];           /* of the start: " NAME_ms=T" each */
    bool is_draining;           /* SIGTERM came */
    bool is_ready;
    bool owns_memory; /* regions on dev are this process's: no other may map them */
    uint64_t own_bytes, own_clean_bytes; /* of those, on dev and on clean_dev */
};

/* Memory on a stage's device, in bytes; an edge is part of state. */
struct stage_need {
    uint64_t weights, state, scratch;
};

struct stage_def {
    enum ledger_writer writer;
    /* Begins to load what takes time and needs no device, for this one; may be NULL. */
    void (*load)(const char *device);
    /* Opens model and regions; *self is handed to step and close. */
    err_t (*open)(struct stage *st, void **self);
    /* At most one unit of work. *did_work false: nothing to do now. *is_done: the drain is over. */
    err_t (*step)(struct stage *st, void *self, bool *did_work, bool *is_done);
    void (*close)(void **self);
    /* Opens what computes, without a region, and counts; NULL: no model. `NAME --need` calls it for
     * the configuration on standard input, and prints the three numbers, or why not. */
    err_t (*need)(struct stage *st, struct stage_need *out);
    /* Longest wait for a bell when there is nothing to do; NULL: STAGE_POLL_MS. */
    int32_t (*wait_ms)(struct stage *st, void *self);
};

/* main() of a stage; the exit status. */
int stage_main(int argc, char **argv, const struct stage_def *def);

/* Sign of life inside a unit: call at least once a layer. Re-arms the alarm that ends a hung stage
 * under any supervisor. */
void stage_beat(struct stage *st, enum ledger_phase phase, uint64_t unit);
/* While it opens: a piece of the start ends here, and the next begins. `ev=ready` in the log says
 * how long each took. */
void stage_piece(struct stage *st, const char *name);
/* The job that the session is of, for its files: it is running, so RUN_DIR/job.json is it. */
MUST_USE err_t stage_job(const struct stage *st, int64_t session, struct job **out);
/* Around a unit: durations for status, and its span; part as there. */
void stage_unit_begin(struct stage *st, enum ledger_phase phase, uint64_t unit);
void stage_unit_end(struct stage *st, int32_t part);
/* A span of a piece of a unit that began then and, on the device too, ends now. */
void stage_span(struct stage *st, enum ledger_phase phase, int64_t unit, int32_t part,
                int64_t began_ns);

/* A region of ours on one of the stage's devices, or on the host. Where no process can map
 * another's memory of the device, it is this process's, which is warned of once: what it holds is
 * then gone with the process, and is loaded or rebuilt by the next. */
MUST_USE err_t stage_region(struct stage *st, struct dev *d, const char *name, uint64_t n_bytes,
                            uint64_t layout, const uint8_t *identity, struct region *out);

/* Gives it back; of a name that is not mapped, what a predecessor has left. */
MUST_USE err_t stage_region_free(struct stage *st, const char *name, struct region *r);
/* Into the ledger: what this stage has on its GPU now, and all together. Once at ready; and
 * whenever a region has come or gone after that. */
MUST_USE err_t stage_tell_memory(struct stage *st);

#endif
