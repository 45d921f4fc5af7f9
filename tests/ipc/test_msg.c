/* test_msg.c - every message there and back, and every way to be wrong. */
#include "ipc/msg.h"

#include "ipc/ledger.h"
#include "tests/scratch.h"

/* Counts allocations, to see that none is made; ASan has its own allocator and is let alone. */
static uint64_t n_allocs;
#ifndef __SANITIZE_ADDRESS__
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n)
{
    n_allocs++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t m)
{
    n_allocs++;
    return __libc_calloc(n, m);
}
void *realloc(void *p, size_t n)
{
    n_allocs++;
    return __libc_realloc(p, n);
}
#endif

static struct msg in, out;
static uint8_t buf[MSG_BYTES_MAX + 1];

static void refuse(const void *bytes, size_t n, const char *words)
{
    uint8_t *exact = malloc(n ? n : 1); /* so that ASan sees a read past the end */
    assert_non_null(exact);
    if (n) memcpy(exact, bytes, n);
    const uint64_t before = n_allocs;
    const err_t e = msg_unpack(&out, exact, n);
    assert_int_equal(n_allocs, before);
    free(exact);
    want_fails(e, ERR_DATA, words);
}

#define REFUSE(bytes, words) refuse((bytes), sizeof(bytes) - 1, (words))

static void there_and_back(void)
{
    const uint64_t before = n_allocs;
    const size_t n = msg_pack(&in, buf, sizeof buf);
    assert_int_equal(n_allocs, before);
    assert_true(n > 0 && n <= MSG_BYTES_MAX);
    memset(&out, 0xee, sizeof out);
    want_ok(msg_unpack(&out, buf, n));
    assert_int_equal(n_allocs, before);
    assert_int_equal(out.type, in.type);
    assert_int_equal(out.request, in.request);
    assert_int_equal(out.from, in.from);
    assert_int_equal(out.block, in.block);
    assert_int_equal(out.latent, in.latent);
    assert_int_equal(out.frame, in.frame);
    assert_int_equal(out.time_ms, in.time_ms);
    assert_int_equal(out.status, in.status);
    assert_int_equal(out.job, in.job);
    assert_int_equal(out.window, in.window);
    assert_string_equal(out.text, in.text);
    for (size_t cap = 0; cap < n; cap += 1 + n / 500) assert_int_equal(msg_pack(&in, buf, cap), 0);
}

static void start(enum msg_type type)
{
    memset(&in, 0, sizeof in);
    in.type = type;
    in.request = type == MSG_BELL ? 0 : 7;
    if (type == MSG_PROMPT) strcpy(in.text, "a fox");
    if (type == MSG_FINISH) in.job = 3;
    if (type == MSG_PRESET) in.window = 8, strcpy(in.text, "1000,500,250");
}

static void test_round_trips_at_bounds(void **state)
{
    (void)state;
    for (int i = 0; i < MSG_TYPES; i++) {
        start((enum msg_type)i);
        there_and_back();
        if (i == MSG_BELL) continue;
        in.request = 1;
        there_and_back();
        in.request = UINT64_MAX;
        there_and_back();
    }
    start(MSG_BELL);
    for (in.from = 0; in.from < WRITERS; in.from++) there_and_back();
    start(MSG_PROMPT);
    memset(in.text, 'x', PROMPT_BYTES_MAX);
    there_and_back();
    strcpy(in.text, "x");
    there_and_back();
    strcpy(in.text,
           "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80"
           "\xf4\x8f\xbf\xbf");
    there_and_back();
    start(MSG_RECEIPT);
    in.block = in.latent = in.frame = in.time_ms = in.tokens = in.tokens_full = INT64_MAX;
    there_and_back();
    in.block = 127, in.latent = 128, in.frame = 65536, in.time_ms = UINT32_MAX + 1ll;
    in.tokens = 512, in.tokens_full = 513;
    there_and_back();
    start(MSG_REFUSED);
    in.status = 255;
    strcpy(in.text, "no room");
    there_and_back();
}

static void test_out_of_bounds_is_not_packed(void **state)
{
    (void)state;
    start(MSG_BELL);
    in.from = WRITERS;
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
    start(MSG_PROMPT);
    in.request = 0;
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
    start(MSG_PRESET);
    in.window = 25;
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
    start(MSG_PRESET);
    memset(in.text, '1', LEDGER_STEPS_BYTES);
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
    start(MSG_PROMPT);
    in.text[0] = '\0';
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
    memset(in.text, 'x', sizeof in.text);
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
    start(MSG_RECEIPT);
    in.frame = -1;
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
    start(MSG_REFUSED);
    in.status = 256;
    assert_int_equal(msg_pack(&in, buf, sizeof buf), 0);
}

/* Version 1 is these bytes, for ever. */
static const char golden[] = "\x84\xa1v\x01\xa1t\xa6prompt\xa7request\x07\xa4text\xa5"
                             "a fox";

static void test_golden_bytes(void **state)
{
    (void)state;
    start(MSG_PROMPT);
    const size_t n = msg_pack(&in, buf, sizeof buf);
    assert_int_equal(n, sizeof golden - 1);
    assert_memory_equal(buf, golden, n);
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < MSG_TYPES; i++) {
        start((enum msg_type)i);
        const size_t n = msg_pack(&in, buf, sizeof buf);
        for (size_t cut = 0; cut < n; cut++) refuse(buf, cut, "message: ");
    }
}

/* Bytes changed, removed, doubled, and headers put in. Whatever passes must be within bounds. */
static void test_mutations(void **state)
{
    (void)state;
    static const char *const words[] = {"\xdd\x10", "\xdf\x04", "\xc1",     "\xa4text", "\xa1v",
                                        "\xd9\xff", "\xc6\x7f", "\xd3\x80", "\x8f",     "\xff"};
    static char spoilt[4096];
    uint64_t seed = 99;
    int n_passed = 0;
    for (int i = 0; i < 100000; i++) {
        start((enum msg_type)(i % MSG_TYPES));
        in.block = i;
        strcpy(in.text, in.type == MSG_BELL ? "" : "a small fox, \xc3\xa9\xe2\x82\xac");
        const size_t n = msg_pack(&in, buf, sizeof buf);
        memcpy(spoilt, buf, n);
        const size_t m =
            spoil(&seed, spoilt, n, sizeof spoilt, words, sizeof words / sizeof *words);
        uint8_t *exact = malloc(m ? m : 1);
        memcpy(exact, spoilt, m);
        const uint64_t before = n_allocs;
        const err_t e = msg_unpack(&out, exact, m);
        assert_int_equal(n_allocs, before);
        free(exact);
        if (e != OK) {
            assert_int_equal(e, ERR_DATA);
            continue;
        }
        n_passed++;
        assert_true(out.type >= 0 && out.type < MSG_TYPES);
        assert_true(out.from < WRITERS && out.block >= 0 && out.status >= 0 && out.status <= 255);
        assert_non_null(memchr(out.text, '\0', sizeof out.text));
    }
    assert_true(n_passed > 100 && n_passed < 50000);
}

static void test_bombs(void **state)
{
    (void)state;
    uint8_t deep[1000];
    REFUSE("\xdd\x10\x00\x00\x00", "not a map");
    REFUSE("\xdf\x04\x00\x00\x00", "67108864 fields");
    REFUSE("\xdf\xff\xff\xff\xff", "fields");
    REFUSE("\xde\xff\xff", "65535 fields");
    REFUSE("\x81\xa1v\xdd\x10\x00\x00\x00", "only plain");
    REFUSE("\x81\xa1v\xdf\x04\x00\x00\x00", "only plain");
    REFUSE("\x81\xa1v\xdb\xff\xff\xff\xff", "cut short");
    REFUSE("\x81\xa1v\xc6\xff\xff\xff\xff", "cut short");
    REFUSE("\x81\xdb\xff\xff\xff\xff", "cut short");
    REFUSE("\x81\xa1v\xc9\xff\xff\xff\xff", "only plain");
    memset(deep, 0x81, sizeof deep);
    refuse(deep, sizeof deep, "only plain");
    memset(deep, 0x91, sizeof deep);
    refuse(deep, sizeof deep, "not a map");
    deep[0] = 0x81, deep[1] = 0xa1, deep[2] = 'v';
    refuse(deep, sizeof deep, "only plain");
}

#define V "\xa1v\x01"
#define BELL                                                                                       \
    "\xa1t\xa4"                                                                                    \
    "bell"
#define FROM                                                                                       \
    "\xa4"                                                                                         \
    "from"

static void take(const char *bytes, size_t n)
{
    memset(&out, 0xee, sizeof out);
    want_ok(msg_unpack(&out, (const uint8_t *)bytes, n));
    assert_int_equal(out.type, MSG_BELL);
    assert_int_equal(out.from, 2);
}
#define TAKE(bytes) take((bytes), sizeof(bytes) - 1)

static void test_what_may_vary(void **state)
{
    (void)state;
    TAKE("\x83" V BELL FROM "\x02");
    TAKE("\x83" FROM "\x02" BELL V);
    TAKE("\x83" V BELL FROM "\xcf\0\0\0\0\0\0\0\x02");
    TAKE("\x83" V BELL FROM "\xd1\0\x02");
    TAKE("\xdf\0\0\0\x03" V BELL FROM "\x02");
    TAKE("\xde\0\x03" V BELL "\xd9\x04"
         "from"
         "\x02");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa3new\xa5value");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa3new\xc0");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa3new\xc3");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa3new\xe0");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa3new\xca\0\0\0\0");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa3new\xcb\0\0\0\0\0\0\0\0");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa3new\xc4\x03\xff\xff\xff");
    TAKE("\x84" V BELL FROM "\x02"
         "\xa4text\xa3"
         "any"); /* a field of another type */
}

static void test_what_may_not(void **state)
{
    (void)state;
    REFUSE("", "cut short");
    REFUSE("\xc0", "not a map");
    REFUSE("\x80", "without a version");
    REFUSE("\x82" BELL FROM "\x02", "without a version");
    REFUSE("\x83\xa1v\xa1"
           "1" BELL FROM "\x02",
           "without a version");
    REFUSE("\x83\xa1v\x02" BELL FROM "\x02", "version 2, this program speaks 1");
    REFUSE("\x83\xa1v\x00" BELL FROM "\x02", "version 0, this program speaks 1");
    REFUSE("\x82" V FROM "\x02", "without a type");
    REFUSE("\x83" V "\xa1t\x01" FROM "\x02", "not a word");
    REFUSE("\x83" V "\xa1t\xa4"
           "bull" FROM "\x02",
           "unknown type bull");
    REFUSE("\x83" V "\xa1t\xa3"
           "bel" FROM "\x02",
           "unknown type bel");
    REFUSE("\x82" V BELL, "bell without from");
    REFUSE("\x83" V BELL FROM "\x04", "from is 4, not 0 to 3");
    REFUSE("\x83" V BELL FROM "\xff", "not a whole number");
    REFUSE("\x83" V BELL FROM "\xd0\x80", "not a whole number");
    REFUSE("\x83" V BELL FROM "\xca\0\0\0\0", "not a whole number");
    REFUSE("\x83" V BELL FROM "\xa1"
           "2",
           "not a whole number");
    REFUSE("\x83" V BELL FROM "\x02\x02", "1 bytes after its end");
    REFUSE("\x82" V BELL FROM "\x02", "bytes after its end");
    REFUSE("\x84" V BELL FROM "\x02" FROM "\x02", "from twice");
    REFUSE("\x84" V BELL FROM "\x02\xd9\x04"
           "from"
           "\x02",
           "from twice");
    REFUSE("\x85" V BELL FROM "\x02"
           "\xa1n\x01\xa1n\x01",
           "n twice");
    REFUSE("\x84" V BELL FROM "\x02"
           "\xa3new\x91\x01",
           "only plain");
    REFUSE("\x84" V BELL FROM "\x02"
           "\xa3new\x80",
           "only plain");
    REFUSE("\x84" V BELL FROM "\x02"
           "\xa3new\xd4\x01\x01",
           "only plain");
    REFUSE("\x84" V BELL FROM "\x02"
           "\xa3new\xc1",
           "only plain");
    REFUSE("\x84" V BELL FROM "\x02"
           "\x05\x01",
           "a key is not a word");
    REFUSE("\x84" V BELL FROM "\x02"
           "\xa0\x01",
           "a key is not a word");
    REFUSE("\x84" V BELL FROM "\x02"
           "\x90\x01",
           "only plain");
    REFUSE("\x84" V BELL FROM "\x02\xd9\x21"
           "123456789012345678901234567890123\x01",
           "a key is not a word");
    REFUSE("\x84" V BELL FROM "\x02"
           "\xa3new\xa2\xc0\x80",
           "not UTF-8");
    memset(buf, 0, sizeof buf);
    refuse(buf, sizeof buf, "65537 bytes");
}

static void test_text_is_utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\xaf",
                                      "\xc1\xbf",
                                      "\xc3",
                                      "\xc3\x28",
                                      "\xe0\x9f\xbf",
                                      "\xe2\x82",
                                      "\xe2\x28\xa1",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf0\x90\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xfe",
                                      "\xff",
                                      "ok\xe2\x82",
                                      "\xf8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        start(MSG_PROMPT);
        strcpy(in.text, bad[i]);
        refuse(buf, msg_pack(&in, buf, sizeof buf), "not UTF-8");
    }
    REFUSE("\x84" V "\xa1t\xa6prompt\xa7request\x07\xa4text\xa3"
           "a\0b",
           "NUL");
    REFUSE("\x84" V "\xa1t\xa6prompt\xa7request\x07\xa4text\xa0", "text is 0 bytes");
    REFUSE("\x84" V "\xa1t\xa6prompt\xa7request\x00\xa4text\xa1"
           "x",
           "request is 0");
    REFUSE("\x84" V "\xa1t\xa6prompt\xa7request\x07\xa4text\xc4\x01x", "text is not text");
    start(MSG_PROMPT);
    const size_t n = msg_pack(&in, buf, sizeof buf) - 6; /* up to the text's header */
    buf[n] = 0xda, buf[n + 1] = 0x40, buf[n + 2] = 0x01;
    memset(buf + n + 3, 'x', PROMPT_BYTES_MAX + 1);
    refuse(buf, n + 3 + PROMPT_BYTES_MAX + 1, "text is 16385 bytes");
    REFUSE("\x87" V "\xa1t\xa7receipt\xa7request\x07\xa5"
           "block\xcf\x80\0\0\0\0\0\0\0"
           "\xa6latent\x01\xa5"
           "frame\x01",
           "cut short");
    REFUSE("\x87" V "\xa1t\xa7receipt\xa7request\x07\xa5"
           "block\xcf\x80\0\0\0\0\0\0\0"
           "\xa6latent\x01\xa5"
           "frame\x01\xa7time_ms\x01",
           "block is 9223372036854775808");
}

/* docs/PROTOCOL.md's table: each type once, each field with its bounds. */
static void test_help_has_every_field(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "| `bell` | stage to stage | | | | look at the ledger |\n| | | `from` | u64 | from 0 to 3 "
        "|",
        "| `prompt` | client to gateway |",
        "| | | `text` | text | 1 to 16384 bytes | the prompt |",
        "| `finish` | client to gateway |",
        "| `receipt` | gateway to client |",
        "| | | `request` | u64 | from 1 to 2^64 - 1 |",
        "| | | `block` | i64 | from 0 to 2^63 - 1 |",
        "| | | `latent` |",
        "| | | `frame` |",
        "| | | `time_ms` |",
        "| `refused` | gateway to client |",
        "| | | `status` | i64 | from 0 to 255 |",
        "| | | `text` | text | 0 to 16384 bytes |",
    };
    char text[4096] = "";
    FILE *f = fmemopen(text, sizeof text, "w");
    msg_print_help(f);
    fclose(f);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(text, lines[i])) fail_msg("%s is not in %s", lines[i], text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips_at_bounds),
        cmocka_unit_test(test_out_of_bounds_is_not_packed),
        cmocka_unit_test(test_golden_bytes),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_what_may_vary),
        cmocka_unit_test(test_what_may_not),
        cmocka_unit_test(test_text_is_utf8),
        cmocka_unit_test(test_help_has_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
