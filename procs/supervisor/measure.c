/* measure.c - see measure.h. */
#include "procs/supervisor/measure.h"

const char *const interval_names[INTERVALS] = {
    [INTERVAL_NORMAL] = "normal",
    [INTERVAL_BOUNDARY] = "batch_boundary",
    [INTERVAL_FULL] = "cache_full",
};

int64_t measure_gaps(const struct times *t, int64_t from, int64_t to, int64_t *out)
{
    for (int64_t i = from; i + 1 < to; i++)
        out[i - from] = t->block[i + 1].ready_ns - t->block[i].ready_ns;
    return to - from > 1 ? to - from - 1 : 0;
}

/* --- intervals -------------------------------------------------------------------------------- */

/* Of what ends with this latent of the session, the first of its block or not. */
static enum interval kind_of(int64_t latent, int32_t n_per_block, int32_t window)
{
    if (latent % n_per_block != 0) return INTERVAL_NORMAL;
    return latent < window ? INTERVAL_BOUNDARY : INTERVAL_FULL;
}

int64_t measure_completion(const struct times *t, int32_t window, enum interval kind, int64_t *out)
{
    int64_t n = 0;
    for (int64_t i = 1; i < t->n_blocks * t->n_per_block; i++)
        if (kind == INTERVALS || kind == kind_of(i, t->n_per_block, window))
            out[n++] = t->latent[i].ready_ns - t->latent[i - 1].ready_ns;
    return n;
}

int64_t measure_presentation(const struct times *t, int32_t window, enum interval kind,
                             int64_t *out)
{
    int64_t n = 0;
    for (int64_t f = 1; f < t->n_frames; f++) {
        const int64_t latent = (f + 3) / 4;
        const bool is_first = f == ledger_frames_of(latent); /* of its latent */
        const enum interval k =
            is_first ? kind_of(latent, t->n_per_block, window) : INTERVAL_NORMAL;
        if (kind == INTERVALS || kind == k) out[n++] = t->put_ns[f] - t->put_ns[f - 1];
    }
    return n;
}

/* --- switches --------------------------------------------------------------------------------- */

static const struct ledger_span *encoding_of(const struct trace *tr, int64_t script)
{
    const struct trace_list *text = &tr->of[WRITER_TEXT];
    for (int64_t i = text->n - 1; i >= 0; i--)
        if (text->v[i].phase == PHASE_ENCODE && text->v[i].unit == script) return &text->v[i];
    return NULL;
}

/* A clean pass that was made while the next block was, whose span then ends later. */
static bool is_beside(const struct trace_list *dit, int64_t at)
{
    const struct ledger_span *s = &dit->v[at];
    for (int64_t i = at + 1; s->phase == PHASE_CLEAN && i < dit->n; i++) {
        const struct ledger_span *next = &dit->v[i];
        if (next->phase == PHASE_DENOISE && next->part == SPAN_WHOLE)
            return next->began_ns <= s->began_ns;
    }
    return false;
}

/* Of [from, to), the time in which dit worked on blocks before this one. */
static int64_t work_before(const struct trace *tr, int64_t from_ns, int64_t to_ns)
{
    const struct trace_list *dit = &tr->of[WRITER_DIT];
    int64_t sum_ns = 0;
    for (int64_t i = 0; i < dit->n; i++) {
        const struct ledger_span *s = &dit->v[i];
        const bool is_unit =
            (s->phase == PHASE_DENOISE && s->part == SPAN_WHOLE) || s->phase == PHASE_CLEAN;
        const int64_t begin = s->began_ns > from_ns ? s->began_ns : from_ns;
        const int64_t end = s->ended_ns < to_ns ? s->ended_ns : to_ns;
        if (is_unit && end > begin && !is_beside(dit, i)) sum_ns += end - begin;
    }
    return sum_ns;
}

bool measure_switch(const struct times *t, const struct trace *tr, const struct ledger *l,
                    const struct conf *c, int64_t decision, struct switch_times *out)
{
    const struct ledger_decision *d = &l->decisions[decision];
    const struct ledger_script *script = &l->scripts[d->script];
    const int64_t i = d->block - t->first_block;
    if (i < 0 || i >= t->n_blocks || t->block[i].ready_ns == 0) return false;
    const struct block_times *b = &t->block[i];
    const struct latent_times *first = &t->latent[i * t->n_per_block];
    const struct ledger_span *encoding = encoding_of(tr, d->script);
    const int64_t in_session = b->at * t->n_per_block;
    struct switch_times s = {.block = b->at,
                             .asked_ns = script->asked_ns,
                             .decided_ns = d->decided_ns,
                             .is_hit = !encoding,
                             .n_tokens = d->n_tokens,
                             .prompt_ns = b->prompt_ns,
                             .recache_ns = b->recache_ns};
    if (b->recache_ns)
        s.n_recached = (int32_t)(in_session < c->dit.window ? in_session : c->dit.window);
    if (encoding) {
        s.encode_ns = encoding->ended_ns - s.asked_ns;
        s.encoder_ns = encoding->ended_ns - encoding->began_ns;
    }
    const int64_t encoded_ns = s.asked_ns + s.encode_ns;
    s.block_ns = work_before(tr, encoded_ns, d->decided_ns);
    s.lead_ns = d->decided_ns - encoded_ns - s.block_ns;
    for (int k = 0; k < TIMES_STEPS_MAX; k++) s.denoise_ns += b->step_ns[k];
    s.decode_ns = first->ready_ns - first->began_ns;
    s.total_ns = first->ready_ns - s.asked_ns;
    s.other_ns =
        first->ready_ns - d->decided_ns - s.prompt_ns - s.recache_ns - s.denoise_ns - s.decode_ns;
    s.whole_ns = b->ready_ns - s.asked_ns;
    s.shown_ns = t->put_ns[first->frame] - s.asked_ns;
    *out = s;
    return true;
}

/* --- components ------------------------------------------------------------------------------- */

int64_t measure_dit_busy(const struct times *t, int64_t from, int64_t to)
{
    int64_t sum_ns = 0;
    for (int64_t i = from; i < to; i++)
        sum_ns += t->block[i].made_ns - t->block[i].began_ns + t->block[i].clean_ns;
    return sum_ns;
}

static double encoding_between(const struct trace *tr, int64_t from_ns, int64_t to_ns)
{
    double sum_ns = 0;
    for (int64_t i = 0; i < tr->of[WRITER_TEXT].n; i++) {
        const struct ledger_span *s = &tr->of[WRITER_TEXT].v[i];
        if (s->ended_ns > from_ns && s->ended_ns <= to_ns)
            sum_ns += (double)(s->ended_ns - s->began_ns);
    }
    return sum_ns;
}

struct components measure_components(const struct times *t, const struct trace *tr, int64_t from,
                                     int64_t to, bool is_overlapped)
{
    struct components c = {0};
    const double n = (double)(to - from);
    const int64_t begin_ns = t->block[from - 1].ready_ns, end_ns = t->block[to - 1].ready_ns;
    double steps_ns = 0;
    for (int64_t i = from; i < to; i++) {
        const struct block_times *b = &t->block[i];
        for (int k = 0; k < TIMES_STEPS_MAX; k++) c.step_ns[k] += (double)b->step_ns[k] / n;
        c.kv_ns += (double)(b->recache_ns + b->clean_ns) / n;
        for (int k = 0; k < t->n_per_block; k++) {
            const struct latent_times *x = &t->latent[i * t->n_per_block + k];
            c.decode_ns += (double)(x->ready_ns - x->began_ns) / n;
        }
    }
    for (int k = 0; k < TIMES_STEPS_MAX; k++) steps_ns += c.step_ns[k];
    c.encode_ns = encoding_between(tr, begin_ns, end_ns) / n;
    const double period_ns = (double)(end_ns - begin_ns) / n;
    const double dit_ns = (double)measure_dit_busy(t, from, to) / n;
    if (is_overlapped) c.sync_ns = period_ns - (dit_ns > c.decode_ns ? dit_ns : c.decode_ns);
    else c.sync_ns = period_ns - steps_ns - c.kv_ns - c.decode_ns - c.encode_ns;
    return c;
}

/* --- hand-offs -------------------------------------------------------------------------------- */

int64_t measure_dit_to_vae(const struct times *t, int64_t *out)
{
    int64_t n = 0;
    for (int64_t i = 0; i < t->n_blocks; i++) {
        const struct latent_times *first = &t->latent[i * t->n_per_block];
        if (i == 0 || first[-1].ready_ns <= t->block[i].given_ns)
            out[n++] = first->began_ns - t->block[i].given_ns;
    }
    return n;
}

/* A put waits for the last of its latents, and for the put before it. */
int64_t measure_vae_to_gateway(const struct times *t, int64_t *out)
{
    const int64_t n_latents = t->n_blocks * t->n_per_block;
    int64_t n = 0, before_ns = 0;
    for (int64_t i = 0; i < n_latents; i++) {
        const struct latent_times *x = &t->latent[i];
        const int64_t began_ns = t->put_began_ns[x->frame];
        if (i + 1 < n_latents && t->put_began_ns[x[1].frame] == began_ns) continue;
        if (before_ns <= x->ready_ns) out[n++] = began_ns - x->ready_ns;
        before_ns = t->put_ns[x->frame];
    }
    return n;
}
