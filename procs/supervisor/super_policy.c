/* super_policy.c - see super_policy.h. */
#include "procs/supervisor/super_policy.h"

#include <signal.h>
#include <stddef.h>

#include "common/clock.h"

#define BACKOFF_FIRST_NS ((int64_t)200 * NS_PER_MS)
#define BACKOFF_MAX_NS ((int64_t)5 * NS_PER_S)
#define ABORT_NS ((int64_t)2 * NS_PER_S)
#define KILL_AGAIN_NS ((int64_t)1 * NS_PER_S)
#define UP_IS_PROGRESS_NS ((int64_t)10 * NS_PER_S)

const char *const policy_state_names[STATES] = {
    [STATE_OFF] = "off",         [STATE_WAITING] = "waiting", [STATE_STARTING] = "starting",
    [STATE_UP] = "up",           [STATE_ABORTING] = "hung",   [STATE_ENDING] = "ending",
    [STATE_KILLING] = "killing",
};

struct cell {
    enum policy_action action;
    enum policy_state next;
};

/* clang-format off */
#define STAY(s)    {ACTION_NONE, STATE_##s}
#define TO(s)      {ACTION_NONE, STATE_##s}
#define SPAWN      {ACTION_SPAWN, STATE_STARTING}
#define TERM       {ACTION_TERM, STATE_ENDING}
#define ABORT      {ACTION_ABORT, STATE_ABORTING}
#define KILL       {ACTION_KILL, STATE_KILLING}

static const struct cell table[STATES][EVENTS] = {
    /*                     START           TIMER           READY           HUNG
     *                     END             END_KILL        STOP            STOP_KILL
     *                     NOT_STARTED */
    [STATE_OFF]      = {TO(WAITING),    STAY(OFF),      STAY(OFF),      STAY(OFF),
                        STAY(OFF),      STAY(OFF),      STAY(OFF),      STAY(OFF),
                        STAY(OFF)},
    [STATE_WAITING]  = {STAY(WAITING),  SPAWN,          STAY(WAITING),  STAY(WAITING),
                        STAY(WAITING),  STAY(WAITING),  TO(OFF),        TO(OFF),
                        STAY(WAITING)},
    [STATE_STARTING] = {STAY(STARTING), ABORT,          TO(UP),         STAY(STARTING),
                        TERM,           KILL,           TERM,           KILL,
                        TO(WAITING)},
    [STATE_UP]       = {STAY(UP),       STAY(UP),       STAY(UP),       ABORT,
                        TERM,           KILL,           TERM,           KILL,
                        STAY(UP)},
    [STATE_ABORTING] = {STAY(ABORTING), KILL,           STAY(ABORTING), STAY(ABORTING),
                        STAY(ABORTING), KILL,           STAY(ABORTING), KILL,
                        STAY(ABORTING)},
    [STATE_ENDING]   = {STAY(ENDING),   KILL,           STAY(ENDING),   STAY(ENDING),
                        STAY(ENDING),   KILL,           STAY(ENDING),   KILL,
                        STAY(ENDING)},
    [STATE_KILLING]  = {STAY(KILLING),  KILL,           STAY(KILLING),  STAY(KILLING),
                        STAY(KILLING),  STAY(KILLING),  STAY(KILLING),  STAY(KILLING),
                        STAY(KILLING)},
};
/* clang-format on */

static int64_t backoff_ns(int32_t n_fruitless)
{
    if (n_fruitless == 0) return 0;
    int64_t ns = BACKOFF_FIRST_NS;
    for (int32_t i = 1; i < n_fruitless && ns < BACKOFF_MAX_NS; i++) ns *= 2;
    return ns < BACKOFF_MAX_NS ? ns : BACKOFF_MAX_NS;
}

/* When the state that was just entered has lasted too long. */
static int64_t due_after(enum policy_state s, int64_t at_ns, const struct policy_limits *lim)
{
    switch (s) {
    case STATE_WAITING:
        return at_ns;
    case STATE_STARTING:
        return at_ns + lim->ready_ns;
    case STATE_ABORTING:
        return at_ns + ABORT_NS;
    case STATE_ENDING:
        return at_ns + lim->stop_ns;
    case STATE_KILLING:
        return at_ns + KILL_AGAIN_NS;
    default:
        return 0;
    }
}

enum policy_action policy_event(struct policy *p, enum policy_event ev, int64_t at_ns,
                                const struct policy_limits *lim)
{
    MUST(p->state < STATES && ev < EVENTS);
    const struct cell c = table[p->state][ev];
    const bool is_end =
        ev == EVENT_END || ev == EVENT_END_KILL || ev == EVENT_STOP || ev == EVENT_STOP_KILL;
    if (ev == EVENT_START) p->is_wanted = true;
    if (ev == EVENT_STOP || ev == EVENT_STOP_KILL) p->is_wanted = false;
    if (is_end && policy_is_running(p->state)) p->is_asked = true;
    if (c.action == ACTION_SPAWN) {
        p->is_asked = false;
        p->n_starts++;
    }
    if (c.next != p->state || c.action != ACTION_NONE) p->due_ns = due_after(c.next, at_ns, lim);
    if (ev == EVENT_NOT_STARTED && p->state == STATE_STARTING) {
        p->n_fruitless++;
        p->due_ns = at_ns + backoff_ns(p->n_fruitless);
    }
    p->up_ns = c.next == STATE_UP ? (p->state == STATE_UP ? p->up_ns : at_ns) : p->up_ns;
    p->has_served |= c.next == STATE_UP;
    p->state = c.next;
    return c.action;
}

static void remember(struct policy *p, const struct policy_death *d, int64_t at_ns)
{
    const size_t i = (size_t)(p->n_deaths++ % POLICY_DEATHS);
    p->deaths[i].at_ns = at_ns;
    p->deaths[i].unit = d->unit;
    p->deaths[i].is_fault = policy_is_fault(d);
    p->deaths[i].has_committed = d->has_committed;
}

static int32_t kept(const struct policy *p)
{
    return p->n_deaths < POLICY_DEATHS ? (int32_t)p->n_deaths : POLICY_DEATHS;
}

static int32_t deaths_since(const struct policy *p, int64_t since_ns)
{
    int32_t n = 0;
    for (int32_t i = 0; i < kept(p); i++) n += p->deaths[i].at_ns > since_ns;
    return n;
}

/* From the newest back to the last one that had got something done: a process without units, or an
 * idle one, stays at one number for days. */
static int32_t faults_at(const struct policy *p, uint64_t unit)
{
    int32_t n = 0;
    for (int32_t back = 1; back <= kept(p); back++) {
        const size_t i = (size_t)((p->n_deaths - (uint64_t)back) % POLICY_DEATHS);
        n += p->deaths[i].is_fault && p->deaths[i].unit == unit;
        if (p->deaths[i].has_committed) break;
    }
    return n;
}

static enum policy_verdict off(struct policy *p, enum policy_verdict v)
{
    p->state = STATE_OFF;
    p->due_ns = 0;
    p->is_wanted = false;
    return v;
}

static bool is_fruitful(const struct policy *p, bool has_committed, int64_t at_ns)
{
    return has_committed || (p->up_ns != 0 && at_ns - p->up_ns >= UP_IS_PROGRESS_NS);
}

bool policy_answers_at_once(const struct policy *p, bool has_committed, int64_t at_ns)
{
    return p->state == STATE_UP && p->is_wanted &&
           (p->n_fruitless == 0 || is_fruitful(p, has_committed, at_ns));
}

enum policy_verdict policy_died(struct policy *p, const struct policy_death *d, int64_t at_ns,
                                const struct policy_limits *lim)
{
    const bool is_fruit = is_fruitful(p, d->has_committed, at_ns);
    p->up_ns = 0;
    if (!p->is_wanted) return off(p, VERDICT_OFF);
    p->state = STATE_WAITING;
    p->due_ns = at_ns;
    if (p->is_asked) return VERDICT_AGAIN;
    if (!d->is_signal && policy_is_final(d->number)) return off(p, VERDICT_FINAL);

    remember(p, d, at_ns);
    if (policy_is_fault(d) && faults_at(p, d->unit) >= lim->n_faults_max)
        return off(p, VERDICT_POISON);
    const int64_t since_ns = p->has_served ? at_ns - lim->deaths_ns : INT64_MIN;
    if (deaths_since(p, since_ns) >= lim->n_deaths_max) return off(p, VERDICT_DEATHS);
    if (is_fruit) p->n_fruitless = 0;
    p->due_ns = at_ns + backoff_ns(p->n_fruitless);
    p->n_fruitless++;
    return VERDICT_AGAIN;
}

bool policy_is_running(enum policy_state s)
{
    return s != STATE_OFF && s != STATE_WAITING;
}

bool policy_is_final(int32_t status)
{
    static const err_t final[] = {ERR_USAGE, ERR_DATA,  ERR_NOINPUT,
                                  ERR_NONE,  ERR_WRITE, ERR_CONFIG};
    for (size_t i = 0; i < sizeof final / sizeof *final; i++)
        if (err_exit_status(final[i]) == status) return true;
    return false;
}

bool policy_is_fault(const struct policy_death *d)
{
    if (d->is_signal)
        return d->number != SIGKILL && d->number != SIGTERM && d->number != SIGINT &&
               d->number != SIGHUP;
    return d->number != 0 && d->number != err_exit_status(ERR_AGAIN) &&
           d->number != err_exit_status(ERR_RUNNING);
}

const char *policy_why(const struct policy *p, enum policy_verdict v)
{
    if (v == VERDICT_POISON) return "by its own fault there";
    return p->has_served ? "in a short time" : "before it could serve";
}

err_t policy_code_of(int32_t status)
{
    if (status == err_exit_status(ERR_BUG)) return ERR_BUG;
    if (status == err_exit_status(ERR_AGAIN)) return ERR_AGAIN;
    for (int c = OK; c < ERR_CODES; c++)
        if (err_exit_status((err_t)c) == status) return (err_t)c;
    return ERR_BUG;
}
