/* test_super_policy.c - every cell of the table, and the restart policy under a clock of our own.
 */
#include "procs/supervisor/super_policy.h"

#include <signal.h>

#include "common/clock.h"
#include "tests/scratch.h"

#define S(x) ((int64_t)(x)*NS_PER_S)
#define MS(x) ((int64_t)(x)*NS_PER_MS)

static const struct policy_limits lim = {.n_deaths_max = 20,
                                         .n_faults_max = 5,
                                         .deaths_ns = S(60),
                                         .ready_ns = S(600),
                                         .stop_ns = S(30)};

static const struct policy_death killed = {.is_signal = true, .number = SIGKILL};

/* Per state: for each event the action and the next state, one letter each.
 * Actions: - nothing, S spawn, T SIGTERM, A SIGABRT, K SIGKILL.
 * States: o off, w waiting, s starting, u up, h hung, e ending, k killing.
 * Events: start timer ready hung end end_kill stop stop_kill not_started. */
static const char *const cells[STATES][EVENTS] = {
    [STATE_OFF] = {"-w", "-o", "-o", "-o", "-o", "-o", "-o", "-o", "-o"},
    [STATE_WAITING] = {"-w", "Ss", "-w", "-w", "-w", "-w", "-o", "-o", "-w"},
    [STATE_STARTING] = {"-s", "Ah", "-u", "-s", "Te", "Kk", "Te", "Kk", "-w"},
    [STATE_UP] = {"-u", "-u", "-u", "Ah", "Te", "Kk", "Te", "Kk", "-u"},
    [STATE_ABORTING] = {"-h", "Kk", "-h", "-h", "-h", "Kk", "-h", "Kk", "-h"},
    [STATE_ENDING] = {"-e", "Kk", "-e", "-e", "-e", "Kk", "-e", "Kk", "-e"},
    [STATE_KILLING] = {"-k", "Kk", "-k", "-k", "-k", "-k", "-k", "-k", "-k"},
};

static void test_every_cell(void **state)
{
    (void)state;
    static const char actions[] = "-STAK", states[] = "owsuhek";
    for (int s = 0; s < STATES; s++)
        for (int ev = 0; ev < EVENTS; ev++) {
            struct policy p = {.state = (enum policy_state)s, .is_wanted = true};
            const enum policy_action a = policy_event(&p, (enum policy_event)ev, S(1), &lim);
            if (actions[a] != cells[s][ev][0] || states[p.state] != cells[s][ev][1])
                fail_msg("state %d event %d: %c%c, wanted %s", s, ev, actions[a], states[p.state],
                         cells[s][ev]);
        }
}

static void test_deadlines_of_states(void **state)
{
    (void)state;
    struct policy p = {0};
    policy_event(&p, EVENT_START, S(1), &lim);
    assert_int_equal(p.due_ns, S(1));
    assert_int_equal(policy_event(&p, EVENT_TIMER, S(1), &lim), ACTION_SPAWN);
    assert_int_equal(p.due_ns, S(601));
    policy_event(&p, EVENT_READY, S(2), &lim);
    assert_int_equal(p.due_ns, 0);
    assert_int_equal(p.up_ns, S(2));
    assert_int_equal(policy_event(&p, EVENT_HUNG, S(20), &lim), ACTION_ABORT);
    assert_int_equal(p.due_ns, S(22));
    assert_int_equal(policy_event(&p, EVENT_TIMER, S(22), &lim), ACTION_KILL);
    assert_int_equal(p.due_ns, S(23));
    p.state = STATE_UP;
    policy_event(&p, EVENT_STOP, S(30), &lim);
    assert_int_equal(p.due_ns, S(60));
    policy_event(&p, EVENT_STOP, S(40), &lim); /* asked again: no new grace */
    assert_int_equal(p.due_ns, S(60));
}

/* From death to ready again. */
static void revive(struct policy *p, int64_t at_ns)
{
    assert_int_equal(policy_event(p, EVENT_TIMER, at_ns, &lim), ACTION_SPAWN);
    policy_event(p, EVENT_READY, at_ns, &lim);
}

static struct policy started(void)
{
    struct policy p = {0};
    policy_event(&p, EVENT_START, 0, &lim);
    revive(&p, 0);
    return p;
}

static void test_back_off_doubles_while_nothing_is_committed(void **state)
{
    (void)state;
    static const int64_t want_ms[] = {0, 200, 400, 800, 1600, 3200, 5000, 5000};
    struct policy p = started();
    int64_t at = S(1);
    for (size_t i = 0; i < sizeof want_ms / sizeof *want_ms; i++) {
        assert_int_equal(policy_died(&p, &killed, at, &lim), VERDICT_AGAIN);
        assert_int_equal(p.due_ns - at, MS(want_ms[i]));
        at = p.due_ns + MS(1);
        revive(&p, at);
        at += MS(1);
    }
    struct policy_death d = killed;
    d.has_committed = true;
    assert_int_equal(policy_died(&p, &d, at, &lim), VERDICT_AGAIN);
    assert_int_equal(p.due_ns, at); /* it did something: at once again */
}

static void test_ten_seconds_up_are_progress(void **state)
{
    (void)state;
    struct policy p = started();
    policy_died(&p, &killed, S(1), &lim);
    revive(&p, S(1));
    policy_died(&p, &killed, S(11), &lim);
    assert_int_equal(p.due_ns, S(11));
    revive(&p, S(11));
    policy_died(&p, &killed, S(20), &lim);
    assert_int_equal(p.due_ns, S(20) + MS(200));
}

static void test_gives_up_after_deaths_in_time(void **state)
{
    (void)state;
    struct policy_death d = killed;
    d.has_committed = true;
    struct policy p = started();
    for (int i = 0; i < 19; i++) {
        assert_int_equal(policy_died(&p, &d, S(3 * i), &lim), VERDICT_AGAIN);
        revive(&p, S(3 * i));
    }
    assert_int_equal(policy_died(&p, &d, S(57), &lim), VERDICT_DEATHS);
    assert_int_equal(p.state, STATE_OFF);

    p = started(); /* slower than that: for ever */
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(policy_died(&p, &d, S(4 * i), &lim), VERDICT_AGAIN);
        revive(&p, S(4 * i));
    }
}

/* What finds no memory, say, dies at each start, and ever more slowly: nobody waits for it for
 * ever. */
static void test_gives_up_on_what_never_serves(void **state)
{
    (void)state;
    const struct policy_death d = {.number = 75};
    struct policy p = {0};
    int64_t at_ns = 0;
    policy_event(&p, EVENT_START, 0, &lim);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(policy_event(&p, EVENT_TIMER, at_ns, &lim), ACTION_SPAWN);
        assert_int_equal(policy_died(&p, &d, at_ns, &lim), i < 19 ? VERDICT_AGAIN : VERDICT_DEATHS);
        at_ns = p.due_ns;
    }
    assert_int_equal(p.state, STATE_OFF);
    assert_string_equal(policy_why(&p, VERDICT_DEATHS), "before it could serve");

    p = started(); /* it served once: the memory may come again */
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(policy_died(&p, &d, S(6 * i), &lim), VERDICT_AGAIN);
        policy_event(&p, EVENT_TIMER, S(6 * i), &lim);
    }
}

static void test_gives_up_on_a_poison_unit(void **state)
{
    (void)state;
    struct policy_death d = {.is_signal = true, .number = SIGSEGV, .unit = 7};
    struct policy p = started();
    for (int i = 0; i < 4; i++) {
        assert_int_equal(policy_died(&p, &d, S(100 * i), &lim), VERDICT_AGAIN);
        revive(&p, S(100 * i));
    }
    assert_int_equal(policy_died(&p, &d, S(400), &lim), VERDICT_POISON);

    /* Killed from outside at one unit: not its fault. */
    p = started();
    for (int i = 0; i < 10; i++) {
        struct policy_death k = killed;
        k.unit = 7;
        assert_int_equal(policy_died(&p, &k, S(100 * i), &lim), VERDICT_AGAIN);
        revive(&p, S(100 * i));
    }
    /* At other units, or with something done between: not the unit's. */
    p = started();
    for (int i = 0; i < 10; i++) {
        d.unit = (uint64_t)i;
        assert_int_equal(policy_died(&p, &d, S(100 * i), &lim), VERDICT_AGAIN);
        revive(&p, S(100 * i));
    }
    d.has_committed = true;
    d.unit = 7;
    for (int i = 10; i < 20; i++) {
        assert_int_equal(policy_died(&p, &d, S(100 * i), &lim), VERDICT_AGAIN);
        revive(&p, S(100 * i));
    }
}

static void test_final_statuses_are_final(void **state)
{
    (void)state;
    static const int32_t final[] = {2, 65, 66, 69, 73, 78}, again[] = {0, 1, 3, 70, 75, 100, 127};
    for (size_t i = 0; i < sizeof final / sizeof *final; i++) {
        struct policy p = started();
        const struct policy_death d = {.number = final[i]};
        assert_int_equal(policy_died(&p, &d, S(1), &lim), VERDICT_FINAL);
        assert_int_equal(err_exit_status(policy_code_of(final[i])), final[i]);
    }
    for (size_t i = 0; i < sizeof again / sizeof *again; i++) {
        struct policy p = started();
        const struct policy_death d = {.number = again[i]};
        assert_int_equal(policy_died(&p, &d, S(1), &lim), VERDICT_AGAIN);
    }
}

static void test_whose_fault(void **state)
{
    (void)state;
    static const struct {
        struct policy_death d;
        bool is_fault;
    } cases[] = {
        {{.is_signal = true, .number = SIGKILL}, false},
        {{.is_signal = true, .number = SIGTERM}, false},
        {{.is_signal = true, .number = SIGABRT}, true},
        {{.is_signal = true, .number = SIGSEGV}, true},
        {{.is_signal = true, .number = SIGBUS}, true},
        {{.is_signal = true, .number = SIGALRM}, true},
        {{.number = 70}, true},
        {{.number = 75}, false},
        {{.number = 0}, false},
        {{.number = 1}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(policy_is_fault(&cases[i].d), cases[i].is_fault);
}

static void test_an_asked_end_is_no_death(void **state)
{
    (void)state;
    struct policy p = started();
    assert_int_equal(policy_event(&p, EVENT_END_KILL, S(1), &lim), ACTION_KILL);
    assert_int_equal(policy_died(&p, &killed, S(1), &lim), VERDICT_AGAIN);
    assert_int_equal(p.n_deaths, 0);
    assert_int_equal(p.due_ns, S(1));
    revive(&p, S(1));
    policy_event(&p, EVENT_STOP, S(2), &lim);
    assert_int_equal(policy_died(&p, &killed, S(2), &lim), VERDICT_OFF);
    assert_int_equal(p.state, STATE_OFF);
    /* Ending to come again, then to stop. */
    p = started();
    policy_event(&p, EVENT_END, S(1), &lim);
    policy_event(&p, EVENT_STOP, S(1), &lim);
    assert_int_equal(policy_died(&p, &killed, S(2), &lim), VERDICT_OFF);
    /* And a death after an asked one counts. */
    p = started();
    policy_event(&p, EVENT_END, S(1), &lim);
    policy_died(&p, &killed, S(1), &lim);
    revive(&p, S(1));
    policy_died(&p, &killed, S(2), &lim);
    assert_int_equal(p.n_deaths, 1);
}

static void test_a_system_without_processes_is_asked_later(void **state)
{
    (void)state;
    struct policy p = {0};
    policy_event(&p, EVENT_START, 0, &lim);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(policy_event(&p, EVENT_TIMER, S(i), &lim), ACTION_SPAWN);
        policy_event(&p, EVENT_NOT_STARTED, S(i), &lim);
        assert_int_equal(p.state, STATE_WAITING);
        assert_int_equal(p.due_ns, S(i) + MS(200 << i));
    }
    assert_int_equal(p.n_deaths, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cell),
        cmocka_unit_test(test_deadlines_of_states),
        cmocka_unit_test(test_back_off_doubles_while_nothing_is_committed),
        cmocka_unit_test(test_ten_seconds_up_are_progress),
        cmocka_unit_test(test_gives_up_after_deaths_in_time),
        cmocka_unit_test(test_gives_up_on_what_never_serves),
        cmocka_unit_test(test_gives_up_on_a_poison_unit),
        cmocka_unit_test(test_final_statuses_are_final),
        cmocka_unit_test(test_whose_fault),
        cmocka_unit_test(test_an_asked_end_is_no_death),
        cmocka_unit_test(test_a_system_without_processes_is_asked_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
