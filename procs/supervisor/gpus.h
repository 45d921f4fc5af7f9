/* gpus.h - clocks, power and temperature of the GPUs that a pipeline uses, through NVML.
 *
 * The library is the driver's, and loaded while it is needed; where there is none the figures are
 * its absence, in words. NVML counts GPUs by their place on the bus, and knows nothing of
 * CUDA_VISIBLE_DEVICES: a list of numbers there is followed, anything else is said instead.
 */
#ifndef SUPERVISOR_GPUS_H
#define SUPERVISOR_GPUS_H

#include <jansson.h>

#include "common/conf.h"
#include "common/err.h"

struct gpus;

/* library: NULL is NVML's own name. visible: CUDA_VISIBLE_DEVICES; NULL: not set. No GPU among the
 * places: nothing is loaded, and there is nothing to tell. */
MUST_USE err_t gpus_open(struct gpus **out, const struct conf *c, const char *library,
                         const char *visible);
void gpus_close(struct gpus **g); /* NULL-safe */

/* Looks at each GPU, unless it did less than half a second ago. */
void gpus_look(struct gpus *g, int64_t now_ns);

/* {"cuda:0": {"samples", "sm_mhz", "sm_mhz_min", "sm_mhz_max" ...}} of sm_mhz, memory_mhz, power_w
 * and temperature_c, the first of each its mean; or {"cuda:0": {"absent": "why"}}. The caller's;
 * samples begin anew. */
json_t *gpus_take(struct gpus *g);

#endif
