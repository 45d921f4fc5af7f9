/* file.h - a small file, whole, in memory; and a small file written whole or not at all. */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include <stddef.h>

#include "common/err.h"

/* Reads a regular file of at most n_bytes_max bytes; *data is NUL-terminated, the caller frees it.
 * ERR_NOINPUT (`PATH: why`): missing, unreadable, not a regular file. ERR_LIMIT: larger. */
MUST_USE err_t file_read(const char *path, size_t n_bytes_max, char **data, size_t *n_bytes);

/* ERR_WRITE (`PATH: why`) unless path is a regular file, a link to one, or nothing yet: a rename
 * over a device, /dev/null say, would put a file in its place. */
MUST_USE err_t file_check_replaceable(const char *path);

/* Writes a file beside path, flushes it to disk and renames it over path: whoever opens path sees
 * the old bytes or all of the new ones. ERR_WRITE (`PATH: why`), path untouched. */
MUST_USE err_t file_write(const char *path, const char *data, size_t n_bytes);

#endif
