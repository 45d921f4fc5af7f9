/* file.h - reading, writing and cutting a file at known offsets, with the error in a sentence.
 *
 * Whatever the gateway keeps is a file of whole units and perhaps a torn one at its end. Offsets
 * are always given, never kept by the kernel, so that doing a thing again overwrites itself.
 * Nothing is synced: a killed process loses nothing that write() took, only a lost machine does.
 */
#ifndef GATEWAY_FILE_H
#define GATEWAY_FILE_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Opens path for reading and writing, making it if need be; not resume: empties it.
 *
 *   fd        out; the caller closes it; closed over exec
 *   n_bytes   out; the size of the file, 0 if it is a character device
 *
 * ERR_WRITE: it cannot be opened for writing, or is a directory, pipe or socket.
 */
MUST_USE err_t file_open(int *fd, const char *path, bool resume, int64_t *n_bytes);

/* Reads exactly n_bytes at an offset. ERR_NOINPUT: the read failed or the file ends before. */
MUST_USE err_t file_read_at(int fd, const char *path, int64_t at_bytes, void *to, size_t n_bytes);

/* Writes all of n_bytes at an offset, going on after short writes. ERR_WRITE: what the kernel said;
 * the file is cut back to at_bytes, so that it has no torn end and a full disk gets its bytes back.
 */
MUST_USE err_t file_write_at(int fd, const char *path, int64_t at_bytes, const void *from,
                             size_t n_bytes);

/* The same, but the first n_head bytes last: until they are there, zeros are (at_bytes must be the
 * end of the file). Who reads the file meanwhile, or after a death in between, sees either all of
 * it or a beginning that is none. */
MUST_USE err_t file_commit_at(int fd, const char *path, int64_t at_bytes, const void *from,
                              size_t n_bytes, size_t n_head);

/* Cuts the file to n_bytes; does nothing to a device. ERR_WRITE. */
MUST_USE err_t file_cut(int fd, const char *path, int64_t n_bytes);

#endif
