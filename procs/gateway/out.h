/* out.h - the output: frames into a file or standard output, continued after any death.
 *
 * The file is the truth. A process may be killed at any instant; the next one opens the same
 * output, cuts off what is torn, is told how many whole frames are there, and puts the next one. A
 * put returns when the kernel has the bytes; nothing is synced to a disk (see file.h).
 *
 * Frames are RGB24, [height_px][width_px][3]. After out_open nothing is allocated here; libav
 * allocates as it encodes.
 */
#ifndef GATEWAY_OUT_H
#define GATEWAY_OUT_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

struct out;

struct out_conf {
    const char *path;            /* NAME.mp4, NAME.y4m, or "-": y4m to standard output */
    int32_t width_px, height_px; /* even, 2..16384 */
    int32_t fps;                 /* 1..1000 */
    const char *plugin_dir;      /* where longlived-mp4.so lies; read for .mp4 only */
    bool resume;                 /* continue what is there; else begin anew, emptying the file */
    int64_t stream_bytes;        /* "-" and resume only: bytes a predecessor has written */

    /* "-" only; may be NULL. Called with the bytes written so far after each chunk, at most
     * PIPE_BUF bytes, so that the caller can record them; and, with the number it has had already,
     * each 100 ms in which the reader takes nothing, so that the caller can show that it lives. */
    void (*wrote)(void *self, int64_t stream_bytes);
    void *self;
};

/* Opens the output; a new one is given its header at once, so even an empty file plays.
 *
 *   conf       read during the call, but for wrote and self
 *   n_frames   out; whole frames in the output: the index of the next one to put
 *
 * ERR_USAGE: the suffix is none of ours. ERR_WRITE: the file cannot be made or written. ERR_NONE:
 * .mp4, and libav is missing; names the packages. ERR_DATA: resume, and the file is not this
 * output's (another format, size, rate or encoder), names the path and changes nothing;
 * ERR_NOINPUT: it cannot be read; ERR_CONFIG: libav refuses the size; ERR_NOMEM.
 */
MUST_USE err_t out_open(struct out **out, const struct out_conf *conf, int64_t *n_frames);

/* Closes; NULL-safe. Nothing is held back, so nothing is lost by not calling it. */
void out_close(struct out **o);

/* True for MP4: a put is one whole block, which becomes one closed GOP in one fragment. y4m takes
 * any number of frames. */
bool out_wants_block(const struct out *o);

/* Appends n_frames > 0 frames; rgb[i] is read during the call. Blocks for as long as a reader of
 * standard output does.
 *
 * ERR_WRITE: the kernel's reason (disk full, reader gone). A file is left with whole frames
 * only. The same n_frames frames may be put again, to either. ERR_NOMEM and ERR_BUG are of libav:
 * close.
 *
 * After a resume within a frame on standard output, the first frame put must be that frame: only
 * the bytes that are missing are sent.
 */
MUST_USE err_t out_put(struct out *o, const uint8_t *const *rgb, int32_t n_frames);

#endif
