/* report.h - what a file of bench's results looks like to people. */
#ifndef SUPERVISOR_REPORT_H
#define SUPERVISOR_REPORT_H

#include <jansson.h>
#include <stdio.h>

/* The newest run as a table: a row for each series of durations, then what else is a number. */
void report_table(const json_t *file, FILE *f);

#endif
