/* lt.c - see lt.h. Matrices are counted columns first: rows lie together. */
#include "tests/fake_cuda/lt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

struct fake_lt fake_lt;

struct cublasLtContext {
    int unused;
};

struct fake_lt_desc {
    cublasComputeType_t compute;
    cudaDataType_t scale, bias_type;
    cublasOperation_t a_op;
    cublasLtEpilogue_t epilogue;
    const float *bias;
};

struct fake_lt_layout {
    cudaDataType_t type;
    int64_t rows, cols, stride, batch;
    int32_t n_batches;
};

struct fake_lt_preference {
    size_t n_bytes;
    uint32_t align[4]; /* of A, B, C, D */
};

struct algo {
    uint64_t version, kind;
    size_t n_bytes;
    int32_t index;
    uint32_t align[4];
};
_Static_assert(sizeof(struct algo) <= sizeof(cublasLtMatmulAlgo_t), "algo");

static cublasStatus_t enter(const char *call)
{
    if (fake_lt.fail == 0 || --fake_lt.fail > 0) return CUBLAS_STATUS_SUCCESS;
    fake_lt.failed = call;
    return CUBLAS_STATUS_INTERNAL_ERROR;
}

#define ENTER()                                                                                    \
    do {                                                                                           \
        const cublasStatus_t s_ = enter(__func__);                                                 \
        if (s_ != CUBLAS_STATUS_SUCCESS) return s_;                                                \
    } while (0)

static void *make(size_t bytes)
{
    void *p = calloc(1, bytes);
    MUST(p);
    fake_lt.n_live++;
    return p;
}

static cublasStatus_t unmake(const char *call, void *p)
{
    MUST(p);
    free(p);
    fake_lt.n_live--;
    return enter(call);
}

static cublasStatus_t set(void *field, size_t field_bytes, const void *value, size_t bytes)
{
    if (bytes != field_bytes) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
#define SET(field) set(&(field), sizeof(field), value, bytes)

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lt)
{
    ENTER();
    *lt = make(sizeof **lt);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lt)
{
    return unmake(__func__, lt);
}

size_t cublasLtGetVersion(void)
{
    return fake_lt.version;
}

/* --- what describes a product ----------------------------------------------------------------- */

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    ENTER();
    *desc = make(sizeof **desc);
    **desc = (struct fake_lt_desc){
        .compute = compute, .scale = scale, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    return unmake(__func__, desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t which,
                                              const void *value, size_t bytes)
{
    ENTER();
    switch (which) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return SET(desc->a_op);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return SET(desc->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return SET(desc->bias);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return SET(desc->bias_type);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t stride)
{
    ENTER();
    *layout = make(sizeof **layout);
    **layout = (struct fake_lt_layout){.type = type,
                                       .rows = (int64_t)rows,
                                       .cols = (int64_t)cols,
                                       .stride = stride,
                                       .n_batches = 1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return unmake(__func__, layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t which,
                                                const void *value, size_t bytes)
{
    ENTER();
    switch (which) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return SET(layout->n_batches);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return SET(layout->batch);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    ENTER();
    *preference = make(sizeof **preference);
    **preference = (struct fake_lt_preference){.align = {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return unmake(__func__, preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t which,
                                                    const void *value, size_t bytes)
{
    ENTER();
    if (which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return SET(preference->n_bytes);
    if (which < CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES ||
        which > CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES)
        return CUBLAS_STATUS_INVALID_VALUE;
    return SET(preference->align[which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES]);
}

/* --- algorithms ------------------------------------------------------------------------------- */

static bool has_bias(const struct fake_lt_desc *desc)
{
    return desc->epilogue & CUBLASLT_EPILOGUE_BIAS;
}

static bool is_product(const struct fake_lt_desc *desc, const struct fake_lt_layout *const m[4])
{
    const bool is_t = desc->a_op == CUBLAS_OP_T;
    const struct fake_lt_layout *a = m[0], *b = m[1], *d = m[3];
    for (int i = 0; i < 4; i++)
        if (m[i]->stride < m[i]->rows || m[i]->n_batches != d->n_batches) return false;
    return desc->compute == CUBLAS_COMPUTE_32F && desc->scale == CUDA_R_32F && a->type == b->type &&
           (d->type == CUDA_R_32F || d->type == a->type) && m[2]->type == d->type &&
           (!has_bias(desc) || desc->bias_type == d->type) && b->cols == d->cols &&
           (is_t ? a->cols : a->rows) == d->rows && (is_t ? a->rows : a->cols) == b->rows &&
           m[2]->rows == d->rows && m[2]->cols == d->cols;
}

/* FNV-1a of all that tells kinds of product apart. */
static uint64_t kind_of(const struct fake_lt_desc *desc, const struct fake_lt_layout *const m[4])
{
    int64_t words[3 + 4 * 6] = {desc->a_op, desc->epilogue, desc->bias_type};
    uint64_t hash = 0xCBF29CE484222325u;
    for (int i = 0; i < 4; i++)
        memcpy(&words[3 + 6 * i],
               (int64_t[]){m[i]->type, m[i]->rows, m[i]->cols, m[i]->stride, m[i]->batch,
                           m[i]->n_batches},
               6 * sizeof *words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        hash = (hash ^ (uint64_t)words[i]) * 0x100000001B3u;
    return hash;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *n)
{
    const struct fake_lt_layout *const m[] = {a, b, c, d};
    ENTER();
    MUST(lt);
    fake_lt.n_asked++;
    if (!is_product(desc, m)) return CUBLAS_STATUS_NOT_SUPPORTED;
    *n = n_wanted < fake_lt.n_algos ? n_wanted : fake_lt.n_algos;
    for (int i = 0; i < *n; i++) {
        struct algo of = {.version = fake_lt.version,
                          .kind = kind_of(desc, m),
                          .n_bytes = preference->n_bytes,
                          .index = i};
        memcpy(of.align, preference->align, sizeof of.align);
        memcpy(&results[i].algo, &of, sizeof of);
        results[i].state = fake_lt.algos[i].state;
    }
    return CUBLAS_STATUS_SUCCESS;
}

static struct algo opened(const cublasLtMatmulAlgo_t *algo)
{
    struct algo of;
    memcpy(&of, algo, sizeof of);
    return of;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t which,
                                                    void *value, size_t bytes, size_t *n_written)
{
    ENTER();
    const struct fake_lt_algo *config = &fake_lt.algos[opened(algo).index];
    *n_written = bytes;
    switch (which) {
    case CUBLASLT_ALGO_CONFIG_ID:
        return set(value, bytes, &config->id, sizeof config->id);
    case CUBLASLT_ALGO_CONFIG_TILE_ID:
        return set(value, bytes, &config->tile, sizeof config->tile);
    case CUBLASLT_ALGO_CONFIG_STAGES_ID:
        return set(value, bytes, &config->stages, sizeof config->stages);
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID:
        return set(value, bytes, &config->cluster, sizeof config->cluster);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* --- the product ------------------------------------------------------------------------------ */

static void multiply(const struct fake_lt_desc *desc, const struct fake_lt_layout *const m[4],
                     float alpha, const float *a, const float *b, float beta, const float *c,
                     float *d)
{
    const int64_t row = desc->a_op == CUBLAS_OP_T ? m[0]->stride : 1;
    const int64_t col = desc->a_op == CUBLAS_OP_T ? 1 : m[0]->stride;
    for (int64_t j = 0; j < m[3]->cols; j++)
        for (int64_t i = 0; i < m[3]->rows; i++) {
            float sum = 0;
            for (int64_t k = 0; k < m[1]->rows; k++)
                sum += a[i * row + k * col] * b[k + j * m[1]->stride];
            sum *= alpha;
            if (has_bias(desc)) sum += desc->bias[i];
            if (beta != 0) sum += beta * c[i + j * m[2]->stride];
            d[i + j * m[3]->stride] = sum;
        }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    const struct fake_lt_layout *const m[] = {a_layout, b_layout, c_layout, d_layout};
    const void *const at[] = {a, b, c, d};
    const struct algo of = opened(algo);
    ENTER();
    MUST(lt);
    bool is_good = of.version == fake_lt.version && of.kind == kind_of(desc, m) && workspace &&
                   workspace_bytes >= of.n_bytes && (!has_bias(desc) || desc->bias);
    for (int i = 0; i < 4; i++) is_good = is_good && at[i] && (uintptr_t)at[i] % of.align[i] == 0;
    if (!is_good) return CUBLAS_STATUS_INVALID_VALUE;
    fake_lt.last = (struct fake_lt_product){
        of.index, a_layout->type, desc->epilogue, *(const float *)beta, d, stream};
    if (a_layout->type != CUDA_R_32F || desc->epilogue & CUBLASLT_EPILOGUE_GELU)
        return CUBLAS_STATUS_SUCCESS;
    for (int32_t i = 0; i < d_layout->n_batches; i++)
        multiply(desc, m, *(const float *)alpha, (const float *)a + i * a_layout->batch,
                 (const float *)b + i * b_layout->batch, *(const float *)beta,
                 (const float *)c + i * c_layout->batch, (float *)d + i * d_layout->batch);
    return CUBLAS_STATUS_SUCCESS;
}
