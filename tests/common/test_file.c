/* test_file.c - whole files in, whole files out. */
#include "common/file.h"

#include <sys/stat.h>

#include "tests/scratch.h"

static void test_reads_what_is_there(void **state)
{
    (void)state;
    char *data = NULL;
    size_t n = 0;
    const char *path = scratch_put_bytes("a", "ab\0cd", 5);
    want_ok(file_read(path, 5, &data, &n));
    assert_int_equal(n, 5);
    assert_memory_equal(data, "ab\0cd", 6); /* and a NUL after it */
    free(data);
    want_ok(file_read(scratch_put("a", ""), 5, &data, &n));
    assert_int_equal(n, 0);
    free(data);
}

static void test_refusals_name_path_and_reason(void **state)
{
    (void)state;
    char *data = NULL;
    size_t n = 0;
    char words[200];
    const char *path = scratch_put("a", "123456");
    want_fails(file_read(path, 5, &data, &n), ERR_LIMIT, "larger than 5 bytes");
    want_fails(file_read(path, 5, &data, &n), ERR_LIMIT, path);
    /* Files of /proc say that they have no bytes: as if it had grown since. */
    want_fails(file_read("/proc/self/status", 65536, &data, &n), ERR_NOINPUT, "grew while");
    path = scratch_path("missing");
    snprintf(words, sizeof words, "%s: No such file or directory", path);
    want_fails(file_read(path, 5, &data, &n), ERR_NOINPUT, words);
    want_fails(file_read(scratch_dir, 5, &data, &n), ERR_NOINPUT, "Is a directory");
    path = scratch_path("fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    want_fails(file_read(path, 5, &data, &n), ERR_NOINPUT, "not a regular file");
    assert_null(data);
    unlink(path);
}

static void test_writes_whole_or_not_at_all(void **state)
{
    (void)state;
    char *data = NULL;
    size_t n = 0;
    const int32_t files = scratch_count();
    const char *path = scratch_path("new");
    want_ok(file_write(path, "one", 3));
    want_ok(file_write(path, "three", 5));
    want_ok(file_read(path, 100, &data, &n));
    assert_string_equal(data, "three");
    free(data);
    assert_int_equal(scratch_count(), files + 1); /* no temporary file stays */

    want_fails(file_write("/nowhere/at/all", "x", 1), ERR_WRITE,
               "/nowhere/at/all: No such file or directory");
    path = scratch_path("folder"); /* a folder cannot be replaced by a file */
    assert_int_equal(mkdir(path, 0700), 0);
    want_fails(file_write(path, "x", 1), ERR_WRITE, "folder: Is a directory");
    assert_int_equal(rmdir(path), 0);

    path = scratch_path("fifo"); /* nor may a device be: a rename would */
    assert_int_equal(mkfifo(path, 0600), 0);
    want_fails(file_write(path, "x", 1), ERR_WRITE, "fifo: not a regular file");
    const char *link = scratch_path("link");
    assert_int_equal(symlink(path, link), 0);
    want_fails(file_write(link, "x", 1), ERR_WRITE, "link: not a regular file");
    assert_int_equal(unlink(link), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(scratch_count(), files + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_is_there),
        cmocka_unit_test(test_refusals_name_path_and_reason),
        cmocka_unit_test(test_writes_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
