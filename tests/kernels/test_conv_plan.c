/* test_conv_plan.c - convolution cut into tiles: every output once; which shapes have a kernel. */
#include "kernels/cuda/conv_plan.h"

#include "tests/check.h"

static void check_cover(int32_t frames, int32_t rows, int32_t cols, int32_t n_in, int32_t n_out,
                        int32_t k)
{
    struct conv_plan p = {0};
    assert_true(conv_plan_of(&p, frames, rows, cols, n_in, n_out, 1, k, 132));
    uint8_t *seen = check_alloc((size_t)p.phases * frames * rows * cols * n_out);
    for (int32_t i = 0; i < p.n_tiles; i++) {
        const struct conv_tile t = conv_tile_at(&p, i);
        for (int32_t y = t.row; y < t.row + CONV_TILE && y < rows; y++)
            for (int32_t x = t.col; x < t.col + CONV_TILE && x < cols; x++)
                for (int32_t o = t.out; o < t.out + p.n && o < n_out; o++)
                    seen[((((int64_t)t.phase * frames + t.frame) * rows + y) * cols + x) * n_out +
                         o]++;
    }
    for (int64_t i = 0; i < (int64_t)p.phases * frames * rows * cols * n_out; i++)
        assert_int_equal(seen[i], 1);
}

static void test_every_output_once(void **state)
{
    (void)state;
    check_cover(2, 33, 17, 96, 96, 3);
    check_cover(1, 60, 104, 384, 384, 3);
    check_cover(3, 16, 16, 96, 3, 3);
    check_cover(1, 1, 1, 16, 384, 3);
    check_cover(2, 20, 33, 192, 96, 2);
}

/* Each convolution of the decoder at its full width; a width that is not there is refused. */
static void test_served(void **state)
{
    (void)state;
    static const struct {
        int32_t n_in, n_out, kt, k, chunk, n;
    } served[] = {
        {16, 384, 3, 3, 16, 192},  {384, 384, 3, 3, 64, 192}, {192, 384, 3, 3, 64, 192},
        {192, 192, 3, 3, 64, 192}, {96, 96, 3, 3, 32, 96},    {96, 3, 3, 3, 32, 8},
        {384, 768, 3, 1, 64, 192}, {384, 192, 1, 2, 64, 192}, {192, 96, 1, 2, 64, 96},
    };
    struct conv_plan p = {0};
    for (size_t i = 0; i < COUNT(served); i++) {
        assert_true(conv_plan_of(&p, 2, 60, 104, served[i].n_in, served[i].n_out, served[i].kt,
                                 served[i].k, 132));
        assert_int_equal(p.chunk, served[i].chunk);
        assert_int_equal(p.n, served[i].n);
    }
    assert_false(conv_plan_of(&p, 2, 60, 104, 24, 24, 3, 3, 132));
    assert_false(conv_plan_of(&p, 2, 60, 104, 64, 100, 3, 3, 132));
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_every_output_once), TEST(test_served)};
    return cmocka_run_group_tests_name("conv_plan", tests, NULL, NULL);
}
