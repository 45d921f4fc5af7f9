/* norm.c - norms over the last dimension; a row is read twice and written once, in cache.
 *
 * y may be x: `omp simd` says that elements meet only at their own place, which the compiler cannot
 * see, and would take scalar code for. So it would for a loop that tests a flag more than once:
 * rows are inlined with constants for flags, once for each case.
 */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

#define PER_CASE static inline __attribute__((always_inline))

err_t cpu_rms_norm(struct dev *d, struct tensor yt, struct tensor xt, struct tensor wt, float eps)
{
    const int64_t n_s = xt.shape[0], n_c = xt.shape[1];
    const float *const w = wt.data;
    const bool is_bf16 = cpu_is_bf16(d);
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t s = 0; s < n_s; s++) {
        const float *const x = (const float *)xt.data + s * n_c;
        float *const y = (float *)yt.data + s * n_c;
        const float k = 1.0f / sqrtf(cpu_sum_sq(x, n_c, 0.0f) / (float)n_c + eps);
#pragma omp simd
        for (int64_t c = 0; c < n_c; c++) y[c] = keep(keep(x[c] * k, is_bf16) * w[c], is_bf16);
    }
    return OK;
}

PER_CASE void layer_norm_row(float *y, const float *x, const float *w, const float *b, int64_t n_c,
                             float base, float eps, bool is_bf16)
{
    const float mean = cpu_sum(x, n_c) / (float)n_c;
    const float k = 1.0f / sqrtf(cpu_sum_sq(x, n_c, mean) / (float)n_c + eps);
#pragma omp simd
    for (int64_t c = 0; c < n_c; c++) {
        const float scale = keep(base + w[c], is_bf16);
        y[c] = keep(keep(keep((x[c] - mean) * k, is_bf16) * scale, is_bf16) + b[c], is_bf16);
    }
}

/* y = (x - mean) / sqrt(var + eps) * (base + w) + b; is_bf16: kept after each operation. */
static err_t layer_norm(struct dev *d, struct tensor yt, struct tensor xt, struct tensor wt,
                        struct tensor bt, float base, float eps, bool is_bf16)
{
    const int64_t n_s = xt.shape[0], n_c = xt.shape[1];
    const float *const w = wt.data, *const b = bt.data;
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t s = 0; s < n_s; s++) {
        const float *const x = (const float *)xt.data + s * n_c;
        float *const y = (float *)yt.data + s * n_c;
        if (is_bf16) layer_norm_row(y, x, w, b, n_c, base, eps, true);
        else layer_norm_row(y, x, w, b, n_c, base, eps, false);
    }
    return OK;
}

err_t cpu_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                     struct tensor b, float eps)
{
    const err_t e = layer_norm(d, y, x, w, b, 0.0f, eps, false);
    return e != OK ? e : cpu_keep_all(d, y);
}

err_t cpu_norm_modulate(struct dev *d, struct tensor y, struct tensor x, struct tensor scale,
                        struct tensor shift, float eps)
{
    return layer_norm(d, y, x, scale, shift, 1.0f, eps, cpu_is_bf16(d));
}

PER_CASE void l2_norm_row(float *y, const float *x, const float *g, int64_t n_c, float root,
                          bool with_silu, bool is_bf16)
{
    const float norm = fmaxf(keep(sqrtf(cpu_sum_sq(x, n_c, 0.0f)), is_bf16), 1e-12f);
    const float k = root / norm;
#pragma omp simd
    for (int64_t c = 0; c < n_c; c++) {
        const float v =
            is_bf16 ? cpu_bf16(cpu_bf16(cpu_bf16(x[c] / norm) * root) * g[c]) : x[c] * k * g[c];
        y[c] = with_silu ? keep(cpu_silu1(v), is_bf16) : v;
    }
}

err_t cpu_l2_norm(struct dev *d, struct tensor yt, struct tensor xt, struct tensor gt,
                  int with_silu)
{
    const int64_t n_c = gt.shape[0], n_r = tensor_count(xt) / n_c;
    const float *const g = gt.data;
    const float root = sqrtf((float)n_c);
    const bool is_bf16 = cpu_is_bf16(d);
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t r = 0; r < n_r; r++) {
        const float *const x = (const float *)xt.data + r * n_c;
        float *const y = (float *)yt.data + r * n_c;
        if (is_bf16 && with_silu) l2_norm_row(y, x, g, n_c, root, true, true);
        else if (is_bf16) l2_norm_row(y, x, g, n_c, root, false, true);
        else if (with_silu) l2_norm_row(y, x, g, n_c, root, true, false);
        else l2_norm_row(y, x, g, n_c, root, false, false);
    }
    return OK;
}
