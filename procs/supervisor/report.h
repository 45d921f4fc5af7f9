/* report.h - what a file of bench's results looks like to people. */
#ifndef SUPERVISOR_REPORT_H
#define SUPERVISOR_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "common/err.h"

/* The newest run as a table: a row for each series of durations, then what else is a number. */
void report_table(const json_t *file, FILE *f);

/* A row for each series of each run: protocol, commit, run, series, and its statistics in ms. */
void report_csv(const json_t *file, FILE *f);

/* One page that needs nothing else: the newest run as tables, bars of where the time goes, a Gantt
 * chart of some blocks, intervals in their order beside 40 ms, and histograms. The page is
 * report.html, which draws what it is given. */
MUST_USE err_t report_html(const json_t *file, FILE *f);

#endif
