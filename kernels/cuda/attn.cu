/* attn.cu - attention for what the tensor-core kernel does not serve, and the choice between them.
 *
 * Heads of 128 in bf16 go to attn_sm90.cu, T5's of 64 in bf16 and f16 to attn_t5.cu. A known number
 * of keys, and any other T5, go through two matrix products with the scores in scratch between
 * them, as many heads or rows at a time as fit. The rest is done a row of one head a warp.
 */
#include <math.h>

#include "kernels/cuda/chunk.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, D_MAX = 512, ALIGN = 256 };

/* --- a row of one head a warp ----------------------------------------------------------------- */

template <class T>
__global__ static void __launch_bounds__(THREADS)
    k_plain(T *o, const T *q, const T *k, const T *v, int n_s, int n_m, int n_heads, int n_d,
            const int32_t *n_keys, const float *last_bias, float scale)
{
    const int lane = (int)threadIdx.x % 32, head = (int)blockIdx.y;
    const int s = (int)blockIdx.x * WARPS + (int)threadIdx.x / 32, n = n_keys ? *n_keys : n_m;
    const int64_t stride = (int64_t)n_heads * n_d, first = (int64_t)head * n_d;
    if (s >= n_s) return;
    float mine[D_MAX / 32], acc[D_MAX / 32], top = -INFINITY, sum = 0;
    for (int i = 0; i * 32 < n_d; i++) {
        const int c = i * 32 + lane;
        mine[i] = c < n_d ? get(q + s * stride + first + c) : 0.0f;
        acc[i] = 0;
    }
    for (int m = 0; m < n; m++) {
        const T *key = k + m * stride + first, *value = v + m * stride + first;
        float dot = 0;
        for (int i = 0; i * 32 < n_d; i++)
            if (i * 32 + lane < n_d) dot = fmaf(mine[i], get(key + i * 32 + lane), dot);
        dot = warp_sum(dot) * scale;
        if (m == n - 1 && last_bias) dot += *last_bias;
        const float next = fmaxf(top, dot), keep = expf(top - next), p = expf(dot - next);
        sum = fmaf(sum, keep, p);
        top = next;
        for (int i = 0; i * 32 < n_d; i++)
            if (i * 32 + lane < n_d) acc[i] = fmaf(acc[i], keep, p * get(value + i * 32 + lane));
    }
    for (int i = 0; i * 32 < n_d; i++)
        if (i * 32 + lane < n_d) set(o + s * stride + first + i * 32 + lane, acc[i] / sum);
}

extern "C" err_t cuda_attn_plain(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                                 struct tensor v, const int32_t *n_keys, const float *last_bias,
                                 float scale)
{
    const int n_d = q.shape[2];
    const dim3 grid(n_blocks(q.shape[0], WARPS), (unsigned)q.shape[1]);
    if (n_d > D_MAX) return FAIL(ERR_SHAPE, "attention: heads of %d, at most %d", n_d, D_MAX);
    BY_TYPE(q.dtype, T,
            (k_plain<T><<<grid, THREADS, 0, cuda_stream(d)>>>(
                (T *)o.data, (const T *)q.data, (const T *)k.data, (const T *)v.data, q.shape[0],
                k.shape[0], q.shape[1], n_d, n_keys, last_bias, scale)));
    return cuda_launched("attention");
}

/* --- two products with the scores between them ------------------------------------------------ */

CUDA_FN float block_max(float x, float *room)
{
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    float top = room[0];
    for (int i = 1; i < WARPS; i++) top = fmaxf(top, room[i]);
    __syncthreads();
    return top;
}

CUDA_FN float block_sum(float x, float *room)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < WARPS; i++) sum += room[i];
    __syncthreads();
    return sum;
}

CUDA_FN float logit_of(const struct cuda_softmax *s, const float *row, int query, int head, int key)
{
    const float x = row[key];
    if (!s->table) return x;
    const int delta = key - query, distance = delta < 0 ? -delta : delta;
    const int at = s->bucket[distance < 128 ? distance : 128] + (delta > 0 ? s->half : 0);
    return x + s->table[at * s->n_heads + head];
}

/* A row a block. p may be narrower than the logits, and lies elsewhere. */
template <class T>
__global__ static void __launch_bounds__(THREADS) k_softmax(const struct cuda_softmax s, T *p)
{
    __shared__ float room[WARPS];
    const int64_t r = blockIdx.x;
    const int query = s.first_row + (int)(r % s.rows), head = s.first_head + (int)(r / s.rows);
    const float *row = s.logits + r * s.keys;
    float top = -INFINITY, sum = 0;
    for (int m = (int)threadIdx.x; m < s.keys; m += THREADS)
        top = fmaxf(top, logit_of(&s, row, query, head, m));
    top = block_max(top, room);
    for (int m = (int)threadIdx.x; m < s.keys; m += THREADS)
        sum += expf(logit_of(&s, row, query, head, m) - top);
    const float k = 1.0f / block_sum(sum, room);
    for (int m = (int)threadIdx.x; m < s.keys; m += THREADS)
        set(p + r * s.keys + m, expf(logit_of(&s, row, query, head, m) - top) * k);
}

extern "C" err_t cuda_softmax(struct dev *d, const struct cuda_softmax *s)
{
    BY_TYPE(
        s->type, T,
        (k_softmax<T><<<(unsigned)(s->n * s->rows), THREADS, 0, cuda_stream(d)>>>(*s, (T *)s->p)));
    return cuda_launched("softmax");
}

/* Rows [s.first_row, + s.rows) of heads [s.first_head, + s.n). */
static err_t products(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                      struct tensor v, const struct cuda_softmax *s, float scale)
{
    err_t e = OK;
    const int n_d = q.shape[2];
    const int64_t stride = (int64_t)q.shape[1] * n_d, width = (int64_t)dtype_bytes(q.dtype);
    const int64_t from = (int64_t)s->first_head * n_d, row = s->first_row * stride + from;
    struct cuda_gemm g = {};
    g.type = q.dtype;
    g.y_type = DTYPE_F32;
    g.S = s->rows;
    g.O = s->keys;
    g.I = n_d;
    g.n_batches = s->n;
    g.x_stride = g.w_stride = stride;
    g.y_stride = s->keys;
    g.x_batch = g.w_batch = n_d;
    g.y_batch = (int64_t)s->rows * s->keys;
    g.alpha = scale;
    g.x = (const char *)q.data + row * width;
    g.w = (const char *)k.data + from * width;
    g.y = (void *)s->logits;
    TRY(cuda_gemm(d, &g));
    TRY(cuda_softmax(d, s));
    g.y_type = q.dtype;
    g.O = n_d;
    g.I = s->keys;
    g.x_stride = s->keys;
    g.y_stride = stride;
    g.x_batch = (int64_t)s->rows * s->keys;
    g.y_batch = n_d;
    g.w_is_cols = true;
    g.alpha = 1;
    g.x = s->p;
    g.w = (const char *)v.data + from * width;
    g.y = (char *)o.data + row * width;
    TRY(cuda_gemm(d, &g));
out:
    return e;
}

/* As many heads as fit; if not one does, as many rows of one. */
static err_t by_products(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                         struct tensor v, struct cuda_softmax *s, float scale)
{
    err_t e = OK;
    const int n_s = q.shape[0], n_heads = q.shape[1];
    const int64_t bytes = (int64_t)k.shape[0] * (int64_t)(sizeof(float) + dtype_bytes(q.dtype));
    const int64_t fit = (CUDA_SCRATCH_BYTES - ALIGN) / bytes;
    char *const scratch = (char *)cuda_scratch(d)->data;
    if (fit < 1) return FAIL(ERR_SHAPE, "attention: scratch has no room for %d keys", k.shape[0]);
    const int rows = fit < n_s ? (int)fit : n_s, heads = fit < n_s ? 1 : (int)(fit / n_s);
    s->type = q.dtype;
    s->keys = k.shape[0];
    s->n_heads = n_heads;
    s->logits = (float *)scratch;
    for (int h = 0; h < n_heads; h += heads) {
        for (int r = 0; r < n_s; r += rows) {
            s->first_head = h;
            s->n = n_heads - h < heads ? n_heads - h : heads;
            s->first_row = r;
            s->rows = n_s - r < rows ? n_s - r : rows;
            s->p =
                scratch + ((int64_t)s->n * s->rows * s->keys * (int64_t)sizeof(float) + ALIGN - 1) /
                              ALIGN * ALIGN;
            TRY(products(d, o, q, k, v, s, scale));
        }
    }
out:
    return e;
}

/* --- the ops ---------------------------------------------------------------------------------- */

static err_t fast(struct dev *d, struct tensor o, struct tensor q, struct tensor k, struct tensor v,
                  const int32_t *n_keys, const float *last_bias, float scale)
{
    err_t e = OK;
    const struct cuda_scratch *s = cuda_scratch(d);
    const struct attn_plan p =
        attn_plan_of(q.shape[0], k.shape[0], q.shape[1], n_keys == NULL, s->n_sms);
    const int64_t n_part = (int64_t)attn_parts(&p) * ATTN_TILE_Q;
    float *const part_o = (float *)s->data, *const part_ml = part_o + n_part * ATTN_HEAD;
    CUtensorMap mq, mk, mv;
    MUST((n_part * (ATTN_HEAD + 2)) * (int64_t)sizeof(float) <= CUDA_SCRATCH_BYTES);
    TRY(cuda_map_heads(&mq, q, ATTN_TILE_Q));
    TRY(cuda_map_heads(&mk, k, ATTN_BLOCK_K));
    TRY(cuda_map_heads(&mv, v, ATTN_BLOCK_K));
    TRY(cuda_attn_sm90(d, &p, o, &mq, &mk, &mv, n_keys, last_bias, scale, part_o, part_ml));
out:
    return e;
}

extern "C" err_t cuda_attention(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                                struct tensor v, struct tensor n_keys, struct tensor last_bias,
                                float scale)
{
    const int32_t *n = (const int32_t *)n_keys.data;
    const float *bias = (const float *)last_bias.data;
    struct cuda_softmax s = {};
    if (q.dtype == DTYPE_BF16 && q.shape[2] == ATTN_HEAD)
        return fast(d, o, q, k, v, n, bias, scale);
    /* The library wants strides of whole 16 bytes. */
    const int64_t align = 16 / (int64_t)dtype_bytes(q.dtype);
    if (!n && !bias && q.shape[2] % align == 0 && k.shape[0] % align == 0)
        return by_products(d, o, q, k, v, &s, scale);
    return cuda_attn_plain(d, o, q, k, v, n, bias, scale);
}

/* Short texts have lengths of every kind, so keys are not padded to what the tensor cores like:
 * the library has kernels for any. */
extern "C" err_t cuda_attention_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                                   struct tensor v, struct tensor table)
{
    struct cuda_softmax s = {};
    s.table = (const float *)table.data;
    s.keys = k.shape[0];
    s.n_heads = q.shape[1];
    s.half = table.shape[0] / 2;
    const int half = s.half, exact = half / 2;
    for (int i = 0; i <= 128; i++) {
        int at = i;
        if (i >= exact) {
            /* The small term keeps a power that is exact, 8 * 16^(2/8), from falling short. */
            const double part = log((double)i / exact) / log(128.0 / exact);
            at = exact + (int)(part * (half - exact) + 1e-9);
        }
        s.bucket[i] = (uint8_t)(at < half ? at : half - 1);
    }
    if (q.dtype != DTYPE_F32 && q.shape[2] == T5_HEAD && at_chunks(o.data, q.data, k.data, v.data))
        return cuda_attn_t5(d, o, q, k, v, &s);
    return by_products(d, o, q, k, v, &s, 1.0f);
}
