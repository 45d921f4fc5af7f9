/* entities.h - HTML's named character references (HTML, section 13.5), 2,125 of them. */
#ifndef COMMON_ENTITIES_H
#define COMMON_ENTITIES_H

#include <stdbool.h>
#include <stddef.h>

/* The UTF-8 text of "&NAME;" (has_end) or of "&NAME", which only the oldest may be called by; not
 * NUL-terminated. NULL: no such name. */
const char *entity_find(const char *name, size_t n_name, bool has_end, size_t *n_text);

#endif
