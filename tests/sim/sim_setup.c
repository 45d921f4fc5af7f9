/* sim_setup.c - what a seed means: sizes, faults, jobs; and the client that asks for them. */
#include "tests/sim/sim.h"

#include <string.h>

uint64_t sim_text_key(uint32_t text, uint8_t key[PROMPT_KEY_BYTES])
{
    memset(key, 0, PROMPT_KEY_BYTES);
    memcpy(key, &text, sizeof text);
    return text;
}

static int32_t between(struct sim *s, int32_t lo, int32_t hi)
{
    return lo + (int32_t)sim_pick(s, (uint64_t)(hi - lo + 1));
}

int32_t sim_pick_window(struct sim *s)
{
    const struct conf *c = &s->conf;
    return between(s, c->dit.sink + c->dit.block, conf_window_max(c));
}

const char *sim_pick_steps(struct sim *s)
{
    static const char *const steps[] = {"1000", "1000,500", "1000,500,250"};
    return steps[sim_pick(s, 3)];
}

int32_t sim_n_steps(const char *steps)
{
    int32_t n = 1;
    for (; *steps; steps++) n += *steps == ',';
    return n;
}

/* Small rings, so that every slot is used again and again. */
static void set_conf(struct sim *s)
{
    struct conf *c = &s->conf;
    conf_default(c);
    c->dit.block = between(s, 1, 3);
    c->dit.sink = between(s, 1, c->dit.block);
    c->dit.window = c->dit.sink + c->dit.block * between(s, 1, 3);
    if (sim_pick(s, 4) == 0 && c->dit.window < SIM_WINDOW_MAX) c->dit.window++;
    c->dit.window_max = between(s, c->dit.window, SIM_WINDOW_MAX);
    c->dit.ring_latents = c->dit.window_max + c->dit.block + 38 + between(s, 0, 3);
    snprintf(c->dit.steps, sizeof c->dit.steps, "%s", sim_pick_steps(s));
    c->dit.global_sink = sim_pick(s, 2);
    c->dit.rope = sim_pick(s, 2) ? ROPE_RELATIVE : ROPE_ABSOLUTE;
    if (sim_pick(s, 2)) strcpy(c->place.clean, sim_pick(s, 2) ? "cpu" : "cuda:1");
    if (c->place.clean[0] == 'c' && c->place.clean[1] == 'u') strcpy(c->place.dit, "cuda:0");
    c->vae.ring_frames = 8 * c->dit.block + between(s, 0, 12);
    c->run.fps = between(s, 100, 1000);
    c->run.ahead_ms = between(s, 0, 1000 * (c->vae.ring_frames - 8 * c->dit.block) / c->run.fps);
    c->cache.prompts = between(s, 1, 4);
    c->text.text_len = 1;
    c->text.dim = 4;
    if (conf_check(c) != OK) sim_fail(s, "configuration: %s", err_text());
    s->kv = (struct kv){.window = c->dit.window, .sink = c->dit.sink, .frame_tokens = 1};
}

static void set_faults(struct sim *s)
{
    static const uint32_t kills[] = {0, 30, 100, 100, 300, 300, 1000};
    static const uint32_t pauses[] = {0, 0, 200, 1000};
    static const uint32_t drops[] = {0, 2, 5, 20};
    static const int64_t means_us[] = {2, 10, 50, 200, 1000};
    s->kill_1_in = kills[sim_pick(s, 7)];
    s->pause_1_in = pauses[sim_pick(s, 4)];
    s->drop_1_in = drops[sim_pick(s, 4)];
    s->fail_1_in = sim_pick(s, 16) == 0 ? 20 : 0;
    s->heal_ns = 100ll * NS_PER_MS << sim_pick(s, 7);
    s->mail_delay_ns = 100ll * NS_PER_US << sim_pick(s, 10);
    for (int w = 0; w < WRITERS; w++) s->stage[w].mean_ns = means_us[sim_pick(s, 5)] * NS_PER_US;
}

/* --- jobs ------------------------------------------------------------------------------------- */

static void set_video(struct sim *s, int32_t j, int32_t v, int64_t *n_left)
{
    struct sim_client *c = &s->client;
    struct job_video *video = &c->videos[j][v];
    const bool is_live = c->jobs[j].is_live;
    const int64_t n = 1 + (int64_t)sim_pick(s, (uint64_t)(*n_left > 20 ? 20 : *n_left));
    int64_t at_block = is_live ? SCRIPT_ASAP : 0;
    video->seed = (int64_t)sim_pick(s, 1000);
    video->n_blocks = is_live ? 0 : n;
    video->prompts = c->prompts[j][v];
    video->n_prompts = is_live ? between(s, 0, 1) : between(s, 1, SIM_PROMPTS_MAX);
    for (int32_t i = 0; i < video->n_prompts; i++) {
        video->prompts[i].at_block = at_block;
        c->texts[j][v][i] = (uint32_t)between(s, 1, 7);
        at_block += 1 + (int64_t)sim_pick(s, 5);
    }
    video->presets = c->presets[j][v];
    video->n_presets = is_live ? 0 : between(s, 0, SIM_PROMPTS_MAX); /* of a replay */
    at_block = 0;
    for (int32_t i = 0; i < video->n_presets; i++) {
        at_block += (i > 0) + (int64_t)sim_pick(s, 5);
        video->presets[i] =
            (struct job_preset){(char *)sim_pick_steps(s), at_block, sim_pick_window(s)};
    }
    c->finish_at_block[j] = is_live || sim_pick(s, 4) == 0 ? n : INT64_MAX;
    *n_left -= n + (is_live ? 16 : 0); /* what may be allowed beyond */
}

static void set_jobs(struct sim *s)
{
    struct sim_client *c = &s->client;
    int64_t n_left = 48;
    c->n_jobs = between(s, 1, SIM_JOBS_MAX);
    for (int32_t j = 0; j < c->n_jobs; j++) {
        struct job *job = &c->jobs[j];
        job->id = (uint64_t)j + 1;
        job->is_live = sim_pick(s, 2);
        job->videos = c->videos[j];
        job->n_videos = job->is_live ? 1 : between(s, 1, SIM_VIDEOS_MAX);
        job->prewarm = c->prewarm;
        job->n_prewarm = sim_pick(s, 4) == 0;
        c->has_out[j] = sim_pick(s, 8) != 0;
        c->has_hashes[j] = sim_pick(s, 3) != 0;
        c->by_block[j] = sim_pick(s, 2);
        c->prompts_left[j] = job->is_live ? between(s, 1, 8) : 0;
        c->drains[j] = sim_pick(s, 6) == 0;
        for (int32_t v = 0; v < job->n_videos; v++)
            set_video(s, j, v, n_left > 2 ? &n_left : &(int64_t){2});
    }
}

void sim_setup(struct sim *s)
{
    set_conf(s);
    set_faults(s);
    set_jobs(s);
    s->conf.dit.overlap = sim_pick(s, 8) > 0 ? OVERLAP_TRUE : OVERLAP_FALSE;
}

/* --- the client ------------------------------------------------------------------------------- */

/* Blocks that the running session has; -1: it has not begun. */
static int64_t blocks_made(const struct sim *s, uint64_t job)
{
    const int64_t n = (int64_t)s->ledger->gateway.n_sessions;
    if (n == 0 || s->ledger->sessions[n - 1].job != (int64_t)job) return -1;
    return (int64_t)s->ledger->dit.n_latents_blocks - s->ledger->sessions[n - 1].first_block;
}

static void ask(struct sim *s, bool is_finish, bool may_be_preset, uint64_t job)
{
    struct sim_client *c = &s->client;
    c->asked = (struct mail){.is_finish = is_finish,
                             .is_preset = may_be_preset && sim_pick(s, 2),
                             .window = sim_pick_window(s),
                             .steps = sim_pick_steps(s),
                             .request = ++c->n_requests,
                             .job = job,
                             .text = (uint32_t)between(s, 1, 7)};
    c->is_asking = true;
    sim_note(s,
             is_finish            ? "client asks for the end, request"
             : c->asked.is_preset ? "client asks preset, request"
                                  : "client asks prompt, request",
             (int64_t)c->n_requests, c->asked.text);
}

/* SIGTERM, and again to each successor. */
static void drain(struct sim *s)
{
    struct sim_stage *t = &s->stage[WRITER_GATEWAY];
    if (!t->is_open || s->gateway.is_draining) return;
    s->gateway.is_draining = true;
    s->client.has_drained[s->client.job - 1] = true;
    t->policy.is_asked = true;
    sim_note(s, "client drains the gateway", 0, 0);
}

void sim_client_step(struct sim *s)
{
    struct sim_client *c = &s->client;
    const uint64_t n_done = s->ledger->gateway.job_done;
    c->next_ns = s->now_ns + 1 + (int64_t)sim_pick(s, 10ull * NS_PER_MS);
    if (n_done == (uint64_t)c->job) { /* the next job */
        if (c->job == c->n_jobs || s->gateway.is_draining) return;
        c->is_asking = false;
        s->asked = &c->jobs[c->job++];
        return;
    }
    const int32_t j = c->job - 1;
    const int64_t n_made = blocks_made(s, (uint64_t)c->job);
    const bool is_end = n_made >= c->finish_at_block[j] ||
                        (c->jobs[j].is_live && n_made >= 0 && sim_pick(s, 100) == 0);
    if (c->is_asking) {
        sim_mail(s, c->asked);
    } else if (is_end && c->drains[j]) {
        drain(s);
    } else if (is_end || c->has_finished[j]) {
        if (!c->has_finished[j]) ask(s, true, false, (uint64_t)c->job);
        c->has_finished[j] = true;
    } else if (c->prompts_left[j] > 0 && n_made >= 0 && sim_pick(s, 3) == 0) {
        c->prompts_left[j]--;
        ask(s, false, n_made > 0, (uint64_t)c->job); /* a preset waits for a prompt */
    }
}
