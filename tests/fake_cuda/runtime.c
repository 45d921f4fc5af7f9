/* runtime.c - see fake.h. Memory is a memfd that another process opens by way of /proc, so that it
 * goes when its owner does, and stays for who has mapped it. */
#include <cuda_runtime_api.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/fake_cuda/calls.h"
#include "tests/fake_cuda/fake.h"

enum { NODES_MAX = 64, POISON = 0xA5, BLOCK_BYTES = 2 << 20, GPU_BYTES = 1 << 30 };

static struct {
    int gpus, driver, major, mode, mps, peer, graph, pin, ipc, memory_mb, late_ms, fail, error;
} machine;

static struct {
    bool is_open;
    pid_t pid;
    int device; /* current */
    cudaError_t last, sticky;
    const char *failed; /* the call that failed by request */
    int32_t n_live;
    int64_t first_malloc_ns;
    bool is_in_graph; /* a graph runs, or is captured */
    err_t (*work)(void *);
    void *self;
} fake;

struct piece { /* of device memory: own, or of another process */
    char *p;
    size_t bytes;
    int device, fd; /* fd -1: a mapping */
    struct piece *next;
};
static struct piece *pieces;

struct node {
    void *dst;
    const void *src; /* NULL: dst becomes value */
    size_t bytes;
    int value;
};

struct CUgraph_st {
    struct node nodes[NODES_MAX];
    int32_t n_nodes;
    err_t (*work)(void *);
    void *self;
    bool is_broken;
};

struct CUgraphExec_st {
    struct CUgraph_st graph;
};

struct CUstream_st {
    cudaGraph_t capture; /* NULL: work runs at once */
    int device;
};

struct handle {
    char magic[8];
    pid_t pid;
    int fd, device;
    uint64_t inode, bytes;
};
static const char MAGIC[8] = "fakeipc";

/* --- the machine ------------------------------------------------------------------------------ */

void fake_cuda(const char *text)
{
    const struct {
        const char *key;
        int *value, fallback;
    } words[] = {
        {"gpus", &machine.gpus, 1},       {"driver", &machine.driver, 1},
        {"major", &machine.major, 9},     {"mode", &machine.mode, 0},
        {"mps", &machine.mps, 0},         {"peer", &machine.peer, 1},
        {"graph", &machine.graph, 1},     {"pin", &machine.pin, 1},
        {"ipc", &machine.ipc, 1},         {"memory_mb", &machine.memory_mb, 0},
        {"late_ms", &machine.late_ms, 0}, {"fail", &machine.fail, 0},
        {"error", &machine.error, 2},
    };
    const size_t n_words = sizeof words / sizeof *words;
    char key[16];
    int value, n;
    for (size_t i = 0; i < n_words; i++) *words[i].value = words[i].fallback;
    for (; sscanf(text, " %15[a-z_]=%d%n", key, &value, &n) == 2; text += n) {
        size_t i = 0;
        while (i < n_words && strcmp(words[i].key, key) != 0) i++;
        MUST(i < n_words);
        *words[i].value = value;
    }
    MUST(text[strspn(text, " ")] == '\0');
    fake.last = fake.sticky = cudaSuccess;
    fake.first_malloc_ns = 0;
    fake.is_in_graph = false;
    fake.failed = NULL;
    if (!fake.is_open) fake.pid = getpid();
    fake.is_open = true;
}

const char *fake_cuda_failed(void)
{
    return fake.failed;
}

int32_t fake_cuda_live(void)
{
    return fake.n_live;
}

void fake_cuda_graph_is(err_t (*work)(void *), void *self)
{
    fake.work = work;
    fake.self = self;
}

static cudaError_t fails(cudaError_t ce)
{
    if (ce == cudaErrorIllegalAddress || ce == cudaErrorLaunchFailure) fake.sticky = ce;
    return fake.last = ce;
}

/* What a call answers before it does anything. */
static cudaError_t enter(const char *call)
{
    const char *text = getenv("FAKE_CUDA");
    if (!fake.is_open) fake_cuda(text ? text : "");
    if (fake.pid != getpid()) return fails(cudaErrorInitializationError);
    if (!machine.driver) return fails(cudaErrorInsufficientDriver);
    if (fake.sticky) return fails(fake.sticky);
    if (machine.fail > 0 && --machine.fail == 0) {
        fake.failed = call;
        return fails((cudaError_t)machine.error);
    }
    return cudaSuccess;
}

/* For what may neither be captured nor called from a graph's work. */
static cudaError_t enter_outside_graphs(const char *call)
{
    const cudaError_t ce = enter(call);
    return ce == cudaSuccess && fake.is_in_graph ? fails(cudaErrorStreamCaptureUnsupported) : ce;
}

cudaError_t fake_cuda_enter(const char *call)
{
    return enter_outside_graphs(call);
}

void fake_cuda_made(int32_t n)
{
    fake.n_live += n;
}

int fake_cuda_device(void)
{
    return fake.device;
}

int fake_cuda_device_of(cudaStream_t stream)
{
    return stream->device;
}

#define ENTER(enter_)                                                                              \
    do {                                                                                           \
        const cudaError_t ce_ = (enter_)(__func__);                                                \
        if (ce_ != cudaSuccess) return ce_;                                                        \
    } while (0)

const char *cudaGetErrorName(cudaError_t e)
{
    static char name[32];
    snprintf(name, sizeof name, "cudaError %d", (int)e);
    return name;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorNotSupported:
        return "operation not supported";
    default:
        return "the fake runtime refuses";
    }
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t ce = fake.last;
    fake.last = fake.sticky;
    return ce;
}

/* --- devices ---------------------------------------------------------------------------------- */

static bool is_gpu(int device)
{
    return device >= 0 && device < machine.gpus;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    ENTER(enter);
    *count = machine.gpus;
    return machine.gpus > 0 ? cudaSuccess : fails(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    ENTER(enter);
    if (!is_gpu(device)) return fails(cudaErrorInvalidDevice);
    if (machine.mode == cudaComputeModeProhibited) return fails(cudaErrorDevicesUnavailable);
    fake.device = device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    ENTER(enter);
    if (!is_gpu(device)) return fails(cudaErrorInvalidDevice);
    *value = attr == cudaDevAttrComputeCapabilityMajor ? machine.major
             : attr == cudaDevAttrComputeMode          ? machine.mode
             : attr == cudaDevAttrMpsEnabled           ? machine.mps
                                                       : 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    ENTER(enter);
    if (!is_gpu(device)) return fails(cudaErrorInvalidDevice);
    *prop = (struct cudaDeviceProp){.name = "Fake GPU", .uuid = {"GPU-fake"}};
    prop->uuid.bytes[15] = (char)(1 + device);
    prop->totalGlobalMem = machine.memory_mb ? (size_t)machine.memory_mb << 20 : GPU_BYTES;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    ENTER(enter);
    if (!is_gpu(device) || !is_gpu(peer)) return fails(cudaErrorInvalidDevice);
    *can = device != peer && (machine.peer == 1 || (machine.peer == 2 && device < peer));
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    ENTER(enter);
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) /* needs no driver */
{
    *version = 13000;
    return cudaSuccess;
}

/* --- memory ----------------------------------------------------------------------------------- */

static cudaError_t add_piece(int fd, size_t bytes, int device, bool is_own, void **out)
{
    struct piece *at = calloc(1, sizeof *at);
    MUST(at);
    at->p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!is_own || at->p == MAP_FAILED) close(fd);
    if (at->p == MAP_FAILED) {
        free(at);
        return fails(cudaErrorMemoryAllocation);
    }
    at->bytes = bytes;
    at->device = device;
    at->fd = is_own ? fd : -1;
    at->next = pieces;
    pieces = at;
    fake.n_live++;
    *out = at->p;
    return cudaSuccess;
}

static bool drop_piece(void *p, bool is_own)
{
    struct piece **at = &pieces;
    while (*at && (*at)->p != p) at = &(*at)->next;
    if (!*at || ((*at)->fd >= 0) != is_own) return false;
    struct piece *gone = *at;
    *at = gone->next;
    munmap(gone->p, gone->bytes);
    if (is_own) close(gone->fd);
    free(gone);
    fake.n_live--;
    return true;
}

/* The piece that holds all the bytes at p. */
static const struct piece *piece_of(const void *p, size_t bytes)
{
    for (const struct piece *at = pieces; at; at = at->next)
        if ((const char *)p >= at->p && (const char *)p + bytes <= at->p + at->bytes) return at;
    return NULL;
}

static size_t used_bytes(int device)
{
    size_t n = 0;
    for (const struct piece *at = pieces; at; at = at->next)
        if (at->device == device && at->fd >= 0) n += at->bytes;
    return n;
}

static bool is_late(void)
{
    const int64_t at_ns = now_ns();
    if (fake.first_malloc_ns == 0) fake.first_malloc_ns = at_ns;
    return at_ns - fake.first_malloc_ns < (int64_t)machine.late_ms * 1000000;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    ENTER(enter_outside_graphs);
    if (is_late()) return fails(cudaErrorMemoryAllocation);
    if (bytes == 0) return fails(cudaErrorInvalidValue);
    if (machine.memory_mb && used_bytes(fake.device) + bytes > (size_t)machine.memory_mb << 20)
        return fails(cudaErrorMemoryAllocation);
    const int fd = memfd_create("fake-cuda", MFD_CLOEXEC);
    if (fd < 0) return fails(cudaErrorMemoryAllocation);
    if (posix_fallocate(fd, 0, (off_t)bytes) != 0) {
        close(fd);
        return fails(cudaErrorMemoryAllocation);
    }
    const cudaError_t ce = add_piece(fd, bytes, fake.device, true, p);
    if (ce == cudaSuccess) memset(*p, POISON, bytes);
    return ce;
}

/* What unmakes does its work even when it reports a fault, which then is an earlier one. */
cudaError_t cudaFree(void *p)
{
    const cudaError_t ce = enter(__func__);
    if (!p || drop_piece(p, true)) return ce;
    return ce == cudaSuccess ? fails(cudaErrorInvalidValue) : ce;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    ENTER(enter);
    const size_t used = used_bytes(fake.device);
    *total = machine.memory_mb ? (size_t)machine.memory_mb << 20 : GPU_BYTES;
    *free_bytes = used < *total ? *total - used : 0;
    return cudaSuccess;
}

static void run_node(const struct node *n)
{
    if (n->src) memcpy(n->dst, n->src, n->bytes);
    else memset(n->dst, n->value, n->bytes);
}

static cudaError_t queue(cudaStream_t s, struct node n)
{
    if (!s->capture) {
        run_node(&n);
        return cudaSuccess;
    }
    MUST(s->capture->n_nodes < NODES_MAX);
    s->capture->nodes[s->capture->n_nodes++] = n;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    ENTER(enter);
    const bool to_device = kind != cudaMemcpyDeviceToHost;
    const bool from_device = kind != cudaMemcpyHostToDevice;
    if (!stream || (piece_of(dst, bytes) != NULL) != to_device ||
        (piece_of(src, bytes) != NULL) != from_device)
        return fails(cudaErrorInvalidValue);
    /* A graph that reads or writes the host's memory would do so at every replay. */
    if (fake.is_in_graph && kind != cudaMemcpyDeviceToDevice)
        return fails(cudaErrorStreamCaptureUnsupported);
    return queue(stream, (struct node){.dst = dst, .src = src, .bytes = bytes});
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    ENTER(enter);
    if (!stream || !piece_of(p, bytes)) return fails(cudaErrorInvalidValue);
    return queue(stream, (struct node){.dst = p, .bytes = bytes, .value = value});
}

static void *pinned[16];

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags)
{
    ENTER(enter);
    (void)flags;
    void **at = NULL;
    for (int i = 0; i < 16; i++) {
        if (pinned[i] == p) return fails(cudaErrorHostMemoryAlreadyRegistered);
        if (!pinned[i]) at = &pinned[i];
    }
    MUST(at);
    if (bytes == 0 || !machine.pin) return fails(cudaErrorInvalidValue);
    *at = p;
    fake.n_live++;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    const cudaError_t ce = enter(__func__);
    for (int i = 0; i < 16; i++) {
        if (!p || pinned[i] != p) continue;
        pinned[i] = NULL;
        fake.n_live--;
        return ce;
    }
    return ce == cudaSuccess ? fails(cudaErrorHostMemoryNotRegistered) : ce;
}

/* --- streams and graphs ----------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    ENTER(enter);
    (void)flags;
    *stream = calloc(1, sizeof **stream);
    MUST(*stream);
    (*stream)->device = fake.device;
    fake.n_live++;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const cudaError_t ce = enter(__func__);
    free(stream);
    fake.n_live--;
    return ce;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    ENTER(enter);
    if (!fake.is_in_graph) return cudaSuccess;
    if (stream->capture) stream->capture->is_broken = true;
    return fails(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    ENTER(enter_outside_graphs);
    (void)mode;
    if (!machine.graph) return fails(cudaErrorStreamCaptureUnsupported);
    stream->capture = calloc(1, sizeof *stream->capture);
    MUST(stream->capture);
    stream->capture->work = fake.work;
    stream->capture->self = fake.self;
    fake.work = NULL;
    fake.is_in_graph = true;
    fake.n_live++;
    return cudaSuccess;
}

/* A capture that has failed is over, and gives no graph. */
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    cudaError_t ce = enter(__func__);
    cudaGraph_t g = stream->capture;
    fake.is_in_graph = false;
    stream->capture = NULL;
    if (ce == cudaSuccess && g->is_broken) ce = fails(cudaErrorStreamCaptureInvalidated);
    if (ce != cudaSuccess) (void)cudaGraphDestroy(g);
    *graph = ce == cudaSuccess ? g : NULL;
    return ce;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    ENTER(enter);
    (void)flags;
    *exec = calloc(1, sizeof **exec);
    MUST(*exec);
    (*exec)->graph = *graph;
    fake.n_live++;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    ENTER(enter);
    return exec && stream ? cudaSuccess : fails(cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    ENTER(enter_outside_graphs);
    if (!stream) return fails(cudaErrorInvalidValue);
    const struct CUgraph_st *g = &exec->graph;
    for (int32_t i = 0; i < g->n_nodes; i++) run_node(&g->nodes[i]);
    if (!g->work) return cudaSuccess;
    fake.is_in_graph = true;
    const err_t e = g->work(g->self);
    fake.is_in_graph = false;
    return e == OK ? cudaSuccess : fails(cudaErrorLaunchFailure);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    const cudaError_t ce = enter(__func__);
    free(exec);
    fake.n_live--;
    return ce;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    const cudaError_t ce = enter(__func__);
    free(graph);
    fake.n_live--;
    return ce;
}

/* --- IPC -------------------------------------------------------------------------------------- */

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *p)
{
    ENTER(enter);
    struct stat st;
    struct handle h = {.pid = getpid()};
    const struct piece *at = piece_of(p, 1);
    _Static_assert(sizeof h <= sizeof *handle, "a handle");
    if (!machine.ipc) return fails(cudaErrorNotSupported);
    /* A handle names a whole block of the driver's: of anything else it would name more. */
    if (!at || at->p != p || at->fd < 0 || at->bytes % BLOCK_BYTES != 0 || fstat(at->fd, &st) != 0)
        return fails(cudaErrorInvalidValue);
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.fd = at->fd;
    h.device = at->device;
    h.inode = st.st_ino;
    h.bytes = at->bytes;
    memset(handle, 0, sizeof *handle);
    memcpy(handle, &h, sizeof h);
    return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void **p, cudaIpcMemHandle_t handle, unsigned flags)
{
    ENTER(enter_outside_graphs);
    char path[64];
    struct stat st;
    struct handle h;
    (void)flags;
    memcpy(&h, &handle, sizeof h);
    if (memcmp(h.magic, MAGIC, sizeof h.magic) != 0) return fails(cudaErrorInvalidResourceHandle);
    if (machine.ipc == 2) return fails(cudaErrorNotSupported);
    if (h.pid == getpid()) return fails(cudaErrorDeviceUninitialized);
    if (h.device != fake.device && machine.peer != 1) return fails(cudaErrorPeerAccessUnsupported);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)h.pid, h.fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return fails(cudaErrorInvalidResourceHandle);
    if (fstat(fd, &st) != 0 || st.st_ino != h.inode || (uint64_t)st.st_size != h.bytes) {
        close(fd);
        return fails(cudaErrorInvalidResourceHandle);
    }
    return add_piece(fd, (size_t)h.bytes, h.device, false, p);
}

cudaError_t cudaIpcCloseMemHandle(void *p)
{
    const cudaError_t ce = enter(__func__);
    if (drop_piece(p, false)) return ce;
    return ce == cudaSuccess ? fails(cudaErrorInvalidValue) : ce;
}
