/* test_mp4_scan.c - the reader of MP4 on boxes made here, by hand: no libav is needed. */
#include "procs/gateway/mp4.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
    return 4;
}

static size_t box(uint8_t *p, uint32_t size, const char *type)
{
    be32(p, size);
    memcpy(p + 4, type, 4);
    return 8;
}

/* A fragment by the book: mfhd, traf (tfhd, tfdt, trun with sizes), and 10 bytes a sample. */
static size_t fragment(uint8_t *p, uint32_t number, uint32_t first, uint32_t n)
{
    size_t at = 0;
    const uint32_t trun = 8 + 12 + 4 * n, traf = 8 + 16 + 20 + trun;
    at += box(p + at, 8 + 16 + traf, "moof");
    at += box(p + at, 16, "mfhd");
    at += be32(p + at, 0);
    at += be32(p + at, number);
    at += box(p + at, traf, "traf");
    at += box(p + at, 16, "tfhd");
    at += be32(p + at, 0x020000);
    at += be32(p + at, 1);
    at += box(p + at, 20, "tfdt");
    at += be32(p + at, 1 << 24);
    at += be32(p + at, 0);
    at += be32(p + at, first);
    at += box(p + at, trun, "trun");
    at += be32(p + at, 0x000201);
    at += be32(p + at, n);
    at += be32(p + at, 8 + 16 + traf + 8);
    for (uint32_t i = 0; i < n; i++) at += be32(p + at, 10);
    at += box(p + at, 8 + 10 * n, "mdat");
    memset(p + at, 0x5a, 10 * n);
    return at + 10 * n;
}

enum { HEAD = 24, FRAGMENTS = 4, MEM_MAX = 8192 };

/* HEAD bytes that the scanner never looks at, then fragments of 9, 12, 12, 12. */
static size_t synthetic(uint8_t *p, size_t end[FRAGMENTS + 1])
{
    uint32_t first = 0;
    memset(p, 0, HEAD);
    end[0] = HEAD;
    for (uint32_t i = 0; i < FRAGMENTS; i++) {
        const uint32_t n = i == 0 ? 9 : 12;
        end[i + 1] = end[i] + fragment(p + end[i], i + 1, first, n);
        first += n;
    }
    return end[FRAGMENTS];
}

static int mem_fd(void)
{
    const int fd = memfd_create("mp4", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static err_t scan_bytes(int fd, const uint8_t *p, size_t n, int64_t header, struct mp4_scan *s)
{
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, p, n, 0), n);
    return mp4_scan(fd, "f.mp4", header, (int64_t)n, s);
}

static void test_scan_at_every_byte(void **state)
{
    (void)state;
    static uint8_t p[MEM_MAX];
    size_t end[FRAGMENTS + 1];
    const size_t n = synthetic(p, end);
    const int fd = mem_fd();
    for (size_t cut = HEAD; cut <= n; cut++) {
        struct mp4_scan s = {0};
        int whole_ones = 0;
        while (whole_ones < FRAGMENTS && end[whole_ones + 1] <= cut) whole_ones++;
        assert_int_equal(scan_bytes(fd, p, cut, HEAD, &s), OK);
        assert_int_equal(s.n_fragments, whole_ones);
        assert_int_equal(s.n_frames, whole_ones ? whole_ones * 12 - 3 : 0);
        assert_int_equal(s.n_bytes, end[whole_ones]);
    }
    close(fd);
}

/* One wrong number in the second fragment each: offset in the fragment, new value. */
static void test_scan_names_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t v;
    } wrong[] = {
        {0, 0},           /* moof: to the end of the file */
        {0, 1},           /* moof: a 64-bit size */
        {0, 7},           /* moof: smaller than its own header */
        {0, 0x7fffffff},  /* moof: larger than any of ours */
        {4, 0x66726565},  /* moof: "free" */
        {8, 7},           /* mfhd: smaller than its header */
        {8, 0xffffffff},  /* mfhd: larger than moof */
        {8, 12},          /* mfhd: no room for its number */
        {20, 3},          /* mfhd: not the next number */
        {24, 200},        /* traf: larger than moof */
        {28, 0x66726565}, /* traf: none */
        {36, 0x66726565}, /* tfhd: none */
        {52, 0x66726565}, /* tfdt: none */
        {56, 0},          /* tfdt: version 0 has 32 bits, so there is a rest */
        {60, 1},          /* tfdt: the high word */
        {64, 10},         /* tfdt: a gap */
        {68, 64},         /* trun: smaller than traf has room for */
        {76, 0x000301},   /* trun: a column more */
        {80, 11},         /* trun: a sample less than it has bytes for */
        {80, 0xffffffff}, /* trun: more than there are bytes */
    };
    static uint8_t p[MEM_MAX];
    size_t end[FRAGMENTS + 1];
    const int fd = mem_fd();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct mp4_scan s = {.n_frames = -1};
        char where[32];
        const size_t n = synthetic(p, end);
        be32(p + end[1] + wrong[i].at, wrong[i].v);
        const err_t e = scan_bytes(fd, p, n, HEAD, &s);
        if (e != ERR_DATA) fail_msg("case %zu was taken", i);
        assert_int_equal(s.n_frames, -1);
        snprintf(where, sizeof where, "byte %zu ", end[1]);
        assert_non_null(strstr(err_text(), where));
        assert_non_null(strstr(err_text(), "f.mp4"));
    }
    close(fd);
}

/* The eight bytes that are written last, as far as they came, with all behind them there. */
static void test_scan_takes_an_uncommitted_head_as_torn(void **state)
{
    (void)state;
    static uint8_t p[MEM_MAX];
    size_t end[FRAGMENTS + 1];
    const int fd = mem_fd();
    for (size_t n_head = 0; n_head <= MP4_COMMIT_BYTES; n_head++) {
        struct mp4_scan s = {0};
        const size_t n = synthetic(p, end);
        memset(p + end[3] + n_head, 0, MP4_COMMIT_BYTES - n_head);
        assert_int_equal(scan_bytes(fd, p, n, HEAD, &s), OK);
        assert_int_equal(s.n_fragments, n_head == MP4_COMMIT_BYTES ? 4 : 3);
        assert_int_equal(s.n_bytes, end[s.n_fragments]);
    }
    close(fd);
}

/* A trun without columns says any number; the bytes there are bound it. */
static void test_scan_bounds_a_count_without_a_table(void **state)
{
    (void)state;
    static uint8_t p[MEM_MAX];
    struct mp4_scan s = {0};
    const int fd = mem_fd();
    const size_t n = fragment(p, 1, 0, 1);
    be32(p + 76, 0x000005); /* an offset and the first one's flags, no column */
    for (uint32_t count = 0; count < 13; count++) {
        be32(p + 80, count);
        const err_t e = scan_bytes(fd, p, n, 0, &s);
        assert_int_equal(e, count >= 1 && count <= 10 ? OK : ERR_DATA);
        if (e == OK) assert_int_equal(s.n_frames, count);
    }
    be32(p + 80, 0xffffffff);
    assert_int_equal(scan_bytes(fd, p, n, 0, &s), ERR_DATA);
    close(fd);
}

static uint32_t seed = 1;

static uint32_t draw_u32(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8 | seed << 24;
}

/* Bits flipped, words made extreme, runs overwritten, ends cut, parts moved. */
static size_t mutate(uint8_t *p, size_t n)
{
    static const uint32_t extreme[] = {0,          1,          7,          8,         9,
                                       0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8};
    for (uint32_t k = 1 + draw_u32() % 4; k > 0; k--) {
        const size_t at = draw_u32() % n, to = draw_u32() % n;
        const size_t run_bytes = draw_u32() % 32;
        switch (draw_u32() % 5) {
        case 0:
            p[at] ^= (uint8_t)(1 << draw_u32() % 8);
            break;
        case 1:
            if (at + 4 <= n) be32(p + at, extreme[draw_u32() % 9]);
            break;
        case 2:
            for (size_t i = at; i < n && i < at + run_bytes; i++) p[i] = (uint8_t)draw_u32();
            break;
        case 3:
            if (at > HEAD) n = at;
            break;
        default:
            if (at + run_bytes <= n && to + run_bytes <= n) memmove(p + to, p + at, run_bytes);
        }
    }
    return n;
}

static void fuzz(const uint8_t *from, size_t n_from, int64_t header, int times)
{
    uint8_t *p = malloc(n_from);
    const int fd = mem_fd();
    int n_ok = 0;
    for (int i = 0; i < times; i++) {
        struct mp4_scan s = {0};
        memcpy(p, from, n_from);
        size_t n = mutate(p, n_from);
        if (n < (size_t)header) n = (size_t)header;
        const err_t e = scan_bytes(fd, p, n, header, &s);
        assert_true(e == OK || e == ERR_DATA);
        n_ok += e == OK;
        if (e != OK) continue;
        assert_in_range(s.n_bytes, header, n);
        assert_true(s.n_frames >= s.n_fragments && s.n_frames <= (int64_t)n);
    }
    print_message("%d mutations: %d counted, %d refused\n", times, n_ok, times - n_ok);
    close(fd);
    free(p);
}

static void test_scan_survives_mutations(void **state)
{
    (void)state;
    static uint8_t p[MEM_MAX];
    size_t end[FRAGMENTS + 1];
    const size_t n = synthetic(p, end);
    fuzz(p, n, HEAD, 20000);
    for (size_t i = 0; i < sizeof p; i++) p[i] = (uint8_t)draw_u32();
    fuzz(p, sizeof p, 0, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan_at_every_byte),
        cmocka_unit_test(test_scan_names_what_is_wrong),
        cmocka_unit_test(test_scan_takes_an_uncommitted_head_as_torn),
        cmocka_unit_test(test_scan_bounds_a_count_without_a_table),
        cmocka_unit_test(test_scan_survives_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
