/* latent.c - what happens to latents between the transformer's steps, and their noise. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

/* Elements of one task: a multiple of 4, as one Philox block makes four normals. */
enum { CHUNK = 4096 };

err_t cpu_patchify(struct dev *d, struct tensor yt, struct tensor xt)
{
    const int64_t n_f = xt.shape[0], n_c = xt.shape[1], n_y = xt.shape[2], n_x = xt.shape[3];
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t fy = 0; fy < n_f * n_y; fy++) {
        const int64_t f = fy / n_y, yy = fy % n_y;
        float *const row = (float *)yt.data + (f * (n_y / 2) + yy / 2) * (n_x / 2) * 4 * n_c;
        for (int64_t c = 0; c < n_c; c++) {
            const float *const x = (const float *)xt.data + ((f * n_c + c) * n_y + yy) * n_x;
            for (int64_t xx = 0; xx < n_x; xx++)
                row[(xx / 2 * n_c + c) * 4 + yy % 2 * 2 + xx % 2] = x[xx];
        }
    }
    return OK;
}

err_t cpu_unpatchify(struct dev *d, struct tensor yt, struct tensor xt)
{
    const int64_t n_f = yt.shape[0], n_c = yt.shape[1], n_y = yt.shape[2], n_x = yt.shape[3];
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t fy = 0; fy < n_f * n_y; fy++) {
        const int64_t f = fy / n_y, yy = fy % n_y;
        const float *const row =
            (const float *)xt.data + (f * (n_y / 2) + yy / 2) * (n_x / 2) * 4 * n_c;
        for (int64_t c = 0; c < n_c; c++) {
            float *const y = (float *)yt.data + ((f * n_c + c) * n_y + yy) * n_x;
            for (int64_t xx = 0; xx < n_x; xx++)
                y[xx] = row[xx / 2 * 4 * n_c + (yy % 2 * 2 + xx % 2) * n_c + c];
        }
    }
    return OK;
}

err_t cpu_flow_to_x0(struct dev *d, struct tensor x0t, struct tensor xt, struct tensor flowt,
                     float sigma)
{
    const int64_t n = tensor_count(x0t);
    const float *const x = xt.data, *const flow = flowt.data;
    float *const x0 = x0t.data;
    const double k = (double)sigma;
    const bool is_bf16 = cpu_is_bf16(d);
#pragma omp parallel for simd schedule(static) num_threads(dev_threads(d))
    for (int64_t i = 0; i < n; i++)
        x0[i] = keep((float)((double)x[i] - k * (double)flow[i]), is_bf16);
    return OK;
}

err_t cpu_renoise(struct dev *d, struct tensor yt, struct tensor x0t, struct tensor epst,
                  float sigma)
{
    const int64_t n = tensor_count(yt);
    const float *const x0 = x0t.data, *const eps = epst.data;
    float *const y = yt.data;
    const float rest = 1.0f - sigma;
    const bool is_bf16 = cpu_is_bf16(d);
#pragma omp parallel for simd schedule(static) num_threads(dev_threads(d))
    for (int64_t i = 0; i < n; i++) y[i] = keep(rest * x0[i] + sigma * eps[i], is_bf16);
    return OK;
}

err_t cpu_randn(struct dev *d, struct tensor yt, struct tensor keyt, float mean, float std)
{
    const int64_t n = tensor_count(yt);
    const uint64_t *const words = keyt.data;
    const struct rng_key key = {.seed = words[0], .stream = words[1]};
    float *const y = yt.data;
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t end = cpu_min(n, first + CHUNK);
        int64_t i = first;
        for (; i + 4 <= end; i += 4) {
            const struct rng_four z = rng_normal4(key, (uint64_t)i >> 2);
            for (int32_t j = 0; j < 4; j++) y[i + j] = mean + std * z.z[j];
        }
        for (; i < end; i++) y[i] = mean + std * rng_normal(key, (uint64_t)i);
    }
    return OK;
}

err_t cpu_denorm(struct dev *d, struct tensor yt, struct tensor latent, struct tensor inv_std,
                 struct tensor mean)
{
    const int64_t n_p = (int64_t)yt.shape[0] * yt.shape[1], n_c = yt.shape[2];
    const float *const x = latent.data, *const k = inv_std.data, *const m = mean.data;
    float *const y = yt.data;
    const bool is_bf16 = cpu_is_bf16(d);
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t p = 0; p < n_p; p++)
        for (int64_t c = 0; c < n_c; c++)
            y[p * n_c + c] = keep(keep(x[c * n_p + p] / k[c], is_bf16) + m[c], is_bf16);
    return OK;
}
