/* mp4.h - fragmented MP4: blocks into bytes, and how many whole frames a file has.
 *
 * The file is ftyp, moov, and then one moof and mdat for each block. Encoding is done by a plugin
 * loaded at run time (plugin/mp4.h); reading is done here, by hand, because a torn file is the
 * normal case and no byte of it is to be believed.
 */
#ifndef GATEWAY_MP4_H
#define GATEWAY_MP4_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

/* The size and type of a fragment's first box. They are to be written after all the rest of it: a
 * fragment half written is then a box of size and type 0, which players skip to the end of the
 * file, where a torn moof would make some (FFmpeg) refuse the whole file. */
#define MP4_COMMIT_BYTES 8

struct mp4;

/* Opens an encoder. ERR_NONE: the plugin cannot be loaded, is of another version or knows no
 * encoder; names the packages. ERR_NOMEM, ERR_CONFIG: libav refuses the size. */
MUST_USE err_t mp4_open(struct mp4 **out, const char *plugin_dir, int32_t width_px,
                        int32_t height_px, int32_t fps);
void mp4_close(struct mp4 **m);

/* The bytes a file begins with, ftyp and moov; m's. The same for the same size, rate and encoder,
 * so a file that begins otherwise cannot be continued. */
const uint8_t *mp4_header(const struct mp4 *m, size_t *n_bytes);

/* Whole fragments, and where the last of them ends. */
struct mp4_scan {
    int64_t n_frames, n_fragments, n_bytes;
};

/* Counts the whole pairs of moof and mdat from header_bytes on. A last pair that passes the end of
 * the file is torn, not wrong, and so is one whose first bytes are not written yet. ERR_DATA: boxes
 * that mp4_block does not write, or numbers that do not continue; names the path and the byte.
 * ERR_NOINPUT, ERR_NOMEM. */
MUST_USE err_t mp4_scan(int fd, const char *path, int64_t header_bytes, int64_t n_bytes,
                        struct mp4_scan *scan);

/* The next block continues what was scanned. Only before the first mp4_block. */
void mp4_resume(struct mp4 *m, const struct mp4_scan *scan);

/* Encodes n_frames, each [Y, X, 3], into one closed GOP: *bytes is one moof and mdat, m's, valid
 * until the next call. ERR_NOMEM, ERR_BUG: close m. */
MUST_USE err_t mp4_block(struct mp4 *m, const uint8_t *const *rgb, int32_t n_frames,
                         const uint8_t **bytes, size_t *n_bytes);

#endif
