/* hashes.h - the log of frame hashes: a line "index sha256\n" for each raw RGB24 frame, from 0.
 *
 * It is the evidence that a run broken and resumed shows the same frames as one unbroken. The
 * gateway writes hashes first, then frames, then commits; so after a death the log may be ahead of
 * the output, never behind, and hashes_trim makes it even.
 */
#ifndef GATEWAY_HASHES_H
#define GATEWAY_HASHES_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hashes;

/* Opens the log; resume: keeps the whole lines there are, else empties it.
 *
 *   n_lines   out; whole lines, the index of the next
 *
 * ERR_DATA: a line that is not what it must be, with its number from 1; changes nothing. ERR_WRITE,
 * ERR_NOINPUT, ERR_NOMEM. Reads the whole log: 75 bytes a frame, about 100 MB for a day at 16 fps.
 */
MUST_USE err_t hashes_open(struct hashes **out, const char *path, bool resume, int64_t *n_lines);
void hashes_close(struct hashes **h);

/* Cuts the log to n_lines. ERR_DATA: it has fewer. ERR_WRITE. */
MUST_USE err_t hashes_trim(struct hashes *h, int64_t n_lines);

/* Appends the lines of n_frames > 0 frames of frame_bytes each, in one write. first_index is the
 * number of lines there are. Allocates only for more frames than any call before. ERR_WRITE: the
 * log is as it was; ERR_NOMEM. */
MUST_USE err_t hashes_put(struct hashes *h, int64_t first_index, const uint8_t *const *rgb,
                          int32_t n_frames, size_t frame_bytes);

#endif
