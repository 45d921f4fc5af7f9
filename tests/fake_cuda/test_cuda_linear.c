/* test_cuda_linear.c - what products of kernels/cuda/gemm.c are, and the linear ops that are put
 * together from them, by the cuBLASLt of lt.h. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "tests/fake_cuda/rig.h"

enum { S = 5, O = 3, I = 7 };

static int setup(void **state)
{
    fake_lt = (struct fake_lt){.n_algos = 1};
    rig_setup(state);
    assert_ok(cuda_gemm_open(rig.d));
    return 0;
}

/* --- numbers ---------------------------------------------------------------------------------- */

/* Small whole numbers, of which sums are exact. */
static void fill(float *p, int n)
{
    for (int i = 0; i < RIG_ROOM; i++) p[i] = (float)((i * n) % 17 - 8);
}

static float wanted(const struct cuda_gemm *g, float was, int32_t batch, int32_t s, int32_t o)
{
    const float *x = (const float *)g->x + batch * g->x_batch + s * g->x_stride;
    const float *w = (const float *)g->w + batch * g->w_batch;
    float sum = 0;
    for (int32_t i = 0; i < g->I; i++)
        sum += x[i] * (g->w_is_cols ? w[i * g->w_stride + o] : w[o * g->w_stride + i]);
    return g->alpha * sum + (g->b ? ((const float *)g->b)[o] : 0) +
           (g->beta != 0 ? g->beta * was : 0);
}

/* The product, each number of y and none beside it; where y is not read it is poisoned. */
static void check_numbers(const struct cuda_gemm *g)
{
    static float was[RIG_ROOM];
    bool is_of_y[RIG_ROOM] = {false};
    for (int i = 0; i < RIG_ROOM; i++) rig.y[i] = g->beta != 0 ? (float)(i % 5) : NAN;
    memcpy(was, rig.y, sizeof was);
    assert_ok(cuda_gemm(rig.d, g));
    assert_ptr_equal(fake_lt.last.stream, cuda_stream(rig.d));
    for (int32_t n = 0; n < g->n_batches; n++)
        for (int32_t s = 0; s < g->S; s++)
            for (int32_t o = 0; o < g->O; o++) {
                const int64_t i = n * g->y_batch + s * g->y_stride + o;
                assert_true(rig.y[i] == wanted(g, was[i], n, s, o));
                is_of_y[i] = true;
            }
    for (int i = 0; i < RIG_ROOM; i++)
        if (!is_of_y[i]) assert_memory_equal(&rig.y[i], &was[i], sizeof *was);
}

static struct cuda_gemm dense(void)
{
    fill(rig.x, 5);
    fill(rig.w, 7);
    fill(rig.b, 3);
    fill(rig.other_b, 11);
    return (struct cuda_gemm){
        .type = DTYPE_F32,
        .y_type = DTYPE_F32,
        .S = S,
        .O = O,
        .I = I,
        .n_batches = 1,
        .x_stride = I,
        .w_stride = I,
        .y_stride = O,
        .alpha = 1,
        .x = rig.x,
        .w = rig.w,
        .y = rig.y,
    };
}

static void test_numbers(void **state)
{
    (void)state;
    struct cuda_gemm g = dense();
    check_numbers(&g);
    g.alpha = 0.5f;
    check_numbers(&g);
    g.b = rig.b;
    check_numbers(&g);
    g.b = rig.other_b; /* of one kind, each with its own */
    check_numbers(&g);
    g.beta = 1;
    check_numbers(&g);
    g.w_is_cols = true;
    g.w_stride = O;
    check_numbers(&g);
    g.x_stride = 11;
    g.w_stride = 9;
    g.y_stride = 13;
    check_numbers(&g);
    g.n_batches = 3;
    g.x_batch = 100;
    g.w_batch = 0; /* one for all */
    g.y_batch = 200;
    check_numbers(&g);
    g.w_batch = 300;
    g.b = NULL;
    g.beta = 0;
    check_numbers(&g);
}

/* --- the linear ops --------------------------------------------------------------------------- */

static struct tensor matrix(void *p, enum dtype t, int32_t rows, int32_t cols)
{
    return TENSOR(p, t, rows, cols);
}

static void test_linear_is_a_product(void **state)
{
    (void)state;
    static float first[S * O], sum[S * O];
    const struct tensor x = matrix(rig.x, DTYPE_F32, S, I), w = matrix(rig.w, DTYPE_F32, O, I);
    const struct tensor y = matrix(rig.y, DTYPE_F32, S, O), b = TENSOR(rig.b, DTYPE_F32, O);
    struct cuda_gemm g = dense();
    g.b = rig.b;
    check_numbers(&g);
    memcpy(first, rig.y, sizeof first);
    memset(rig.y, 0xFF, sizeof first); /* NaN */
    assert_ok(cuda_linear(rig.d, y, x, w, b));
    assert_memory_equal(rig.y, first, sizeof first);
    for (int i = 0; i < S * O; i++) sum[i] = 2 * first[i];
    assert_ok(cuda_linear_add(rig.d, y, x, w, b, TENSOR_NONE));
    assert_memory_equal(rig.y, sum, sizeof sum);
}

/* What the last op asked of the library and of a kernel of ours; NULL: of none. */
static void want_linear(err_t e, cublasLtEpilogue_t epilogue, float beta, const void *y,
                        const char *pass, const void *b)
{
    assert_ok(e);
    assert_int_equal(fake_lt.last.epilogue, epilogue);
    assert_true(fake_lt.last.beta == beta);
    assert_ptr_equal(fake_lt.last.y, y);
    assert_string_equal(rig.pass.name ? rig.pass.name : "none", pass ? pass : "none");
    if (pass) assert_ptr_equal(rig.pass.y, y);
    assert_ptr_equal(rig.pass.b, b);
    rig.pass = (struct rig_pass){0};
}

static void test_linear(void **state)
{
    (void)state;
    const struct tensor x = matrix(rig.x, DTYPE_BF16, S, I), w = matrix(rig.w, DTYPE_BF16, O, I);
    const struct tensor y = matrix(rig.y, DTYPE_BF16, S, O), y32 = matrix(rig.y, DTYPE_F32, S, O);
    const struct tensor b = TENSOR(rig.b, DTYPE_BF16, O), b32 = TENSOR(rig.b, DTYPE_F32, O);
    const cublasLtEpilogue_t plain = CUBLASLT_EPILOGUE_DEFAULT, bias = CUBLASLT_EPILOGUE_BIAS,
                             gelu = CUBLASLT_EPILOGUE_GELU, both = CUBLASLT_EPILOGUE_GELU_BIAS;
    want_linear(cuda_linear(rig.d, y, x, w, TENSOR_NONE), plain, 0, rig.y, NULL, NULL);
    want_linear(cuda_linear(rig.d, y, x, w, b), bias, 0, rig.y, NULL, NULL);
    want_linear(cuda_linear(rig.d, y, x, w, b32), plain, 0, rig.y, "bias", rig.b);
    want_linear(cuda_linear(rig.d, y32, x, w, b32), bias, 0, rig.y, NULL, NULL);
    want_linear(cuda_linear_gelu(rig.d, y, x, w, TENSOR_NONE), gelu, 0, rig.y, NULL, NULL);
    want_linear(cuda_linear_gelu(rig.d, y, x, w, b), both, 0, rig.y, NULL, NULL);
    want_linear(cuda_linear_gelu(rig.d, y, x, w, b32), plain, 0, rig.y, "bias_gelu", rig.b);
    want_linear(cuda_linear_gelu(rig.d, y32, x, w, b32), bias, 0, rig.y, "bias_gelu", NULL);
}

static void test_linear_add(void **state)
{
    (void)state;
    const struct tensor x = matrix(rig.x, DTYPE_BF16, S, I), w = matrix(rig.w, DTYPE_BF16, O, I);
    const struct tensor y = matrix(rig.y, DTYPE_F32, S, O), b = TENSOR(rig.b, DTYPE_BF16, O);
    const struct tensor b32 = TENSOR(rig.b, DTYPE_F32, O), none = TENSOR_NONE;
    const cublasLtEpilogue_t plain = CUBLASLT_EPILOGUE_DEFAULT, bias = CUBLASLT_EPILOGUE_BIAS;
    want_linear(cuda_linear_add(rig.d, y, x, w, none, none), plain, 1, rig.y, NULL, NULL);
    want_linear(cuda_linear_add(rig.d, y, x, w, b32, none), bias, 1, rig.y, NULL, NULL);
    want_linear(cuda_linear_add(rig.d, y, x, w, b, none), plain, 0, rig.scratch, "gate_add", rig.b);
    want_linear(cuda_linear_add(rig.d, y, x, w, b32, b32), plain, 0, rig.scratch, "gate_add",
                rig.b);
    want_linear(cuda_linear_add_norm(rig.d, y, x, w, b32, none, y, none, none, false, 1e-6f), bias,
                1, rig.y, "layer_norm", NULL);
    want_linear(cuda_linear_add_norm(rig.d, y, x, w, b32, none, y, b32, b32, true, 1e-6f), bias, 1,
                rig.y, "norm_modulate", rig.b);
    want_linear(cuda_linear_add_norm(rig.d, y, x, w, b32, b32, y, none, none, false, 1e-6f), plain,
                0, rig.scratch, "gate_add_norm", rig.b);
    const int32_t many = CUDA_SCRATCH_BYTES / O;
    rig_want(cuda_linear_add(rig.d, matrix(rig.y, DTYPE_F32, many, O),
                             matrix(rig.x, DTYPE_BF16, many, I), w, b32, b32),
             ERR_SHAPE, "scratch has no room for");
}

#define PLAYED(f) cmocka_unit_test_setup_teardown(f, setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAYED(test_numbers),
        PLAYED(test_linear_is_a_product),
        PLAYED(test_linear),
        PLAYED(test_linear_add),
    };
    return cmocka_run_group_tests_name("cuda_linear", tests, NULL, NULL);
}
