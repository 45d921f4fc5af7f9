/* diff.h - whether one file of bench's results differs from another, or only as runs do. */
#ifndef SUPERVISOR_DIFF_H
#define SUPERVISOR_DIFF_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

/* SAME: the means of the runs are no further apart than the runs of one file are, of the file whose
 * runs are the further apart. UNKNOWN: a file has one run, which says nothing of the next. */
enum diff { DIFF_UNKNOWN, DIFF_SAME, DIFF_LOWER, DIFF_HIGHER };

/* Of b against a, each the values of n > 0 runs. *spread may be NULL. */
enum diff diff_of(const double *a, int32_t n_a, const double *b, int32_t n_b, double *spread);

enum { DIFF_RUNS_MAX = 64 };

/* Mean, and from the lowest to the highest, of n > 0 values. */
void diff_range(const double *v, int32_t n, double *mean, double *spread);

/* A figure's values, "fresh.call_ms.mean", of the runs that have it, and how many: not each run has
 * every phase. */
int32_t diff_values(const json_t *file, const char *path, double out[DIFF_RUNS_MAX]);

/* Each figure of any run, once: all but what another one says as well. */
void diff_each(const json_t *file, void (*visit)(void *self, const char *path), void *self);

/* A row for each figure that both have. ERR_DATA: not the same protocol; ERR_LIMIT: more than 64
 * runs. */
MUST_USE err_t diff_print(const json_t *a, const json_t *b, FILE *f);

#endif
