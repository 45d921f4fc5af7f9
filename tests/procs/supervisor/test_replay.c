/* test_replay.c - what was decided, as a script. */
#include "procs/supervisor/replay.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static struct ledger *l;

static int open_ledger(void **state)
{
    (void)state;
    l = calloc(1, sizeof *l);
    return l ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(l);
    return 0;
}

static void add_script(const char *text)
{
    struct ledger_script *s = &l->scripts[l->gateway.n_scripts++];
    s->text_at = (uint32_t)l->gateway.n_text_bytes;
    s->n_text_bytes = (uint32_t)strlen(text);
    memcpy(l->texts + s->text_at, text, s->n_text_bytes);
    l->gateway.n_text_bytes += s->n_text_bytes;
}

static void add_decision(int64_t session, int64_t block, int64_t script, enum decision_kind kind)
{
    l->decisions[l->dit.n_decisions++] = (struct ledger_decision){
        .block = block, .session = session, .script = script, .kind = kind};
}

/* Two sessions and a void one between; prompts that were asked and never decided are not made. */
static void lay(void)
{
    memset(l, 0, sizeof *l);
    add_script("a");
    add_script("never");
    add_script("b");
    add_script("c");
    l->sessions[0] = (struct ledger_session){.first_block = 0, .seed = 7};
    l->sessions[0].n_blocks = 5;
    l->sessions[1].first_block = 5;
    l->sessions[1].n_blocks = LEDGER_VOID;
    l->sessions[2] = (struct ledger_session){.first_block = 5, .seed = 8}; /* runs */
    l->gateway.n_sessions = 3;
    l->dit.n_latents_blocks = 9;
    add_decision(0, 0, 0, DECISION_START);
    add_decision(0, 3, 2, DECISION_SWITCH);
    add_decision(0, 3, 2, DECISION_REBUILD); /* the cache was lost before block 3 was made */
    add_decision(2, 5, 3, DECISION_START);
    add_decision(2, 7, 3, DECISION_REBUILD);
    add_decision(2, 9, 0, DECISION_SWITCH); /* its block is not made */
}

static void check_prompt(const struct job_prompt *p, const char *text, int64_t at, bool is_rebuild)
{
    assert_string_equal(p->text, text);
    assert_int_equal(p->at_block, at);
    assert_int_equal(p->is_rebuild, is_rebuild);
    assert_true(p->is_clean);
}

static void test_decisions_become_a_script(void **state)
{
    (void)state;
    struct job *job = NULL;
    lay();
    assert_ok(replay_job(l, &job));
    assert_false(job->is_live);
    assert_int_equal(job->n_videos, 2);
    const struct job_video *v = job->videos;
    assert_int_equal(v[0].seed, 7);
    assert_int_equal(v[0].n_blocks, 5);
    assert_int_equal(v[0].n_prompts, 2);
    check_prompt(&v[0].prompts[0], "a", 0, false);
    check_prompt(&v[0].prompts[1], "b", 3, true);
    assert_int_equal(v[1].seed, 8);
    assert_int_equal(v[1].n_blocks, 4);
    assert_int_equal(v[1].n_prompts, 2);
    check_prompt(&v[1].prompts[0], "c", 0, false);
    check_prompt(&v[1].prompts[1], "c", 2, true);
    assert_string_equal(v[1].out, "");
    job_free(&job);
}

/* A decision for a preset alone is no prompt; the last of a block counts, whoever came before. */
static void test_decisions_become_presets(void **state)
{
    (void)state;
    struct job *job = NULL;
    lay();
    l->presets[0] = (struct ledger_preset){.window = 8, .steps = "1000,500"};
    l->presets[1] = (struct ledger_preset){.window = 6, .steps = "1000"};
    l->gateway.n_presets = 2;
    l->dit.n_decisions = 1;
    add_decision(0, 1, 0, DECISION_SWITCH);
    l->decisions[1].preset = 1;
    add_decision(0, 3, 2, DECISION_SWITCH); /* a prompt, under that preset */
    add_decision(0, 4, 2, DECISION_STEPS);
    add_decision(0, 4, 2, DECISION_REBUILD);
    l->decisions[2].preset = 1;
    l->decisions[3].preset = l->decisions[4].preset = 2;
    l->dit.n_latents_blocks = 5;
    assert_ok(replay_job(l, &job));
    const struct job_video *v = job->videos;
    assert_int_equal(v->n_prompts, 3);
    check_prompt(&v->prompts[1], "b", 3, false);
    check_prompt(&v->prompts[2], "b", 4, true);
    assert_int_equal(v->n_presets, 2);
    assert_int_equal(v->presets[0].at_block, 1);
    assert_int_equal(v->presets[0].window, 8);
    assert_string_equal(v->presets[0].steps, "1000,500");
    assert_int_equal(v->presets[1].at_block, 4);
    assert_int_equal(v->presets[1].window, 6);
    job_free(&job);
    l->decisions[4].preset = 3;
    assert_int_equal(replay_job(l, &job), ERR_DATA);
}

static void test_nothing_and_nonsense(void **state)
{
    (void)state;
    struct job *job = NULL;
    lay();
    l->dit.n_latents_blocks = 0;
    assert_int_equal(replay_job(l, &job), ERR_NONE);
    lay();
    l->decisions[0].block = 1;
    assert_int_equal(replay_job(l, &job), ERR_DATA);
    lay();
    l->decisions[1].script = l->decisions[2].script = 4;
    assert_int_equal(replay_job(l, &job), ERR_DATA);
    lay();
    l->scripts[2].n_text_bytes = LEDGER_TEXT_BYTES;
    assert_int_equal(replay_job(l, &job), ERR_DATA);
    lay();
    l->gateway.n_sessions = LEDGER_SESSIONS_MAX + 1;
    assert_int_equal(replay_job(l, &job), ERR_DATA);
    lay();
    l->sessions[2].files = SESSION_NOISE;
    assert_int_equal(replay_job(l, &job), ERR_DATA);
    assert_null(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_decisions_become_a_script),
        TEST(test_decisions_become_presets),
        TEST(test_nothing_and_nonsense),
    };
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
