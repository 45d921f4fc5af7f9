/* test_embed.c - rows of a table. */
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"

static err_t call(struct dev *d, const struct tensor *t, const void *p)
{
    (void)p;
    return ops_embed(d, t[0], t[1], t[2]);
}

static void test_embed(void **state)
{
    (void)state;
    static const int32_t shapes[][3] = {{1, 1, 1}, {7, 13, 5}, {513, 33, 97}};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const int32_t n_s = shapes[i][0], n_c = shapes[i][1], n_v = shapes[i][2];
        float *table = check_floats((int64_t)n_v * n_c, 1);
        float *y = check_floats((int64_t)n_s * n_c, 2);
        int32_t *ids = check_alloc((size_t)n_s * sizeof *ids);
        uint64_t seed = 3;
        for (int32_t s = 0; s < n_s; s++)
            ids[s] = s == 0 ? n_v - 1 : (int32_t)(check_next(&seed) % (uint64_t)n_v);
        CHECK_OP(call, NULL, OUT(y, n_s, n_c), IN_ACT(table, n_v, n_c), IN_I32(ids, n_s));
        for (int32_t s = 0; s < n_s; s++)
            assert_memory_equal(y + (int64_t)s * n_c, table + (int64_t)ids[s] * n_c,
                                (size_t)n_c * sizeof *y);
    }
}

static void test_id_out_of_range(void **state)
{
    (void)state;
    float *table = check_floats(12, 1), *y = check_floats(8, 2);
    int32_t high[] = {0, 3}, low[] = {-1, 2};
    if (check_on_gpu()) skip(); /* it is read there, where nobody looks */
    CHECK_REFUSED(ERR_SHAPE, call, NULL, OUT(y, 2, 4), IN(table, 3, 4), IN_I32(high, 2));
    CHECK_REFUSED(ERR_SHAPE, call, NULL, OUT(y, 2, 4), IN(table, 3, 4), IN_I32(low, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_embed), TEST(test_id_out_of_range)};
    return cmocka_run_group_tests_name("embed", tests, NULL, NULL);
}
