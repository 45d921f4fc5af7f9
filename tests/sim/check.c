/* check.c - the invariants of the commit rule, after every step and at the end. */
#include "tests/sim/sim.h"

#include <string.h>

/* Latents behind vae's position that its state can be rebuilt from. */
enum { REBUILD = 38 };

/* --- counters: one writer each, none goes back -------------------------------------------------
 */

enum {
    SCRIPTS_SEEN,
    DECISIONS,
    LATENTS,
    CLEAN,
    DECODED,
    SESSIONS,
    SCRIPTS,
    TEXTS,
    WANT,
    COMMITTED,
    JOB,
    DONE,
    OUTPUTS,
    ENDING,
    PRESETS,
    COUNTERS
};

static void read_counters(const struct ledger *l, uint64_t now[COUNTERS])
{
    now[SCRIPTS_SEEN] = l->text.n_scripts_seen;
    now[DECISIONS] = l->dit.n_decisions;
    now[LATENTS] = l->dit.n_latents_blocks;
    now[CLEAN] = l->dit.n_clean_blocks;
    now[DECODED] = l->vae.n_latents;
    now[SESSIONS] = l->gateway.n_sessions;
    now[SCRIPTS] = l->gateway.n_scripts;
    now[TEXTS] = l->gateway.n_text_bytes;
    now[WANT] = l->gateway.want;
    now[COMMITTED] = l->gateway.n_committed;
    now[JOB] = l->gateway.job;
    now[DONE] = l->gateway.job_done;
    now[OUTPUTS] = l->gateway.n_outputs;
    now[ENDING] = l->gateway.job_end;
    now[PRESETS] = l->gateway.n_presets;
}

static enum ledger_writer owner(int i)
{
    if (i == SCRIPTS_SEEN) return WRITER_TEXT;
    if (i <= CLEAN) return WRITER_DIT;
    return i == DECODED ? WRITER_VAE : WRITER_GATEWAY;
}

static int64_t frames_of_latents(const struct sim *s, int64_t latents)
{
    const struct ledger *l = s->ledger;
    int64_t n = 0;
    for (int64_t i = 0; i < (int64_t)l->gateway.n_sessions; i++) {
        const struct ledger_session *r = &l->sessions[i];
        const int64_t k = latents - r->first_block * s->conf.dit.block;
        if (k > 0) n = r->first_frame + ledger_frames_of(k);
    }
    return n;
}

static void check_counters(struct sim *s, const uint64_t now[COUNTERS], enum ledger_writer w)
{
    const int64_t NB = s->conf.dit.block;
    for (int i = 0; i < COUNTERS; i++) {
        if (now[i] < s->last[i]) sim_fail(s, "counter %d goes back", i);
        if (now[i] != s->last[i] && owner(i) != w) sim_fail(s, "counter %d: two writers", i);
    }
    if (now[CLEAN] > now[LATENTS] || now[LATENTS] > now[CLEAN] + 1)
        sim_fail(s, "not K <= L <= K + 1");
    if (now[LATENTS] * (uint64_t)NB > now[WANT]) sim_fail(s, "a block that nobody wanted");
    if (now[DECODED] > now[LATENTS] * (uint64_t)NB) sim_fail(s, "a latent decoded before it is");
    if (now[COMMITTED] != s->last[COMMITTED] &&
        (int64_t)now[COMMITTED] > frames_of_latents(s, (int64_t)now[DECODED]))
        sim_fail(s, "a frame committed before it is");
    if (now[DONE] > now[JOB] || now[JOB] > now[DONE] + 1) sim_fail(s, "two jobs at once");
}

/* --- records: appended whole, never changed ----------------------------------------------------
 */

static void keep_records(struct sim *s, const uint64_t now[COUNTERS])
{
    const struct ledger *l = s->ledger;
    for (uint64_t i = s->last[DECISIONS]; i < now[DECISIONS]; i++) {
        const struct ledger_decision *d = &l->decisions[i];
        if (d->block != (int64_t)now[LATENTS]) sim_fail(s, "a decision for a block that is made");
        if (i > 0 &&
            (d->script < d[-1].script || (d->session == d[-1].session && d->preset < d[-1].preset)))
            sim_fail(s, "a decision for an older prompt or preset");
        if (i > 0 && d->script == d[-1].script && d->preset == d[-1].preset)
            sim_fail(s, "a decision that decides nothing");
        if (i > 0 && d->block == d[-1].block) sim_fail(s, "a block is decided twice");
        if (d->preset && l->presets[d->preset - 1].session != d->session)
            sim_fail(s, "a decision for a preset of another session");
        if (l->scripts[d->script].session != d->session ||
            memcmp(d->key, l->scripts[d->script].key, sizeof d->key) != 0)
            sim_fail(s, "a decision that is not its script's");
        s->decisions[i] = *d;
    }
    for (uint64_t i = s->last[SCRIPTS]; i < now[SCRIPTS]; i++) {
        const uint64_t request = l->scripts[i].request;
        for (uint64_t k = 0; request && k < i; k++)
            if (l->scripts[k].request == request) sim_fail(s, "a request is taken twice");
        s->scripts[i] = l->scripts[i];
    }
    for (uint64_t i = s->last[PRESETS]; i < now[PRESETS]; i++) {
        const uint64_t request = l->presets[i].request;
        for (uint64_t k = 0; request && k < i; k++)
            if (l->presets[k].request == request) sim_fail(s, "a request is taken twice");
        s->presets[i] = l->presets[i];
    }
    for (uint64_t i = s->last[SESSIONS]; i < now[SESSIONS]; i++) {
        s->first_block[i] = l->sessions[i].first_block;
        s->first_frame[i] = l->sessions[i].first_frame;
        if (s->client.is_told_end[l->sessions[i].job - 1])
            sim_fail(s, "a job that was told its end begins another video");
        if (i > 0 && s->first_block[i] != ledger_session_end(&l->sessions[i - 1]))
            sim_fail(s, "a session that does not begin where the last one ends");
    }
}

static void check_records(struct sim *s)
{
    const struct ledger *l = s->ledger;
    if (memcmp(s->decisions, l->decisions, l->dit.n_decisions * sizeof *s->decisions) != 0)
        sim_fail(s, "a decision was changed");
    if (memcmp(s->scripts, l->scripts, l->gateway.n_scripts * sizeof *s->scripts) != 0)
        sim_fail(s, "a script record was changed");
    if (memcmp(s->presets, l->presets, l->gateway.n_presets * sizeof *s->presets) != 0)
        sim_fail(s, "a preset record was changed");
    for (uint64_t i = 0; i < l->gateway.n_sessions; i++)
        if (s->first_block[i] != l->sessions[i].first_block ||
            s->first_frame[i] != l->sessions[i].first_frame)
            sim_fail(s, "a session was changed");
}

/* An end is not moved behind work that is allowed, nor forwards, nor open again. */
static void check_ends(struct sim *s)
{
    const struct ledger *l = s->ledger;
    for (uint64_t i = 0; i < l->gateway.n_sessions; i++) {
        const int64_t end = ledger_session_end(&l->sessions[i]);
        const bool is_last = i + 1 == l->gateway.n_sessions;
        if (s->end[i] != 0 && end > s->end[i] - 1) sim_fail(s, "a session's end moves on");
        if (is_last && end < (int64_t)l->dit.n_latents_blocks)
            sim_fail(s, "a session ends before blocks that are made");
        if (is_last && l->gateway.want > 0 && end != INT64_MAX &&
            (int64_t)l->gateway.want > end * s->conf.dit.block)
            sim_fail(s, "blocks are allowed behind the session's end");
        s->end[i] = end == INT64_MAX ? 0 : end + 1; /* 0: open */
    }
}

/* --- memory: nothing that is still needed is written over ---------------------------------------
 */

void sim_check_latent_write(struct sim *s, int64_t latent)
{
    const struct ledger *l = s->ledger;
    const int64_t lost = latent - s->conf.dit.ring_latents;
    const int64_t made = (int64_t)l->dit.n_latents_blocks * s->conf.dit.block;
    if (latent < made && s->broken == SIM_SOUND) sim_fail(s, "a committed latent is written again");
    if (lost >= (int64_t)l->vae.n_latents - REBUILD)
        sim_fail(s, "latent %lld is lost, vae may need it", (long long)lost);
    if (lost >= made - conf_window_max(&s->conf))
        sim_fail(s, "latent %lld is lost, a recache may need it", (long long)lost);
}

void sim_check_edge_write(struct sim *s, int64_t latent)
{
    const int64_t lost = latent - edge_slots(&s->conf);
    if (s->broken == SIM_SOUND && lost >= (int64_t)s->ledger->vae.n_latents)
        sim_fail(s, "latent %lld is lost in the edge, vae has yet to take it", (long long)lost);
}

void sim_check_frame_write(struct sim *s, int64_t frame)
{
    if (frame - s->conf.vae.ring_frames >= (int64_t)s->ledger->gateway.n_committed)
        sim_fail(s, "frame %lld is lost", (long long)(frame - s->conf.vae.ring_frames));
}

/* Not the half that the decision in force uses. */
void sim_check_embed_write(struct sim *s, int64_t half, int64_t half_in_force)
{
    if (s->ledger->dit.n_decisions > 0 && half == half_in_force)
        sim_fail(s, "the embedding in force is written over");
}

void sim_check_refusal(struct sim *s)
{
    const struct ledger_gateway *g = &s->ledger->gateway;
    const struct ledger_session *r = &s->ledger->sessions[g->n_sessions - (g->n_sessions > 0)];
    if (g->job != g->job_done && g->n_sessions > 0 && r->job == (int64_t)g->job && r->is_live &&
        ledger_session_end(r) == INT64_MAX)
        sim_fail(s, "a prompt is refused, though its session runs");
}

/* --- contents: what is committed is what the replay has -----------------------------------------
 */

/* A script decides by its blocks, whatever was encoded when: the newest record up to the block; and
 * so do the presets of a replay. */
static void check_script(struct sim *s, int64_t block)
{
    const struct ledger *l = s->ledger;
    const int64_t at = ledger_session_of(l, block);
    int64_t i = (int64_t)l->gateway.n_scripts - 1, k = (int64_t)l->gateway.n_presets;
    if (at < 0 || l->sessions[at].is_live) return;
    while (i >= 0 && (l->scripts[i].session != at || l->scripts[i].at_block > block)) i--;
    while (k > 0 && (l->presets[k - 1].session != at || l->presets[k - 1].at_block > block)) k--;
    const struct ledger_decision *d = &l->decisions[l->dit.n_decisions - 1];
    const int64_t preset_at = k ? l->presets[k - 1].at_block : 0;
    if (i < 0 || d->script != i || d->preset != k ||
        d->block != (l->scripts[i].at_block > preset_at ? l->scripts[i].at_block : preset_at))
        sim_fail(s, "block %lld does not go by the script", (long long)block);
}

static void check_contents(struct sim *s, const uint64_t now[COUNTERS])
{
    const int64_t NB = s->conf.dit.block;
    for (uint64_t b = s->last[LATENTS]; b < now[LATENTS]; b++) {
        sim_oracle_block(s, (int64_t)b);
        check_script(s, (int64_t)b);
        for (int64_t i = (int64_t)b * NB; i < (int64_t)(b + 1) * NB; i++)
            if (s->latents[i % s->conf.dit.ring_latents] != s->want_latent[i])
                sim_fail(s, "latent %lld (block %lld) is not the replay's", (long long)i,
                         (long long)b);
    }
    for (uint64_t i = s->last[DECODED]; i < now[DECODED]; i++) {
        const int64_t first = frames_of_latents(s, (int64_t)i);
        sim_oracle_frames(s, (int64_t)i);
        for (int64_t f = first; f < frames_of_latents(s, (int64_t)i + 1); f++)
            if (s->frames[f % s->conf.vae.ring_frames] != s->want_frame[f])
                sim_fail(s, "frame %lld (latent %lld) is not the replay's", (long long)f,
                         (long long)i);
    }
}

void sim_check_step(struct sim *s, enum ledger_writer w)
{
    uint64_t now[COUNTERS];
    read_counters(s->ledger, now);
    if (memcmp(now, s->last, sizeof now) != 0) {
        check_counters(s, now, w);
        keep_records(s, now);
        check_contents(s, now);
        memcpy(s->last, now, sizeof now);
    }
    if (w == WRITER_GATEWAY) check_ends(s);
}

/* A file holds each frame once and in order: as many as the session has, or the first of them if
 * its job failed. */
static void check_file(struct sim *s, const struct sim_file *f, int64_t session, bool is_failed)
{
    const struct ledger_session *r = &s->ledger->sessions[session];
    const int64_t blocks = ledger_session_end(r) - r->first_block;
    const int64_t n = ledger_frames_of(blocks * s->conf.dit.block);
    if (!f->has_header) {
        if (!is_failed) sim_fail(s, "session %lld: output was not begun", (long long)session);
        return;
    }
    if (!is_failed && f->is_torn) sim_fail(s, "session %lld: torn output", (long long)session);
    if (is_failed ? f->n > n : f->n != n)
        sim_fail(s, "session %lld: %lld frames in the output, not %lld", (long long)session,
                 (long long)f->n, (long long)n);
    for (int64_t i = 0; i < f->n; i++)
        if (f->unit[i] != s->want_frame[r->first_frame + i])
            sim_fail(s, "session %lld: frame %lld of the output is not the replay's",
                     (long long)session, (long long)i);
}

/* Nobody asked and nothing failed: every video is there, in its full length. */
static void check_lengths(struct sim *s, int32_t j)
{
    const struct ledger *l = s->ledger;
    const struct job *job = &s->client.jobs[j];
    int32_t n = 0;
    if (s->client.has_finished[j] || s->client.has_drained[j] || s->fail_1_in > 0) return;
    for (int64_t i = 0; i < (int64_t)l->gateway.n_sessions; i++) {
        if (l->sessions[i].job != (int64_t)job->id) continue;
        if ((int64_t)l->sessions[i].n_blocks != job->videos[n].n_blocks ||
            l->sessions[i].video != n)
            sim_fail(s, "job %d: video %d ends early, and nobody asked", j + 1, n);
        n++;
    }
    if (n != job->n_videos) sim_fail(s, "job %d: %d videos of %d", j + 1, n, job->n_videos);
}

void sim_check_end(struct sim *s)
{
    const struct ledger *l = s->ledger;
    const struct sim_client *c = &s->client;
    check_records(s);
    for (int32_t j = 0; j < c->n_jobs; j++) check_lengths(s, j);
    for (int64_t i = 0; i < (int64_t)l->gateway.n_sessions; i++) {
        const int64_t job = l->sessions[i].job - 1, end = ledger_session_end(&l->sessions[i]);
        if (end > (int64_t)l->dit.n_latents_blocks) sim_fail(s, "blocks are missing");
        if (c->has_out[job]) check_file(s, &s->out[i], i, s->fail_1_in > 0);
        if (c->has_hashes[job]) check_file(s, &s->hashes[i], i, s->fail_1_in > 0);
    }
    if ((int64_t)l->gateway.n_committed !=
        frames_of_latents(s, (int64_t)l->dit.n_latents_blocks * s->conf.dit.block))
        sim_fail(s, "frames are missing");
}
