/* rope.c - from the QKV product to rotated queries and the KV ring. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

/* Tokens of a grid, and the angles of their pairs. */
struct grid {
    int32_t n_rows, n_cols, n_heads, n_d;
    const float *rot_t, *rot_yx;
    int32_t n_t, n_yx; /* pairs */
};

static struct grid grid_of(struct tensor rot_t, struct tensor rot_yx, struct tensor k_ring,
                           int32_t n_rows, int32_t n_cols)
{
    return (struct grid){
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n_heads = k_ring.shape[1],
        .n_d = k_ring.shape[2],
        .rot_t = rot_t.data,
        .rot_yx = rot_yx.data,
        .n_t = rot_t.shape[1],
        .n_yx = rot_yx.shape[1],
    };
}

/* The D/2 (cos, sin) of a token, in the order of a head's pairs. */
static void token_rot(const struct grid *g, int64_t token, float *rot)
{
    const int64_t n_frame = (int64_t)g->n_rows * g->n_cols;
    const int64_t frame = token / n_frame, y = token % n_frame / g->n_cols, x = token % g->n_cols;
    const size_t n_t = 2 * (size_t)g->n_t, n_yx = 2 * (size_t)g->n_yx;
    memcpy(rot, g->rot_t + frame * (int64_t)n_t, n_t * sizeof *rot);
    memcpy(rot + n_t, g->rot_yx + y * (int64_t)n_yx, n_yx * sizeof *rot);
    memcpy(rot + n_t + n_yx, g->rot_yx + x * (int64_t)n_yx, n_yx * sizeof *rot);
}

/* y = rotated x, all heads of one token; y may be x. */
static void rotate(const struct grid *g, float *y, const float *x, const float *rot, bool is_bf16)
{
    for (int32_t head = 0; head < g->n_heads; head++, x += g->n_d, y += g->n_d) {
        for (int32_t j = 0; j < g->n_d; j += 2) {
            const float a = x[j], b = x[j + 1], c = rot[j], s = rot[j + 1];
            y[j] = keep(a * c - b * s, is_bf16);
            y[j + 1] = keep(a * s + b * c, is_bf16);
        }
    }
}

static void rms_row(float *y, const float *x, const float *w, int64_t n_c, float eps, bool is_bf16)
{
    const float k = 1.0f / sqrtf(cpu_sum_sq(x, n_c, 0.0f) / (float)n_c + eps);
    for (int64_t c = 0; c < n_c; c++) y[c] = keep(keep(x[c] * k, is_bf16) * w[c], is_bf16);
}

err_t cpu_qkv_rope_cache(struct dev *d, struct tensor q, struct tensor k_ring, struct tensor v_ring,
                         struct tensor k_sink, struct tensor qkv, struct tensor wq,
                         struct tensor wk, struct tensor slots, struct tensor rot_t,
                         struct tensor rot_yx, int32_t n_rows, int32_t n_cols, float eps)
{
    const struct grid g = grid_of(rot_t, rot_yx, k_ring, n_rows, n_cols);
    const int64_t n_s = q.shape[0], n_c = wq.shape[0], n_frame = (int64_t)n_rows * n_cols;
    const int64_t n_slots = k_ring.shape[0] / n_frame, n_sink = k_sink.shape[0] / n_frame;
    const int32_t *const slot = slots.data;
    float *const scratch = cpu_scratch(d);
    const bool is_bf16 = cpu_is_bf16(d);
    for (int32_t f = 0; f < slots.shape[0]; f++)
        if (slot[f] < 0 || slot[f] >= n_slots)
            return FAIL(ERR_SHAPE, "qkv_rope_cache: slot %d of frame %d is not in 0 to %d", slot[f],
                        f, (int)n_slots - 1);
    if (n_c + g.n_d > CPU_SLOT_FLOATS)
        return FAIL(ERR_SHAPE, "qkv_rope_cache: scratch has no room for %d channels", (int)n_c);

#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t s = 0; s < n_s; s++) {
        const float *const in = (const float *)qkv.data + s * 3 * n_c;
        const int64_t at = slot[s / n_frame] * n_frame + s % n_frame;
        float *const normed = cpu_slot(scratch), *const rot = normed + n_c;
        token_rot(&g, s, rot);
        rms_row(normed, in, wq.data, n_c, eps, is_bf16);
        rotate(&g, (float *)q.data + s * n_c, normed, rot, is_bf16);
        rms_row(normed, in + n_c, wk.data, n_c, eps, is_bf16);
        rotate(&g, (float *)k_ring.data + at * n_c, normed, rot, is_bf16);
        memcpy((float *)v_ring.data + at * n_c, in + 2 * n_c, (size_t)n_c * sizeof(float));
        if (slot[s / n_frame] < n_sink)
            memcpy((float *)k_sink.data + at * n_c, normed, (size_t)n_c * sizeof(float));
    }
    return OK;
}

err_t cpu_rope_sink(struct dev *d, struct tensor k_ring, struct tensor k_sink, struct tensor rot_t,
                    struct tensor rot_yx, int32_t n_rows, int32_t n_cols)
{
    const struct grid g = grid_of(rot_t, rot_yx, k_ring, n_rows, n_cols);
    const int64_t n_s = k_sink.shape[0], n_c = (int64_t)g.n_heads * g.n_d;
    float *const scratch = cpu_scratch(d);
    const bool is_bf16 = cpu_is_bf16(d);
    if (g.n_d > CPU_SLOT_FLOATS)
        return FAIL(ERR_SHAPE, "rope_sink: scratch has no room for a head of %d", g.n_d);

#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t s = 0; s < n_s; s++) {
        float *const rot = cpu_slot(scratch);
        token_rot(&g, s, rot);
        rotate(&g, (float *)k_ring.data + s * n_c, (const float *)k_sink.data + s * n_c, rot,
               is_bf16);
    }
    return OK;
}
