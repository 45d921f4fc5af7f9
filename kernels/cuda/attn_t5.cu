/* attn_t5.cu - attention with T5's bias by distance, heads of 64 in bf16 or f16, in one kernel.
 *
 * A CTA is 64 queries of one head, 16 a warp, against blocks of 64 keys, two of which are in shared
 * memory: one in use, one on its way. The softmax runs online (Milakov & Gimelshein 2018,
 * arXiv:1805.02867); logits and P never leave the registers. The bias of a head depends on
 * key - query alone and is the same for all distances from 128 on, so a CTA keeps it for those
 * that blocks near its queries can meet, and a block farther off has one bias. No atomics: the same
 * bits every time.
 */
#include "kernels/cuda/mma.cuh"

enum {
    HEAD = T5_HEAD,
    TILE = 64, /* queries of a CTA, keys of a block */
    WARPS = TILE / 16,
    THREADS = 32 * WARPS,
    ROW_BYTES = HEAD * 2,
    CHUNKS = ROW_BYTES / 16,
    ROWS_AT_ONCE = THREADS / CHUNKS, /* copied; whole eights, so that all have one permutation */
    TILE_BYTES = TILE * ROW_BYTES,
    /* A block this far from the queries has only keys at 128 and more. */
    FAR = 3 * TILE,
    CTAS = 4 /* at once on an SM: 512 tokens of 64 heads are one wave of 132 */
};

static constexpr float LOG2_E = 1.44269504088896341f;

struct t5_args {
    const void *q, *k, *v;
    void *o;
    struct cuda_softmax how;
};

struct t5_shared {
    uint4 q[TILE_BYTES / 16], k[2][TILE_BYTES / 16], v[2][TILE_BYTES / 16];
    float bias[2 * FAR]; /* at key - query + FAR, in units of ln 2 */
};

/* What a thread has of its two rows, l / 4 and that + 8 of its warp's. */
struct t5_rows {
    float top[2], sum[2]; /* the largest logit; the sum of this thread's exponentials */
    float o[HEAD / 2];
};

/* Chunks of 16 bytes are permuted within a row, so that eight rows of one column meet no bank
 * twice. */
CUDA_FN uint32_t chunk_at(int row, int chunk)
{
    return (uint32_t)(row * ROW_BYTES + (chunk ^ row % 8) * 16);
}

/* TILE rows of a head from src on; zeros where a row is not one of the n that are left, since 0
 * times what is there need not be 0. */
template <class T> CUDA_FN void copy_tile(const void *dst, const T *src, int n, int64_t stride)
{
    const int row = (int)threadIdx.x / CHUNKS, chunk = (int)threadIdx.x % CHUNKS;
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(dst) + chunk_at(row, chunk);
    src += row * stride + chunk * 8;
#pragma unroll
    for (int i = 0; i < TILE; i += ROWS_AT_ONCE, src += ROWS_AT_ONCE * stride)
        copy16(to + (uint32_t)i * ROW_BYTES, src, row + i < n);
}

CUDA_FN void fill_bias(float *bias, const struct cuda_softmax *how, int head)
{
    for (int i = (int)threadIdx.x; i < 2 * FAR; i += THREADS) {
        const int delta = i - FAR, distance = delta < 0 ? -delta : delta;
        const int at = how->bucket[distance < 128 ? distance : 128] + (delta > 0 ? how->half : 0);
        bias[i] = how->table[at * how->n_heads + head] * LOG2_E;
    }
}

/* s[16, 64] = q k^T of a warp. Q is read anew for each block: kept, it would not fit. */
template <class T>
CUDA_FN void logits_of(float (&s)[TILE / 2], const void *queries, const void *keys)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const uint32_t q = (uint32_t)__cvta_generic_to_shared(queries);
    const uint32_t k = (uint32_t)__cvta_generic_to_shared(keys);
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) s[i] = 0;
/* Two steps at a time: four would take more registers than CTAS of them have. */
#pragma unroll 2
    for (int c = 0; c < HEAD / 16; c++) {
        uint32_t a[4];
        load4(a, q + chunk_at(warp * 16 + lane % 16, 2 * c + lane / 16));
#pragma unroll
        for (int n = 0; n < TILE / 16; n++) {
            uint32_t b[4];
            load4(b, k + chunk_at(n * 16 + lane / 16 * 8 + lane % 8, 2 * c + lane / 8 % 2));
            mma<T>(s + 8 * n, a, b[0], b[1]);
            mma<T>(s + 8 * n + 4, a, b[2], b[3]);
        }
    }
}

/* To units of ln 2, with the bias. offset: from the CTA's first query to the block's first key. */
CUDA_FN void add_bias(float (&s)[TILE / 2], const float *bias, int offset)
{
    const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + lane / 4;
    if (offset <= -FAR || offset >= FAR) {
        const float b = bias[offset < 0 ? 0 : 2 * FAR - 1];
#pragma unroll
        for (int i = 0; i < TILE / 2; i++) s[i] = fmaf(s[i], LOG2_E, b);
        return;
    }
    /* The second row is 8 queries on: its bias is that of the columns 8 before. */
    const float *at = bias + FAR + offset - row + lane % 4 * 2;
    float before[2] = {at[-8], at[-7]};
#pragma unroll
    for (int i = 0; i < TILE / 8; i++) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float b = at[8 * i + k];
            s[4 * i + k] = fmaf(s[4 * i + k], LOG2_E, b);
            s[4 * i + 2 + k] = fmaf(s[4 * i + 2 + k], LOG2_E, before[k]);
            before[k] = b;
        }
    }
}

/* s becomes exponentials, and r is brought to their largest logit. Keys from `left` on do not take
 * part. */
CUDA_FN void exponentials(float (&s)[TILE / 2], struct t5_rows *r, int left)
{
    const int col = (int)threadIdx.x % 4 * 2;
    float top[2] = {r->top[0], r->top[1]};
    if (left < TILE) {
#pragma unroll
        for (int i = 0; i < TILE / 2; i++)
            if (col + i / 4 * 8 + i % 2 >= left) s[i] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        top[h] = quad_max(top[h]);
        const float keep = power2(r->top[h] - top[h]);
        r->top[h] = top[h];
        r->sum[h] *= keep;
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++) {
            r->o[4 * i + 2 * h] *= keep;
            r->o[4 * i + 2 * h + 1] *= keep;
        }
    }
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) {
        s[i] = power2(s[i] - top[i / 2 % 2]);
        r->sum[i / 2 % 2] += s[i];
    }
}

/* o[16, 64] += p v of a warp: the result's layout is that of the left operand. */
template <class T>
CUDA_FN void add_values(struct t5_rows *r, const float (&s)[TILE / 2], const void *values)
{
    const int lane = (int)threadIdx.x % 32, row = lane % 16, col = lane / 16;
    const uint32_t v = (uint32_t)__cvta_generic_to_shared(values);
#pragma unroll
    for (int m = 0; m < TILE / 16; m++) {
        uint32_t p[4];
#pragma unroll
        for (int i = 0; i < 4; i++) p[i] = pack2<T>(s[8 * m + 2 * i], s[8 * m + 2 * i + 1]);
#pragma unroll
        for (int c = 0; c < HEAD / 16; c++) {
            uint32_t b[4];
            load4_t(b, v + chunk_at(m * 16 + row, 2 * c + col));
            mma<T>(r->o + 8 * c, p, b[0], b[1]);
            mma<T>(r->o + 8 * c + 4, p, b[2], b[3]);
        }
    }
}

template <class T>
CUDA_FN void store(T *o, const struct t5_rows *r, int first, int n, int64_t stride)
{
    const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int s = first + row + 8 * h;
        const float k = 1.0f / quad_sum(r->sum[h]);
        if (s >= n) continue;
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++)
            *(uint32_t *)(o + s * stride + 8 * i + lane % 4 * 2) =
                pack2<T>(r->o[4 * i + 2 * h] * k, r->o[4 * i + 2 * h + 1] * k);
    }
}

template <class T>
__global__ static void __launch_bounds__(THREADS, CTAS) k_t5(const __grid_constant__ t5_args a)
{
    __shared__ struct t5_shared sh;
    const int head = (int)blockIdx.y, n = a.how.keys;
    const int first = (int)blockIdx.x * TILE, n_blocks = (n + TILE - 1) / TILE;
    const int64_t stride = (int64_t)a.how.n_heads * HEAD, from = (int64_t)head * HEAD;
    const T *k = (const T *)a.k + from, *v = (const T *)a.v + from;
    copy_tile(sh.q, (const T *)a.q + from + first * stride, n - first, stride);
    copy_tile(sh.k[0], k, n, stride);
    copy_tile(sh.v[0], v, n, stride);
    copy_commit();
    fill_bias(sh.bias, &a.how, head);

    struct t5_rows r = {{-INFINITY, -INFINITY}, {0, 0}, {}};
    for (int j = 0; j < n_blocks; j++) {
        const int next = (j + 1) * TILE;
        if (next < n) {
            k += TILE * stride;
            v += TILE * stride;
            copy_tile(sh.k[(j + 1) % 2], k, n - next, stride);
            copy_tile(sh.v[(j + 1) % 2], v, n - next, stride);
        }
        copy_commit(); /* of nothing at the end, so that the one before is always this block's */
        copy_wait<1>();
        __syncthreads();
        float s[TILE / 2];
        logits_of<T>(s, sh.q, sh.k[j % 2]);
        add_bias(s, sh.bias, j * TILE - first);
        exponentials(s, &r, n - j * TILE);
        add_values<T>(&r, s, sh.v[j % 2]);
        __syncthreads(); /* the next copy goes where this block lies */
    }
    store((T *)a.o + from, &r, first, n, stride);
}

extern "C" err_t cuda_attn_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                              struct tensor v, const struct cuda_softmax *s)
{
    const struct t5_args a = {q.data, k.data, v.data, o.data, *s};
    const dim3 grid(n_blocks(q.shape[0], TILE), (unsigned)q.shape[1]);
    if (q.dtype == DTYPE_BF16) k_t5<bf16><<<grid, THREADS, 0, cuda_stream(d)>>>(a);
    else k_t5<__half><<<grid, THREADS, 0, cuda_stream(d)>>>(a);
    return cuda_launched("attention_t5");
}
