/* test_tensor.c - views: counts, rows, other shapes. */
#include "common/tensor.h"
#include "tests/check.h"

static void test_bytes_of_types(void **state)
{
    (void)state;
    static const size_t bytes[DTYPES] = {4, 2, 2, 4, 8, 1};
    static const char *const names[DTYPES] = {"f32", "bf16", "f16", "i32", "u64", "u8"};
    for (enum dtype t = 0; t < DTYPES; t++) {
        assert_int_equal(dtype_bytes(t), bytes[t]);
        assert_int_equal(tensor_bytes(TENSOR(NULL, t, 3, 5)), 15 * bytes[t]);
        assert_string_equal(dtype_name(t), names[t]);
    }
}

static void test_of(void **state)
{
    (void)state;
    float x[6];
    const struct tensor t = TENSOR(x, DTYPE_F32, 1, 2, 3);
    assert_ptr_equal(t.data, x);
    assert_int_equal(t.rank, 3);
    assert_int_equal(t.shape[0], 1);
    assert_int_equal(t.shape[2], 3);
    assert_int_equal(t.shape[3], 0);
    assert_int_equal(t.dtype, DTYPE_F32);
}

static void test_count(void **state)
{
    (void)state;
    assert_int_equal(tensor_count(TENSOR_NONE), 0);
    assert_int_equal(tensor_bytes(TENSOR_NONE), 0);
    assert_int_equal(tensor_count(TENSOR(NULL, DTYPE_U8, 7)), 7);
    assert_int_equal(tensor_count(TENSOR(NULL, DTYPE_F32, 2, 0, 3)), 0);
    /* More than 32 bits hold. */
    assert_int_equal(tensor_count(TENSOR(NULL, DTYPE_F32, 70000, 70000)), 4900000000);
    assert_int_equal(tensor_bytes(TENSOR(NULL, DTYPE_U64, 70000, 70000)), 39200000000);
}

static void test_rows(void **state)
{
    (void)state;
    float x[4 * 3 * 2];
    const struct tensor t = TENSOR(x, DTYPE_F32, 4, 3, 2);
    struct tensor r = tensor_rows(t, 1, 2);
    assert_ptr_equal(r.data, x + 6);
    assert_int_equal(r.shape[0], 2);
    assert_int_equal(r.shape[1], 3);
    assert_int_equal(tensor_count(r), 12);
    r = tensor_rows(t, 4, 0);
    assert_int_equal(tensor_count(r), 0);
    r = tensor_rows(TENSOR(x, DTYPE_U8, 24), 5, 3);
    assert_ptr_equal(r.data, (char *)x + 5);
}

static void test_reshape(void **state)
{
    (void)state;
    float x[24];
    const struct tensor t = RESHAPE(TENSOR(x, DTYPE_I32, 4, 6), 2, 3, 4);
    assert_ptr_equal(t.data, x);
    assert_int_equal(t.dtype, DTYPE_I32);
    assert_int_equal(t.rank, 3);
    assert_int_equal(tensor_count(t), 24);
}

/* Each broken promise ends the process. */
static void rows_beyond(void)
{
    (void)tensor_rows(TENSOR(NULL, DTYPE_F32, 4, 3), 3, 2);
}

static void rows_before(void)
{
    (void)tensor_rows(TENSOR(NULL, DTYPE_F32, 4, 3), -1, 2);
}

static void reshape_to_more(void)
{
    (void)RESHAPE(TENSOR(NULL, DTYPE_F32, 4, 3), 13);
}

static void negative_dimension(void)
{
    (void)TENSOR(NULL, DTYPE_F32, 4, -3);
}

static void rank_6(void)
{
    (void)TENSOR(NULL, DTYPE_F32, 1, 1, 1, 1, 1, 1);
}

static void test_broken_promises_abort(void **state)
{
    (void)state;
    check_aborts(rows_beyond);
    check_aborts(rows_before);
    check_aborts(reshape_to_more);
    check_aborts(negative_dimension);
    check_aborts(rank_6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_types), cmocka_unit_test(test_of),
        cmocka_unit_test(test_count),          cmocka_unit_test(test_rows),
        cmocka_unit_test(test_reshape),        cmocka_unit_test(test_broken_promises_abort),
    };
    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
