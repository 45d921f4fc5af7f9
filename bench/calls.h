/* calls.h - the ops that the models call, each kind once, and how one of them is called alone.
 *
 * A bench of single ops times what a pass has been seen to call: shapes, types and which tensors
 * are absent are the models' own and stand nowhere else. Two calls are of one kind if they agree in
 * stage, op, and shape and type of every tensor. Seen are: a prompt of an eighth and of all of
 * text.text_len tokens encoded (64 and 512 of LongLive's); cross attention's keys and values made
 * of a prompt; a block with a full window, all its passes; a latent that is not a session's first.
 * Layers are alike, so the models are opened with two.
 *
 * Beside these stand kv.ring and kv.roll, a block's K and V into one layer's cache: to their slots,
 * or as a cache without slots does it; and rope_sink where the configuration does without.
 */
#ifndef BENCH_CALLS_H
#define BENCH_CALLS_H

#include <stdbool.h>

#include "common/conf.h"
#include "common/dev.h"
#include "common/tensor.h"

enum { CALLS_MAX = 192, CALL_ARGS_MAX = 10 };

struct call {
    const char *stage, *op;         /* live for ever; stage "kv" of kv.ring and kv.roll */
    int32_t n_args;                 /* in the order of kernels/ops.h */
    struct tensor t[CALL_ARGS_MAX]; /* data of no use; rank 0: absent */
    void *kept[CALL_ARGS_MAX];      /* the pass's integers, which kernels go by; else NULL */
    double flops, bytes;            /* of its products; least that it moves: parts.h */
};

struct calls {
    struct call call[CALLS_MAX];
    int32_t n;
    err_t e; /* of the watcher */
    struct dev *d;
    const char *stage;
};

/* calls: zeroed. Opens each model on a device of this name, with random weights, and closes it.
 * calls_drop afterwards, whatever came of it. */
MUST_USE err_t calls_collect(struct calls *c, const struct conf *conf, const char *device);
void calls_drop(struct calls *c);

/* The call with these tensors, which have the kind's shapes and types. */
MUST_USE err_t calls_run(const struct call *k, struct dev *d, const struct tensor *t,
                         const struct conf *conf);

/* "4680x1536x8960 bf16 to f32 gated": parts_shape, the types of the second tensor and, if it is
 * another, the first, and whether there is a gate, a residual or a plain output beside the normed
 * one. Another kind of the same op and stage has another text. */
void calls_text(const struct call *k, char *out, size_t cap);

#endif
