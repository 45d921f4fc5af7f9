/* plan.h - what dit does next: a pure function of the ledger. The commit rule lives here.
 *
 * L counts blocks whose latents are committed, K blocks whose clean K/V are; K <= L <= K + 1. A
 * decision for block L precedes all work on it. A switch decided before the clean pass of block
 * L - 1 makes that pass dead work: the recache, which is part of block L, rewrites the same slots.
 */
#ifndef PROCS_DIT_PLAN_H
#define PROCS_DIT_PLAN_H

#include "common/conf.h"
#include "ipc/ledger.h"

enum plan_action {
    PLAN_WAIT,       /* nothing may be done now */
    PLAN_DECIDE,     /* append decision for block L: script record `script` */
    PLAN_SKIP_CLEAN, /* K = L: nobody will read the clean K/V of block L - 1 */
    PLAN_CLEAN,      /* clean pass of block L - 1, then K = L */
    PLAN_BLOCK       /* (recache and) denoise block L, commit its latents, then L + 1 */
};

struct plan {
    enum plan_action action;
    int64_t block;         /* L; for CLEAN, L - 1 */
    int64_t session;       /* that holds the block */
    int64_t script;        /* DECIDE */
    int64_t preset;        /* DECIDE: as in the decision */
    int32_t kind;          /* DECIDE: enum decision_kind */
    int32_t sink_base;     /* DECIDE */
    bool waits_for_prompt; /* WAIT: a due prompt is not encoded yet */
    int64_t needs;         /* WAIT: the decided prompt that a REBUILD lacks; -1 none */
};

/* is_ready(self, script) tells whether an embedding can be read now. */
struct plan plan_next(const struct ledger *l, const struct conf *c,
                      bool (*is_ready)(void *self, const struct ledger_script *s), void *self);

/* What plan_next would say if the clean pass that it asks for now were done. */
struct plan plan_after_clean(const struct ledger *l, const struct conf *c,
                             bool (*is_ready)(void *self, const struct ledger_script *s),
                             void *self);

/* The window under a decision's preset. */
int32_t plan_window(const struct ledger *l, const struct conf *c, int64_t preset);
/* The same and the steps, which the gateway has checked against the configuration: ERR_DATA if it
 * has not. */
MUST_USE err_t plan_preset(const struct ledger *l, const struct conf *c, int64_t preset,
                           int32_t *window, const char **steps);

/* The decision with which the session under way goes on at block L; NULL: none is under way, or its
 * first block is yet to be made. */
const struct ledger_decision *plan_resumed(const struct ledger *l);

/* Its block begins with a recache, which rewrites what the clean pass before it would. */
bool plan_recaches(enum decision_kind kind);

/* First frame and number of frames that the recache before a block processes, in latents of the
 * session, for a decision of this kind, window and sink base at frame `at` (> 0). A switch with a
 * kept sink and a window that has rolled, seen from that sink, does not recompute the sink; else
 * every frame the window holds is. */
void plan_recache(const struct conf *c, int32_t window, enum decision_kind kind, int64_t at,
                  int32_t base, int64_t *first, int32_t *n_frames);

/* Sink base after it, when it was `base` before. */
int32_t plan_sink_base(const struct conf *c, int32_t window, enum decision_kind kind, int64_t at,
                       int32_t base);

#endif
