/* attn_plan.h - who does what in attention on the GPU: pure arithmetic, no device needed.
 *
 * T = heads * ceil(queries / ATTN_TILE_Q) tiles of B = ceil(keys / ATTN_BLOCK_K) blocks each are
 * dealt to G CTAs. Whole tiles first, T / G rounds of them; the R tiles that are left are cut: of
 * their R * B blocks, laid end to end, CTA c of H = min(G, R * B) takes
 * [c R B / H, (c + 1) R B / H). That is at most B
 * blocks, so at most two pieces of neighbouring tiles, and part 2c + i holds piece i. With few
 * blocks a tile, cutting costs more than it brings: then every tile is whole.
 */
#ifndef KERNELS_CUDA_ATTN_PLAN_H
#define KERNELS_CUDA_ATTN_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define ATTN_FN static __host__ __device__ __forceinline__
#else
#define ATTN_FN static inline
#endif

enum { ATTN_TILE_Q = 128, ATTN_BLOCK_K = 160, ATTN_HEAD = 128, ATTN_BLOCKS_TO_CUT = 12 };

struct attn_plan {
    int32_t n_queries, n_keys, n_heads;
    int32_t n_q_tiles, n_tiles, n_ctas;
    int32_t n_rounds;  /* whole tiles a CTA */
    int32_t n_cut;     /* tiles that are done in parts */
    int32_t n_blocks;  /* of a tile that is cut */
    int32_t n_cutters; /* the first CTAs, which share the blocks of the tiles that are cut */
};

struct attn_work {
    int32_t tile;       /* head * n_q_tiles + tile of queries */
    int32_t first, end; /* blocks of keys */
    int32_t part;       /* where it is put; -1: it is whole, and goes to the output */
};

/* A tile that was cut: the CTAs [first_cta, first_cta + n_parts) did it. */
struct attn_cut {
    int32_t tile, index, first_cta, n_parts;
};

/* is_fixed: the number of keys is known here; else it is read on the device, and nothing is cut. */
ATTN_FN struct attn_plan attn_plan_of(int32_t n_queries, int32_t n_keys, int32_t n_heads,
                                      bool is_fixed, int32_t n_sms)
{
    struct attn_plan p;
    p.n_queries = n_queries;
    p.n_keys = n_keys;
    p.n_heads = n_heads;
    p.n_q_tiles = (n_queries + ATTN_TILE_Q - 1) / ATTN_TILE_Q;
    p.n_tiles = p.n_q_tiles * n_heads;
    p.n_blocks = (n_keys + ATTN_BLOCK_K - 1) / ATTN_BLOCK_K;
    const bool cuts = is_fixed && p.n_blocks >= ATTN_BLOCKS_TO_CUT && p.n_tiles % n_sms != 0;
    p.n_ctas = cuts || p.n_tiles > n_sms ? n_sms : p.n_tiles;
    p.n_rounds = cuts ? p.n_tiles / p.n_ctas : (p.n_tiles + p.n_ctas - 1) / p.n_ctas;
    p.n_cut = cuts ? p.n_tiles % p.n_ctas : 0;
    const int64_t n_all = (int64_t)p.n_cut * p.n_blocks;
    p.n_cutters = n_all < p.n_ctas ? (int32_t)n_all : p.n_ctas;
    return p;
}

ATTN_FN int32_t attn_parts(const struct attn_plan *p)
{
    return 2 * p->n_cutters;
}

/* Where CTA c's share of the blocks to be cut begins. */
ATTN_FN int32_t attn_share(const struct attn_plan *p, int32_t c)
{
    return (int32_t)((int64_t)c * p->n_cut * p->n_blocks / p->n_cutters);
}

/* The i-th work of a CTA; false: there is none. */
ATTN_FN bool attn_work_at(const struct attn_plan *p, int32_t n_blocks, int32_t cta, int32_t i,
                          struct attn_work *w)
{
    w->part = -1;
    w->first = 0;
    w->end = n_blocks;
    if (i < p->n_rounds) {
        w->tile = cta + i * p->n_ctas;
        return w->tile < p->n_tiles;
    }
    const int32_t piece = i - p->n_rounds;
    if (cta >= p->n_cutters || piece > 1) return false;
    const int32_t first = attn_share(p, cta), end = attn_share(p, cta + 1);
    const int32_t at = first / n_blocks + piece, zero = at * n_blocks;
    w->tile = p->n_rounds * p->n_ctas + at;
    w->first = piece == 0 ? first - zero : 0;
    w->end = end - zero < n_blocks ? end - zero : n_blocks;
    if (w->end <= w->first) return false;
    if (w->first > 0 || w->end < n_blocks) w->part = 2 * cta + piece;
    return true;
}

/* The i-th tile of those that were cut. */
ATTN_FN void attn_cut_of(const struct attn_plan *p, int32_t i, struct attn_cut *c)
{
    c->index = i;
    c->tile = p->n_rounds * p->n_ctas + i;
    const int64_t all = (int64_t)p->n_cut * p->n_blocks;
    int32_t first = (int32_t)((int64_t)i * p->n_blocks * p->n_cutters / all);
    while (first + 1 < p->n_cutters && attn_share(p, first + 1) <= i * p->n_blocks) first++;
    while (first > 0 && attn_share(p, first) > i * p->n_blocks) first--;
    int32_t end = first + 1;
    while (end < p->n_cutters && attn_share(p, end) < (i + 1) * p->n_blocks) end++;
    c->first_cta = first;
    c->n_parts = end - first;
}

/* Where part i of the tile was put. */
ATTN_FN int32_t attn_part(const struct attn_plan *p, const struct attn_cut *c, int32_t i)
{
    const int32_t cta = c->first_cta + i;
    return 2 * cta + (attn_share(p, cta) / p->n_blocks == c->index ? 0 : 1);
}

#endif
