/* checkpoint.h - files of trained weights as people have them: a table of tensors, and their
 * values.
 *
 * A checkpoint is a safetensors file, a torch.save file (zip, torch 1.6 and later), or a folder of
 * safetensors shards. Opening reads headers only; it executes nothing and trusts nothing: every
 * count, offset and name is checked against the file. Values are read on demand, in pieces.
 *
 * Nested dictionaries of a torch file become dotted names: {"generator": {"a": T}} is generator.a.
 *
 * Errors: ERR_NOINPUT (`PATH: why`) a file that is missing or unreadable; ERR_DATA (`PATH: why`)
 * one that is not what it must be; ERR_NOMEM.
 * Sources: huggingface/safetensors README (format), APPNOTE.TXT 6.3 (zip), Python's pickletools.
 */
#ifndef COMMON_CHECKPOINT_H
#define COMMON_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/tensor.h"

enum { CKPT_RANK_MAX = 8, CKPT_NAME_MAX = 255, CKPT_TENSORS_MAX = 65536, CKPT_ID_BYTES = 32 };

/* Numbers as they lie in a file, little endian. */
enum ckpt_dtype {
    CKPT_F64,
    CKPT_F32,
    CKPT_F16,
    CKPT_BF16,
    CKPT_I64,
    CKPT_I32,
    CKPT_I16,
    CKPT_I8,
    CKPT_U64,
    CKPT_U32,
    CKPT_U16,
    CKPT_U8,
    CKPT_BOOL,
    CKPT_F8_E4M3,
    CKPT_F8_E5M2,
    CKPT_DTYPES
};

struct ckpt_tensor {
    char *name; /* printable ASCII, 1 to CKPT_NAME_MAX bytes, unique */
    enum ckpt_dtype dtype;
    int32_t rank; /* 0: one number */
    int64_t shape[CKPT_RANK_MAX];
    int32_t file;  /* of a folder, which */
    bool is_dense; /* row-major without gaps: only such values can be read */
    uint64_t at, n_bytes;
};

struct checkpoint;

MUST_USE err_t checkpoint_open(struct checkpoint **out, const char *path);
void checkpoint_close(struct checkpoint **c); /* NULL-safe */

const char *checkpoint_path(const struct checkpoint *c);
/* SHA-256 of each file's size, time of change and header: what a copy of the weights is made of. */
void checkpoint_identity(const struct checkpoint *c, uint8_t id[CKPT_ID_BYTES]);

int32_t checkpoint_count(const struct checkpoint *c);
const struct ckpt_tensor *checkpoint_at(const struct checkpoint *c, int32_t i);
/* NULL: none of that name. */
const struct ckpt_tensor *checkpoint_find(const struct checkpoint *c, const char *name);

/* Keeps what lies under the prefix, without it, if anything does; *found says whether. */
MUST_USE err_t checkpoint_select(struct checkpoint *c, const char *prefix, bool *found);
/* The names of a model's own tensors: of a training dump, what lies under generator, else
 * generator_ema, else model; without the fragments that FSDP, activation checkpointing and
 * torch.compile put into names, and without the prefix "model.". */
MUST_USE err_t checkpoint_clean(struct checkpoint *c);

/* Values [first, first + n) of t as floats, from F64, F32, F16 or BF16; exact but for F64. */
MUST_USE err_t checkpoint_read(struct checkpoint *c, const struct ckpt_tensor *t, int64_t first,
                               int64_t n, float *out);
/* Bytes [first, first + n) of t as they are. */
MUST_USE err_t checkpoint_read_raw(struct checkpoint *c, const struct ckpt_tensor *t,
                                   uint64_t first, uint64_t n, void *out);

bool ckpt_is_float(enum ckpt_dtype t); /* checkpoint_read takes it */
size_t ckpt_dtype_bytes(enum ckpt_dtype t);
const char *ckpt_dtype_name(enum ckpt_dtype t); /* "F32" ...: safetensors' words */
int64_t ckpt_count(const struct ckpt_tensor *t);
/* "[5, 7]" */
void ckpt_shape_text(const int64_t *shape, int32_t rank, char *out, size_t cap);

/* Rounds to nearest, ties to even; NaN stays NaN. */
void ckpt_round(enum ckpt_dtype to, void *out, const float *x, int64_t n);

#endif
