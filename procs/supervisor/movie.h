/* movie.h - frames of a y4m file, one after the other: such files as longlived writes, C420jpeg. */
#ifndef SUPERVISOR_MOVIE_H
#define SUPERVISOR_MOVIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct movie {
    int32_t width_px, height_px; /* even, 2 to 16384 */
    size_t n_bytes;              /* of a frame: Y, then U and V of half the width and height */
    uint8_t *yuv;                /* the frame that movie_next read */
};

/* ERR_NOINPUT: no such file. ERR_DATA: not y4m, not 4:2:0, or no size. */
MUST_USE err_t movie_open(struct movie **out, const char *path);
void movie_close(struct movie **m);

/* Reads the next frame; *has_frame false: there is none. ERR_DATA: half of one. */
MUST_USE err_t movie_next(struct movie *m, bool *has_frame);

#endif
