/* test_variants.c - what is measured by turns, and with which keys. */
#include "procs/supervisor/variants.h"

#include <string.h>

#include "tests/check.h"

static struct variant v[VARIANTS_MAX];
static int32_t n;

static void test_presets(void **state)
{
    (void)state;
    struct args a = {.protocol = "seed", .compare = true};
    assert_ok(variants_of(&a, v, &n));
    assert_int_equal(n, 2);
    assert_string_equal(v[0].set, "run.preset=baseline");
    assert_string_equal(v[1].name, "balanced");
    a.presets[a.n_presets++] = "turbo";
    a.presets[a.n_presets++] = "baseline"; /* is there anyway */
    a.presets[a.n_presets++] = "speed";
    assert_ok(variants_of(&a, v, &n));
    assert_int_equal(n, 3);
    assert_string_equal(v[0].name, "baseline");
    assert_string_equal(v[2].set, "run.preset=speed");
    a.compare = false;
    a.n_presets = 1;
    assert_ok(variants_of(&a, v, &n));
    assert_int_equal(n, 1);
    assert_string_equal(v[0].set, "run.preset=turbo");
    a.n_presets = 0;
    assert_ok(variants_of(&a, v, &n));
    assert_true(n == 1 && v[0].set[0] == '\0');
}

static void test_ablations(void **state)
{
    (void)state;
    static const struct {
        const char *name, *first, *last;
        int32_t n;
    } all[] = {{"window", "dit.window=12", "dit.window=6", 4},
               {"sink", "dit.sink=3", "dit.sink=0", 4},
               {"graph", "gpu.graphs=true", "gpu.graphs=false", 2},
               {"edge", "gpu.edge=true", "gpu.edge=false", 2},
               {"overlap", "dit.overlap=true", "dit.overlap=false", 2},
               {"precision", "model.precision=auto", "model.precision=fp32", 2}};
    for (size_t i = 0; i < COUNT(all); i++) {
        const struct args a = {.ablate = all[i].name};
        assert_ok(variants_of(&a, v, &n));
        assert_int_equal(n, all[i].n);
        assert_string_equal(v[0].set, all[i].first);
        assert_string_equal(v[n - 1].set, all[i].last);
    }
    const struct args a = {.ablate = "colour"};
    assert_int_equal(variants_of(&a, v, &n), ERR_USAGE);
    assert_non_null(strstr(
        err_text(), "--ablate colour: there is window, sink, graph, edge, overlap, precision"));
}

/* --set overrides a preset, an ablation --set. */
static void test_order(void **state)
{
    (void)state;
    const struct variant preset = {"turbo", "run.preset=turbo"}, key = {"x", "dit.window=6"};
    struct args a = {.sets = {"dit.window=9"}, .n_sets = 1}, got;
    assert_ok(variants_args(&a, &preset, &got));
    assert_true(got.n_sets == 2 && strcmp(got.sets[0], "run.preset=turbo") == 0);
    assert_string_equal(variants_preset(&got), "turbo");
    assert_ok(variants_args(&a, &key, &got));
    assert_true(got.n_sets == 2 && strcmp(got.sets[1], "dit.window=6") == 0);
    assert_string_equal(variants_preset(&got), "");
    assert_ok(variants_args(&a, &(struct variant){{0}, {0}}, &got));
    assert_int_equal(got.n_sets, 1);
    a.n_sets = ARGS_SETS_MAX;
    assert_int_equal(variants_args(&a, &key, &got), ERR_USAGE);
}

static void test_names_of_files(void **state)
{
    (void)state;
    char name[64];
    variants_file(&(struct args){.protocol = "seed"}, name, sizeof name);
    assert_string_equal(name, "seed");
    variants_file(&(struct args){.protocol = "seed", .compare = true}, name, sizeof name);
    assert_string_equal(name, "seed-compare");
    variants_file(&(struct args){.protocol = "paper", .ablate = "sink"}, name, sizeof name);
    assert_string_equal(name, "paper-sink");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_ablations),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_names_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
