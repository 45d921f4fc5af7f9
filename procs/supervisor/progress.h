/* progress.h - whether a process of the pipeline has done anything, as the ledger tells it. */
#ifndef SUPERVISOR_PROGRESS_H
#define SUPERVISOR_PROGRESS_H

#include "ipc/ledger.h"
#include "procs/supervisor/super.h"

/* A sum that whatever the process commits changes; l may be NULL. */
uint64_t progress_of(const struct ledger *l, enum super_proc i);

#endif
