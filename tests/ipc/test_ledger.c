/* test_ledger.c - positions against an independent count, due prompts against the rules. */
#include "ipc/ledger.h"

#include "tests/scratch.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct ledger *ledger;

static int open_ledger(void **state)
{
    (void)state;
    ledger = calloc(1, sizeof *ledger);
    return ledger ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(ledger);
    return 0;
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

/* --- positions ------------------------------------------------------------------------------- */

/* Counts frames one latent at a time. */
static void test_frames_are_one_then_fours(void **state)
{
    (void)state;
    int64_t n_frames = 0;
    for (int64_t n = 0; n < 1000; n++) {
        assert_int_equal(ledger_frames_of(n), n_frames);
        n_frames += n == 0 ? 1 : 4;
    }
}

/* Lays sessions of random length side by side, gaps at times, and writes down who has each block.
 */
static void test_session_of_against_a_map_of_blocks(void **state)
{
    (void)state;
    enum { SESSIONS = 60, BLOCKS = 4000 };
    static int owner[BLOCKS];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t r = seed;
        int64_t at = (int64_t)(next_random(&r) % 3);
        for (int i = 0; i < BLOCKS; i++) owner[i] = -1;
        for (int s = 0; s < SESSIONS; s++) {
            const int64_t n = 1 + (int64_t)(next_random(&r) % 30);
            const bool is_endless = s == SESSIONS - 1 && seed % 2;
            ledger->sessions[s].first_block = at;
            ledger->sessions[s].n_blocks = is_endless ? 0 : (uint64_t)n;
            for (int64_t b = at; b < (is_endless ? BLOCKS : at + n); b++) owner[b] = s;
            at += n + (next_random(&r) % 8 == 0 ? 2 : 0);
        }
        ledger->gateway.n_sessions = SESSIONS;
        for (int64_t b = 0; b < BLOCKS; b++)
            assert_int_equal(ledger_session_of(ledger, b), owner[b]);
        ledger->gateway.n_sessions = 0;
        assert_int_equal(ledger_session_of(ledger, 0), -1);
    }
}

static void test_first_frame_adds_up(void **state)
{
    (void)state;
    for (int64_t n_per_block = 1; n_per_block <= 4; n_per_block++) {
        const struct ledger_session s = {.first_block = 7, .first_frame = 1000};
        int64_t frame = 1000;
        for (int64_t block = 7; block < 100; block++) {
            assert_int_equal(ledger_first_frame(&s, block, n_per_block), frame);
            for (int64_t i = 0; i < n_per_block; i++) frame += block == 7 && i == 0 ? 1 : 4;
        }
    }
}

static void test_absurd_counts_stay_inside(void **state)
{
    (void)state;
    bool must_wait;
    ledger->gateway.n_sessions = UINT64_MAX;
    ledger->gateway.n_scripts = UINT64_MAX;
    ledger->sessions[LEDGER_SESSIONS_MAX - 1].first_block = 5;
    assert_int_equal(ledger_session_of(ledger, 6), LEDGER_SESSIONS_MAX - 1);
    assert_int_equal(ledger_due_script(ledger, 99, 0, -1, NULL, NULL, &must_wait), -1);
}

/* --- due prompts ----------------------------------------------------------------------------- */

/* A prompt is ready when its key says so. */
static bool key_says(void *self, const struct ledger_script *s)
{
    ++*(int *)self;
    return s->key[0] != 0;
}

static int64_t ask(int64_t session, int64_t block, int64_t after, bool *must_wait)
{
    int n_asked = 0;
    return ledger_due_script(ledger, session, block, after, key_says, &n_asked, must_wait);
}

struct row {
    int64_t at_block, session;
    int is_ready;
};

static void test_due_rules(void **state)
{
    (void)state;
    enum { ASAP = SCRIPT_ASAP, WARM = SCRIPT_PREWARM };
    static const struct {
        const char *what;
        struct row rows[4];
        int n;
        int64_t after, want;
        bool must_wait;
    } cases[] = {
        {"nothing at all", {{0}}, 0, -1, -1, false},
        {"scripted, due", {{0, 0, 1}}, 1, -1, 0, false},
        {"scripted, due at an earlier block", {{9, 0, 1}}, 1, -1, 0, false},
        {"scripted, not due yet", {{11, 0, 1}}, 1, -1, -1, false},
        {"scripted, not due yet, not ready", {{11, 0, 0}}, 1, -1, -1, false},
        {"scripted, due, not ready", {{10, 0, 0}}, 1, -1, -1, true},
        {"newest scripted wins", {{2, 0, 1}, {4, 0, 1}}, 2, -1, 1, false},
        {"newest scripted is waited for", {{2, 0, 1}, {4, 0, 0}}, 2, -1, -1, true},
        {"an older scripted one is not", {{2, 0, 0}, {4, 0, 1}}, 2, -1, 1, false},
        {"old is over", {{2, 0, 1}, {4, 0, 1}}, 2, 1, -1, false},
        {"old and unready is over", {{2, 0, 0}}, 1, 0, -1, false},
        {"another session's", {{2, 1, 1}, {ASAP, 1, 0}}, 2, -1, -1, false},
        {"prewarm", {{WARM, 0, 1}, {WARM, 0, 0}}, 2, -1, -1, false},
        {"newest ready ASAP wins", {{ASAP, 0, 1}, {ASAP, 0, 1}}, 2, -1, 1, false},
        {"ready ASAP over newer unready", {{ASAP, 0, 1}, {ASAP, 0, 0}}, 2, -1, 0, false},
        {"first ASAP is waited for", {{ASAP, 0, 0}}, 1, -1, -1, true},
        {"later ASAP is not", {{0, 0, 1}, {ASAP, 0, 0}}, 2, 0, -1, false},
        {"mixed: ASAP is newer", {{2, 0, 1}, {ASAP, 0, 1}}, 2, -1, 1, false},
        {"mixed: script is newer", {{ASAP, 0, 1}, {2, 0, 1}}, 2, -1, 1, false},
        {"mixed: newer script unready", {{ASAP, 0, 1}, {2, 0, 0}}, 2, -1, -1, true},
        {"mixed: newer ASAP unready", {{2, 0, 1}, {ASAP, 0, 0}}, 2, -1, 0, false},
        {"mixed: newer ASAP ready", {{2, 0, 0}, {ASAP, 0, 1}}, 2, -1, 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool must_wait = !cases[i].must_wait;
        for (int k = 0; k < cases[i].n; k++) {
            ledger->scripts[k].session = cases[i].rows[k].session;
            ledger->scripts[k].at_block = cases[i].rows[k].at_block;
            ledger->scripts[k].key[0] = (uint8_t)cases[i].rows[k].is_ready;
        }
        ledger->gateway.n_scripts = (uint64_t)cases[i].n;
        const int64_t got = ask(0, 10, cases[i].after, &must_wait);
        if (got != cases[i].want || must_wait != cases[i].must_wait)
            fail_msg("%s: %lld, must_wait %d", cases[i].what, (long long)got, must_wait);
    }
}

/* The rules as they are written: both candidates in full, then the higher index. */
static int64_t by_the_rules(int64_t session, int64_t block, int64_t after, bool *must_wait)
{
    int64_t scripted = -1, asap = -1;
    bool has_asap = false;
    for (int64_t i = 0; i < (int64_t)ledger->gateway.n_scripts; i++) {
        const struct ledger_script *s = &ledger->scripts[i];
        if (i <= after || s->session != session) continue;
        if (s->at_block >= 0 && s->at_block <= block) scripted = i;
        if (s->at_block != SCRIPT_ASAP) continue;
        has_asap = true;
        if (s->key[0]) asap = i;
    }
    *must_wait = false;
    if (scripted > asap) {
        *must_wait = !ledger->scripts[scripted].key[0];
        return *must_wait ? -1 : scripted;
    }
    if (asap < 0) *must_wait = after < 0 && has_asap;
    return asap;
}

static void test_due_against_brute_force(void **state)
{
    (void)state;
    uint64_t r = 2024;
    for (int i = 0; i < 200000; i++) {
        const int64_t n = (int64_t)(next_random(&r) % 7);
        for (int64_t k = 0; k < n; k++) {
            struct ledger_script *s = &ledger->scripts[k];
            s->session = (int64_t)(next_random(&r) % 2);
            s->at_block = (int64_t)(next_random(&r) % 6) + SCRIPT_PREWARM;
            s->key[0] = next_random(&r) % 3 != 0;
        }
        ledger->gateway.n_scripts = (uint64_t)n;
        const int64_t block = (int64_t)(next_random(&r) % 4);
        const int64_t after = (int64_t)(next_random(&r) % (uint64_t)(n + 1)) - 1;
        bool want_wait, got_wait;
        const int64_t want = by_the_rules(0, block, after, &want_wait);
        assert_int_equal(ask(0, block, after, &got_wait), want);
        assert_int_equal(got_wait, want_wait);
    }
}

/* --- names, heads, mapping ------------------------------------------------------------------- */

static void test_names_and_heads(void **state)
{
    (void)state;
    for (int i = 0; i < WRITERS; i++) {
        assert_non_null(ledger_writer_names[i]);
        assert_ptr_equal(ledger_head_of(ledger, i), (char *)ledger + i * LEDGER_PAGE_BYTES);
    }
    assert_string_equal(ledger_writer_names[WRITER_DIT], "dit");
    for (int i = 0; i < PHASES; i++) assert_non_null(ledger_phase_names[i]);
}

static void make_ledger(off_t n_bytes)
{
    const int fd = open(scratch_path("ledger"), O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, n_bytes) == 0);
    close(fd);
}

static void test_map(void **state)
{
    (void)state;
    const struct ledger *l = NULL;
    char too_long[8192];
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = '\0';

    want_fails(ledger_map(scratch_dir, &l), ERR_NONE, "nothing runs");
    want_fails(ledger_map("/nonexistent/x", &l), ERR_NONE, "nothing runs");
    want_fails(ledger_map(too_long, &l), ERR_CONFIG, "too long");
    assert_int_equal(symlink("/dev/zero", scratch_path("ledger")), 0);
    want_fails(ledger_map(scratch_dir, &l), ERR_NOINPUT, "ledger");
    unlink(scratch_path("ledger"));
    assert_int_equal(mkfifo(scratch_path("ledger"), 0600), 0);
    want_fails(ledger_map(scratch_dir, &l), ERR_NOINPUT, "not a file");
    unlink(scratch_path("ledger"));
    make_ledger(0);
    want_fails(ledger_map(scratch_dir, &l), ERR_NONE, "being made");
    make_ledger(sizeof(struct ledger) - 1);
    want_fails(ledger_map(scratch_dir, &l), ERR_DATA, "not the");
    make_ledger(sizeof(struct ledger) + 1);
    want_fails(ledger_map(scratch_dir, &l), ERR_DATA, "not the");
    assert_null(l);

    make_ledger(sizeof(struct ledger));
    want_ok(ledger_map(scratch_dir, &l));
    assert_int_equal(ledger_read(&l->dit.n_decisions), 0);
    assert_int_equal(l->texts[LEDGER_TEXT_BYTES - 1], 0);
    ledger_unmap(&l);
    assert_null(l);
    ledger_unmap(&l);
    ledger_unmap(NULL);
}

/* --- bytes that anybody may have written ------------------------------------------------------ */

/* Two sessions, the second without an end, a prewarmed prompt and one of each session. */
static void fill_sound(void)
{
    memset(ledger, 0, sizeof *ledger);
    ledger->sessions[0] = (struct ledger_session){.n_blocks = 5};
    ledger->sessions[1] = (struct ledger_session){.first_block = 5, .first_frame = 57};
    ledger->scripts[0] =
        (struct ledger_script){.session = -1, .at_block = SCRIPT_PREWARM, .n_text_bytes = 10};
    ledger->scripts[1] = (struct ledger_script){.text_at = 10, .n_text_bytes = 6};
    ledger->scripts[2] = (struct ledger_script){.session = 1, .at_block = SCRIPT_ASAP};
    ledger->decisions[0] = (struct ledger_decision){.script = 1};
    ledger->presets[0] = (struct ledger_preset){.window = 12, .steps = "1000"};
    ledger->decisions[1] =
        (struct ledger_decision){.block = 5, .session = 1, .script = 2, .preset = 1};
    ledger_publish(&ledger->gateway.n_presets, 1);
    ledger_publish(&ledger->gateway.n_sessions, 2);
    ledger_publish(&ledger->gateway.n_scripts, 3);
    ledger_publish(&ledger->gateway.n_text_bytes, 16);
    ledger_publish(&ledger->dit.n_decisions, 2);
    ledger_publish(&ledger->dit.n_latents_blocks, 7);
    ledger_publish(&ledger->dit.n_clean_blocks, 6);
    ledger_publish(&ledger->vae.n_latents, 20);
    ledger_publish(&ledger->text.n_scripts_seen, 3);
}

static void test_check(void **state)
{
    (void)state;
    struct ledger *const l = ledger;
    const struct {
        void *at; /* of 8 bytes, which become `value` */
        uint64_t value;
        const char *words;
    } cases[] = {
        {&l->gateway.n_sessions, LEDGER_SESSIONS_MAX + 1, "a count"},
        {&l->gateway.n_scripts, UINT64_MAX, "a count"},
        {&l->gateway.n_text_bytes, LEDGER_TEXT_BYTES + 1, "a count"},
        {&l->dit.n_decisions, LEDGER_DECISIONS_MAX + 1, "a count"},
        {&l->text.n_scripts_seen, 4, "a count"},
        {&l->dit.n_latents_blocks, 8, "a position"}, /* two ahead of the clean ones */
        {&l->dit.n_clean_blocks, 8, "a position"},
        {&l->vae.n_latents, UINT64_MAX, "a position"},
        {&l->gateway.want, UINT64_C(1) << 60, "a position"},
        {&l->gateway.n_committed, UINT64_C(1) << 60, "a position"},
        {&l->sessions[0].first_block, 1, "session 0"},
        {&l->sessions[0].n_blocks, 0, "session 0"}, /* no end, and another follows */
        {&l->sessions[1].first_block, 4, "session 1"},
        {&l->sessions[1].n_blocks, UINT64_MAX - 1, "session 1"},
        {&l->sessions[1].n_blocks, 1, "no session"}, /* block 6 is made */
        {&l->sessions[1].first_frame, UINT64_MAX, "session 1"},
        {&l->scripts[1].session, 2, "script record 1"},
        {&l->scripts[1].session, UINT64_MAX, "script record 1"},
        {&l->scripts[1].at_block, UINT64_MAX - 2, "script record 1"},
        {&l->scripts[1].text_at, 11 | UINT64_C(6) << 32, "script record 1"},
        {&l->scripts[1].text_at, UINT32_MAX | UINT64_C(6) << 32, "script record 1"},
        {&l->scripts[1].text_at, UINT64_C(20000) << 32, "script record 1"},
        {&l->decisions[1].block, UINT64_MAX, "decision 1"},
        {&l->decisions[1].session, 2, "decision 1"},
        {&l->decisions[1].script, 3, "decision 1"},
        {&l->decisions[1].n_tokens, UINT32_MAX, "decision 1"},
        {&l->decisions[1].preset, 2, "decision 1"},
        {&l->decisions[1].preset, UINT64_MAX, "decision 1"},
        {&l->gateway.n_presets, LEDGER_PRESETS_MAX + 1, "a count"},
        {&l->presets[0].session, 2, "preset record 0"},
        {&l->presets[0].at_block, UINT64_MAX - 1, "preset record 0"},
        {&l->presets[0].window, 2, "preset record 0"},
        {&l->presets[0].window, 25, "preset record 0"},
    };
    want_ok(ledger_check(l)); /* empty */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fill_sound();
        want_ok(ledger_check(l));
        memcpy(cases[i].at, &cases[i].value, 8);
        want_fails(ledger_check(l), ERR_DATA, cases[i].words);
    }
    fill_sound(); /* a session that ended without a block */
    ledger_publish(&l->sessions[1].n_blocks, LEDGER_VOID);
    ledger_publish(&l->dit.n_latents_blocks, 5);
    ledger_publish(&l->dit.n_clean_blocks, 5);
    want_ok(ledger_check(l));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_ledger, close_ledger)

/* --- spans ------------------------------------------------------------------------------------ */

static void test_spans_are_read_once_and_in_order(void **state)
{
    (void)state;
    struct ledger_spans *s = &ledger->spans[WRITER_VAE];
    struct ledger_span out[8];
    uint64_t from = 0;
    assert_int_equal(ledger_spans_read(s, &from, out, 8), 0);
    for (int i = 0; i < 5; i++) ledger_span_add(s, (struct ledger_span){.unit = i});
    assert_int_equal(ledger_spans_read(s, &from, out, 3), 3);
    assert_true(from == 3 && out[0].unit == 0 && out[2].unit == 2);
    assert_int_equal(ledger_spans_read(s, &from, out, 8), 2);
    assert_true(from == 5 && out[0].unit == 3 && out[1].unit == 4);
    assert_int_equal(ledger_spans_read(s, &from, out, 8), 0);
}

/* The slot that the writer may be writing is not read, however late the reader comes. */
static void test_spans_that_the_ring_has_lost(void **state)
{
    (void)state;
    enum { ADDED = 3 * LEDGER_SPANS + 5 };
    struct ledger_spans *s = &ledger->spans[WRITER_DIT];
    static struct ledger_span out[LEDGER_SPANS];
    uint64_t from = 1;
    for (int i = 0; i < ADDED; i++) ledger_span_add(s, (struct ledger_span){.unit = i});
    assert_int_equal(ledger_spans_read(s, &from, out, LEDGER_SPANS), LEDGER_SPANS - 1);
    assert_int_equal(out[0].unit, ADDED - LEDGER_SPANS + 1);
    assert_int_equal(out[LEDGER_SPANS - 2].unit, ADDED - 1);
    assert_int_equal(from, ADDED);
    from = ADDED + 1000; /* another ledger's */
    assert_int_equal(ledger_spans_read(s, &from, out, 1), 1);
    assert_int_equal(out[0].unit, ADDED - LEDGER_SPANS + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_are_one_then_fours),
        TEST(test_session_of_against_a_map_of_blocks),
        cmocka_unit_test(test_first_frame_adds_up),
        TEST(test_absurd_counts_stay_inside),
        TEST(test_due_rules),
        TEST(test_due_against_brute_force),
        TEST(test_names_and_heads),
        TEST(test_check),
        TEST(test_spans_are_read_once_and_in_order),
        TEST(test_spans_that_the_ring_has_lost),
        cmocka_unit_test_setup_teardown(test_map, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
