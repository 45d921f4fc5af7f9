/* conv_plan.h - how a convolution on the GPU is cut into tiles: pure arithmetic, no device needed.
 *
 * A tile is CONV_TILE x CONV_TILE pixels of an output frame by n output channels. Tiles that share
 * their inputs (other output channels of the same pixels) are neighbours in the order, so that
 * they run at the same time and read the inputs from the cache. So are the four phases of a picture
 * that is doubled (conv_sm90.cu).
 */
#ifndef KERNELS_CUDA_CONV_PLAN_H
#define KERNELS_CUDA_CONV_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define CONV_FN static __host__ __device__ __forceinline__
#else
#define CONV_FN static inline
#endif

enum { CONV_TILE = 16 };

struct conv_plan {
    int32_t frames, rows, cols; /* of what the taps walk over: the input where it is doubled */
    int32_t n_in, n_out, kt, k;
    int32_t phases;                               /* 1, or 4: the picture is doubled; k is 2 then */
    int32_t chunk;                                /* input channels at a time: 64, 32 or 16 */
    int32_t n;                                    /* output channels of a tile: 192, 96 or 8 */
    int32_t n_n, n_rows, n_cols, n_tiles, n_ctas; /* tiles along each */
};

struct conv_tile {
    int32_t frame, row, col, out; /* first of each */
    int32_t phase;                /* 2 * odd row + odd column of the output */
};

/* False: no tensor-core kernel serves these shapes. */
CONV_FN bool conv_plan_of(struct conv_plan *p, int32_t frames, int32_t rows, int32_t cols,
                          int32_t n_in, int32_t n_out, int32_t kt, int32_t k, int32_t n_sms)
{
    p->frames = frames;
    p->rows = rows;
    p->cols = cols;
    p->n_in = n_in;
    p->n_out = n_out;
    p->kt = kt;
    p->k = k;
    p->phases = k == 2 ? 4 : 1;
    p->n = n_out % 192 == 0 ? 192 : n_out % 96 == 0 ? 96 : n_out <= 8 ? 8 : 0;
    p->chunk = n_in % 64 == 0 ? 64 : n_in % 32 == 0 ? 32 : n_in % 16 == 0 ? 16 : 0;
    if (p->n == 8 && p->chunk == 64) p->chunk = 32;
    const bool is_served =
        (k == 1 && p->chunk == 64 && p->n == 192) || (k == 3 && p->chunk == 64 && p->n >= 96) ||
        (k == 2 && p->chunk == 64 && p->n >= 96) || (k == 3 && p->chunk == 16 && p->n == 192) ||
        (k == 3 && p->chunk == 32 && p->n == 96) || (k == 3 && p->chunk == 32 && p->n == 8);
    if (!is_served) return false;
    p->n_n = (n_out + p->n - 1) / p->n;
    p->n_rows = (rows + CONV_TILE - 1) / CONV_TILE;
    p->n_cols = (cols + CONV_TILE - 1) / CONV_TILE;
    p->n_tiles = p->n_n * p->phases * p->n_rows * p->n_cols * frames;
    p->n_ctas = p->n_tiles < n_sms ? p->n_tiles : n_sms;
    return true;
}

CONV_FN struct conv_tile conv_tile_at(const struct conv_plan *p, int32_t i)
{
    struct conv_tile t;
    t.out = i % p->n_n * p->n;
    i /= p->n_n;
    t.phase = i % p->phases;
    i /= p->phases;
    t.col = i % p->n_cols * CONV_TILE;
    i /= p->n_cols;
    t.row = i % p->n_rows * CONV_TILE;
    t.frame = i / p->n_rows;
    return t;
}

#endif
