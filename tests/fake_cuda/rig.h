/* rig.h - for tests of kernels/cuda/gemm.c: what it stands on. The library that it opens is lt.c,
 * the device the fake runtime's, and the kernels of ours that follow a product only say so. */
#ifndef FAKE_CUDA_RIG_H
#define FAKE_CUDA_RIG_H

#include "kernels/cuda/cuda.h"
#include "tests/check.h"
#include "tests/fake_cuda/lt.h"

enum { RIG_ROOM = 4096 };

extern struct rig {
    struct dev *d;
    const char *soname; /* opened for cuBLASLt; NULL: this program, which has lt.c's functions */
    struct rig_pass {   /* of a kernel of ours, the last one */
        const char *name;
        const void *y, *b; /* what it goes on from; the bias or shift that it adds */
    } pass;

    /* Memory; heads of tensors lie at whole 16 bytes, not more. */
    _Alignas(256) float head[4];
    float x[RIG_ROOM], w[RIG_ROOM], y[RIG_ROOM], b[RIG_ROOM], other_b[RIG_ROOM];
    float scratch[RIG_ROOM];
} rig;

/* An open device; and that nothing is left. */
int rig_setup(void **state);
int rig_teardown(void **state);

/* This code, and a sentence of one line with these words. */
void rig_want(err_t e, err_t code, const char *words);

#endif
