/* test_plan.c - what vae does next: a table of cases. */
#include "procs/vae/plan.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static struct ledger *l;
static struct conf c; /* block 3 */

static int open_ledger(void **state)
{
    (void)state;
    conf_default(&c);
    c.vae.ring_frames = 24;
    l = calloc(1, sizeof *l);
    return l ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(l);
    return 0;
}

/* Sessions of 2 blocks (21 frames), of none, and one without an end. A latent's frames are due when
 * dit has committed its block and they fit the ring above the gateway's count. */
static const struct {
    const char *name;
    int64_t n_latents, n_blocks, n_committed;
    bool is_due;
    int64_t r, first_frame;
    int32_t n_frames;
} cases[] = {
    {"nothing made", 0, 0, 0, false, 0, 0, 0},
    {"the first latent", 0, 1, 0, true, 0, 0, 1},
    {"the second makes four", 1, 1, 0, true, 1, 1, 4},
    {"the block's last", 2, 1, 0, true, 2, 5, 4},
    {"as far as blocks are committed", 3, 1, 0, false, 0, 0, 0},
    {"the next block", 3, 2, 0, true, 3, 9, 4},
    {"the session's last", 5, 2, 0, true, 5, 17, 4},
    {"the next session starts with one", 6, 3, 0, true, 0, 21, 1},
    {"no room for its second: 26 > 24", 7, 3, 0, false, 1, 22, 4},
    {"nor with one short", 7, 3, 1, false, 1, 22, 4},
    {"room to the last slot", 7, 3, 2, true, 1, 22, 4},
    {"a session without an end", 300, 101, 1185, true, 294, 1194, 4},
};

static void test_cases(void **state)
{
    (void)state;
    l->gateway.n_sessions = 3;
    l->sessions[0].n_blocks = 2;
    l->sessions[1].n_blocks = LEDGER_VOID;
    l->sessions[1].first_block = l->sessions[2].first_block = 2;
    l->sessions[1].first_frame = l->sessions[2].first_frame = 21;
    for (size_t i = 0; i < COUNT(cases); i++) {
        l->vae.n_latents = (uint64_t)cases[i].n_latents;
        l->dit.n_latents_blocks = (uint64_t)cases[i].n_blocks;
        l->gateway.n_committed = (uint64_t)cases[i].n_committed;
        const struct vae_plan p = vae_plan_next(l, &c);
        if (p.is_due != cases[i].is_due) fail_msg("%s: is_due %d", cases[i].name, p.is_due);
        assert_int_equal(p.latent, cases[i].n_latents);
        assert_int_equal(p.r, cases[i].r);
        assert_int_equal(p.first_frame, cases[i].first_frame);
        assert_int_equal(p.n_frames, cases[i].n_frames);
    }
}

/* --- behind clean passes ------------------------------------------------------------------------
 */

/* One session: 2 blocks made, one of them clean; latent 3, of block 1, is next. */
static void lay_behind(void)
{
    memset(l, 0, sizeof *l);
    l->gateway.n_sessions = 1;
    l->vae.n_latents = 3;
    l->dit.n_latents_blocks = 2;
    l->dit.n_clean_blocks = 1;
    l->dit.n_decisions = 1;
    l->dit.kv_generation = l->decisions[0].kv_generation = 4;
    l->gateway.want = 9; /* and the next block */
    strcpy(c.place.dit, "cuda:0");
    strcpy(c.place.vae, "cuda:1");
    strcpy(c.place.clean, "cuda:1");
    c.dit.overlap = OVERLAP_AUTO;
}

static bool is_due(void)
{
    return vae_plan_next(l, &c).is_due;
}

/* What waits is as what is not made. */
static void test_a_latent_waits_for_its_blocks_clean_pass(void **state)
{
    (void)state;
    for (int64_t at = 3; at < 6; at++) {
        lay_behind();
        l->vae.n_latents = (uint64_t)at;
        const struct vae_plan p = vae_plan_next(l, &c);
        assert_true(!p.is_due && p.latent == at && p.r == 0 && p.n_frames == 0);
        l->dit.n_clean_blocks = 2;
        assert_true(is_due());
    }
    lay_behind(); /* of a block before it: made, or begun when the pass was not there */
    l->vae.n_latents = 2;
    assert_true(is_due());
    l->vae.n_latents = 0;
    l->dit.n_latents_blocks = 1;
    l->dit.n_clean_blocks = 0;
    l->decisions[0].kind = DECISION_STEPS; /* not the first of a prompt */
    assert_false(is_due());
    c.dit.overlap = OVERLAP_TRUE;
    assert_false(is_due());
    strcpy(c.place.dit, "cpu"); /* on a CPU as on GPUs */
    strcpy(c.place.vae, "cpu");
    strcpy(c.place.clean, "cpu");
    c.dit.overlap = OVERLAP_AUTO;
    assert_false(is_due());
}

/* Where the pass is not in the way, or will not come, nobody waits for it. */
static void test_what_does_not_wait_for_a_clean_pass(void **state)
{
    (void)state;
    lay_behind();
    l->sessions[0].n_blocks = (uint64_t)l->dit.n_latents_blocks; /* it ends here: none is made */
    assert_true(is_due());
    lay_behind();
    l->gateway.want = 8; /* dit makes none now, and so no clean pass */
    assert_true(is_due());
    lay_behind();
    l->decisions[0].block = 1; /* block 1 is the first of a prompt; with other steps it is not */
    assert_true(is_due());
    l->decisions[0].kind = DECISION_SWITCH;
    assert_true(is_due());
    l->decisions[0].kind = DECISION_STEPS;
    assert_false(is_due());
    lay_behind();
    l->dit.kv_generation = 5; /* lost: dit waits for who wants a block */
    assert_true(is_due());
    l->decisions[1].kv_generation = 5; /* rebuilt */
    l->dit.n_decisions = 2;
    assert_false(is_due());
    lay_behind();
    strcpy(c.place.clean, "cuda:2");
    assert_true(is_due());
    strcpy(c.place.clean, "cuda:0");
    assert_true(is_due());
    strcpy(c.place.clean, "");
    assert_true(is_due());
    lay_behind();
    c.dit.overlap = OVERLAP_FALSE;
    assert_true(is_due());
    strcpy(c.place.dit, "cuda:1"); /* all on one: they take turns */
    c.dit.overlap = OVERLAP_AUTO;
    assert_true(is_due());
    c.dit.overlap = OVERLAP_TRUE;
    assert_false(is_due());
}

static void of_no_session(void)
{
    l->gateway.n_sessions = 0;
    l->vae.n_latents = 0;
    l->dit.n_latents_blocks = 1;
    vae_plan_next(l, &c);
}

static void test_a_latent_of_no_session_aborts(void **state)
{
    (void)state;
    check_aborts(of_no_session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cases),
        TEST(test_a_latent_waits_for_its_blocks_clean_pass),
        TEST(test_what_does_not_wait_for_a_clean_pass),
        TEST(test_a_latent_of_no_session_aborts),
    };
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
