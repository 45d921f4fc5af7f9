/* test_edge.c - what the edge holds, by the ledger alone; and that there is none between CPUs. What
 * it does between GPUs is shown by tests/e2e/test_cuda.py, deaths by tests/sim. */
#include "ipc/edge.h"

#include "procs/dit/plan.h"
#include "tests/check.h"

#include <stdlib.h>

static struct ledger *l;
static struct conf c; /* block 3, ring_latents 64 */

static int open_ledger(void **state)
{
    conf_default(&c);
    l = calloc(1, sizeof *l);
    (void)state;
    return l ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(l);
    return 0;
}

/* --- what it holds ---------------------------------------------------------------------------- */

static void want_held(uint64_t generation, int64_t first, int64_t end)
{
    for (int64_t i = 0; i < 40; i++)
        if (edge_holds(l, &c, generation, i) != (i >= first && i < end))
            fail_msg("generation %d: latent %d", (int)generation, (int)i);
}

static void test_what_dit_says_is_in_it(void **state)
{
    (void)state;
    want_held(0, 0, 0);
    want_held(1, 0, 0);
    edge_begin(l, 0); /* a dit without one */
    want_held(0, 0, 0);

    l->dit.n_latents_blocks = 2;
    edge_begin(l, 7);
    want_held(7, 6, 40);
    want_held(6, 0, 0);
    want_held(0, 0, 0);

    l->dit.n_latents_blocks = 5;
    edge_begin(l, 7); /* a successor that maps the same memory: what is in it counts */
    want_held(7, 6, 40);

    edge_begin(l, 8); /* it was made anew */
    want_held(7, 0, 0);
    want_held(8, 15, 40);

    l->dit.n_latents_blocks = 6;
    edge_begin(l, 0); /* a dit that could not map it, then one that could */
    want_held(8, 0, 0);
    l->dit.n_latents_blocks = 9;
    edge_begin(l, 8);
    want_held(8, 27, 40);
}

static void test_it_is_used_when_both_have_it(void **state)
{
    (void)state;
    assert_false(edge_is_used(l)); /* 0 and 0 */
    l->vae.edge_generation = 3;
    assert_false(edge_is_used(l));
    edge_begin(l, 2);
    assert_false(edge_is_used(l));
    edge_begin(l, 3);
    assert_true(edge_is_used(l));
}

/* --- its size --------------------------------------------------------------------------------- */

static bool is_ready(void *self, const struct ledger_script *s)
{
    (void)self, (void)s;
    return true;
}

/* dit, as far ahead as it may be, writes the slot of no latent that vae has yet to decode; and with
 * a slot less it would. */
static void test_a_slot_is_free_before_it_is_written(void **state)
{
    (void)state;
    int64_t n_latents = 0;
    c.dit.ring_latents = 57;
    l->gateway.n_sessions = l->gateway.n_scripts = l->dit.n_decisions = 1;
    l->gateway.want = 3000;
    for (int64_t l_vae = 0; l_vae < 300; l_vae++) {
        l->vae.n_latents = (uint64_t)l_vae;
        for (;;) {
            const uint64_t L = l->dit.n_latents_blocks;
            l->dit.n_clean_blocks = L;
            if (plan_next(l, &c, is_ready, NULL).action != PLAN_BLOCK) break;
            l->dit.n_latents_blocks = L + 1;
        }
        n_latents = (int64_t)l->dit.n_latents_blocks * c.dit.block;
        assert_true(n_latents - l_vae <= edge_slots(&c));
    }
    assert_true(n_latents > 300);
    assert_true(n_latents - 299 > edge_slots(&c) - c.dit.block);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Between CPUs latents are in host memory anyway: nothing is made, and nobody is asked. */
static void test_there_is_none_between_cpus(void **state)
{
    (void)state;
    struct dev *d = NULL;
    struct edge edge = {0};
    assert_ok(dev_open(&d, "cpu", 1));
    assert_int_equal(edge_bytes(&c, d), 0);
    assert_ok(edge_open(&edge, NULL, d, &c));
    assert_null(edge.region.data);
    assert_int_equal(edge.region.generation, 0);
    edge_close(&edge);
    edge_close(NULL);
    dev_close(&d);
}

#define EDGE_TEST(f) cmocka_unit_test_setup_teardown(f, open_ledger, close_ledger)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EDGE_TEST(test_what_dit_says_is_in_it),
        EDGE_TEST(test_it_is_used_when_both_have_it),
        EDGE_TEST(test_a_slot_is_free_before_it_is_written),
        EDGE_TEST(test_there_is_none_between_cpus),
    };
    return cmocka_run_group_tests_name("edge", tests, NULL, NULL);
}
