/* spm.h - a sentencepiece model file: its pieces, their scores, its character map.
 *
 * The one door to libsentencepiece, which reads and checks the file; spm.cc is the only C++ of the
 * project, and no exception leaves it. Segmentation is not the library's but unigram.c's: the
 * reference's tokenizer differs from it in what a piece may be and in the width of its sums.
 */
#ifndef PROCS_TEXT_SPM_H
#define PROCS_TEXT_SPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct spm;

/* Reads a model of n_bytes; name: of the file, for errors; data is not kept. ERR_DATA: it is not a
 * sentencepiece model of kind unigram. ERR_NOMEM. */
MUST_USE err_t spm_open(struct spm **out, const char *name, const void *data, size_t n_bytes);
void spm_close(struct spm **s);

int32_t spm_count(const struct spm *s);
/* Piece id, 0 <= id < spm_count: UTF-8, NUL-terminated, the model's until spm_close. */
const char *spm_piece(const struct spm *s, int32_t id, size_t *n_bytes, float *score);
int32_t spm_unk(const struct spm *s);    /* id of the unknown piece */
bool spm_has_bytes(const struct spm *s); /* trained with byte fallback: pieces <0x00> to <0xFF> */

/* The precompiled character map (see charsmap.h); n_bytes 0: the model has none. */
const uint8_t *spm_charsmap(const struct spm *s, size_t *n_bytes);

#ifdef __cplusplus
}
#endif
#endif
