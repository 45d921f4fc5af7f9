/* golden.h - what the tests of models share: the files of tests/golden, and a model with the random
 * weights that those files were made with. The numbers come from LongLive's own code, see
 * tests/golden/README.md.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/file.h"
#include "kernels/ops.h"
#include "procs/weights.h"
#include "tests/check.h"

/* --- files ------------------------------------------------------------------------------------ */

struct golden {
    char *bytes;
    const char *data;
    json_t *header;
};

static inline void golden_open(struct golden *g, const char *name)
{
    char path[128];
    size_t n;
    uint64_t n_header;
    snprintf(path, sizeof path, "tests/golden/%s.safetensors", name);
    assert_ok(file_read(path, 1 << 24, &g->bytes, &n));
    assert_true(n > 8);
    memcpy(&n_header, g->bytes, 8);
    assert_true(n_header < n - 8);
    g->header = json_loadb(g->bytes + 8, n_header, 0, NULL);
    assert_non_null(g->header);
    g->data = g->bytes + 8 + n_header;
}

static inline void golden_close(struct golden *g)
{
    json_decref(g->header);
    free(g->bytes);
}

/* The tensor's bytes; its type and number of values. */
static inline const char *golden_raw(const struct golden *g, const char *name, const char **dtype,
                                     int64_t *n)
{
    json_t *t = json_object_get(g->header, name), *at = json_object_get(t, "data_offsets");
    if (!t) fail_msg("no golden tensor is named %s", name);
    *dtype = json_string_value(json_object_get(t, "dtype"));
    *n = 1;
    size_t i;
    json_t *size;
    json_array_foreach(json_object_get(t, "shape"), i, size) *n *= json_integer_value(size);
    return g->data + json_integer_value(json_array_get(at, 0));
}

/* F32 or BF16 as f32, n values; in memory that lives until the test ends. */
static inline float *golden_floats(const struct golden *g, const char *name, int64_t n)
{
    const char *dtype;
    int64_t has;
    const char *raw = golden_raw(g, name, &dtype, &has);
    if (has != n) fail_msg("%s has %lld values", name, (long long)has);
    float *out = check_alloc((size_t)n * sizeof *out);
    if (strcmp(dtype, "F32") == 0) {
        memcpy(out, raw, (size_t)n * sizeof *out);
        return out;
    }
    assert_string_equal(dtype, "BF16");
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, raw + 2 * i, sizeof half);
        const uint32_t bits = (uint32_t)half << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
    return out;
}

static inline double *golden_doubles(const struct golden *g, const char *name, int64_t n)
{
    const float *x = golden_floats(g, name, n);
    double *out = check_doubles(n);
    for (int64_t i = 0; i < n; i++) out[i] = (double)x[i];
    return out;
}

static inline const int32_t *golden_ints(const struct golden *g, const char *name, int64_t *n)
{
    const char *dtype;
    const char *raw = golden_raw(g, name, &dtype, n);
    assert_string_equal(dtype, "I32");
    int32_t *out = check_alloc((size_t)*n * sizeof *out);
    memcpy(out, raw, (size_t)*n * sizeof *out);
    return out;
}

/* --- models ----------------------------------------------------------------------------------- */

enum { GOLDEN_THREADS = 1 };

struct golden_box {
    struct conf c; /* model.parity says how the device rounds */
    struct dev *d;
    struct weights *w;
    void *weights;
};

static inline void golden_box_open(struct golden_box *b, const char *config,
                                   const char *const *sets, int32_t n_sets)
{
    char path[64];
    memset(b, 0, sizeof *b);
    snprintf(path, sizeof path, "configs/%s.ini", config);
    assert_ok(conf_load(&b->c, path, sets, n_sets));
    assert_ok(dev_open(&b->d, "cpu", GOLDEN_THREADS));
    assert_ok(ops_open(b->d));
    ops_set_bf16(b->d, b->c.model.parity == PARITY_REFERENCE);
    assert_ok(weights_open(&b->w));
}

/* random:5, and where g is given a look whether the reference had the same bits. */
static inline void golden_box_fill(struct golden_box *b, const struct golden *g)
{
    const bool rounds = b->c.model.parity == PARITY_REFERENCE;
    const size_t n = weights_bytes(b->w);
    uint64_t sum = 0, want;
    int64_t two;
    assert_ok(dev_alloc(b->d, n, &b->weights));
    assert_ok(dev_zero(b->d, b->weights, n));
    weights_bind(b->w, b->weights);
    assert_ok(weights_fill(b->w, b->d, "random:5", NULL, NULL));
    if (!g || rounds) return;
    uint32_t *words = malloc(n);
    assert_non_null(words);
    assert_ok(dev_download(b->d, words, b->weights, n));
    assert_ok(dev_sync(b->d));
    for (size_t i = 0; i < n / sizeof *words; i++) sum += words[i];
    free(words);
    memcpy(&want, golden_ints(g, "words", &two), sizeof want);
    if (sum != want) fail_msg("the weights are not the reference's");
}

static inline void golden_box_close(struct golden_box *b)
{
    weights_close(&b->w);
    dev_free(b->d, &b->weights);
    ops_close(b->d);
    dev_close(&b->d);
}

static inline double golden_distance(const float *got, const double *want, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double one = (double)got[i] - want[i];
        diff += one * one;
        norm += want[i] * want[i];
    }
    return sqrt(diff / norm);
}

/* Relative L2 distance at most tol; *worst keeps the greatest one seen. */
static inline void golden_close_to(double *worst, const float *got, const double *want, int64_t n,
                                   double tol)
{
    const double far = golden_distance(got, want, n);
    if (!(far <= *worst)) *worst = far;
    check_close(got, want, n, tol);
}

/* --- one case in both parities ---------------------------------------------------------------- */

/* How far results lie from the exact ones: in clean parity at most 1e-5, in reference parity at
 * most 1.2 times as far as the reference's own bf16. */
struct golden_far {
    bool is_clean;
    const float *error; /* the reference's, of the next result */
    double worst;       /* distance, or its ratio to the reference's */
};

static inline struct golden_far golden_far_of(const struct golden *g, const struct golden_box *b,
                                              int64_t n_errors)
{
    return (struct golden_far){.is_clean = b->c.model.parity == PARITY_CLEAN,
                               .error = golden_floats(g, "error", n_errors)};
}

static inline void golden_check(struct golden_far *f, const float *got, const double *want,
                                int64_t n)
{
    const double far = golden_distance(got, want, n);
    const double measure = f->is_clean ? far : far / (double)*f->error;
    f->error++;
    if (!(measure <= f->worst)) f->worst = measure;
    if (!(measure <= (f->is_clean ? 1e-5 : 1.2)))
        fail_msg("relative error %.3g, %.3g of the reference's", far, far / (double)f->error[-1]);
}

static inline void golden_tell(const struct golden_far *f, const char *what)
{
    if (f->is_clean) print_message("%s: relative error %.2g\n", what, f->worst);
    else print_message("%s: %.3f of the error of the reference's bf16\n", what, f->worst);
}

#define GOLDEN_CLEAN "model.parity=clean"
#define GOLDEN_REFERENCE "model.parity=reference"

#endif
