/* yuv.c - see yuv.h. */
#include "procs/gateway/yuv.h"
#include "common/err.h"

/* Weights in units of 2^-16. Each is the exact value rounded, but for the one of a row that is
 * moved so that the row's sum is exact: white is 235, and every grey has chroma 128. */
enum {
    SHIFT = 16,
    Y_R = 16829, /* 0.299 * 219 / 255 */
    Y_G = 33039, /* 0.587 * 219 / 255 */
    Y_B = 6416,  /* 0.114 * 219 / 255 */
    U_R = -9714, /* -0.299 / 1.772 * 224 / 255 */
    U_G = -19070,
    U_B = 28784, /* 0.5 * 224 / 255 */
    V_R = 28784,
    V_G = -24103, /* -0.587 / 1.402 * 224 / 255 */
    V_B = -4681,
};

size_t yuv_bytes(int32_t width_px, int32_t height_px)
{
    MUST(width_px > 0 && height_px > 0 && width_px % 2 == 0 && height_px % 2 == 0);
    return (size_t)width_px * (size_t)height_px / 2 * 3;
}

static void luma_row(uint8_t *y, const uint8_t *rgb, int32_t width_px)
{
    const int32_t bias = (16 << SHIFT) + (1 << (SHIFT - 1));
    for (int32_t x = 0; x < width_px; x++, rgb += 3)
        y[x] = (uint8_t)((Y_R * rgb[0] + Y_G * rgb[1] + Y_B * rgb[2] + bias) >> SHIFT);
}

/* The mean of four pixels is never rounded by itself: their sum is weighted and shifted by two
 * bits more. */
static void chroma_row(uint8_t *u, uint8_t *v, const uint8_t *top, const uint8_t *below,
                       int32_t width_px)
{
    const int32_t bias = (128 << (SHIFT + 2)) + (1 << (SHIFT + 1));
    for (int32_t x = 0; x < width_px / 2; x++, top += 6, below += 6) {
        const int32_t r = top[0] + top[3] + below[0] + below[3];
        const int32_t g = top[1] + top[4] + below[1] + below[4];
        const int32_t b = top[2] + top[5] + below[2] + below[5];
        u[x] = (uint8_t)((U_R * r + U_G * g + U_B * b + bias) >> (SHIFT + 2));
        v[x] = (uint8_t)((V_R * r + V_G * g + V_B * b + bias) >> (SHIFT + 2));
    }
}

void yuv_from_rgb(uint8_t *i420, const uint8_t *rgb, int32_t width_px, int32_t height_px)
{
    MUST(width_px > 0 && height_px > 0 && width_px % 2 == 0 && height_px % 2 == 0);
    const size_t row_px = (size_t)width_px;
    const size_t n_px = row_px * (size_t)height_px;
    uint8_t *u = i420 + n_px;
    uint8_t *v = u + n_px / 4;
    for (size_t y = 0; y < (size_t)height_px; y += 2) {
        const uint8_t *top = rgb + y * row_px * 3;
        const uint8_t *below = top + row_px * 3;
        luma_row(i420 + y * row_px, top, width_px);
        luma_row(i420 + (y + 1) * row_px, below, width_px);
        chroma_row(u + y / 2 * (row_px / 2), v + y / 2 * (row_px / 2), top, below, width_px);
    }
}
