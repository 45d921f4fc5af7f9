/* test_results.c - statistics as JSON, and which runs merge with which. */
#include "procs/supervisor/results.h"

#include <stdbool.h>

#include "tests/scratch.h"

static struct conf c;

static double number(const json_t *o, const char *key)
{
    if (!json_is_number(json_object_get(o, key))) fail_msg("%s is no number", key);
    return json_number_value(json_object_get(o, key));
}

/* 1 to 100 ms, not in order: mean 50.5, divisor n. */
static void fill(int64_t v[100])
{
    for (int64_t i = 0; i < 100; i++) v[i] = ((i * 37 + 11) % 100 + 1) * 1000000;
}

static void test_statistics_are_in_ms_and_values_in_their_order(void **state)
{
    (void)state;
    int64_t v[100];
    fill(v);
    json_t *o = results_stats(v, 100);
    assert_true(number(o, "n") == 100 && number(o, "mean") == 50.5);
    assert_true(number(o, "std") > 28.8660700 && number(o, "std") < 28.8660701);
    assert_true(number(o, "p50") == 50 && number(o, "p95") == 95 && number(o, "p99") == 99);
    assert_true(number(o, "max") == 100 && number(o, "min") == 1);
    assert_int_equal(json_array_size(json_object_get(o, "values")), 100);
    assert_true(json_number_value(json_array_get(json_object_get(o, "values"), 1)) == 49);
    assert_int_equal(v[0], 12000000);
    json_decref(o);
    o = results_stats(v, 0);
    assert_true(number(o, "n") == 0 && number(o, "mean") == 0);
    json_decref(o);
}

static void test_the_seed_s_names(void **state)
{
    (void)state;
    static const char *const names[] = {"ss_mean", "ss_std", "ss_p50", "ss_p95",
                                        "ss_p99",  "ss_max", "ss_min", "ss_samples"};
    int64_t v[100];
    json_t *o = json_object();
    fill(v);
    results_put_seed(o, "ss", v, 100);
    assert_int_equal(json_object_size(o), 8);
    for (int i = 0; i < 8; i++) number(o, names[i]);
    assert_true(number(o, "ss_p95") == 95 && number(o, "ss_samples") == 100);
    json_decref(o);
}

static json_t *run_of(const char *phase, bool quick, int value)
{
    return json_pack("{s:b, s:[s], s:{s:i}}", "quick", quick, "phases", phase, "fresh", phase,
                     value);
}

static int value_of(const json_t *file, size_t run, const char *phase)
{
    const json_t *o = json_array_get(json_object_get(file, "runs"), run);
    return (int)json_integer_value(json_object_get(json_object_get(o, "fresh"), phase));
}

static void test_phases_meet_in_one_run_until_one_comes_again(void **state)
{
    (void)state;
    json_t *file = results_head("seed", "abc", NULL, "", &c);
    const json_t *runs = json_object_get(file, "runs");
    check_ok(results_add(file, run_of("a", true, 1)));
    check_ok(results_add(file, run_of("b", true, 2)));
    assert_int_equal(json_array_size(runs), 1);
    assert_true(value_of(file, 0, "a") == 1 && value_of(file, 0, "b") == 2);
    check_ok(results_add(file, run_of("a", true, 3)));
    assert_int_equal(json_array_size(runs), 2);
    check_ok(results_add(file, run_of("b", true, 4)));
    check_ok(results_add(file, run_of("c", false, 5))); /* not as quick */
    assert_int_equal(json_array_size(runs), 3);
    assert_true(value_of(file, 0, "a") == 1 && value_of(file, 1, "a") == 3);
    assert_true(value_of(file, 1, "b") == 4 && value_of(file, 2, "c") == 5);
    json_decref(file);
}

static void test_only_like_is_merged_with_like(void **state)
{
    (void)state;
    json_t *file = results_head("seed", "abc", NULL, "", &c);
    json_t *commit = results_head("seed", "abd", NULL, "", &c);
    json_t *other = results_head("paper", "abc", NULL, "", &c);
    check_ok(results_check_same(file, file));
    check_fails(results_check_same(file, commit), ERR_DATA, "another commit");
    check_fails(results_check_same(file, other), ERR_DATA, "another protocol");
    struct conf window = c;
    window.dit.window = 9;
    json_t *conf = results_head("seed", "abc", NULL, "", &window);
    check_fails(results_check_same(file, conf), ERR_DATA, "another config");
    window = c;
    snprintf(window.place.vae, sizeof window.place.vae, "cuda:1");
    json_t *machine = results_head("seed", "abc", NULL, "", &window);
    check_fails(results_check_same(file, machine), ERR_DATA, "another machine");
    window = c;
    snprintf(window.place.clean, sizeof window.place.clean, "cuda:1");
    json_t *clean = results_head("seed", "abc", NULL, "", &window);
    check_fails(results_check_same(file, clean), ERR_DATA, "another machine");
    json_decref(clean);
    json_decref(file);
    json_decref(commit);
    json_decref(other);
    json_decref(conf);
    json_decref(machine);
}

static void want_text(const json_t *o, const char *key, const char *want)
{
    const char *is = json_string_value(json_object_get(o, key));
    if (!is || strcmp(is, want) != 0) fail_msg("%s: %s, not %s", key, is ? is : "none", want);
}

static void test_which_device_did_what(void **state)
{
    (void)state;
    struct conf places = c;
    strcpy(places.place.text, "cuda:3");
    strcpy(places.place.dit, "cuda:0");
    strcpy(places.place.vae, "cuda:1");
    strcpy(places.place.clean, "cuda:2");
    json_t *file = results_head("seed", "abc", NULL, "", &places);
    assert_non_null(file);
    const json_t *machine = json_object_get(file, "machine");
    assert_int_equal(json_object_size(machine), 6);
    want_text(machine, "text", "cuda:3");
    want_text(machine, "dit", "cuda:0");
    want_text(machine, "vae", "cuda:1");
    want_text(machine, "clean", "cuda:2");
    want_text(json_object_get(file, "config"), "file", "demo.ini"); /* what follows is in place */
    json_decref(file);
    file = results_head("seed", "abc", NULL, "", &c);
    want_text(json_object_get(file, "machine"), "clean", ""); /* where dit is */
    json_decref(file);
}

static void test_files(void **state)
{
    (void)state;
    json_t *file = results_head("seed", "abc", "x.ini", "", &c), *read = NULL;
    check_ok(results_add(file, run_of("a", true, 1)));
    check_ok(results_write(scratch_path("a.json"), file));
    check_ok(results_read(scratch_path("a.json"), &read));
    assert_true(json_equal(file, read));
    json_decref(file);
    json_decref(read);
    check_fails(results_read(scratch_put("b", "{\"format\": 1}"), &read), ERR_DATA, "no");
    check_fails(results_read(scratch_put("b", "{"), &read), ERR_DATA, "b:1:");
    check_fails(results_read(scratch_path("nowhere"), &read), ERR_NOINPUT, "nowhere");
}

static void note(void *self, const char *path, json_t *stats)
{
    char *all = self;
    sprintf(all + strlen(all), "%s=%d ", path,
            (int)json_integer_value(json_object_get(stats, "n")));
}

static void test_a_walk_visits_statistics(void **state)
{
    (void)state;
    char all[200] = "";
    json_t *o = json_pack("{s:{s:{s:i, s:f}, s:i}, s:{s:i, s:f}, s:[{s:f}]}", "a", "b", "n", 3,
                          "mean", 1.0, "c", 5, "d", "n", 4, "mean", 2.0, "e", "mean", 1.0);
    results_walk(o, note, all);
    assert_string_equal(all, "a.b=3 d=4 ");
    json_decref(o);
}

static int open_conf(void **state)
{
    (void)state;
    conf_default(&c);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics_are_in_ms_and_values_in_their_order),
        cmocka_unit_test(test_the_seed_s_names),
        cmocka_unit_test(test_phases_meet_in_one_run_until_one_comes_again),
        cmocka_unit_test(test_only_like_is_merged_with_like),
        cmocka_unit_test(test_which_device_did_what),
        cmocka_unit_test_setup_teardown(test_files, scratch_open, scratch_close),
        cmocka_unit_test(test_a_walk_visits_statistics),
    };
    return cmocka_run_group_tests(tests, open_conf, NULL);
}
