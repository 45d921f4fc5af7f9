/* dev_impl.h - what a device kind supplies to dev.c, and the device itself.
 *
 * dev.c keeps the promises that are the same everywhere (bounds, accounting, seal, injected
 * failures) and forwards; a backend only touches memory.
 */
#ifndef COMMON_DEV_IMPL_H
#define COMMON_DEV_IMPL_H

#include <stdbool.h>

#include "common/dev.h"

struct dev_ops {
    err_t (*check)(int32_t index);
    err_t (*open)(struct dev *d);                       /* may be NULL */
    void (*close)(struct dev *d);                       /* may be NULL; after a failed open too */
    err_t (*info)(struct dev *d, struct dev_info *out); /* may be NULL: the kind says it all */
    err_t (*alloc)(struct dev *d, size_t bytes, void **out);
    size_t (*free)(struct dev *d, void *p); /* the bytes that dev_alloc was asked for */
    err_t (*upload)(struct dev *d, void *dst, const void *host_src, size_t bytes);
    err_t (*download)(struct dev *d, void *host_dst, const void *src, size_t bytes);
    err_t (*copy)(struct dev *d, void *dst, const void *src, size_t bytes);
    err_t (*zero)(struct dev *d, void *dst, size_t bytes);
    err_t (*sync)(struct dev *d);
    err_t (*order)(struct dev *after, struct dev *before); /* may be NULL: always in order */
    err_t (*enter)(struct dev *d);                         /* may be NULL */
    err_t (*pin)(struct dev *d, void *host, size_t bytes); /* may be NULL */
    void (*unpin)(struct dev *d, void *host);
    err_t (*record)(struct dev *d, struct dev_graph **out, err_t (*work)(void *), void *self);
    err_t (*replay)(struct dev *d, struct dev_graph *g);
    void (*graph_close)(struct dev *d, struct dev_graph *g);
    err_t (*marks_open)(struct dev *d, struct dev_marks **out, int32_t n);
    void (*marks_close)(struct dev *d, struct dev_marks *m);
    err_t (*mark)(struct dev *d, struct dev_marks *m, int32_t i);
    err_t (*marks_read)(struct dev *d, struct dev_marks *m, int32_t n, int64_t *ns);
    err_t (*share_make)(struct dev *d, struct dev_share *s);
    err_t (*share_check)(struct dev *d, const struct dev_share *s);
    err_t (*share_map)(struct dev *d, const struct dev_share *s, void **out);
    void (*share_unmap)(struct dev *d, const struct dev_share *s, void *p);
    void (*share_drop)(struct dev *d, const struct dev_share *s);
    err_t (*check_peer)(struct dev *d, int32_t index); /* NULL: not a GPU */
};

/* Names of dev_took; more are not counted. */
enum { DEV_TOOK_MAX = 16 };

struct dev {
    const struct dev_ops *ops;
    void *self; /* the backend's own */
    enum dev_kind kind;
    int32_t index; /* the N of cuda:N */
    char name[8];
    int32_t n_threads;
    int32_t fail_at; /* allocations until one fails; negative: none */
    bool is_sealed;
    bool has_no_graphs;
    size_t live_bytes;
    int64_t n_live;
    uint64_t n_allocs_sealed;
    struct {
        const char *name;
        int64_t ns;
    } took[DEV_TOOK_MAX]; /* up to the first without a name */
};

extern const struct dev_ops dev_ops_cpu;
/* In programs that are linked with it; else its address is NULL. */
extern const struct dev_ops dev_ops_cuda __attribute__((weak));

#endif
