/* log.h - one event a line on standard error:
 *
 *   level=info stage=dit ev=block block=7 took_ms=93
 *
 * A line is written by one write(2), so lines of several processes never mix. The environment
 * variable LONGLIVED_LOG = error | warn | info | debug sets what is written; default info.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* stage: name that every line carries; a static string. */
void log_open(const char *stage);

/* ev: what happened, one word. fmt: "key=value ..." for the rest, may be "". */
void log_line(enum log_level level, const char *ev, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
