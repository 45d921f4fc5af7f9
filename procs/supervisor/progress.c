/* progress.c - see progress.h. */
#include "procs/supervisor/progress.h"

const char *const super_proc_names[PROCS] = {"keeper", "text", "dit", "vae", "gateway"};

uint64_t progress_of(const struct ledger *l, enum super_proc i)
{
    if (!l) return 0;
    switch (i) {
    case PROC_TEXT:
        return ledger_read(&l->text.n_encoded) + ledger_read(&l->text.n_scripts_seen);
    case PROC_DIT:
        return ledger_read(&l->dit.n_latents_blocks) + ledger_read(&l->dit.n_clean_blocks);
    case PROC_VAE:
        return ledger_read(&l->vae.n_latents);
    case PROC_GATEWAY:
        return ledger_read(&l->gateway.n_committed) + ledger_read(&l->gateway.n_scripts) +
               ledger_read(&l->gateway.n_sessions) + ledger_read(&l->gateway.job_done);
    default:
        return 0;
    }
}
