/* err.c - see err.h. */
#include "common/err.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char sentence[512] = "no error";

/* One line, and nothing that a terminal would obey: what is quoted may be anybody's bytes. */
static void keep_to_a_line(void)
{
    for (char *p = sentence; *p; p++)
        if ((uint8_t)*p < ' ' || *p == 0x7F) *p = '?';
}

err_t err_set(err_t code, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    (void)file;
    (void)line;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    keep_to_a_line();
    return code;
}

err_t err_prefix(err_t code, const char *fmt, ...)
{
    char kept[sizeof sentence];
    va_list ap;
    memcpy(kept, sentence, sizeof kept);
    va_start(ap, fmt);
    const int n = vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    keep_to_a_line();
    if (n < 0 || (size_t)n >= sizeof sentence) return code;
    /* The result is looked at, so that the compiler takes the cut as meant. */
    if (snprintf(sentence + n, sizeof sentence - (size_t)n, ": %s", kept) < 0) sentence[n] = '\0';
    return code;
}

const char *err_text(void)
{
    return sentence;
}

int err_exit_status(err_t code)
{
    static const int status[ERR_CODES] = {
        [OK] = 0,          [ERR_USAGE] = 2,     [ERR_GAVE_UP] = 3,
        [ERR_DATA] = 65,   [ERR_NOINPUT] = 66,  [ERR_NONE] = 69,
        [ERR_BUG] = 70,    [ERR_SHAPE] = 70,    [ERR_DEVICE] = 70,
        [ERR_WRITE] = 73,  [ERR_FULL] = 73,     [ERR_NOMEM] = 75,
        [ERR_LIMIT] = 75,  [ERR_TIMEOUT] = 75,  [ERR_AGAIN] = 75,
        [ERR_CONFIG] = 78, [ERR_RUNNING] = 100, [ERR_REFUSED] = 69,
    };
    MUST(code < ERR_CODES);
    return status[code];
}

void err_abort(const char *cond, const char *file, int line)
{
    fprintf(stderr, "level=error ev=broken_promise at=%s:%d what=\"%s\"\n", file, line, cond);
    abort();
}
