/* naive_cache.h - the reference's KV cache in units of frames: which frame each slot holds, what a
 * pass moves, what it writes, what it looks at. LongLive's causal model, its roll by copying.
 */
#ifndef TESTS_PROCS_DIT_NAIVE_CACHE_H
#define TESTS_PROCS_DIT_NAIVE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

enum { NAIVE_WINDOW_MAX = 24 };

struct naive_cache {
    int32_t window, sink;
    int64_t end, local_end; /* frames seen; slots used */
    int64_t frame[NAIVE_WINDOW_MAX];
    /* Of the last pass: slot i took the content of slot moved_from[i] (itself: stayed), then slots
     * [write_from, write_to) were written, then these slots were looked at. */
    int32_t moved_from[NAIVE_WINDOW_MAX];
    int32_t write_from, write_to;
    int32_t key_slot[NAIVE_WINDOW_MAX], n_keys;
};

static inline void naive_cache_reset(struct naive_cache *c, int32_t window, int32_t sink)
{
    *c = (struct naive_cache){.window = window, .sink = sink};
    for (int32_t i = 0; i < window; i++) c->frame[i] = -1;
}

/* Frames [first, first + n) pass through; takes_sink: a recache after a switch whose sink is not
 * kept. */
static inline void naive_cache_pass(struct naive_cache *c, int64_t first, int32_t n,
                                    bool takes_sink)
{
    const int64_t end = first + n;
    const bool again = end <= c->end && first > 0;
    int64_t e = c->local_end + (end - c->end);
    for (int32_t i = 0; i < c->window; i++) c->moved_from[i] = i;
    if (end > c->end && n + c->local_end > c->window) {
        const int64_t ev = n + c->local_end - c->window, keep = c->local_end - ev - c->sink;
        e -= ev;
        for (int64_t i = c->sink; i < c->sink + keep; i++) {
            c->moved_from[i] = (int32_t)(i + ev);
            c->frame[i] = c->frame[i + ev];
        }
    }
    const int64_t b = e - n, w = again && !takes_sink && b < c->sink ? c->sink : b;
    for (int64_t i = w; i < e; i++) c->frame[i] = first + i - b;
    c->write_from = (int32_t)w;
    c->write_to = (int32_t)e;
    c->n_keys = 0;
    const int64_t tail = e - (c->window - c->sink) > c->sink ? e - (c->window - c->sink) : c->sink;
    for (int32_t i = 0; i < c->sink; i++) c->key_slot[c->n_keys++] = i;
    for (int64_t i = tail; i < e; i++) c->key_slot[c->n_keys++] = (int32_t)i;
    if (again) return;
    c->end = end;
    c->local_end = e;
}

#endif
