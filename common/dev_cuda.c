/* dev_cuda.c - a GPU as a device: one stream, cudaMalloc, CUDA IPC memory handles, graphs.
 *
 * Shared memory is one cudaMalloc of the keeper, rounded to 2 MiB, because a handle names a whole
 * block of the driver's and a smaller one might be carved from it. Its last 16 bytes hold a random
 * nonce: who opens a handle reads them back, so that a handle of memory that has gone, or of
 * another GPU, is found out before anything is computed. GPUs are named by UUID, since an ordinal
 * means something else in a process that sees other devices. Nothing on the GPU ever waits for
 * another process: such a wait cannot be cancelled when that one dies.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/clock.h"
#include "common/dev_cuda.h"
#include "common/dev_impl.h"

#define ROUND_BYTES ((size_t)2 << 20)
enum { NONCE_BYTES = 16, SHARES_MAX = 64, RETRIES = 50, RETRY_MS = 100 };

/* Memory of a killed process comes back a little after its end: allocation waits for it. */
struct gpu {
    cudaStream_t stream;
    cudaEvent_t event; /* gpu_order: what was queued here up to now */
    cudaUUID_t uuid;
    char name[100];
};

struct block {
    void *base; /* made by this process */
    unsigned char nonce[NONCE_BYTES];
    int32_t index;
};

struct dev_graph {
    cudaGraphExec_t exec;
};

static struct block blocks[SHARES_MAX]; /* what this process, the keeper, has made */

err_t cuda_failed(cudaError_t ce, const char *what)
{
    const err_t code = ce == cudaErrorMemoryAllocation ? ERR_NOMEM
                       : ce == cudaErrorNoDevice || ce == cudaErrorInvalidDevice ||
                               ce == cudaErrorInsufficientDriver ||
                               ce == cudaErrorDevicesUnavailable
                           ? ERR_NONE
                           : ERR_DEVICE;
    (void)cudaGetLastError();
    return FAIL(code, "%s: %s (%s)", what, cudaGetErrorString(ce), cudaGetErrorName(ce));
}

err_t cuda_launched(const char *what)
{
    const cudaError_t ce = cudaGetLastError();
    return ce == cudaSuccess ? OK : cuda_failed(ce, what);
}

#define CALL(call, what)                                                                           \
    do {                                                                                           \
        const cudaError_t ce_ = (call);                                                            \
        if (ce_ != cudaSuccess) {                                                                  \
            e = cuda_failed(ce_, (what));                                                          \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)

static struct gpu *gpu_of(const struct dev *d)
{
    return d->self;
}

cudaStream_t cuda_stream(const struct dev *d)
{
    return gpu_of(d)->stream;
}

static err_t gpu_check(int32_t index)
{
    err_t e = OK;
    int n = 0, major = 0, mode = 0, mps = 0, runtime = 0;
    const cudaError_t ce = cudaGetDeviceCount(&n);
    if (ce == cudaErrorInsufficientDriver) {
        (void)cudaGetLastError();
        (void)cudaRuntimeGetVersion(&runtime);
        return FAIL(ERR_NONE, "cuda:%d: no NVIDIA driver for CUDA %d is installed", index,
                    runtime / 1000);
    }
    if (ce != cudaSuccess) {
        (void)cudaGetLastError();
        return FAIL(ERR_NONE, "cuda:%d: no GPU can be used: %s", index, cudaGetErrorString(ce));
    }
    if (index >= n) return FAIL(ERR_NONE, "cuda:%d: this machine has %d GPUs", index, n);
    CALL(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "CUDA");
    if (major != 9)
        return FAIL(ERR_NONE, "cuda:%d: compute capability %d, this build is for 9.0 (Hopper)",
                    index, major);
    CALL(cudaDeviceGetAttribute(&mode, cudaDevAttrComputeMode, index), "CUDA");
    if (mode != cudaComputeModeDefault)
        return FAIL(ERR_NONE,
                    "cuda:%d: its compute mode allows no second process: nvidia-smi -c DEFAULT",
                    index);
    CALL(cudaDeviceGetAttribute(&mps, cudaDevAttrMpsEnabled, index), "CUDA");
    if (mps)
        return FAIL(ERR_NONE, "cuda:%d: under MPS the death of one process ends all: stop MPS",
                    index);
out:
    return e;
}

static err_t gpu_enter(struct dev *d)
{
    const cudaError_t ce = cudaSetDevice(d->index);
    return ce == cudaSuccess ? OK : cuda_failed(ce, "CUDA device");
}

static void gpu_close(struct dev *d)
{
    struct gpu *g = gpu_of(d);
    if (!g) return;
    if (g->event) cudaEventDestroy(g->event);
    if (g->stream) cudaStreamDestroy(g->stream);
    free(g);
    d->self = NULL;
}

static err_t gpu_open(struct dev *d)
{
    err_t e = OK;
    struct cudaDeviceProp prop;
    struct gpu *g = calloc(1, sizeof *g);
    if (!g) return FAIL(ERR_NOMEM, "cuda:%d", d->index);
    d->self = g;
    int64_t began_ns = now_ns();
    TRY(gpu_enter(d));
    dev_took(d, "context", began_ns);
    began_ns = now_ns();
    CALL(cudaGetDeviceProperties(&prop, d->index), "CUDA device");
    dev_took(d, "properties", began_ns);
    g->uuid = prop.uuid;
    snprintf(g->name, sizeof g->name, "%.99s", prop.name);
    began_ns = now_ns();
    CALL(cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking), "CUDA stream");
    dev_took(d, "stream", began_ns);
    CALL(cudaEventCreateWithFlags(&g->event, cudaEventDisableTiming), "CUDA event");
out:
    if (e != OK) gpu_close(d);
    return e;
}

static err_t gpu_info(struct dev *d, struct dev_info *out)
{
    err_t e = OK;
    int driver = 0;
    size_t free_bytes = 0, all_bytes = 0;
    TRY(gpu_enter(d));
    CALL(cudaDriverGetVersion(&driver), "CUDA driver");
    CALL(cudaMemGetInfo(&free_bytes, &all_bytes), "CUDA memory");
    snprintf(out->text, sizeof out->text, "%s, driver for CUDA %d.%d", gpu_of(d)->name,
             driver / 1000, driver % 1000 / 10);
    out->free_bytes = free_bytes;
    out->all_bytes = all_bytes;
out:
    return e;
}

/* The zeros are there for all that this device is told to do later. */
static err_t gpu_malloc(struct dev *d, size_t bytes, void **out)
{
    err_t e = OK;
    void *p = NULL;
    const int64_t began_ns = now_ns();
    const struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
    cudaError_t ce = cudaErrorMemoryAllocation;
    TRY(gpu_enter(d));
    for (int i = 0; i < RETRIES && ce == cudaErrorMemoryAllocation; i++) {
        if (i > 0) nanosleep(&pause, NULL);
        ce = cudaMalloc(&p, bytes);
        if (ce != cudaSuccess) (void)cudaGetLastError();
    }
    if (ce == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, all_bytes = 0;
        (void)cudaMemGetInfo(&free_bytes, &all_bytes);
        return FAIL(ERR_NOMEM, "cuda:%d: no memory for %zu bytes, %zu of %zu are free", d->index,
                    bytes, free_bytes, all_bytes);
    }
    CALL(ce, "cudaMalloc");
    CALL(cudaMemsetAsync(p, 0, bytes, gpu_of(d)->stream), "cudaMemset");
    dev_took(d, "alloc", began_ns);
    *out = p;
    p = NULL;
out:
    if (p) (void)cudaFree(p);
    return e;
}

/* The size asked for stands before what is handed out, in a page of its own on the host. */
struct head {
    void *p;
    size_t bytes;
    struct head *next;
};
static struct head *heads;

static err_t gpu_alloc(struct dev *d, size_t bytes, void **out)
{
    err_t e = OK;
    struct head *h = calloc(1, sizeof *h);
    if (!h) return FAIL(ERR_NOMEM, "cuda:%d", d->index);
    TRY(gpu_malloc(d, bytes, &h->p));
    h->bytes = bytes;
    h->next = heads;
    heads = h;
    *out = h->p;
    h = NULL;
out:
    free(h);
    return e;
}

static size_t gpu_free(struct dev *d, void *p)
{
    (void)d;
    struct head **at = &heads;
    while (*at && (*at)->p != p) at = &(*at)->next;
    MUST(*at);
    struct head *h = *at;
    const size_t bytes = h->bytes;
    *at = h->next;
    free(h);
    (void)cudaFree(p); /* a fault of the device shows at the next call that can report it */
    return bytes;
}

static err_t move(struct dev *d, void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                  const char *what)
{
    const cudaError_t ce = cudaMemcpyAsync(dst, src, bytes, kind, gpu_of(d)->stream);
    return ce == cudaSuccess ? OK : cuda_failed(ce, what);
}

static err_t gpu_upload(struct dev *d, void *dst, const void *src, size_t bytes)
{
    return move(d, dst, src, bytes, cudaMemcpyHostToDevice, "upload");
}

static err_t gpu_download(struct dev *d, void *dst, const void *src, size_t bytes)
{
    return move(d, dst, src, bytes, cudaMemcpyDeviceToHost, "download");
}

static err_t gpu_copy(struct dev *d, void *dst, const void *src, size_t bytes)
{
    return move(d, dst, src, bytes, cudaMemcpyDeviceToDevice, "copy");
}

static err_t gpu_zero(struct dev *d, void *dst, size_t bytes)
{
    const cudaError_t ce = cudaMemsetAsync(dst, 0, bytes, gpu_of(d)->stream);
    return ce == cudaSuccess ? OK : cuda_failed(ce, "zero");
}

static err_t gpu_sync(struct dev *d)
{
    const cudaError_t ce = cudaStreamSynchronize(gpu_of(d)->stream);
    return ce == cudaSuccess ? OK : cuda_failed(ce, "the GPU's work");
}

static err_t gpu_order(struct dev *after, struct dev *before)
{
    err_t e = OK;
    const cudaEvent_t event = gpu_of(before)->event;
    CALL(cudaEventRecord(event, gpu_of(before)->stream), "order");
    CALL(cudaStreamWaitEvent(gpu_of(after)->stream, event, 0), "order");
out:
    return e;
}

static err_t gpu_pin(struct dev *d, void *host, size_t bytes)
{
    (void)d;
    const cudaError_t ce = cudaHostRegister(host, bytes, cudaHostRegisterDefault);
    return ce == cudaSuccess ? OK : cuda_failed(ce, "cudaHostRegister");
}

static void gpu_unpin(struct dev *d, void *host)
{
    (void)d;
    if (cudaHostUnregister(host) != cudaSuccess) (void)cudaGetLastError();
}

/* --- graphs ----------------------------------------------------------------------------------- */

static err_t gpu_record(struct dev *d, struct dev_graph **out, err_t (*work)(void *), void *self)
{
    err_t e = OK;
    cudaGraph_t graph = NULL;
    struct dev_graph *g = calloc(1, sizeof *g);
    if (!g) return FAIL(ERR_NOMEM, "graph");
    int64_t began_ns = now_ns();
    TRY(gpu_enter(d));
    CALL(cudaStreamBeginCapture(gpu_of(d)->stream, cudaStreamCaptureModeRelaxed), "capture");
    e = work(self);
    const cudaError_t ce = cudaStreamEndCapture(gpu_of(d)->stream, &graph);
    if (e != OK) {
        (void)cudaGetLastError(); /* of a capture that work has broken: the sentence is work's */
        goto out;
    }
    CALL(ce, "capture");
    dev_took(d, "capture", began_ns);
    began_ns = now_ns();
    CALL(cudaGraphInstantiate(&g->exec, graph, 0), "graph");
    dev_took(d, "instantiate", began_ns);
    began_ns = now_ns();
    CALL(cudaGraphUpload(g->exec, gpu_of(d)->stream), "graph");
    dev_took(d, "upload", began_ns);
    *out = g;
    g = NULL;
out:
    if (graph) cudaGraphDestroy(graph);
    if (g && g->exec) cudaGraphExecDestroy(g->exec);
    free(g);
    return e;
}

static err_t gpu_replay(struct dev *d, struct dev_graph *g)
{
    err_t e = OK;
    TRY(gpu_enter(d));
    CALL(cudaGraphLaunch(g->exec, gpu_of(d)->stream), "graph");
out:
    return e;
}

static void gpu_graph_close(struct dev *d, struct dev_graph *g)
{
    (void)d;
    cudaGraphExecDestroy(g->exec);
    free(g);
}

/* --- marks: events ---------------------------------------------------------------------------- */

struct dev_marks {
    int32_t n;
    cudaEvent_t event[];
};

static void gpu_marks_close(struct dev *d, struct dev_marks *m)
{
    (void)d;
    for (int32_t i = 0; i < m->n && m->event[i]; i++) cudaEventDestroy(m->event[i]);
    free(m);
}

static err_t gpu_marks_open(struct dev *d, struct dev_marks **out, int32_t n)
{
    err_t e = OK;
    struct dev_marks *m = calloc(1, sizeof *m + (size_t)n * sizeof *m->event);
    if (!m) return FAIL(ERR_NOMEM, "marks");
    m->n = n;
    TRY(gpu_enter(d));
    for (int32_t i = 0; i < n; i++) CALL(cudaEventCreate(&m->event[i]), "marks");
    *out = m;
    m = NULL;
out:
    if (m) gpu_marks_close(d, m);
    return e;
}

static err_t gpu_mark(struct dev *d, struct dev_marks *m, int32_t i)
{
    MUST(i >= 0 && i < m->n);
    const cudaError_t ce = cudaEventRecord(m->event[i], gpu_of(d)->stream);
    return ce == cudaSuccess ? OK : cuda_failed(ce, "mark");
}

static err_t gpu_marks_read(struct dev *d, struct dev_marks *m, int32_t n, int64_t *ns)
{
    err_t e = OK;
    (void)d;
    MUST(n <= m->n);
    for (int32_t i = 0; i < n; i++) {
        float ms = 0;
        CALL(cudaEventElapsedTime(&ms, m->event[0], m->event[i]), "marks");
        ns[i] = (int64_t)((double)ms * 1e6);
    }
out:
    return e;
}

/* --- sharing ---------------------------------------------------------------------------------- */

static size_t rounded(uint64_t n_bytes)
{
    return ((size_t)n_bytes + NONCE_BYTES + ROUND_BYTES - 1) / ROUND_BYTES * ROUND_BYTES;
}

static unsigned char *nonce_at(void *base, uint64_t n_bytes)
{
    return (unsigned char *)base + rounded(n_bytes) - NONCE_BYTES;
}

static struct block *block_of(const struct dev_share *s)
{
    for (int i = 0; i < SHARES_MAX; i++)
        if (blocks[i].base && memcmp(blocks[i].nonce, s->nonce, NONCE_BYTES) == 0)
            return &blocks[i];
    return NULL;
}

/* What the system answers where it lets no process map another's memory. */
static bool is_refusal(cudaError_t ce)
{
    return ce == cudaErrorNotSupported || ce == cudaErrorNotPermitted ||
           ce == cudaErrorPeerAccessUnsupported || ce == cudaErrorOperatingSystem;
}

static err_t gpu_share_make(struct dev *d, struct dev_share *s)
{
    err_t e = OK;
    cudaIpcMemHandle_t handle;
    struct block *b = blocks;
    void *base = NULL;
    _Static_assert(sizeof s->nonce == NONCE_BYTES && sizeof s->handle == sizeof handle, "share");
    _Static_assert(sizeof s->uuid == sizeof(cudaUUID_t), "share");
    while (b < blocks + SHARES_MAX && b->base) b++;
    if (b == blocks + SHARES_MAX) return FAIL(ERR_LIMIT, "more than %d regions", SHARES_MAX);
    TRY(gpu_malloc(d, rounded(s->n_bytes), &base));
    MUST(getrandom(s->nonce, sizeof s->nonce, 0) == sizeof s->nonce);
    TRY(gpu_upload(d, nonce_at(base, s->n_bytes), s->nonce, sizeof s->nonce));
    TRY(gpu_sync(d));
    const cudaError_t ce = cudaIpcGetMemHandle(&handle, base);
    if (is_refusal(ce)) {
        (void)cudaGetLastError();
        e = FAIL(ERR_REFUSED, "%s: this GPU's memory cannot be shared: %s", s->path,
                 cudaGetErrorString(ce));
        goto out;
    }
    CALL(ce, "cudaIpcGetMemHandle");
    memcpy(s->handle, &handle, sizeof handle);
    memcpy(s->uuid, &gpu_of(d)->uuid, sizeof s->uuid);
    *b = (struct block){.base = base, .index = d->index};
    memcpy(b->nonce, s->nonce, sizeof b->nonce);
    base = NULL;
out:
    if (base) cudaFree(base);
    return e;
}

/* The maker is asked: its memory lives as long as it does. */
static err_t gpu_share_check(struct dev *d, const struct dev_share *s)
{
    (void)d;
    return block_of(s) ? OK : FAIL(ERR_NONE, "%s: that memory is gone", s->path);
}

static err_t gpu_share_map(struct dev *d, const struct dev_share *s, void **out)
{
    err_t e = OK;
    cudaIpcMemHandle_t handle;
    unsigned char nonce[NONCE_BYTES];
    void *base = NULL;
    int64_t began_ns = now_ns();
    memcpy(&handle, s->handle, sizeof handle);
    TRY(gpu_enter(d)); /* the opener's own, or a second context is made */
    const cudaError_t ce = cudaIpcOpenMemHandle(&base, handle, cudaIpcMemLazyEnablePeerAccess);
    if (ce == cudaErrorInvalidResourceHandle || ce == cudaErrorMapBufferObjectFailed) {
        (void)cudaGetLastError();
        return FAIL(ERR_NONE, "%s: its memory is gone, or is not this GPU's", s->path);
    }
    /* The last two: of a GPU that this process may not open, or of one peer too many. */
    if (is_refusal(ce) || ce == cudaErrorInvalidDevice || ce == cudaErrorTooManyPeers) {
        (void)cudaGetLastError();
        return FAIL(ERR_REFUSED, "%s: memory of another process cannot be mapped: %s", s->path,
                    cudaGetErrorString(ce));
    }
    CALL(ce, "cudaIpcOpenMemHandle");
    dev_took(d, "map", began_ns);
    began_ns = now_ns();
    TRY(gpu_download(d, nonce, nonce_at(base, s->n_bytes), sizeof nonce));
    TRY(gpu_sync(d));
    dev_took(d, "nonce", began_ns);
    if (memcmp(nonce, s->nonce, sizeof nonce) != 0) {
        e = FAIL(ERR_NONE, "%s: the handle opens other memory", s->path);
        goto out;
    }
    *out = base;
    base = NULL;
out:
    if (base) cudaIpcCloseMemHandle(base);
    return e;
}

static void gpu_share_unmap(struct dev *d, const struct dev_share *s, void *p)
{
    (void)s;
    (void)cudaSetDevice(d->index);
    (void)cudaIpcCloseMemHandle(p);
}

static void gpu_share_drop(struct dev *d, const struct dev_share *s)
{
    struct block *b = block_of(s);
    (void)d;
    if (!b) return;
    (void)cudaSetDevice(b->index);
    (void)cudaFree(b->base);
    *b = (struct block){0};
}

static err_t gpu_check_peer(struct dev *d, int32_t index)
{
    err_t e = OK;
    int there = 0, back = 0;
    if (index == d->index) return OK;
    CALL(cudaDeviceCanAccessPeer(&there, d->index, index), "peer access");
    CALL(cudaDeviceCanAccessPeer(&back, index, d->index), "peer access");
    if (!there || !back)
        e = FAIL(ERR_REFUSED, "cuda:%d and cuda:%d do not reach each other's memory", d->index,
                 index);
out:
    return e;
}

const struct dev_ops dev_ops_cuda = {
    .check = gpu_check,
    .open = gpu_open,
    .close = gpu_close,
    .info = gpu_info,
    .alloc = gpu_alloc,
    .free = gpu_free,
    .upload = gpu_upload,
    .download = gpu_download,
    .copy = gpu_copy,
    .zero = gpu_zero,
    .sync = gpu_sync,
    .order = gpu_order,
    .enter = gpu_enter,
    .pin = gpu_pin,
    .unpin = gpu_unpin,
    .record = gpu_record,
    .replay = gpu_replay,
    .graph_close = gpu_graph_close,
    .marks_open = gpu_marks_open,
    .marks_close = gpu_marks_close,
    .mark = gpu_mark,
    .marks_read = gpu_marks_read,
    .share_make = gpu_share_make,
    .share_check = gpu_share_check,
    .share_map = gpu_share_map,
    .share_unmap = gpu_share_unmap,
    .share_drop = gpu_share_drop,
    .check_peer = gpu_check_peer,
};
