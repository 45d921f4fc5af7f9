/* passes.c - see passes.h. */
#include "procs/dit/passes.h"

#include <stdlib.h>

enum { PASSES_MAX = 256 }; /* every window from 3 to 24 in turn, and all their fillings */

err_t passes_open(struct passes *s, struct dev *d, int32_t window_max, err_t (*work)(void *pass))
{
    *s = (struct passes){.d = d, .work = work, .window_max = window_max};
    s->at = calloc(PASSES_MAX, sizeof *s->at);
    return s->at ? OK : FAIL(ERR_NOMEM, "passes");
}

void passes_close(struct passes *s)
{
    for (int32_t i = 0; i < s->n; i++) dev_graph_close(s->d, &s->at[i].graph);
    free(s->at);
    *s = (struct passes){0};
}

static bool is_same_kind(const struct pass *a, const struct pass *b)
{
    return a->n_frames == b->n_frames && a->n_slots == b->n_slots && a->n_sinks == b->n_sinks &&
           a->only_kv == b->only_kv;
}

err_t passes_find(struct passes *s, const struct pass *kind, struct pass **out)
{
    for (int32_t i = 0; i < s->n; i++) {
        *out = &s->at[i];
        if (is_same_kind(*out, kind)) return OK;
    }
    if (s->n == PASSES_MAX) return FAIL(ERR_LIMIT, "more than %d kinds of pass", PASSES_MAX);
    *out = &s->at[s->n++];
    **out = *kind;
    return OK;
}

static err_t record(struct passes *s, struct pass *p)
{
    err_t e = OK;
    TRY(dev_record(s->d, &p->graph, s->work, p));
    s->n_recorded++;
out:
    return e;
}

err_t passes_record(struct passes *s, struct pass *p)
{
    s->n_slots = p->n_slots;
    return p->graph ? OK : record(s, p);
}

static int32_t distance(const struct passes *s, const struct pass *p)
{
    const int32_t n = p->n_slots - s->n_slots;
    return n >= 0 ? n : n + s->window_max;
}

err_t passes_record_next(struct passes *s)
{
    struct pass *next = NULL;
    if (s->n_recorded == s->n) return OK;
    for (int32_t i = 0; i < s->n; i++) {
        struct pass *p = &s->at[i];
        if (!p->graph && (!next || distance(s, p) < distance(s, next))) next = p;
    }
    return record(s, next);
}
