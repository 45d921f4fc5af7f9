/* results.h - the file that bench writes, docs/bench.schema.json: statistics, and how runs merge.
 *
 * A file is of one protocol, commit, machine and configuration, and holds runs; a run holds what
 * its phases measured. Durations are in milliseconds, "n mean std p50 p95 p99 max min values",
 * values in the order in which they were measured.
 */
#ifndef SUPERVISOR_RESULTS_H
#define SUPERVISOR_RESULTS_H

#include <jansson.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"

/* v is left as it is. NULL: no memory. */
json_t *results_stats(const int64_t *ns, int64_t n);

/* The seed's names of a series, PREFIX_mean and so on, and PREFIX_samples. */
void results_put_seed(json_t *o, const char *prefix, const int64_t *ns, int64_t n);

/* A file without runs. conf_file: as it was named, NULL none; preset: "" none. */
json_t *results_head(const char *protocol, const char *commit, const char *conf_file,
                     const char *preset, const struct conf *c);

/* Adds a run, taking it: to the newest one, if that lacks all of its phases and is as quick, else
 * behind it. */
MUST_USE err_t results_add(json_t *file, json_t *run);

/* ERR_NOINPUT, ERR_DATA: no file of ours. results_read_as: of another format of ours, which has
 * this list. */
MUST_USE err_t results_read(const char *path, json_t **out);
MUST_USE err_t results_read_as(const char *path, const char *format, const char *list,
                               json_t **out);
/* ERR_DATA names in what the two differ, if they may not be merged. */
MUST_USE err_t results_check_same(const json_t *file, const json_t *head);
MUST_USE err_t results_write(const char *path, const json_t *file);

/* Walks the statistics in o, in order: what is an object with a mean. path is "a.b". */
void results_walk(json_t *o, void (*visit)(void *self, const char *path, json_t *stats),
                  void *self);

#endif
