/* table.c - the GPU's row of the dispatch, and its scratch. */
#include <dlfcn.h>
#include <pthread.h>

#include "common/clock.h"
#include "kernels/cuda/cuda.h"

enum { DEVS_MAX = 8 };

static struct arena {
    const struct dev *d;
    void *base;
    struct cuda_scratch scratch;
} arenas[DEVS_MAX];

static struct arena *find(const struct dev *d)
{
    for (int i = 0; i < DEVS_MAX; i++)
        if (arenas[i].d == d) return &arenas[i];
    return NULL;
}

/* The matrix library is half a gigabyte: it is loaded while the context is made. First the driver,
 * which loads libraries itself, one at a time, and the context waits for those. An error is left to
 * whoever needs the library. */
static void *load_library(void *unused)
{
    int n;
    (void)unused;
    if (cudaGetDeviceCount(&n) == cudaSuccess) (void)dlopen(CUDA_GEMM_LIBRARY, RTLD_NOW);
    return NULL;
}

static void load_ops(void)
{
    pthread_t t;
    if (pthread_create(&t, NULL, load_library, NULL) == 0) pthread_detach(t);
}

static void close_ops(struct dev *d)
{
    struct arena *a = find(d);
    MUST(a);
    cuda_gemm_close(d);
    dev_free(d, &a->base);
    *a = (struct arena){0};
}

static err_t open_ops(struct dev *d)
{
    err_t e = OK;
    int index = 0, n_sms = 0;
    struct arena *a = find(NULL);
    if (!a) return FAIL(ERR_LIMIT, "cuda: more than %d devices are open", DEVS_MAX);
    const size_t n_bytes = CUDA_GEMM_BYTES + CUDA_SCRATCH_BYTES,
                 n_flags = CUDA_FLAGS * sizeof(uint32_t);
    TRY(dev_alloc(d, n_bytes + n_flags, &a->base));
    cudaError_t ce = cudaGetDevice(&index);
    if (ce == cudaSuccess)
        ce = cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, index);
    if (ce != cudaSuccess) {
        dev_free(d, &a->base);
        return cuda_failed(ce, "CUDA device");
    }
    a->d = d;
    char *const base = a->base;
    a->scratch = (struct cuda_scratch){.gemm = base,
                                       .data = base + CUDA_GEMM_BYTES,
                                       .flags = (uint32_t *)(base + n_bytes),
                                       .n_sms = n_sms};
    const int64_t began_ns = now_ns();
    e = cuda_gemm_open(d);
    dev_took(d, "gemm", began_ns);
    if (e == OK) e = dev_zero(d, a->scratch.flags, n_flags);
    if (e != OK) close_ops(d);
out:
    return e;
}

const struct cuda_scratch *cuda_scratch(const struct dev *d)
{
    const struct arena *a = find(d);
    MUST(a);
    return &a->scratch;
}

const struct ops ops_cuda = {
    .load = load_ops,
    .open = open_ops,
    .close = close_ops,
    .choices_bytes = cuda_choices_bytes,
    .choices = cuda_choices,
    .linear = cuda_linear,
    .linear_gelu = cuda_linear_gelu,
    .linear_add = cuda_linear_add,
    .linear_add_norm = cuda_linear_add_norm,
    .rms_norm = cuda_rms_norm,
    .layer_norm = cuda_layer_norm,
    .norm_modulate = cuda_norm_modulate,
    .l2_norm = cuda_l2_norm,
    .silu = cuda_silu,
    .cast = cuda_cast,
    .add = cuda_add,
    .gelu_mul = cuda_gelu_mul,
    .embed = cuda_embed,
    .attention = cuda_attention,
    .attention_t5 = cuda_attention_t5,
    .qkv_rope_cache = cuda_qkv_rope_cache,
    .rope_sink = cuda_rope_sink,
    .patchify = cuda_patchify,
    .unpatchify = cuda_unpatchify,
    .flow_to_x0 = cuda_flow_to_x0,
    .renoise = cuda_renoise,
    .randn = cuda_randn,
    .denorm = cuda_denorm,
    .conv3d = cuda_conv3d,
    .conv3d_norm = cuda_conv3d_norm,
    .upsample_conv = cuda_upsample_conv,
    .split_frames = cuda_split_frames,
    .split3 = cuda_split3,
    .to_rgb8 = cuda_to_rgb8,
};
