/* choices.h - what a model's library was asked once, kept for the stage's successor: region
 * `choices.STAGE` in host memory, of which kernels/ops.h says what is in it. Where no library is
 * asked, as on the CPU, there is none. */
#ifndef PROCS_CHOICES_H
#define PROCS_CHOICES_H

#include "procs/stage.h"

/* Maps it for the ops of the stage's device: after ops_open, before the first op. The stage's shell
 * unmaps it, after ops_close. Errors are stage_region's. */
MUST_USE err_t choices_map(struct stage *st, const char *stage);

#endif
