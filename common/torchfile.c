/* torchfile.c - reads what torch.save writes: a zip of stored entries, NAME/data.pkl and one
 * NAME/data/KEY for each storage.
 *
 * The central directory is the truth; each local header is visited for the place of its bytes.
 * Entries may not be compressed, encrypted, doubled or overlap.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checkpoint_impl.h"

enum { END_BYTES = 22, LOCATOR_BYTES = 20, END64_BYTES = 56, ENTRY_BYTES = 46, LOCAL_BYTES = 30 };
enum { COMMENT_MAX = 65535, DIRECTORY_MAX = 32 << 20, PICKLE_MAX = 16 << 20 };
enum { ENTRIES_MAX = CKPT_TENSORS_MAX + 64 };

struct entry {
    const char *name; /* in the directory; not terminated */
    size_t n_name;
    uint64_t header_at, at, n_bytes;
};

struct zip {
    const struct ckpt_file *f;
    uint8_t *directory;
    uint64_t directory_at, directory_bytes, n_entries;
    struct entry *entries; /* in the order of their names */
    size_t n;
    const char *prefix; /* NAME */
    size_t n_prefix;
};

static uint64_t le(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

/* --- directory -------------------------------------------------------------------------------- */

/* The 64-bit record before the end, if there is one: its counts are the true ones. */
static err_t find_end64(struct zip *z, uint64_t end_at, uint64_t *limit)
{
    err_t e = OK;
    uint8_t p[END64_BYTES];
    if (end_at < LOCATOR_BYTES) return OK;
    TRY(ckpt_pread(z->f, end_at - LOCATOR_BYTES, p, LOCATOR_BYTES));
    if (memcmp(p, "PK\006\007", 4) != 0) return OK;
    const uint64_t at = le(p + 8, 8);
    if (at > end_at - LOCATOR_BYTES || end_at - LOCATOR_BYTES - at < END64_BYTES)
        return FAIL(ERR_DATA, "zip: its 64-bit directory record lies outside the file");
    TRY(ckpt_pread(z->f, at, p, END64_BYTES));
    if (memcmp(p, "PK\006\006", 4) != 0) return FAIL(ERR_DATA, "zip: no 64-bit directory record");
    z->n_entries = le(p + 32, 8);
    z->directory_bytes = le(p + 40, 8);
    z->directory_at = le(p + 48, 8);
    *limit = at;
out:
    return e;
}

static err_t find_directory(struct zip *z)
{
    err_t e = OK;
    const uint64_t n_file = z->f->n_bytes;
    const uint64_t n_tail =
        n_file < END_BYTES + COMMENT_MAX ? n_file : (uint64_t)END_BYTES + COMMENT_MAX;
    uint8_t *tail = malloc(n_tail + 1);
    const uint8_t *p = NULL;
    if (!tail) return FAIL(ERR_NOMEM, "zip");
    TRY(ckpt_pread(z->f, n_file - n_tail, tail, n_tail));
    for (uint64_t n_back = END_BYTES; n_back <= n_tail && !p; n_back++) {
        const uint8_t *at = tail + n_tail - n_back;
        if (memcmp(at, "PK\005\006", 4) == 0 && le(at + 20, 2) == n_back - END_BYTES) p = at;
    }
    if (!p) {
        e = FAIL(ERR_DATA, "zip: no directory at its end: the file is cut short");
        goto out;
    }
    z->n_entries = le(p + 10, 2);
    z->directory_bytes = le(p + 12, 4);
    z->directory_at = le(p + 16, 4);
    uint64_t limit = n_file - n_tail + (uint64_t)(p - tail);
    TRY(find_end64(z, limit, &limit));
    if (z->directory_at > limit || z->directory_bytes > limit - z->directory_at)
        e = FAIL(ERR_DATA, "zip: its directory lies outside the file");
    else if (z->directory_bytes > DIRECTORY_MAX || z->n_entries > ENTRIES_MAX)
        e = FAIL(ERR_DATA, "zip: over %d entries", ENTRIES_MAX);
out:
    free(tail);
    return e;
}

/* Sizes that do not fit 32 bits are in the extra field 1, in this order. */
static bool widen(const uint8_t *extra, size_t n_extra, uint64_t *v[3])
{
    while (n_extra >= 4) {
        const size_t n = (size_t)le(extra + 2, 2);
        const uint8_t *p = extra + 4;
        if (n > n_extra - 4) return false;
        size_t left = n;
        for (int i = 0; i < 3 && le(extra, 2) == 1; i++) {
            if (*v[i] != UINT32_MAX) continue;
            if (left < 8) return false;
            *v[i] = le(p, 8);
            p += 8;
            left -= 8;
        }
        extra += 4 + n;
        n_extra -= 4 + n;
    }
    return true;
}

/* One entry at p, of which n bytes are left; *n_used: how many it has. */
static err_t read_entry(struct zip *z, const uint8_t *p, size_t n, size_t *n_used)
{
    if (n < ENTRY_BYTES || memcmp(p, "PK\001\002", 4) != 0)
        return FAIL(ERR_DATA, "zip: its directory is broken");
    const size_t n_name = (size_t)le(p + 28, 2), n_extra = (size_t)le(p + 30, 2);
    const size_t n_comment = (size_t)le(p + 32, 2);
    struct entry *to = &z->entries[z->n];
    uint64_t n_packed = le(p + 20, 4);
    *n_used = ENTRY_BYTES + n_name + n_extra + n_comment;
    if (*n_used > n || n_name == 0) return FAIL(ERR_DATA, "zip: its directory is broken");
    *to = (struct entry){.name = (const char *)p + ENTRY_BYTES,
                         .n_name = n_name,
                         .header_at = le(p + 42, 4),
                         .n_bytes = le(p + 24, 4)};
    for (size_t i = 0; i < n_name; i++)
        if (to->name[i] < ' ' || to->name[i] > '~')
            return FAIL(ERR_DATA, "zip: an entry's name is not printable");
    if (!widen(p + ENTRY_BYTES + n_name, n_extra,
               (uint64_t *[]){&to->n_bytes, &n_packed, &to->header_at}))
        return FAIL(ERR_DATA, "zip: entry %.*s has a broken extra field", (int)n_name, to->name);
    if (le(p + 10, 2) != 0 || le(p + 8, 2) & 1 || n_packed != to->n_bytes)
        return FAIL(ERR_DATA, "zip: entry %.*s is compressed: torch.save stores them as they are",
                    (int)n_name, to->name);
    z->n++;
    return OK;
}

static int by_name(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    const int order = memcmp(x->name, y->name, x->n_name < y->n_name ? x->n_name : y->n_name);
    if (order) return order;
    return x->n_name < y->n_name ? -1 : x->n_name > y->n_name;
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->header_at < y->header_at ? -1 : x->header_at > y->header_at;
}

/* Where an entry's bytes begin; all of them lie before `limit`. */
static err_t locate(struct zip *z, struct entry *en, uint64_t limit)
{
    err_t e = OK;
    uint8_t p[LOCAL_BYTES];
    if (en->header_at > limit || limit - en->header_at < LOCAL_BYTES)
        return FAIL(ERR_DATA, "zip: entry %.*s overlaps what follows, or lies outside the file",
                    (int)en->n_name, en->name);
    TRY(ckpt_pread(z->f, en->header_at, p, sizeof p));
    if (memcmp(p, "PK\003\004", 4) != 0 || le(p + 26, 2) != en->n_name)
        return FAIL(ERR_DATA, "zip: entry %.*s is not where the directory says", (int)en->n_name,
                    en->name);
    en->at = en->header_at + LOCAL_BYTES + en->n_name + le(p + 28, 2);
    if (en->at > limit || en->n_bytes > limit - en->at)
        e = FAIL(ERR_DATA, "zip: entry %.*s overlaps what follows, or lies outside the file",
                 (int)en->n_name, en->name);
out:
    return e;
}

static err_t read_directory(struct zip *z)
{
    err_t e = OK;
    size_t at = 0, n_used = 0;
    z->directory = malloc(z->directory_bytes + 1);
    z->entries = calloc(z->n_entries + 1, sizeof *z->entries);
    if (!z->directory || !z->entries) return FAIL(ERR_NOMEM, "zip");
    TRY(ckpt_pread(z->f, z->directory_at, z->directory, z->directory_bytes));
    for (uint64_t i = 0; i < z->n_entries; i++, at += n_used)
        TRY(read_entry(z, z->directory + at, z->directory_bytes - at, &n_used));
    qsort(z->entries, z->n, sizeof *z->entries, by_place);
    for (size_t i = 0; i < z->n; i++)
        TRY(locate(z, &z->entries[i],
                   i + 1 < z->n ? z->entries[i + 1].header_at : z->directory_at));
    qsort(z->entries, z->n, sizeof *z->entries, by_name);
    for (size_t i = 1; i < z->n; i++)
        if (by_name(&z->entries[i - 1], &z->entries[i]) == 0) {
            e = FAIL(ERR_DATA, "zip: entry %.*s is there twice", (int)z->entries[i].n_name,
                     z->entries[i].name);
            goto out;
        }
out:
    return e;
}

/* --- entries ---------------------------------------------------------------------------------- */

/* PREFIX/what; NULL: none. */
static const struct entry *find(const struct zip *z, const char *what, size_t n_what)
{
    char name[512];
    const size_t n = z->n_prefix + 1 + n_what;
    if (n > sizeof name) return NULL;
    memcpy(name, z->prefix, z->n_prefix);
    name[z->n_prefix] = '/';
    memcpy(name + z->n_prefix + 1, what, n_what);
    const struct entry key = {.name = name, .n_name = n};
    return bsearch(&key, z->entries, z->n, sizeof key, by_name);
}

/* The one entry NAME/data.pkl. */
static err_t find_pickle(struct zip *z, const struct entry **pickle)
{
    static const char end[] = "/data.pkl";
    const size_t n_end = sizeof end - 1;
    *pickle = NULL;
    for (size_t i = 0; i < z->n; i++) {
        const struct entry *en = &z->entries[i];
        if (en->n_name <= n_end || memcmp(en->name + en->n_name - n_end, end, n_end) != 0) continue;
        if (*pickle) return FAIL(ERR_DATA, "zip: more than one data.pkl");
        *pickle = en;
        z->prefix = en->name;
        z->n_prefix = en->n_name - n_end;
    }
    if (!*pickle) return FAIL(ERR_DATA, "a zip, but not of torch.save: no data.pkl");
    if ((*pickle)->n_bytes > PICKLE_MAX)
        return FAIL(ERR_DATA, "its data.pkl is over %d bytes", PICKLE_MAX);
    return OK;
}

static err_t check_order(const struct zip *z)
{
    err_t e = OK;
    char order[6] = {0};
    const struct entry *en = find(z, "byteorder", 9);
    if (!en) return OK; /* before torch 2.1: as the writer's machine */
    if (en->n_bytes == 6) TRY(ckpt_pread(z->f, en->at, order, sizeof order));
    if (memcmp(order, "little", 6) != 0) e = FAIL(ERR_DATA, "its byte order is not little");
out:
    return e;
}

static err_t find_storage(void *self, const char *key, size_t n_key, uint64_t *at,
                          uint64_t *n_bytes)
{
    char what[64] = "data/";
    const struct entry *en = NULL;
    if (n_key < sizeof what - 5) {
        memcpy(what + 5, key, n_key);
        en = find(self, what, 5 + n_key);
    }
    if (!en) return FAIL(ERR_DATA, "a storage that the pickle names is not in the zip");
    *at = en->at;
    *n_bytes = en->n_bytes;
    return OK;
}

err_t torchfile_scan(struct checkpoint *c, const struct ckpt_file *f)
{
    err_t e = OK;
    struct zip z = {.f = f};
    const struct pickle_storages storages = {find_storage, &z};
    const struct entry *pickle = NULL;
    uint8_t *data = NULL;
    TRY(find_directory(&z));
    TRY(read_directory(&z));
    TRY(find_pickle(&z, &pickle));
    TRY(check_order(&z));
    data = malloc(pickle->n_bytes + 1);
    if (!data) {
        e = FAIL(ERR_NOMEM, "pickle");
        goto out;
    }
    TRY(ckpt_pread(f, pickle->at, data, pickle->n_bytes));
    ckpt_header(c, z.directory, z.directory_bytes);
    ckpt_header(c, data, pickle->n_bytes);
    TRY(pickle_scan(c, f, data, pickle->n_bytes, &storages));
out:
    free(data);
    free(z.entries);
    free(z.directory);
    return e;
}
