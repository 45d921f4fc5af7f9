/* sim_stages.c - the units of text and vae, in the order of writes of their main.c. */
#include "tests/sim/sim.h"

#include <string.h>

/* --- text ------------------------------------------------------------------------------------- */

static bool encode(struct sim *s)
{
    struct sim_text *t = &s->text;
    struct ledger *l = s->ledger;
    const struct ledger_script *r = &l->scripts[t->plan.script];
    uint32_t text;
    UNIT_BEGIN(&s->stage[WRITER_TEXT].line)
    t->at = prompts_begin(s->table, t->plan.entry);
    STEP;
    memcpy(&text, l->texts + r->text_at, sizeof text);
    for (int half = 0; half < 2; half++) t->row[half] = sim_embedding(text, half);
    memcpy(t->at, &t->row[0], sizeof t->row[0]);
    STEP;
    memcpy(t->at + 2, &t->row[1], sizeof t->row[1]);
    STEP;
    prompts_commit(s->table, t->plan.entry, r->key, (int32_t)(t->row[0] % 512), 512);
    sim_note(s, "encodes: script, entry", t->plan.script, t->plan.entry);
    STEP;
    ledger_add(&l->text.n_encoded, 1);
    if (t->plan.does_evict) ledger_add(&l->text.n_evictions, 1);
    sim_ring(s, WRITER_DIT);
    sim_ring(s, WRITER_GATEWAY);
    UNIT_END;
}

/* SIM_PROMPTS_IN_MESSAGES: a prompt that no message told of is not known. */
static bool is_told(const struct sim *s, int64_t script)
{
    return s->broken != SIM_PROMPTS_IN_MESSAGES || (s->text.told[script / 64] >> (script % 64) & 1);
}

bool sim_text_step(struct sim *s)
{
    struct sim_stage *t = &s->stage[WRITER_TEXT];
    counter *seen = &s->ledger->text.n_scripts_seen;
    if (!t->is_open) {
        memset(&s->text, 0, sizeof s->text);
        t->is_open = true;
        return true;
    }
    if (t->line == 0) {
        const struct text_plan p = text_plan_next(s->ledger, s->table);
        s->text.plan = p;
        if (p.n_seen > (int64_t)ledger_read(seen)) ledger_publish(seen, (uint64_t)p.n_seen);
        if (p.script < 0 || p.entry < 0 || !is_told(s, p.script)) return false;
        s->n_units[WRITER_TEXT]++;
    }
    encode(s);
    return true;
}

/* --- vae -------------------------------------------------------------------------------------- */

static uint64_t take_latent(struct sim *s, int64_t latent)
{
    const uint64_t edge = s->vae.edge;
    const bool is_trusting = s->broken == SIM_EDGE_ALWAYS_TAKEN && edge != 0;
    if (is_trusting || edge_holds(s->ledger, &s->conf, edge, latent)) {
        s->n_from_edge++;
        return *sim_edge_at(s, edge, latent);
    }
    s->n_past_edge += edge != 0;
    return s->latents[latent % s->conf.dit.ring_latents];
}

static bool decode(struct sim *s)
{
    struct sim_vae *v = &s->vae;
    const struct vae_plan *p = &v->plan;
    const bool has_two = s->broken != SIM_ONE_HISTORY;
    const int from = has_two ? (int)(p->r % 2) : 0, to = has_two ? (int)((p->r + 1) % 2) : 0;
    counter *l = &s->ledger->vae.n_latents;
    UNIT_BEGIN(&s->stage[WRITER_VAE].line)
    v->carry = take_latent(s, p->latent);
    if (p->r == 0) {
        memset(s->history[0], 0, sizeof s->history[0]);
        STEP;
        memset(s->history[1], 0, sizeof s->history[1]);
        STEP;
    }
    for (v->i = 0; v->i < 2; v->i++) {
        v->carry = sim_mix(v->carry, s->history[from][v->i]);
        s->history[to][v->i] = sim_mix(v->carry, 6);
        STEP;
    }
    if (s->broken == SIM_FRAMES_PUBLISHED_EARLY) {
        ledger_publish(l, (uint64_t)p->latent + 1);
        STEP;
    }
    for (v->i = 0; v->i < p->n_frames; v->i++) {
        sim_check_frame_write(s, p->first_frame + v->i);
        s->frames[(p->first_frame + v->i) % s->conf.vae.ring_frames] =
            sim_mix(v->carry, (uint64_t)v->i);
        STEP;
    }
    ledger_publish(l, (uint64_t)p->latent + 1);
    sim_ring(s, WRITER_GATEWAY);
    sim_ring(s, WRITER_DIT);
    UNIT_END;
}

bool sim_vae_step(struct sim *s)
{
    struct sim_stage *t = &s->stage[WRITER_VAE];
    if (!t->is_open) {
        s->vae = (struct sim_vae){.edge = sim_map_edge(s)};
        t->is_open = true;
        return true;
    }
    if (t->line == 0) {
        const struct ledger *l = s->ledger;
        struct vae_plan *p = &s->vae.plan;
        *p = vae_plan_next(l, &s->conf);
        if (s->broken == SIM_FRAMES_FREED_EARLY && p->n_frames > 0)
            p->is_due =
                p->first_frame + p->n_frames <=
                (int64_t)(l->gateway.n_committed + l->gateway.played) + s->conf.vae.ring_frames;
        if (!p->is_due) return false;
        s->n_units[WRITER_VAE]++;
    }
    decode(s);
    return true;
}
