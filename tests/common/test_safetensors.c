/* test_safetensors.c - headers that are not what they must be, and writing. */
#include "tests/check.h"

#include <sys/stat.h>

#include "tests/scratch.h"

#include "common/safetensors.h"

/* A file of that header and n zero bytes. */
static const char *file_of(const char *header, size_t n)
{
    static char data[4096];
    const uint64_t n_header = strlen(header);
    memset(data, 0, sizeof data);
    memcpy(data, &n_header, 8);
    memcpy(data + 8, header, n_header);
    return scratch_put_bytes("t.safetensors", data, 8 + n_header + n);
}

static void refused(const char *header, size_t n, const char *words)
{
    struct checkpoint *c = NULL;
    want_fails(checkpoint_open(&c, file_of(header, n)), ERR_DATA, words);
    assert_non_null(strstr(err_text(), "t.safetensors: "));
    assert_null(c);
}

#define T(dtype, shape, from, to)                                                                  \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static void test_what_a_header_may_be(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    assert_ok(checkpoint_open(
        &c, file_of("{\"__metadata__\":{\"a\":\"b\"},\"x\":" T("F32", "[2]", 4, 12) ",\"y\":" T(
                        "BF16", "[1,2]", 0, 4) ",\"none\":" T("F64", "[3,0]", 4, 4) "}  ",
                    12)));
    assert_int_equal(checkpoint_count(c), 3);
    assert_int_equal(checkpoint_find(c, "x")->at, checkpoint_find(c, "y")->at + 4);
    checkpoint_close(&c);
    assert_ok(checkpoint_open(&c, file_of("{}", 0)));
    assert_int_equal(checkpoint_count(c), 0);
    assert_null(checkpoint_find(c, "x"));
    checkpoint_close(&c);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("{\"a\":" T("F32", "[1]", 0, 4) "}", 3, "outside the file");
    refused("{\"a\":" T("F32", "[1]", 0, 4) "}", 5, "5 bytes of values");
    refused("{\"a\":" T("F32", "[1]", 4, 8) "}", 8, "a: leaves a gap");
    refused("{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[1]", 4, 8) "}", 8, "b: overlaps");
    refused("{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[2]", 0, 8) "}", 8, "overlaps");
    refused("{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 4, 8) "}", 8, "duplicate");
    refused("{\"a\":" T("F32", "[3]", 0, 8) "}", 8, "its shape needs 12");
    refused("{\"a\":" T("F32", "[4294967296,4294967296]", 0, 8) "}", 8, "overflows");
    refused("{\"a\":" T("F32", "[9223372036854775807,9223372036854775807,0]", 0, 0) "}", 0,
            "overflows");
    refused("{\"a\":" T("F32", "[-1]", 0, 4) "}", 4, "overflows");
    refused("{\"a\":" T("F32", "[1.0]", 0, 4) "}", 4, "overflows");
    refused("{\"a\":" T("F32", "[1]", 4, 0) "}", 4, "in order");
    refused("{\"a\":" T("F32", "[1]", -4, 0) "}", 4, "in order");
    refused("{\"a\":" T("F32", "[1]", 9223372036854775803, 9223372036854775807) "}", 4, "outside");
    refused("{\"a\":" T("F32", "[1]", 0, 99999999999999999999) "}", 4, "not a JSON object");
    refused("{\"a\":" T("F99", "[1]", 0, 4) "}", 4, "unknown dtype F99");
    refused("{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "9 dimensions");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "not {dtype");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "not {");
    refused("{\"\":" T("F32", "[1]", 0, 4) "}", 4, "name of 0");
    refused("{\"a\\n\":" T("F32", "[1]", 0, 4) "}", 4, "byte 0x0a");
    refused("{\"a\":1}", 0, "a: not {");
    refused("{\"a\":[[[[[[]]]]]]}", 0, "a: not {");
    refused("{\"a\":", 0, "not a JSON object");
}

static void test_lengths(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    char data[16] = "12345678{}";
    const uint64_t many[] = {3, 9, UINT64_MAX, UINT64_MAX - 7, INT64_MAX, 8 << 20};
    for (size_t i = 0; i < COUNT(many); i++) {
        memcpy(data, &many[i], 8);
        want_fails(checkpoint_open(&c, scratch_put_bytes("t.safetensors", data, 10)), ERR_DATA,
                   "a header of");
    }
    /* Nesting as deep as a header can have ends in a sentence too. */
    static char deep[1 << 20];
    const uint64_t n = sizeof deep - 8;
    memset(deep, '[', sizeof deep);
    memcpy(deep, &n, 8);
    memcpy(deep + 8, "{\"a\":", 5);
    want_fails(checkpoint_open(&c, scratch_put_bytes("t.safetensors", deep, sizeof deep)), ERR_DATA,
               "not a JSON object");
}

/* What is written is read back to the same bytes, from a torch file too. */
static void test_writing(void **state)
{
    (void)state;
    struct checkpoint *from = NULL, *to = NULL;
    struct stat st;
    uint8_t a[256], b[256];
    const char *path = scratch_path("out.safetensors");
    unlink(scratch_path("t.safetensors"));
    assert_ok(checkpoint_open(&from, "tests/golden/checkpoints/torch-2.1/flat.pth"));
    assert_ok(safetensors_write(path, from, NULL));
    assert_int_equal(scratch_count(), 1);
    assert_int_equal(stat(path, &st), 0);
    const mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(st.st_mode & 0777, 0666 & ~mask);
    assert_ok(checkpoint_open(&to, path));
    assert_int_equal(checkpoint_count(to), checkpoint_count(from));
    for (int32_t i = 0; i < checkpoint_count(from); i++) {
        const struct ckpt_tensor *x = checkpoint_at(from, i), *y = checkpoint_find(to, x->name);
        assert_non_null(y);
        assert_int_equal(x->dtype, y->dtype);
        assert_int_equal(x->rank, y->rank);
        assert_int_equal(x->n_bytes, y->n_bytes);
        assert_memory_equal(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape);
        assert_ok(checkpoint_read_raw(from, x, 0, x->n_bytes, a));
        assert_ok(checkpoint_read_raw(to, y, 0, y->n_bytes, b));
        assert_memory_equal(a, b, x->n_bytes);
    }
    checkpoint_close(&to);

    want_fails(safetensors_write("/nowhere/x.safetensors", from, NULL), ERR_WRITE, "/nowhere");
    const char *fifo = scratch_path("fifo"); /* as a device: not one to be renamed over */
    assert_int_equal(mkfifo(fifo, 0600), 0);
    want_fails(safetensors_write(fifo, from, NULL), ERR_WRITE, "fifo: not a regular file");
    assert_int_equal(unlink(fifo), 0);
    checkpoint_close(&from);
    /* Fails in the middle: the old file stays, nothing is left beside it. */
    assert_ok(checkpoint_open(&from, "tests/golden/checkpoints/torch-2.1/strided.pt"));
    want_fails(safetensors_write(path, from, NULL), ERR_DATA, "not contiguous");
    assert_int_equal(scratch_count(), 1);
    assert_ok(checkpoint_open(&to, path));
    checkpoint_close(&to);
    checkpoint_close(&from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_a_header_may_be),
        TEST(test_refusals),
        TEST(test_lengths),
        TEST(test_writing),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
