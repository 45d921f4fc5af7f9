/* test_unigram.c - paths that can be worked out by hand. The rest is Hugging Face's word, see
 * test_tokenizer.c. */
#include "procs/text/unigram.h"

#include <stdio.h>
#include <string.h>

#include "tests/check.h"
#include "tests/procs/text/model.h"

static struct model m;
static struct spm *spm;
static struct unigram *u;

static void begin(void)
{
    model_begin(&m);
}

static void ready(bool has_bytes, bool byte_fallback)
{
    model_trainer(&m, 1, has_bytes);
    assert_ok(spm_open(&spm, "x.model", m.data, m.n));
    assert_ok(unigram_open(&u, spm, byte_fallback, 64));
}

static void end(void)
{
    unigram_close(&u);
    spm_close(&spm);
}

/* The pieces are those of the words, between spaces; "?" is an unknown. */
static void encodes(const char *text, const char *words)
{
    int32_t at[64];
    char got[256] = "";
    struct ids out = {.at = at, .n_max = 64};
    unigram_encode(u, text, strlen(text), &out);
    for (int32_t i = 0; i < out.n; i++) {
        size_t n;
        float score;
        const char *piece = at[i] == 3 ? "?" : spm_piece(spm, at[i], &n, &score);
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i ? " " : "", piece);
    }
    assert_string_equal(got, words);
}

static void test_the_likelier_path(void **state)
{
    (void)state;
    begin();
    model_piece(&m, "a", -1, NORMAL);
    model_piece(&m, "b", -1.5f, NORMAL);
    model_piece(&m, "ab", -2.4f, NORMAL);
    model_piece(&m, "c", -1, NORMAL);
    model_piece(&m, "bc", -2.6f, NORMAL);
    ready(false, false);
    encodes("ab", "ab");    /* -2.4 over -2.5 */
    encodes("bc", "b c");   /* -2.5 over -2.6 */
    encodes("abc", "ab c"); /* -3.4 over -3.6 and -3.5 */
    encodes("", "");
    end();
}

/* Of equals the one found first, shorter pieces and earlier beginnings first. */
static void test_ties(void **state)
{
    (void)state;
    begin();
    model_piece(&m, "a", -1, NORMAL);
    model_piece(&m, "aa", -2, NORMAL);
    model_piece(&m, "aaa", -3, NORMAL);
    ready(false, false);
    encodes("aa", "aa");
    encodes("aaa", "aaa");
    encodes("aaaa", "a aaa");
    end();
}

/* -9 is the lowest score, so an unknown costs -19, and "? y" -18.5. */
static void test_unknown_costs_ten_more(void **state)
{
    (void)state;
    begin();
    model_piece(&m, "y", 0.5f, NORMAL);
    model_piece(&m, "xy", -9, NORMAL);
    ready(false, false);
    encodes("xy", "xy");
    encodes("xyy", "xy y"); /* -8.5 */
    encodes("zy", "? y");
    encodes("zz\xE7\x8C\xAB", "?"); /* neighbours are one */
    encodes("zyz", "? y ?");
    end();
}

static void test_bytes_of_unknowns(void **state)
{
    (void)state;
    char piece[8];
    for (int fallback = 0; fallback < 2; fallback++) {
        begin();
        for (int b = 0; b < 256; b++) {
            snprintf(piece, sizeof piece, "<0x%02X>", b);
            model_piece(&m, piece, 0, BYTE);
        }
        model_piece(&m, "a", -1, NORMAL);
        ready(true, fallback);
        encodes("a\xE7\x8C\xAB z", fallback ? "a <0xE7> <0x8C> <0xAB> <0x20> <0x7A>" : "a ?");
        encodes("a<0x41>", "a <0x41>"); /* a piece like any other */
        end();
    }
    begin(); /* not all 256: none */
    model_piece(&m, "a", -1, NORMAL);
    model_piece(&m, "<0x62>", -1, NORMAL);
    ready(false, true);
    encodes("ab", "a <0x62>");
    encodes("abc", "a ?");
    end();
}

static void test_no_room(void **state)
{
    (void)state;
    int32_t at[3] = {-7, -7, -7};
    struct ids out = {.at = at, .n_max = 2};
    begin();
    model_piece(&m, "a", -1, NORMAL);
    ready(false, false);
    unigram_encode(u, "aaaa", 4, &out);
    assert_int_equal(out.n, 4);
    assert_int_equal(at[0], 4);
    assert_int_equal(at[1], 4);
    assert_int_equal(at[2], -7);
    assert_int_equal(unigram_id(u, "a", 1), 4);
    assert_int_equal(unigram_id(u, "b", 1), -1);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_likelier_path), TEST(test_ties),    TEST(test_unknown_costs_ten_more),
        TEST(test_bytes_of_unknowns), TEST(test_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
