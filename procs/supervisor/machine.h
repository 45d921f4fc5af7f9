/* machine.h - what the programs that have CUDA say of this machine: there is none in this one. A
 * program is started, its answer is its last line and its exit status. */
#ifndef SUPERVISOR_MACHINE_H
#define SUPERVISOR_MACHINE_H

#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"

struct machine_device {
    uint64_t free_mib, all_mib; /* CPU: 0 0 */
    char text[200];             /* what it is */
};

/* Tries a device, by way of longlived-keeper; out may be NULL. ERR_NONE with the sentence of that
 * program; ERR_CONFIG: no name of a device. */
MUST_USE err_t machine_device(const char *bin_dir, const char *name, struct machine_device *out);

/* Can another process map memory of device `name` on device `peer`? Tried, not asked. */
MUST_USE err_t machine_share(const char *bin_dir, const char *name, const char *peer);

/* The configuration as a file without a name, open at its begin. */
MUST_USE err_t machine_conf(const struct conf *c, int *out);

/* Bytes on its device that a stage (text, dit, vae) needs for this configuration: its model is
 * opened there for a moment. */
struct machine_need {
    uint64_t weights, state, scratch;
};
MUST_USE err_t machine_need(const char *bin_dir, const char *stage, const struct conf *c,
                            struct machine_need *out);

#endif
