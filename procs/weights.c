/* weights.c - see weights.h. */
#include "procs/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/source.h"
#include "kernels/ops.h"
#include "procs/weights_impl.h"

enum { ALIGN_BYTES = 256, LAYOUT = 1 };

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
    free((*w)->spare);
    free(*w);
    *w = NULL;
}

/* Grows at powers of two. */
static void *grown(void *items, int32_t n, size_t item_bytes)
{
    if (n & (n - 1)) return items;
    return realloc(items, (n ? 2 * (size_t)n : 1) * item_bytes);
}

err_t weights_room(struct weights *w, struct tensor *at, enum dtype type, int32_t rank,
                   const int32_t *shape)
{
    struct room *r = grown(w->rooms, w->n_rooms, sizeof *r);
    if (!r) return FAIL(ERR_NOMEM, "weights");
    w->rooms = r;
    *at = tensor_of(NULL, type, rank, shape);
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
    MUST(len > 0 && len < WEIGHTS_NAME_BYTES);
    return OK;
}

void weights_as(struct weights *w, int32_t rank, const int32_t *shape)
{
    MUST(w->n_parts > 0 && rank <= TENSOR_RANK_MAX);
    struct part *p = &w->parts[w->n_parts - 1];
    p->file_rank = rank;
    memcpy(p->file_shape, shape, (size_t)rank * sizeof *shape);
}

err_t weights_spare(struct weights *w, const char *prefix)
{
    const char **s = grown(w->spare, w->n_spare, sizeof *s);
    if (!s) return FAIL(ERR_NOMEM, "weights");
    w->spare = s;
    w->spare[w->n_spare++] = prefix;
    return OK;
}

enum dtype weights_half(const struct conf *c, const struct dev *d, enum dtype half)
{
    return dev_kind(d) == DEV_CPU || c->model.precision == PRECISION_FP32 ? DTYPE_F32 : half;
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

err_t weights_keep(struct weights *w, struct dev *d)
{
    err_t e = OK;
    for (int32_t i = 0; i < w->n_rooms; i++)
        if (w->rooms[i].at->dtype == DTYPE_F32) TRY(ops_keep(d, *w->rooms[i].at));
out:
    return e;
}

err_t weights_fill(struct weights *w, struct dev *d, const char *source,
                   void (*report)(void *self, uint64_t n_done, uint64_t n_all), void *self)
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
        if (report) report(self, (uint64_t)i + 1, (uint64_t)w->n_parts);
    }
    TRY(weights_keep(w, d));
out:
    dev_free(d, &key_mem);
    return e;
}

/* Progress for status and the log. */
struct report {
    struct stage *st;
    int64_t said_ns;
};

static void on_progress(void *self, uint64_t n_done, uint64_t n_all)
{
    struct report *r = self;
    const uint64_t permille = n_all ? n_done / (n_all / 1000 + 1) : 0;
    if (r->st->is_ready) stage_beat(r->st, r->st->unit_phase, r->st->unit); /* a part of a unit */
    else stage_beat(r->st, PHASE_OPENING, permille < 1000 ? permille : 1000);
    if (now_ns() - r->said_ns < 2 * NS_PER_S) return;
    r->said_ns = now_ns();
    log_info("weights_load", "percent=%d", (int)(permille / 10));
}

static err_t fill(struct weights *w, struct stage *st, struct dev *d, const char *name)
{
    err_t e = OK;
    struct report report = {st, now_ns()};
    struct checkpoint *c = NULL;
    struct lora *lora = NULL;
    const int64_t began_ns = now_ns();
    const char *path = source_path(&st->conf, name);
    log_info("weights_fill", "tensors=%d bytes=%zu from=%s", w->n_parts, w->n_bytes,
             path[0] ? path : st->conf.model.weights);
    if (path[0]) {
        TRY(source_open(&st->conf, name, &c, &lora));
        TRY(weights_load(w, d, c, lora, on_progress, &report));
    } else {
        TRY(weights_fill(w, d, st->conf.model.weights, on_progress, &report));
    }
    TRY(dev_sync(d));
    log_info("weights_filled", "took_ms=%d", (int)((now_ns() - began_ns) / NS_PER_MS));
out:
    lora_close(&lora);
    checkpoint_close(&c);
    return e;
}

static void name_region(char to[KEEPER_NAME_MAX], const char *name, bool is_clean)
{
    snprintf(to, KEEPER_NAME_MAX, "weights.%s%s", name, is_clean ? ".clean" : "");
}

err_t weights_map(struct weights *w, struct stage *st, struct dev *d, const char *name,
                  struct region *region)
{
    err_t e = OK;
    char region_name[KEEPER_NAME_MAX];
    uint8_t id[32];
    name_region(region_name, name, d == st->clean_dev);
    weights_identity(&st->conf, name, id);
    TRY(stage_region(st, d, region_name, w->n_bytes, LAYOUT, id, region));
    weights_bind(w, region->data);
    if (region->state != REGION_SEALED) {
        TRY(fault(FAULT_WEIGHTS_FILLING));
        TRY(fill(w, st, d, name));
        TRY(fault(FAULT_WEIGHTS_FILLED));
        TRY(keeper_seal(st->keeper, region));
        TRY(fault(FAULT_WEIGHTS_SEALED));
    }
out:
    return e;
}

err_t weights_drop(struct stage *st, const char *name, struct region *region)
{
    char region_name[KEEPER_NAME_MAX];
    name_region(region_name, name, false);
    return stage_region_free(st, region_name, region);
}
