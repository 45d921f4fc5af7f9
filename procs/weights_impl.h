/* weights_impl.h - the declared tensors, for weights.c and weights_load.c. */
#ifndef PROCS_WEIGHTS_IMPL_H
#define PROCS_WEIGHTS_IMPL_H

#include "procs/weights.h"

enum { WEIGHTS_NAME_BYTES = 96 };

struct room {
    struct tensor *at;
    size_t offset;
};

struct part {
    const struct tensor *at;
    int32_t first, n;
    float mean, std;
    char name[WEIGHTS_NAME_BYTES];
    int32_t file_rank; /* 0: the shape of the rows */
    int32_t file_shape[TENSOR_RANK_MAX];
};

struct weights {
    struct room *rooms;
    struct part *parts;
    const char **spare; /* prefixes of tensors that a checkpoint may have besides */
    int32_t n_rooms, n_parts, n_spare;
    size_t n_bytes;
};

/* Rounds what is f32 as ops_set_bf16 says; other types round by themselves. */
MUST_USE err_t weights_keep(struct weights *w, struct dev *d);

#endif
