/* probe.h - what can be tried of a device before a pipeline needs it: for `longlived doctor`, whose
 * program has no CUDA. */
#ifndef KEEPER_PROBE_H
#define KEEPER_PROBE_H

#include <stddef.h>

#include "common/err.h"

/* Uses the device for a moment. out: "FREE_MIB ALL_MIB TEXT", the TEXT for people; a CPU has 0 0.
 */
MUST_USE err_t probe_device(const char *name, char *out, size_t cap);

/* Makes memory on device `name` and has another process, this program with `--map PEER`, map it on
 * device `peer`. ERR_REFUSED with that process's sentence. */
MUST_USE err_t probe_share(const char *name, const char *peer);
/* What that other process does: reads from standard input what to map. */
MUST_USE err_t probe_map(const char *peer);

#endif
