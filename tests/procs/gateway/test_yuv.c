/* test_yuv.c - the integer conversion against one in float64 made from BT.601's own numbers. */
#include "procs/gateway/yuv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Kr = 0.299, Kb = 0.114; what is not rounded yet. */
static void exact(double yuv[3], double r, double g, double b)
{
    const double y = 0.299 * r + 0.587 * g + 0.114 * b;
    yuv[0] = 16.0 + 219.0 * y / 255.0;
    yuv[1] = 128.0 + 224.0 * (b - y) / (2.0 * (1.0 - 0.114)) / 255.0;
    yuv[2] = 128.0 + 224.0 * (r - y) / (2.0 * (1.0 - 0.299)) / 255.0;
}

static void check_near(uint8_t got, double want)
{
    /* Half a level of rounding, and what the weights' own rounding may add. */
    if (!(fabs((double)got - want) <= 0.51)) fail_msg("%d is not %.4f", got, want);
}

static void check_frame(const uint8_t *rgb, const uint8_t *i420, int32_t width, int32_t height)
{
    const uint8_t *u = i420 + width * height;
    const uint8_t *v = u + width * height / 4;
    double yuv[3], sum[3];
    for (int32_t y = 0; y < height; y += 2) {
        for (int32_t x = 0; x < width; x += 2) {
            memset(sum, 0, sizeof sum);
            for (int i = 0; i < 4; i++) {
                const int32_t at = (y + i / 2) * width + x + i % 2;
                exact(yuv, rgb[3 * at], rgb[3 * at + 1], rgb[3 * at + 2]);
                check_near(i420[at], yuv[0]);
                for (int k = 0; k < 3; k++) sum[k] += yuv[k] / 4.0;
            }
            check_near(u[y / 2 * (width / 2) + x / 2], sum[1]);
            check_near(v[y / 2 * (width / 2) + x / 2], sum[2]);
        }
    }
}

static void test_agrees_with_float64(void **state)
{
    (void)state;
    static const int32_t shape[][2] = {{2, 2}, {2, 48}, {32, 2}, {32, 48}, {130, 66}, {832, 480}};
    srand(1);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        const int32_t width = shape[i][0], height = shape[i][1];
        const size_t n_px = (size_t)width * (size_t)height;
        uint8_t *rgb = malloc(3 * n_px);
        uint8_t *i420 = malloc(yuv_bytes(width, height) + 8);
        memset(i420, 0xa5, yuv_bytes(width, height) + 8);
        for (size_t k = 0; k < 3 * n_px; k++) rgb[k] = (uint8_t)(rand() >> 7);
        yuv_from_rgb(i420, rgb, width, height);
        check_frame(rgb, i420, width, height);
        for (size_t k = 0; k < 8; k++) /* the guard behind the frame */
            assert_int_equal(i420[yuv_bytes(width, height) + k], 0xa5);
        free(i420);
        free(rgb);
    }
}

/* The corners of the cube are where a wrong range or an overflow shows. */
static void test_corners_of_the_cube(void **state)
{
    (void)state;
    for (int corner = 0; corner < 8; corner++) {
        uint8_t rgb[12], i420[6];
        for (int i = 0; i < 12; i++) rgb[i] = corner >> i % 3 & 1 ? 255 : 0;
        yuv_from_rgb(i420, rgb, 2, 2);
        check_frame(rgb, i420, 2, 2);
    }
}

static void test_grey_has_no_colour(void **state)
{
    (void)state;
    for (int level = 0; level < 256; level++) {
        uint8_t rgb[12], i420[6];
        memset(rgb, level, sizeof rgb);
        yuv_from_rgb(i420, rgb, 2, 2);
        assert_int_equal(i420[0], lround(16.0 + 219.0 * level / 255.0));
        assert_int_equal(i420[4], 128);
        assert_int_equal(i420[5], 128);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_float64),
        cmocka_unit_test(test_corners_of_the_cube),
        cmocka_unit_test(test_grey_has_no_colour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
