/* conv_plan.h - how a convolution on the GPU is cut into tiles, and who does which: pure
 * arithmetic, no device needed.
 *
 * A tile is CONV_ROWS rows by 8 * blocks columns of an output frame by n output channels. Tiles
 * that share their inputs (other output channels of the same pixels, then the frames after it) are
 * neighbours in the order, so that they run at the same time and read the inputs from the cache. So
 * are the four phases of a picture that is doubled (conv_sm90.cu).
 *
 * The sum behind a tile is done in units: a frame and a chunk of channels each, with all taps. CTA
 * c of G does the whole tiles c, c + G, ... in n_rounds rounds. Where the last round would leave
 * much of the machine idle, its n_cut tiles are cut: n_parts CTAs share the units of each, and the
 * last of them adds up what the others left, in their order. */
#ifndef KERNELS_CUDA_CONV_PLAN_H
#define KERNELS_CUDA_CONV_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define CONV_FN static __host__ __device__ __forceinline__
#else
#define CONV_FN static inline
#endif

enum {
    CONV_ROWS = 16,
    CONV_GROUPS = 2,        /* warpgroups of a CTA: 8 of a tile's rows each */
    CONV_PARTS_MAX = 256,   /* parts that are put aside, in all */
    CONV_PART_CLOCKS = 7,   /* to leave or take 64 sums of a part: 40 bytes a clock */
    CONV_GATHER_N = 32,     /* columns of a tile whose taps lie side by side */
    CONV_GATHER_UNITS = 32, /* whose weights shared memory holds */
};

struct conv_plan {
    int32_t frames, rows, cols; /* of what the taps walk over: the input where it is doubled */
    int32_t n_in, n_out, kt, k;
    int32_t phases;  /* 1, or 4: the picture is doubled; k is 2 then */
    int32_t chunk;   /* input channels at a time: 64, 32 or 16 */
    int32_t n;       /* output channels of a tile: 192 or 96; CONV_GATHER_N: all taps of all */
    int32_t blocks;  /* of 8 x 8 pixels, side by side: a warpgroup's */
    int32_t n_units; /* of a tile */
    int32_t n_n, n_rows, n_cols, n_tiles, n_ctas; /* tiles along each */
    int32_t n_rounds, n_cut, n_parts;
};

struct conv_tile {
    int32_t frame, row, col, out; /* first of each */
    int32_t phase;                /* 2 * odd row + odd column of the output */
};

/* Units [first, end) of a tile. */
struct conv_work {
    int32_t tile, first, end;
    int32_t cut, part; /* which of the cut tiles, and of its parts; cut -1: the tile is whole */
};

CONV_FN int32_t conv_ceil(int32_t a, int32_t b)
{
    return (a + b - 1) / b;
}

/* Tiles of `blocks` blocks a warpgroup, dealt to n_sms CTAs. */
CONV_FN void conv_plan_deal(struct conv_plan *p, int32_t blocks, int32_t n_sms)
{
    p->blocks = blocks;
    p->n_units = p->kt * (p->n_in / p->chunk);
    p->n_n = conv_ceil(p->n_out, p->n);
    p->n_rows = conv_ceil(p->rows, CONV_ROWS);
    p->n_cols = conv_ceil(p->cols, 8 * blocks);
    p->n_tiles = p->n_n * p->phases * p->n_rows * p->n_cols * p->frames;
    p->n_ctas = p->n_tiles < n_sms ? p->n_tiles : n_sms;
    p->n_rounds = conv_ceil(p->n_tiles, p->n_ctas);
    p->n_cut = 0;
    p->n_parts = 1;
    if (p->n == CONV_GATHER_N) return;
    /* In clocks of the tensor cores: 64 x 8 x 16 products take 4. */
    const int32_t rest = p->n_tiles % n_sms, most = rest ? n_sms / rest : 1;
    const int64_t unit = (int64_t)p->k * p->k * (p->chunk / 16) * CONV_GROUPS * blocks * p->n / 2;
    const int64_t copy = (int64_t)CONV_PART_CLOCKS * CONV_GROUPS * blocks * p->n;
    int64_t best = unit * p->n_units;
    for (int32_t n = 2; n <= most && n <= p->n_units && rest * (n - 1) <= CONV_PARTS_MAX; n++) {
        const int64_t clocks = unit * conv_ceil(p->n_units, n) + n * copy;
        if (clocks >= best) continue;
        best = clocks;
        p->n_parts = n;
    }
    if (p->n_parts == 1) return;
    p->n_cut = rest;
    p->n_rounds = p->n_tiles / n_sms;
    p->n_ctas = p->n_rounds > 0 ? n_sms : rest * p->n_parts;
}

/* adds: there is a residual. False: no tensor-core kernel serves these shapes. */
CONV_FN bool conv_plan_of(struct conv_plan *p, int32_t frames, int32_t rows, int32_t cols,
                          int32_t n_in, int32_t n_out, int32_t kt, int32_t k, bool adds,
                          int32_t n_sms)
{
    p->frames = frames;
    p->rows = rows;
    p->cols = cols;
    p->n_in = n_in;
    p->n_out = n_out;
    p->kt = kt;
    p->k = k;
    p->phases = k == 2 ? 4 : 1;
    p->n = n_out % 192 == 0 ? 192 : n_out % 96 == 0 ? 96 : n_out <= 3 ? CONV_GATHER_N : 0;
    p->chunk = n_in % 64 == 0 ? 64 : n_in % 32 == 0 ? 32 : n_in % 16 == 0 ? 16 : 0;
    const bool gathers =
        p->n == CONV_GATHER_N && k == 3 && n_in % 32 == 0 && kt * (n_in / 32) <= CONV_GATHER_UNITS;
    if (gathers) p->chunk = 32;
    const bool is_served =
        gathers || (k == 1 && p->chunk == 64 && p->n == 192) ||
        (k == 3 && p->chunk == 64 && p->n >= 96) || (k == 2 && p->chunk == 64 && p->n >= 96) ||
        (k == 3 && p->chunk == 16 && p->n == 192) || (k == 3 && p->chunk == 32 && p->n == 96);
    if (!is_served) return false;
    /* Wider tiles read fewer weights a product; narrower ones leave registers for the residual. */
    conv_plan_deal(p, p->n == 96 && k == 3 && p->chunk == 32 && !adds ? 4 : 2, n_sms);
    /* So few that smaller ones all run at once: that beats cutting, whose parts must be added. */
    if (2 * p->n_tiles <= n_sms && p->n == 192 && k == 3 && p->chunk == 64)
        conv_plan_deal(p, 1, n_sms);
    return true;
}

/* Whether the end of a convolution can norm its pixels: a tile has all their channels. keeps: what
 * is normed is wanted, too. */
CONV_FN bool conv_plan_norms(const struct conv_plan *p, bool adds, bool keeps)
{
    return p->n == p->n_out && p->k == 3 && p->chunk >= 32 && (adds || !keeps);
}

/* The i-th work of a CTA; false: there is none. */
CONV_FN bool conv_work_at(const struct conv_plan *p, int32_t cta, int32_t i, struct conv_work *w)
{
    w->cut = -1;
    w->part = 0;
    w->first = 0;
    w->end = p->n_units;
    w->tile = cta + i * p->n_ctas;
    if (i < p->n_rounds) return w->tile < p->n_tiles;
    if (i > p->n_rounds || cta >= p->n_cut * p->n_parts) return false;
    w->cut = cta / p->n_parts;
    w->part = cta % p->n_parts;
    w->tile = p->n_tiles - p->n_cut + w->cut;
    w->first = w->part * p->n_units / p->n_parts;
    w->end = (w->part + 1) * p->n_units / p->n_parts;
    return true;
}

CONV_FN struct conv_tile conv_tile_at(const struct conv_plan *p, int32_t i)
{
    struct conv_tile t;
    t.out = i % p->n_n * p->n;
    i /= p->n_n;
    t.phase = i % p->phases;
    i /= p->phases;
    t.frame = i % p->frames;
    i /= p->frames;
    t.col = i % p->n_cols * 8 * p->blocks;
    t.row = i / p->n_cols * CONV_ROWS;
    return t;
}

#endif
