/* log.c - see log.h. */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *log_stage = "longlived";
static enum log_level log_max = LOG_INFO;

void log_open(const char *stage)
{
    const char *want = getenv("LONGLIVED_LOG");
    log_stage = stage;
    for (int i = LOG_ERROR; want && i <= LOG_DEBUG; i++)
        if (strcmp(want, level_names[i]) == 0) log_max = (enum log_level)i;
}

void log_line(enum log_level level, const char *ev, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    if (level > log_max) return;
    const int n_head =
        snprintf(line, sizeof line, "level=%s stage=%s ev=%s ", level_names[level], log_stage, ev);
    int n = n_head > 0 && n_head < (int)sizeof line ? n_head : 0;
    va_start(ap, fmt);
    const int n_tail = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if (n_tail > 0) n += n_tail < (int)sizeof line - n - 1 ? n_tail : (int)sizeof line - n - 2;
    line[n++] = '\n';
    /* A log that cannot be written must not stop a stage. */
    if (write(STDERR_FILENO, line, (size_t)n) < 0) return;
}
