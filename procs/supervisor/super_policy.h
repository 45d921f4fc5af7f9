/* super_policy.h - when a process is started, ended, killed, given up: pure functions of
 * (state, event, time), so that a test can walk every cell with a clock of its own.
 *
 * super.c tells what happened (policy_event, policy_died) and does what is answered. Times are
 * int64 nanoseconds on any monotonic clock; 0 is no time.
 *
 * Restarts. A first death is answered at once. A death with nothing committed since the one before
 * waits: 0.2 s, doubling to 5 s. A process is given up after `n_deaths_max` deaths within
 * `deaths_ns`, in whatever time if it never served, for with those waits they take longer; or after
 * `n_faults_max` deaths by its own fault at one unit of work with nothing committed between them (a
 * poison block).
 */
#ifndef SUPERVISOR_SUPER_POLICY_H
#define SUPERVISOR_SUPER_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum policy_state {
    STATE_OFF,      /* not running, and not to be started */
    STATE_WAITING,  /* not running; to be started at due_ns */
    STATE_STARTING, /* runs; has until due_ns to say that it can serve */
    STATE_UP,       /* serves */
    STATE_ABORTING, /* hung: SIGABRT was sent, SIGKILL follows at due_ns */
    STATE_ENDING,   /* SIGTERM was sent, SIGKILL follows at due_ns */
    STATE_KILLING,  /* SIGKILL was sent */
    STATES
};
extern const char *const policy_state_names[STATES];

enum policy_event {
    EVENT_START,       /* it is wanted */
    EVENT_TIMER,       /* due_ns has passed */
    EVENT_READY,       /* it said that it can serve */
    EVENT_HUNG,        /* no sign of life */
    EVENT_END,         /* somebody asks it to end and come again */
    EVENT_END_KILL,    /* the same by SIGKILL */
    EVENT_STOP,        /* to end for good */
    EVENT_STOP_KILL,   /* the same by SIGKILL */
    EVENT_NOT_STARTED, /* the system could not start it: no memory, no process, no fd */
    EVENTS
};

enum policy_action { ACTION_NONE, ACTION_SPAWN, ACTION_TERM, ACTION_ABORT, ACTION_KILL };

/* How a process died. */
struct policy_death {
    bool is_signal;
    int32_t number;     /* signal, or exit status */
    uint64_t unit;      /* what it was working on */
    bool has_committed; /* anything since it was started */
};

enum policy_verdict {
    VERDICT_OFF,    /* as asked */
    VERDICT_AGAIN,  /* starts again at due_ns */
    VERDICT_FINAL,  /* its exit status says that starting again cannot help */
    VERDICT_DEATHS, /* given up: too many deaths in a time, or before it ever served */
    VERDICT_POISON  /* given up: too many by its own fault at one unit */
};

struct policy_limits {
    int32_t n_deaths_max, n_faults_max;
    int64_t deaths_ns, ready_ns, stop_ns;
};

enum { POLICY_DEATHS = 1024 }; /* the bound of supervisor.deaths is below */

struct policy {
    enum policy_state state;
    int64_t due_ns;      /* next EVENT_TIMER; 0 none */
    bool is_wanted;      /* comes again when it has died */
    bool is_asked;       /* its end was asked for: not a death to count */
    bool has_served;     /* ever */
    int64_t up_ns;       /* since when it serves; 0 not */
    int32_t n_fruitless; /* deaths in a row without anything committed between */
    uint64_t n_starts;
    uint64_t n_deaths; /* counted ones, ever */
    struct {
        int64_t at_ns;
        uint64_t unit;
        bool is_fault;
        bool has_committed;
    } deaths[POLICY_DEATHS]; /* ring by n_deaths */
};

/* Changes p and says what to do. Never called for a death. */
enum policy_action policy_event(struct policy *p, enum policy_event ev, int64_t at_ns,
                                const struct policy_limits *lim);

/* The process is gone. */
enum policy_verdict policy_died(struct policy *p, const struct policy_death *d, int64_t at_ns,
                                const struct policy_limits *lim);

/* Whether a death now, of nobody's asking, is answered without a wait; what has_committed says is
 * as of now. It may still be the last that is. */
bool policy_answers_at_once(const struct policy *p, bool has_committed, int64_t at_ns);

/* Is there a process in this state? */
bool policy_is_running(enum policy_state s);

/* An exit status that starting again cannot mend: usage, data, input, device, output, config. */
bool policy_is_final(int32_t status);

/* By the process's own fault: not a kill from outside, not "try again". */
bool policy_is_fault(const struct policy_death *d);

/* What the deaths were for which it was given up: "by its own fault there". */
const char *policy_why(const struct policy *p, enum policy_verdict v);

/* The code whose exit status this is; ERR_BUG for one that no code has. */
err_t policy_code_of(int32_t status);

#endif
