/* naive.h - for tests of models: a model with random weights, those weights by their names in the
 * checkpoints, and the plainest f64 of each layer. Nothing here calls an op.
 */
#ifndef TESTS_PROCS_NAIVE_H
#define TESTS_PROCS_NAIVE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

#include "kernels/ops.h"
#include "procs/weights.c" /* to find a weight by its name; weights.o is then not linked */

/* --- a device, and weights bound and filled --------------------------------------------------- */

struct naive_box {
    struct conf c;
    struct dev *d;
    struct weights *w;
    void *weights;
};

/* configs/nano.ini with assignments over it. */
static inline void naive_conf(struct conf *c, const char *const *sets, int32_t n_sets)
{
    assert_ok(conf_load(c, "configs/nano.ini", sets, n_sets));
}

static inline void naive_box_open(struct naive_box *b, const char *const *sets, int32_t n_sets,
                                  int32_t n_threads)
{
    memset(b, 0, sizeof *b);
    naive_conf(&b->c, sets, n_sets);
    assert_ok(dev_open(&b->d, "cpu", n_threads));
    assert_ok(ops_open(b->d));
    assert_ok(weights_open(&b->w));
}

static inline void naive_box_fill(struct naive_box *b)
{
    assert_ok(dev_alloc(b->d, weights_bytes(b->w), &b->weights));
    weights_bind(b->w, b->weights);
    assert_ok(weights_fill(b->w, b->d, "random:7", NULL, NULL));
}

static inline void naive_box_close(struct naive_box *b)
{
    weights_close(&b->w);
    dev_free(b->d, &b->weights);
    ops_close(b->d);
    assert_int_equal(dev_live_bytes(b->d), 0);
    dev_close(&b->d);
}

/* n values on the device as f64, in memory that lives until the test ends. */
static inline double *naive_read(struct dev *d, const void *data, int64_t n)
{
    double *out = check_doubles(n);
    float *raw = malloc((size_t)n * sizeof *raw);
    assert_non_null(raw);
    assert_ok(dev_download(d, raw, data, (size_t)n * sizeof *raw));
    assert_ok(dev_sync(d));
    for (int64_t i = 0; i < n; i++) out[i] = (double)raw[i];
    free(raw);
    return out;
}

/* The checkpoint's tensor of that name, which has n values. */
static inline double *naive_weight(const struct naive_box *b, int64_t n, const char *fmt, ...)
{
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    for (int32_t i = 0; i < b->w->n_parts; i++) {
        const struct part *p = &b->w->parts[i];
        if (strcmp(p->name, name) != 0) continue;
        const struct tensor t = tensor_rows(*p->at, p->first, p->n);
        if (tensor_count(t) != n) fail_msg("%s has %lld values", name, (long long)tensor_count(t));
        return naive_read(b->d, t.data, n);
    }
    fail_msg("no weight is named %s", name);
    return NULL;
}

/* Relative L2 distance at most tol; *worst keeps the greatest one seen. */
#define naive_close(worst, got, want, n, tol)                                                      \
    do {                                                                                           \
        const double far_ = naive_distance((got), (want), (n));                                    \
        if (!(far_ <= *(worst))) *(worst) = far_;                                                  \
        check_close((got), (want), (n), (tol));                                                    \
    } while (0)

static inline double naive_distance(const float *got, const double *want, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double one = (double)got[i] - want[i];
        diff += one * one;
        norm += want[i] * want[i];
    }
    return sqrt(diff / norm);
}

/* --- layers -------------------------------------------------------------------------------------
 */

/* y [S, O] = x [S, I] w^T + b; w [O, I]; b may be NULL. */
static inline void naive_linear(double *y, const double *x, const double *w, const double *b,
                                int64_t S, int64_t I, int64_t O)
{
    for (int64_t s = 0; s < S; s++)
        for (int64_t o = 0; o < O; o++) {
            double sum = b ? b[o] : 0;
            for (int64_t i = 0; i < I; i++) sum += x[s * I + i] * w[o * I + i];
            y[s * O + o] = sum;
        }
}

static inline void naive_rms(double *y, const double *x, const double *w, int64_t S, int64_t C)
{
    for (int64_t s = 0; s < S; s++) {
        double sum = 0;
        for (int64_t c = 0; c < C; c++) sum += x[s * C + c] * x[s * C + c];
        const double r = 1 / sqrt(sum / (double)C + 1e-6);
        for (int64_t c = 0; c < C; c++) y[s * C + c] = x[s * C + c] * r * w[c];
    }
}

/* y = (x - mean) / sd * scale + shift, each of [C]; scale_from is added to scale. */
static inline void naive_layer_norm(double *y, const double *x, const double *scale,
                                    double scale_from, const double *shift, int64_t S, int64_t C)
{
    for (int64_t s = 0; s < S; s++) {
        double mean = 0, var = 0;
        for (int64_t c = 0; c < C; c++) mean += x[s * C + c] / (double)C;
        for (int64_t c = 0; c < C; c++) var += pow(x[s * C + c] - mean, 2) / (double)C;
        for (int64_t c = 0; c < C; c++)
            y[s * C + c] =
                (x[s * C + c] - mean) / sqrt(var + 1e-6) * (scale_from + scale[c]) + shift[c];
    }
}

static inline double naive_gelu(double z)
{
    return 0.5 * z * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (z + 0.044715 * z * z * z)));
}

static inline double naive_silu(double z)
{
    return z / (1 + exp(-z));
}

/* One query against M keys of one head; stride: values between rows of k and v. bias may be NULL.
 */
static inline void naive_attend(double *o, const double *q, const double *k, const double *v,
                                int64_t M, int64_t D, int64_t stride, double scale,
                                const double *bias)
{
    double sum = 0, most = -INFINITY;
    double *p = malloc((size_t)M * sizeof *p);
    assert_non_null(p);
    for (int64_t m = 0; m < M; m++) {
        double dot = 0;
        for (int64_t i = 0; i < D; i++) dot += q[i] * k[m * stride + i];
        p[m] = dot * scale + (bias ? bias[m] : 0);
        if (p[m] > most) most = p[m];
    }
    for (int64_t m = 0; m < M; m++) sum += p[m] = exp(p[m] - most);
    for (int64_t i = 0; i < D; i++) o[i] = 0;
    for (int64_t m = 0; m < M; m++)
        for (int64_t i = 0; i < D; i++) o[i] += p[m] / sum * v[m * stride + i];
    free(p);
}

/* o, q [S, N * D]; k, v [M, N * D]. */
static inline void naive_attention(double *o, const double *q, const double *k, const double *v,
                                   int64_t S, int64_t M, int64_t N, int64_t D, double scale)
{
    const int64_t C = N * D;
    for (int64_t s = 0; s < S; s++)
        for (int64_t n = 0; n < N; n++)
            naive_attend(o + s * C + n * D, q + s * C + n * D, k + n * D, v + n * D, M, D, C, scale,
                         NULL);
}

#endif
