/* embed.c - a table's rows. */
#include <string.h>

#include "kernels/cpu/cpu.h"

err_t cpu_embed(struct dev *d, struct tensor yt, struct tensor table, struct tensor ids)
{
    const int32_t n_s = yt.shape[0], n_c = yt.shape[1], n_v = table.shape[0];
    const int32_t *const id = ids.data;
    (void)d;
    for (int32_t s = 0; s < n_s; s++)
        if (id[s] < 0 || id[s] >= n_v)
            return FAIL(ERR_SHAPE, "embed: id %d at %d is not in 0 to %d", id[s], s, n_v - 1);
    for (int32_t s = 0; s < n_s; s++)
        memcpy((float *)yt.data + (int64_t)s * n_c,
               (const float *)table.data + (int64_t)id[s] * n_c, (size_t)n_c * sizeof(float));
    return OK;
}
