/* trace.c - see trace.h. */
#include "procs/supervisor/trace.h"

#include <stdlib.h>

enum { LOOK = 512 };

static err_t grow(struct trace_list *list, int64_t n)
{
    if (list->n + n <= list->cap) return OK;
    const int64_t cap = 2 * list->cap + n;
    void *v = realloc(list->v, (size_t)cap * sizeof *list->v);
    if (!v) return FAIL(ERR_NOMEM, "trace");
    list->v = v;
    list->cap = cap;
    return OK;
}

err_t trace_look(struct trace *t, const struct ledger *l)
{
    err_t e = OK;
    for (int w = 0; w < WRITERS; w++) {
        struct trace_list *list = &t->of[w];
        int32_t n = LOOK;
        while (n == LOOK) {
            TRY(grow(list, LOOK));
            const uint64_t from = t->next[w];
            n = ledger_spans_read(&l->spans[w], &t->next[w], list->v + list->n, LOOK);
            t->n_lost += t->next[w] - from - (uint64_t)n;
            list->n += n;
        }
    }
out:
    return e;
}

void trace_clear(struct trace *t)
{
    for (int w = 0; w < WRITERS; w++) t->of[w].n = 0;
    t->n_lost = 0;
}

void trace_free(struct trace *t)
{
    for (int w = 0; w < WRITERS; w++) free(t->of[w].v);
    *t = (struct trace){0};
}

/* --- when what was ready ---------------------------------------------------------------------- */

static struct block_times *block_of(const struct times *t, int64_t block)
{
    const int64_t i = block - t->first_block;
    return i >= 0 && i < t->n_blocks ? &t->block[i] : NULL;
}

static void add_dit(struct times *t, const struct ledger_span *s)
{
    struct block_times *b = block_of(t, s->unit);
    const int64_t took_ns = s->ended_ns - s->began_ns;
    if (!b) return;
    if (s->phase == PHASE_PROMPT) b->prompt_ns = took_ns;
    if (s->phase == PHASE_RECACHE) b->recache_ns = took_ns;
    if (s->phase == PHASE_CLEAN) {
        b->clean_ns = took_ns;
        b->clean_began_ns = s->began_ns;
        b->clean_ended_ns = s->ended_ns;
    }
    if (s->phase == PHASE_DENOISE && s->part == SPAN_WHOLE) {
        b->began_ns = s->began_ns;
        b->made_ns = s->ended_ns;
    } else if (s->phase == PHASE_DENOISE && s->part >= 0 && s->part < TIMES_STEPS_MAX) {
        b->step_ns[s->part] = took_ns;
    }
}

static void add_vae(struct times *t, const struct ledger_span *s)
{
    const int64_t i = s->unit - t->first_block * t->n_per_block;
    if (i < 0 || i >= t->n_blocks * t->n_per_block) return;
    t->latent[i].began_ns = s->began_ns;
    t->latent[i].ready_ns = s->ended_ns;
    if (i % t->n_per_block == t->n_per_block - 1)
        t->block[i / t->n_per_block].ready_ns = s->ended_ns;
}

/* When vae might begin; and what is in the next block's first step is not counted twice. */
static void set_given(struct times *t, const struct conf *c)
{
    for (int64_t i = 0; i < t->n_blocks; i++) {
        struct block_times *b = &t->block[i];
        const struct block_times *next = b + 1; /* one more than there are is there, all 0 */
        const int64_t vae_ns = t->latent[i * t->n_per_block].began_ns;
        const bool has_waited =
            conf_cleans_first(c) && b->clean_ended_ns > b->made_ns && b->clean_ended_ns <= vae_ns;
        b->given_ns = has_waited ? b->clean_ended_ns : b->made_ns;
        if (b->clean_began_ns >= next->began_ns && b->clean_began_ns < next->made_ns)
            b->clean_ns = 0;
    }
}

static void add_gateway(struct times *t, const struct ledger_span *s)
{
    for (int32_t k = 0; k < s->part; k++) {
        const int64_t i = s->unit + k - t->first_frame;
        if (i < 0 || i >= t->n_frames) continue;
        t->put_ns[i] = s->ended_ns;
        t->put_began_ns[i] = s->began_ns;
    }
}

static err_t alloc(struct times *t)
{
    t->block = calloc((size_t)t->n_blocks + 1, sizeof *t->block);
    t->latent = calloc((size_t)(t->n_blocks * t->n_per_block) + 1, sizeof *t->latent);
    t->put_ns = calloc((size_t)t->n_frames + 1, sizeof *t->put_ns);
    t->put_began_ns = calloc((size_t)t->n_frames + 1, sizeof *t->put_began_ns);
    return t->block && t->latent && t->put_ns && t->put_began_ns ? OK : FAIL(ERR_NOMEM, "times");
}

/* Block i of the times: whose it is, and where its frames begin. */
static void place(struct times *t, const struct ledger *l, int64_t i)
{
    struct block_times *b = &t->block[i];
    b->session = ledger_session_of(l, t->first_block + i);
    const struct ledger_session *s = &l->sessions[b->session];
    b->at = t->first_block + i - s->first_block;
    for (int64_t k = 0; k < t->n_per_block; k++)
        t->latent[i * t->n_per_block + k].frame =
            s->first_frame - t->first_frame + ledger_frames_of(b->at * t->n_per_block + k);
}

err_t times_of(struct times *out, const struct trace *t, const struct ledger *l,
               const struct conf *c, int64_t first_session)
{
    err_t e = OK;
    const struct ledger_session *s = &l->sessions[first_session];
    const int64_t end = (int64_t)ledger_read(&l->dit.n_latents_blocks);
    struct times x = {.n_per_block = c->dit.block, .first_block = s->first_block};
    if (first_session >= (int64_t)ledger_read(&l->gateway.n_sessions) || end <= s->first_block)
        return FAIL(ERR_NONE, "no block was made");
    x.n_blocks = end - s->first_block;
    x.first_frame = s->first_frame;
    const struct ledger_session *last = &l->sessions[ledger_session_of(l, end - 1)];
    x.n_frames = ledger_first_frame(last, end, c->dit.block) - x.first_frame;
    TRY(alloc(&x));
    for (int64_t i = 0; i < x.n_blocks; i++) place(&x, l, i);
    for (int64_t i = 0; i < t->of[WRITER_DIT].n; i++) add_dit(&x, &t->of[WRITER_DIT].v[i]);
    for (int64_t i = 0; i < t->of[WRITER_VAE].n; i++) add_vae(&x, &t->of[WRITER_VAE].v[i]);
    set_given(&x, c);
    for (int64_t i = 0; i < t->of[WRITER_GATEWAY].n; i++)
        add_gateway(&x, &t->of[WRITER_GATEWAY].v[i]);
    *out = x;
    x = (struct times){0};
out:
    times_free(&x);
    return e;
}

void times_free(struct times *t)
{
    free(t->block);
    free(t->latent);
    free(t->put_ns);
    free(t->put_began_ns);
    *t = (struct times){0};
}
