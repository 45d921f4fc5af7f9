/* field.h - one line of a table describes one member of a struct: its name, type, bounds, default
 * and meaning. Reading, checking, writing and documenting a value all follow that line.
 */
#ifndef COMMON_FIELD_H
#define COMMON_FIELD_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* FIELD_PATH: a text that names a file or a folder. */
enum field_type { FIELD_I32, FIELD_I64, FIELD_BOOL, FIELD_TEXT, FIELD_PATH, FIELD_ENUM };
enum { FIELD_NAME_MAX = 64, FIELD_VALUE_MAX = 256 };

struct field {
    const char *section, *key; /* together "section.key" */
    enum field_type type;
    size_t at, n_bytes; /* the member in its struct */
    int64_t min, max;   /* of an integer; of a text, its bytes; of an enum, its values */
    const char *fallback;
    const char *const *names; /* of an enum, names[value]; otherwise NULL */
    const char *help;         /* one sentence */
};

/* A line of the table for T.section.key, whose names are the member's. */
#define FIELD(T, section, key, type, min, max, fallback, help)                                     \
    {                                                                                              \
#section, #key, (type), offsetof(T, section.key), sizeof(((T *)0)->section.key), (min),    \
            (max), (fallback), NULL, (help)                                                        \
    }
#define FIELD_NAMED(T, section, key, names, fallback, help)                                        \
    {                                                                                              \
#section, #key, FIELD_ENUM, offsetof(T, section.key), sizeof(((T *)0)->section.key), 0,    \
            sizeof(names) / sizeof *(names)-1, (fallback), (names), (help)                         \
    }

/* Writes the value that text spells into the struct at base. ERR_CONFIG, the struct untouched:
 * `section.key = text: from MIN to MAX`. Text values may hold neither ';', which starts a comment
 * in an ini file, nor control characters, nor white space at their ends: all of them can be written
 * to an ini file and read back. Unused bytes of a text are zero. */
MUST_USE err_t field_set(const struct field *f, void *base, const char *text);

/* Spells the value so that field_set reads it back; cap >= FIELD_VALUE_MAX. */
void field_get(const struct field *f, const void *base, char *text, size_t cap);

/* What a value must be: "from 3 to 24", "true or false", "up to 159 bytes". */
void field_bounds(const struct field *f, char *text, size_t cap);

/* The line of section.key, or NULL. */
const struct field *field_find(const struct field *fields, int32_t n, const char *section,
                               const char *key);

/* The known word nearest to word (Levenshtein), or NULL where none is near enough to be meant: at
 * most a third of the word's letters, and two at least, may differ. Words up to FIELD_NAME_MAX. */
const char *field_nearest(const char *word, const char *const *known, int32_t n);

#endif
