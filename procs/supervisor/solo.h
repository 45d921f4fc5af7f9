/* solo.h - one stage alone: the program bench-stage beside ours, and what it prints. */
#ifndef SUPERVISOR_SOLO_H
#define SUPERVISOR_SOLO_H

#include <jansson.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"

/* stage: text, dit, vae or edge. wait(self) is called now and then meanwhile. Its own code and
 * sentence, if it fails; ERR_NOINPUT: it is not built; ERR_BUG: it ends otherwise, or what it
 * prints is no object. */
MUST_USE err_t solo_run(const char *bin_dir, const char *stage, const struct conf *c,
                        int32_t n_runs, void (*wait)(void *self), void *self, json_t **out);

#endif
