/* variants.h - the configurations that bench measures by turns: presets, or one key's values. Pure.
 */
#ifndef SUPERVISOR_VARIANTS_H
#define SUPERVISOR_VARIANTS_H

#include <stdint.h>

#include "procs/supervisor/args.h"

enum { VARIANTS_MAX = 9, VARIANT_NAME_MAX = 64 };

struct variant {
    char name[VARIANT_NAME_MAX];
    char set[VARIANT_NAME_MAX + 16]; /* as for --set; "" is the configuration as it is */
};

/* --compare: baseline and the presets of --preset, or balanced. --ablate NAME: the values of one
 * key, the first being the preset's own. Else one: that of --preset, or the configuration. All
 * others are measured against the first. ERR_USAGE: no such ablation. */
MUST_USE err_t variants_of(const struct args *a, struct variant out[VARIANTS_MAX], int32_t *n);

/* The arguments with this variant's key set: a preset before what --set says, which overrides it, a
 * value of an ablation after. ERR_USAGE: too many --set. */
MUST_USE err_t variants_args(const struct args *a, const struct variant *v, struct args *out);

/* The preset that the arguments choose, "" none. */
const char *variants_preset(const struct args *a);

/* What is measured: the protocol, or "stage". */
const char *variants_protocol(const struct args *a);

/* What the files are called: PROTOCOL, PROTOCOL-compare, PROTOCOL-NAME. */
void variants_file(const struct args *a, char *out, size_t cap);

#endif
