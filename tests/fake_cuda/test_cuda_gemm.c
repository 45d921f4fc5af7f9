/* test_cuda_gemm.c - which algorithms kernels/cuda/gemm.c asks for, takes, keeps and forgets, and
 * any one call failing, by the cuBLASLt of lt.h. A process is played by opening and closing; what
 * it leaves to the next one is `record`. */
#include <stdbool.h>
#include <string.h>

#include "tests/fake_cuda/rig.h"

enum { KINDS_MAX = 256, DEVS_MAX = 8, VERSION = 130100, HEAD_BYTES = 16 };

/* As gemm.c lays it out: version and number of kinds, then the kinds. */
static struct record {
    uint64_t version, n;
} * record;
static size_t n_record_bytes;

/* --- processes -------------------------------------------------------------------------------- */

/* A machine with this library, on which nothing ran yet. */
static void new_machine(void)
{
    fake_lt = (struct fake_lt){.version = VERSION, .n_algos = 1};
    n_record_bytes = cuda_choices_bytes();
    record = check_alloc(n_record_bytes);
}

static int setup(void **state)
{
    new_machine();
    return rig_setup(state);
}

static void next_process(void)
{
    cuda_gemm_close(rig.d);
    assert_int_equal(fake_lt.n_live, 0);
    assert_ok(cuda_gemm_open(rig.d));
    cuda_choices(rig.d, record);
    fake_lt.n_asked = 0;
}

/* Of halves, which the library does not touch. */
static struct cuda_gemm product(int32_t n_o)
{
    return (struct cuda_gemm){
        .type = DTYPE_BF16,
        .y_type = DTYPE_F32,
        .S = 4,
        .O = n_o,
        .I = 6,
        .n_batches = 1,
        .x_stride = 1000,
        .w_stride = 1000,
        .y_stride = 1000,
        .alpha = 1,
        .x = rig.x,
        .w = rig.w,
        .y = rig.y,
    };
}

static err_t multiply(int32_t n_o)
{
    const struct cuda_gemm g = product(n_o);
    return cuda_gemm(rig.d, &g);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* First of all: a process that has the library does not open it again. */
static void test_a_library_that_is_not_there(void **state)
{
    (void)state;
    rig.soname = "libno-such-thing.so.13";
    rig_want(cuda_gemm_open(rig.d), ERR_NONE, "libno-such-thing.so.13");
    rig_want(cuda_gemm_open(rig.d), ERR_NONE, "install cuBLAS 13");
    rig.soname = "libm.so.6";
    rig_want(cuda_gemm_open(rig.d), ERR_NONE, "cuBLASLt 13 has no cublasLtCreate");
    cuda_gemm_close(rig.d);
    rig.soname = NULL;
    assert_ok(cuda_gemm_open(rig.d));
    rig.soname = "libno-such-thing.so.13";
    next_process();
    rig.soname = NULL;
}

static void test_many_devices(void **state)
{
    (void)state;
    struct dev *more[DEVS_MAX] = {0};
    char name[] = "cuda:0";
    next_process();
    assert_ok(multiply(8));
    for (int i = 0; i < DEVS_MAX; i++) {
        name[5] = (char)('1' + i);
        assert_ok(dev_open(&more[i], name, 1));
        if (i < DEVS_MAX - 1) assert_ok(cuda_gemm_open(more[i]));
    }
    rig_want(cuda_gemm_open(more[DEVS_MAX - 1]), ERR_LIMIT, "more than 8 devices");
    const struct cuda_gemm g = product(8);
    assert_ok(cuda_gemm(more[0], &g));
    assert_int_equal(fake_lt.n_asked, 2); /* a device has its own */
    assert_int_equal(record->n, 1);
    for (int i = 0; i < DEVS_MAX; i++) {
        cuda_gemm_close(more[i]);
        dev_close(&more[i]);
    }
    assert_ok(multiply(8));
}

/* --- kinds of product ------------------------------------------------------------------------- */

static void test_a_kind_is_asked_for_once(void **state)
{
    (void)state;
    next_process();
    for (int i = 0; i < 3; i++) assert_ok(multiply(8));
    struct cuda_gemm g = product(8);
    g.alpha = g.beta = 0.5f;
    g.y = rig.scratch;
    assert_ok(cuda_gemm(rig.d, &g));
    assert_int_equal(fake_lt.n_asked, 1);
    assert_int_equal(record->n, 1);
    next_process();
    assert_ok(multiply(8));
    assert_int_equal(fake_lt.n_asked, 0);
    assert_ok(multiply(9));
    assert_int_equal(fake_lt.n_asked, 1);
    assert_int_equal(record->n, 2);
    next_process();
    assert_ok(multiply(9));
    assert_ok(multiply(8));
    assert_int_equal(fake_lt.n_asked, 0);
}

static void test_without_a_record(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_ok(cuda_gemm_open(rig.d));
        assert_ok(multiply(8));
        assert_ok(multiply(8));
        assert_int_equal(fake_lt.n_asked, 1 + i);
        fake_lt.fail = 1;
        rig_want(multiply(8), ERR_DEVICE, "matmul");
        cuda_gemm_close(rig.d);
    }
}

static void test_what_tells_kinds_apart(void **state)
{
    (void)state;
    struct cuda_gemm k[16];
    int32_t n = (int32_t)COUNT(k);
    for (int32_t i = 0; i < n; i++) {
        k[i] = product(8);
        k[i].n_batches = 2;
    }
    k[1].type = DTYPE_F16;
    k[2].y_type = DTYPE_BF16;
    k[3].S++;
    k[4].O++;
    k[5].I++;
    k[6].n_batches++;
    k[7].x_stride++;
    k[8].w_stride++;
    k[9].y_stride++;
    k[10].x_batch++;
    k[11].w_batch++;
    k[12].y_batch++;
    k[13].w_is_cols = true;
    k[14].epilogue = CUDA_GELU;
    k[15].b = rig.b;
    next_process();
    for (int32_t i = 0; i < n; i++) {
        assert_ok(cuda_gemm(rig.d, &k[i]));
        if (fake_lt.n_asked != i + 1) fail_msg("kind %d was not asked for", i);
        assert_int_equal(fake_lt.last.type, i == 1 ? CUDA_R_16F : CUDA_R_16BF);
    }
    for (int32_t i = 0; i < n; i++) assert_ok(cuda_gemm(rig.d, &k[i]));
    assert_int_equal(fake_lt.n_asked, n);
    next_process();
    for (int32_t i = n - 1; i >= 0; i--) assert_ok(cuda_gemm(rig.d, &k[i]));
    assert_int_equal(fake_lt.n_asked, 0);
}

static void test_more_kinds_than_there_is_room_for(void **state)
{
    (void)state;
    next_process();
    for (int32_t i = 1; i <= KINDS_MAX; i++) assert_ok(multiply(i));
    assert_int_equal(record->n, KINDS_MAX);
    next_process();
    for (int32_t i = 1; i <= KINDS_MAX; i++) assert_ok(multiply(i));
    assert_int_equal(fake_lt.n_asked, 0);
    rig_want(multiply(KINDS_MAX + 1), ERR_LIMIT, "more than 256 kinds of product");
    assert_ok(multiply(KINDS_MAX));

    next_process(); /* a record that is full of other kinds */
    for (int32_t i = 1; i <= KINDS_MAX; i++) assert_ok(multiply(i));
    next_process();
    void *full = check_alloc(n_record_bytes);
    memcpy(full, record, n_record_bytes);
    assert_ok(multiply(KINDS_MAX + 1));
    assert_int_equal(fake_lt.n_asked, 1);
    assert_memory_equal(record, full, n_record_bytes);
}

/* --- records that are of no use --------------------------------------------------------------- */

static void test_a_record_of_another_library(void **state)
{
    (void)state;
    next_process();
    assert_ok(multiply(8));
    assert_ok(multiply(9));
    fake_lt.version++;
    next_process();
    assert_int_equal(record->n, 0);
    assert_int_equal(record->version, VERSION + 1);
    assert_ok(multiply(8));
    assert_int_equal(fake_lt.n_asked, 1);
    next_process();
    assert_ok(multiply(8));
    assert_int_equal(fake_lt.n_asked, 0);
}

static void test_a_record_that_cannot_be(void **state)
{
    (void)state;
    static const uint64_t bad[] = {KINDS_MAX + 1, UINT64_MAX};
    for (size_t i = 0; i < COUNT(bad); i++) {
        next_process();
        assert_ok(multiply(8));
        record->n = bad[i];
        next_process();
        assert_int_equal(record->n, 0);
        assert_ok(multiply(8));
        assert_int_equal(fake_lt.n_asked, 1);
    }
}

/* --- failures --------------------------------------------------------------------------------- */

static void test_a_product_that_fails(void **state)
{
    (void)state;
    next_process();
    assert_ok(multiply(8));
    assert_ok(multiply(9));
    next_process();
    assert_ok(multiply(9));
    fake_lt.fail = 1;
    rig_want(multiply(8), ERR_DEVICE, "cuBLASLt status 14");
    assert_int_equal(record->n, 0);
    next_process();
    assert_ok(multiply(8));
    assert_ok(multiply(9));
    assert_int_equal(fake_lt.n_asked, 2);
    fake_lt.fail = 1; /* of a kind that has an algorithm already */
    rig_want(multiply(8), ERR_DEVICE, "matmul: cuBLASLt status 14");
    assert_string_equal(fake_lt.failed, "cublasLtMatmul");
    assert_int_equal(record->n, 0);
    assert_ok(multiply(8));
}

/* An algorithm that does not serve is refused by the library, whoever is to blame. */
static void test_a_record_that_lies(void **state)
{
    (void)state;
    next_process();
    assert_ok(multiply(8));
    const size_t kind_bytes = (n_record_bytes - HEAD_BYTES) / KINDS_MAX;
    memset((char *)record + HEAD_BYTES + kind_bytes - sizeof(cublasLtMatmulAlgo_t), 1,
           sizeof(cublasLtMatmulAlgo_t));
    next_process();
    rig_want(multiply(8), ERR_DEVICE, "matmul: cuBLASLt status 7");
    assert_int_equal(record->n, 0);
    next_process();
    assert_ok(multiply(8));
    assert_int_equal(fake_lt.n_asked, 1);
}

static void test_a_kind_without_an_algorithm(void **state)
{
    (void)state;
    next_process();
    assert_ok(multiply(8));
    fake_lt.n_algos = 0;
    rig_want(multiply(9), ERR_DEVICE, "cuBLASLt has no algorithm for S 4 O 9 I 6");
    assert_int_equal(record->n, 0);
    fake_lt.n_algos = 2;
    fake_lt.algos[0].state = fake_lt.algos[1].state = CUBLAS_STATUS_NOT_SUPPORTED;
    rig_want(multiply(9), ERR_DEVICE, "cuBLASLt has no algorithm for S 4 O 9 I 6");
    fake_lt.algos[1].state = CUBLAS_STATUS_SUCCESS;
    assert_ok(multiply(9));
    assert_int_equal(fake_lt.last.algo, 1);
}

/* Calls whose failure changes nothing that anybody could act on. */
static bool is_quiet(const char *call)
{
    return strstr(call, "Destroy") || strcmp(call, "cublasLtMatmulAlgoConfigGetAttribute") == 0;
}

/* The library is opened and asked for two kinds of product, the second with all there is to set. */
static err_t two_products(void)
{
    err_t e = OK;
    struct cuda_gemm g = product(8);
    g.n_batches = 2;
    g.b = rig.b;
    TRY(cuda_gemm_open(rig.d));
    cuda_choices(rig.d, record);
    TRY(multiply(9));
    TRY(cuda_gemm(rig.d, &g));
out:
    return e;
}

static void test_any_call_fails(void **state)
{
    (void)state;
    const char *failed;
    int nth = 0;
    do {
        new_machine();
        fake_lt.fail = ++nth;
        const err_t e = two_products();
        failed = fake_lt.failed;
        if (e != OK) rig_want(e, ERR_DEVICE, "cuBLASLt");
        if ((e == OK) != (!failed || is_quiet(failed)))
            fail_msg("call %d, %s, fails: code %d", nth, failed, e);
        assert_int_equal(record->n, e == OK ? 2 : 0);
        if (nth > 1) {
            fake_lt.fail = 1; /* and again, where the first one had failed later */
            rig_want(multiply(7), ERR_DEVICE, "cuBLASLt");
        }
        cuda_gemm_close(rig.d);
        if (fake_lt.n_live != 0)
            fail_msg("call %d, %s, leaves %d things", nth, failed, fake_lt.n_live);
    } while (failed);
    assert_true(nth > 30);
}

/* --- which algorithm -------------------------------------------------------------------------- */

/* The product and the library's answer to which a row of gemm.c's `recorded` applies, at 2. */
static struct cuda_gemm recorded(int row)
{
    static const struct {
        int32_t O;
        enum dtype y_type;
        enum cuda_epilogue epilogue;
        uint32_t tile;
    } rows[] = {{4608, DTYPE_BF16, CUDA_PLAIN, CUBLASLT_MATMUL_TILE_128x224},
                {8960, DTYPE_BF16, CUDA_GELU, CUBLASLT_MATMUL_TILE_128x288},
                {1536, DTYPE_F32, CUDA_PLAIN, CUBLASLT_MATMUL_TILE_128x192}};
    const struct fake_lt_algo algo = {.id = 66,
                                      .tile = rows[row].tile,
                                      .stages = CUBLASLT_MATMUL_STAGES_64xAUTO,
                                      .cluster = CUBLASLT_CLUSTER_SHAPE_2x1x1};
    struct cuda_gemm g = product(rows[row].O);
    g.S = 18720;
    g.I = 1536;
    g.x_stride = g.w_stride = g.y_stride = 10000;
    g.y_type = rows[row].y_type;
    g.epilogue = rows[row].epilogue;
    g.b = rig.b;
    fake_lt.n_algos = 5;
    for (int i = 0; i < 5; i++) fake_lt.algos[i] = algo;
    fake_lt.algos[0].tile = fake_lt.algos[1].tile = 1;
    return g;
}

static void want_algo(const struct cuda_gemm *g, int32_t algo, const char *what)
{
    record->n = 0;
    next_process();
    assert_ok(cuda_gemm(rig.d, g));
    if (fake_lt.last.algo != algo) fail_msg("%s: algorithm %d", what, fake_lt.last.algo);
}

static void test_recorded_algorithms(void **state)
{
    (void)state;
    struct cuda_gemm g;
    for (int row = 0; row < 3; row++) {
        g = recorded(row);
        want_algo(&g, 2, "as recorded");
        next_process(); /* a successor takes it, whatever the library would say */
        fake_lt.n_algos = 1;
        assert_ok(cuda_gemm(rig.d, &g));
        assert_int_equal(fake_lt.last.algo, 2);
    }
    g = recorded(0);
    fake_lt.algos[2].state = CUBLAS_STATUS_NOT_SUPPORTED;
    want_algo(&g, 3, "the first of two does not serve");
    fake_lt.n_algos = 2;
    want_algo(&g, 0, "the library does not name it");
    fake_lt.algos[0].state = CUBLAS_STATUS_NOT_SUPPORTED;
    want_algo(&g, 1, "nor does the first serve");

    static const struct fake_lt_algo others[] = {
        {0, 65, CUBLASLT_MATMUL_TILE_128x224, CUBLASLT_MATMUL_STAGES_64xAUTO, 3},
        {0, 66, CUBLASLT_MATMUL_TILE_128x288, CUBLASLT_MATMUL_STAGES_64xAUTO, 3},
        {0, 66, CUBLASLT_MATMUL_TILE_128x224, 1, 3},
        {0, 66, CUBLASLT_MATMUL_TILE_128x224, CUBLASLT_MATMUL_STAGES_64xAUTO, 4}};
    for (size_t i = 0; i < COUNT(others); i++) {
        g = recorded(0);
        fake_lt.n_algos = 3;
        fake_lt.algos[2] = others[i];
        want_algo(&g, 0, "another algorithm");
    }
}

static void test_other_products_get_the_first(void **state)
{
    (void)state;
    for (int row = 0; row < 3; row++) {
        struct cuda_gemm k[8];
        for (size_t i = 0; i < COUNT(k); i++) k[i] = recorded(row);
        k[0].S--;
        k[1].O--;
        k[2].I--;
        k[3].type = DTYPE_F16;
        if (k[3].y_type == DTYPE_BF16) k[3].y_type = DTYPE_F16;
        k[4].y_type = k[4].y_type == DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32;
        k[5].b = NULL;
        k[6].epilogue = k[6].epilogue == CUDA_GELU ? CUDA_PLAIN : CUDA_GELU;
        k[7].n_batches = 2;
        for (size_t i = 0; i < COUNT(k); i++) want_algo(&k[i], 0, "another product");
    }
}

#define PLAYED(f) cmocka_unit_test_setup_teardown(f, setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAYED(test_a_library_that_is_not_there), PLAYED(test_many_devices),
        PLAYED(test_a_kind_is_asked_for_once),    PLAYED(test_without_a_record),
        PLAYED(test_what_tells_kinds_apart),      PLAYED(test_more_kinds_than_there_is_room_for),
        PLAYED(test_a_record_of_another_library), PLAYED(test_a_record_that_cannot_be),
        PLAYED(test_a_product_that_fails),        PLAYED(test_a_record_that_lies),
        PLAYED(test_a_kind_without_an_algorithm), PLAYED(test_any_call_fails),
        PLAYED(test_recorded_algorithms),         PLAYED(test_other_products_get_the_first),
    };
    return cmocka_run_group_tests_name("cuda_gemm", tests, NULL, NULL);
}
