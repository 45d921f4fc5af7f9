/* act.c - elementwise ops. An element depends on its own place alone, so any split will do. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

/* y and an input may be the same memory element by element, which `omp simd` allows. */
#define EACH_PRAGMA(d) _Pragma("omp parallel for simd schedule(static) num_threads(dev_threads(d))")

err_t cpu_keep_all(struct dev *d, struct tensor xt)
{
    const int64_t n = tensor_count(xt);
    float *const x = xt.data;
    if (!cpu_is_bf16(d)) return OK;
    EACH_PRAGMA(d)
    for (int64_t i = 0; i < n; i++) x[i] = cpu_bf16(x[i]);
    return OK;
}

err_t cpu_silu(struct dev *d, struct tensor yt, struct tensor xt)
{
    const int64_t n = tensor_count(xt);
    const float *const x = xt.data;
    float *const y = yt.data;
    const bool is_bf16 = cpu_is_bf16(d);
    EACH_PRAGMA(d)
    for (int64_t i = 0; i < n; i++) y[i] = keep(cpu_silu1(x[i]), is_bf16);
    return OK;
}

/* The CPU has one float type. */
err_t cpu_cast(struct dev *d, struct tensor y, struct tensor x)
{
    return dev_copy(d, y.data, x.data, tensor_bytes(x));
}

err_t cpu_add(struct dev *d, struct tensor yt, struct tensor at, struct tensor bt)
{
    const int64_t n = tensor_count(yt);
    const float *const a = at.data, *const b = bt.data;
    float *const y = yt.data;
    const bool is_bf16 = cpu_is_bf16(d);
    EACH_PRAGMA(d)
    for (int64_t i = 0; i < n; i++) y[i] = keep(a[i] + b[i], is_bf16);
    return OK;
}

/* gelu_tanh as umT5's own module writes it, each operation rounded. */
static float gelu_bf16(float x)
{
    const float cube = cpu_bf16(cpu_bf16(x * x) * x);
    const float inner = cpu_bf16(x + cpu_bf16(0.044715f * cube));
    const float t = cpu_bf16(tanhf(cpu_bf16(0.79788456f * inner)));
    return cpu_bf16(cpu_bf16(0.5f * x) * cpu_bf16(1.0f + t));
}

err_t cpu_gelu_mul(struct dev *d, struct tensor yt, struct tensor at, struct tensor gt)
{
    const int64_t n = tensor_count(yt);
    const float *const a = at.data, *const g = gt.data;
    float *const y = yt.data;
    if (cpu_is_bf16(d)) {
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
        for (int64_t i = 0; i < n; i++) y[i] = cpu_bf16(a[i] * gelu_bf16(g[i]));
        return OK;
    }
    EACH_PRAGMA(d)
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * cpu_gelu1(g[i]);
    return OK;
}

/* NaN compares false, becomes -1 and ends as 0. */
err_t cpu_to_rgb8(struct dev *d, struct tensor yt, struct tensor xt)
{
    const int64_t n = tensor_count(xt);
    const float *const x = xt.data;
    uint8_t *const y = yt.data;
    EACH_PRAGMA(d)
    for (int64_t i = 0; i < n; i++) {
        float v = cpu_select(x[i] > -1.0f, x[i], -1.0f);
        v = cpu_select(v < 1.0f, v, 1.0f);
        y[i] = (uint8_t)(int32_t)(255.0f * (0.5f * v + 0.5f));
    }
    return OK;
}
