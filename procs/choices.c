/* choices.c - see choices.h. */
#include "procs/choices.h"

#include <stdio.h>

#include "kernels/ops.h"

enum { LAYOUT = 1 }; /* of struct choices in kernels/cuda/gemm.c */

err_t choices_map(struct stage *st, const char *stage)
{
    err_t e = OK;
    char name[KEEPER_NAME_MAX];
    const size_t n_bytes = ops_choices_bytes(st->dev);
    if (n_bytes == 0) return OK;
    snprintf(name, sizeof name, "choices.%s", stage);
    TRY(stage_region(st, st->host, name, n_bytes, LAYOUT, NULL, &st->choices_region));
    ops_choices(st->dev, st->choices_region.data);
out:
    return e;
}
