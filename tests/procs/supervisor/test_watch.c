/* test_watch.c - the status line, from a ledger made by hand. */
#include "procs/supervisor/watch.h"

#include <jansson.h>

#include "common/clock.h"
#include "tests/scratch.h"

static struct ledger *l;
static struct watch w;
static struct watch_view v;
static char text[WATCH_LINE_MAX];

static int open_all(void **state)
{
    (void)state;
    struct conf *c = calloc(1, sizeof *c);
    l = calloc(1, sizeof *l);
    conf_default(c);
    c->run.fps = 16;
    c->dit.block = 3;
    watch_open(&w, WATCH_LINES, c, 0, 1);
    free(c);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    free(l);
    return 0;
}

static void test_an_empty_ledger(void **state)
{
    (void)state;
    watch_look(&w, l, NS_PER_S, &v);
    watch_text(&v, text, sizeof text);
    assert_string_equal(text, "block 0  frames 0  0.0 fps  text 0 dit 0 vae 0 gateway 0 ms  "
                              "lead 0.0 s  queue 0");
}

static void test_weights_that_load(void **state)
{
    (void)state;
    ledger_publish(&l->text.head.unit, 437); /* per mille */
    ledger_publish(&l->dit.head.unit, 1000);
    watch_look(&w, l, NS_PER_S, &v);
    watch_text(&v, text, sizeof text);
    assert_string_equal(text, "loading  text 43 %  dit 100 %");
    ledger_publish(&l->text.head.phase, PHASE_IDLE); /* units are prompts from here on */
    ledger_publish(&l->dit.head.phase, PHASE_IDLE);
    watch_look(&w, l, NS_PER_S, &v);
    watch_text(&v, text, sizeof text);
    assert_non_null(strstr(text, "block 0  frames 0"));
}

static void test_a_session_under_way(void **state)
{
    (void)state;
    ledger_publish(&l->gateway.n_sessions, 1);
    ledger_publish(&l->sessions[0].n_blocks, 40);
    watch_look(&w, l, NS_PER_S, &v); /* the speed begins here */
    ledger_publish(&l->dit.n_latents_blocks, 12);
    ledger_publish(&l->vae.n_latents, 27);
    ledger_publish(&l->gateway.n_committed, 81);
    ledger_publish(&l->dit.head.unit_ns, 93 * NS_PER_MS);
    ledger_publish(&l->vae.head.unit_ns, 40 * NS_PER_MS);
    ledger_publish(&l->gateway.head.unit_ns, 3 * NS_PER_MS);
    watch_look(&w, l, 6 * (int64_t)NS_PER_S, &v);
    watch_text(&v, text, sizeof text);
    /* 27 latents are 105 frames; 24 of them wait for the file: 1.5 s. */
    assert_string_equal(text, "block 12/40  frames 81  16.2 fps  text 0 dit 93 vae 40 gateway 3 ms"
                              "  lead 1.5 s  queue 9");
}

static void test_a_later_session_counts_from_its_own_start(void **state)
{
    (void)state;
    w.frames_before = 100;
    w.n_videos = 3;
    ledger_publish(&l->gateway.n_sessions, 2);
    l->sessions[1].first_block = 10;
    l->sessions[1].first_frame = 117;
    l->sessions[1].video = 1;
    l->sessions[1].is_live = 1;
    ledger_publish(&l->dit.n_latents_blocks, 12);
    ledger_publish(&l->vae.n_latents, 35);
    ledger_publish(&l->gateway.n_committed, 130);
    ledger_publish(&l->gateway.played, 9);
    ledger_publish(&l->gateway.n_late, 2);
    watch_look(&w, l, NS_PER_S, &v);
    watch_text(&v, text, sizeof text);
    assert_string_equal(text, "video 2/3  block 2  frames 30  0.0 fps  text 0 dit 0 vae 0 gateway "
                              "0 ms  lead 0.5 s  queue 1  late 2");
}

/* Ended before it had a prompt: no number of blocks is said, least of all the mark's. */
static void test_a_void_session_has_no_length(void **state)
{
    (void)state;
    ledger_publish(&l->gateway.n_sessions, 1);
    ledger_publish(&l->sessions[0].n_blocks, LEDGER_VOID);
    watch_look(&w, l, NS_PER_S, &v);
    assert_int_equal(v.n_blocks, 0);
    watch_text(&v, text, sizeof text);
    assert_ptr_equal(strstr(text, "block 0  frames 0"), text);
}

static void test_the_speed_is_the_last_seconds(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) { /* 10 s at 10 a second, 10 s at 30 */
        ledger_publish(&l->gateway.n_committed, (uint64_t)(5 * i));
        watch_look(&w, l, (int64_t)i * NS_PER_S / 2, &v);
    }
    assert_true(v.fps > 9.9 && v.fps < 10.1);
    for (int i = 20; i < 40; i++) {
        ledger_publish(&l->gateway.n_committed, (uint64_t)(95 + 15 * (i - 19)));
        watch_look(&w, l, (int64_t)i * NS_PER_S / 2, &v);
    }
    assert_true(v.fps > 29.9 && v.fps < 30.1);
}

static void test_json_parses(void **state)
{
    (void)state;
    watch_look(&w, l, NS_PER_S, &v);
    v.block = 7;
    watch_json(&v, text, sizeof text);
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    assert_int_equal(json_integer_value(json_object_get(o, "block")), 7);
    assert_true(json_is_number(json_object_get(o, "lead_s")));
    json_decref(o);
    memset(&v, 0x7f, sizeof v); /* the longest numbers fit */
    watch_text(&v, text, sizeof text);
    assert_int_equal(text[sizeof text - 1], 0);
}

static int32_t shown(enum watch_mode mode, int n, int64_t every_ns, char *out, size_t cap)
{
    char *memory = NULL;
    size_t n_memory = 0;
    FILE *f = tmpfile();
    (void)memory;
    w.mode = mode;
    for (int i = 1; i <= n; i++) watch_show(&w, l, (int64_t)NS_PER_S * 100 + i * every_ns, f);
    watch_close(&w, f);
    rewind(f);
    n_memory = fread(out, 1, cap - 1, f);
    out[n_memory] = 0;
    fclose(f);
    int32_t n_lines = 0;
    for (size_t i = 0; i < n_memory; i++) n_lines += out[i] == '\n';
    return n_lines;
}

static void test_modes(void **state)
{
    (void)state;
    char out[8192];
    assert_int_equal(shown(WATCH_OFF, 10, NS_PER_S, out, sizeof out), 0);
    assert_int_equal(shown(WATCH_LINES, 10, NS_PER_S, out, sizeof out), 5); /* one in 2 s */
    w.shown_ns = 0;
    assert_int_equal(shown(WATCH_JSON, 4, 2 * (int64_t)NS_PER_S, out, sizeof out), 4);
    assert_int_equal(out[0], '{');
    w.shown_ns = 0;
    assert_int_equal(shown(WATCH_TTY, 5, NS_PER_S, out, sizeof out),
                     1); /* over and over, one end */
    assert_int_equal(out[0], '\r');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_empty_ledger, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_weights_that_load, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_session_under_way, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_later_session_counts_from_its_own_start, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(test_a_void_session_has_no_length, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_the_speed_is_the_last_seconds, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_json_parses, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_modes, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
