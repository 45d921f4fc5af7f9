/* chrome.h - spans as a file for chrome://tracing and ui.perfetto.dev.
 *
 * Source: the Trace Event Format document of the Chromium project: complete events ("ph": "X"),
 * times in microseconds, and metadata events that name the processes.
 */
#ifndef SUPERVISOR_CHROME_H
#define SUPERVISOR_CHROME_H

#include <jansson.h>

#include "procs/supervisor/trace.h"

/* A process a stage; time 0 is the first begin. NULL: no memory. */
json_t *chrome_trace(const struct trace *t);

#endif
