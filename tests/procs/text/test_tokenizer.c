/* test_tokenizer.c - a token a byte; and Hugging Face's ids on the models of tests/golden/tokenizer
 * (see its README for who made them). */
#include "procs/text/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/prompt.h"
#include "tests/check.h"

#define GOLDEN "tests/golden/tokenizer/"
enum { TEXT_LEN = 24, FULL_MAX = 4096 };

static struct tokenizer *open_as(const char *name, int32_t vocab)
{
    struct conf c;
    struct tokenizer *t = NULL;
    conf_default(&c);
    snprintf(c.text.tokenizer, sizeof c.text.tokenizer, "%s", name);
    c.text.vocab = vocab;
    assert_ok(tokenizer_open(&t, &c));
    return t;
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void test_bytes(void **state)
{
    (void)state;
    struct tokenizer *t = open_as("bytes", 256384);
    int32_t ids[8], n_full = 0;
    assert_int_equal(tokenizer_encode(t, "aZ\xff", 8, ids, &n_full), 4);
    assert_int_equal(n_full, 4);
    const int32_t want[] = {2 + 'a', 2 + 'Z', 2 + 0xff, TOKEN_EOS};
    for (int i = 0; i < 4; i++) assert_int_equal(ids[i], want[i]);
    tokenizer_close(&t);
    assert_null(t);
}

static void test_bytes_are_cut_before_eos(void **state)
{
    (void)state;
    struct tokenizer *t = open_as("bytes", 128);
    static const char text[] = "abcdefgh";
    int32_t ids[16], n_full = 0;
    for (int32_t n_max = 1; n_max <= 12; n_max++) {
        const int32_t n = n_max < 9 ? n_max : 9;
        ids[n] = -7;
        assert_int_equal(tokenizer_encode(t, text, n_max, ids, &n_full), n);
        assert_int_equal(n_full, 9);
        assert_int_equal(ids[n - 1], TOKEN_EOS);
        assert_int_equal(ids[n], -7);
        for (int32_t i = 0; i < n - 1; i++) assert_int_equal(ids[i], 2 + text[i] % 126);
    }
    tokenizer_close(&t);
}

/* --- a folder --------------------------------------------------------------------------------- */

static char *read_text(const char *path)
{
    char *data = NULL;
    size_t n = 0;
    assert_ok(file_read(path, 1 << 20, &data, &n));
    return data;
}

/* The ids of a line "n_full: id id ..."; returns how many. */
static int32_t parse_ids(char *line, int32_t *n_full, int32_t *ids)
{
    int32_t n = 0;
    char *at;
    *n_full = (int32_t)strtol(line, &at, 10);
    for (at++; *at; n++) ids[n] = (int32_t)strtol(at, &at, 10);
    return n;
}

static void print_ids(const char *what, const int32_t *ids, int32_t n)
{
    print_error("%s", what);
    for (int32_t i = 0; i < n; i++) print_error(" %d", ids[i]);
    print_error("\n");
}

static int32_t compare(struct tokenizer *t, const char *json, char *want_line)
{
    json_t *text = json_loads(json, JSON_DECODE_ANY, NULL);
    int32_t want[TEXT_LEN + 1], got[FULL_MAX], want_full, got_full, n_full;
    assert_non_null(text);
    const int32_t n_want = parse_ids(want_line, &want_full, want);
    const int32_t n = tokenizer_encode(t, json_string_value(text), TEXT_LEN, got, &got_full);
    const bool is_same =
        n == n_want && got_full == want_full && memcmp(got, want, (size_t)n * sizeof *got) == 0;
    if (!is_same) {
        print_error("%s: %d of %d ids, not %d of %d\n", json, n, got_full, n_want, want_full);
        print_ids("  want", want, n_want);
        print_ids("  got ", got, n);
    }
    /* Uncut it begins the same. */
    const int32_t n_whole = tokenizer_encode(t, json_string_value(text), FULL_MAX, got, &n_full);
    assert_int_equal(n_whole, got_full);
    assert_int_equal(n_full, got_full);
    json_decref(text);
    return is_same ? 0 : 1;
}

static void check_variant(const char *name, int32_t vocab)
{
    char path[100];
    int32_t n_wrong = 0, n_lines = 0;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    struct tokenizer *t = open_as(path, vocab);
    snprintf(path, sizeof path, GOLDEN "%s/ids.txt", name);
    char *prompts = read_text(GOLDEN "prompts.txt"), *ids = read_text(path);
    char *p_rest = NULL, *i_rest = NULL;
    char *p = strtok_r(prompts, "\n", &p_rest), *i = strtok_r(ids, "\n", &i_rest);
    for (; p && i; p = strtok_r(NULL, "\n", &p_rest), i = strtok_r(NULL, "\n", &i_rest)) {
        n_wrong += compare(t, p, i);
        n_lines++;
    }
    assert_null(p);
    assert_null(i);
    assert_true(n_lines >= 100);
    assert_int_equal(n_wrong, 0);
    free(prompts);
    free(ids);
    tokenizer_close(&t);
}

static void test_nmt(void **state)
{
    (void)state;
    check_variant("nmt", 640);
}

static void test_byte_fallback(void **state)
{
    (void)state;
    check_variant("bytes", 640);
}

static void test_plain(void **state)
{
    (void)state;
    check_variant("plain", 640);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bytes), TEST(test_bytes_are_cut_before_eos),
        TEST(test_nmt),   TEST(test_byte_fallback),
        TEST(test_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
