/* cmd_prompt.c - prompt, preset: checked here; longlived-ctl speaks to the gateway. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/conf.h"
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

/* Ends in longlived-ctl; word2 may be NULL. */
static err_t ask(const char *bin_dir, const char *verb, const char *run, const char *word,
                 const char *word2)
{
    char path[300];
    snprintf(path, sizeof path, "%s/longlived-ctl", bin_dir);
    fflush(NULL);
    execl(path, path, verb, "--run", run, word, word2, (char *)NULL);
    return FAIL(ERR_NOINPUT, "cannot run %s: %s", path, strerror(errno));
}

err_t cmd_prompt(const struct args *a, const char *bin_dir)
{
    char run[RUNDIR_PATH_MAX];
    err_t e = OK;
    TRY(prompt_check(a->word, strlen(a->word)));
    TRY(pipeline_run(run, a, bin_dir, "main"));
    TRY(check_session(run));
    e = ask(bin_dir, "prompt", run, a->word, NULL);
out:
    return e;
}

/* The running configuration has the presets of the file that it was made of. */
err_t cmd_preset(const struct args *a, const char *bin_dir)
{
    char run[RUNDIR_PATH_MAX], path[RUNDIR_PATH_MAX + 16], window[16];
    struct conf now, then;
    err_t e = OK;
    TRY(pipeline_run(run, a, bin_dir, "main"));
    TRY(check_session(run));
    snprintf(path, sizeof path, "%s/config.ini", run);
    TRY(conf_load(&now, path, NULL, 0));
    TRY(conf_load_preset(&then, path, a->word));
    e = conf_check_change(&now, &then);
    if (e != OK) return err_prefix(e, "preset %s", a->word);
    snprintf(window, sizeof window, "%d", then.dit.window);
    e = ask(bin_dir, "preset", run, window, then.dit.steps);
out:
    return e;
}
