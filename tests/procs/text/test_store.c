/* test_store.c - what was put is read, what was torn or spoilt never is. */
#include "procs/text/store.h"

#include "tests/scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { ROWS = 4, DIM = 8, N = ROWS * DIM, HEADER = 24, RECORD = 40 + 4 * N + 32 };

static struct conf shape(int32_t rows, int32_t dim)
{
    struct conf c;
    conf_default(&c);
    c.text.text_len = rows;
    c.text.dim = dim;
    return c;
}

static void fill(float *x, uint8_t *key, int i)
{
    for (int j = 0; j < N; j++) x[j] = (float)(1000 * i + j) / 7;
    memset(key, 0x30 + i, PROMPT_KEY_BYTES);
}

static struct store *open_store(const char *path)
{
    struct store *s = NULL;
    const struct conf c = shape(ROWS, DIM);
    check_ok(store_open(&s, path, &c));
    return s;
}

static void append(struct store *s, int i)
{
    float x[N];
    uint8_t key[PROMPT_KEY_BYTES];
    fill(x, key, i);
    check_ok(store_put(s, store_count(s), key, x, 1 + i % ROWS, 10 + i));
}

/* Whether record `at` verifies; if so it must be what append(i) wrote. */
static bool reads(struct store *s, int64_t at, int i)
{
    float x[N], want[N];
    uint8_t key[PROMPT_KEY_BYTES], want_key[PROMPT_KEY_BYTES];
    int32_t n = -1, n_full = -1;
    if (!store_read(s, at, key, x, &n, &n_full)) return false;
    fill(want, want_key, i);
    assert_memory_equal(x, want, sizeof x);
    assert_memory_equal(key, want_key, sizeof key);
    assert_int_equal(n, 1 + i % ROWS);
    assert_int_equal(n_full, 10 + i);
    return true;
}

/* A file of three records, its bytes in data. */
static void make_three(uint8_t *data)
{
    const char *path = scratch_path("three");
    unlink(path);
    struct store *s = open_store(path);
    for (int i = 0; i < 3; i++) append(s, i);
    store_close(&s);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, data, HEADER + 4 * RECORD, 0), HEADER + 3 * RECORD);
    close(fd);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct stat st;
    const char *path = scratch_path("trip");
    struct store *s = open_store(path);
    assert_int_equal(store_count(s), 0);
    assert_false(reads(s, 0, 0));
    for (int i = 0; i < 5; i++) append(s, i);
    for (int i = 0; i < 5; i++) assert_true(reads(s, i, i));
    store_close(&s);
    assert_null(s);
    s = open_store(path);
    assert_int_equal(store_count(s), 5);
    append(s, 5);
    for (int i = 0; i < 6; i++) assert_true(reads(s, i, i));
    assert_false(reads(s, 6, 6));
    store_close(&s);
    store_close(&s); /* nothing */
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, HEADER + 6 * RECORD);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* In any order; a record that was never written does not verify; one written again is the new. */
static void test_records_are_entries(void **state)
{
    (void)state;
    struct stat st;
    float x[N];
    uint8_t key[PROMPT_KEY_BYTES];
    const char *path = scratch_path("entries");
    struct store *s = open_store(path);
    fill(x, key, 3);
    check_ok(store_put(s, 3, key, x, 1 + 3 % ROWS, 13));
    fill(x, key, 1);
    check_ok(store_put(s, 1, key, x, 1 + 1 % ROWS, 11));
    store_close(&s);
    s = open_store(path);
    assert_int_equal(store_count(s), 4);
    for (int i = 0; i < 4; i++) assert_int_equal(reads(s, i, i), i % 2);
    fill(x, key, 7);
    check_ok(store_put(s, 3, key, x, 1 + 7 % ROWS, 17));
    assert_true(reads(s, 3, 7));
    assert_true(reads(s, 1, 1));
    store_close(&s);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, HEADER + 4 * RECORD);
}

static void test_a_full_disk_spoils_one_record(void **state)
{
    (void)state;
    float x[N];
    uint8_t key[PROMPT_KEY_BYTES];
    struct rlimit kept, low;
    struct store *s = open_store(scratch_path("full"));
    append(s, 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    low = kept;
    low.rlim_cur = HEADER + RECORD + RECORD / 2;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    fill(x, key, 1);
    check_fails(store_put(s, 1, key, x, 2, 11), ERR_WRITE, "full: ");
    check_fails(store_put(s, 5, key, x, 2, 11), ERR_WRITE, "full: File too large");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    assert_true(reads(s, 0, 0));
    assert_false(reads(s, 1, 1));
    check_ok(store_put(s, 1, key, x, 2, 11));
    assert_true(reads(s, 1, 1));
    store_close(&s);
}

/* The file ends at every byte: whole records are read, the next one goes over what is torn. */
static void test_torn_tail_at_every_byte(void **state)
{
    (void)state;
    const char *path;
    uint8_t data[HEADER + 4 * RECORD];
    make_three(data);
    const int fd = scratch_memory("torn", &path);
    for (int n = HEADER; n <= HEADER + 3 * RECORD; n++) {
        scratch_fill(fd, data, (size_t)n);
        struct store *s = open_store(path);
        const int whole = (n - HEADER) / RECORD;
        assert_int_equal(store_count(s), whole);
        for (int i = 0; i < whole; i++) assert_true(reads(s, i, i));
        assert_false(reads(s, whole, whole));
        append(s, 7);
        assert_true(reads(s, whole, 7));
        store_close(&s);
        s = open_store(path);
        assert_int_equal(store_count(s), whole + 1);
        for (int i = 0; i < whole; i++) assert_true(reads(s, i, i));
        assert_true(reads(s, whole, 7));
        store_close(&s);
    }
    close(fd);
}

static void test_each_flipped_byte_is_noticed(void **state)
{
    (void)state;
    const char *path;
    uint8_t data[HEADER + 4 * RECORD];
    const struct conf c = shape(ROWS, DIM);
    make_three(data);
    const int fd = scratch_memory("flip", &path);
    for (int at = 0; at < HEADER + 3 * RECORD; at++) {
        struct store *s = NULL;
        data[at] ^= (uint8_t)(1 << at % 8);
        scratch_fill(fd, data, HEADER + 3 * RECORD);
        const err_t e = store_open(&s, path, &c);
        if (at < HEADER) check_fails(e, ERR_DATA, path);
        else check_ok(e);
        for (int i = 0; s && i < 3; i++)
            assert_int_equal(reads(s, i, i), i != (at - HEADER) / RECORD);
        store_close(&s);
        data[at] ^= (uint8_t)(1 << at % 8);
    }
    close(fd);
}

/* A true sum over counts that cannot be does not make them so. */
static void test_impossible_counts_are_not_read(void **state)
{
    (void)state;
    static const int32_t bad[][2] = {{0, 1}, {-1, 1}, {ROWS + 1, 9}, {3, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float x[N];
        uint8_t key[PROMPT_KEY_BYTES];
        int32_t n, n_full;
        struct store *s = open_store(scratch_path("counts"));
        fill(x, key, 1);
        check_ok(store_put(s, store_count(s), key, x, bad[i][0], bad[i][1]));
        assert_false(store_read(s, (int64_t)i, key, x, &n, &n_full));
        store_close(&s);
    }
}

static void test_a_foreign_file_is_refused_and_left_alone(void **state)
{
    (void)state;
    static const char text[] = "somebody's diary, longer than a header";
    char back[sizeof text] = {0};
    struct store *s = NULL;
    struct conf c = shape(ROWS, DIM);
    const char *path = scratch_put("diary", text);
    check_fails(store_open(&s, path, &c), ERR_DATA, "not a prompt cache of [4, 8]");
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, back, sizeof back, 0), sizeof text - 1);
    assert_string_equal(back, text);
    close(fd);
    check_fails(store_open(&s, scratch_put("short", "llprompt"), &c), ERR_DATA, "not a prompt");
    s = open_store(scratch_path("other"));
    store_close(&s);
    c = shape(ROWS + 1, DIM);
    check_fails(store_open(&s, scratch_path("other"), &c), ERR_DATA, "[5, 8]");
    c = shape(ROWS, DIM + 1);
    check_fails(store_open(&s, scratch_path("other"), &c), ERR_DATA, "[4, 9]");
    assert_null(s);
}

static void test_what_cannot_be_written_is_said(void **state)
{
    (void)state;
    struct store *s = NULL;
    const struct conf c = shape(ROWS, DIM);
    check_fails(store_open(&s, "/nowhere/at/all", &c), ERR_WRITE, "/nowhere/at/all");
    check_fails(store_open(&s, "/dev/full", &c), ERR_DATA, "/dev/full");
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_records_are_entries),
        cmocka_unit_test(test_a_full_disk_spoils_one_record),
        cmocka_unit_test(test_torn_tail_at_every_byte),
        cmocka_unit_test(test_each_flipped_byte_is_noticed),
        cmocka_unit_test(test_impossible_counts_are_not_read),
        cmocka_unit_test(test_a_foreign_file_is_refused_and_left_alone),
        cmocka_unit_test(test_what_cannot_be_written_is_said),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
