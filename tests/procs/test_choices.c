/* test_choices.c - which memory ops are handed for what they keep. The region and the ops are the
 * test's own: where the keeper and a GPU are, kernels/test_choices.c and the kill tests look. */
#include <string.h>

#include "kernels/ops.h"
#include "procs/choices.h"
#include "tests/check.h"

static struct {
    size_t n_bytes; /* that the ops ask for */
    err_t answer;   /* of the keeper */
    int n_asked;
    struct dev *dev; /* that the region was asked on */
    char name[KEEPER_NAME_MAX];
    uint64_t n_region_bytes;
    void *given; /* to the ops */
} seen;
static char memory[64];

size_t __wrap_ops_choices_bytes(const struct dev *d);
size_t __wrap_ops_choices_bytes(const struct dev *d)
{
    (void)d;
    return seen.n_bytes;
}

void __wrap_ops_choices(struct dev *d, void *at);
void __wrap_ops_choices(struct dev *d, void *at)
{
    (void)d;
    seen.given = at;
}

err_t __wrap_stage_region(struct stage *st, struct dev *d, const char *name, uint64_t n_bytes,
                          uint64_t layout, const uint8_t *identity, struct region *out);
err_t __wrap_stage_region(struct stage *st, struct dev *d, const char *name, uint64_t n_bytes,
                          uint64_t layout, const uint8_t *identity, struct region *out)
{
    (void)st;
    (void)layout;
    (void)identity;
    seen.n_asked++;
    seen.dev = d;
    strncpy(seen.name, name, sizeof seen.name - 1);
    seen.n_region_bytes = n_bytes;
    if (seen.answer != OK) return FAIL(seen.answer, "no");
    out->data = memory;
    return OK;
}

static struct stage stage_on(struct dev **host, struct dev **dev)
{
    memset(&seen, 0, sizeof seen);
    assert_ok(dev_open(host, "cpu", 1));
    assert_ok(dev_open(dev, "cpu", 1));
    return (struct stage){.host = *host, .dev = *dev};
}

static void test_no_library_no_region(void **state)
{
    (void)state;
    struct dev *host, *dev;
    struct stage st = stage_on(&host, &dev);
    assert_ok(choices_map(&st, "dit"));
    assert_int_equal(seen.n_asked, 0);
    assert_null(seen.given);
    dev_close(&host);
    dev_close(&dev);
}

static void test_a_region_of_the_host(void **state)
{
    (void)state;
    struct dev *host, *dev;
    struct stage st = stage_on(&host, &dev);
    seen.n_bytes = sizeof memory;
    assert_ok(choices_map(&st, "vae"));
    assert_ptr_equal(seen.dev, host);
    assert_string_equal(seen.name, "choices.vae");
    assert_int_equal(seen.n_region_bytes, sizeof memory);
    assert_ptr_equal(seen.given, memory);
    assert_ptr_equal(st.choices_region.data, memory);
    dev_close(&host);
    dev_close(&dev);
}

static void test_a_keeper_that_says_no(void **state)
{
    (void)state;
    struct dev *host, *dev;
    struct stage st = stage_on(&host, &dev);
    seen.n_bytes = sizeof memory;
    seen.answer = ERR_NOMEM;
    assert_int_equal(choices_map(&st, "text"), ERR_NOMEM);
    assert_null(seen.given);
    dev_close(&host);
    dev_close(&dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_library_no_region),
        TEST(test_a_region_of_the_host),
        TEST(test_a_keeper_that_says_no),
    };
    return cmocka_run_group_tests_name("choices", tests, NULL, NULL);
}
