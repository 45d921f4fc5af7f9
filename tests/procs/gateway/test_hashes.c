/* test_hashes.c - the log of frame hashes: its lines, and how it is continued. */
#include "procs/gateway/hashes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static char path[96];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/longlived-hashes.XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/h", dir);
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static size_t slurp(char *to, size_t room)
{
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(to, 1, room - 1, f) : 0;
    if (f) fclose(f);
    to[n] = '\0';
    return n;
}

static void spill(const char *from, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(from, 1, n, f), n);
    fclose(f);
}

/* Frame i is the two bytes of i. */
static void put(struct hashes *h, int64_t first, int32_t n)
{
    uint8_t bytes[64][2];
    const uint8_t *rgb[64];
    for (int32_t i = 0; i < n; i++) {
        bytes[i][0] = (uint8_t)(first + i);
        bytes[i][1] = (uint8_t)((first + i) >> 8);
        rgb[i] = bytes[i];
    }
    assert_int_equal(hashes_put(h, first, rgb, n, 2), OK);
}

static int64_t open_log(struct hashes **h, bool resume)
{
    int64_t n = -1;
    assert_int_equal(hashes_open(h, path, resume, &n), OK);
    return n;
}

/* Lines 0 to n - 1, crossing from one digit to two and three where n is large. */
static size_t make_log(char *text, size_t room, int64_t n)
{
    struct hashes *h = NULL;
    assert_int_equal(open_log(&h, false), 0);
    for (int64_t i = 0; i < n; i += 3) put(h, i, (int32_t)(n - i < 3 ? n - i : 3));
    hashes_close(&h);
    assert_null(h);
    return slurp(text, room);
}

static void test_lines_are_sha256(void **state)
{
    (void)state;
    char got[512];
    struct hashes *h = NULL;
    const uint8_t *const rgb[] = {(const uint8_t *)"abc", (const uint8_t *)"abd"};
    assert_int_equal(open_log(&h, false), 0);
    assert_int_equal(hashes_put(h, 0, rgb, 2, 3), OK);
    hashes_close(&h);
    slurp(got, sizeof got);
    /* FIPS 180-2, B.1; the second by sha256sum(1). */
    assert_string_equal(got,
                        "0 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
                        "1 a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9\n");
}

static void test_cut_at_every_byte_and_continued(void **state)
{
    (void)state;
    static char whole[16384], got[16384];
    const size_t n = make_log(whole, sizeof whole, 103);
    for (size_t cut = 0; cut <= n; cut++) {
        struct hashes *h = NULL;
        int64_t lines = 0;
        for (size_t i = 0; i < cut; i++) lines += whole[i] == '\n';
        spill(whole, cut);
        assert_int_equal(open_log(&h, true), lines);
        size_t kept = cut;
        while (kept > 0 && whole[kept - 1] != '\n') kept--;
        assert_int_equal(slurp(got, sizeof got), kept); /* no torn line */
        if (lines < 103 && (cut % 7 == 0 || lines > 98)) {
            for (int64_t i = lines; i < 103; i++) put(h, i, 1);
            assert_int_equal(slurp(got, sizeof got), n);
            assert_memory_equal(got, whole, n);
        }
        hashes_close(&h);
    }
}

static void test_trims_to_any_line(void **state)
{
    (void)state;
    static char whole[131072], got[131072];
    const size_t n = make_log(whole, sizeof whole, 1203);
    static const int64_t to[] = {1203, 1202, 1001, 1000, 999, 101, 100, 99, 11, 10, 9, 1, 0};
    struct hashes *h = NULL;
    assert_int_equal(open_log(&h, true), 1203);
    assert_int_equal(hashes_trim(h, 1204), ERR_DATA);
    assert_non_null(strstr(err_text(), path));
    for (size_t i = 0; i < sizeof to / sizeof *to; i++) {
        assert_int_equal(hashes_trim(h, to[i]), OK);
        size_t want = 0;
        for (int64_t lines = 0; lines < to[i]; want++) lines += whole[want] == '\n';
        assert_int_equal(slurp(got, sizeof got), want);
        assert_memory_equal(got, whole, want);
    }
    for (int64_t i = 0; i < 1203; i++) put(h, i, 1);
    assert_int_equal(slurp(got, sizeof got), n);
    assert_memory_equal(got, whole, n);
    hashes_close(&h);
}

static void test_names_a_wrong_line_and_keeps_it(void **state)
{
    (void)state;
    static char whole[4096], got[4096];
    const size_t n = make_log(whole, sizeof whole, 12);
    struct hashes *h = NULL;
    int64_t lines = 0;
    static const struct {
        size_t at;
        char c;
    } wrong[] = {{4 * 67, '5'}, {4 * 67 + 1, '\t'}, {4 * 67 + 5, 'G'}, {4 * 67 + 66, ' '}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(got, whole, n);
        got[wrong[i].at] = wrong[i].c;
        spill(got, n);
        assert_int_equal(hashes_open(&h, path, true, &lines), ERR_DATA);
        assert_non_null(strstr(err_text(), path));
        assert_non_null(strstr(err_text(), "line 5 "));
        assert_null(h);
        assert_int_equal(slurp(got, sizeof got), n);
    }
    memset(got, 0, n);
    spill(got, n);
    assert_int_equal(hashes_open(&h, path, true, &lines), ERR_DATA);
    assert_non_null(strstr(err_text(), "line 1 "));
}

static void test_begins_anew_unless_told_to_resume(void **state)
{
    (void)state;
    static char whole[4096];
    struct hashes *h = NULL;
    make_log(whole, sizeof whole, 5);
    assert_int_equal(open_log(&h, false), 0);
    hashes_close(&h);
    assert_int_equal(slurp(whole, sizeof whole), 0);
    hashes_close(&h);
}

static void test_says_why_it_cannot_write(void **state)
{
    (void)state;
    struct hashes *h = NULL;
    int64_t n = 0;
    const uint8_t *const rgb[] = {(const uint8_t *)"abc"};
    assert_int_equal(hashes_open(&h, "/no/such/dir/h", true, &n), ERR_WRITE);
    assert_non_null(strstr(err_text(), "/no/such/dir/h"));
    assert_int_equal(hashes_open(&h, "/dev/full", false, &n), OK);
    assert_int_equal(hashes_put(h, 0, rgb, 1, 3), ERR_FULL);
    assert_non_null(strstr(err_text(), strerror(ENOSPC)));
    assert_int_equal(hashes_put(h, 0, rgb, 1, 3), ERR_FULL); /* still line 0 */
    hashes_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_sha256),
        cmocka_unit_test(test_cut_at_every_byte_and_continued),
        cmocka_unit_test(test_trims_to_any_line),
        cmocka_unit_test(test_names_a_wrong_line_and_keeps_it),
        cmocka_unit_test(test_begins_anew_unless_told_to_resume),
        cmocka_unit_test(test_says_why_it_cannot_write),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
