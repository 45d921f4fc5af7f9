/* y4m.c - see y4m.h. */
#include "procs/gateway/y4m.h"
#include "procs/gateway/file.h"
#include "procs/gateway/yuv.h"

#include <stdio.h>
#include <string.h>

static const char mark[] = "FRAME\n";
enum { MARK_BYTES = sizeof mark - 1 };

size_t y4m_header(char header[Y4M_HEADER_BYTES_MAX], int32_t width_px, int32_t height_px,
                  int32_t fps)
{
    const int n = snprintf(header, Y4M_HEADER_BYTES_MAX,
                           "YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n",
                           width_px, height_px, fps);
    MUST(n > 0 && n < Y4M_HEADER_BYTES_MAX);
    return (size_t)n;
}

size_t y4m_frame_bytes(int32_t width_px, int32_t height_px)
{
    return MARK_BYTES + yuv_bytes(width_px, height_px);
}

void y4m_frame(uint8_t *frame, const uint8_t *rgb, int32_t width_px, int32_t height_px)
{
    memcpy(frame, mark, MARK_BYTES);
    yuv_from_rgb(frame + MARK_BYTES, rgb, width_px, height_px);
}

err_t y4m_scan(int fd, const char *path, size_t header_bytes, size_t frame_bytes, int64_t n_bytes,
               int64_t *n_frames)
{
    err_t e = OK;
    char got[MARK_BYTES];
    MUST(n_bytes >= (int64_t)header_bytes);
    const int64_t n = (n_bytes - (int64_t)header_bytes) / (int64_t)frame_bytes;
    const int64_t look[2] = {0, n - 1};
    for (int i = 0; i < 2 && n > 0; i++) {
        const int64_t at = (int64_t)header_bytes + look[i] * (int64_t)frame_bytes;
        TRY(file_read_at(fd, path, at, got, MARK_BYTES));
        if (memcmp(got, mark, MARK_BYTES) != 0)
            return FAIL(ERR_DATA, "%s: no frame begins at byte %lld", path, (long long)at);
    }
    *n_frames = n;
out:
    return e;
}
