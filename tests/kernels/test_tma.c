/* test_tma.c - tensor maps: made for shapes the kernels use, refused where the hardware could not
 * read them. Only a driver can say, so without a GPU there is nothing to test. */
#include "tests/check.h"

#ifdef WITH_CUDA
#include "kernels/cuda/cuda.h"

static void test_maps(void **state)
{
    (void)state;
    struct dev *d = NULL;
    void *p = NULL;
    CUtensorMap m;
    if (!check_on_gpu()) skip();
    assert_ok(dev_open(&d, check_device(), 1));
    assert_ok(dev_alloc(d, 1 << 20, &p));
    assert_ok(cuda_map_heads(&m, TENSOR(p, DTYPE_BF16, 100, 12, 128), ATTN_TILE_Q));
    assert_ok(cuda_map_pictures(&m, TENSOR(p, DTYPE_F16, 2, 10, 13, 96), 32, 18, 34));
    assert_ok(cuda_map_matrix(&m, p, 96, 27 * 96, 32, 96));
    /* Rows of 2 * 5 bytes are no multiple of 16. */
    assert_int_equal(cuda_map_matrix(&m, p, 96, 5, 32, 96), ERR_BUG);
    dev_free(d, &p);
    dev_close(&d);
}
#else
static void test_maps(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_maps)};
    return cmocka_run_group_tests_name("tma", tests, NULL, NULL);
}
