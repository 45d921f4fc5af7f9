/* test_quality.c - PSNR and SSIM against numpy 1.24.2 in float64, the formulas of quality.h written
 * out there with the window of two dimensions. */
#include "procs/supervisor/quality.h"

#include <math.h>

#include "tests/scratch.h"

enum { W = 16, H = 12, BYTES = W * H * 3 / 2 };

/* A slope, and what a small error makes of it. */
static void pictures(int seed, uint8_t a[BYTES], uint8_t b[BYTES])
{
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            a[y * W + x] = (uint8_t)((x * 9 + y * 11 + seed * 3) % 200 + 20);
    for (int y = 0; y < H / 2; y++)
        for (int x = 0; x < W / 2; x++) {
            a[W * H + y * W / 2 + x] = (uint8_t)(y * 10 + 60 + seed);
            a[W * H * 5 / 4 + y * W / 2 + x] = (uint8_t)(x * 8 + 90);
        }
    for (int i = 0; i < BYTES; i++) b[i] = (uint8_t)(a[i] + (i * 13 + seed * 5) % 7 - 3);
}

static void check_near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want))) fail_msg("%.17g, not %.17g", got, want);
}

static void test_against_numpy(void **state)
{
    (void)state;
    static const double want[3][3] = {
        {42.09139489675391, 42.054019925817705, 0.99614828789356},
        {42.110203695399484, 42.14996932800887, 0.9962506111716168},
        {42.125309605651864, 42.14996932800887, 0.9964319483595455},
    };
    uint8_t a[BYTES], b[BYTES];
    struct quality *q = NULL;
    check_ok(quality_open(&q, W, H));
    for (int seed = 0; seed < 3; seed++) {
        pictures(seed, a, b);
        const struct quality_frame f = quality_of(q, a, b);
        check_near(quality_psnr(f.mse), want[seed][0]);
        check_near(quality_psnr(f.mse_y), want[seed][1]);
        check_near(f.ssim_y, want[seed][2]);
        assert_int_equal(f.max_error, 3);
    }
    quality_close(&q);
}

static void test_equal_pictures(void **state)
{
    (void)state;
    uint8_t a[BYTES], b[BYTES];
    struct quality *q = NULL;
    pictures(0, a, b);
    check_ok(quality_open(&q, W, H));
    struct quality_frame f = quality_of(q, a, a);
    assert_true(f.mse == 0 && f.mse_y == 0 && f.ssim_y == 1 && f.max_error == 0);
    assert_true(isinf(quality_psnr(f.mse)));
    /* One sample of the last plane: no error of Y. */
    memcpy(b, a, BYTES);
    b[BYTES - 1] = (uint8_t)(a[BYTES - 1] - 24);
    f = quality_of(q, a, b);
    check_near(f.mse, 24.0 * 24.0 / BYTES);
    assert_true(f.mse_y == 0 && f.ssim_y == 1 && f.max_error == 24);
    quality_close(&q);
}

static void test_pictures_without_room(void **state)
{
    (void)state;
    struct quality *q = NULL;
    check_fails(quality_open(&q, 10, 12), ERR_DATA, "11 x 11");
    check_fails(quality_open(&q, 16, 10), ERR_DATA, "11 x 11");
    assert_null(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_numpy),
        cmocka_unit_test(test_equal_pictures),
        cmocka_unit_test(test_pictures_without_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
