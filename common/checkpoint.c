/* checkpoint.c - see checkpoint.h. */
#include "common/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checkpoint_impl.h"

enum { FILES_MAX = 512, PATH_BYTES = 4096, RAW_BYTES = 1 << 20 };

struct checkpoint {
    char path[PATH_BYTES];
    struct ckpt_file *files;
    int32_t n_files;
    struct ckpt_tensor *tensors;
    int32_t n, cap;
    int32_t *by_name; /* [n] indices, in the order of their names */
    void *raw;        /* RAW_BYTES, for checkpoint_read */
    crypto_hash_sha256_state hash;
};

static const struct {
    const char *name;
    size_t n_bytes;
} dtypes[CKPT_DTYPES] = {
    [CKPT_F64] = {"F64", 8},   [CKPT_F32] = {"F32", 4},         [CKPT_F16] = {"F16", 2},
    [CKPT_BF16] = {"BF16", 2}, [CKPT_I64] = {"I64", 8},         [CKPT_I32] = {"I32", 4},
    [CKPT_I16] = {"I16", 2},   [CKPT_I8] = {"I8", 1},           [CKPT_U64] = {"U64", 8},
    [CKPT_U32] = {"U32", 4},   [CKPT_U16] = {"U16", 2},         [CKPT_U8] = {"U8", 1},
    [CKPT_BOOL] = {"BOOL", 1}, [CKPT_F8_E4M3] = {"F8_E4M3", 1}, [CKPT_F8_E5M2] = {"F8_E5M2", 1},
};

size_t ckpt_dtype_bytes(enum ckpt_dtype t)
{
    return dtypes[t].n_bytes;
}

const char *ckpt_dtype_name(enum ckpt_dtype t)
{
    return dtypes[t].name;
}

bool ckpt_is_float(enum ckpt_dtype t)
{
    return t <= CKPT_BF16;
}

int64_t ckpt_count(const struct ckpt_tensor *t)
{
    return (int64_t)(t->n_bytes / dtypes[t->dtype].n_bytes);
}

void ckpt_shape_text(const int64_t *shape, int32_t rank, char *out, size_t cap)
{
    size_t n = 0;
    MUST(cap >= CKPT_RANK_MAX * 22 + 3);
    out[n++] = '[';
    for (int32_t i = 0; i < rank; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    memcpy(out + n, "]", 2);
}

bool ckpt_shape_bytes(const int64_t *shape, int32_t rank, enum ckpt_dtype t, uint64_t *n_bytes)
{
    int64_t n = (int64_t)dtypes[t].n_bytes;
    bool is_zero = false;
    for (int32_t i = 0; i < rank; i++) {
        if (shape[i] < 0) return false;
        is_zero |= shape[i] == 0;
        if (shape[i] && (__builtin_mul_overflow(n, shape[i], &n) || n > INT64_MAX / 2))
            return false;
    }
    *n_bytes = is_zero ? 0 : (uint64_t)n;
    return true;
}

/* --- table ------------------------------------------------------------------------------------ */

err_t ckpt_pread(const struct ckpt_file *f, uint64_t at, void *out, uint64_t n)
{
    char *to = out;
    while (n > 0) {
        const size_t most = n < (1u << 30) ? (size_t)n : 1u << 30;
        const ssize_t got = pread(f->fd, to, most, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return FAIL(ERR_NOINPUT, "%s", strerror(errno));
        if (got == 0) return FAIL(ERR_DATA, "the file is cut short");
        to += got;
        at += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return OK;
}

void ckpt_header(struct checkpoint *c, const void *data, size_t n_bytes)
{
    crypto_hash_sha256_update(&c->hash, data, n_bytes);
}

static err_t check_name(const char *name, size_t n_name)
{
    if (n_name < 1 || n_name > CKPT_NAME_MAX)
        return FAIL(ERR_DATA, "a tensor's name of %zu bytes: from 1 to %d", n_name, CKPT_NAME_MAX);
    for (size_t i = 0; i < n_name; i++)
        if (name[i] < ' ' || name[i] > '~')
            return FAIL(ERR_DATA, "a tensor's name with byte 0x%02x", (uint8_t)name[i]);
    return OK;
}

err_t ckpt_add(struct checkpoint *c, const struct ckpt_file *f, const char *name, size_t n_name,
               const struct ckpt_tensor *t)
{
    err_t e = OK;
    uint64_t n_bytes;
    TRY(check_name(name, n_name));
    if (c->n == CKPT_TENSORS_MAX) return FAIL(ERR_DATA, "over %d tensors", CKPT_TENSORS_MAX);
    MUST(t->rank >= 0 && t->rank <= CKPT_RANK_MAX);
    if (!ckpt_shape_bytes(t->shape, t->rank, t->dtype, &n_bytes))
        return FAIL(ERR_DATA, "%.*s: its shape overflows", (int)n_name, name);
    if (n_bytes != t->n_bytes)
        return FAIL(ERR_DATA, "%.*s: %llu bytes, but its shape needs %llu", (int)n_name, name,
                    (unsigned long long)t->n_bytes, (unsigned long long)n_bytes);
    if (t->is_dense && (t->at > f->n_bytes || n_bytes > f->n_bytes - t->at))
        return FAIL(ERR_DATA, "%.*s: lies outside the file", (int)n_name, name);
    if (c->n == c->cap) {
        const int32_t cap = c->cap ? 2 * c->cap : 64;
        struct ckpt_tensor *more = realloc(c->tensors, (size_t)cap * sizeof *more);
        if (!more) return FAIL(ERR_NOMEM, "checkpoint");
        c->tensors = more;
        c->cap = cap;
    }
    struct ckpt_tensor *to = &c->tensors[c->n];
    *to = *t;
    to->file = (int32_t)(f - c->files);
    to->name = strndup(name, n_name);
    if (!to->name) return FAIL(ERR_NOMEM, "checkpoint");
    c->n++;
out:
    return e;
}

static int by_name(const void *a, const void *b, void *tensors)
{
    const struct ckpt_tensor *t = tensors;
    return strcmp(t[*(const int32_t *)a].name, t[*(const int32_t *)b].name);
}

/* Orders the names; ERR_DATA if one comes twice. */
static err_t put_in_order(struct checkpoint *c)
{
    int32_t *order = realloc(c->by_name, ((size_t)c->n + 1) * sizeof *order);
    if (!order) return FAIL(ERR_NOMEM, "checkpoint");
    c->by_name = order;
    for (int32_t i = 0; i < c->n; i++) order[i] = i;
    qsort_r(order, (size_t)c->n, sizeof *order, by_name, c->tensors);
    for (int32_t i = 1; i < c->n; i++)
        if (strcmp(c->tensors[order[i - 1]].name, c->tensors[order[i]].name) == 0)
            return FAIL(ERR_DATA, "%s: tensor %s is there twice", c->path,
                        c->tensors[order[i]].name);
    return OK;
}

int32_t checkpoint_count(const struct checkpoint *c)
{
    return c->n;
}

const char *checkpoint_path(const struct checkpoint *c)
{
    return c->path;
}

const struct ckpt_tensor *checkpoint_at(const struct checkpoint *c, int32_t i)
{
    MUST(i >= 0 && i < c->n);
    return &c->tensors[i];
}

const struct ckpt_tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    int32_t lo = 0, hi = c->n;
    while (lo < hi) {
        const int32_t mid = lo + (hi - lo) / 2;
        const struct ckpt_tensor *t = &c->tensors[c->by_name[mid]];
        const int order = strcmp(t->name, name);
        if (order == 0) return t;
        if (order < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

void checkpoint_identity(const struct checkpoint *c, uint8_t id[CKPT_ID_BYTES])
{
    crypto_hash_sha256_state h = c->hash;
    crypto_hash_sha256_final(&h, id);
}

/* --- opening ---------------------------------------------------------------------------------- */

static err_t scan(struct checkpoint *c, const struct ckpt_file *f)
{
    uint8_t head[10] = {0};
    const err_t e = ckpt_pread(f, 0, head, f->n_bytes < sizeof head ? f->n_bytes : sizeof head);
    if (e != OK) return e;
    if (memcmp(head, "PK\003\004", 4) == 0) return torchfile_scan(c, f);
    if (f->n_bytes > 8 && head[8] == '{') return safetensors_scan(c, f);
    if (head[0] == 0x80 && head[2] == 0x8A && head[3] == 0x0A)
        return FAIL(ERR_DATA, "torch's format from before 1.6: save it again with a newer torch");
    return FAIL(ERR_DATA, "neither safetensors nor a torch.save file");
}

static err_t open_file(struct checkpoint *c, const char *path)
{
    err_t e = OK;
    struct stat st;
    struct ckpt_file *f = &c->files[c->n_files];
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f->fd < 0) return FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
    c->n_files++; /* from here on checkpoint_close closes it */
    if (fstat(f->fd, &st) != 0) return FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return FAIL(ERR_NOINPUT, "%s: not a regular file", path);
    f->n_bytes = (uint64_t)st.st_size;
    const uint64_t about[3] = {f->n_bytes, (uint64_t)st.st_mtim.tv_sec,
                               (uint64_t)st.st_mtim.tv_nsec};
    ckpt_header(c, about, sizeof about);
    e = scan(c, f);
    return e == OK ? OK : err_prefix(e, "%s", path);
}

static int is_shard(const struct dirent *d)
{
    static const char end[] = ".safetensors";
    const size_t n = strlen(d->d_name), n_end = sizeof end - 1;
    return n > n_end && d->d_name[0] != '.' && strcmp(d->d_name + n - n_end, end) == 0;
}

/* Every *.safetensors of the folder, in the order of their names. */
static err_t open_folder(struct checkpoint *c)
{
    err_t e = OK;
    struct dirent **found = NULL;
    char path[PATH_BYTES + 256];
    const int n = scandir(c->path, &found, is_shard, alphasort);
    if (n < 0) return FAIL(ERR_NOINPUT, "%s: %s", c->path, strerror(errno));
    if (n == 0) e = FAIL(ERR_NOINPUT, "%s: no *.safetensors there", c->path);
    if (n > FILES_MAX) e = FAIL(ERR_DATA, "%s: over %d files", c->path, FILES_MAX);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", c->path, found[i]->d_name);
        if (e == OK) e = open_file(c, path);
        free(found[i]);
    }
    free(found);
    return e;
}

err_t checkpoint_open(struct checkpoint **out, const char *path)
{
    err_t e = OK;
    struct stat st;
    struct checkpoint *c = calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_NOMEM, "checkpoint");
    crypto_hash_sha256_init(&c->hash);
    c->files = calloc(FILES_MAX, sizeof *c->files);
    c->raw = malloc(RAW_BYTES);
    if (!c->files || !c->raw) {
        e = FAIL(ERR_NOMEM, "checkpoint");
        goto out;
    }
    if (strlen(path) >= sizeof c->path || stat(path, &st) != 0) {
        e = FAIL(ERR_NOINPUT, "%.300s: %s", path, strerror(errno));
        goto out;
    }
    strcpy(c->path, path);
    if (S_ISDIR(st.st_mode)) TRY(open_folder(c));
    else TRY(open_file(c, path));
    TRY(put_in_order(c));
    *out = c;
    c = NULL;
out:
    checkpoint_close(&c);
    return e;
}

void checkpoint_close(struct checkpoint **c)
{
    if (!*c) return;
    for (int32_t i = 0; i < (*c)->n_files; i++) close((*c)->files[i].fd);
    for (int32_t i = 0; i < (*c)->n; i++) free((*c)->tensors[i].name);
    free((*c)->files);
    free((*c)->tensors);
    free((*c)->by_name);
    free((*c)->raw);
    free(*c);
    *c = NULL;
}

/* --- names ------------------------------------------------------------------------------------ */

static bool starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static int32_t count_under(const struct checkpoint *c, const char *prefix)
{
    int32_t n = 0;
    for (int32_t i = 0; i < c->n; i++) n += starts_with(c->tensors[i].name, prefix);
    return n;
}

static void cut(char *name, size_t n)
{
    memmove(name, name + n, strlen(name + n) + 1);
}

err_t checkpoint_select(struct checkpoint *c, const char *prefix, bool *found)
{
    int32_t n = 0;
    *found = count_under(c, prefix) > 0;
    if (!*found) return OK;
    for (int32_t i = 0; i < c->n; i++) {
        struct ckpt_tensor *t = &c->tensors[i];
        if (starts_with(t->name, prefix)) {
            cut(t->name, strlen(prefix));
            c->tensors[n++] = *t;
        } else {
            free(t->name);
        }
    }
    c->n = n;
    return put_in_order(c);
}

err_t checkpoint_clean(struct checkpoint *c)
{
    static const char *const parts[] = {"generator.", "generator_ema.", "model."};
    static const char *const fragments[] = {"_fsdp_wrapped_module.", "_checkpoint_wrapped_module.",
                                            "_orig_mod."};
    err_t e = OK;
    bool found = false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !found; i++)
        TRY(checkpoint_select(c, parts[i], &found));
    for (int32_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < sizeof fragments / sizeof *fragments; k++)
            for (char *at; (at = strstr(c->tensors[i].name, fragments[k]));)
                cut(at, strlen(fragments[k]));
    if (c->n > 0 && count_under(c, "model.") == c->n)
        for (int32_t i = 0; i < c->n; i++) cut(c->tensors[i].name, 6);
    TRY(put_in_order(c));
out:
    return e;
}

/* --- values ----------------------------------------------------------------------------------- */

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float float_of_half(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31,
                   fraction = h & 1023;
    if (exponent == 0) { /* a multiple of 2^-24 */
        const float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31) return float_of_bits(sign | 0x7F800000 | fraction << 13);
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* raw is aligned for any number. */
static void to_floats(enum ckpt_dtype t, const void *raw, float *out, int64_t n)
{
    const double *d = raw;
    const uint16_t *h = raw;
    if (t == CKPT_F32) memcpy(out, raw, (size_t)n * sizeof *out);
    else if (t == CKPT_F64)
        for (int64_t i = 0; i < n; i++) out[i] = (float)d[i];
    else if (t == CKPT_F16)
        for (int64_t i = 0; i < n; i++) out[i] = float_of_half(h[i]);
    else
        for (int64_t i = 0; i < n; i++) out[i] = float_of_bits((uint32_t)h[i] << 16);
}

static uint16_t bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 64); /* NaN, quiet */
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static uint16_t half_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00);
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* rounds over the largest */
    if (magnitude < 0x38800000) { /* subnormal: adding 0.5 leaves multiples of 2^-24 */
        const float sum = float_of_bits(magnitude) + 0.5f;
        memcpy(&bits, &sum, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3F000000));
    }
    return (uint16_t)(sign | (magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13);
}

void ckpt_round(enum ckpt_dtype to, void *out, const float *x, int64_t n)
{
    MUST(ckpt_is_float(to));
    if (to == CKPT_F32) memcpy(out, x, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n && to != CKPT_F32; i++)
        if (to == CKPT_F64) ((double *)out)[i] = (double)x[i];
        else ((uint16_t *)out)[i] = to == CKPT_F16 ? half_of(x[i]) : bf16_of(x[i]);
}

err_t checkpoint_read_raw(struct checkpoint *c, const struct ckpt_tensor *t, uint64_t first,
                          uint64_t n, void *out)
{
    MUST(first <= t->n_bytes && n <= t->n_bytes - first);
    const struct ckpt_file *f = &c->files[t->file];
    if (!t->is_dense)
        return FAIL(ERR_DATA, "%s: %s is not contiguous: save it again with .contiguous()", c->path,
                    t->name);
    const err_t e = ckpt_pread(f, t->at + first, out, n);
    return e == OK ? OK : err_prefix(e, "%s: %s", c->path, t->name);
}

err_t checkpoint_read(struct checkpoint *c, const struct ckpt_tensor *t, int64_t first, int64_t n,
                      float *out)
{
    err_t e = OK;
    const int64_t size = (int64_t)dtypes[t->dtype].n_bytes, most = RAW_BYTES / size;
    if (!ckpt_is_float(t->dtype))
        return FAIL(ERR_DATA, "%s: %s is %s, not F32, BF16, F16 or F64", c->path, t->name,
                    ckpt_dtype_name(t->dtype));
    while (n > 0) {
        const int64_t now = n < most ? n : most;
        TRY(checkpoint_read_raw(c, t, (uint64_t)(first * size), (uint64_t)(now * size), c->raw));
        to_floats(t->dtype, c->raw, out, now);
        out += now;
        first += now;
        n -= now;
    }
out:
    return e;
}
