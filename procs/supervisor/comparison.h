/* comparison.h - results of several variants side by side, and in what they differ by more than
 * their runs do. Pure but for its files.
 *
 * {"format", "version", "protocol", "what", "variants": [{"name", "set", "result"}], "figures":
 * [{"name", "means", "spreads", "differs"}]}. A result is what results.h writes for one variant; a
 * figure has a number a variant, the mean of its runs, and how that stands to the first variant's:
 * lower, higher, same, or unknown where one has a single run. null: the variant has no such figure.
 */
#ifndef SUPERVISOR_COMPARISON_H
#define SUPERVISOR_COMPARISON_H

#include <jansson.h>
#include <stdio.h>

#include "common/err.h"

/* The caller's, without variants. what: "compare", or the ablation's name. */
json_t *comparison_new(const char *protocol, const char *what);

/* Adds a variant; its result is the comparison's then. ERR_NOMEM. */
MUST_USE err_t comparison_add(json_t *o, const char *name, const char *set, json_t *result);

/* The result of variant i; borrowed. */
json_t *comparison_result(const json_t *o, size_t i);

/* From a file: ERR_NOINPUT; ERR_DATA if it is none, or its variants are not o's in order, commit,
 * machine and configuration. Then o has the file's runs. */
MUST_USE err_t comparison_merge(json_t *o, const char *path);

/* Works "figures" out anew. ERR_LIMIT: more runs than a difference is told of. */
MUST_USE err_t comparison_figures(json_t *o);

/* A row a figure, a column a variant. */
void comparison_table(const json_t *o, FILE *f);

/* A row a figure and variant. */
void comparison_csv(const json_t *o, FILE *f);

#endif
