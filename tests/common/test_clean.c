/* test_clean.c - cleaning against ftfy 6.3.1 and Python's html: tests/golden/tokenizer/clean.txt,
 * made by make.py there, and what the header says is not done. */
#include "common/clean.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "tests/check.h"

#define GOLDEN "tests/golden/tokenizer/"

static char *read_text(const char *path)
{
    char *data = NULL;
    size_t n = 0;
    assert_ok(file_read(path, 1 << 20, &data, &n));
    return data;
}

static void becomes(const char *text, const char *want)
{
    char *out = NULL;
    size_t n = 0;
    assert_ok(clean_text(text, strlen(text), &out, &n));
    assert_int_equal(n, strlen(out));
    assert_string_equal(out, want);
    free(out);
}

static void test_golden(void **state)
{
    (void)state;
    char *prompts = read_text(GOLDEN "prompts.txt"), *clean = read_text(GOLDEN "clean.txt");
    char *p_rest = NULL, *c_rest = NULL;
    char *p = strtok_r(prompts, "\n", &p_rest), *c = strtok_r(clean, "\n", &c_rest);
    int32_t n_lines = 0, n_wrong = 0;
    for (; p && c; p = strtok_r(NULL, "\n", &p_rest), c = strtok_r(NULL, "\n", &c_rest)) {
        json_t *text = json_loads(p, JSON_DECODE_ANY, NULL);
        json_t *want = json_loads(c, JSON_DECODE_ANY, NULL);
        char *got = NULL;
        size_t n;
        assert_ok(clean_text(json_string_value(text), json_string_length(text), &got, &n));
        if (strcmp(got, json_string_value(want)) != 0) {
            print_error("%s becomes \"%s\", not %s\n", p, got, c);
            n_wrong++;
        }
        n_lines++;
        free(got);
        json_decref(text);
        json_decref(want);
    }
    assert_true(!p && !c && n_lines >= 100);
    assert_int_equal(n_wrong, 0);
    free(prompts);
    free(clean);
}

static void test_empty(void **state)
{
    (void)state;
    becomes("", "");
    becomes(" \t\n", "");
    becomes("&nbsp;&#32;\xE3\x80\x80", "");
    becomes("\xEF\xBB\xBF", "");
}

/* As html.unescape would do it five times and more; the reference does it three times. */
static void test_three_times(void **state)
{
    (void)state;
    becomes("<&amp;amp;lt;", "<&lt;"); /* with a '<' ftfy leaves entities alone: twice */
    becomes("<\n&lt;", "< <");
    becomes("&amp;amp;amp;amp;amp;lt;", "<"); /* ftfy goes on until nothing changes */
}

static void test_not_done(void **state)
{
    (void)state;
    becomes("s\xC3\x83\xC2\xB3", "s\xC3\x83\xC2\xB3"); /* mojibake of an o with acute */
    becomes("&EACUTE;", "&EACUTE;");
}

/* The room suffices for what grows most: entities, ligatures, marks that decompose. */
static void test_growth(void **state)
{
    (void)state;
    static const char *const parts[] = {"&nLt;",        "\xEF\xAC\x83", "\xF0\x9D\x85\xA0",
                                        "\xE0\xA5\x98", "\xEF\xBF\xA3", "&#xFB03;"};
    for (size_t k = 0; k < COUNT(parts); k++) {
        char text[16384] = "", *out = NULL;
        size_t n, n_part = strlen(parts[k]);
        for (size_t i = 0; i + n_part < sizeof text; i += n_part)
            memcpy(text + i, parts[k], n_part);
        assert_ok(clean_text(text, strlen(text), &out, &n));
        assert_true(n > 0 && n == strlen(out));
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_golden),   TEST(test_empty),  TEST(test_three_times),
        TEST(test_not_done), TEST(test_growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
