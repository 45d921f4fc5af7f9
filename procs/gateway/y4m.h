/* y4m.h - YUV4MPEG2: one line of header, then frames of one size.
 *
 * That all frames have one size is what makes it easy to resume: an offset is a multiplication.
 * Source: yuv4mpeg(5) of mjpegtools; XCOLORRANGE is FFmpeg's, libavformat/yuv4mpegdec.c.
 */
#ifndef GATEWAY_Y4M_H
#define GATEWAY_Y4M_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define Y4M_HEADER_BYTES_MAX 128

/* Writes the header line, newline included and no NUL counted; returns its bytes. */
size_t y4m_header(char header[Y4M_HEADER_BYTES_MAX], int32_t width_px, int32_t height_px,
                  int32_t fps);

/* The bytes of one frame, its line "FRAME" included. */
size_t y4m_frame_bytes(int32_t width_px, int32_t height_px);

/* Makes one frame: y4m_frame_bytes() bytes at `frame` out of rgb [Y, X, 3]. */
void y4m_frame(uint8_t *frame, const uint8_t *rgb, int32_t width_px, int32_t height_px);

/* The whole frames in a file of n_bytes whose header is known to be right. Looks at the first and
 * the last of them only: in a file of days, reading every mark would be reading every page.
 * ERR_DATA: no frame begins where one must. ERR_NOINPUT. */
MUST_USE err_t y4m_scan(int fd, const char *path, size_t header_bytes, size_t frame_bytes,
                        int64_t n_bytes, int64_t *n_frames);

#endif
