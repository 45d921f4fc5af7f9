/* gemm.c - matrix products by cuBLASLt, and the linear ops.
 *
 * The library is loaded when a GPU is opened, not when a program starts: it is half a gigabyte,
 * and a pipeline on the CPU needs none of it. For each kind of product the algorithm that its
 * heuristic names first, or one that was recorded as faster, is taken once, at the first call (a
 * model makes every kind of call while it is opened), logged, and kept: the same library, GPU and
 * shapes give the same bits. Nothing is measured then: what is measured may come out otherwise.
 * It is kept beyond the process where there is memory for that (ops_choices): a successor takes the
 * same algorithm whatever the library would say then, and sooner (docs/SPEED.md).
 *
 * The library counts columns first: our y[S, O] = x w^T is its Y[O, S] = W^T X, W being [I, O].
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

#include <cublasLt.h>

#include "common/log.h"
#include "kernels/cuda/cuda.h"

enum { PLANS_MAX = 256, DEVS_MAX = 8, CHOICES = 8 };

#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetVersion)                                                                          \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatrixLayoutSetAttribute)                                                            \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulAlgoConfigGetAttribute)

static struct {
    void *shared_object; /* the library, once it is loaded */
#define FIELD(f) __typeof__(&f) f;
    FUNCTIONS(FIELD)
#undef FIELD
} lt;

/* What distinguishes one kind of product from another. Compared as bytes, of which four are
 * padding: begun with memset and copied with memcpy, since `=` may leave padding behind. */
struct key {
    enum dtype type, y_type;
    int32_t S, O, I, n_batches;
    int64_t x_stride, w_stride, y_stride, x_batch, w_batch, y_batch;
    int32_t w_is_cols, epilogue, has_bias;
};

struct plan {
    struct key key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
};

/* What outlives the process, whose successor may be of another build: who changes this, or what the
 * library is asked, raises LAYOUT in procs/choices.c. An algorithm is bytes that the same version
 * of the library takes back (cublasLtMatmulAlgo_t in its documentation). The writer may die between
 * any two stores, so they are ordered: an entry is written before it is counted, and those of
 * another version are gone before the version is this one. */
struct choices {
    _Atomic uint64_t version; /* of the library */
    _Atomic uint64_t n;
    struct choice {
        struct key key;
        cublasLtMatmulAlgo_t algo;
    } at[PLANS_MAX];
};

static struct handle {
    const struct dev *d;
    cublasLtHandle_t lt;
    struct choices *choices; /* the caller's; NULL: none */
    struct plan plans[PLANS_MAX];
    int32_t n_plans;
} handles[DEVS_MAX];

static struct handle *find(const struct dev *d)
{
    for (int i = 0; i < DEVS_MAX; i++)
        if (handles[i].d == d) return &handles[i];
    return NULL;
}

static err_t load(void)
{
    if (lt.shared_object) return OK;
    void *library = dlopen(CUDA_GEMM_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return FAIL(ERR_NONE, "%s: install cuBLAS 13, or name its folder in LD_LIBRARY_PATH",
                    dlerror());
#define FIND(f)                                                                                    \
    *(void **)&lt.f = dlsym(library, #f);                                                          \
    if (!lt.f) return FAIL(ERR_NONE, "cuBLASLt 13 has no %s", #f);
    FUNCTIONS(FIND)
#undef FIND
    lt.shared_object = library;
    return OK;
}

static err_t failed(cublasStatus_t s, const char *what)
{
    return FAIL(ERR_DEVICE, "%s: cuBLASLt status %d", what, (int)s);
}

#define CALL(call, what)                                                                           \
    do {                                                                                           \
        const cublasStatus_t s_ = (call);                                                          \
        if (s_ != CUBLAS_STATUS_SUCCESS) {                                                         \
            e = failed(s_, (what));                                                                \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)

err_t cuda_gemm_open(struct dev *d)
{
    err_t e = OK;
    struct handle *h = find(NULL);
    if (!h) return FAIL(ERR_LIMIT, "cuda: more than %d devices are open", DEVS_MAX);
    TRY(load());
    CALL(lt.cublasLtCreate(&h->lt), "cublasLtCreate");
    h->d = d;
out:
    return e;
}

size_t cuda_choices_bytes(void)
{
    return sizeof(struct choices);
}

void cuda_choices(struct dev *d, void *memory)
{
    struct choices *c = memory;
    const uint64_t version = lt.cublasLtGetVersion();
    if (c->version != version || c->n > PLANS_MAX) c->n = 0;
    c->version = version;
    find(d)->choices = c;
}

static void close_plan(struct plan *p)
{
    if (p->desc) lt.cublasLtMatmulDescDestroy(p->desc);
    if (p->w) lt.cublasLtMatrixLayoutDestroy(p->w);
    if (p->x) lt.cublasLtMatrixLayoutDestroy(p->x);
    if (p->y) lt.cublasLtMatrixLayoutDestroy(p->y);
    memset(p, 0, sizeof *p);
}

void cuda_gemm_close(struct dev *d)
{
    struct handle *h = find(d);
    if (!h) return;
    for (int32_t i = 0; i < h->n_plans; i++) close_plan(&h->plans[i]);
    lt.cublasLtDestroy(h->lt);
    memset(h, 0, sizeof *h);
}

static cudaDataType_t type_of(enum dtype t)
{
    return t == DTYPE_BF16 ? CUDA_R_16BF : t == DTYPE_F16 ? CUDA_R_16F : CUDA_R_32F;
}

/* rows is the dimension that lies together. */
static err_t open_layout(cublasLtMatrixLayout_t *m, enum dtype t, int64_t rows, int64_t cols,
                         int64_t stride, int32_t n_batches, int64_t batch)
{
    err_t e = OK;
    CALL(lt.cublasLtMatrixLayoutCreate(m, type_of(t), (uint64_t)rows, (uint64_t)cols, stride),
         "layout");
    if (n_batches > 1) {
        CALL(lt.cublasLtMatrixLayoutSetAttribute(*m, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n_batches,
                                                 sizeof n_batches),
             "layout");
        CALL(lt.cublasLtMatrixLayoutSetAttribute(*m, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                 &batch, sizeof batch),
             "layout");
    }
out:
    return e;
}

static err_t set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *v, size_t n)
{
    const cublasStatus_t s = lt.cublasLtMatmulDescSetAttribute(d, a, v, n);
    return s == CUBLAS_STATUS_SUCCESS ? OK : failed(s, "matmul attribute");
}

static err_t open_desc(struct plan *p)
{
    err_t e = OK;
    const struct key *k = &p->key;
    const cublasOperation_t w_op = k->w_is_cols ? CUBLAS_OP_N : CUBLAS_OP_T;
    const bool is_gelu = k->epilogue == CUDA_GELU;
    const cublasLtEpilogue_t epilogue =
        k->has_bias ? (is_gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS)
                    : (is_gelu ? CUBLASLT_EPILOGUE_GELU : CUBLASLT_EPILOGUE_DEFAULT);
    const cudaDataType_t bias = type_of(k->y_type);
    CALL(lt.cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "matmul");
    TRY(set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &w_op, sizeof w_op));
    TRY(set(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (k->has_bias) TRY(set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias, sizeof bias));
    TRY(open_layout(&p->w, k->type, k->w_is_cols ? k->O : k->I, k->w_is_cols ? k->I : k->O,
                    k->w_stride, k->n_batches, k->w_batch));
    TRY(open_layout(&p->x, k->type, k->I, k->S, k->x_stride, k->n_batches, k->x_batch));
    TRY(open_layout(&p->y, k->y_type, k->O, k->S, k->y_stride, k->n_batches, k->y_batch));
out:
    return e;
}

struct config {
    int32_t id;
    uint32_t tile, stages;
    uint16_t cluster;
};

static struct config config_of(const cublasLtMatmulAlgo_t *a)
{
    struct config c = {0};
    size_t n = 0;
    (void)lt.cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_ID, &c.id, sizeof c.id,
                                                  &n);
    (void)lt.cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_TILE_ID, &c.tile,
                                                  sizeof c.tile, &n);
    (void)lt.cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_STAGES_ID, &c.stages,
                                                  sizeof c.stages, &n);
    (void)lt.cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID,
                                                  &c.cluster, sizeof c.cluster, &n);
    return c;
}

static void log_choice(const struct plan *p, int32_t which)
{
    const struct key *k = &p->key;
    const struct config c = config_of(&p->algo);
    log_debug("gemm",
              "S=%d O=%d I=%d batches=%d type=%d epilogue=%d choice=%d algo=%d tile=%u stages=%u "
              "cluster=%u",
              k->S, k->O, k->I, k->n_batches, (int)k->type, k->epilogue, which, c.id, c.tile,
              c.stages, c.cluster);
}

/* Products of a recache of DiT, bf16 with a bias, whose first choice was not the fastest of the
 * eight that the heuristic named: median us (and least) of the first and of this one, by turns,
 * the weights of 30 layers in turn; H200 limited to 700 W, cuBLASLt 13.1.0, 2026-11-28. All eight
 * came as near to f64, and gave the same bits three times. Where S is one block the first was
 * within 3 % of the best. */
static const struct {
    int32_t S, O, I;
    enum dtype y_type;
    enum cuda_epilogue epilogue;
    uint32_t tile;
} recorded[] = {
    /* 404 (357) to 355 (347); 828 (727) to 794 (699); 158 (157) to 148 (148) */
    {18720, 4608, 1536, DTYPE_BF16, CUDA_PLAIN, CUBLASLT_MATMUL_TILE_128x224},
    {18720, 8960, 1536, DTYPE_BF16, CUDA_GELU, CUBLASLT_MATMUL_TILE_128x288},
    {18720, 1536, 1536, DTYPE_F32, CUDA_PLAIN, CUBLASLT_MATMUL_TILE_128x192},
};

/* All that are recorded are this algorithm, by other tiles. */
static bool has_tile(const cublasLtMatmulAlgo_t *a, uint32_t tile)
{
    const struct config c = config_of(a);
    return c.id == 66 && c.stages == CUBLASLT_MATMUL_STAGES_64xAUTO &&
           c.cluster == CUBLASLT_CLUSTER_SHAPE_2x1x1 && c.tile == tile;
}

/* Which of the n: the recorded one, or the first where none is recorded or this library or GPU does
 * not name it. Only those with success are looked at; where there is none, n. */
static int32_t pick(const struct key *k, const cublasLtMatmulHeuristicResult_t *r, int32_t n)
{
    int32_t first = 0;
    while (first < n && r[first].state != CUBLAS_STATUS_SUCCESS) first++;
    for (size_t i = 0; i < sizeof recorded / sizeof *recorded; i++) {
        if (k->S != recorded[i].S || k->O != recorded[i].O || k->I != recorded[i].I ||
            k->type != DTYPE_BF16 || k->y_type != recorded[i].y_type || !k->has_bias ||
            k->epilogue != (int32_t)recorded[i].epilogue || k->n_batches != 1)
            continue;
        for (int32_t j = first; j < n; j++)
            if (r[j].state == CUBLAS_STATUS_SUCCESS && has_tile(&r[j].algo, recorded[i].tile))
                return j;
    }
    return first;
}

static err_t choose(struct handle *h, struct plan *p)
{
    err_t e = OK;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t results[CHOICES] = {0};
    const size_t n_bytes = CUDA_GEMM_BYTES;
    const uint32_t align_bytes = 16; /* what every pointer of ours has, heads of tensors included */
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    int n = 0;
    CALL(lt.cublasLtMatmulPreferenceCreate(&preference), "preference");
    CALL(lt.cublasLtMatmulPreferenceSetAttribute(
             preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &n_bytes, sizeof n_bytes),
         "preference");
    for (size_t i = 0; i < sizeof aligned / sizeof *aligned; i++)
        CALL(lt.cublasLtMatmulPreferenceSetAttribute(preference, aligned[i], &align_bytes,
                                                     sizeof align_bytes),
             "preference");
    const cublasStatus_t s = lt.cublasLtMatmulAlgoGetHeuristic(
        h->lt, p->desc, p->w, p->x, p->y, p->y, preference, CHOICES, results, &n);
    const int32_t which = s == CUBLAS_STATUS_SUCCESS ? pick(&p->key, results, n) : n;
    if (which >= n)
        e = FAIL(ERR_DEVICE, "cuBLASLt has no algorithm for S %d O %d I %d", p->key.S, p->key.O,
                 p->key.I);
    else {
        p->algo = results[which].algo;
        log_choice(p, which);
    }
out:
    if (preference) lt.cublasLtMatmulPreferenceDestroy(preference);
    return e;
}

static bool recall(const struct handle *h, struct plan *p)
{
    const struct choices *c = h->choices;
    for (uint64_t i = 0; c && i < c->n; i++) {
        if (memcmp(&c->at[i].key, &p->key, sizeof p->key) != 0) continue;
        p->algo = c->at[i].algo;
        return true;
    }
    return false;
}

static void keep(struct handle *h, const struct plan *p)
{
    struct choices *c = h->choices;
    if (!c || c->n == PLANS_MAX) return;
    struct choice *at = &c->at[c->n];
    memcpy(&at->key, &p->key, sizeof at->key);
    at->algo = p->algo;
    atomic_fetch_add(&c->n, 1);
}

static err_t plan_of(struct handle *h, const struct key *k, struct plan **out)
{
    err_t e = OK;
    for (int32_t i = 0; i < h->n_plans; i++) {
        *out = &h->plans[i];
        if (memcmp(&(*out)->key, k, sizeof *k) == 0) return OK;
    }
    if (h->n_plans == PLANS_MAX) return FAIL(ERR_LIMIT, "more than %d kinds of product", PLANS_MAX);
    struct plan *p = &h->plans[h->n_plans];
    memcpy(&p->key, k, sizeof p->key);
    TRY(open_desc(p));
    if (!recall(h, p)) {
        TRY(choose(h, p));
        keep(h, p);
    }
    h->n_plans++;
    *out = p;
    return OK;
out:
    close_plan(p);
    return e;
}

err_t cuda_gemm(struct dev *d, const struct cuda_gemm *g)
{
    err_t e = OK;
    struct handle *h = find(d);
    struct plan *p;
    struct key k;
    MUST(h);
    memset(&k, 0, sizeof k);
    k.type = g->type;
    k.y_type = g->y_type;
    k.S = g->S;
    k.O = g->O;
    k.I = g->I;
    k.n_batches = g->n_batches;
    k.x_stride = g->x_stride;
    k.w_stride = g->w_stride;
    k.y_stride = g->y_stride;
    k.x_batch = g->x_batch;
    k.w_batch = g->w_batch;
    k.y_batch = g->y_batch;
    k.w_is_cols = g->w_is_cols;
    k.epilogue = g->epilogue;
    k.has_bias = g->b != NULL;
    TRY(plan_of(h, &k, &p));
    if (g->b) TRY(set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->b, sizeof g->b));
    CALL(lt.cublasLtMatmul(h->lt, p->desc, &g->alpha, g->w, p->w, g->x, p->x, &g->beta, g->y, p->y,
                           g->y, p->y, &p->algo, cuda_scratch(d)->gemm, CUDA_GEMM_BYTES,
                           cuda_stream(d)),
         "matmul");
out:
    /* What may have been the record's fault is not left for the next process to die of. */
    if (e != OK && h->choices) h->choices->n = 0;
    return e;
}

/* --- the linear ops --------------------------------------------------------------------------- */

static struct cuda_gemm linear(struct tensor y, struct tensor x, struct tensor w)
{
    return (struct cuda_gemm){
        .type = x.dtype,
        .y_type = y.dtype,
        .S = x.shape[0],
        .O = w.shape[0],
        .I = x.shape[1],
        .n_batches = 1,
        .x_stride = x.shape[1],
        .w_stride = x.shape[1],
        .y_stride = w.shape[0],
        .alpha = 1,
        .x = x.data,
        .w = w.data,
        .y = y.data,
    };
}

/* The library adds a bias that has the type of the output; another one takes a pass of its own. */
static bool is_fused(struct tensor y, struct tensor b)
{
    return b.data && b.dtype == y.dtype;
}

err_t cuda_linear(struct dev *d, struct tensor y, struct tensor x, struct tensor w, struct tensor b)
{
    err_t e = OK;
    struct cuda_gemm g = linear(y, x, w);
    if (is_fused(y, b)) g.b = b.data;
    TRY(cuda_gemm(d, &g));
    if (b.data && !g.b) TRY(cuda_bias_act(d, y, b, false));
out:
    return e;
}

err_t cuda_linear_gelu(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                       struct tensor b)
{
    err_t e = OK;
    struct cuda_gemm g = linear(y, x, w);
    if (is_fused(y, b)) g.b = b.data;
    if (y.dtype != DTYPE_F32 && (g.b || !b.data)) g.epilogue = CUDA_GELU;
    TRY(cuda_gemm(d, &g));
    if (g.epilogue != CUDA_GELU) TRY(cuda_bias_act(d, y, g.b ? TENSOR_NONE : b, true));
out:
    return e;
}

/* The product of a residual branch. Where the library can, it is added to y, which is all, and *z
 * is NULL; else *z is x w^T in scratch, of x's type, to be added by a kernel of ours. */
static err_t branch(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                    struct tensor b, struct tensor gate, const void **z)
{
    struct cuda_gemm g = linear(y, x, w);
    *z = NULL;
    if (!gate.data && (!b.data || is_fused(y, b))) {
        g.beta = 1;
        g.b = b.data;
        return cuda_gemm(d, &g);
    }
    *z = g.y = cuda_scratch(d)->data;
    g.y_type = x.dtype;
    if (tensor_bytes(y) > CUDA_SCRATCH_BYTES)
        return FAIL(ERR_SHAPE, "linear_add: scratch has no room for %d rows", y.shape[0]);
    return cuda_gemm(d, &g);
}

err_t cuda_linear_add(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                      struct tensor b, struct tensor gate)
{
    err_t e = OK;
    const void *z;
    TRY(branch(d, y, x, w, b, gate, &z));
    if (z) TRY(cuda_gate_add(d, y, z, x.dtype, b, gate.data));
out:
    return e;
}

err_t cuda_linear_add_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                           struct tensor b, struct tensor gate, struct tensor h,
                           struct tensor scale, struct tensor shift, bool is_modulated, float eps)
{
    err_t e = OK;
    const void *z;
    TRY(branch(d, y, x, w, b, gate, &z));
    if (z) TRY(cuda_gate_add_norm(d, y, z, b, gate.data, h, scale, shift, is_modulated, eps));
    else TRY((is_modulated ? cuda_norm_modulate : cuda_layer_norm)(d, h, y, scale, shift, eps));
out:
    return e;
}
