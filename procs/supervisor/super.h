/* super.h - one pipeline's processes: started in order, watched, restarted, ended in order.
 *
 * The caller drives it: super_step waits for something to happen, at most wait_ms, and deals with
 * it. So a command may look at the ledger between two steps, in the one thread there is. After
 * super_open nothing is allocated. Signals SIGINT and SIGTERM are counted, and acted on by the
 * caller. What to do when is super_policy.h's; here is the doing.
 */
#ifndef SUPERVISOR_SUPER_H
#define SUPERVISOR_SUPER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"
#include "ipc/ledger.h"
#include "procs/supervisor/rundir.h"

/* Keeper first: it is watched first, so that its death is known before that of its stages. */
enum super_proc { PROC_KEEPER, PROC_TEXT, PROC_DIT, PROC_VAE, PROC_GATEWAY, PROCS };
extern const char *const super_proc_names[PROCS];

struct super_conf {
    const char *bin_dir;      /* where longlived-NAME are */
    const struct rundir *dir; /* borrowed; config.ini is in it */
    const struct conf *conf;  /* read during super_open */
    int gateway_out_fd;       /* its standard output; -1: /dev/null */
    bool is_verbose;          /* deaths and restarts on stderr too */
};

struct super;

/* Blocks SIGINT and SIGTERM for good: they arrive in super_step. */
MUST_USE err_t super_open(struct super **out, const struct super_conf *c);
void super_close(struct super **s); /* NULL-safe; SIGKILL to what still runs */

void super_step(struct super *s, int32_t wait_ms);

bool super_is_ready(const struct super *s);   /* all serve */
bool super_is_gone(const struct super *s);    /* all have ended, and none will come */
int32_t super_signals(const struct super *s); /* how many came */
void super_stop(struct super *s);             /* in order; gateway first */
void super_kill(struct super *s);             /* all, now */

/* Why it stopped by itself: OK when it did not. The sentence goes to FAIL's. */
err_t super_verdict(const struct super *s);

/* NULL until there is one. */
const struct ledger *super_ledger(const struct super *s);

/* Warnings of the stages for the user, each once, two at most: NULL when there is no new one. */
const char *super_warning(struct super *s);

#endif
