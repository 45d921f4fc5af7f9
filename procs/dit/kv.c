/* kv.c - see kv.h. */
#include "procs/dit/kv.h"

#include <stdlib.h>

static int32_t sink_copies(const struct conf *c)
{
    return c->dit.rope == ROPE_RELATIVE ? c->dit.sink : 0;
}

uint64_t kv_bytes(const struct conf *c, enum dtype act)
{
    const uint64_t frame = (uint64_t)conf_frame_tokens(c) * (uint64_t)c->dit.dim;
    const uint64_t embed = (uint64_t)c->text.text_len * (uint64_t)c->text.dim;
    const uint64_t slots = 2 * (uint64_t)conf_window_max(c) + (uint64_t)sink_copies(c);
    return 2 * embed * sizeof(float) + (uint64_t)c->dit.layers * slots * frame * dtype_bytes(act);
}

err_t kv_open(struct kv *kv, const struct conf *c, enum dtype act, void *base)
{
    const int32_t L = c->dit.layers, N = c->dit.heads, D = c->dit.dim / N;
    const int32_t frame_tokens = conf_frame_tokens(c), n_sink = sink_copies(c) * frame_tokens;
    const int32_t n_ring = conf_window_max(c) * frame_tokens;
    char *p = base;

    *kv = (struct kv){
        .window = c->dit.window, .sink = c->dit.sink, .frame_tokens = frame_tokens, .layers = L};
    kv->k = calloc(3 * (size_t)L, sizeof *kv->k);
    if (!kv->k) return FAIL(ERR_NOMEM, "kv");
    kv->v = kv->k + L;
    kv->k_sink = kv->v + L;
    for (int32_t i = 0; i < 2; i++) {
        kv->embed[i] = TENSOR(p, DTYPE_F32, c->text.text_len, c->text.dim);
        p += tensor_bytes(kv->embed[i]);
    }
    for (int32_t i = 0; i < L; i++) {
        kv->k[i] = TENSOR(p, act, n_ring, N, D);
        p += tensor_bytes(kv->k[i]);
        kv->v[i] = TENSOR(p, act, n_ring, N, D);
        p += tensor_bytes(kv->v[i]);
        if (n_sink == 0) continue;
        kv->k_sink[i] = TENSOR(p, act, n_sink, N, D);
        p += tensor_bytes(kv->k_sink[i]);
    }
    return OK;
}

void kv_close(struct kv *kv)
{
    free(kv->k);
    *kv = (struct kv){0};
}

int32_t kv_slot(const struct kv *kv, int64_t frame, int64_t sink_base)
{
    const int64_t at = frame - sink_base;
    MUST(at >= 0);
    if (at < kv->sink) return (int32_t)at;
    return kv->sink + (int32_t)((at - kv->sink) % (kv->window - kv->sink));
}

int32_t kv_slots_used(const struct kv *kv, int64_t end, int64_t sink_base)
{
    const int64_t n = end - sink_base;
    return n < kv->window ? (int32_t)n : kv->window;
}
