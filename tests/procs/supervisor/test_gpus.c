/* test_gpus.c - figures of GPUs by a fake NVML, and their absence. */
#include "procs/supervisor/gpus.h"

#include <string.h>

#include "common/clock.h"
#include "tests/scratch.h"

static const int64_t AT_NS = 10ll * NS_PER_S;
static struct conf c;
static struct gpus *g;

static const json_t *of(const json_t *o, const char *gpu, const char *key)
{
    return json_object_get(json_object_get(o, gpu), key);
}

static double number(const json_t *o, const char *gpu, const char *figure)
{
    return json_number_value(of(o, gpu, figure));
}

static void places(const char *text, const char *dit, const char *vae)
{
    conf_default(&c);
    strcpy(c.place.text, text);
    strcpy(c.place.dit, dit);
    strcpy(c.place.vae, vae);
}

static void want_absent(const char *library, const char *visible, const char *words)
{
    check_ok(gpus_open(&g, &c, library, visible));
    gpus_look(g, NS_PER_S);
    json_t *o = gpus_take(g);
    const char *why = json_string_value(of(o, "cuda:0", "absent"));
    if (!why || !strstr(why, words)) fail_msg("absent: %s", why ? why : "not");
    json_decref(o);
    gpus_close(&g);
}

static void test_absent(void **state)
{
    (void)state;
    places("cpu", "cuda:0", "cuda:0");
    want_absent("libno-such-thing.so.1", NULL, "libno-such-thing.so.1");
    want_absent("libm.so.6", NULL, "nvmlInit_v2");
    want_absent(FAKE_NVML, "GPU-8932f937", "CUDA_VISIBLE_DEVICES=GPU-8932f937");
    want_absent(FAKE_NVML, "", "CUDA_VISIBLE_DEVICES=");
    want_absent(FAKE_NVML, "7", "NVML has no GPU 7");
    places("cpu", "cpu", "cpu");
    check_ok(gpus_open(&g, &c, "libno-such-thing.so.1", NULL));
    json_t *o = gpus_take(g);
    assert_int_equal(json_object_size(o), 0);
    json_decref(o);
    gpus_close(&g);
}

static void test_figures(void **state)
{
    (void)state;
    places("cuda:1", "cuda:0", "cuda:1");
    check_ok(gpus_open(&g, &c, FAKE_NVML, NULL));
    gpus_look(g, AT_NS);
    gpus_look(g, AT_NS + NS_PER_S / 4); /* too soon */
    gpus_look(g, AT_NS + NS_PER_S);
    json_t *o = gpus_take(g);
    assert_int_equal(json_object_size(o), 2);
    assert_int_equal(json_integer_value(of(o, "cuda:0", "samples")), 2);
    assert_true(number(o, "cuda:0", "sm_mhz") == 1000);
    assert_true(number(o, "cuda:1", "sm_mhz") == 1001);
    assert_true(number(o, "cuda:1", "memory_mhz_max") == 2001);
    assert_true(number(o, "cuda:1", "power_w_min") == 501);
    assert_true(number(o, "cuda:0", "temperature_c_min") == 40);
    assert_true(number(o, "cuda:0", "temperature_c") == 41);
    assert_true(number(o, "cuda:0", "temperature_c_max") == 42);
    json_decref(o);
    gpus_look(g, AT_NS + NS_PER_S + 1); /* anew, and at once */
    o = gpus_take(g);
    assert_int_equal(json_integer_value(of(o, "cuda:0", "samples")), 1);
    assert_true(number(o, "cuda:0", "temperature_c") == 44);
    json_decref(o);
    gpus_close(&g);
    gpus_close(&g);
}

/* The device of clean passes is one of them, once; where all four are, none is left out. */
static void test_the_device_of_clean_passes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *dit, *vae, *clean;
        size_t n;
    } row[] = {{"cpu", "cuda:0", "cuda:0", "cuda:1", 2},
               {"cpu", "cuda:0", "cuda:1", "cuda:1", 2},
               {"cpu", "cuda:0", "cuda:0", "", 1},
               {"cuda:2", "cuda:0", "cuda:3", "cuda:1", 4}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        places(row[i].text, row[i].dit, row[i].vae);
        strcpy(c.place.clean, row[i].clean);
        check_ok(gpus_open(&g, &c, FAKE_NVML, NULL));
        gpus_look(g, AT_NS);
        json_t *o = gpus_take(g);
        assert_int_equal(json_object_size(o), row[i].n);
        if (row[i].clean[0]) assert_true(number(o, row[i].clean, "sm_mhz") == 1001);
        json_decref(o);
        gpus_close(&g);
    }
}

static void test_visible_devices(void **state)
{
    (void)state;
    places("cpu", "cuda:0", "cpu");
    check_ok(gpus_open(&g, &c, FAKE_NVML, "1,0"));
    gpus_look(g, NS_PER_S);
    json_t *o = gpus_take(g);
    assert_true(number(o, "cuda:0", "sm_mhz") == 1001);
    json_decref(o);
    gpus_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_the_device_of_clean_passes),
        cmocka_unit_test(test_visible_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
