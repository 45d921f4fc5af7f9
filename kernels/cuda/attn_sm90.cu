/* attn_sm90.cu - attention for heads of 128 in bf16: wgmma over tiles that the tensor copy brings.
 *
 * A tile is 128 queries of one head against blocks of 160 keys. Two warpgroups own 64 queries each,
 * a third one only loads. The softmax runs online (Milakov & Gimelshein 2018, arXiv:1805.02867);
 * while one warpgroup computes exponentials, the other one's products keep the tensor cores busy,
 * and within a warpgroup the logits of the next block are multiplied while P V of this one is
 * (Shah et al. 2024, arXiv:2407.08608, sections 3.1 and 3.2). P never leaves the registers.
 *
 * 444 tiles (12 heads of 4680 queries) on 132 SMs would leave the last wave a third full. So every
 * CTA takes the same number of whole tiles, and the blocks of the tiles that are left are dealt
 * evenly: such a tile is done in parts, which k_merge joins in a fixed order. No atomics: the same
 * bits every time.
 */
#include <cuda_bf16.h>

#include "kernels/cuda/attn_plan.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ptx.cuh"

enum {
    TILE_Q = ATTN_TILE_Q,
    BLOCK_K = ATTN_BLOCK_K,
    HEAD = ATTN_HEAD,
    STAGES = 2,
    CONSUMERS = 2,
    THREADS = 128 * (1 + CONSUMERS),
    ROW_BYTES = 128, /* a swizzled row: 64 bf16, half a head */
    Q_HALF_BYTES = TILE_Q * ROW_BYTES,
    KV_HALF_BYTES = BLOCK_K * ROW_BYTES,
    Q_BYTES = 2 * Q_HALF_BYTES,
    KV_BYTES = 2 * KV_HALF_BYTES,
    BARRIERS_BYTES = 1024,
    SMEM_BYTES = BARRIERS_BYTES + Q_BYTES + 2 * STAGES * KV_BYTES,
    TURN = 1 /* named barriers TURN and TURN + 1: whose products go next */
};

struct attn_args {
    CUtensorMap q, k, v;
    struct attn_plan plan;
    __nv_bfloat16 *o;
    float *part_o;          /* [parts, TILE_Q, HEAD] */
    float *part_ml;         /* [parts, TILE_Q, 2]: largest logit, sum */
    const int32_t *n_keys;  /* or NULL: plan.n_keys */
    const float *last_bias; /* or NULL */
    float scale;
};

struct barriers {
    uint64_t q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
};

struct shared {
    struct barriers *b;
    unsigned char *q, *k, *v; /* K and V: STAGES buffers each */
};

PTX_FN struct shared shared_of(unsigned char *base)
{
    struct shared s;
    s.b = (struct barriers *)base;
    s.q = base + BARRIERS_BYTES;
    s.k = s.q + Q_BYTES;
    s.v = s.k + STAGES * KV_BYTES;
    return s;
}

/* A ring of stages: which one is next, and the phase to wait for. */
struct ring {
    int at, phase;
};

PTX_FN void ring_next(struct ring *r)
{
    r->at++;
    if (r->at == STAGES) {
        r->at = 0;
        r->phase ^= 1;
    }
}

PTX_FN int keys_of(const struct attn_args *a)
{
    return a->n_keys ? *a->n_keys : a->plan.n_keys;
}

PTX_FN int blocks_of(int n_keys)
{
    return (n_keys + BLOCK_K - 1) / BLOCK_K;
}

/* --- the loading warp ------------------------------------------------------------------------- */

PTX_FN void load_half_pair(unsigned char *dst, const CUtensorMap *m, uint64_t *full, int n_bytes,
                           int head, int row)
{
    barrier_expect(full, (uint32_t)n_bytes);
    tma_load_3d(dst, m, full, 0, head, row);
    tma_load_3d(dst + n_bytes / 2, m, full, HEAD / 2, head, row);
}

PTX_FN void load_all(const struct attn_args *a, struct shared s)
{
    const int n_blocks = blocks_of(keys_of(a));
    struct ring r = {0, 0};
    struct attn_work w;
    int q_phase = 0;
    tma_prefetch(&a->q);
    tma_prefetch(&a->k);
    tma_prefetch(&a->v);
    for (int i = 0; attn_work_at(&a->plan, n_blocks, (int)blockIdx.x, i, &w); i++) {
        const int head = w.tile / a->plan.n_q_tiles, q_tile = w.tile % a->plan.n_q_tiles;
        barrier_wait(&s.b->q_empty, (uint32_t)q_phase ^ 1);
        q_phase ^= 1;
        load_half_pair(s.q, &a->q, &s.b->q_full, Q_BYTES, head, q_tile * TILE_Q);
        for (int j = w.first; j < w.end; j++) {
            barrier_wait(&s.b->k_empty[r.at], (uint32_t)r.phase ^ 1);
            load_half_pair(s.k + r.at * KV_BYTES, &a->k, &s.b->k_full[r.at], KV_BYTES, head,
                           j * BLOCK_K);
            barrier_wait(&s.b->v_empty[r.at], (uint32_t)r.phase ^ 1);
            load_half_pair(s.v + r.at * KV_BYTES, &a->v, &s.b->v_full[r.at], KV_BYTES, head,
                           j * BLOCK_K);
            ring_next(&r);
        }
    }
}

/* --- the two warpgroups that compute ---------------------------------------------------------- */

/* s[64, 160] = q k^T. Not waited for. */
PTX_FN void issue_qk(float (&s)[BLOCK_K / 2], uint32_t q, uint32_t k)
{
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < HEAD / 16; i++) {
        const uint32_t half = i / 4, at = i % 4 * 32;
        wgmma_ss_n160_bf16(
            s, wgmma_desc<ROW_BYTES>(q + half * Q_HALF_BYTES + at, 16, 8 * ROW_BYTES),
            wgmma_desc<ROW_BYTES>(k + half * KV_HALF_BYTES + at, 16, 8 * ROW_BYTES), i > 0);
    }
    wgmma_commit();
}

/* o[64, 128] (+)= p v. Not waited for. */
PTX_FN void issue_pv(float (&o)[HEAD / 2], const uint32_t (&p)[BLOCK_K / 16][4], uint32_t v,
                     int adds)
{
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < BLOCK_K / 16; i++)
        wgmma_rs_t_n128_bf16(
            o, p[i], wgmma_desc<ROW_BYTES>(v + i * 16 * ROW_BYTES, KV_HALF_BYTES, 8 * ROW_BYTES),
            i > 0 || adds);
    wgmma_commit();
}

/* What a thread knows of its two rows, r and r + 8. */
struct rows {
    float top[2], sum[2]; /* largest logit; sum of this thread's exponentials */
};

/* Keys from `left` on do not take part; the last that does has its bias, in units of the logit. */
PTX_FN void mask(float (&s)[BLOCK_K / 2], int left, float bias)
{
    const int col = (int)(threadIdx.x % 4) * 2;
#pragma unroll
    for (int i = 0; i < BLOCK_K / 2; i++) {
        const int c = col + i / 4 * 8 + i % 2;
        if (c == left - 1) s[i] += bias;
        if (c >= left) s[i] = -INFINITY;
    }
}

/* s becomes exponentials; rescale is what sums and outputs so far must be multiplied by. */
PTX_FN void softmax_block(float (&s)[BLOCK_K / 2], struct rows *r, float (&rescale)[2], float c)
{
    float top[2] = {r->top[0], r->top[1]};
#pragma unroll
    for (int i = 0; i < BLOCK_K / 2; i += 4) {
        top[0] = fmaxf(top[0], fmaxf(s[i], s[i + 1]));
        top[1] = fmaxf(top[1], fmaxf(s[i + 2], s[i + 3]));
    }
    float sum[2] = {0, 0}, shift[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        top[h] = quad_max(top[h]);
        rescale[h] = exp2f((r->top[h] - top[h]) * c);
        r->top[h] = top[h];
        shift[h] = top[h] * c;
    }
#pragma unroll
    for (int i = 0; i < BLOCK_K / 2; i += 4) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            s[i + k] = exp2f(fmaf(s[i + k], c, -shift[k / 2]));
            sum[k / 2] += s[i + k];
        }
    }
    r->sum[0] = fmaf(r->sum[0], rescale[0], sum[0]);
    r->sum[1] = fmaf(r->sum[1], rescale[1], sum[1]);
}

PTX_FN uint32_t pack_bf16(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

/* The accumulator's layout is the layout of operand A: no shuffle. */
PTX_FN void pack_p(uint32_t (&p)[BLOCK_K / 16][4], const float (&s)[BLOCK_K / 2])
{
#pragma unroll
    for (int i = 0; i < BLOCK_K / 16; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) p[i][k] = pack_bf16(s[8 * i + 2 * k], s[8 * i + 2 * k + 1]);
}

/* A finished tile's rows, or a part's. */
PTX_FN void store(const struct attn_args *a, const struct attn_work *w, int group, struct rows *r,
                  const float (&o)[HEAD / 2])
{
    const int head = w->tile / a->plan.n_q_tiles, q_tile = w->tile % a->plan.n_q_tiles;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32 % 4;
    const int row = group * 64 + warp * 16 + lane / 4, col = lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int in_tile = row + 8 * h, s = q_tile * TILE_Q + in_tile;
        const float sum = quad_sum(r->sum[h]);
        if (w->part >= 0) {
            const int64_t at = (int64_t)w->part * TILE_Q + in_tile;
            if (col == 0) {
                a->part_ml[2 * at] = r->top[h];
                a->part_ml[2 * at + 1] = sum;
            }
#pragma unroll
            for (int i = 0; i < HEAD / 8; i++)
                *(float2 *)(a->part_o + at * HEAD + 8 * i + col) =
                    make_float2(o[4 * i + 2 * h], o[4 * i + 2 * h + 1]);
        } else if (s < a->plan.n_queries) {
            const float k = 1.0f / sum;
            __nv_bfloat16 *to = a->o + ((int64_t)s * a->plan.n_heads + head) * HEAD + col;
#pragma unroll
            for (int i = 0; i < HEAD / 8; i++)
                *(uint32_t *)(to + 8 * i) =
                    pack_bf16(o[4 * i + 2 * h] * k, o[4 * i + 2 * h + 1] * k);
        }
    }
}

/* Values beyond the last key may be anything, and 0 times that is not 0. */
PTX_FN void clear_values(unsigned char *v, int left)
{
    for (int i = (int)threadIdx.x - 128 + left * 16; i < BLOCK_K * 16; i += 128 * CONSUMERS) {
        unsigned char *at = v + i / 16 * ROW_BYTES + i % 8 * 16;
        *(uint4 *)(at + i % 16 / 8 * KV_HALF_BYTES) = make_uint4(0, 0, 0, 0);
    }
    fence_async();
    named_sync(TURN + 2, 128 * CONSUMERS);
}

PTX_FN void compute_all(const struct attn_args *a, struct shared s, int group)
{
    const int n_keys = keys_of(a), n_blocks = blocks_of(n_keys);
    const int left = n_keys - (n_blocks - 1) * BLOCK_K; /* keys in the last block */
    const float c = a->scale * 1.44269504088896341f;
    const float bias = a->last_bias ? *a->last_bias / a->scale : 0.0f;
    const bool has_mask = left < BLOCK_K || a->last_bias, clears = left < BLOCK_K && a->n_keys;
    const bool speaks = threadIdx.x % 128 == 0;
    const uint32_t q = smem_of(s.q) + (uint32_t)group * 64 * ROW_BYTES;
    struct ring kr = {0, 0}, vr = {0, 0};
    struct attn_work w;
    int q_phase = 0;

    if (group == 1) named_arrive(TURN, 128 * CONSUMERS); /* group 0 has the first turn */
    for (int i = 0; attn_work_at(&a->plan, n_blocks, (int)blockIdx.x, i, &w); i++) {
        float logits[BLOCK_K / 2], o[HEAD / 2], rescale[2];
        uint32_t p[BLOCK_K / 16][4];
        struct rows r = {{-INFINITY, -INFINITY}, {0, 0}};
        barrier_wait(&s.b->q_full, (uint32_t)q_phase);
        q_phase ^= 1;

        barrier_wait(&s.b->k_full[kr.at], (uint32_t)kr.phase);
        named_sync(TURN + group, 128 * CONSUMERS);
        issue_qk(logits, q, smem_of(s.k + kr.at * KV_BYTES));
        named_arrive(TURN + (group ^ 1), 128 * CONSUMERS);
        wgmma_wait<0>();
        wgmma_hold(logits);
        if (speaks) barrier_arrive(&s.b->k_empty[kr.at]);
        ring_next(&kr);
        if (has_mask && w.first == n_blocks - 1) mask(logits, left, bias);
        softmax_block(logits, &r, rescale, c);
        pack_p(p, logits);

#pragma unroll 1
        for (int j = w.first + 1; j < w.end; j++) {
            barrier_wait(&s.b->k_full[kr.at], (uint32_t)kr.phase);
            named_sync(TURN + group, 128 * CONSUMERS);
            issue_qk(logits, q, smem_of(s.k + kr.at * KV_BYTES));
            barrier_wait(&s.b->v_full[vr.at], (uint32_t)vr.phase);
            issue_pv(o, p, smem_of(s.v + vr.at * KV_BYTES), j > w.first + 1);
            named_arrive(TURN + (group ^ 1), 128 * CONSUMERS);
            wgmma_wait<1>();
            wgmma_hold(logits);
            if (speaks) barrier_arrive(&s.b->k_empty[kr.at]);
            ring_next(&kr);
            if (has_mask && j == n_blocks - 1) mask(logits, left, bias);
            /* Beside P V, by the source; in the machine code ptxas moves the wait above the
             * softmax. Kept in order by a branch it was slower (docs/SPEED.md, 2026-11-29). */
            softmax_block(logits, &r, rescale, c);
            wgmma_wait<0>();
            wgmma_hold(o);
            if (speaks) barrier_arrive(&s.b->v_empty[vr.at]);
            ring_next(&vr);
#pragma unroll
            for (int k = 0; k < HEAD / 2; k++) o[k] *= rescale[k / 2 % 2];
            pack_p(p, logits);
        }
        if (speaks) barrier_arrive(&s.b->q_empty);
        barrier_wait(&s.b->v_full[vr.at], (uint32_t)vr.phase);
        if (clears && w.end == n_blocks) clear_values(s.v + vr.at * KV_BYTES, left);
        issue_pv(o, p, smem_of(s.v + vr.at * KV_BYTES), w.end - w.first > 1);
        wgmma_wait<0>();
        wgmma_hold(o);
        if (speaks) barrier_arrive(&s.b->v_empty[vr.at]);
        ring_next(&vr);
        store(a, &w, group, &r, o);
    }
}

__global__ static void __launch_bounds__(THREADS, 1)
    k_attn(const __grid_constant__ struct attn_args a)
{
    extern __shared__ __align__(1024) unsigned char smem[];
    const struct shared s = shared_of(smem);
    if (threadIdx.x == 0) {
        barrier_init(&s.b->q_full, 1);
        barrier_init(&s.b->q_empty, CONSUMERS);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&s.b->k_full[i], 1);
            barrier_init(&s.b->k_empty[i], CONSUMERS);
            barrier_init(&s.b->v_full[i], 1);
            barrier_init(&s.b->v_empty[i], CONSUMERS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    const int group = (int)threadIdx.x / 128;
    if (group == 0) {
        registers_fewer<24>();
        if (threadIdx.x == 0) load_all(&a, s);
    } else {
        registers_more<240>();
        compute_all(&a, s, group - 1);
    }
}

/* Joins the parts of one tile of those that were cut: a row a warp. */
__global__ static void __launch_bounds__(256)
    k_merge(const struct attn_plan plan, __nv_bfloat16 *o, const float *part_o,
            const float *part_ml, float c)
{
    const int row = (int)blockIdx.y * 8 + (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    struct attn_cut cut;
    attn_cut_of(&plan, (int)blockIdx.x, &cut);
    const int head = cut.tile / plan.n_q_tiles, q_tile = cut.tile % plan.n_q_tiles;
    const int s = q_tile * TILE_Q + row;
    if (cut.n_parts < 2 || s >= plan.n_queries) return;
    float top = -INFINITY, sum = 0, acc[4] = {0, 0, 0, 0};
    for (int i = 0; i < cut.n_parts; i++)
        top = fmaxf(top, part_ml[2 * ((int64_t)attn_part(&plan, &cut, i) * TILE_Q + row)]);
    for (int i = 0; i < cut.n_parts; i++) {
        const int64_t at = (int64_t)attn_part(&plan, &cut, i) * TILE_Q + row;
        const float k = exp2f((part_ml[2 * at] - top) * c);
        const float4 x = *(const float4 *)(part_o + at * HEAD + lane * 4);
        sum = fmaf(part_ml[2 * at + 1], k, sum);
        acc[0] = fmaf(x.x, k, acc[0]);
        acc[1] = fmaf(x.y, k, acc[1]);
        acc[2] = fmaf(x.z, k, acc[2]);
        acc[3] = fmaf(x.w, k, acc[3]);
    }
    const float k = 1.0f / sum;
    *(uint2 *)(o + ((int64_t)s * plan.n_heads + head) * HEAD + lane * 4) =
        make_uint2(pack_bf16(acc[0] * k, acc[1] * k), pack_bf16(acc[2] * k, acc[3] * k));
}

/* part_o, part_ml: scratch of attn_parts(plan) parts. */
extern "C" err_t cuda_attn_sm90(struct dev *d, const struct attn_plan *plan, struct tensor o,
                                const CUtensorMap *q, const CUtensorMap *k, const CUtensorMap *v,
                                const int32_t *n_keys, const float *last_bias, float scale,
                                float *part_o, float *part_ml)
{
    struct attn_args a;
    a.q = *q;
    a.k = *k;
    a.v = *v;
    a.plan = *plan;
    a.o = (__nv_bfloat16 *)o.data;
    a.part_o = part_o;
    a.part_ml = part_ml;
    a.n_keys = n_keys;
    a.last_bias = last_bias;
    a.scale = scale;
    const cudaError_t ce =
        cudaFuncSetAttribute(k_attn, cudaFuncAttributeMaxDynamicSharedMemorySize, SMEM_BYTES);
    if (ce != cudaSuccess) return cuda_failed(ce, "attention");
    k_attn<<<plan->n_ctas, THREADS, SMEM_BYTES, cuda_stream(d)>>>(a);
    if (plan->n_cut > 0)
        k_merge<<<dim3((unsigned)plan->n_cut, TILE_Q / 8), 256, 0, cuda_stream(d)>>>(
            *plan, a.o, part_o, part_ml, scale * 1.44269504088896341f);
    return cuda_launched("attention");
}
