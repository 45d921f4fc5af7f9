/* clean.h - a text as the reference cleans it before it is tokenised.
 *
 * Wan 2.1's cleaning: ftfy.fix_text, html.unescape twice, strip, every run of white space to one
 * space. Of ftfy: HTML entities (unless a line so far has a '<'), C1 controls as Windows-1252,
 * Latin ligatures, full and half width, straight quotes, terminal escapes, control characters, NFC;
 * again and again until nothing changes. Its repair of mojibake is not done, nor are entities whose
 * names somebody wrote in capitals. Not idempotent: "&amp;amp;amp;amp;lt;" is cleaned once.
 */
#ifndef COMMON_CLEAN_H
#define COMMON_CLEAN_H

#include <stddef.h>

#include "common/err.h"

/* text: UTF-8, valid, no NUL. *out: NUL-terminated, may be empty; the caller frees it. ERR_NOMEM.
 */
MUST_USE err_t clean_text(const char *text, size_t n_bytes, char **out, size_t *n_out);

#endif
