/* cmd_trace.c - trace: the newest spans of a pipeline, running or kept, into a file. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "common/file.h"
#include "procs/supervisor/chrome.h"
#include "procs/supervisor/cmd.h"
#include "procs/supervisor/pipeline.h"

err_t cmd_trace(const struct args *a, const char *bin_dir)
{
    char run[RUNDIR_PATH_MAX];
    err_t e = OK;
    struct trace t = {0};
    const struct ledger *l = NULL;
    json_t *o = NULL;
    char *text = NULL;
    int64_t n = 0;
    TRY(pipeline_run(run, a, bin_dir, "main"));
    TRY(ledger_map(run, &l));
    TRY(trace_look(&t, l));
    for (int w = 0; w < WRITERS; w++) n += t.of[w].n;
    if (n == 0) {
        e = FAIL(ERR_NONE, "%s: nothing was done there yet", run);
        goto out;
    }
    o = chrome_trace(&t);
    text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    if (!text) {
        e = FAIL(ERR_NOMEM, "trace");
        goto out;
    }
    TRY(file_write(a->out, text, strlen(text)));
    printf("%s: %lld spans\n", a->out, (long long)n);
out:
    free(text);
    json_decref(o);
    trace_free(&t);
    ledger_unmap(&l);
    return e;
}
