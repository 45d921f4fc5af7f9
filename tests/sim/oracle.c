/* oracle.c - a replay of the decision log with memory that is never reused: no ring, no slot, no
 * parity, no prompt table. A frame's K and V are kept by its number in the session, and a block
 * sees a set of frames: the sink's and the window's.
 */
#include "tests/sim/sim.h"

#include <string.h>

struct replay {
    struct sim *s;
    const struct ledger_session *session;
    const struct ledger_decision *d; /* in force */
    int64_t base;                    /* first latent of the session, over the ledger */
    uint64_t prompt;
    int64_t window;
    int32_t n_steps;
    uint64_t x[SIM_WINDOW_MAX];
};

static const struct ledger_decision *in_force_at(const struct sim *s, int64_t block)
{
    int64_t i = (int64_t)s->ledger->dit.n_decisions - 1;
    while (i >= 0 && s->ledger->decisions[i].block > block) i--;
    if (i < 0) sim_fail((struct sim *)s, "block %lld has no decision", (long long)block);
    return &s->ledger->decisions[i];
}

static void take_prompt(struct replay *r, int64_t block)
{
    uint64_t half[2];
    uint32_t text;
    r->d = in_force_at(r->s, block);
    if (&r->s->ledger->sessions[r->d->session] != r->session)
        sim_fail(r->s, "block %lld goes by another session's decision", (long long)block);
    memcpy(&text, r->d->key, sizeof text);
    for (int i = 0; i < 2; i++) half[i] = sim_embedding(text, i);
    if (r->d->n_tokens != (int32_t)(half[0] % 512))
        sim_fail(r->s, "decision at %lld: tokens of another embedding", (long long)r->d->block);
    r->prompt = sim_prompt(half);
    const struct ledger_preset *p = r->d->preset ? &r->s->ledger->presets[r->d->preset - 1] : NULL;
    r->window = p ? p->window : r->s->conf.dit.window;
    r->n_steps = sim_n_steps(p ? p->steps : r->s->conf.dit.steps);
}

/* Frames [sink_base, sink_base + sink) and the newest (window - sink), or all while they fit. */
static uint64_t seen_by(const struct replay *r, int64_t end, int layer)
{
    const struct sim *s = r->s;
    const int64_t sink = r->d->sink_base, window = r->window, n_sink = s->conf.dit.sink;
    const int64_t rest = end - sink > window ? end - (window - n_sink) : sink + n_sink;
    const bool is_relative = s->conf.dit.rope == ROPE_RELATIVE;
    const int64_t oldest = end - window > sink ? end - window : sink;
    uint64_t sum = 0;
    for (int64_t f = sink; f < end; f = f + 1 == sink + n_sink ? rest : f + 1) {
        const bool is_sink = f < sink + n_sink;
        const int64_t position = is_sink && is_relative ? oldest + (f - sink) : f;
        sum += sim_mix(sim_rotated(s->oracle_k[layer][r->base + f], position),
                       s->oracle_v[layer][r->base + f]);
    }
    return sum;
}

static void pass(struct replay *r, int64_t first, int64_t n, int step)
{
    for (int layer = 0; layer < SIM_LAYERS; layer++) {
        for (int64_t i = 0; i < n; i++) {
            r->s->oracle_k[layer][r->base + first + i] = sim_key(r->x[i], layer, step);
            r->s->oracle_v[layer][r->base + first + i] = sim_value(r->x[i], layer, step);
        }
        if (step == SIM_CLEAN && layer == SIM_LAYERS - 1) return;
        const uint64_t seen = seen_by(r, first + n, layer);
        for (int64_t i = 0; i < n; i++) r->x[i] = sim_layer(r->x[i], seen, r->prompt);
    }
}

static void clean(struct replay *r, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < n; i++) r->x[i] = r->s->want_latent[r->base + first + i];
    pass(r, first, n, SIM_CLEAN);
}

void sim_oracle_block(struct sim *s, int64_t block)
{
    const int64_t at = ledger_session_of(s->ledger, block), NB = s->conf.dit.block;
    if (at < 0) sim_fail(s, "block %lld belongs to no session", (long long)block);
    struct replay r = {.s = s, .session = &s->ledger->sessions[at]};
    r.base = r.session->first_block * NB;
    const int64_t first = block * NB - r.base;
    const uint64_t seed = (uint64_t)r.session->seed;

    take_prompt(&r, block);
    const struct ledger_decision *last = NULL;
    const int64_t window = r.window;
    if (first > 0) take_prompt(&r, block - 1);
    last = r.d;
    const bool is_window = r.window != window;
    take_prompt(&r, block);
    if (first > 0 && (r.d->script != last->script || is_window)) { /* a recache */
        const bool keeps = s->conf.dit.global_sink && first > window;
        const int64_t most = window - (keeps ? s->conf.dit.sink : 0);
        const int64_t n = first < most ? first : most;
        clean(&r, first - n, n);
    } else if (first > 0) { /* the last block's clean K/V, under the prompt it was made with */
        take_prompt(&r, block - 1);
        clean(&r, first - NB, NB);
        take_prompt(&r, block);
    }
    for (int64_t i = 0; i < NB; i++) r.x[i] = sim_noise(seed, first + i, 0);
    for (int step = 0; step < r.n_steps; step++) {
        pass(&r, first, NB, step);
        for (int64_t i = 0; i < NB && step + 1 < r.n_steps; i++)
            r.x[i] = sim_mix(r.x[i], sim_noise(seed, first + i, step + 1));
    }
    for (int64_t i = 0; i < NB; i++) s->want_latent[block * NB + i] = r.x[i];
}

void sim_oracle_frames(struct sim *s, int64_t latent)
{
    const int64_t at = ledger_session_of(s->ledger, latent / s->conf.dit.block);
    if (at < 0) sim_fail(s, "latent %lld belongs to no session", (long long)latent);
    const struct ledger_session *session = &s->ledger->sessions[at];
    const int64_t r = latent - session->first_block * s->conf.dit.block;
    const int64_t first = session->first_frame + (r > 0 ? 4 * r - 3 : 0);
    uint64_t carry = s->want_latent[latent];
    for (int i = 0; i < 2; i++) {
        carry = sim_mix(carry, r > 0 ? s->oracle_history[i] : 0);
        s->oracle_history[i] = sim_mix(carry, 6);
    }
    for (int i = 0; i < (r > 0 ? 4 : 1); i++)
        s->want_frame[first + i] = sim_mix(carry, (uint64_t)i);
}
