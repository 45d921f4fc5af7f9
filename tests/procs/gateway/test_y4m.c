/* test_y4m.c - what y4m.c writes, read by itself and by ffmpeg. */
#include "procs/gateway/y4m.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { X = 64, Y = 48, N_FRAMES = 3 };

static char path[] = "/tmp/longlived-y4m.XXXXXX";

/* Smooth in both axes: what chroma at half size may lose is small. */
static void draw(uint8_t *rgb, int i)
{
    for (int y = 0; y < Y; y++)
        for (int x = 0; x < X; x++, rgb += 3) {
            rgb[0] = (uint8_t)(40 + 3 * x);
            rgb[1] = (uint8_t)(230 - 4 * y);
            rgb[2] = (uint8_t)(20 + x + y + 30 * i);
        }
}

static size_t make(uint8_t *bytes, size_t *header_bytes)
{
    char header[Y4M_HEADER_BYTES_MAX];
    static uint8_t rgb[X * Y * 3];
    *header_bytes = y4m_header(header, X, Y, 16);
    memcpy(bytes, header, *header_bytes);
    size_t n = *header_bytes;
    for (int i = 0; i < N_FRAMES; i++, n += y4m_frame_bytes(X, Y)) {
        draw(rgb, i);
        y4m_frame(bytes + n, rgb, X, Y);
    }
    return n;
}

static uint8_t bytes[N_FRAMES * X * Y * 2 + 1024];

static int open_with(size_t n)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    return fd;
}

static void test_header_and_sizes(void **state)
{
    (void)state;
    char header[Y4M_HEADER_BYTES_MAX];
    const size_t n = y4m_header(header, 832, 480, 16);
    assert_int_equal(n, strlen(header));
    assert_string_equal(header, "YUV4MPEG2 W832 H480 F16:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n");
    assert_int_equal(y4m_frame_bytes(832, 480), 6 + 832 * 480 * 3 / 2);
    assert_true(y4m_header(header, 16384, 16384, 1000) < sizeof header);
}

static void test_scan_counts_whole_frames(void **state)
{
    (void)state;
    size_t header_bytes = 0;
    const size_t n = make(bytes, &header_bytes);
    const size_t frame_bytes = y4m_frame_bytes(X, Y);
    const int fd = open_with(n);
    for (size_t cut = header_bytes; cut <= n; cut++) {
        int64_t n_frames = -1;
        assert_int_equal(y4m_scan(fd, path, header_bytes, frame_bytes, (int64_t)cut, &n_frames),
                         OK);
        assert_int_equal(n_frames, (cut - header_bytes) / frame_bytes);
    }
    close(fd);
}

static void test_scan_refuses_what_are_no_frames(void **state)
{
    (void)state;
    size_t header_bytes = 0;
    int64_t n_frames = -1;
    const size_t n = make(bytes, &header_bytes);
    const size_t frame_bytes = y4m_frame_bytes(X, Y);
    for (int i = 0; i < N_FRAMES; i += N_FRAMES - 1) {
        make(bytes, &header_bytes);
        bytes[header_bytes + (size_t)i * frame_bytes + 2] ^= 1;
        const int fd = open_with(n);
        assert_int_equal(y4m_scan(fd, path, header_bytes, frame_bytes, (int64_t)n, &n_frames),
                         ERR_DATA);
        assert_non_null(strstr(err_text(), path));
        close(fd);
    }
    assert_int_equal(n_frames, -1);
}

/* Range, matrix and siting together: were one of them other than what ffmpeg takes the header to
 * say, whole areas would be off by ten levels and more. */
static void test_ffmpeg_reads_the_colours_back(void **state)
{
    (void)state;
    if (system("command -v ffmpeg >/dev/null") != 0) {
        print_message("skipped: ffmpeg is not installed\n");
        skip();
    }
    size_t header_bytes = 0;
    const size_t n = make(bytes, &header_bytes);
    close(open_with(n));
    char command[256];
    snprintf(command, sizeof command,
             "ffmpeg -nostdin -v error -f yuv4mpegpipe -i %s -sws_flags "
             "accurate_rnd+full_chroma_int+bicubic "
             "-f rawvideo -pix_fmt rgb24 - 2>&1",
             path);
    static uint8_t got[N_FRAMES * X * Y * 3 + 1], want[X * Y * 3];
    FILE *p = popen(command, "r");
    assert_non_null(p);
    const size_t n_got = fread(got, 1, sizeof got, p);
    assert_int_equal(pclose(p), 0);
    assert_int_equal(n_got, N_FRAMES * X * Y * 3);
    int worst = 0;
    for (int i = 0; i < N_FRAMES; i++) {
        draw(want, i);
        for (int k = 0; k < X * Y * 3; k++) {
            const int off = abs(got[i * X * Y * 3 + k] - want[k]);
            if (off > worst) worst = off;
        }
    }
    print_message("worst difference after ffmpeg: %d levels\n", worst);
    assert_true(worst <= 5);
}

static int make_file(void **state)
{
    (void)state;
    const int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int drop_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_and_sizes),
        cmocka_unit_test(test_scan_counts_whole_frames),
        cmocka_unit_test(test_scan_refuses_what_are_no_frames),
        cmocka_unit_test(test_ffmpeg_reads_the_colours_back),
    };
    return cmocka_run_group_tests(tests, make_file, drop_file);
}
