/* test_torchfile.c - the zip around a pickle: what is accepted, and every lie that it can tell. */
#include "tests/check.h"

#include "tests/common/torchzip.h"

#include "common/checkpoint.h"

static const char pickle[] = "\x80\2}U\1t" PK_TENSOR "s.";
static const float values[6] = {1, 2, 3, 4, 5, 6};

static void begin(struct torchzip *z, const char *prefix, bool is_64)
{
    char name[128];
    memset(z, 0, sizeof *z);
    z->is_64 = is_64;
    snprintf(name, sizeof name, "%s/data.pkl", prefix);
    torchzip_add(z, name, pickle, sizeof pickle - 1);
    snprintf(name, sizeof name, "%s/data/0", prefix);
    torchzip_add(z, name, values, sizeof values);
}

static const char *put(struct torchzip *z)
{
    return scratch_put_bytes("t.pt", z->bytes, z->n);
}

static void check_reads(const char *path)
{
    struct checkpoint *c = NULL;
    float x[6];
    assert_ok(checkpoint_open(&c, path));
    assert_int_equal(checkpoint_count(c), 1);
    const struct ckpt_tensor *t = checkpoint_find(c, "t");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    assert_ok(checkpoint_read(c, t, 0, 6, x));
    assert_memory_equal(x, values, sizeof x);
    checkpoint_close(&c);
}

static void refused(const char *path, const char *words)
{
    struct checkpoint *c = NULL;
    want_fails(checkpoint_open(&c, path), ERR_DATA, words);
    assert_null(c);
}

static struct torchzip z;

static void test_any_prefix_and_both_widths(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"archive", "a", "longlive_base", "a/b", "x y"};
    for (size_t i = 0; i < COUNT(prefixes); i++)
        for (int is_64 = 0; is_64 < 2; is_64++) {
            begin(&z, prefixes[i], is_64 != 0);
            torchzip_end(&z);
            check_reads(put(&z));
        }
    /* A comment at the end, even one that looks like an end. */
    begin(&z, "archive", false);
    torchzip_end(&z);
    static const char comment[] = "PK\005\006 is what an end begins with, isn't it?";
    z.bytes[z.n - 2] = sizeof comment;
    memcpy(z.bytes + z.n, comment, sizeof comment);
    z.n += sizeof comment;
    check_reads(put(&z));
}

static void test_byte_order(void **state)
{
    (void)state;
    begin(&z, "archive", false);
    torchzip_add(&z, "archive/byteorder", "little", 6);
    torchzip_end(&z);
    check_reads(put(&z));
    begin(&z, "archive", false);
    torchzip_add(&z, "archive/byteorder", "big", 3);
    torchzip_end(&z);
    refused(put(&z), "byte order");
}

static void test_entries(void **state)
{
    (void)state;
    begin(&z, "archive", false);
    torchzip_add(&z, "archive/data/0", values, sizeof values);
    torchzip_end(&z);
    refused(put(&z), "data/0 is there twice");

    begin(&z, "archive", false);
    torchzip_add(&z, "other/data.pkl", pickle, sizeof pickle - 1);
    torchzip_end(&z);
    refused(put(&z), "more than one data.pkl");

    memset(&z, 0, sizeof z);
    torchzip_add(&z, "archive/data/0", values, sizeof values);
    torchzip_end(&z);
    refused(put(&z), "no data.pkl");

    memset(&z, 0, sizeof z);
    torchzip_add(&z, "archive/data.pkl", pickle, sizeof pickle - 1);
    torchzip_end(&z);
    refused(put(&z), "not in the zip");

    memset(&z, 0, sizeof z);
    torchzip_add(&z, "archive/data.pkl", pickle, sizeof pickle - 1);
    torchzip_add(&z, "archive/data/0", values, 20);
    torchzip_end(&z);
    refused(put(&z), "a storage of 6 elements has 20 bytes");
}

/* Changes a byte of the first entry in the directory, whose place the end tells. */
static void spoil_directory(size_t at, uint8_t value, const char *words)
{
    begin(&z, "archive", false);
    const size_t directory = z.n;
    torchzip_end(&z);
    z.bytes[directory + at] = value;
    refused(put(&z), words);
}

static void test_directory(void **state)
{
    (void)state;
    spoil_directory(0, 'Q', "directory is broken");
    spoil_directory(8, 1, "compressed");  /* encrypted */
    spoil_directory(10, 8, "compressed"); /* deflated */
    spoil_directory(20, 1, "compressed"); /* another packed size */
    spoil_directory(28, 0, "broken");     /* no name */
    spoil_directory(28, 200, "broken");   /* a name that ends elsewhere */
    spoil_directory(30, 10, "broken");    /* an extra field over the next entry */
    spoil_directory(46, '\n', "not printable");
    spoil_directory(42, 1, "not where"); /* a place without an entry */
    spoil_directory(44, 9, "outside the file");
    begin(&z, "archive", false);
    const size_t second = z.n + 46 + strlen("archive/data.pkl");
    torchzip_end(&z);
    memset(z.bytes + second + 42, 0, 4); /* two entries at one place */
    refused(put(&z), "overlaps");
    begin(&z, "archive", false);
    const size_t first = z.n;
    torchzip_end(&z);
    z.bytes[first + 20] = z.bytes[first + 24] = 255; /* longer than to the next entry */
    refused(put(&z), "overlaps");
    begin(&z, "archive", true);
    const size_t wide = z.n + 46 + strlen("archive/data.pkl");
    torchzip_end(&z);
    z.bytes[wide + 2] = 8; /* a 64-bit field that lacks two numbers */
    refused(put(&z), "extra field");
}

static void test_end(void **state)
{
    (void)state;
    begin(&z, "archive", false);
    torchzip_end(&z);
    const size_t n = z.n;
    for (size_t k = 4; k < n; k++) { /* cut anywhere */
        struct checkpoint *c = NULL;
        assert_int_equal(checkpoint_open(&c, scratch_put_bytes("t.pt", z.bytes, k)), ERR_DATA);
        assert_null(c);
    }
    begin(&z, "archive", false);
    torchzip_end(&z);
    z.bytes[z.n - 12] = 200; /* 200 entries in a directory of two */
    refused(put(&z), "broken");
    begin(&z, "archive", false);
    torchzip_end(&z);
    z.bytes[z.n - 10] = 255, z.bytes[z.n - 9] = 255; /* a longer directory */
    refused(put(&z), "directory lies outside");
    begin(&z, "archive", false);
    torchzip_end(&z);
    z.bytes[z.n - 3] = 255; /* elsewhere */
    refused(put(&z), "directory lies outside");

    begin(&z, "archive", true);
    torchzip_end(&z);
    memset(z.bytes + z.n - 22 - 20 + 8, 255, 8); /* the locator */
    refused(put(&z), "64-bit directory record lies outside");
    begin(&z, "archive", true);
    torchzip_end(&z);
    z.bytes[z.n - 22 - 20 + 8]++;
    refused(put(&z), "64-bit");
    begin(&z, "archive", true);
    torchzip_end(&z);
    memset(z.bytes + z.n - 22 - 20 - 56 + 32, 255, 8); /* a count of entries */
    refused(put(&z), "over");
    begin(&z, "archive", true);
    torchzip_end(&z);
    memset(z.bytes + z.n - 22 - 20 - 56 + 40, 255, 8);
    refused(put(&z), "directory lies outside");
}

/* No spoilt file does anything but fail in words; many still read. */
static void test_spoilt_anywhere(void **state)
{
    (void)state;
    static const char *const words[] = {"PK\001\002", "PK\005\006", "\xff\xff\xff\xff", "s.", "R"};
    static char data[1 << 14];
    uint64_t seed = 1;
    const char *path;
    const int fd = scratch_memory("spoilt.pt", &path);
    begin(&z, "archive", false);
    torchzip_end(&z);
    for (int i = 0; i < 4000; i++) {
        struct checkpoint *c = NULL;
        memcpy(data, z.bytes, z.n);
        const size_t n = spoil(&seed, data, z.n, sizeof data, words, COUNT(words));
        scratch_fill(fd, data, n);
        const err_t e = checkpoint_open(&c, path);
        if (e != OK && e != ERR_DATA) fail_msg("%d: %s", e, err_text());
        for (int32_t k = 0; e == OK && k < checkpoint_count(c); k++) {
            float x[64];
            const struct ckpt_tensor *t = checkpoint_at(c, k);
            if (ckpt_count(t) <= 64 && ckpt_is_float(t->dtype) && t->is_dense)
                assert_ok(checkpoint_read(c, t, 0, ckpt_count(t), x));
        }
        checkpoint_close(&c);
    }
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_any_prefix_and_both_widths),
        TEST(test_byte_order),
        TEST(test_entries),
        TEST(test_directory),
        TEST(test_end),
        TEST(test_spoilt_anywhere),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
