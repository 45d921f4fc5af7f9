/* choices.h - what the library of matrix products was asked once, kept for the stage's successor:
 * region `choices.STAGE` in host memory; what is in it, kernels/ops.h says. Where no library is
 * asked, as on the CPU, there is none. */
#ifndef PROCS_CHOICES_H
#define PROCS_CHOICES_H

#include "procs/stage.h"

/* Maps it as st->choices_region for the ops of the stage's device: after ops_open, before the first
 * op. stage.c unmaps it when the stage has closed, and so after ops_close. Errors are
 * stage_region's. */
MUST_USE err_t choices_map(struct stage *st, const char *stage);

#endif
