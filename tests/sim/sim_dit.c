/* sim_dit.c - dit's units, in the order of writes of procs/dit/main.c and dit.c. */
#include "tests/sim/sim.h"

#include <string.h>

static bool is_ready(void *self, const struct ledger_script *r)
{
    return prompts_find(((struct sim *)self)->table, r->key) >= 0;
}

static const struct ledger_decision *in_force(const struct sim *s)
{
    return &s->ledger->decisions[s->ledger->dit.n_decisions - 1 + s->dit.is_pending];
}

static int32_t sink_base(const struct sim *s)
{
    return s->broken == SIM_SINK_BASE_APART ? s->sink_base_apart : in_force(s)->sink_base;
}

static void ring_all(struct sim *s)
{
    sim_ring(s, WRITER_VAE);
    sim_ring(s, WRITER_GATEWAY);
    sim_ring(s, WRITER_TEXT);
}

/* --- deciding --------------------------------------------------------------------------------- */

static bool read_prompt(struct sim *s)
{
    struct sim_dit *d = &s->dit;
    const struct ledger_script *r = &s->ledger->scripts[d->plan.script];
    float row[4];
    const int32_t at = prompts_find(s->table, r->key);
    if (at < 0 || !prompts_copy(s->table, at, r->key, row, &d->n_tokens, &d->n_tokens_full))
        return false;
    memcpy(d->emb, row, sizeof d->emb);
    return true;
}

static int64_t half_of(const struct sim *s, uint64_t decision)
{
    return s->broken == SIM_ONE_EMBEDDING ? 0 : (int64_t)(decision % 2);
}

static bool is_preset_alone(const struct sim *s)
{
    const uint64_t n = s->ledger->dit.n_decisions;
    return n > 0 && s->ledger->decisions[n - 1].script == s->dit.plan.script;
}

static bool decide(struct sim *s)
{
    struct sim_dit *d = &s->dit;
    struct ledger *l = s->ledger;
    const uint64_t n = l->dit.n_decisions;
    struct ledger_decision *r = &l->decisions[n];
    UNIT_BEGIN(&s->stage[WRITER_DIT].line)
    if (is_preset_alone(s)) {
        memcpy(d->emb, s->embed[half_of(s, n + 1)], sizeof d->emb);
        d->n_tokens = r[-1].n_tokens;
        d->n_tokens_full = r[-1].n_tokens_full;
    } else if (!read_prompt(s)) { /* replaced under our hands */
        return true;
    }
    STEP;
    for (d->i = 0; d->i < 2; d->i++) {
        sim_check_embed_write(s, half_of(s, n), half_of(s, n - 1));
        s->embed[half_of(s, n)][d->i] = d->emb[d->i];
        STEP;
    }
    r->block = d->plan.block;
    r->session = d->plan.session;
    r->script = d->plan.script;
    r->preset = d->plan.preset;
    STEP;
    r->kind = d->plan.kind;
    r->sink_base = d->plan.sink_base;
    r->n_tokens = d->n_tokens;
    r->n_tokens_full = d->n_tokens_full;
    memcpy(r->key, l->scripts[r->script].key, sizeof r->key);
    STEP;
    if (s->broken == SIM_DECISION_AFTER_WORK) {
        d->is_pending = true;
        *line_of = 0;
        return true;
    }
    ledger_publish(&l->dit.n_decisions, n + 1);
    sim_note(s, "decides: block, script", r->block, r->script);
    ring_all(s);
    if (s->broken == SIM_SINK_BASE_APART) {
        STEP;
        s->sink_base_apart = in_force(s)->sink_base;
    }
    UNIT_END;
}

/* --- a pass ----------------------------------------------------------------------------------- */

static void load_preset(struct sim *s)
{
    const struct ledger *l = s->ledger;
    int64_t n = in_force(s)->preset;
    if (s->broken == SIM_PRESET_NOT_DECIDED) n = (int64_t)l->gateway.n_presets;
    s->kv.window = n ? l->presets[n - 1].window : s->conf.dit.window;
    s->dit.n_steps = sim_n_steps(n ? l->presets[n - 1].steps : s->conf.dit.steps);
}

static void load_decision(struct sim *s)
{
    const uint64_t n = s->ledger->dit.n_decisions + s->dit.is_pending;
    if (s->dit.in_force == (int64_t)n - 1) return;
    load_preset(s);
    s->dit.prompt = sim_prompt(s->embed[half_of(s, n - 1)]);
    s->dit.in_force = (int64_t)n - 1;
}

static void write_kv(const struct sim *s, const struct sim_pass *p, int32_t layer, int i)
{
    const int64_t frame = p->first + i;
    const int32_t slot = kv_slot(&s->kv, frame, p->base);
    const uint64_t key = sim_key(p->x[i], layer, p->step);
    p->cache->k[layer][slot] = sim_rotated(key, frame);
    p->cache->v[layer][slot] = sim_value(p->x[i], layer, p->step);
    if (slot < s->kv.sink) p->cache->k_sink[layer][slot] = key;
}

/* Relative positions: the sink sits right before the window, as seen from its newest frame. */
static void rotate_sink(const struct sim *s, const struct sim_pass *p, int32_t layer)
{
    const int64_t end = p->first + p->n, oldest = end - s->kv.window;
    for (int32_t i = 0; i < s->kv.sink && i < end - p->base; i++)
        p->cache->k[layer][i] =
            sim_rotated(p->cache->k_sink[layer][i], (oldest > p->base ? oldest : p->base) + i);
}

static void attend(const struct sim *s, struct sim_pass *p, int32_t layer)
{
    uint64_t seen = 0;
    const int32_t n = kv_slots_used(&s->kv, p->first + p->n, p->base);
    for (int32_t i = 0; i < n; i++) seen += sim_mix(p->cache->k[layer][i], p->cache->v[layer][i]);
    for (int32_t i = 0; i < p->n; i++) p->x[i] = sim_layer(p->x[i], seen, s->dit.prompt);
}

/* A layer of the clean pass that has a device of its own, and what it sends to the DiT's cache. */
static bool ahead_layer(struct sim *s)
{
    struct sim_dit *d = &s->dit;
    struct sim_pass *p = &d->ahead;
    UNIT_BEGIN(&s->stage[WRITER_DIT].layer_line)
    for (d->i = 0; d->i < p->n; d->i++) {
        write_kv(s, p, d->layer, d->i);
        STEP;
    }
    for (d->i = 0; d->i < p->n; d->i++) {
        const int32_t slot = kv_slot(&s->kv, p->first + d->i, p->base);
        s->cache.k[d->layer][slot] = p->cache->k[d->layer][slot];
        s->cache.v[d->layer][slot] = p->cache->v[d->layer][slot];
        if (slot < s->kv.sink) s->cache.k_sink[d->layer][slot] = p->cache->k_sink[d->layer][slot];
        STEP;
    }
    if (d->layer < SIM_LAYERS - 1) {
        if (s->conf.dit.rope == ROPE_RELATIVE) {
            rotate_sink(s, p, d->layer);
            STEP;
        }
        attend(s, p, d->layer);
    }
    UNIT_END;
}

/* What is in hand, through all layers; SIM_CLEAN is for K/V alone. */
static bool pass(struct sim *s)
{
    struct sim_dit *d = &s->dit;
    struct sim_pass *p = &d->in_hand;
    UNIT_BEGIN(&s->stage[WRITER_DIT].sub_line)
    for (d->layer = 0; d->layer < SIM_LAYERS; d->layer++) {
        if (d->ahead.n > 0) PART(ahead_layer(s));
        for (d->i = 0; d->i < p->n; d->i++) {
            write_kv(s, p, d->layer, d->i);
            STEP;
        }
        if (p->step == SIM_CLEAN && d->layer == SIM_LAYERS - 1) break;
        if (s->conf.dit.rope == ROPE_RELATIVE) {
            rotate_sink(s, p, d->layer);
            STEP;
        }
        attend(s, p, d->layer);
    }
    UNIT_END;
}

/* --- clean passes ----------------------------------------------------------------------------- */

static bool has_ahead(const struct sim *s)
{
    return s->conf.place.clean[0] != '\0';
}

/* n clean latents of the session, for a pass against this cache. */
static void load_latents(struct sim *s, struct sim_pass *p, struct sim_cache *cache, int64_t first,
                         int32_t n)
{
    struct sim_dit *d = &s->dit;
    const int64_t at = s->ledger->sessions[d->plan.session].first_block * s->conf.dit.block + first;
    load_decision(s);
    for (int32_t i = 0; i < n; i++) p->x[i] = s->latents[(at + i) % s->conf.dit.ring_latents];
    p->cache = cache;
    p->first = first;
    p->n = n;
    p->step = SIM_CLEAN;
    p->base = sink_base(s);
}

static int64_t frame_of(const struct sim *s, int64_t block)
{
    return (block - s->ledger->sessions[s->dit.plan.session].first_block) * s->conf.dit.block;
}

static void begin_ahead(struct sim *s, int64_t block)
{
    struct sim_cache *reads = s->broken == SIM_CLEAN_READS_THERE ? &s->cache : &s->clean_cache;
    load_latents(s, &s->dit.ahead, reads, frame_of(s, block), s->conf.dit.block);
}

static bool clean(struct sim *s)
{
    struct sim_dit *d = &s->dit;
    UNIT_BEGIN(&s->stage[WRITER_DIT].line)
    if (has_ahead(s)) {
        begin_ahead(s, d->plan.block);
        for (d->layer = 0; d->layer < SIM_LAYERS; d->layer++) PART(ahead_layer(s));
        d->ahead.n = 0;
    } else {
        load_latents(s, &d->in_hand, &s->cache, frame_of(s, d->plan.block), s->conf.dit.block);
        PART(pass(s));
    }
    STEP;
    ledger_publish(&s->ledger->dit.n_clean_blocks, (uint64_t)s->dit.plan.block + 1);
    UNIT_END;
}

static void begin_recache(struct sim *s, struct sim_cache *cache)
{
    int64_t first;
    int32_t n;
    load_decision(s);
    plan_recache(&s->conf, s->kv.window, DECISION_SWITCH, frame_of(s, s->dit.plan.block),
                 sink_base(s), &first, &n);
    load_latents(s, &s->dit.in_hand, cache, first, n);
    sim_note(s, "recaches: first, frames", first, n);
}

/* --- a block ---------------------------------------------------------------------------------- */

static uint64_t noise(struct sim *s, int i, int step)
{
    struct sim_dit *d = &s->dit;
    if (s->broken == SIM_NOISE_OF_THE_PROCESS) return d->random = sim_mix(d->random, 1);
    return sim_noise((uint64_t)s->ledger->sessions[d->plan.session].seed, d->in_hand.first + i,
                     step);
}

static void begin_denoise(struct sim *s)
{
    struct sim_pass *p = &s->dit.in_hand;
    load_decision(s);
    p->cache = &s->cache;
    p->first = frame_of(s, s->dit.plan.block);
    p->n = s->conf.dit.block;
    p->base = sink_base(s);
    for (int i = 0; i < p->n; i++) p->x[i] = noise(s, i, 0);
}

static bool has_switch(const struct sim *s, int64_t block)
{
    const struct ledger_decision *r = in_force(s);
    if (s->broken == SIM_WINDOW_NOT_RECACHED && r > s->ledger->decisions &&
        r->script == r[-1].script)
        return false;
    return r->block == block && r->kind == DECISION_SWITCH && frame_of(s, block) > 0;
}

/* Of the block before. */
static void commit_ahead(struct sim *s)
{
    ledger_publish(&s->ledger->dit.n_clean_blocks, (uint64_t)s->dit.plan.block);
    s->n_ahead++;
}

static bool make_block(struct sim *s)
{
    struct sim_dit *d = &s->dit;
    struct sim_pass *p = &d->in_hand;
    const int64_t block = d->plan.block, NB = s->conf.dit.block;
    struct ledger *l = s->ledger;
    UNIT_BEGIN(&s->stage[WRITER_DIT].line)
    if (has_switch(s, block)) {
        if (has_ahead(s) && s->broken != SIM_RECACHE_OF_ONE) {
            begin_recache(s, &s->clean_cache);
            PART(pass(s));
            STEP;
        }
        begin_recache(s, &s->cache);
        PART(pass(s));
        STEP;
    }
    begin_denoise(s);
    if (l->dit.n_clean_blocks < (uint64_t)block) begin_ahead(s, block - 1);
    if (d->ahead.n > 0 && s->broken == SIM_CLEAN_COUNTED_EARLY) {
        commit_ahead(s);
        STEP;
    }
    for (p->step = 0; p->step < d->n_steps; p->step++) {
        PART(pass(s));
        if (d->ahead.n > 0) {
            STEP;
            commit_ahead(s);
            d->ahead.n = 0;
        }
        if (p->step + 1 < d->n_steps)
            for (int i = 0; i < p->n; i++) p->x[i] = sim_mix(p->x[i], noise(s, i, p->step + 1));
        STEP;
    }
    if (s->broken == SIM_LATENTS_PUBLISHED_EARLY) {
        ledger_publish(&l->dit.n_latents_blocks, (uint64_t)block + 1);
        STEP;
    }
    for (d->i = 0; d->i < NB; d->i++) {
        if (d->edge) {
            sim_check_edge_write(s, block * NB + d->i);
            *sim_edge_at(s, d->edge, block * NB + d->i) = p->x[d->i];
            STEP;
        }
        sim_check_latent_write(s, block * NB + d->i);
        s->latents[(block * NB + d->i) % s->conf.dit.ring_latents] = p->x[d->i];
        STEP;
    }
    ledger_publish(&l->dit.n_latents_blocks, (uint64_t)block + 1);
    ring_all(s);
    if (d->is_pending) {
        STEP;
        d->is_pending = false;
        ledger_publish(&l->dit.n_decisions, l->dit.n_decisions + 1);
    }
    UNIT_END;
}

/* edge_begin, in the order of its writes. */
static bool begin_edge(struct sim *s)
{
    struct ledger_dit *l = &s->ledger->dit;
    UNIT_BEGIN(&s->stage[WRITER_DIT].line)
    if (l->edge_generation == s->dit.edge) {
        *line_of = 0;
        return true;
    }
    ledger_publish(&l->edge_generation, s->broken == SIM_EDGE_NAMED_EARLY ? s->dit.edge : 0);
    STEP;
    ledger_publish(&l->edge_from, l->n_latents_blocks);
    STEP;
    ledger_publish(&l->edge_generation, s->dit.edge);
    UNIT_END;
}

static bool begin(struct sim *s)
{
    struct sim_dit *d = &s->dit;
    const struct plan p = plan_next(s->ledger, &s->conf, is_ready, s);
    if (d->is_pending) { /* SIM_DECISION_AFTER_WORK: made under a prompt that is not written down */
        d->plan.action = s->ledger->dit.n_clean_blocks < s->ledger->dit.n_latents_blocks
                             ? PLAN_SKIP_CLEAN
                             : PLAN_BLOCK;
    } else if (p.action == PLAN_WAIT) {
        return false;
    } else {
        const struct plan after = plan_after_clean(s->ledger, &s->conf, is_ready, s);
        const bool is_beside = p.action == PLAN_CLEAN && has_ahead(s) && after.action == PLAN_BLOCK;
        d->plan = is_beside ? after : p;
    }
    s->n_units[WRITER_DIT]++;
    return true;
}

bool sim_dit_step(struct sim *s)
{
    struct sim_stage *t = &s->stage[WRITER_DIT];
    if (!t->is_open) { /* a successor: cross K/V are derived when a pass needs them */
        if (t->line == 0)
            s->dit = (struct sim_dit){
                .in_force = -1, .random = t->policy.n_starts, .edge = sim_map_edge(s)};
        t->is_open = begin_edge(s);
        if (s->broken == SIM_CLEAN_IS_FORGOTTEN)
            ledger_publish(&s->ledger->dit.n_clean_blocks, s->ledger->dit.n_latents_blocks);
        return true;
    }
    if (t->line == 0 && !begin(s)) return false;
    switch (s->dit.plan.action) {
    case PLAN_DECIDE:
        decide(s);
        break;
    case PLAN_SKIP_CLEAN:
        ledger_publish(&s->ledger->dit.n_clean_blocks, s->ledger->dit.n_latents_blocks);
        break;
    case PLAN_CLEAN:
        clean(s);
        break;
    default:
        make_block(s);
    }
    return true;
}
