/* test_sim.c - seeds through the simulator: those that failed once, new ones, and broken variants
 * that must be found out.
 *
 *   test_sim [SEEDS [FIRST]]   SEEDS new ones from FIRST; or of SIM_SEEDS in the environment
 *
 * A seed that fails is printed with the end of its trace: add it to tests/sim/seeds.txt.
 */
#include "tests/sim/sim.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/check.h"

enum { SEEDS = 2000, VARIANT_SEEDS = 3000 };

static uint64_t n_seeds = SEEDS, first_seed = 1;

/* A broken promise between two pieces of our own code aborts: a failure of the seed like another.
 * The handler runs on the thread that aborts. */
static _Thread_local struct sim *on_trial;

static void on_abort(int sig)
{
    (void)sig;
    if (!on_trial) _exit(1);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGABRT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    snprintf(on_trial->why, sizeof on_trial->why, "a MUST does not hold");
    longjmp(on_trial->failed, 1);
}

static const char *try_seed(struct sim *s, uint64_t seed, enum sim_broken broken)
{
    on_trial = s;
    const char *why = sim_run(s, seed, broken);
    on_trial = NULL;
    return why;
}

/* What the runs were made of. */
enum {
    STEPS,
    KILLS,
    KILLS_AGAIN,
    KILLS_BOTH,
    PAUSES,
    DROPS,
    JOBS,
    FAILED_JOBS,
    VOIDS,
    BLOCKS,
    FRAMES,
    PRESETS,
    PRESETS_OF_STEPS,
    SWITCHES_TO_A_WINDOW,
    SWITCHES_IN_WINDOW,
    SWITCHES_BEHIND,
    SWITCHES_BEHIND_KEPT,
    EVICTED,
    WRAPS,
    FROM_EDGE,
    PAST_EDGE,
    AHEAD,
    TALLIES
};
static const char *const tally_names[TALLIES] = {
    "steps",
    "kills",
    "of them with nothing committed since the last",
    "of them a second one at the same time",
    "pauses",
    "bells and mails lost",
    "jobs",
    "failed jobs",
    "sessions without a block",
    "blocks",
    "frames",
    "presets taken",
    "decisions for other steps alone",
    "decisions for another window alone",
    "switches within the first window",
    "switches behind it, sink recomputed",
    "switches behind it, sink kept",
    "prompts evicted",
    "times the ring of latents went round",
    "latents from the edge",
    "latents from the host that the edge did not hold",
    "clean passes beside a block",
};

struct tally {
    uint64_t n_failed;
    int64_t n[TALLIES];
};

static void count_switches(struct tally *t, const struct sim *s)
{
    const struct ledger *l = s->ledger;
    for (uint64_t i = 0; i < l->dit.n_decisions; i++) {
        const struct ledger_decision *d = &l->decisions[i];
        const int64_t at = (d->block - l->sessions[d->session].first_block) * s->conf.dit.block;
        t->n[PRESETS_OF_STEPS] += d->kind == DECISION_STEPS;
        if (d->kind != DECISION_SWITCH) continue;
        t->n[SWITCHES_TO_A_WINDOW] += d->script == d[-1].script;
        t->n[at <= s->conf.dit.window  ? SWITCHES_IN_WINDOW
             : s->conf.dit.global_sink ? SWITCHES_BEHIND_KEPT
                                       : SWITCHES_BEHIND]++;
    }
}

static void count(struct tally *t, const struct sim *s)
{
    const struct ledger *l = s->ledger;
    t->n[STEPS] += s->n_steps;
    t->n[KILLS] += s->n_kills;
    t->n[KILLS_AGAIN] += s->n_kills_again;
    t->n[KILLS_BOTH] += s->n_kills_both;
    t->n[PAUSES] += s->n_pauses;
    t->n[DROPS] += s->n_drops;
    t->n[JOBS] += (int64_t)l->gateway.job_done;
    t->n[FAILED_JOBS] += l->gateway.job_error != 0;
    t->n[BLOCKS] += (int64_t)l->dit.n_latents_blocks;
    t->n[FRAMES] += (int64_t)l->gateway.n_committed;
    t->n[EVICTED] += (int64_t)l->text.n_evictions;
    t->n[WRAPS] += (int64_t)l->vae.n_latents / s->conf.dit.ring_latents;
    t->n[PRESETS] += (int64_t)l->gateway.n_presets;
    t->n[FROM_EDGE] += s->n_from_edge;
    t->n[PAST_EDGE] += s->n_past_edge;
    t->n[AHEAD] += s->n_ahead;
    for (uint64_t i = 0; i < l->gateway.n_sessions; i++)
        t->n[VOIDS] += l->sessions[i].n_blocks == LEDGER_VOID;
    count_switches(t, s);
}

static void add(struct tally *to, const struct tally *t)
{
    to->n_failed += t->n_failed;
    for (int i = 0; i < TALLIES; i++) to->n[i] += t->n[i];
}

static void report(const struct sim *s, uint64_t seed, const char *why)
{
#pragma omp critical
    {
        fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, why);
        sim_print_trace(s, stderr);
    }
}

/* --- the seeds ---------------------------------------------------------------------------------
 */

static void test_seeds_that_failed_once(void **state)
{
    (void)state;
    unsigned long long seed;
    uint64_t n = 0, n_failed = 0;
    char line[256];
    struct sim *s = sim_open();
    FILE *f = fopen("tests/sim/seeds.txt", "r");
    assert_true(s && f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%llu", &seed) != 1) continue; /* a comment */
        const char *why = try_seed(s, seed, SIM_SOUND);
        n++;
        if (!why) continue;
        report(s, seed, why);
        n_failed++;
    }
    fclose(f);
    sim_close(&s);
    print_message("%llu seeds that failed once\n", (unsigned long long)n);
    assert_true(n > 0);
    assert_int_equal(n_failed, 0);
}

static void test_seeds(void **state)
{
    (void)state;
    struct tally all = {0};
#pragma omp parallel
    {
        struct tally t = {0};
        struct sim *s = sim_open();
        if (!s) abort();
#pragma omp for schedule(dynamic, 64)
        for (uint64_t i = 0; i < n_seeds; i++) {
            const char *why = try_seed(s, first_seed + i, SIM_SOUND);
            if (why && t.n_failed++ < 3) report(s, first_seed + i, why);
            count(&t, s);
        }
#pragma omp critical
        add(&all, &t);
        sim_close(&s);
    }
    print_message("%llu seeds\n", (unsigned long long)n_seeds);
    for (int i = 0; i < TALLIES; i++)
        print_message("%12lld %s\n", (long long)all.n[i], tally_names[i]);
    assert_int_equal(all.n_failed, 0);
    for (int i = 0; i < TALLIES; i++) assert_true(all.n[i] > 0); /* nothing is left out */
    assert_true(all.n[KILLS] > (int64_t)n_seeds && all.n[BLOCKS] > (int64_t)n_seeds * 10);
}

/* --- broken on purpose -------------------------------------------------------------------------
 */

static void test_every_broken_variant_is_found_out(void **state)
{
    (void)state;
    int32_t n_missed = 0;
    struct sim *s = sim_open();
    assert_non_null(s);
    for (int v = SIM_SOUND + 1; v < SIM_VARIANTS; v++) {
        const char *why = NULL;
        uint64_t seed = 0;
        while (!why && seed < VARIANT_SEEDS) why = try_seed(s, ++seed, (enum sim_broken)v);
        print_message("%-52s %s %llu: %s\n", sim_broken_names[v], why ? "seed" : "NOT FOUND in",
                      (unsigned long long)seed, why ? why : "");
        n_missed += !why;
    }
    sim_close(&s);
    assert_int_equal(n_missed, 0);
}

/* The same seed is the same run. */
static void test_a_seed_is_a_run(void **state)
{
    (void)state;
    struct sim *s = sim_open();
    assert_non_null(s);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        try_seed(s, seed, SIM_SOUND);
        const int64_t n_steps = s->n_steps, now_ns = s->now_ns;
        const uint64_t frames = s->want_frame[3];
        try_seed(s, seed, SIM_SOUND);
        assert_int_equal(s->n_steps, n_steps);
        assert_int_equal(s->now_ns, now_ns);
        assert_int_equal(s->want_frame[3], frames);
    }
    sim_close(&s);
}

int main(int argc, char **argv)
{
    const char *n = argc > 1 ? argv[1] : getenv("SIM_SEEDS");
    if (n) n_seeds = strtoull(n, NULL, 10);
    if (argc > 2) first_seed = strtoull(argv[2], NULL, 10);
    signal(SIGABRT, on_abort);
    const struct CMUnitTest tests[] = {
        TEST(test_seeds_that_failed_once),
        TEST(test_a_seed_is_a_run),
        TEST(test_every_broken_variant_is_found_out),
        TEST(test_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
