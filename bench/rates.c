/* rates.c - see rates.h. */
#include "bench/rates.h"

#include "kernels/ops.h"

enum { TRIES = 7, DIM_MIN = 512, DIM_MAX = 8192 };
static const int64_t ENOUGH_NS = 2000000; /* a larger product would not be faster */
static const size_t COPY_BYTES = (size_t)256 << 20;

/* Values as a model has them: a GPU that multiplies zeros draws less power, and runs faster. */
static err_t draw(struct dev *d, struct tensor t, struct tensor key)
{
    err_t e = OK;
    const uint64_t seed[2] = {1, 1};
    TRY(dev_upload(d, key.data, seed, sizeof seed));
    TRY(ops_randn(d, t, key, 0, 1));
    TRY(dev_sync(d));
out:
    return e;
}

/* What lies between marks 0 and 1, at most ns_max. */
static err_t took(struct dev *d, struct dev_marks *m, int64_t *ns_min)
{
    err_t e = OK;
    int64_t at_ns[2];
    TRY(dev_sync(d));
    TRY(dev_marks_read(d, m, 2, at_ns));
    if (at_ns[1] < *ns_min) *ns_min = at_ns[1];
out:
    return e;
}

/* The shortest time of a product of n x n matrices. */
static err_t time_product(struct dev *d, struct dev_marks *m, enum dtype type, int32_t n,
                          int64_t *ns)
{
    err_t e = OK;
    void *memory = NULL;
    const size_t n_bytes = tensor_bytes(TENSOR(NULL, type, n, n));
    TRY(dev_alloc(d, 3 * n_bytes + 2 * sizeof(uint64_t), &memory));
    char *const at = memory;
    const struct tensor y = TENSOR(at, type, n, n), x = TENSOR(at + n_bytes, type, n, n);
    const struct tensor w = TENSOR(at + 2 * n_bytes, type, n, n);
    const struct tensor key = TENSOR(at + 3 * n_bytes, DTYPE_U64, 2);
    TRY(draw(d, x, key));
    TRY(draw(d, w, key));
    *ns = INT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        TRY(dev_mark(d, m, 0));
        TRY(ops_linear(d, y, x, w, TENSOR_NONE));
        TRY(dev_mark(d, m, 1));
        TRY(took(d, m, ns));
    }
out:
    dev_free(d, &memory);
    return e;
}

err_t rates_product(struct dev *d, enum dtype type, double *best)
{
    err_t e = OK;
    struct dev_marks *m = NULL;
    int64_t ns = 0;
    TRY(dev_marks_open(d, &m, 2));
    for (int32_t n = DIM_MIN; n <= DIM_MAX && ns < ENOUGH_NS; n *= 2) {
        TRY(time_product(d, m, type, n, &ns));
        const double rate = 2.0 * n * n * n / (double)ns;
        if (rate > *best) *best = rate;
    }
out:
    dev_marks_close(d, &m);
    return e;
}

err_t rates_memory(struct dev *d, double *best)
{
    err_t e = OK;
    struct dev_marks *m = NULL;
    void *memory = NULL;
    int64_t ns = INT64_MAX;
    TRY(dev_marks_open(d, &m, 2));
    TRY(dev_alloc(d, 2 * COPY_BYTES, &memory));
    for (int i = 0; i < TRIES; i++) {
        TRY(dev_mark(d, m, 0));
        TRY(dev_copy(d, memory, (char *)memory + COPY_BYTES, COPY_BYTES));
        TRY(dev_mark(d, m, 1));
        TRY(took(d, m, &ns));
    }
    const double rate = 2.0 * (double)COPY_BYTES / (double)ns;
    if (rate > *best) *best = rate;
out:
    dev_free(d, &memory);
    dev_marks_close(d, &m);
    return e;
}
