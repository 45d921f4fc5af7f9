/* test_movie.c - y4m files, whole and spoilt. */
#include "procs/supervisor/movie.h"

#include "tests/scratch.h"

static struct movie *m;
static bool has_frame;

static const char *put(const char *text)
{
    return scratch_put("x.y4m", text);
}

static void test_frames_in_their_order(void **state)
{
    (void)state;
    check_ok(movie_open(&m, put("YUV4MPEG2 W4 H2 F16:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n"
                                "FRAME\nabcdefghijklFRAME Ip\nmnopqrstuvwx")));
    assert_true(m->width_px == 4 && m->height_px == 2 && m->n_bytes == 12);
    check_ok(movie_next(m, &has_frame));
    assert_true(has_frame && memcmp(m->yuv, "abcdefghijkl", 12) == 0);
    check_ok(movie_next(m, &has_frame));
    assert_true(has_frame && memcmp(m->yuv, "mnopqrstuvwx", 12) == 0);
    check_ok(movie_next(m, &has_frame));
    assert_false(has_frame);
    movie_close(&m);
}

static void test_headers_that_are_none(void **state)
{
    (void)state;
    check_fails(movie_open(&m, scratch_path("nowhere")), ERR_NOINPUT, "nowhere");
    check_fails(movie_open(&m, put("")), ERR_DATA, "not a y4m");
    check_fails(movie_open(&m, put("YUV4MPEG2 W4 H2")), ERR_DATA, "not a y4m");
    check_fails(movie_open(&m, put("YUV4MPEG W4 H2\n")), ERR_DATA, "not a y4m");
    check_fails(movie_open(&m, put("YUV4MPEG2 W4 F1:1\n")), ERR_DATA, "no even width");
    check_fails(movie_open(&m, put("YUV4MPEG2 W4 H3\n")), ERR_DATA, "no even width");
    check_fails(movie_open(&m, put("YUV4MPEG2 W4 H99999999999999\n")), ERR_DATA, "no even width");
    check_fails(movie_open(&m, put("YUV4MPEG2 W4 H2x\n")), ERR_DATA, "no even width");
    check_fails(movie_open(&m, put("YUV4MPEG2 W4 H2 C444\n")), ERR_DATA, "C444 is not 4:2:0");
    assert_null(m);
}

static void test_frames_that_are_torn(void **state)
{
    (void)state;
    static const char *const ends[] = {"FRAME\nabcdefghijk", "FRAM", "FRAME",
                                       "xFRAME\nabcdefghijkl"};
    char text[200];
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "YUV4MPEG2 W4 H2\nFRAME\nabcdefghijkl%s", ends[i]);
        check_ok(movie_open(&m, put(text)));
        check_ok(movie_next(m, &has_frame));
        check_fails(movie_next(m, &has_frame), ERR_DATA, "frame 1 is not whole");
        movie_close(&m);
    }
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, scratch_open, scratch_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(test_frames_in_their_order),
        WITH(test_headers_that_are_none),
        WITH(test_frames_that_are_torn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
