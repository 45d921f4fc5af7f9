/* test_chrome.c - spans as trace events. */
#include "procs/supervisor/chrome.h"

#include "tests/scratch.h"

static const json_t *event(const json_t *o, size_t i)
{
    return json_array_get(json_object_get(o, "traceEvents"), i);
}

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void test_events(void **state)
{
    (void)state;
    struct ledger_span dit[] = {{5000500, 5002000, 7, PHASE_DENOISE, 2},
                                {5000000, 5009000, 7, PHASE_DENOISE, SPAN_WHOLE},
                                {6000000, 6000001, 7, 99, 0}}; /* anybody may have written it */
    struct ledger_span vae[] = {{5010000, 5030000, 21, PHASE_DECODE, 0}};
    const struct trace t = {.of = {[WRITER_DIT] = {dit, 3, 3}, [WRITER_VAE] = {vae, 1, 1}}};
    json_t *o = chrome_trace(&t);
    assert_int_equal(json_array_size(json_object_get(o, "traceEvents")), WRITERS + 4);
    const json_t *e = event(o, 2); /* behind the names of text and dit */
    assert_string_equal(text(e, "ph"), "X");
    assert_string_equal(text(e, "name"), "step 2");
    assert_string_equal(text(e, "cat"), "denoise");
    assert_true(number(e, "ts") == 0.5 && number(e, "dur") == 1.5 && number(e, "pid") == 2);
    assert_string_equal(text(event(o, 3), "name"), "block 7");
    assert_true(number(event(o, 3), "ts") == 0 && number(event(o, 3), "dur") == 9);
    assert_string_equal(text(event(o, 4), "name"), "?");
    assert_string_equal(text(event(o, 5), "ph"), "M");
    assert_string_equal(text(json_object_get(event(o, 5), "args"), "name"), "vae");
    assert_string_equal(text(event(o, 6), "name"), "latent 21");
    assert_true(number(event(o, 6), "pid") == 3);
    json_decref(o);
}

static void test_times_that_anybody_wrote(void **state)
{
    (void)state;
    struct ledger_span text_spans[] = {{INT64_MAX, INT64_MIN, -1, -5, -9},
                                       {INT64_MIN, INT64_MAX, INT64_MIN, PHASE_DENOISE, INT32_MIN}};
    const struct trace t = {.of = {[WRITER_TEXT] = {text_spans, 2, 2}}};
    json_t *o = chrome_trace(&t);
    assert_string_equal(text(event(o, 1), "name"), "?");
    assert_true(number(event(o, 1), "ts") > 1e16 && number(event(o, 1), "dur") < -1e16);
    assert_true(number(event(o, 2), "ts") == 0);
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_events),
                                       cmocka_unit_test(test_times_that_anybody_wrote)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
