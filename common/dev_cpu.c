/* dev_cpu.c - the CPU as a device: the heap, memcpy, and files mapped by several processes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/dev_impl.h"

enum { ALIGN = 64 };
static const uint64_t MAGIC = 0x4C4F4E474C495645u;

/* Stands right before the memory handed out. */
struct head {
    void *raw; /* what calloc gave */
    size_t bytes;
    uint64_t magic; /* catches a pointer that is not ours, and one freed twice */
};

static err_t cpu_check(int32_t index)
{
    (void)index;
    return OK;
}

/* calloc and not aligned_alloc: its pages come zeroed and untouched, and the end of the block is
 * the end of the allocation, so that ASan sees the first byte written past it. */
static err_t cpu_alloc(struct dev *d, size_t bytes, void **out)
{
    (void)d;
    const size_t extra = sizeof(struct head) + ALIGN - 1;
    char *raw = bytes <= PTRDIFF_MAX - extra ? calloc(1, bytes + extra) : NULL;
    if (!raw) return FAIL(ERR_NOMEM, "cpu: no memory for %zu bytes", bytes);
    const uintptr_t at = ((uintptr_t)raw + extra) / ALIGN * ALIGN;
    char *p = raw + (at - (uintptr_t)raw);
    const struct head h = {.raw = raw, .bytes = bytes, .magic = MAGIC};
    memcpy(p - sizeof h, &h, sizeof h);
    *out = p;
    return OK;
}

static size_t cpu_free(struct dev *d, void *p)
{
    (void)d;
    struct head h;
    char *const at = (char *)p - sizeof h;
    memcpy(&h, at, sizeof h);
    MUST(h.magic == MAGIC);
    memset(at, 0, sizeof h);
    free(h.raw);
    return h.bytes;
}

static err_t cpu_move(struct dev *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    memcpy(dst, src, bytes);
    return OK;
}

static err_t cpu_zero(struct dev *d, void *dst, size_t bytes)
{
    (void)d;
    memset(dst, 0, bytes);
    return OK;
}

static err_t cpu_sync(struct dev *d)
{
    (void)d;
    return OK;
}

struct dev_graph {
    err_t (*work)(void *);
    void *self;
};

static err_t cpu_record(struct dev *d, struct dev_graph **out, err_t (*work)(void *), void *self)
{
    (void)d;
    struct dev_graph *g = malloc(sizeof *g);
    if (!g) return FAIL(ERR_NOMEM, "recorded work");
    *g = (struct dev_graph){work, self};
    *out = g;
    return OK;
}

static err_t cpu_replay(struct dev *d, struct dev_graph *g)
{
    (void)d;
    return g->work(g->self);
}

static void cpu_graph_close(struct dev *d, struct dev_graph *g)
{
    (void)d;
    free(g);
}

/* --- marks: work is done when it is queued ------------------------------------------------- */

struct dev_marks {
    int32_t n;
    int64_t at_ns[];
};

static err_t cpu_marks_open(struct dev *d, struct dev_marks **out, int32_t n)
{
    (void)d;
    struct dev_marks *m = calloc(1, sizeof *m + (size_t)n * sizeof *m->at_ns);
    if (!m) return FAIL(ERR_NOMEM, "marks");
    m->n = n;
    *out = m;
    return OK;
}

static void cpu_marks_close(struct dev *d, struct dev_marks *m)
{
    (void)d;
    free(m);
}

static err_t cpu_mark(struct dev *d, struct dev_marks *m, int32_t i)
{
    (void)d;
    MUST(i >= 0 && i < m->n);
    m->at_ns[i] = now_ns();
    return OK;
}

static err_t cpu_marks_read(struct dev *d, struct dev_marks *m, int32_t n, int64_t *ns)
{
    (void)d;
    MUST(n <= m->n);
    for (int32_t i = 0; i < n; i++) ns[i] = m->at_ns[i] - m->at_ns[0];
    return OK;
}

/* --- sharing: a file whose blocks exist before anybody writes to them ------------------------ */

static err_t reserve(int fd, const struct dev_share *s)
{
    int why = EINTR;
    while (why == EINTR) why = posix_fallocate(fd, 0, (off_t)s->n_bytes);
    if (why == 0) return OK;
    if (why == ENOSPC || why == EFBIG || why == ENOMEM)
        return FAIL(ERR_NOMEM, "%s: no room for %llu bytes: %s", s->path,
                    (unsigned long long)s->n_bytes, strerror(why));
    return FAIL(ERR_WRITE, "%s: reserving %llu bytes: %s", s->path, (unsigned long long)s->n_bytes,
                strerror(why));
}

static err_t cpu_share_make(struct dev *d, struct dev_share *s)
{
    err_t e = OK;
    (void)d;
    if (unlink(s->path) != 0 && errno != ENOENT)
        return FAIL(ERR_WRITE, "%s: removing what was there: %s", s->path, strerror(errno));
    const int fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return FAIL(ERR_WRITE, "%s: making it: %s", s->path, strerror(errno));
    TRY(reserve(fd, s));
out:
    close(fd);
    if (e != OK) unlink(s->path);
    return e;
}

/* The descriptor of an existing file of the promised size, or -1 and the error. A file of another
 * size is a stranger's: to map it would be a SIGBUS later. */
static err_t share_fd(const struct dev_share *s, int *out)
{
    struct stat st;
    const int fd = open(s->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return FAIL(ERR_NONE, "%s: opening the share: %s", s->path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != s->n_bytes) {
        close(fd);
        return FAIL(ERR_NONE, "%s: not a file of %llu bytes", s->path,
                    (unsigned long long)s->n_bytes);
    }
    *out = fd;
    return OK;
}

static err_t cpu_share_check(struct dev *d, const struct dev_share *s)
{
    err_t e = OK;
    int fd = -1;
    (void)d;
    TRY(share_fd(s, &fd));
    close(fd);
out:
    return e;
}

static err_t cpu_share_map(struct dev *d, const struct dev_share *s, void **out)
{
    err_t e = OK;
    int fd = -1;
    (void)d;
    TRY(share_fd(s, &fd));
    void *p = mmap(NULL, (size_t)s->n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        e = FAIL(ERR_NOMEM, "%s: mapping %llu bytes: %s", s->path, (unsigned long long)s->n_bytes,
                 strerror(errno));
    else *out = p;
    close(fd);
out:
    return e;
}

static void cpu_share_unmap(struct dev *d, const struct dev_share *s, void *p)
{
    (void)d;
    MUST(munmap(p, (size_t)s->n_bytes) == 0);
}

static void cpu_share_drop(struct dev *d, const struct dev_share *s)
{
    (void)d;
    unlink(s->path);
}

const struct dev_ops dev_ops_cpu = {
    .check = cpu_check,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_move,
    .download = cpu_move,
    .copy = cpu_move,
    .zero = cpu_zero,
    .sync = cpu_sync,
    .record = cpu_record,
    .replay = cpu_replay,
    .graph_close = cpu_graph_close,
    .marks_open = cpu_marks_open,
    .marks_close = cpu_marks_close,
    .mark = cpu_mark,
    .marks_read = cpu_marks_read,
    .share_make = cpu_share_make,
    .share_check = cpu_share_check,
    .share_map = cpu_share_map,
    .share_unmap = cpu_share_unmap,
    .share_drop = cpu_share_drop,
};
