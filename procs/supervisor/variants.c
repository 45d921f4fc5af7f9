/* variants.c - see variants.h. */
#include "procs/supervisor/variants.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { VALUES_MAX = 4 };
static const char preset_key[] = "run.preset=";

static const struct {
    const char *name, *key, *values[VALUES_MAX];
} ablations[] = {
    {"window", "dit.window", {"12", "10", "8", "6"}},
    {"sink", "dit.sink", {"3", "2", "1", "0"}},
    {"graph", "gpu.graphs", {"true", "false"}},
    {"edge", "gpu.edge", {"true", "false"}},
    {"overlap", "dit.overlap", {"true", "false"}},
    {"precision", "model.precision", {"auto", "fp32"}},
};
enum { ABLATIONS = sizeof ablations / sizeof *ablations };

static void add_preset(struct variant out[VARIANTS_MAX], int32_t *n, const char *name)
{
    for (int32_t i = 0; i < *n; i++)
        if (strcmp(out[i].name, name) == 0) return;
    struct variant *v = &out[(*n)++];
    snprintf(v->name, sizeof v->name, "%s", name);
    snprintf(v->set, sizeof v->set, "%s%s", preset_key, v->name);
}

static err_t add_values(struct variant out[VARIANTS_MAX], int32_t *n, const char *name)
{
    char known[64] = "";
    for (int i = 0; i < ABLATIONS; i++) {
        strcat(strcat(known, i ? ", " : ""), ablations[i].name);
        if (strcmp(ablations[i].name, name) != 0) continue;
        for (int k = 0; k < VALUES_MAX && ablations[i].values[k]; k++) {
            struct variant *v = &out[(*n)++];
            snprintf(v->set, sizeof v->set, "%s=%s", ablations[i].key, ablations[i].values[k]);
            snprintf(v->name, sizeof v->name, "%.*s", VARIANT_NAME_MAX - 1, v->set);
        }
        return OK;
    }
    return FAIL(ERR_USAGE, "bench: --ablate %s: there is %s", name, known);
}

err_t variants_of(const struct args *a, struct variant out[VARIANTS_MAX], int32_t *n)
{
    *n = 0;
    if (a->ablate) return add_values(out, n, a->ablate);
    if (a->compare) add_preset(out, n, "baseline");
    for (int32_t i = 0; i < a->n_presets; i++) add_preset(out, n, a->presets[i]);
    if (a->compare && *n == 1) add_preset(out, n, "balanced");
    if (*n == 0) out[(*n)++] = (struct variant){0};
    return OK;
}

err_t variants_args(const struct args *a, const struct variant *v, struct args *out)
{
    int32_t n = 0;
    const bool is_preset = strncmp(v->set, preset_key, sizeof preset_key - 1) == 0;
    *out = *a;
    if (a->n_sets == ARGS_SETS_MAX)
        return FAIL(ERR_USAGE, "bench: --set: at most %d", ARGS_SETS_MAX - 1);
    if (is_preset) out->sets[n++] = v->set;
    for (int32_t i = 0; i < a->n_sets; i++) out->sets[n++] = a->sets[i];
    if (!is_preset && v->set[0]) out->sets[n++] = v->set;
    out->n_sets = n;
    return OK;
}

const char *variants_preset(const struct args *a)
{
    const char *name = "";
    for (int32_t i = 0; i < a->n_sets; i++)
        if (strncmp(a->sets[i], preset_key, sizeof preset_key - 1) == 0)
            name = a->sets[i] + sizeof preset_key - 1;
    return name;
}

const char *variants_protocol(const struct args *a)
{
    return a->stage ? "stage" : a->protocol;
}

void variants_file(const struct args *a, char *out, size_t cap)
{
    snprintf(out, cap, "%s%s%s", variants_protocol(a), a->compare || a->ablate ? "-" : "",
             a->compare  ? "compare"
             : a->ablate ? a->ablate
                         : "");
}
