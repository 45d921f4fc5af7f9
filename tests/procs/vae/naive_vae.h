/* naive_vae.h - the VAE's decoder in f64 over a whole clip at once: no histories, zeros before the
 * first frame. A clip is [T, Y, X, C]; stage s of n latents has 1 + r (n - 1) frames, r = 1, 2, 4.
 */
#ifndef TESTS_PROCS_VAE_NAIVE_VAE_H
#define TESTS_PROCS_VAE_NAIVE_VAE_H

#include <stdio.h>

#include "tests/procs/naive.h"

struct clip {
    int64_t T, Y, X, C;
    double *v;
};

static inline struct clip clip_of(int64_t T, int64_t Y, int64_t X, int64_t C)
{
    return (struct clip){T, Y, X, C, check_doubles(T * Y * X * C)};
}

static inline int64_t clip_values(const struct clip *x)
{
    return x->T * x->Y * x->X * x->C;
}

/* One frame's share: taps (dt, dy, dx) of the weights [O, kt, k, k, C], in turn. */
static inline void naive_tap(double *y, const double *x, const double *w, int64_t C, int64_t O,
                             int64_t stride)
{
    for (int64_t o = 0; o < O; o++) {
        double a = 0, b = 0, c = 0, d = 0;
        int64_t i = 0;
        for (; i + 4 <= C; i += 4) {
            a += x[i] * w[o * stride + i];
            b += x[i + 1] * w[o * stride + i + 1];
            c += x[i + 2] * w[o * stride + i + 2];
            d += x[i + 3] * w[o * stride + i + 3];
        }
        for (; i < C; i++) a += x[i] * w[o * stride + i];
        y[o] += a + b + c + d;
    }
}

/* Causal in time from frame `from` on, which has no past; frames before it are not computed. Zero
 * padding in space. Weights named key. */
static inline struct clip naive_conv(const struct naive_box *b, const struct clip *x, int64_t O,
                                     int64_t kt, int64_t k, int64_t from, const char *key)
{
    struct clip y = clip_of(x->T, x->Y, x->X, O);
    const double *w = naive_weight(b, O * kt * k * k * x->C, "%s.weight", key);
    const double *bias = naive_weight(b, O, "%s.bias", key);
    const int64_t half = k / 2, n_taps = kt * k * k;
    for (int64_t at = from * x->Y * x->X; at < x->T * x->Y * x->X; at++) {
        const int64_t t = at / (x->Y * x->X), row = at / x->X % x->Y, col = at % x->X;
        double *const to = y.v + at * O;
        for (int64_t o = 0; o < O; o++) to[o] = bias[o];
        for (int64_t tap = 0; tap < n_taps; tap++) {
            const int64_t dt = t - (kt - 1) + tap / (k * k);
            const int64_t dy = row - half + tap / k % k, dx = col - half + tap % k;
            if (dt < from || dy < 0 || dy >= x->Y || dx < 0 || dx >= x->X) continue;
            naive_tap(to, x->v + ((dt * x->Y + dy) * x->X + dx) * x->C, w + tap * x->C, x->C, O,
                      n_taps * x->C);
        }
    }
    return y;
}

/* x / |x| sqrt(C) gamma over the channels, and SiLU where asked. */
static inline struct clip naive_l2(const struct naive_box *b, const struct clip *x, bool silu,
                                   const char *key)
{
    struct clip y = clip_of(x->T, x->Y, x->X, x->C);
    const double *gamma = naive_weight(b, x->C, "%s.gamma", key);
    for (int64_t at = 0; at < clip_values(x); at += x->C) {
        double sum = 0;
        for (int64_t c = 0; c < x->C; c++) sum += x->v[at + c] * x->v[at + c];
        const double norm = sqrt(sum) > 1e-12 ? sqrt(sum) : 1e-12;
        for (int64_t c = 0; c < x->C; c++) {
            const double z = x->v[at + c] / norm * sqrt((double)x->C) * gamma[c];
            y.v[at + c] = silu ? naive_silu(z) : z;
        }
    }
    return y;
}

static inline struct clip naive_res(const struct naive_box *b, const struct clip *x, int64_t O,
                                    const char *key)
{
    char name[4][96];
    static const char *const part[] = {"residual.0", "residual.2", "residual.3", "residual.6"};
    for (int i = 0; i < 4; i++) snprintf(name[i], sizeof name[i], "%.60s.%s", key, part[i]);
    const struct clip n = naive_l2(b, x, true, name[0]);
    const struct clip a = naive_conv(b, &n, O, 3, 3, 0, name[1]);
    const struct clip m = naive_l2(b, &a, true, name[2]);
    struct clip y = naive_conv(b, &m, O, 3, 3, 0, name[3]), skip = *x;
    snprintf(name[0], sizeof name[0], "%.60s.shortcut", key);
    if (x->C != O) skip = naive_conv(b, x, O, 1, 1, 0, name[0]);
    for (int64_t i = 0; i < clip_values(&y); i++) y.v[i] += skip.v[i];
    return y;
}

/* One head over a frame's positions, plus the input. */
static inline struct clip naive_middle_attention(const struct naive_box *b, const struct clip *x)
{
    const int64_t S = x->Y * x->X, C = x->C;
    const struct clip n = naive_l2(b, x, false, "decoder.middle.1.norm");
    const struct clip qkv = naive_conv(b, &n, 3 * C, 1, 1, 0, "decoder.middle.1.to_qkv");
    struct clip o = clip_of(x->T, x->Y, x->X, C);
    for (int64_t at = 0; at < x->T * S; at++) {
        const double *frame = qkv.v + at / S * S * 3 * C;
        naive_attend(o.v + at * C, qkv.v + at * 3 * C, frame + C, frame + 2 * C, S, C, 3 * C,
                     1 / sqrt((double)C), NULL);
    }
    struct clip y = naive_conv(b, &o, C, 1, 1, 0, "decoder.middle.1.proj");
    for (int64_t i = 0; i < clip_values(&y); i++) y.v[i] += x->v[i];
    return y;
}

/* Frame 0 stays one; the convolution's stream begins at frame 1, with nothing before it; its first
 * half of channels is the earlier of two frames. */
static inline struct clip naive_double_time(const struct naive_box *b, const struct clip *x,
                                            const char *key)
{
    const struct clip z = naive_conv(b, x, 2 * x->C, 3, 1, 1, key);
    struct clip y = clip_of(2 * x->T - 1, x->Y, x->X, x->C);
    const int64_t S = x->Y * x->X, C = x->C;
    memcpy(y.v, x->v, (size_t)(S * C) * sizeof *y.v);
    for (int64_t at = S; at < x->T * S; at++)
        for (int64_t j = 0; j < 2; j++)
            memcpy(y.v + ((2 * (at / S) - 1 + j) * S + at % S) * C, z.v + (at * 2 + j) * C,
                   (size_t)C * sizeof *y.v);
    return y;
}

static inline struct clip naive_double_space(const struct naive_box *b, const struct clip *x,
                                             const char *key)
{
    struct clip y = clip_of(x->T, 2 * x->Y, 2 * x->X, x->C);
    for (int64_t at = 0; at < y.T * y.Y * y.X; at++) {
        const int64_t t = at / (y.Y * y.X), row = at / y.X % y.Y / 2, col = at % y.X / 2;
        memcpy(y.v + at * y.C, x->v + ((t * x->Y + row) * x->X + col) * x->C,
               (size_t)y.C * sizeof *y.v);
    }
    return naive_conv(b, &y, x->C / 2, 1, 3, 0, key);
}

/* latents [T, z, Y, X]. mean and std are those of Wan2.1's first channels. */
static inline struct clip naive_denorm(const struct conf *c, const double *latents, int64_t T)
{
    static const double mean[] = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,
                                  -0.1517, 1.5508,  0.4134,  -0.0715, 0.5517,  -0.3632,
                                  -0.1922, -0.9497, 0.2503,  -0.2921};
    static const double std[] = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                                 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};
    const int64_t z = c->model.latent_channels;
    struct clip x = clip_of(T, c->model.latent_rows, c->model.latent_cols, z);
    const int64_t S = x.Y * x.X;
    for (int64_t i = 0; i < clip_values(&x); i++) {
        const int64_t ch = i % z, at = i / z;
        x.v[i] = latents[(at / S * z + ch) * S + at % S] * std[ch] + mean[ch];
    }
    return x;
}

/* The decoder's output before it becomes bytes, [1 + 4 (T - 1), 8 Y, 8 X, 3]. */
static inline struct clip naive_decode(const struct naive_box *b, const double *latents, int64_t T)
{
    static const int64_t mult[] = {4, 4, 2, 1};
    const int64_t base = b->c.vae.base_dim;
    char key[96];
    struct clip x = naive_denorm(&b->c, latents, T);
    x = naive_conv(b, &x, x.C, 1, 1, 0, "conv2");
    x = naive_conv(b, &x, 4 * base, 3, 3, 0, "decoder.conv1");
    x = naive_res(b, &x, x.C, "decoder.middle.0");
    x = naive_middle_attention(b, &x);
    x = naive_res(b, &x, x.C, "decoder.middle.2");
    for (int stage = 0; stage < 4; stage++) {
        for (int i = 0; i < 3; i++) {
            snprintf(key, sizeof key, "decoder.upsamples.%d", 4 * stage + i);
            x = naive_res(b, &x, mult[stage] * base, key);
        }
        snprintf(key, sizeof key, "decoder.upsamples.%d.time_conv", 4 * stage + 3);
        if (stage < 2) x = naive_double_time(b, &x, key);
        snprintf(key, sizeof key, "decoder.upsamples.%d.resample.1", 4 * stage + 3);
        if (stage < 3) x = naive_double_space(b, &x, key);
    }
    x = naive_l2(b, &x, true, "decoder.head.0");
    return naive_conv(b, &x, 3, 3, 3, 0, "decoder.head.2");
}

#endif
