/* norm.c - norms over the last dimension; a row is read twice and written once, in cache.
 *
 * y may be x: `omp simd` says that elements meet only at their own place, which the compiler cannot
 * see, and would take scalar code for.
 */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

err_t cpu_rms_norm(struct dev *d, struct tensor yt, struct tensor xt, struct tensor wt, float eps)
{
    const int64_t n_s = xt.shape[0], n_c = xt.shape[1];
    const float *const w = wt.data;
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t s = 0; s < n_s; s++) {
        const float *const x = (const float *)xt.data + s * n_c;
        float *const y = (float *)yt.data + s * n_c;
        const float k = 1.0f / sqrtf(cpu_sum_sq(x, n_c, 0.0f) / (float)n_c + eps);
#pragma omp simd
        for (int64_t c = 0; c < n_c; c++) y[c] = x[c] * k * w[c];
    }
    return OK;
}

/* y = (x - mean) / sqrt(var + eps) * (base + w) + b */
static err_t layer_norm(struct dev *d, struct tensor yt, struct tensor xt, struct tensor wt,
                        struct tensor bt, float base, float eps)
{
    const int64_t n_s = xt.shape[0], n_c = xt.shape[1];
    const float *const w = wt.data, *const b = bt.data;
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t s = 0; s < n_s; s++) {
        const float *const x = (const float *)xt.data + s * n_c;
        float *const y = (float *)yt.data + s * n_c;
        const float mean = cpu_sum(x, n_c) / (float)n_c;
        const float k = 1.0f / sqrtf(cpu_sum_sq(x, n_c, mean) / (float)n_c + eps);
#pragma omp simd
        for (int64_t c = 0; c < n_c; c++) y[c] = (x[c] - mean) * k * (base + w[c]) + b[c];
    }
    return OK;
}

err_t cpu_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                     struct tensor b, float eps)
{
    return layer_norm(d, y, x, w, b, 0.0f, eps);
}

err_t cpu_norm_modulate(struct dev *d, struct tensor y, struct tensor x, struct tensor scale,
                        struct tensor shift, float eps)
{
    return layer_norm(d, y, x, scale, shift, 1.0f, eps);
}

err_t cpu_l2_norm(struct dev *d, struct tensor yt, struct tensor xt, struct tensor gt,
                  int with_silu)
{
    const int64_t n_c = gt.shape[0], n_r = tensor_count(xt) / n_c;
    const float *const g = gt.data;
    const float root = sqrtf((float)n_c);
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t r = 0; r < n_r; r++) {
        const float *const x = (const float *)xt.data + r * n_c;
        float *const y = (float *)yt.data + r * n_c;
        const float k = root / fmaxf(sqrtf(cpu_sum_sq(x, n_c, 0.0f)), 1e-12f);
        if (with_silu) {
#pragma omp simd
            for (int64_t c = 0; c < n_c; c++) y[c] = cpu_silu1(x[c] * k * g[c]);
        } else {
#pragma omp simd
            for (int64_t c = 0; c < n_c; c++) y[c] = x[c] * k * g[c];
        }
    }
    return OK;
}
