/* safetensors.c - reads a safetensors header: 8 bytes of length, JSON, then the values.
 *
 * Stricter than JSON asks for: no name twice, no key that the format does not know, and the values
 * cover the rest of the file without overlap or hole, so that a file cut short is noticed here.
 */
#include "common/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checkpoint_impl.h"
#include "common/file.h"

enum { HEADER_BYTES_MAX = 8 << 20, COPY_BYTES = 4 << 20 };

struct span {
    uint64_t at, n_bytes;
    const char *name;
};

static bool dtype_of(const char *name, enum ckpt_dtype *t)
{
    for (int i = 0; name && i < CKPT_DTYPES; i++)
        if (strcmp(name, ckpt_dtype_name((enum ckpt_dtype)i)) == 0) {
            *t = (enum ckpt_dtype)i;
            return true;
        }
    return false;
}

static err_t read_tensor(const json_t *o, const char *name, struct ckpt_tensor *t)
{
    const json_t *shape = json_object_get(o, "shape");
    const json_t *offsets = json_object_get(o, "data_offsets");
    const char *dtype = json_string_value(json_object_get(o, "dtype"));
    if (!json_is_array(shape) || json_array_size(offsets) != 2 || json_object_size(o) != 3)
        return FAIL(ERR_DATA, "%.100s: not {dtype, shape, data_offsets}", name);
    if (!dtype_of(dtype, &t->dtype))
        return FAIL(ERR_DATA, "%.100s: unknown dtype %.20s", name, dtype ? dtype : "");
    if (json_array_size(shape) > CKPT_RANK_MAX)
        return FAIL(ERR_DATA, "%.100s: %zu dimensions, at most %d", name, json_array_size(shape),
                    CKPT_RANK_MAX);
    t->rank = (int32_t)json_array_size(shape);
    for (int32_t i = 0; i < t->rank; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        t->shape[i] = json_is_integer(dim) ? json_integer_value(dim) : -1;
    }
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    const json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (!json_is_integer(begin) || !json_is_integer(end) || from < 0 || to < from)
        return FAIL(ERR_DATA, "%.100s: its offsets are not two positions in order", name);
    t->is_dense = true;
    t->at = (uint64_t)from;
    t->n_bytes = (uint64_t)(to - from);
    return OK;
}

static int by_place(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

/* Spans follow each other and end with the file. */
static err_t check_cover(struct span *spans, size_t n, uint64_t n_bytes)
{
    uint64_t end = 0;
    qsort(spans, n, sizeof *spans, by_place);
    for (size_t i = 0; i < n; i++) {
        if (spans[i].at != end)
            return FAIL(ERR_DATA, "%.100s: %s the tensor before it", spans[i].name,
                        spans[i].at < end ? "overlaps" : "leaves a gap after");
        end += spans[i].n_bytes;
    }
    if (end == n_bytes) return OK;
    return FAIL(ERR_DATA, "%llu bytes of values, but the tensors have %llu",
                (unsigned long long)n_bytes, (unsigned long long)end);
}

static err_t read_header(struct checkpoint *c, const struct ckpt_file *f, json_t *root,
                         uint64_t values_at)
{
    err_t e = OK;
    const char *name;
    json_t *o;
    size_t n = 0;
    struct span *spans = calloc(json_object_size(root) + 1, sizeof *spans);
    if (!spans) return FAIL(ERR_NOMEM, "safetensors");
    json_object_foreach(root, name, o)
    {
        struct ckpt_tensor t = {0};
        if (strcmp(name, "__metadata__") == 0) continue;
        TRY(read_tensor(o, name, &t));
        spans[n++] = (struct span){t.at, t.n_bytes, name};
        /* Beyond the file is beyond it: the sum must not wrap. */
        t.at = t.at < f->n_bytes ? t.at + values_at : f->n_bytes + 1;
        TRY(ckpt_add(c, f, name, strlen(name), &t));
    }
    TRY(check_cover(spans, n, f->n_bytes - values_at));
out:
    free(spans);
    return e;
}

err_t safetensors_scan(struct checkpoint *c, const struct ckpt_file *f)
{
    err_t e = OK;
    uint64_t n = 0;
    json_error_t why;
    json_t *root = NULL;
    char *text = NULL;
    TRY(ckpt_pread(f, 0, &n, sizeof n));
    if (n > f->n_bytes - sizeof n || n > HEADER_BYTES_MAX)
        return FAIL(ERR_DATA, "a header of %llu bytes: at most the file's, and %d",
                    (unsigned long long)n, HEADER_BYTES_MAX);
    text = malloc(n + 1);
    if (!text) return FAIL(ERR_NOMEM, "safetensors");
    TRY(ckpt_pread(f, sizeof n, text, n));
    ckpt_header(c, text, n);
    root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        e = FAIL(ERR_DATA, "its header is not a JSON object: %.100s", root ? "" : why.text);
        goto out;
    }
    TRY(read_header(c, f, root, sizeof n + n));
out:
    json_decref(root);
    free(text);
    return e;
}

/* --- writing ---------------------------------------------------------------------------------- */

static json_t *tensor_object(const struct ckpt_tensor *t, uint64_t at)
{
    json_t *shape = json_array(), *offsets = json_array(), *o = json_object();
    for (int32_t i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_array_append_new(offsets, json_integer((json_int_t)at));
    json_array_append_new(offsets, json_integer((json_int_t)(at + t->n_bytes)));
    json_object_set_new(o, "dtype", json_string(ckpt_dtype_name(t->dtype)));
    json_object_set_new(o, "shape", shape);
    json_object_set_new(o, "data_offsets", offsets);
    return o;
}

/* Blanks behind the JSON put the values at a multiple of 8. */
static err_t write_header(FILE *f, const struct checkpoint *c)
{
    err_t e = OK;
    uint64_t at = 0;
    json_t *root = json_object();
    for (int32_t i = 0; i < checkpoint_count(c); i++) {
        const struct ckpt_tensor *t = checkpoint_at(c, i);
        json_object_set_new(root, t->name, tensor_object(t, at));
        at += t->n_bytes;
    }
    char *text = json_dumps(root, JSON_COMPACT);
    if (!text || json_object_size(root) != (size_t)checkpoint_count(c)) {
        e = FAIL(ERR_NOMEM, "safetensors");
        goto out;
    }
    const uint64_t n_text = strlen(text), n = (n_text + 7) / 8 * 8;
    fwrite(&n, sizeof n, 1, f);
    fprintf(f, "%s%*s", text, (int)(n - n_text), "");
out:
    free(text);
    json_decref(root);
    return e;
}

/* Rows of a target, merged. */
static err_t write_merged(FILE *f, struct checkpoint *c, const struct ckpt_tensor *t,
                          struct lora *lora)
{
    err_t e = OK;
    const int64_t n_row = t->shape[1];
    const int64_t n_most = COPY_BYTES / 8 / (n_row ? n_row : 1);
    const int64_t n_rows = n_most ? n_most : 1;
    float *x = malloc((size_t)(n_rows * n_row) * sizeof *x + 1);
    void *out = malloc((size_t)(n_rows * n_row) * sizeof(double) + 1);
    if (!x || !out) e = FAIL(ERR_NOMEM, "safetensors");
    for (int64_t first = 0; e == OK && first < t->shape[0]; first += n_rows) {
        const int64_t n = t->shape[0] - first < n_rows ? t->shape[0] - first : n_rows;
        TRY(checkpoint_read(c, t, first * n_row, n * n_row, x));
        TRY(lora_add(lora, t, first, n, x));
        ckpt_round(t->dtype, out, x, n * n_row);
        fwrite(out, ckpt_dtype_bytes(t->dtype), (size_t)(n * n_row), f);
    }
out:
    free(x);
    free(out);
    return e;
}

static err_t write_copy(FILE *f, struct checkpoint *c, const struct ckpt_tensor *t)
{
    err_t e = OK;
    char *data = malloc(COPY_BYTES);
    if (!data) return FAIL(ERR_NOMEM, "safetensors");
    for (uint64_t at = 0; at < t->n_bytes; at += COPY_BYTES) {
        const uint64_t n = t->n_bytes - at < COPY_BYTES ? t->n_bytes - at : COPY_BYTES;
        TRY(checkpoint_read_raw(c, t, at, n, data));
        fwrite(data, 1, n, f);
    }
out:
    free(data);
    return e;
}

static bool is_target(const struct lora *lora, const char *name)
{
    for (int32_t i = 0; lora && i < lora_count(lora); i++)
        if (strcmp(lora_target(lora, i), name) == 0) return true;
    return false;
}

static err_t write_values(FILE *f, struct checkpoint *c, struct lora *lora)
{
    err_t e = OK;
    for (int32_t i = 0; i < checkpoint_count(c) && !ferror(f); i++) {
        const struct ckpt_tensor *t = checkpoint_at(c, i);
        if (is_target(lora, t->name)) TRY(write_merged(f, c, t, lora));
        else TRY(write_copy(f, c, t));
    }
out:
    return e;
}

/* What can be known before a byte is written. */
static err_t check_targets(const struct checkpoint *c, const struct lora *lora)
{
    err_t e = OK;
    for (int32_t i = 0; lora && i < lora_count(lora); i++) {
        const struct ckpt_tensor *t = checkpoint_find(c, lora_target(lora, i));
        if (!t)
            return FAIL(ERR_DATA, "%s: %s has no %.200s", lora_path(lora), checkpoint_path(c),
                        lora_target(lora, i));
        TRY(lora_check(lora, t));
    }
out:
    return e;
}

err_t safetensors_write(const char *path, struct checkpoint *c, struct lora *lora)
{
    err_t e = OK;
    char *tmp = NULL;
    FILE *f = NULL;
    TRY(check_targets(c, lora));
    TRY(file_check_replaceable(path));
    if (asprintf(&tmp, "%s.XXXXXX", path) < 0) return FAIL(ERR_NOMEM, "%s", path);
    const int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd >= 0) f = fdopen(fd, "wb");
    if (!f) {
        e = FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
        free(tmp);
        return e;
    }
    const mode_t mask = umask(0);
    umask(mask);
    fchmod(fd, 0666 & ~mask); /* as a file that open makes */
    e = write_header(f, c);
    if (e == OK) e = write_values(f, c, lora);
    const bool is_written = !ferror(f) && fflush(f) == 0 && fsync(fd) == 0;
    if (fclose(f) != 0 || !is_written || (e == OK && rename(tmp, path) != 0))
        if (e == OK) e = FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
    if (e != OK) unlink(tmp);
    free(tmp);
out:
    return e;
}
