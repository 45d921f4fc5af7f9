/* dev.c - see dev.h. */
#include "common/dev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/dev_impl.h"

enum { THREADS_MAX = 256, INDEX_MAX = 63 };

static const struct dev_ops *const backend[DEV_KINDS] = {
    [DEV_CPU] = &dev_ops_cpu,
    [DEV_CUDA] = &dev_ops_cuda,
};

/* "cpu" or "cuda:N", N one or two digits up to INDEX_MAX, nothing before or after. */
static err_t parse(const char *name, enum dev_kind *kind, int32_t *index)
{
    if (strcmp(name, "cpu") == 0) {
        *kind = DEV_CPU;
        *index = 0;
        return OK;
    }
    if (strncmp(name, "cuda:", 5) == 0) {
        const char *digit = name + 5;
        const size_t n = strlen(digit);
        if (n >= 1 && n <= 2 && strspn(digit, "0123456789") == n && atoi(digit) <= INDEX_MAX) {
            *kind = DEV_CUDA;
            *index = atoi(digit);
            return OK;
        }
    }
    return FAIL(ERR_CONFIG, "device '%s' is neither 'cpu' nor 'cuda:N', N 0 to %d", name,
                INDEX_MAX);
}

static err_t find(const char *name, enum dev_kind *kind, int32_t *index)
{
    err_t e = OK;
    TRY(parse(name, kind, index));
    if (!backend[*kind]) return FAIL(ERR_NONE, "%s: this build has no CUDA", name);
    TRY(backend[*kind]->check(*index));
out:
    return e;
}

err_t dev_check(const char *name)
{
    enum dev_kind kind = DEV_CPU;
    int32_t index = 0;
    return find(name, &kind, &index);
}

err_t dev_open(struct dev **out, const char *name, int32_t n_threads)
{
    err_t e = OK;
    enum dev_kind kind = DEV_CPU;
    int32_t index = 0;
    const int64_t began_ns = now_ns();

    TRY(find(name, &kind, &index));
    if (n_threads < 1 || n_threads > THREADS_MAX)
        return FAIL(ERR_CONFIG, "%s: %d threads, must be 1 to %d", name, n_threads, THREADS_MAX);
    struct dev *d = calloc(1, sizeof *d);
    if (!d) return FAIL(ERR_NOMEM, "%s: no memory for the device", name);
    d->ops = backend[kind];
    d->kind = kind;
    d->index = index;
    snprintf(d->name, sizeof d->name, "%s", name);
    d->n_threads = n_threads;
    d->fail_at = -1;
    if (kind != DEV_CPU) dev_took(d, "driver", began_ns);
    if (d->ops->open) e = d->ops->open(d);
    if (e != OK) {
        free(d);
        goto out;
    }
    *out = d;
out:
    return e;
}

void dev_close(struct dev **d)
{
    if (!d || !*d) return;
    MUST((*d)->n_live == 0);
    if ((*d)->ops->close) (*d)->ops->close(*d);
    free(*d);
    *d = NULL;
}

err_t dev_info(struct dev *d, struct dev_info *out)
{
    *out = (struct dev_info){.text = "cpu"};
    return d->ops->info ? d->ops->info(d, out) : OK;
}

void dev_took(struct dev *d, const char *name, int64_t began_ns)
{
    for (int32_t i = 0; i < DEV_TOOK_MAX; i++) {
        if (d->took[i].name && strcmp(d->took[i].name, name) != 0) continue;
        d->took[i].name = name;
        d->took[i].ns += now_ns() - began_ns;
        return;
    }
}

void dev_took_text(const struct dev *d, char *text, size_t bytes)
{
    size_t n = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < DEV_TOOK_MAX && d->took[i].name && n < bytes; i++)
        n += (size_t)snprintf(text + n, bytes - n, " %s_ms=%.1f", d->took[i].name,
                              (double)d->took[i].ns / NS_PER_MS);
}

enum dev_kind dev_kind(const struct dev *d)
{
    return d->kind;
}

const char *dev_name(const struct dev *d)
{
    return d->name;
}

int32_t dev_threads(const struct dev *d)
{
    return d->n_threads;
}

err_t dev_alloc(struct dev *d, size_t bytes, void **out)
{
    err_t e = OK;
    MUST(bytes > 0);
    if (d->is_sealed) {
        d->n_allocs_sealed++;
        return FAIL(ERR_LIMIT, "an allocation of %zu bytes on a sealed device", bytes);
    }
    if (d->fail_at >= 0 && d->fail_at-- == 0)
        return FAIL(ERR_NOMEM, "an allocation of %zu bytes failed by request", bytes);
    TRY(d->ops->alloc(d, bytes, out));
    d->live_bytes += bytes;
    d->n_live++;
out:
    return e;
}

void dev_free(struct dev *d, void **p)
{
    if (!p || !*p) return;
    d->live_bytes -= d->ops->free(d, *p);
    d->n_live--;
    *p = NULL;
}

void dev_seal(struct dev *d)
{
    d->is_sealed = true;
}

void dev_unseal(struct dev *d)
{
    d->is_sealed = false;
}

size_t dev_live_bytes(const struct dev *d)
{
    return d->live_bytes;
}

uint64_t dev_allocs_sealed(const struct dev *d)
{
    return d->n_allocs_sealed;
}

void dev_fail_at(struct dev *d, int n)
{
    d->fail_at = n;
}

/* --- moving bytes --------------------------------------------------------------------------- */

err_t dev_upload(struct dev *d, void *dst, const void *host_src, size_t bytes)
{
    return bytes ? d->ops->upload(d, dst, host_src, bytes) : OK;
}

err_t dev_download(struct dev *d, void *host_dst, const void *src, size_t bytes)
{
    return bytes ? d->ops->download(d, host_dst, src, bytes) : OK;
}

err_t dev_copy(struct dev *d, void *dst, const void *src, size_t bytes)
{
    const uintptr_t a = (uintptr_t)dst, b = (uintptr_t)src;
    MUST(a < b ? b - a >= bytes : a - b >= bytes);
    return bytes ? d->ops->copy(d, dst, src, bytes) : OK;
}

err_t dev_zero(struct dev *d, void *dst, size_t bytes)
{
    return bytes ? d->ops->zero(d, dst, bytes) : OK;
}

err_t dev_sync(struct dev *d)
{
    return d->ops->sync(d);
}

err_t dev_order(struct dev *after, struct dev *before)
{
    MUST(after->kind == before->kind);
    return after->ops->order && after != before ? after->ops->order(after, before) : OK;
}

err_t dev_enter(struct dev *d)
{
    return d->ops->enter ? d->ops->enter(d) : OK;
}

err_t dev_pin(struct dev *d, void *host, size_t bytes)
{
    return d->ops->pin ? d->ops->pin(d, host, bytes) : OK;
}

void dev_unpin(struct dev *d, void *host)
{
    if (d->ops->unpin && host) d->ops->unpin(d, host);
}

/* --- recorded work ---------------------------------------------------------------------------- */

void dev_set_graphs(struct dev *d, bool is_on)
{
    d->has_no_graphs = !is_on;
}

bool dev_has_graphs(const struct dev *d)
{
    return d->kind != DEV_CPU && !d->has_no_graphs;
}

/* The CPU's way suits every device: it is a call. */
static const struct dev_ops *recorder(const struct dev *d)
{
    return dev_has_graphs(d) ? d->ops : &dev_ops_cpu;
}

err_t dev_record(struct dev *d, struct dev_graph **out, err_t (*work)(void *self), void *self)
{
    return recorder(d)->record(d, out, work, self);
}

err_t dev_replay(struct dev *d, struct dev_graph *g)
{
    return recorder(d)->replay(d, g);
}

void dev_graph_close(struct dev *d, struct dev_graph **g)
{
    if (!g || !*g) return;
    recorder(d)->graph_close(d, *g);
    *g = NULL;
}

/* --- marks ------------------------------------------------------------------------------------ */

err_t dev_marks_open(struct dev *d, struct dev_marks **out, int32_t n)
{
    MUST(n > 0);
    return d->ops->marks_open(d, out, n);
}

void dev_marks_close(struct dev *d, struct dev_marks **m)
{
    if (!m || !*m) return;
    d->ops->marks_close(d, *m);
    *m = NULL;
}

err_t dev_mark(struct dev *d, struct dev_marks *m, int32_t i)
{
    return d->ops->mark(d, m, i);
}

err_t dev_marks_read(struct dev *d, struct dev_marks *m, int32_t n, int64_t *ns)
{
    return d->ops->marks_read(d, m, n, ns);
}

/* --- sharing -------------------------------------------------------------------------------- */

/* A share comes from a message, so its path may be anything. */
static err_t check_share(const struct dev_share *s)
{
    if (!memchr(s->path, '\0', sizeof s->path) || s->path[0] == '\0')
        return FAIL(ERR_DATA, "a share whose path is not a string of 1 to %d bytes",
                    DEV_PATH_MAX - 1);
    if (s->n_bytes == 0 || s->n_bytes > INT64_MAX)
        return FAIL(ERR_DATA, "share %s: its size is not 1 to 2^63 - 1 bytes", s->path);
    return OK;
}

err_t dev_share_make(struct dev *d, const char *path, uint64_t n_bytes, struct dev_share *out)
{
    err_t e = OK;
    struct dev_share s = {.n_bytes = n_bytes};
    const size_t n = strlen(path);
    if (n >= sizeof s.path)
        return FAIL(ERR_LIMIT, "share %s: the path is longer than %d bytes", path,
                    DEV_PATH_MAX - 1);
    memcpy(s.path, path, n);
    TRY(check_share(&s));
    TRY(d->ops->share_make(d, &s));
    *out = s;
out:
    return e;
}

err_t dev_share_check(struct dev *d, const struct dev_share *s)
{
    const err_t e = check_share(s);
    return e != OK ? e : d->ops->share_check(d, s);
}

err_t dev_share_map(struct dev *d, const struct dev_share *s, void **out)
{
    const err_t e = check_share(s);
    return e != OK ? e : d->ops->share_map(d, s, out);
}

void dev_share_unmap(struct dev *d, const struct dev_share *s, void **p)
{
    if (!p || !*p) return;
    d->ops->share_unmap(d, s, *p);
    *p = NULL;
}

void dev_share_drop(struct dev *d, const struct dev_share *s)
{
    MUST(check_share(s) == OK);
    d->ops->share_drop(d, s);
}

err_t dev_check_peer(struct dev *d, const char *name)
{
    err_t e = OK;
    enum dev_kind kind = DEV_CPU;
    int32_t index = 0;
    TRY(parse(name, &kind, &index));
    if (kind != d->kind || !d->ops->check_peer)
        return FAIL(ERR_REFUSED, "%s and this device have no GPU memory in common", name);
    e = d->ops->check_peer(d, index);
out:
    return e;
}
