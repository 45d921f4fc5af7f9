/* test_choices.c - what ops keep for the next process on a device: on a GPU the algorithms of
 * matrix products, on the CPU nothing. Processes are played by ops_open and ops_close. */
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"

enum { S = 48, I = 64, O = 80, HEAD_BYTES = 16 };

static struct dev *opened(void)
{
    struct dev *d = NULL;
    assert_ok(dev_open(&d, check_device(), 1));
    return d;
}

/* y of a new process that has this memory, or NULL; O of n_o kinds of product. */
static void process(struct dev *d, void *memory, int32_t n_o, float *y)
{
    float x[S * I], w[O * I];
    void *at = NULL;
    for (int32_t i = 0; i < S * I; i++) x[i] = (float)(i % 7) - 3;
    for (int32_t i = 0; i < O * I; i++) w[i] = (float)(i % 5) - 2;
    assert_ok(ops_open(d));
    if (memory) ops_choices(d, memory);
    assert_ok(dev_alloc(d, sizeof x + sizeof w + S * O * sizeof *y, &at));
    float *on_x = at, *on_w = on_x + S * I, *on_y = on_w + O * I;
    assert_ok(dev_upload(d, on_x, x, sizeof x));
    assert_ok(dev_upload(d, on_w, w, sizeof w));
    assert_ok(ops_linear(d, TENSOR(on_y, DTYPE_F32, S, n_o), TENSOR(on_x, DTYPE_F32, S, I),
                         TENSOR(on_w, DTYPE_F32, n_o, I), TENSOR_NONE));
    assert_ok(dev_download(d, y, on_y, (size_t)(S * n_o) * sizeof *y));
    assert_ok(dev_sync(d));
    dev_free(d, &at);
    ops_close(d);
}

static void test_no_library_no_memory(void **state)
{
    (void)state;
    struct dev *d = NULL;
    assert_ok(dev_open(&d, "cpu", 1));
    assert_int_equal(ops_choices_bytes(d), 0);
    dev_close(&d);
}

/* A kind that is there is not asked for again, or it would be there twice; another one is added,
 * and a record of another library, or one that cannot be, is as none. */
static void test_kinds_are_kept(void **state)
{
    (void)state;
    if (!check_on_gpu()) skip();
    struct dev *d = opened();
    const size_t n_bytes = ops_choices_bytes(d);
    unsigned char *memory = check_alloc(n_bytes), *first = check_alloc(n_bytes);
    float y[4][S * O];
    uint64_t head[2], head_first[2];
    process(d, NULL, O, y[0]);
    process(d, memory, O, y[1]);
    memcpy(first, memory, n_bytes);
    memcpy(head_first, first, HEAD_BYTES);
    assert_int_equal(head_first[1], 1);
    process(d, memory, O, y[2]);
    assert_memory_equal(memory, first, n_bytes);
    process(d, memory, O / 2, y[3]);
    memcpy(head, memory, HEAD_BYTES);
    assert_int_equal(head[1], 2);
    assert_memory_equal(y[1], y[0], sizeof y[0]);
    assert_memory_equal(y[2], y[0], sizeof y[0]);
    for (int i = 0; i < 2; i++) {
        head[i] = UINT64_MAX; /* the version, the number of kinds */
        head[1 - i] = head_first[1 - i];
        memcpy(memory, head, HEAD_BYTES);
        process(d, memory, O, y[2]);
        assert_memory_equal(memory, first, HEAD_BYTES);
        assert_memory_equal(y[2], y[0], sizeof y[0]);
    }
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_library_no_memory),
        TEST(test_kinds_are_kept),
    };
    return cmocka_run_group_tests_name("choices", tests, NULL, NULL);
}
