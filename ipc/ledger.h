/* ledger.h - the durable truth of a pipeline: what was asked, decided, made.
 *
 * One host region (file RUN_DIR/ledger), one page of counters a writer, and append-only records.
 * Every field has exactly one writer. Counters are lock-free 64-bit atomics: load with acquire,
 * store with release. A record is written whole, then the count is bumped: ledger_publish. So a
 * reader never sees half a record, and a writer killed anywhere leaves nothing to repair.
 *
 * Units. A block is `dit.block` latent frames (3). Blocks and latents are counted over the life of
 * the ledger; a session is a run of blocks [first_block, first_block + n_blocks) that begins with
 * an empty window. The first latent of a session decodes to one RGB frame, every later one to four.
 *
 * The commit rule: a unit of work reads only committed state, writes only memory that no committed
 * state needs, and becomes visible by one ledger_publish after the device has finished.
 */
#ifndef IPC_LEDGER_H
#define IPC_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/prompt.h"

enum {
    LEDGER_PAGE_BYTES = 4096,
    LEDGER_SESSIONS_MAX = 4096,
    LEDGER_SCRIPTS_MAX = 16384,
    LEDGER_PRESETS_MAX = 4096,
    LEDGER_DECISIONS_MAX = 16384,
    LEDGER_TEXT_BYTES = 8 << 20,
    LEDGER_SPANS = 8192, /* of each stage, the newest */
    LEDGER_LAYOUT = 7
};

typedef _Atomic uint64_t counter;

enum ledger_writer { WRITER_TEXT, WRITER_DIT, WRITER_VAE, WRITER_GATEWAY, WRITERS };
extern const char *const ledger_writer_names[WRITERS];

/* What a stage is doing; for status and the supervisor. */
enum ledger_phase {
    PHASE_OPENING, /* unit: per mille of its weights that are loaded */
    PHASE_IDLE,
    PHASE_ENCODE,
    PHASE_PROMPT, /* dit: text MLP and cross K/V of a prompt */
    PHASE_RECACHE,
    PHASE_DENOISE,
    PHASE_CLEAN,
    PHASE_DECODE,
    PHASE_WRITE,
    PHASES
};
extern const char *const ledger_phase_names[PHASES];

/* Head of every writer's page. */
struct ledger_head {
    counter incarnation, pid;
    counter beat_ns;              /* last sign of life, CLOCK_MONOTONIC */
    counter unit;                 /* block, latent, frame or prompt in hand */
    counter phase;                /* enum ledger_phase */
    counter n_units;              /* units done by this incarnation */
    counter unit_ns, unit_ns_sum; /* duration of the last unit; of all units of this incarnation */
    counter n_allocs_ready;       /* host and device allocations since ready: 0 in steady state */
    counter n_ops;                /* kernel ops run by this incarnation */
    counter n_dropped;            /* messages to this incarnation that were none */
};

struct ledger_text {
    struct ledger_head head;
    counter n_scripts_seen; /* script records whose embedding this table has held */
    counter n_encoded;      /* encoder runs, over all incarnations */
    counter n_entries, n_evictions, n_from_file;
};

struct ledger_dit {
    struct ledger_head head;
    counter n_decisions;
    counter n_latents_blocks; /* L: blocks whose clean latents are committed */
    counter n_clean_blocks;   /* K: blocks whose clean K/V are committed; K <= L <= K + 1 */
    /* Committed ones, over all incarnations: more than blocks would be one committed twice. */
    counter n_block_passes, n_clean_passes;
    counter kv_generation;   /* of the regions kv that this incarnation has mapped: their sum */
    counter needs_script;    /* 1 + index of a decided prompt whose embedding is lost; 0 none */
    counter edge_generation; /* of the region edge that dit fills; 0 none */
    counter edge_from;       /* the block from which on latents are in it */
};

struct ledger_vae {
    struct ledger_head head;
    counter n_latents;        /* l: latents decoded */
    counter n_passes;         /* committed ones, over all incarnations */
    counter state_generation; /* of the region vae that holds the state after l latents */
    counter n_rebuilt;        /* latents decoded anew, after the loss of that region */
    counter edge_generation;  /* of the region edge that this incarnation has mapped; 0 none */
    counter n_from_edge;      /* latents decoded from there, over all incarnations */
};

struct ledger_gateway {
    struct ledger_head head;
    counter n_sessions, n_scripts, n_text_bytes;
    counter want;             /* latents that dit may make, counted like l */
    counter n_committed;      /* frames that are in the output, or whose time has passed */
    counter n_hits, n_misses; /* prompts whose embedding was there, or not, when they were asked */
    counter job;              /* jobs accepted */
    counter job_done;         /* jobs finished; job == job_done: no session runs */
    counter job_error;        /* exit status of the last finished job */
    counter stream_bytes;     /* written to standard output by the running session */
    counter n_late, late_ns_max; /* frames presented after their time, live sessions */
    counter t0_ns;               /* when frame 0 of the live session was due; 0: not paced yet */
    counter is_paused;           /* 1: the live session waits for room on the output's disk */
    counter n_refused;           /* requests of clients, over all incarnations */
    counter n_outputs;           /* sessions whose output was begun: emptied, given its header */
    counter played;              /* frames of the running session whose time has passed */
    counter job_end;             /* newest job that was asked to end: it begins nothing more */
    counter n_presets;
};

/* n_blocks of a session that ended before it had a prompt. */
#define LEDGER_VOID UINT64_MAX

struct ledger_session {
    int64_t first_block, first_frame; /* counted over the ledger */
    counter n_blocks; /* set once, when the session's end is known; 0 while it is not */
    int64_t seed;
    int64_t job;     /* which job, from 1 */
    int64_t video;   /* which video of the job, from 0 */
    int64_t is_live; /* paced; prompts may come at any time */
    int64_t files;   /* SESSION_NOISE | SESSION_EMBEDS */
};

/* What files of the job (dump.h) stand for in a session. */
enum { SESSION_NOISE = 1, SESSION_EMBEDS = 2 };

enum { SCRIPT_ASAP = -1, SCRIPT_PREWARM = -2 };
enum { LEDGER_STEPS_BYTES = 28 };

/* A prompt to take effect. */
struct ledger_script {
    uint64_t request; /* a client's number, so that asking twice is asking once; 0 scripted */
    int64_t session;
    int64_t at_block; /* counted over the ledger, or SCRIPT_ASAP, SCRIPT_PREWARM */
    uint8_t key[PROMPT_KEY_BYTES];
    uint32_t text_at, n_text_bytes; /* in ledger->text, cleaned */
    int64_t asked_ns;
    int64_t is_rebuild; /* a replay: the decision that takes it is a REBUILD */
};

/* Steps and window to take effect. A session begins with those of the configuration. */
struct ledger_preset {
    uint64_t request; /* as in a script record */
    int64_t session;
    int64_t at_block; /* counted over the ledger, or SCRIPT_ASAP */
    int64_t asked_ns;
    int32_t window;
    char steps[LEDGER_STEPS_BYTES]; /* spelt as dit.steps, and ended by a zero */
};

/* A SWITCH has another prompt or another window: its block begins with a recache. A REBUILD follows
 * the loss of region kv: that recache is of everything that the window holds, sink included, from
 * the latents that are kept. STEPS has neither: only the steps are others, and nothing is recached.
 */
enum decision_kind { DECISION_START, DECISION_SWITCH, DECISION_REBUILD, DECISION_STEPS };

/* In force from its block to the next decision. Its index's parity says which half of region kv
 * holds the embedding. */
struct ledger_decision {
    int64_t block;
    int64_t session;
    int64_t script;    /* index of the prompt */
    int64_t preset;    /* 1 + index of the preset; 0: steps and window of the configuration */
    int32_t kind;      /* enum decision_kind */
    int32_t sink_base; /* first sink frame, a latent of the session */
    uint8_t key[PROMPT_KEY_BYTES];
    int32_t n_tokens;       /* valid rows of the embedding */
    int32_t n_tokens_full;  /* before it was cut to text.text_len */
    uint64_t kv_generation; /* of regions kv, which hold the embedding: others have lost it */
    int64_t decided_ns;
};

/* What a stage did, from when to when (CLOCK_MONOTONIC): ended_ns is read after the device has
 * finished and, for a unit, after its commit. So the end of a decode is when its frames were ready.
 * A ring; a unit that was done again has two. For those who measure: no decision reads it. */
struct ledger_span {
    int64_t began_ns, ended_ns;
    int64_t unit;  /* block, latent, first frame or prompt */
    int32_t phase; /* enum ledger_phase */
    int32_t part; /* denoise: the step, SPAN_WHOLE the block to its commit; write: frames; else 0 */
};
enum { SPAN_WHOLE = -1 };

struct ledger_spans {
    counter n; /* over all incarnations */
    struct ledger_span ring[LEDGER_SPANS];
};

/* What a stage has on its GPU, by class; dit has two rows where its clean passes have a device of
 * their own. For status: no decision reads it. */
enum { LEDGER_MEMORY_CLEAN = WRITERS, LEDGER_MEMORIES };
enum memory_class {
    MEMORY_WEIGHTS,
    MEMORY_STATE,   /* the KV cache, the VAE's histories */
    MEMORY_EDGE,    /* of latents; vae's */
    MEMORY_SCRATCH, /* gone with the process: activations, tables */
    MEMORY_CLASSES
};
extern const char *const ledger_memory_names[MEMORY_CLASSES];

struct ledger_memory {
    counter gpu; /* 1 + the N of cuda:N; 0: the CPU, and the rest is 0 */
    counter bytes[MEMORY_CLASSES];
    /* Of the GPU, all processes together, as its driver said when this stage became ready, or took
     * or gave back a region after that. */
    counter used_bytes, all_bytes, ready_ns;
};

#define LEDGER_PAGE(type, name)                                                                    \
    union {                                                                                        \
        type name;                                                                                 \
        unsigned char name##_page[LEDGER_PAGE_BYTES];                                              \
    }

struct ledger {
    LEDGER_PAGE(struct ledger_text, text);
    LEDGER_PAGE(struct ledger_dit, dit);
    LEDGER_PAGE(struct ledger_vae, vae);
    LEDGER_PAGE(struct ledger_gateway, gateway);
    struct ledger_session sessions[LEDGER_SESSIONS_MAX];
    struct ledger_script scripts[LEDGER_SCRIPTS_MAX];
    struct ledger_preset presets[LEDGER_PRESETS_MAX];
    struct ledger_decision decisions[LEDGER_DECISIONS_MAX];
    char texts[LEDGER_TEXT_BYTES]; /* prompts, back to back, no terminator */
    struct ledger_spans spans[WRITERS];
    struct ledger_memory memory[LEDGER_MEMORIES];
};

static inline uint64_t ledger_read(const counter *c)
{
    return atomic_load_explicit((counter *)c, memory_order_acquire);
}

static inline void ledger_publish(counter *c, uint64_t value)
{
    atomic_store_explicit(c, value, memory_order_release);
}

/* For a counter's own writer alone. */
static inline void ledger_add(counter *c, uint64_t n)
{
    ledger_publish(c, ledger_read(c) + n);
}

struct ledger_head *ledger_head_of(struct ledger *l, enum ledger_writer w);

/* The embedding of the last decision, and all K and V, went with a region kv that is no more. */
static inline bool ledger_cache_is_lost(const struct ledger *l)
{
    const uint64_t n = ledger_read(&l->dit.n_decisions);
    return n > 0 && l->decisions[n - 1].kv_generation != ledger_read(&l->dit.kv_generation);
}

/* Maps RUN_DIR/ledger read-only, without the keeper: for the command line and status.
 * ERR_NONE when there is none. */
MUST_USE err_t ledger_map(const char *run_dir, const struct ledger **out);
/* What any reader may rely on: counts and indices inside the arrays, texts inside theirs, sessions
 * one after the other, positions small enough to count with. ERR_DATA says what is not so. Asked by
 * each process when it maps the ledger; safe on any bytes. */
MUST_USE err_t ledger_check(const struct ledger *l);
void ledger_unmap(const struct ledger **l);

/* For the spans' own writer alone. */
static inline void ledger_span_add(struct ledger_spans *s, struct ledger_span span)
{
    const uint64_t n = ledger_read(&s->n);
    s->ring[n % LEDGER_SPANS] = span;
    ledger_publish(&s->n, n + 1);
}

/* Copies spans *from, *from + 1, ... in order, at most cap; returns how many, and moves *from past
 * them. Those that the ring has lost by now are skipped: *from says so. */
int32_t ledger_spans_read(const struct ledger_spans *s, uint64_t *from, struct ledger_span *out,
                          int32_t cap);

/* --- arithmetic of positions: pure functions of committed records ----------------------------- */

/* Session that holds the block, or -1 while there is none. */
int64_t ledger_session_of(const struct ledger *l, int64_t block);

/* RGB frames of the first n latents of a session: 0, 1, 5, 9, 13 ... */
static inline int64_t ledger_frames_of(int64_t n_latents)
{
    return n_latents > 0 ? 1 + 4 * (n_latents - 1) : 0;
}

/* Frame, counted over the ledger, at which a block of a session begins. */
static inline int64_t ledger_first_frame(const struct ledger_session *s, int64_t block,
                                         int64_t n_per_block)
{
    return s->first_frame + ledger_frames_of((block - s->first_block) * n_per_block);
}

/* First block after the session; INT64_MAX while its end is open. */
static inline int64_t ledger_session_end(const struct ledger_session *s)
{
    const uint64_t n_blocks = ledger_read(&s->n_blocks);
    if (n_blocks == 0) return INT64_MAX;
    return n_blocks == LEDGER_VOID ? s->first_block : s->first_block + (int64_t)n_blocks;
}

/* Every block of the session is made: its prompts are not needed any more. */
static inline bool ledger_session_is_over(const struct ledger *l, int64_t session)
{
    return (int64_t)ledger_read(&l->dit.n_latents_blocks) >=
           ledger_session_end(&l->sessions[session]);
}

/* dit may make this block. */
static inline bool ledger_is_wanted(const struct ledger *l, int64_t block, int64_t n_per_block)
{
    return (block + 1) * n_per_block <= (int64_t)ledger_read(&l->gateway.want);
}

/* The script record that block takes: newest with at_block <= block, or newest ASAP record of the
 * session that `is_ready` accepts and that is newer than `after` (the last decision's, or -1).
 * Returns -1: nothing new. *must_wait: a record is due that is not ready. Pure. */
int64_t ledger_due_script(const struct ledger *l, int64_t session, int64_t block, int64_t after,
                          bool (*is_ready)(void *self, const struct ledger_script *s), void *self,
                          bool *must_wait);

/* 1 + index of the preset record that block takes: the session's newest with at_block <= block, or
 * ASAP, that is newer than `after` (the last decision's). 0: nothing new. Pure. */
int64_t ledger_due_preset(const struct ledger *l, int64_t session, int64_t block, int64_t after);

#endif
