/* weights.c - see weights.h. */
#include "procs/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/log.h"
#include "common/rng.h"
#include "kernels/ops.h"

enum { NAME_MAX_BYTES = 96, ALIGN_BYTES = 256, LAYOUT = 1 };

struct room {
    struct tensor *at;
    size_t offset;
};

struct part {
    const struct tensor *at;
    int32_t first, n;
    float mean, std;
    char name[NAME_MAX_BYTES];
};

struct weights {
    struct room *rooms;
    struct part *parts;
    int32_t n_rooms, n_parts;
    size_t n_bytes;
};

err_t weights_open(struct weights **out)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w) return FAIL(ERR_NOMEM, "weights");
    *out = w;
    return OK;
}

void weights_close(struct weights **w)
{
    if (!*w) return;
    free((*w)->rooms);
    free((*w)->parts);
    free(*w);
    *w = NULL;
}

/* Grows at powers of two. */
static void *grown(void *items, int32_t n, size_t item_bytes)
{
    if (n & (n - 1)) return items;
    return realloc(items, (n ? 2 * (size_t)n : 1) * item_bytes);
}

err_t weights_room(struct weights *w, struct tensor *at, int32_t rank, const int32_t *shape)
{
    struct room *r = grown(w->rooms, w->n_rooms, sizeof *r);
    if (!r) return FAIL(ERR_NOMEM, "weights");
    w->rooms = r;
    *at = tensor_of(NULL, DTYPE_F32, rank, shape);
    r[w->n_rooms++] = (struct room){at, w->n_bytes};
    w->n_bytes += (tensor_bytes(*at) + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return OK;
}

err_t weights_name(struct weights *w, const struct tensor *at, int32_t first, int32_t n, float mean,
                   float std, const char *fmt, ...)
{
    struct part *p = grown(w->parts, w->n_parts, sizeof *p);
    va_list ap;
    if (!p) return FAIL(ERR_NOMEM, "weights");
    w->parts = p;
    p += w->n_parts++;
    *p = (struct part){.at = at, .first = first, .n = n, .mean = mean, .std = std};
    va_start(ap, fmt);
    const int len = vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
    MUST(len > 0 && len < NAME_MAX_BYTES);
    return OK;
}

size_t weights_bytes(const struct weights *w)
{
    return w->n_bytes;
}

int32_t weights_count(const struct weights *w)
{
    return w->n_parts;
}

void weights_bind(struct weights *w, void *base)
{
    for (int32_t i = 0; i < w->n_rooms; i++)
        w->rooms[i].at->data = (char *)base + w->rooms[i].offset;
}

err_t weights_fill(struct weights *w, struct dev *d, const char *source)
{
    err_t e = OK;
    void *key_mem = NULL;
    uint64_t seed = 0;
    if (sscanf(source, "random:%lu", &seed) != 1)
        return FAIL(ERR_CONFIG, "model.weights = %s: random:SEED", source);

    TRY(dev_alloc(d, 2 * sizeof(uint64_t), &key_mem));
    for (int32_t i = 0; i < w->n_parts; i++) {
        const struct part *p = &w->parts[i];
        const uint64_t key[2] = {seed, rng_stream(p->name)};
        TRY(dev_upload(d, key_mem, key, sizeof key));
        TRY(ops_randn(d, tensor_rows(*p->at, p->first, p->n), TENSOR(key_mem, DTYPE_U64, 2),
                      p->mean, p->std));
        TRY(dev_sync(d)); /* key_mem is written again */
    }
out:
    dev_free(d, &key_mem);
    return e;
}

err_t weights_map(struct weights *w, struct stage *st, const char *name, struct region *region)
{
    err_t e = OK;
    char region_name[KEEPER_NAME_MAX];
    uint8_t id[32];
    snprintf(region_name, sizeof region_name, "weights.%s", name);
    weights_identity(&st->conf, name, id);
    TRY(stage_region(st, st->dev, region_name, w->n_bytes, LAYOUT, id, region));
    weights_bind(w, region->data);
    if (region->state != REGION_SEALED) {
        log_info("weights_fill", "tensors=%d bytes=%zu", w->n_parts, w->n_bytes);
        TRY(fault(FAULT_WEIGHTS_FILLING));
        TRY(weights_fill(w, st->dev, st->conf.model.weights));
        TRY(dev_sync(st->dev));
        TRY(fault(FAULT_WEIGHTS_FILLED));
        TRY(keeper_seal(st->keeper, region));
        TRY(fault(FAULT_WEIGHTS_SEALED));
    }
out:
    return e;
}
