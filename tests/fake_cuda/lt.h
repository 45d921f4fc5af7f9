/* lt.h - a cuBLASLt over host memory, for tests of kernels/cuda/gemm.c without a GPU.
 *
 * Stricter than the real one: an algorithm serves the version and the kind of product that it was
 * named for, with as much memory and at such addresses as were spoken of then, and any other
 * product is refused. Products of f32 without GELU are computed, at once; of others no memory is
 * touched.
 */
#ifndef FAKE_CUDA_LT_H
#define FAKE_CUDA_LT_H

#include <cublasLt.h>

enum { FAKE_LT_ALGOS = 8 };

extern struct fake_lt {
    /* what it is like */
    size_t version;
    int32_t n_algos; /* that it knows for every product */
    struct fake_lt_algo {
        cublasStatus_t state;
        int32_t id;
        uint32_t tile, stages;
        uint16_t cluster;
    } algos[FAKE_LT_ALGOS];
    int32_t fail; /* the n-th call from now fails; 0: none does */

    /* what was asked of it */
    const char *failed; /* the call that `fail` has made fail */
    int32_t n_live;     /* made and not unmade */
    int32_t n_asked;    /* for algorithms */
    struct fake_lt_product {
        int32_t algo;
        cudaDataType_t type; /* of A and B */
        cublasLtEpilogue_t epilogue;
        float beta;
        void *y;
        cudaStream_t stream;
    } last; /* product */
} fake_lt;

#endif
