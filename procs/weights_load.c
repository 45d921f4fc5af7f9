/* weights_load.c - from a checkpoint's tensors to declared rows; see weights.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "procs/weights_impl.h"

enum { CHUNK_VALUES = 1 << 20, LIST_MAX = 3 };

/* --- comparing -------------------------------------------------------------------------------- */

/* A list for people: how many, and the first of them. */
struct list {
    int32_t n;
    char text[240];
};

static void add(struct list *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct list *l, const char *fmt, ...)
{
    const size_t at = strlen(l->text), cap = sizeof l->text - at;
    va_list ap;
    if (l->n++ >= LIST_MAX) return;
    const int n = snprintf(l->text + at, cap, "%s", at ? ", " : "");
    va_start(ap, fmt);
    vsnprintf(l->text + at + n, cap > (size_t)n ? cap - (size_t)n : 0, fmt, ap);
    va_end(ap);
}

/* The shape that a checkpoint has for the part; its rank. */
static int32_t file_shape(const struct part *p, int64_t shape[TENSOR_RANK_MAX])
{
    const struct tensor rows = tensor_rows(*p->at, p->first, p->n);
    const bool is_told = p->file_rank > 0;
    const int32_t rank = is_told ? p->file_rank : rows.rank;
    for (int32_t i = 0; i < rank; i++) shape[i] = is_told ? p->file_shape[i] : rows.shape[i];
    if (!is_told && rank == 5) { /* [O, kt, ky, kx, C] */
        shape[1] = rows.shape[4];
        for (int32_t i = 2; i < 5; i++) shape[i] = rows.shape[i - 1];
    }
    return rank;
}

static bool is_same_shape(const int64_t *a, int32_t n_a, const int64_t *b, int32_t n_b)
{
    int32_t i = 0, k = 0;
    for (;;) {
        while (i < n_a && a[i] == 1) i++;
        while (k < n_b && b[k] == 1) k++;
        if (i == n_a || k == n_b) return i == n_a && k == n_b;
        if (a[i++] != b[k++]) return false;
    }
}

static void compare_part(const struct part *p, const struct ckpt_tensor *t, const struct lora *lora,
                         struct list *wrong)
{
    int64_t shape[TENSOR_RANK_MAX];
    char has[CKPT_RANK_MAX * 24], wants[CKPT_RANK_MAX * 24];
    const int32_t rank = file_shape(p, shape);
    if (!is_same_shape(shape, rank, t->shape, t->rank)) {
        ckpt_shape_text(t->shape, t->rank, has, sizeof has);
        ckpt_shape_text(shape, rank, wants, sizeof wants);
        add(wrong, "%.90s %s, not %s", p->name, has, wants);
    } else if (!ckpt_is_float(t->dtype)) {
        add(wrong, "%.90s is %s", p->name, ckpt_dtype_name(t->dtype));
    } else if (!t->is_dense) {
        add(wrong, "%.90s is not contiguous", p->name);
    } else if (lora && lora_check(lora, t) != OK) {
        add(wrong, "%.90s and its LoRA differ in shape", p->name);
    }
}

static bool is_spare(const struct weights *w, const char *name)
{
    for (int32_t i = 0; i < w->n_spare; i++)
        if (strncmp(name, w->spare[i], strlen(w->spare[i])) == 0) return true;
    return false;
}

/* Every named part is in the checkpoint as it must be, and nothing else is. */
static err_t compare(const struct weights *w, const struct checkpoint *c, const struct lora *lora)
{
    err_t e = OK;
    struct list missing = {0}, extra = {0}, wrong = {0};
    char tail[3][320] = {"", "", ""};
    bool *used = calloc((size_t)checkpoint_count(c) + 1, sizeof *used);
    if (!used) return FAIL(ERR_NOMEM, "weights");
    for (int32_t i = 0; i < w->n_parts; i++) {
        const struct ckpt_tensor *t = checkpoint_find(c, w->parts[i].name);
        if (!t) {
            add(&missing, "%.90s", w->parts[i].name);
            continue;
        }
        used[t - checkpoint_at(c, 0)] = true;
        compare_part(&w->parts[i], t, lora, &wrong);
    }
    for (int32_t i = 0; i < checkpoint_count(c); i++)
        if (!used[i] && !is_spare(w, checkpoint_at(c, i)->name))
            add(&extra, "%.90s", checkpoint_at(c, i)->name);
    for (int32_t i = 0; lora && i < lora_count(lora); i++) {
        const struct ckpt_tensor *t = checkpoint_find(c, lora_target(lora, i));
        if (!t || !used[t - checkpoint_at(c, 0)])
            add(&extra, "LoRA of %.90s", lora_target(lora, i));
    }
    free(used);
    if (missing.n + extra.n + wrong.n == 0) return OK;
    const struct list *const lists[] = {&missing, &extra, &wrong};
    static const char *const words[] = {"missing", "not expected", "wrong"};
    for (int i = 0; i < 3; i++)
        if (lists[i]->n)
            snprintf(tail[i], sizeof tail[i], "; %s: %s%s", words[i], lists[i]->text,
                     lists[i]->n > LIST_MAX ? ", ..." : "");
    e = FAIL(ERR_DATA, "%s: of %d tensors %d missing, %d not expected, %d wrong%s%s%s",
             checkpoint_path(c), w->n_parts, missing.n, extra.n, wrong.n, tail[0], tail[1],
             tail[2]);
    return e;
}

/* --- loading ---------------------------------------------------------------------------------- */

struct loader {
    struct dev *d;
    struct checkpoint *c;
    struct lora *lora;
    void (*report)(void *self, uint64_t n_done, uint64_t n_all);
    void *self;
    uint64_t n_done, n_all;
    float *values, *turned; /* rows: as in the file, and as in the room */
};

/* [C, K] to [K, C], row by row: a convolution's channels go last. */
static void turn(const struct tensor *rows, const float *from, float *to, int64_t n_rows)
{
    const int64_t C = rows->shape[4];
    const int64_t K = (int64_t)rows->shape[1] * rows->shape[2] * rows->shape[3];
    for (int64_t r = 0; r < n_rows; r++, from += C * K, to += C * K)
        for (int64_t c = 0; c < C; c++)
            for (int64_t k = 0; k < K; k++) to[k * C + c] = from[c * K + k];
}

static err_t load_rows(struct loader *l, const struct ckpt_tensor *t, struct tensor rows,
                       int64_t first, int64_t n)
{
    err_t e = OK;
    const int64_t n_row = tensor_count(rows) / rows.shape[0];
    const struct tensor to = tensor_rows(rows, (int32_t)first, (int32_t)n);
    float *from = l->values, *other = l->turned;
    TRY(checkpoint_read(l->c, t, first * n_row, n * n_row, from));
    if (l->lora && t->rank == 2) TRY(lora_add(l->lora, t, first, n, from));
    if (rows.rank == 5) {
        turn(&rows, from, other, n);
        from = l->turned;
        other = l->values;
    }
    if (rows.dtype != DTYPE_F32) {
        ckpt_round(rows.dtype == DTYPE_BF16 ? CKPT_BF16 : CKPT_F16, other, from, n * n_row);
        from = other;
    }
    TRY(dev_upload(l->d, to.data, from, tensor_bytes(to)));
    TRY(dev_sync(l->d)); /* the memory is written again */
    l->n_done += (uint64_t)(n * n_row) * ckpt_dtype_bytes(t->dtype);
    if (l->report) l->report(l->self, l->n_done, l->n_all);
out:
    return e;
}

static err_t load_part(struct loader *l, const struct part *p)
{
    err_t e = OK;
    const struct ckpt_tensor *t = checkpoint_find(l->c, p->name);
    const struct tensor rows = tensor_rows(*p->at, p->first, p->n);
    const int64_t n_row = tensor_count(rows) / p->n;
    const int64_t n_most = n_row < CHUNK_VALUES ? CHUNK_VALUES / n_row : 1;
    MUST(rows.dtype == DTYPE_F32 || rows.dtype == DTYPE_BF16 || rows.dtype == DTYPE_F16);
    for (int64_t first = 0; first < p->n; first += n_most)
        TRY(load_rows(l, t, rows, first, p->n - first < n_most ? p->n - first : n_most));
out:
    return e;
}

err_t weights_load(struct weights *w, struct dev *d, struct checkpoint *c, struct lora *lora,
                   void (*report)(void *self, uint64_t n_done, uint64_t n_all), void *self)
{
    err_t e = OK;
    struct loader l = {.d = d, .c = c, .lora = lora, .report = report, .self = self};
    int64_t n_most = CHUNK_VALUES;
    TRY(compare(w, c, lora));
    for (int32_t i = 0; i < w->n_parts; i++) {
        const struct part *p = &w->parts[i];
        const int64_t n_row = tensor_count(tensor_rows(*p->at, p->first, p->n)) / p->n;
        l.n_all += checkpoint_find(c, p->name)->n_bytes;
        if (n_row > n_most) n_most = n_row;
    }
    l.values = malloc((size_t)n_most * sizeof *l.values);
    l.turned = malloc((size_t)n_most * sizeof *l.turned);
    if (!l.values || !l.turned) {
        e = FAIL(ERR_NOMEM, "weights");
        goto out;
    }
    for (int32_t i = 0; i < w->n_parts; i++) TRY(load_part(&l, &w->parts[i]));
    TRY(weights_keep(w, d));
out:
    free(l.values);
    free(l.turned);
    return e;
}
