/* test_progress.c - whatever a process commits changes its sum, and no other's. */
#include "procs/supervisor/progress.h"

#include <stdlib.h>

#include "tests/check.h"

static void test_each_counter_and_its_process(void **state)
{
    (void)state;
    struct ledger *l = calloc(1, sizeof *l);
    assert_non_null(l);
    const struct {
        counter *c;
        enum super_proc i;
    } cases[] = {
        {&l->text.n_encoded, PROC_TEXT},       {&l->text.n_scripts_seen, PROC_TEXT},
        {&l->dit.n_latents_blocks, PROC_DIT},  {&l->dit.n_clean_blocks, PROC_DIT},
        {&l->vae.n_latents, PROC_VAE},         {&l->gateway.n_committed, PROC_GATEWAY},
        {&l->gateway.n_scripts, PROC_GATEWAY}, {&l->gateway.n_sessions, PROC_GATEWAY},
        {&l->gateway.job_done, PROC_GATEWAY},
    };
    uint64_t want[PROCS] = {0};
    for (size_t k = 0; k < COUNT(cases); k++) {
        ledger_add(cases[k].c, 1);
        want[cases[k].i]++;
        for (enum super_proc i = PROC_KEEPER; i < PROCS; i++) {
            assert_int_equal(progress_of(l, i), want[i]);
            assert_int_equal(progress_of(NULL, i), 0);
        }
    }
    free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_counter_and_its_process)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
