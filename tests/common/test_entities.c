/* test_entities.c - names of HTML's table, with and without their end; html.entities of Python
 * (3.11) is where they come from. */
#include "common/entities.h"

#include <string.h>

#include "tests/check.h"

static void finds(const char *name, bool has_end, const char *want)
{
    size_t n = 0;
    const char *text = entity_find(name, strlen(name), has_end, &n);
    if (!want) {
        if (text) fail_msg("%s is %.*s", name, (int)n, text);
        return;
    }
    if (!text || n != strlen(want) || memcmp(text, want, n) != 0)
        fail_msg("%s is %.*s, not %s", name, (int)n, text ? text : "nothing", want);
}

static void test_names(void **state)
{
    (void)state;
    finds("AElig", true, "\xC3\x86"); /* first and last of the table */
    finds("AElig", false, "\xC3\x86");
    finds("zwnj", true, "\xE2\x80\x8C");
    finds("zwnj", false, NULL);
    finds("amp", true, "&");
    finds("amp", false, "&");
    finds("quot", true, "\"");
    finds("NewLine", true, "\n");
    finds("nbsp", false, "\xC2\xA0");
    finds("eacute", true, "\xC3\xA9");
    finds("not", false, "\xC2\xAC");
    finds("notin", true, "\xE2\x88\x89");
    finds("notin", false, NULL);
    finds("hearts", true, "\xE2\x99\xA5");
    finds("nLt", true, "\xE2\x89\xAA\xE2\x83\x92");
    finds("CounterClockwiseContourIntegral", true, "\xE2\x88\xB3");
    finds("Afr", true, "\xF0\x9D\x94\x84");
}

static void test_no_names(void **state)
{
    (void)state;
    finds("", true, NULL);
    finds("AEli", true, NULL);
    finds("AEligg", true, NULL);
    finds("zzzz", true, NULL);
    finds("\1", true, NULL);
    finds("amp!", true, NULL);
    finds("A", true, NULL);
    finds("\xC3\xA9", true, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_names), TEST(test_no_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
