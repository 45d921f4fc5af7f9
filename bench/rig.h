/* rig.h - each stage's model on a device of its own, with synthetic input, without processes. */
#ifndef BENCH_RIG_H
#define BENCH_RIG_H

#include <stdbool.h>

#include "common/conf.h"
#include "procs/dit/dit.h"
#include "procs/text/umt5.h"
#include "procs/vae/vae.h"

/* A device and one model's weights; the models' memory comes after. */
struct rig {
    struct conf conf;
    struct dev *d;
    struct weights *weights;
    void *weights_memory, *memory;
};

/* A prompt of n tokens, text_len when opened and not more; a run encodes it. */
struct rig_text {
    struct rig rig;
    struct umt5 *model;
    int32_t *ids, n;
    float *out;
};
MUST_USE err_t rig_text_open(struct rig_text *t, const struct conf *c, const char *place);
MUST_USE err_t rig_text_run(void *self);
void rig_text_close(struct rig_text *t);

/* A prompt as long as it can be, and a full window. A run is what dit's main.c does for a block:
 * noise, the denoising passes, the clean pass; or one pass of them; or the pass after a switch. */
struct rig_dit {
    struct rig rig;
    struct dit *model;
    struct kv kv;
    void *kv_memory;
    struct tensor x, flow, eps, frames, key;
    int64_t block;
    int32_t step; /* of rig_dit_pass; SCHED_CLEAN */
};
MUST_USE err_t rig_dit_open(struct rig_dit *t, const struct conf *c, const char *place);
MUST_USE err_t rig_dit_block(void *self);
MUST_USE err_t rig_dit_pass(void *self);
MUST_USE err_t rig_dit_recache(void *self);
int32_t rig_dit_recached(const struct rig_dit *t); /* frames */
void rig_dit_close(struct rig_dit *t);

/* A run decodes the session's next latent: the first of them is one frame, each later one four. */
struct rig_vae {
    struct rig rig;
    struct vae *model;
    void *state;
    struct tensor latent, rgb;
    int64_t r;
};
MUST_USE err_t rig_vae_open(struct rig_vae *t, const struct conf *c, const char *place);
MUST_USE err_t rig_vae_run(void *self);
void rig_vae_close(struct rig_vae *t);

#endif
