/* sim.h - the whole pipeline in one process: the decision functions of the shipped stages run under
 * virtual time, over a real ledger and prompt table and symbolic contents, and are killed between
 * any two writes to durable memory.
 *
 * What is real: plan_next, plan_recache (dit), vae_plan_next, text_plan_next, gateway_plan_* and
 * pace, prompts_*, ledger_*, kv_slot, the supervisor's policy. What is modelled: the order of
 * writes around them, written like the stages' own code, a step a durable write; and contents: a
 * tensor is a hash of all that was read to make it. So a read of anything torn, overwritten or not
 * committed gives another frame than the oracle's, which replays the decision log with memory that
 * is never reused (oracle.c).
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include <setjmp.h>
#include <stdio.h>

#include "common/clock.h"
#include "ipc/edge.h"
#include "ipc/prompts.h"
#include "procs/dit/kv.h"
#include "procs/dit/plan.h"
#include "procs/gateway/plan.h"
#include "procs/supervisor/super_policy.h"
#include "procs/text/plan.h"
#include "procs/vae/plan.h"

enum {
    SIM_LAYERS = 2,
    SIM_CLEAN = 3, /* the pass behind the denoising steps, of which a preset has 1 to 3 */
    SIM_PRESETS_MAX = 128,
    SIM_WINDOW_MAX = 12,
    SIM_RING_MAX = 80, /* slots of latents, and of frames */
    SIM_EDGES = 4,     /* memories that the edge has had, and that somebody may have mapped */
    SIM_BLOCKS_MAX = 96,
    SIM_LATENTS_MAX = SIM_BLOCKS_MAX * 3,
    SIM_FRAMES_MAX = SIM_LATENTS_MAX * 4,
    SIM_SESSIONS_MAX = 16,
    SIM_SCRIPTS_MAX = 128,
    SIM_JOBS_MAX = 4,
    SIM_VIDEOS_MAX = 3,
    SIM_PROMPTS_MAX = 4,
    SIM_MAILS_MAX = 32,
    SIM_TRACE = 48
};

/* Ways to break the commit rule; each must be found out. */
enum sim_broken {
    SIM_SOUND,
    SIM_LATENTS_PUBLISHED_EARLY,  /* L before the latents are written */
    SIM_FRAMES_PUBLISHED_EARLY,   /* l before the frames are */
    SIM_DECISION_AFTER_WORK,      /* the recache runs, then the decision is appended */
    SIM_SINK_BASE_APART,          /* the sink base in a word of its own, after the decision */
    SIM_ONE_EMBEDDING,            /* kv holds one embedding, not two by parity */
    SIM_ONE_HISTORY,              /* vae decodes in place */
    SIM_CLEAN_IS_FORGOTTEN,       /* a successor takes K = L */
    SIM_NOISE_OF_THE_PROCESS,     /* a generator with a state, not counted by block and step */
    SIM_FRAMES_FREED_EARLY,       /* vae overwrites what is shown, not what is committed */
    SIM_COMMIT_BEFORE_WRITE,      /* the gateway counts frames, then writes them */
    SIM_OUTPUT_RESUMED_BY_LEDGER, /* a successor does not look into the file */
    SIM_PROMPTS_IN_MESSAGES,      /* text encodes what it is told, not what the script says */
    SIM_BELLS_ARE_TRUSTED,        /* no look every poll interval */
    SIM_REQUESTS_NOT_REMEMBERED,  /* a prompt asked twice is taken twice */
    SIM_FINISH_NOT_WRITTEN,       /* "finish" ends the session that runs, if one does */
    SIM_REQUESTS_BEFORE_SESSION,  /* a prompt is refused while the gateway finds its session */
    SIM_NO_FENCE,                 /* a dead writer's writes land while its successor runs */
    SIM_EDGE_NAMED_EARLY,         /* the edge's generation before the block it begins with */
    SIM_EDGE_ALWAYS_TAKEN,        /* vae does not ask whether a latent is in the edge */
    SIM_PRESET_NOT_DECIDED,       /* steps and window of the newest record, not the decision's */
    SIM_WINDOW_NOT_RECACHED,      /* another window, and no recache */
    SIM_EDGE_TOO_SMALL,           /* a slot less than dit may be ahead */
    SIM_CLEAN_READS_THERE,        /* clean passes elsewhere read the cache that steps write into */
    SIM_RECACHE_OF_ONE,           /* a recache leaves the cache of clean passes as it was */
    SIM_CLEAN_COUNTED_EARLY,      /* K before the first step is through, and the pass with it */
    SIM_VARIANTS
};
extern const char *const sim_broken_names[SIM_VARIANTS];

/* A stage: where it is, and when it takes its next step. A kill clears all but the policy. */
struct sim_stage {
    bool is_alive, is_open, was_idle;
    int line, sub_line, layer_line; /* in its unit, a part of it, a layer there; 0: between two */
    int64_t next_ns;
    int64_t mean_ns;        /* of a step */
    uint64_t n_units_death; /* progress at the last death */
    struct policy policy;
};

/* K and V by slot; keys of the sink unrotated, too. */
struct sim_cache {
    uint64_t k[SIM_LAYERS][SIM_WINDOW_MAX], v[SIM_LAYERS][SIM_WINDOW_MAX];
    uint64_t k_sink[SIM_LAYERS][SIM_WINDOW_MAX];
};

/* Frames on their way through the layers. */
struct sim_pass {
    struct sim_cache *cache;
    uint64_t x[SIM_WINDOW_MAX];
    int64_t first; /* in latents of the session */
    int32_t n, step, base;
};

struct sim_dit {
    struct plan plan;
    int64_t in_force; /* decision whose prompt is loaded; -1 none */
    uint64_t prompt, emb[2];
    int32_t n_steps;
    struct sim_pass in_hand;
    struct sim_pass ahead; /* the clean pass that the first step follows; n 0: none */
    int32_t i, layer, n_tokens, n_tokens_full;
    uint64_t edge;   /* generation that it has mapped; 0 none */
    uint64_t random; /* SIM_NOISE_OF_THE_PROCESS */
    bool is_pending; /* SIM_DECISION_AFTER_WORK */
};

struct sim_vae {
    struct vae_plan plan;
    uint64_t carry, edge; /* generation that it has mapped; 0 none */
    int32_t i;
};

struct sim_text {
    struct text_plan plan;
    uint64_t row[2];
    float *at;                           /* in the table */
    uint64_t told[SIM_SCRIPTS_MAX / 64]; /* SIM_PROMPTS_IN_MESSAGES */
};

enum sim_gateway_work {
    WORK_NONE,
    WORK_ACCEPT,
    WORK_ENTER,
    WORK_APPEND,
    WORK_END,
    WORK_PUT,
    WORK_PROMPT,
    WORK_PRESET,
    WORK_FAIL
};

struct sim_gateway {
    enum sim_gateway_work work;
    struct { /* of the record that is being appended */
        int64_t session, at_block;
        uint64_t request;
        uint32_t text;
    } script;
    struct {
        int64_t at_block;
        uint64_t request;
        int32_t window;
        const char *steps;
    } preset;
    const struct job *job; /* NULL: none runs */
    int64_t at, n_put, n_shown;
    struct pace pace;
    bool has_output, is_draining, is_writing, resumes;
    int64_t video, i;
    int32_t n;
    struct mail {
        bool is_finish, is_preset;
        int32_t window; /* of a preset */
        const char *steps;
        uint64_t request, job;
        uint32_t text;
        int64_t at_ns;
    } mail;                          /* in hand */
    uint64_t waiting[SIM_MAILS_MAX]; /* requests that wait for a receipt */
    int32_t n_waiting;
};

/* A file of whole units and perhaps a torn one. */
struct sim_file {
    int64_t n;
    bool is_torn, has_header;
    uint64_t unit[SIM_FRAMES_MAX];
};

/* A client: asks its jobs one after another, and prompts for those that are live. */
struct sim_client {
    int32_t job, n_jobs;
    struct job jobs[SIM_JOBS_MAX];
    struct job_video videos[SIM_JOBS_MAX][SIM_VIDEOS_MAX];
    struct job_prompt prompts[SIM_JOBS_MAX][SIM_VIDEOS_MAX][SIM_PROMPTS_MAX];
    uint32_t texts[SIM_JOBS_MAX][SIM_VIDEOS_MAX][SIM_PROMPTS_MAX];
    struct job_preset presets[SIM_JOBS_MAX][SIM_VIDEOS_MAX][SIM_PROMPTS_MAX];
    char *prewarm[1];
    bool has_out[SIM_JOBS_MAX], has_hashes[SIM_JOBS_MAX], by_block[SIM_JOBS_MAX];
    int64_t next_ns, finish_at_block[SIM_JOBS_MAX];
    int32_t prompts_left[SIM_JOBS_MAX];
    struct mail asked; /* sent until it is answered */
    uint64_t n_requests;
    bool is_asking, drains[SIM_JOBS_MAX], has_finished[SIM_JOBS_MAX];
    bool has_drained[SIM_JOBS_MAX], is_told_end[SIM_JOBS_MAX];
};

struct sim {
    uint64_t seed, random;
    enum sim_broken broken;
    struct conf conf;

    /* Durable. */
    struct ledger *ledger;
    struct prompts *table;
    struct kv kv;                        /* shape alone: slots */
    struct sim_cache cache, clean_cache; /* regions kv.0 and kv.clean */
    uint64_t embed[2][2];
    uint64_t latents[SIM_RING_MAX];
    uint64_t edge[SIM_EDGES][SIM_RING_MAX], edge_generation; /* of the newest; 0: none yet */
    uint64_t history[2][2];                                  /* by parity */
    uint64_t frames[SIM_RING_MAX];
    struct sim_file out[SIM_SESSIONS_MAX], hashes[SIM_SESSIONS_MAX];
    const struct job *asked; /* RUN_DIR/job.json */
    int32_t sink_base_apart;

    /* Volatile. */
    struct sim_stage stage[WRITERS];
    struct sim_text text;
    struct sim_dit dit;
    struct sim_vae vae;
    struct sim_gateway gateway;
    struct mail mails[SIM_MAILS_MAX]; /* on their way to the gateway */
    int32_t n_mails;
    struct sim_client client;

    /* Faults. */
    int64_t now_ns, heal_ns; /* no fault after heal_ns */
    uint32_t kill_1_in, pause_1_in, drop_1_in, fail_1_in;
    int64_t mail_delay_ns;
    struct sim_dit ghost; /* SIM_NO_FENCE */
    int64_t ghost_ns;

    /* What is known of the run: check.c. */
    struct ledger_decision decisions[SIM_SCRIPTS_MAX];
    struct ledger_script scripts[SIM_SCRIPTS_MAX];
    struct ledger_preset presets[SIM_PRESETS_MAX];
    int64_t first_block[SIM_SESSIONS_MAX], first_frame[SIM_SESSIONS_MAX], end[SIM_SESSIONS_MAX];
    uint64_t last[16];
    uint64_t want_latent[SIM_LATENTS_MAX], want_frame[SIM_FRAMES_MAX];
    uint64_t oracle_k[SIM_LAYERS][SIM_LATENTS_MAX], oracle_v[SIM_LAYERS][SIM_LATENTS_MAX];
    uint64_t oracle_history[2];
    int64_t n_steps, n_kills, n_kills_again, n_kills_both, n_pauses, n_drops, n_units[WRITERS];
    int64_t n_from_edge, n_past_edge, n_ahead; /* clean passes beside a block */
    enum ledger_writer running;

    jmp_buf failed;
    char why[256];
    struct sim_trace {
        int64_t at_ns;
        enum ledger_writer who;
        const char *what;
        int64_t a, b;
    } trace[SIM_TRACE];
    int64_t n_trace;
};

/* Runs a seed to its end. NULL, or what went wrong; the trace is in s. */
const char *sim_run(struct sim *s, uint64_t seed, enum sim_broken broken);
struct sim *sim_open(void);
void sim_close(struct sim **s);
void sim_print_trace(const struct sim *s, FILE *f);

/* --- among the parts -------------------------------------------------------------------------- */

void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
void sim_note(struct sim *s, const char *what, int64_t a, int64_t b);
uint64_t sim_pick(struct sim *s, uint64_t n); /* 0..n-1 */
void sim_ring(struct sim *s, enum ledger_writer to);
void sim_mail(struct sim *s, struct mail m); /* to the gateway: perhaps twice, late, never */
void sim_setup(struct sim *s);               /* configuration, faults and jobs of the seed */
void sim_client_step(struct sim *s);
void sim_answer(struct sim *s, uint64_t request);

/* The edge as a stage finds it when it opens: as it was, made anew, or not to be mapped (0). */
uint64_t sim_map_edge(struct sim *s);
uint64_t *sim_edge_at(struct sim *s, uint64_t generation, int64_t latent);

/* One step of a stage, at most one durable write; false: nothing to do now. */
bool sim_text_step(struct sim *s);
bool sim_dit_step(struct sim *s);
bool sim_vae_step(struct sim *s);
bool sim_gateway_step(struct sim *s);
int64_t sim_gateway_wait_ns(const struct sim *s);

/* After a step of stage w: the invariants, and what was committed against the oracle. */
void sim_check_step(struct sim *s, enum ledger_writer w);
void sim_check_end(struct sim *s);
/* A prompt is refused only when no live session could take it. */
void sim_check_refusal(struct sim *s);
void sim_check_latent_write(struct sim *s, int64_t latent);
void sim_check_edge_write(struct sim *s, int64_t latent);
void sim_check_frame_write(struct sim *s, int64_t frame);
void sim_check_embed_write(struct sim *s, int64_t half, int64_t half_in_force);
/* The oracle: what block `block` must hold, and latent l must decode to. Called in order. */
void sim_oracle_block(struct sim *s, int64_t block);
void sim_oracle_frames(struct sim *s, int64_t latent);
/* What a client may ask for: a window that the configuration has room for, and steps. */
int32_t sim_pick_window(struct sim *s);
const char *sim_pick_steps(struct sim *s);
/* Steps in a text of them. */
int32_t sim_n_steps(const char *steps);
uint64_t sim_text_key(uint32_t text, uint8_t key[PROMPT_KEY_BYTES]);

static inline uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The arithmetic of the model, for stages and oracle alike. */
static inline uint64_t sim_key(uint64_t x, int layer, int pass)
{
    return sim_mix(sim_mix(x, 1), (uint64_t)(layer * 8 + pass));
}
static inline uint64_t sim_value(uint64_t x, int layer, int pass)
{
    return sim_mix(sim_mix(x, 2), (uint64_t)(layer * 8 + pass));
}
static inline uint64_t sim_rotated(uint64_t key, int64_t position)
{
    return sim_mix(sim_mix(key, 3), (uint64_t)position);
}
static inline uint64_t sim_noise(uint64_t seed, int64_t frame, int pass)
{
    return sim_mix(sim_mix(seed, 4), (uint64_t)(frame * 8 + pass));
}
static inline uint64_t sim_layer(uint64_t x, uint64_t seen, uint64_t prompt)
{
    return sim_mix(sim_mix(x, seen), prompt);
}
static inline uint64_t sim_embedding(uint32_t text, int half)
{
    return sim_mix(sim_mix(text, 5), (uint64_t)half);
}
static inline uint64_t sim_prompt(const uint64_t half[2])
{
    return sim_mix(half[0], half[1]);
}

/* A stage's code is written straight on; STEP is where it may be killed. Locals do not outlive a
 * STEP. UNIT_BEGIN ... UNIT_END make a function that returns true once it is through. */
#define UNIT_BEGIN(line_)                                                                          \
    int *const line_of = (line_);                                                                  \
    switch (*line_of) {                                                                            \
    case 0:
#define STEP                                                                                       \
    do {                                                                                           \
        *line_of = __LINE__;                                                                       \
        return false;                                                                              \
    case __LINE__:;                                                                                \
    } while (0)
#define PART(call)                                                                                 \
    do {                                                                                           \
        *line_of = __LINE__;                                                                       \
        __attribute__((fallthrough));                                                              \
    case __LINE__:                                                                                 \
        if (!(call)) return false;                                                                 \
    } while (0)
#define UNIT_END                                                                                   \
    }                                                                                              \
    *line_of = 0;                                                                                  \
    return true

#endif
