/* lora.h - a low-rank adapter merged into weights: W + alpha / rank * B A, in f32 from the values
 * as they are in the checkpoint, rounded once by whoever stores the result.
 *
 * Keys are peft's: base_model.model.NAME.lora_A.weight [rank, in] and .lora_B.weight [out, rank],
 * where NAME.weight [out, in] is the target; an adapter's name (".default") may stand before
 * .weight. Of a training dump the part generator_lora is read. Hu et al. 2021, arXiv:2106.09685.
 */
#ifndef COMMON_LORA_H
#define COMMON_LORA_H

#include "common/checkpoint.h"

struct lora;

/* alpha 0: as the rank, so that the scale is 1. ERR_DATA names keys that are no pairs. */
MUST_USE err_t lora_open(struct lora **out, const char *path, int32_t alpha);
void lora_close(struct lora **l); /* NULL-safe */

const char *lora_path(const struct lora *l);
/* The adapter's file and alpha. */
void lora_identity(const struct lora *l, uint8_t id[CKPT_ID_BYTES]);

int32_t lora_count(const struct lora *l);
/* The name of target i: NAME.weight. */
const char *lora_target(const struct lora *l, int32_t i);
/* OK if the adapter has nothing for t, or fits it; else ERR_DATA. */
MUST_USE err_t lora_check(const struct lora *l, const struct ckpt_tensor *t);

/* Adds the adapter to rows [first, first + n) of t, which are at w [n, in]. Nothing if t is no
 * target. Each value is one sum over the rank, in order: the same bits however rows are cut. */
MUST_USE err_t lora_add(struct lora *l, const struct ckpt_tensor *t, int64_t first, int64_t n,
                        float *w);

#endif
