/* linear.h - the linear ops as CHECK_OP calls them, for small shapes and for LongLive's own. */
#ifndef TESTS_KERNELS_LINEAR_H
#define TESTS_KERNELS_LINEAR_H

#include <math.h>
#include <stdbool.h>

#include "kernels/ops.h"

enum linear_op { LINEAR, GELU, ADD };

static inline err_t call_linear(struct dev *d, const struct tensor *t, const void *what)
{
    switch (*(const enum linear_op *)what) {
    case LINEAR:
        return ops_linear(d, t[0], t[1], t[2], t[3]);
    case GELU:
        return ops_linear_gelu(d, t[0], t[1], t[2], t[3]);
    default:
        return ops_linear_add(d, t[0], t[1], t[2], t[3], t[4]);
    }
}

static inline double gelu(double z)
{
    return 0.5 * z * (1 + tanh(sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
}

/* The norm behind an ADD: modulated, or with weights. */
struct norm_of {
    bool is_modulated;
    float eps;
};

static inline err_t call_add_norm(struct dev *d, const struct tensor *t, const void *norm)
{
    const struct norm_of *n = norm;
    return ops_linear_add_norm(d, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], n->is_modulated,
                               n->eps);
}

/* The same by one op after the other. */
static inline err_t call_apart(struct dev *d, const struct tensor *t, const void *norm)
{
    const struct norm_of *n = norm;
    const err_t e = ops_linear_add(d, t[0], t[1], t[2], t[3], t[4]);
    if (e != OK) return e;
    return n->is_modulated ? ops_norm_modulate(d, t[5], t[0], t[6], t[7], n->eps)
                           : ops_layer_norm(d, t[5], t[0], t[6], t[7], n->eps);
}

#endif
