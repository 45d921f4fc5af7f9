/* attn.c - attention: logits of a chunk of queries in scratch, softmax, product with the values.
 *
 * All logits of a row are kept, so the softmax is the plain one; the chunk shrinks as the number
 * of keys grows.
 */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

enum { CHUNK_ROWS = 128, DISTANCE_MAX = 128 };

struct attn {
    struct tensor o, q, k, v;
    int32_t n_keys; /* of them take part */
    float scale;
    float last_bias;
    bool is_bf16;
    const float *table;               /* T5: [B, N]; else NULL */
    uint8_t bucket[DISTANCE_MAX + 1]; /* T5: of a distance, without the half for j > i */
    int32_t n_buckets;
};

/* e^(logit - largest) in place of the logits; returns their sum. */
static float exp_row(float *s, int32_t n)
{
    const float top = cpu_largest(s, n);
    for (int32_t j = 0; j < n; j++) s[j] = cpu_exp(s[j] - top);
    return cpu_sum(s, n);
}

/* What weighs the values in bf16, and what the result is then to be divided by: fused attention
 * rounds the exponentials and divides last, T5's own module rounds what is already divided. */
static float keep_row(const struct attn *a, float *s, int32_t n, float sum)
{
    const float by = a->table ? sum : 1.0f;
    for (int32_t j = 0; j < n; j++) s[j] = cpu_bf16(s[j] / by);
    return sum / by;
}

/* bias[j - i + S - 1] for one head. */
static void t5_bias(const struct attn *a, int32_t head, float *bias)
{
    const int32_t n_s = a->q.shape[0], n_heads = a->q.shape[1];
    for (int32_t delta = 1 - n_s; delta < n_s; delta++) {
        const int32_t distance = delta < 0 ? -delta : delta;
        int32_t at = a->bucket[cpu_min(distance, DISTANCE_MAX)];
        if (delta > 0) at += a->n_buckets / 2;
        bias[delta + n_s - 1] = a->table[(int64_t)at * n_heads + head];
    }
}

/* Query rows [s, s + m) of one head. slot: m * n_keys logits, m sums, then the bias of T5. */
static void attend(const struct attn *a, int32_t head, int32_t s, int32_t m, float *slot)
{
    const int32_t n_s = a->q.shape[0], n_heads = a->q.shape[1], n_d = a->q.shape[2];
    const int32_t n = a->n_keys;
    const int64_t stride = (int64_t)n_heads * n_d, first = (int64_t)head * n_d;
    const struct cpu_mat q = {(const float *)a->q.data + s * stride + first, stride};
    const struct cpu_mat k = {(const float *)a->k.data + first, stride};
    const struct cpu_mat v = {(const float *)a->v.data + first, stride};
    float *const o = (float *)a->o.data + s * stride + first;
    float *const sum = slot + (int64_t)m * n, *const bias = sum + m;

    cpu_mul_nt(slot, n, q, k, m, n, n_d, a->scale, 0.0f);
    if (a->table) t5_bias(a, head, bias);
    for (int32_t i = 0; i < m; i++) {
        float *const row = slot + (int64_t)i * n;
        const float *const b = bias + (n_s - 1 - (s + i));
        if (a->table)
            for (int32_t j = 0; j < n; j++)
                row[j] = keep(keep(row[j], a->is_bf16) + b[j], a->is_bf16);
        row[n - 1] += a->last_bias;
        sum[i] = exp_row(row, n);
        if (a->is_bf16) sum[i] = keep_row(a, row, n, sum[i]);
    }
    cpu_mul_nn(o, stride, (struct cpu_mat){slot, n}, v, m, n_d, n);
    for (int32_t i = 0; i < m; i++) {
        const float k1 = 1.0f / sum[i];
        for (int32_t c = 0; c < n_d; c++)
            o[i * stride + c] = keep(o[i * stride + c] * k1, a->is_bf16);
    }
}

static err_t attention(struct dev *d, const struct attn *a)
{
    const int32_t n_s = a->q.shape[0], n_heads = a->q.shape[1];
    const int64_t room = CPU_SLOT_FLOATS - (a->table ? 2 * (int64_t)n_s : 0);
    const int64_t fit = room / ((int64_t)a->n_keys + 1);
    if (fit < 1)
        return FAIL(ERR_SHAPE, "attention: scratch has no room for the logits of %d keys",
                    a->n_keys);
    const int32_t rows = cpu_chunk(n_s, cpu_min(fit, CHUNK_ROWS));
    float *const scratch = cpu_scratch(d);

#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(dev_threads(d))
    for (int32_t head = 0; head < n_heads; head++)
        for (int32_t s = 0; s < n_s; s += rows)
            attend(a, head, s, (int32_t)cpu_min(rows, n_s - s), cpu_slot(scratch));
    return OK;
}

err_t cpu_attention(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                    struct tensor v, struct tensor n_keys, struct tensor last_bias, float scale)
{
    const int32_t n = n_keys.data ? *(const int32_t *)n_keys.data : k.shape[0];
    if (n < 1 || n > k.shape[0])
        return FAIL(ERR_SHAPE, "attention: n_keys %d is not in 1 to %d", n, k.shape[0]);
    const struct attn a = {
        .o = o,
        .q = q,
        .k = k,
        .v = v,
        .n_keys = n,
        .scale = scale,
        .last_bias = last_bias.data ? *(const float *)last_bias.data : 0.0f,
        .is_bf16 = cpu_is_bf16(d),
    };
    return attention(d, &a);
}

err_t cpu_attention_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                       struct tensor v, struct tensor table)
{
    struct attn a = {
        .o = o,
        .q = q,
        .k = k,
        .v = v,
        .n_keys = k.shape[0],
        .scale = 1.0f,
        .is_bf16 = cpu_is_bf16(d),
        .table = table.data,
        .n_buckets = table.shape[0],
    };
    const int32_t half = a.n_buckets / 2, exact = half / 2;
    for (int32_t distance = 0; distance <= DISTANCE_MAX; distance++) {
        int32_t at = distance;
        if (distance >= exact) {
            /* The small term keeps a power that is exact, 8 * 16^(2/8), from falling short. */
            const double part = log((double)distance / exact) / log((double)DISTANCE_MAX / exact);
            at = exact + (int32_t)(part * (half - exact) + 1e-9);
        }
        a.bucket[distance] = (uint8_t)cpu_min(at, half - 1);
    }
    return attention(d, &a);
}
