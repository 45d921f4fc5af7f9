/* sim.c - the scheduler: virtual time, bells and mails, deaths and successors. */
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define POLL_NS ((int64_t)5 * NS_PER_MS)
#define BELL_NS ((int64_t)20 * NS_PER_US)
/* Long enough for anything that still makes progress: faults end long before. */
#define END_NS ((int64_t)120 * NS_PER_S)
enum { STEPS_MAX = 400000 };

static const struct policy_limits limits = {
    .n_deaths_max = 1000,
    .n_faults_max = 1000,
    .deaths_ns = 60ll * NS_PER_S,
    .ready_ns = 60ll * NS_PER_S,
    .stop_ns = 60ll * NS_PER_S,
};

const char *const sim_broken_names[SIM_VARIANTS] = {
    [SIM_SOUND] = "sound",
    [SIM_LATENTS_PUBLISHED_EARLY] = "latents published before they are written",
    [SIM_FRAMES_PUBLISHED_EARLY] = "frames published before they are written",
    [SIM_DECISION_AFTER_WORK] = "decision appended after the work",
    [SIM_SINK_BASE_APART] = "sink base stored apart from the decision",
    [SIM_ONE_EMBEDDING] = "one embedding, not two by parity",
    [SIM_ONE_HISTORY] = "one set of vae histories, not two by parity",
    [SIM_CLEAN_IS_FORGOTTEN] = "a successor takes the clean pass for done",
    [SIM_NOISE_OF_THE_PROCESS] = "noise from a generator with a state",
    [SIM_FRAMES_FREED_EARLY] = "frames freed when shown, not when committed",
    [SIM_COMMIT_BEFORE_WRITE] = "frames counted before they are written",
    [SIM_OUTPUT_RESUMED_BY_LEDGER] = "output resumed by the count, not by the file",
    [SIM_PROMPTS_IN_MESSAGES] = "prompts only in messages",
    [SIM_BELLS_ARE_TRUSTED] = "bells trusted, no look every 5 ms",
    [SIM_REQUESTS_NOT_REMEMBERED] = "a request asked twice is taken twice",
    [SIM_FINISH_NOT_WRITTEN] = "an end that is not written down",
    [SIM_REQUESTS_BEFORE_SESSION] = "requests before the session is found",
    [SIM_NO_FENCE] = "no fence: a dead writer's writes land later",
    [SIM_EDGE_NAMED_EARLY] = "the edge named before the block it begins with",
    [SIM_EDGE_ALWAYS_TAKEN] = "latents taken from the edge unasked",
    [SIM_PRESET_NOT_DECIDED] = "the newest preset, not the decision's",
    [SIM_WINDOW_NOT_RECACHED] = "another window without a recache",
    [SIM_EDGE_TOO_SMALL] = "an edge with a slot less than dit may be ahead",
    [SIM_CLEAN_READS_THERE] = "clean passes elsewhere without a cache of their own",
    [SIM_RECACHE_OF_ONE] = "a recache of one cache of two",
    [SIM_CLEAN_COUNTED_EARLY] = "a clean pass elsewhere counted before it is made",
};

struct sim *sim_open(void)
{
    struct sim *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->ledger = calloc(1, sizeof *s->ledger);
    s->table = calloc(1, 64 * 1024);
    if (!s->ledger || !s->table) sim_close(&s);
    return s;
}

void sim_close(struct sim **s)
{
    if (!*s) return;
    free((*s)->ledger);
    free((*s)->table);
    free(*s);
    *s = NULL;
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(s->why, sizeof s->why, fmt, args);
    va_end(args);
    longjmp(s->failed, 1);
}

void sim_note(struct sim *s, const char *what, int64_t a, int64_t b)
{
    s->trace[s->n_trace++ % SIM_TRACE] = (struct sim_trace){s->now_ns, s->running, what, a, b};
}

void sim_print_trace(const struct sim *s, FILE *f)
{
    const int64_t first = s->n_trace > SIM_TRACE ? s->n_trace - SIM_TRACE : 0;
    for (int64_t i = first; i < s->n_trace; i++) {
        const struct sim_trace *t = &s->trace[i % SIM_TRACE];
        fprintf(f, "  %10.3f ms %-7s %s %lld %lld\n", (double)t->at_ns / NS_PER_MS,
                ledger_writer_names[t->who], t->what, (long long)t->a, (long long)t->b);
    }
}

uint64_t sim_pick(struct sim *s, uint64_t n)
{
    s->random = sim_mix(s->random, 9);
    return n ? s->random % n : 1; /* 0: what never happens */
}

static int64_t spread(struct sim *s, int64_t mean_ns)
{
    return 1 + (int64_t)sim_pick(s, (uint64_t)(2 * mean_ns));
}

static bool has_faults(const struct sim *s)
{
    return s->now_ns < s->heal_ns;
}

/* --- the edge ----------------------------------------------------------------------------------
 */

/* Made anew as after a keeper's death: who has the old memory mapped goes on with it. */
uint64_t sim_map_edge(struct sim *s)
{
    const bool is_lost = s->edge_generation == 0 || (has_faults(s) && sim_pick(s, 4) == 0);
    if (is_lost) memset(s->edge[++s->edge_generation % SIM_EDGES], 0, sizeof *s->edge);
    return has_faults(s) && sim_pick(s, 6) == 0 ? 0 : s->edge_generation;
}

uint64_t *sim_edge_at(struct sim *s, uint64_t generation, int64_t latent)
{
    const int64_t n = edge_slots(&s->conf) - (s->broken == SIM_EDGE_TOO_SMALL);
    return &s->edge[generation % SIM_EDGES][latent % n];
}

/* --- bells and mails -------------------------------------------------------------------------- */

void sim_ring(struct sim *s, enum ledger_writer to)
{
    struct sim_stage *t = &s->stage[to];
    if (has_faults(s) && sim_pick(s, s->drop_1_in) == 0) {
        s->n_drops++;
        return;
    }
    const int64_t at_ns = s->now_ns + spread(s, BELL_NS);
    if (t->is_alive && t->was_idle && at_ns < t->next_ns) t->next_ns = at_ns;
}

/* Each copy takes its own time, so they arrive in any order. */
void sim_mail(struct sim *s, struct mail m)
{
    int32_t copies = 1;
    if (has_faults(s) && sim_pick(s, s->drop_1_in) == 0) copies = 0;
    else if (sim_pick(s, 4) == 0) copies = 2;
    for (; copies > 0 && s->n_mails < SIM_MAILS_MAX; copies--) {
        m.at_ns = s->now_ns + spread(s, s->mail_delay_ns);
        s->mails[s->n_mails++] = m;
    }
}

void sim_answer(struct sim *s, uint64_t request)
{
    if (has_faults(s) && sim_pick(s, s->drop_1_in) == 0) return;
    if (s->client.asked.request == request) s->client.is_asking = false;
}

/* --- deaths ----------------------------------------------------------------------------------- */

static uint64_t progress_of(const struct sim *s, enum ledger_writer w)
{
    const struct ledger *l = s->ledger;
    const uint64_t of[WRITERS] = {
        [WRITER_TEXT] = l->text.n_encoded,
        [WRITER_DIT] = l->dit.n_latents_blocks,
        [WRITER_VAE] = l->vae.n_latents,
        [WRITER_GATEWAY] = l->gateway.n_committed,
    };
    return of[w];
}

/* A file is torn only where it was being written. */
static void tear_files(struct sim *s)
{
    const int64_t at = s->gateway.at;
    if (at < 0) return;
    if (s->out[at].is_torn && sim_pick(s, 2)) s->out[at].is_torn = false;
    if (s->hashes[at].is_torn && sim_pick(s, 2)) s->hashes[at].is_torn = false;
}

static void lose_mails(struct sim *s)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < s->n_mails; i++)
        if (sim_pick(s, 2)) s->mails[kept++] = s->mails[i];
    s->n_mails = kept;
}

/* Everything that the process held is gone; the policy says when it comes again. */
static void die(struct sim *s, enum ledger_writer w, bool is_signal)
{
    struct sim_stage *t = &s->stage[w];
    const uint64_t n = progress_of(s, w);
    const struct policy_death d = {.is_signal = is_signal,
                                   .number = is_signal ? SIGKILL : 0,
                                   .unit = n,
                                   .has_committed = n != t->n_units_death};
    if (!t->is_alive) return;
    if (w == WRITER_GATEWAY) {
        tear_files(s);
        lose_mails(s);
    }
    t->is_alive = t->is_open = t->was_idle = false;
    t->line = t->sub_line = t->layer_line = 0;
    t->n_units_death = n;
    if (policy_died(&t->policy, &d, s->now_ns, &limits) != VERDICT_AGAIN)
        sim_fail(s, "the supervisor gives %s up", ledger_writer_names[w]);
    t->next_ns = t->policy.due_ns;
    sim_note(s, is_signal ? "dies" : "exits", (int64_t)n, 0);
}

static void kill_stage(struct sim *s, enum ledger_writer w)
{
    if (!s->stage[w].is_alive) return;
    s->running = w;
    s->n_kills++;
    s->n_kills_again += progress_of(s, w) == s->stage[w].n_units_death;
    die(s, w, true);
}

/* SIM_NO_FENCE: what dit had in hand lands after its successor has begun. */
static void haunt(struct sim *s)
{
    struct sim_dit *d = &s->ghost;
    if (s->ghost_ns == 0 || s->now_ns < s->ghost_ns || s->stage[WRITER_DIT].line == 0) return;
    s->ghost_ns = 0;
    const int32_t slot = kv_slot(&s->kv, d->in_hand.first, d->in_hand.base);
    s->cache.k[d->layer % SIM_LAYERS][slot] = sim_mix(d->in_hand.x[0], 10);
}

static void cause_faults(struct sim *s, enum ledger_writer w)
{
    const enum ledger_writer other = (enum ledger_writer)sim_pick(s, WRITERS);
    if (!has_faults(s)) return;
    if (sim_pick(s, s->kill_1_in) == 0) {
        if (w == WRITER_DIT && s->broken == SIM_NO_FENCE && s->stage[w].sub_line) {
            s->ghost = s->dit;
            s->ghost_ns = s->now_ns + spread(s, 2 * s->stage[w].mean_ns);
        }
        kill_stage(s, w); /* between its last write and its next */
        if (sim_pick(s, 4) == 0) {
            s->n_kills_both += s->stage[other].is_alive;
            kill_stage(s, other);
        }
    }
    if (sim_pick(s, s->pause_1_in) == 0 && s->stage[other].is_alive) {
        s->n_pauses++;
        s->stage[other].next_ns += spread(s, 100ll * NS_PER_MS);
        s->stage[other].was_idle = false; /* stopped: hears no bell */
    }
}

/* --- a step ----------------------------------------------------------------------------------- */

static void start(struct sim *s, enum ledger_writer w)
{
    struct sim_stage *t = &s->stage[w];
    if (policy_event(&t->policy, EVENT_TIMER, s->now_ns, &limits) != ACTION_SPAWN)
        sim_fail(s, "the supervisor does not start %s", ledger_writer_names[w]);
    policy_event(&t->policy, EVENT_READY, s->now_ns, &limits);
    t->is_alive = true;
    t->next_ns = s->now_ns + spread(s, 3ll * NS_PER_MS);
}

static bool step_stage(struct sim *s, enum ledger_writer w)
{
    switch (w) {
    case WRITER_TEXT:
        return sim_text_step(s);
    case WRITER_DIT:
        return sim_dit_step(s);
    case WRITER_VAE:
        return sim_vae_step(s);
    default:
        return sim_gateway_step(s);
    }
}

static void run_stage(struct sim *s, enum ledger_writer w)
{
    struct sim_stage *t = &s->stage[w];
    s->running = w;
    if (!t->is_alive) {
        start(s, w);
        return;
    }
    const bool did_work = step_stage(s, w);
    sim_check_step(s, w);
    t->was_idle = !did_work;
    if (w == WRITER_GATEWAY && s->gateway.is_draining && !s->gateway.job && !did_work) {
        die(s, w, false); /* the drain is over: it was asked to end, and comes again */
        return;
    }
    int64_t wait_ns = did_work ? spread(s, t->mean_ns) : POLL_NS;
    if (!did_work && s->broken == SIM_BELLS_ARE_TRUSTED) wait_ns = END_NS;
    if (!did_work && w == WRITER_GATEWAY) {
        const int64_t due_ns = sim_gateway_wait_ns(s);
        if (due_ns < wait_ns) wait_ns = due_ns;
    }
    t->next_ns = s->now_ns + wait_ns;
    if (did_work) cause_faults(s, w);
    if (s->broken == SIM_NO_FENCE) haunt(s);
}

static bool is_over(const struct sim *s)
{
    return s->client.job == s->client.n_jobs &&
           s->ledger->gateway.job_done == (uint64_t)s->client.n_jobs;
}

static void run(struct sim *s)
{
    while (!is_over(s)) {
        int first = WRITERS; /* the client */
        int64_t at_ns = s->client.next_ns;
        for (int w = 0; w < WRITERS; w++)
            if (s->stage[w].next_ns < at_ns) {
                first = w;
                at_ns = s->stage[w].next_ns;
            }
        if (at_ns > s->now_ns) s->now_ns = at_ns;
        if (s->now_ns > END_NS || s->n_steps++ > STEPS_MAX)
            sim_fail(s, "does not come to its end: faults ended long ago");
        if (first == WRITERS) sim_client_step(s);
        else run_stage(s, (enum ledger_writer)first);
    }
    sim_check_end(s);
}

/* --- a run ------------------------------------------------------------------------------------ */

/* Clears what the last run used: the ledger is 11 MB. */
static void clear(struct sim *s)
{
    struct ledger *l = s->ledger;
    struct prompts *table = s->table;
    const size_t n = offsetof(struct ledger, sessions);
    memset(l, 0, n);
    memset(l->sessions, 0, SIM_SESSIONS_MAX * sizeof *l->sessions);
    memset(l->scripts, 0, SIM_SCRIPTS_MAX * sizeof *l->scripts);
    memset(l->presets, 0, SIM_PRESETS_MAX * sizeof *l->presets);
    memset(l->decisions, 0, SIM_SCRIPTS_MAX * sizeof *l->decisions);
    memset(l->texts, 0, 4 * SIM_SCRIPTS_MAX);
    memset(table, 0, 64 * 1024);
    memset(s, 0, sizeof *s);
    s->ledger = l;
    s->table = table;
}

const char *sim_run(struct sim *s, uint64_t seed, enum sim_broken broken)
{
    clear(s);
    s->seed = seed;
    s->random = sim_mix(seed, 8);
    s->broken = broken;
    sim_setup(s);
    prompts_format(s->table, &s->conf);
    for (int w = 0; w < WRITERS; w++) {
        policy_event(&s->stage[w].policy, EVENT_START, 0, &limits);
        s->stage[w].next_ns = (int64_t)sim_pick(s, 5ull * NS_PER_MS);
    }
    if (setjmp(s->failed)) return s->why;
    run(s);
    return NULL;
}
