/* weights.h - a model's weights: declared once by name and shape, then mapped and filled.
 *
 * A model declares its tensors under the names that they have in the public checkpoints (docs say
 * which). weights_map binds them to region weights.STAGE, which outlives the process, and fills it
 * when it is not sealed: from the stage's checkpoint, if the configuration names one, else by
 * `random:SEED`, which draws each tensor from the sequence (SEED, name), so that the same seed
 * gives the same bits on every device.
 */
#ifndef PROCS_WEIGHTS_H
#define PROCS_WEIGHTS_H

#include "common/checkpoint.h"
#include "common/lora.h"
#include "common/tensor.h"
#include "procs/stage.h"

struct weights;

/* What a model computes in on its device: f32 on the CPU and where the configuration says so, else
 * the model's half type. */
enum dtype weights_half(const struct conf *c, const struct dev *d, enum dtype half);

MUST_USE err_t weights_open(struct weights **out);
void weights_close(struct weights **w); /* the tensors stay bound: their memory is the region's */

/* Room for one tensor; *at gets its shape now and its data in weights_map. `at` must stay put. */
MUST_USE err_t weights_room(struct weights *w, struct tensor *at, enum dtype type, int32_t rank,
                            const int32_t *shape);
/* Rows [first, first + n) of a tensor that has room are the checkpoint's tensor `name`; random
 * weights are mean + std * N(0,1). */
MUST_USE err_t weights_name(struct weights *w, const struct tensor *at, int32_t first, int32_t n,
                            float mean, float std, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));

/* The tensor named last has this shape in a checkpoint, where it is not the rows' own. Dimensions
 * of 1 never count. A room of rank 5 is a convolution, [O, kt, ky, kx, C], in a checkpoint [O, C,
 * kt, ky, kx]: it needs no such call. */
void weights_as(struct weights *w, int32_t rank, const int32_t *shape);
/* A checkpoint may have tensors whose names begin so and that the model does not use. The prefix
 * is a literal. */
MUST_USE err_t weights_spare(struct weights *w, const char *prefix);

size_t weights_bytes(const struct weights *w);
int32_t weights_count(const struct weights *w);

/* Binds the tensors to memory of weights_bytes bytes. */
void weights_bind(struct weights *w, void *base);
/* Fills every named row range from `source` ("random:SEED"), kept as ops_set_bf16 says. report as
 * in weights_load. */
MUST_USE err_t weights_fill(struct weights *w, struct dev *d, const char *source,
                            void (*report)(void *self, uint64_t n_done, uint64_t n_all),
                            void *self);

/* Fills every named row range from a checkpoint, whose names are clean, with the LoRA (may be NULL)
 * merged into it before it is rounded to the room's dtype, and kept as ops_set_bf16 says. First
 * every name, shape and dtype is compared: ERR_DATA, one sentence that lists what is missing, not
 * expected or wrong. Streams: host memory is a few megabytes and one target's factors. report(self,
 * bytes done, of all) may be NULL. */
MUST_USE err_t weights_load(struct weights *w, struct dev *d, struct checkpoint *c,
                            struct lora *lora,
                            void (*report)(void *self, uint64_t n_done, uint64_t n_all),
                            void *self);

/* weights_map: region weights.NAME of this stage, or on its clean_dev weights.NAME.clean, bound,
 * filled, sealed. weights_drop: the memory of the first given back, whether it is mapped here or
 * left by a predecessor. */
MUST_USE err_t weights_map(struct weights *w, struct stage *st, struct dev *d, const char *name,
                           struct region *region);
MUST_USE err_t weights_drop(struct stage *st, const char *name, struct region *region);

#endif
