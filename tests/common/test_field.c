/* test_field.c - one value at a time. */
#include "common/field.h"

#include <stdbool.h>

#include "tests/scratch.h"

struct thing {
    struct {
        int32_t small;
        int64_t large;
        bool flag;
        char text[8];
        int32_t kind;
    } a;
};

static const char *const kinds[] = {"one", "two", "three"};
static const struct field fields[] = {
    FIELD(struct thing, a, small, FIELD_I32, -3, 24, "1", "small"),
    FIELD(struct thing, a, large, FIELD_I64, 0, INT64_MAX, "2", "large"),
    FIELD(struct thing, a, flag, FIELD_BOOL, 0, 1, "true", "flag"),
    FIELD(struct thing, a, text, FIELD_TEXT, 0, 7, "", "text"),
    FIELD_NAMED(struct thing, a, kind, kinds, "one", "kind"),
};
enum { SMALL, LARGE, FLAG, TEXT, KIND, N_FIELDS };

static void test_values_are_set_and_got_back(void **state)
{
    (void)state;
    static const struct {
        int f;
        const char *text;
    } good[] = {
        {SMALL, "-3"},       {SMALL, "24"},   {SMALL, "0"},    {LARGE, "9223372036854775807"},
        {FLAG, "true"},      {FLAG, "false"}, {TEXT, ""},      {TEXT, "sev en="},
        {TEXT, "\xC3\xA9#"}, {KIND, "one"},   {KIND, "three"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct thing t = {0};
        char text[FIELD_VALUE_MAX];
        want_ok(field_set(&fields[good[i].f], &t, good[i].text));
        field_get(&fields[good[i].f], &t, text, sizeof text);
        assert_string_equal(text, good[i].text);
    }
}

static void test_a_shorter_text_leaves_no_rest(void **state)
{
    (void)state;
    struct thing t = {0}, fresh = {0};
    want_ok(field_set(&fields[TEXT], &t, "seven!!"));
    want_ok(field_set(&fields[TEXT], &t, "a"));
    want_ok(field_set(&fields[TEXT], &fresh, "a"));
    assert_memory_equal(&t, &fresh, sizeof t);
}

static void test_refusals_name_the_bounds(void **state)
{
    (void)state;
    static const struct {
        int f;
        const char *text, *words;
    } bad[] = {
        {SMALL, "25", "a.small = 25: from -3 to 24"},
        {SMALL, "-4", "a.small = -4: from -3 to 24"},
        {SMALL, "99999999999999999999", "a.small = 99999999999999999999: from -3 to 24"},
        {SMALL, "4294967296", "from -3 to 24"}, /* would be 0 in 32 bits */
        {SMALL, "", "a.small = : an integer from -3 to 24"},
        {SMALL, "-", "an integer"},
        {SMALL, "+1", "an integer"},
        {SMALL, " 1", "an integer"},
        {SMALL, "1.0", "an integer"},
        {SMALL, "0x1", "an integer"},
        {LARGE, "9223372036854775808", "from 0 to 9223372036854775807"},
        {LARGE, "-1", "a.large = -1: from 0 to"},
        {FLAG, "yes", "a.flag = yes: true or false"},
        {FLAG, "TRUE", "a.flag = TRUE: true or false"},
        {TEXT, "eight888", "a.text = eight888: up to 7 bytes"},
        {TEXT, "a;b", "a.text: cannot hold ';' (byte 2)"},
        {TEXT, "a\tb", "a.text: cannot hold a control character (byte 2)"},
        {TEXT, "\x7F", "a.text: cannot hold a control character (byte 1)"},
        {TEXT, " a", "a.text: white space at an end"},
        {TEXT, "a ", "a.text: white space at an end"},
        {KIND, "four", "a.kind = four: one or two or three"},
        {KIND, "1", "one or two or three"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct thing t, before;
        memset(&t, 0x5A, sizeof t);
        before = t;
        want_fails(field_set(&fields[bad[i].f], &t, bad[i].text), ERR_CONFIG, bad[i].words);
        assert_memory_equal(&t, &before, sizeof t);
    }
}

static void test_a_long_value_is_cut_in_the_sentence(void **state)
{
    (void)state;
    struct thing t = {0};
    char text[2000];
    memset(text, '7', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    want_fails(field_set(&fields[SMALL], &t, text), ERR_CONFIG, "777...: from -3 to 24");
}

static void test_find(void **state)
{
    (void)state;
    assert_ptr_equal(field_find(fields, N_FIELDS, "a", "flag"), &fields[FLAG]);
    assert_null(field_find(fields, N_FIELDS, "a", "flags"));
    assert_null(field_find(fields, N_FIELDS, "b", "flag"));
    assert_null(field_find(fields, N_FIELDS, "", ""));
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const known[] = {"dit.window", "dit.sink", "run.fps", "vae.base_dim"};
    static const struct {
        const char *word, *near;
    } cases[] = {
        {"dit.windw", "dit.window"},
        {"dit.window", "dit.window"},
        {"dti.window", "dit.window"},
        {"run.pfs", "run.fps"},
        {"dit.sinks", "dit.sink"},
        {"vae.basedim", "vae.base_dim"},
        {"dit.window_at", "dit.window"},
        {"place.gpu", NULL},
        {"", NULL},
        {"zzzzzzzzzz", NULL},
    };
    char longest[200];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *near = field_nearest(cases[i].word, known, 4);
        if (cases[i].near) assert_string_equal(near, cases[i].near);
        else assert_null(near);
    }
    memset(longest, 'd', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_null(field_nearest(longest, known, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_set_and_got_back),
        cmocka_unit_test(test_a_shorter_text_leaves_no_rest),
        cmocka_unit_test(test_refusals_name_the_bounds),
        cmocka_unit_test(test_a_long_value_is_cut_in_the_sentence),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
