/* fault.h - named places at which a process can be made to fail, for tests.
 *
 * `--set fault.point=dit.step` makes `up` write RUN_DIR/faults: what is armed, and how often each
 * place was passed. Every process maps it when it starts; without the file a place costs one branch
 * that is never taken. Passages are counted over all incarnations, so a place that kills at its
 * n-th passage kills once, and the successor that does the unit again lives; with fault.repeat it
 * fails at every passage from the n-th on.
 *
 * A test may arm another place in the running pipeline by writing to the file: see struct
 * fault_page.
 */
#ifndef COMMON_FAULT_H
#define COMMON_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

struct conf;

/* Places of the shell that text, dit, vae and gateway share; each stage has its own of these.
 * ID, name, whether an error can be answered there. */
#define FAULT_SHELL(P)                                                                             \
    P(STARTED, "started", true)     /* arguments read */                                           \
    P(CONNECTED, "connected", true) /* to the keeper */                                            \
    P(LEASED, "leased", true)                                                                      \
    P(LEDGER, "ledger", true) /* mapped, nothing written to our page */                            \
    P(NAMED, "named", true)   /* pid and incarnation are in our page */                            \
    P(BOUND, "bound", true)   /* our bell */                                                       \
    P(MAPPED, "mapped", true) /* one more region */                                                \
    P(OPENED, "opened", true) /* model and regions; not yet ready */                               \
    P(READY, "ready", true)   /* said so */                                                        \
    P(DRAINED, "drained", true)                                                                    \
    P(CLOSED, "closed", false)                  /* nothing held any more but the lease */          \
    P(WEIGHTS_FILLING, "weights.filling", true) /* this and the next two: not the gateway */       \
    P(WEIGHTS_FILLED, "weights.filled", true)   /* not yet sealed */                               \
    P(WEIGHTS_SEALED, "weights.sealed", true)

/* Places of one process. "between" means: what the line before names is durable, the next is not.
 */
#define FAULT_OWN(P)                                                                               \
    P(KEEPER_LEASE, "keeper.lease", true)                                                          \
    P(KEEPER_LEASE_TAKEN, "keeper.lease.taken", true) /* from its last holder */                   \
    P(KEEPER_LEASED, "keeper.leased", true)                                                        \
    P(KEEPER_DROPPED, "keeper.dropped", true)   /* what a region was before */                     \
    P(KEEPER_MADE, "keeper.made", true)         /* the file; the record does not count yet */      \
    P(KEEPER_RECORDED, "keeper.recorded", true) /* it counts */                                    \
    P(KEEPER_SEALED, "keeper.sealed", true)                                                        \
    P(TEXT_BEGIN, "text.begin", true)                                                              \
    P(TEXT_ROW, "text.row", true) /* the entry cannot be read now */                               \
    P(TEXT_LAYER, "text.layer", false)                                                             \
    P(TEXT_ENCODED, "text.encoded", true)                                                          \
    P(TEXT_COMMITTED, "text.committed", true)                                                      \
    P(TEXT_STORED, "text.stored", true) /* in cache.file */                                        \
    P(TEXT_COUNTED, "text.counted", true)                                                          \
    P(TEXT_DROP, "text.drop", true) /* its weights are to go */                                    \
    P(TEXT_SEEN, "text.seen", true)                                                                \
    P(DIT_DECIDE, "dit.decide", true)                                                              \
    P(DIT_EMBEDDING, "dit.embedding", true) /* copied; not yet decided */                          \
    P(DIT_RECORD, "dit.record", true)       /* written; not yet counted */                         \
    P(DIT_DECIDED, "dit.decided", true)                                                            \
    P(DIT_BLOCK, "dit.block", true)                                                                \
    P(DIT_PROMPT, "dit.prompt", true) /* its cross K and V are there */                            \
    P(DIT_RECACHE, "dit.recache", true)                                                            \
    P(DIT_RECACHE_LAYER, "dit.recache.layer", false)                                               \
    P(DIT_RECACHED, "dit.recached", true)                                                          \
    P(DIT_NOISE, "dit.noise", true)                                                                \
    P(DIT_LAYER, "dit.layer", false)                                                               \
    P(DIT_STEP, "dit.step", true)                                                                  \
    P(DIT_LATENT, "dit.latent", true)   /* one of the block's is stored */                         \
    P(DIT_LATENTS, "dit.latents", true) /* all are; L is not raised */                             \
    P(DIT_COMMITTED, "dit.committed", true)                                                        \
    P(DIT_SKIP, "dit.skip", true) /* a clean pass that nobody needs */                             \
    P(DIT_SKIPPED, "dit.skipped", true)                                                            \
    P(DIT_CLEAN, "dit.clean", true)                                                                \
    P(DIT_CLEAN_LAYER, "dit.clean.layer", false)                                                   \
    P(DIT_CLEANED, "dit.cleaned", true) /* K is not raised */                                      \
    P(DIT_CLEAN_COMMITTED, "dit.clean.committed", true)                                            \
    P(VAE_BEGIN, "vae.begin", true)                                                                \
    P(VAE_LOADED, "vae.loaded", true)                                                              \
    P(VAE_LAYER, "vae.layer", false)                                                               \
    P(VAE_DECODED, "vae.decoded", true) /* histories written */                                    \
    P(VAE_FRAME, "vae.frame", true)     /* one of the latent's is stored */                        \
    P(VAE_FRAMES, "vae.frames", true)   /* all are; l is not raised */                             \
    P(VAE_COMMITTED, "vae.committed", true)                                                        \
    P(GATEWAY_JOB, "gateway.job", true) /* read */                                                 \
    P(GATEWAY_JOB_ACCEPTED, "gateway.job.accepted", true)                                          \
    P(GATEWAY_SESSION, "gateway.session", true) /* written; not yet counted */                     \
    P(GATEWAY_SESSION_BEGUN, "gateway.session.begun", true)                                        \
    P(GATEWAY_TEXT, "gateway.text", true)     /* of a prompt */                                    \
    P(GATEWAY_SCRIPT, "gateway.script", true) /* written; not yet counted */                       \
    P(GATEWAY_SCRIPTED, "gateway.scripted", true)                                                  \
    P(GATEWAY_PRESET, "gateway.preset", true) /* written; not yet counted */                       \
    P(GATEWAY_PRESET_TAKEN, "gateway.preset.taken", true)                                          \
    P(GATEWAY_HASHES, "gateway.hashes", true) /* their log is open */                              \
    P(GATEWAY_OUTPUT, "gateway.output", true) /* open, its torn tail cut */                        \
    P(GATEWAY_TRIMMED, "gateway.trimmed", true)                                                    \
    P(GATEWAY_OUTPUT_BEGUN, "gateway.output.begun", true)                                          \
    P(GATEWAY_WANT, "gateway.want", false) /* raised */                                            \
    P(GATEWAY_PUT, "gateway.put", true)                                                            \
    P(GATEWAY_HASHED, "gateway.hashed", true)                                                      \
    P(GATEWAY_ENCODED, "gateway.encoded", true)                                                    \
    P(GATEWAY_BODY, "gateway.body", true) /* written; the head that makes it count is not */       \
    P(GATEWAY_WRITTEN, "gateway.written", true)                                                    \
    P(GATEWAY_COMMITTED, "gateway.committed", true)                                                \
    P(GATEWAY_JOB_END, "gateway.job.end", false)                                                   \
    P(GATEWAY_JOB_DONE, "gateway.job.done", false)

#define FAULT_ID(id, name, can_fail) FAULT_##id,
enum fault_point {
    FAULT_SHELL(FAULT_ID) FAULT_SHELLS,
    FAULT_BEFORE_OWN = FAULT_SHELLS - 1,
    FAULT_OWN(FAULT_ID) FAULT_POINTS
};
#undef FAULT_ID

enum { FAULT_NAMES = 4 * FAULT_SHELLS + FAULT_POINTS - FAULT_SHELLS, FAULT_NAME_MAX = 32 };

enum fault_action {
    FAULT_COUNT, /* nothing: passages are counted */
    FAULT_KILL,
    FAULT_STOP,
    FAULT_ABORT,
    FAULT_DELAY,
    FAULT_ENOSPC, /* ERR_WRITE, as a full disk */
    FAULT_NOMEM,
    FAULT_ACTIONS
};
extern const char *const fault_action_names[FAULT_ACTIONS];

/* RUN_DIR/faults. Whoever arms stores `armed` last, 0 first; a passage counted in between may be
 * past `at`, so the first one from `at` on fires. Without repeat it stores 0 in `armed`. */
struct fault_page {
    uint64_t version, n_names;
    _Atomic uint64_t armed;            /* 1 + index of a name; 0 none */
    _Atomic uint64_t action, at;       /* enum fault_action; the passage, from 1 */
    _Atomic uint64_t repeat, delay_ms; /* every passage from `at` on */
    _Atomic uint64_t n_fired;
    char names[FAULT_NAMES][FAULT_NAME_MAX]; /* "": no such place */
    _Atomic uint64_t n_passed[FAULT_NAMES];  /* each written by the one process that has the name */
};
enum { FAULT_VERSION = 1 };

/* Name i, from 0: "dit.leased", "dit.step". NULL: there is no such place. */
const char *fault_name(int32_t i, char name[FAULT_NAME_MAX]);
/* Index of a name, or -1. */
int32_t fault_find(const char *name);
/* docs/RELIABILITY.md's table, and `help faults`. */
void fault_print_help(FILE *f);
/* Relations of section [fault]: a known place, an action that it can have. */
MUST_USE err_t fault_check(const struct conf *c);

/* Makes RUN_DIR/faults, when fault.point is set. */
MUST_USE err_t fault_make(const char *run_dir, const struct conf *c);
/* Maps it, if it is there. process: "keeper", "dit" ... Stays mapped. */
MUST_USE err_t fault_open(const char *run_dir, const char *process);

extern struct fault_page *fault_page; /* NULL: off */
err_t fault_pass(enum fault_point p);

/* A place. Its error is that of a write or an allocation that failed there. */
static inline err_t fault(enum fault_point p)
{
    return __builtin_expect(fault_page != NULL, 0) ? fault_pass(p) : OK;
}

#endif
