/* checkpoint_impl.h - what the readers of one format each share; nobody else includes it. */
#ifndef COMMON_CHECKPOINT_IMPL_H
#define COMMON_CHECKPOINT_IMPL_H

#include "common/checkpoint.h"

struct ckpt_file {
    int fd;
    uint64_t n_bytes;
};

/* All n bytes, or ERR_DATA: the file is shorter. */
MUST_USE err_t ckpt_pread(const struct ckpt_file *f, uint64_t at, void *out, uint64_t n);
/* Bytes that say what the file holds: part of the identity. */
void ckpt_header(struct checkpoint *c, const void *data, size_t n_bytes);
/* Checks name, rank, the product of shape and that the bytes lie inside the file. at and n_bytes
 * are taken from t; n_bytes must be the product's. */
MUST_USE err_t ckpt_add(struct checkpoint *c, const struct ckpt_file *f, const char *name,
                        size_t n_name, const struct ckpt_tensor *t);
/* false: the product of shape and size of a number is over 2^62. */
bool ckpt_shape_bytes(const int64_t *shape, int32_t rank, enum ckpt_dtype t, uint64_t *n_bytes);

/* The readers: every tensor of the file through ckpt_add. */
MUST_USE err_t safetensors_scan(struct checkpoint *c, const struct ckpt_file *f);
MUST_USE err_t torchfile_scan(struct checkpoint *c, const struct ckpt_file *f);

/* A pickle whose storages lie elsewhere. find: where the storage `key` lies, and its bytes. */
struct pickle_storages {
    err_t (*find)(void *self, const char *key, size_t n_key, uint64_t *at, uint64_t *n_bytes);
    void *self;
};
MUST_USE err_t pickle_scan(struct checkpoint *c, const struct ckpt_file *f, const uint8_t *data,
                           size_t n_bytes, const struct pickle_storages *storages);

#endif
