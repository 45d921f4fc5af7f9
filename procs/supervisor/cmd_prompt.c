/* cmd_prompt.c - prompt: the text is checked here; longlived-ctl speaks to the gateway. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/prompt.h"
#include "ipc/ledger.h"
#include "procs/supervisor/cmd.h"
#include "procs/supervisor/pipeline.h"

static err_t check_session(const char *run)
{
    const struct ledger *l = NULL;
    err_t e = ledger_map(run, &l);
    if (e != OK) return FAIL(ERR_NONE, "no session runs in %s", run);
    const bool runs = ledger_read(&l->gateway.job) != ledger_read(&l->gateway.job_done);
    ledger_unmap(&l);
    return runs ? OK : FAIL(ERR_NONE, "no session runs in %s", run);
}

err_t cmd_prompt(const struct args *a, const char *bin_dir)
{
    char run[RUNDIR_PATH_MAX], path[300];
    err_t e = OK;
    TRY(prompt_check(a->word, strlen(a->word)));
    TRY(pipeline_run(run, a, bin_dir, "main"));
    TRY(check_session(run));
    snprintf(path, sizeof path, "%s/longlived-ctl", bin_dir);
    fflush(NULL);
    execl(path, path, "prompt", "--run", run, a->word, (char *)NULL);
    e = FAIL(ERR_NOINPUT, "cannot run %s: %s", path, strerror(errno));
out:
    return e;
}
