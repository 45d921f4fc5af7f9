/* test_mp4.c - fragmented MP4: cut anywhere, continued, judged by ffprobe and ffmpeg.
 *
 * Needs the plugin, and most of it ffmpeg, and says so when it skips. What needs neither is in
 * test_mp4_scan.c.
 */
#include "procs/gateway/mp4.h"
#include "procs/gateway/out.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { X = 32, Y = 48, N_BLOCKS = 3, N_FRAMES = 33, BYTES_MAX = 1 << 18 };

static const int32_t block_frames[N_BLOCKS] = {9, 12, 12};
static char dir[64];
static char path[96];
static char plugin_dir[PATH_MAX];
static bool has_plugin;
static uint8_t whole[BYTES_MAX];       /* the video of three blocks */
static size_t block_end[N_BLOCKS + 1]; /* [0]: the end of ftyp and moov */

static void need_plugin(void)
{
    if (has_plugin) return;
    print_message("skipped: %s\n", err_text());
    skip();
}

static size_t slurp(uint8_t *to)
{
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(to, 1, BYTES_MAX, f) : 0;
    if (f) fclose(f);
    return n;
}

static void spill(const uint8_t *from, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(from, 1, n, f), n);
    fclose(f);
}

static err_t open_out(struct out **o, bool resume, int64_t *n)
{
    const struct out_conf conf = {.path = path,
                                  .width_px = X,
                                  .height_px = Y,
                                  .fps = 16,
                                  .plugin_dir = plugin_dir,
                                  .resume = resume};
    return out_open(o, &conf, n);
}

/* A gradient that moves, and a square whose brightness tells the frame. */
static void draw(uint8_t *rgb, int64_t i)
{
    for (int y = 0; y < Y; y++)
        for (int x = 0; x < X; x++, rgb += 3) {
            const bool in_square = x < 16 && y < 16;
            rgb[0] = (uint8_t)(in_square ? 20 + i * 13 % 200 : 40 + 2 * x + y);
            rgb[1] = (uint8_t)(in_square ? 20 + i * 13 % 200 : 200 - 3 * y);
            rgb[2] = (uint8_t)(in_square ? 20 + i * 13 % 200 : 30 + 2 * x + (int)i % 20);
        }
}

static err_t put(struct out *o, int64_t first, int32_t n)
{
    static uint8_t rgb[12][X * Y * 3];
    const uint8_t *frames[12];
    for (int32_t i = 0; i < n; i++) {
        draw(rgb[i], first + i);
        frames[i] = rgb[i];
    }
    return out_put(o, frames, n);
}

/* Puts blocks from frame n on, as the first video had them, until `last`. */
static err_t put_rest(struct out *o, int64_t n, int64_t last)
{
    err_t e = OK;
    while (n < last && e == OK) {
        const int32_t k = n == 0 ? 9 : 12;
        e = put(o, n, k);
        n += k;
    }
    return e;
}

static int make_dir(void **state)
{
    (void)state;
    struct out *o = NULL;
    struct stat st;
    int64_t n = -1;
    signal(SIGXFSZ, SIG_IGN);
    strcpy(dir, "/tmp/longlived-mp4.XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/v.mp4", dir);

    const char *given = getenv("LONGLIVED_PLUGIN_DIR");
#ifdef __SANITIZE_ADDRESS__
    const char *built = "build/san-lib";
#else
    const char *built = "build/lib";
#endif
    snprintf(plugin_dir, sizeof plugin_dir, "%s", given ? given : built);
    const err_t e = open_out(&o, false, &n);
    has_plugin = e != ERR_NONE;
    if (!has_plugin) return 0;
    if (e != OK || n != 0) return -1;
    for (int b = 0; b <= N_BLOCKS; b++) {
        if (stat(path, &st) != 0) return -1;
        block_end[b] = (size_t)st.st_size;
        if (b < N_BLOCKS && put(o, b == 0 ? 0 : 12 * b - 3, block_frames[b]) != OK) return -1;
    }
    out_close(&o);
    return slurp(whole) == block_end[N_BLOCKS] ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

/* ---- the judges: ffprobe and ffmpeg ---- */

static void need_ffmpeg(void)
{
    if (system("command -v ffprobe >/dev/null && command -v ffmpeg >/dev/null") == 0) return;
    print_message("skipped: ffmpeg is not installed\n");
    skip();
}

static size_t run(char *to, size_t room, const char *fmt)
{
    char command[512];
    snprintf(command, sizeof command, fmt, path);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    const size_t n = fread(to, 1, room - 1, p);
    to[n] = '\0';
    pclose(p);
    return n;
}

static void check_clean(int64_t n_frames)
{
    static char text[65536];
    assert_int_equal(run(text, sizeof text, "ffmpeg -nostdin -v error -i %s -f null - 2>&1"), 0);
    run(text, sizeof text,
        "ffprobe -v error -count_frames -of csv=p=0 "
        "-show_entries stream=nb_read_frames %s 2>&1");
    assert_int_equal(atoll(text), n_frames);

    /* Every packet one frame after the one before; a key exactly where a block begins. */
    run(text, sizeof text,
        "ffprobe -v error -of csv=p=0 "
        "-show_entries packet=pts,dts,duration,flags %s 2>&1");
    const char *line = text;
    for (int64_t i = 0; i < n_frames; i++) {
        long long pts = -1, dts = -1, duration = -1;
        char flag = 0;
        assert_int_equal(sscanf(line, "%lld,%lld,%lld,%c", &pts, &dts, &duration, &flag), 4);
        assert_int_equal(pts, i);
        assert_int_equal(dts, i);
        assert_int_equal(duration, 1);
        assert_int_equal(flag == 'K', i == 0 || (i >= 9 && (i - 9) % 12 == 0));
        line = strchr(line, '\n') + 1;
    }
    assert_int_equal(*line, '\0');
}

/* The picture: range and matrix of the tags against those of the conversion, and the order. */
static void check_picture(int64_t n_frames)
{
    const size_t frame_bytes = X * Y * 3, n = frame_bytes * (size_t)n_frames;
    char *got = malloc(n + 2);
    uint8_t want[X * Y * 3];
    assert_int_equal(
        run(got, n + 2, "ffmpeg -nostdin -v error -i %s -f rawvideo -pix_fmt rgb24 - 2>&1"), n);
    for (int64_t i = 0; i < n_frames; i++) {
        const uint8_t *at = (const uint8_t *)got + frame_bytes * (size_t)i;
        int64_t off = 0;
        draw(want, i);
        for (size_t k = 0; k < frame_bytes; k++) off += abs(at[k] - want[k]);
        if (off > 4 * (int64_t)frame_bytes)
            fail_msg("frame %d is off by %.2f levels", (int)i, (double)off / (double)frame_bytes);
    }
    free(got);
}

/* ---- the file ---- */

static void test_plays_from_its_first_byte_on(void **state)
{
    (void)state;
    need_plugin();
    need_ffmpeg();
    static char text[4096];
    spill(whole, block_end[0]);
    assert_int_equal(run(text, sizeof text, "ffprobe -v error %s 2>&1"), 0);
    spill(whole, block_end[1]);
    run(text, sizeof text,
        "ffprobe -v error -of default=nw=1 -show_entries "
        "stream=codec_name,width,height,time_base,pix_fmt,color_range,"
        "color_space,color_transfer,color_primaries %s 2>&1");
    static const char *const want[] = {"codec_name=h264",
                                       "width=32",
                                       "height=48",
                                       "time_base=1/16",
                                       "pix_fmt=yuv420p",
                                       "color_range=tv",
                                       "color_space=smpte170m",
                                       "color_transfer=smpte170m",
                                       "color_primaries=smpte170m"};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!strstr(text, want[i])) fail_msg("%s is not in: %s", want[i], text);
    for (int b = 1; b <= N_BLOCKS; b++) {
        spill(whole, block_end[b]);
        check_clean(b * 12 - 3);
        check_picture(b * 12 - 3);
    }
}

static void test_wants_blocks(void **state)
{
    (void)state;
    need_plugin();
    struct out *o = NULL;
    int64_t n = -1;
    assert_int_equal(open_out(&o, false, &n), OK);
    assert_true(out_wants_block(o));
    out_close(&o);
}

static void test_cut_at_every_byte_of_two_fragments(void **state)
{
    (void)state;
    need_plugin();
    static uint8_t got[BYTES_MAX];
    for (size_t cut = block_end[1]; cut <= block_end[3]; cut++) {
        struct out *o = NULL;
        int64_t n = -1;
        const int b = cut == block_end[3] ? 3 : cut >= block_end[2] ? 2 : 1;
        spill(whole, cut);
        assert_int_equal(open_out(&o, true, &n), OK);
        assert_int_equal(n, b * 12 - 3);
        out_close(&o);
        assert_int_equal(slurp(got), block_end[b]);
        assert_memory_equal(got, whole, block_end[b]);
    }
}

static void test_torn_header_begins_anew(void **state)
{
    (void)state;
    need_plugin();
    static uint8_t got[BYTES_MAX];
    for (size_t cut = 0; cut <= block_end[1]; cut++) {
        struct out *o = NULL;
        int64_t n = -1;
        spill(whole, cut);
        assert_int_equal(open_out(&o, true, &n), OK);
        assert_int_equal(n, cut == block_end[1] ? 9 : 0);
        out_close(&o);
        assert_int_equal(slurp(got), cut == block_end[1] ? block_end[1] : block_end[0]);
        assert_memory_equal(got, whole, block_end[0]);
    }
}

static void test_continued_files_are_clean(void **state)
{
    (void)state;
    need_plugin();
    need_ffmpeg();
    const size_t cut[] = {0,
                          block_end[0] / 2,
                          block_end[0],
                          block_end[0] + 5,
                          block_end[1] - 1,
                          block_end[1],
                          block_end[1] + 7,
                          block_end[1] + 60,
                          (block_end[1] + block_end[2]) / 2,
                          block_end[2] - 1,
                          block_end[2] + 8,
                          (block_end[2] + block_end[3]) / 2,
                          block_end[3] - 1,
                          block_end[3]};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        struct out *o = NULL;
        int64_t n = -1;
        spill(whole, cut[i]);
        assert_int_equal(open_out(&o, true, &n), OK);
        assert_int_equal(put_rest(o, n, 45), OK);
        out_close(&o);
        check_clean(45);
        check_picture(45);
    }
}

/* Nobody has continued it yet. First all that a death within file_commit_at can leave: a body as
 * far as it came, behind a head of zeros. Then, for a copy broken off anywhere, plain cuts; FFmpeg
 * takes one within a moof only if it need not look for an index first. */
static void test_torn_file_plays_up_to_the_tear(void **state)
{
    (void)state;
    need_plugin();
    need_ffmpeg();
    static char text[65536];
    static uint8_t torn[BYTES_MAX];
    const size_t last_bytes = block_end[3] - block_end[2];
    memcpy(torn, whole, block_end[3]);
    memset(torn + block_end[2], 0, MP4_COMMIT_BYTES);
    for (size_t i = 0; i < 12; i++) {
        struct out *o = NULL;
        int64_t n = -1;
        spill(torn, block_end[2] + MP4_COMMIT_BYTES + (last_bytes - MP4_COMMIT_BYTES) * i / 11);
        check_clean(21);
        assert_int_equal(open_out(&o, true, &n), OK);
        assert_int_equal(n, 21);
        out_close(&o);
    }
    for (size_t i = 0; i < 24; i++) {
        spill(whole, block_end[2] + last_bytes * i / 24 + 1);
        run(text, sizeof text,
            "ffprobe -v quiet -fflags +ignidx -count_frames -of csv=p=0 "
            "-show_entries stream=nb_read_frames %s");
        assert_in_range(atoll(text), 21, 33);
    }
}

/* The signal of the limit on file sizes is a death at a byte of one's choice. */
static void test_dies_at_chosen_bytes(void **state)
{
    (void)state;
    need_plugin();
    need_ffmpeg();
    for (size_t at = block_end[2] + MP4_COMMIT_BYTES + 1; at < block_end[3]; at += 61) {
        struct out *o = NULL;
        int64_t n = -1;
        int status = 0;
        spill(whole, block_end[2]);
        const pid_t pid = fork();
        if (pid == 0) {
            const struct rlimit limit = {at, RLIM_INFINITY}, none = {0, 0};
            signal(SIGXFSZ, SIG_DFL);
            setrlimit(RLIMIT_CORE, &none);
            setrlimit(RLIMIT_FSIZE, &limit);
            if (open_out(&o, true, &n) == OK) (void)put(o, n, 12);
            _exit(1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
        check_clean(21); /* torn as it lies there */
        assert_int_equal(open_out(&o, true, &n), OK);
        assert_int_equal(n, 21);
        out_close(&o);
    }
}

static void test_killed_again_and_again(void **state)
{
    (void)state;
    need_plugin();
    need_ffmpeg();
    struct out *o = NULL;
    int64_t n = -1, before = 0;
    unlink(path);
    srand(7);
    for (int round = 0; round < 8; round++) {
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            if (open_out(&o, true, &n) == OK) (void)put_rest(o, n, 1 << 20);
            _exit(1);
        }
        usleep((useconds_t)(20000 + rand() % 30000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        assert_int_equal(open_out(&o, true, &n), OK);
        assert_true(n >= before);
        before = n;
        out_close(&o);
    }
    assert_int_equal(open_out(&o, true, &n), OK);
    assert_int_equal(put_rest(o, n, n + 1), OK);
    out_close(&o);
    assert_int_equal(open_out(&o, true, &n), OK);
    out_close(&o);
    static char text[4096];
    assert_int_equal(run(text, sizeof text, "ffmpeg -nostdin -v error -i %s -f null - 2>&1"), 0);
    run(text, sizeof text,
        "ffprobe -v error -count_frames -of csv=p=0 "
        "-show_entries stream=nb_read_frames %s 2>&1");
    assert_int_equal(atoll(text), n);
    print_message("8 kills, %d frames\n", (int)n);
}

static void test_file_of_another_is_left_alone(void **state)
{
    (void)state;
    need_plugin();
    static uint8_t got[BYTES_MAX], bad[BYTES_MAX];
    for (size_t at = 0; at < block_end[0]; at += 1 + at / 40) {
        struct out *o = NULL;
        int64_t n = -1;
        memcpy(bad, whole, block_end[3]);
        bad[at] ^= 1;
        spill(bad, block_end[3]);
        assert_int_equal(open_out(&o, true, &n), ERR_DATA);
        assert_null(o);
        assert_non_null(strstr(err_text(), path));
        assert_int_equal(slurp(got), block_end[3]);
        assert_memory_equal(got, bad, block_end[3]);
    }
    struct out *o = NULL;
    int64_t n = -1;
    struct out_conf conf = {.path = path,
                            .width_px = Y,
                            .height_px = X,
                            .fps = 16,
                            .plugin_dir = plugin_dir,
                            .resume = true};
    spill(whole, block_end[3]);
    assert_int_equal(out_open(&o, &conf, &n), ERR_DATA);
    conf.width_px = X;
    conf.height_px = Y;
    conf.fps = 24;
    assert_int_equal(out_open(&o, &conf, &n), ERR_DATA);
    assert_int_equal(slurp(got), block_end[3]);
}

static void test_full_disk_then_room_again(void **state)
{
    (void)state;
    need_plugin();
    static uint8_t got[BYTES_MAX];
    struct out *o = NULL;
    int64_t n = -1;
    struct rlimit was, small;
    assert_int_equal(open_out(&o, false, &n), OK);
    assert_int_equal(put(o, 0, 9), OK);
    getrlimit(RLIMIT_FSIZE, &was);
    small = was;
    small.rlim_cur = block_end[1] + 300;
    setrlimit(RLIMIT_FSIZE, &small);
    const err_t e = put(o, 9, 12);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_int_equal(e, ERR_WRITE);
    assert_non_null(strstr(err_text(), path));
    assert_int_equal(slurp(got), block_end[1]);
    assert_int_equal(put(o, 9, 12), OK);
    assert_int_equal(put(o, 21, 12), OK);
    out_close(&o);
    assert_int_equal(slurp(got), block_end[3]);
    assert_memory_equal(got, whole, block_end[3]);
}

static void test_full_device(void **state)
{
    (void)state;
    need_plugin();
    struct out *o = NULL;
    int64_t n = -1;
    unlink(path);
    assert_int_equal(symlink("/dev/full", path), 0);
    const err_t e = open_out(&o, true, &n);
    unlink(path);
    assert_int_equal(e, ERR_FULL);
    assert_non_null(strstr(err_text(), strerror(ENOSPC)));
}

/* One bit flipped, or a byte set, behind the header: counted or refused, and never past the end. */
static void test_scan_survives_flipped_bits(void **state)
{
    (void)state;
    need_plugin();
    static uint8_t p[BYTES_MAX];
    const int fd = memfd_create("mp4", MFD_CLOEXEC);
    assert_true(fd >= 0);
    srand(3);
    for (int i = 0; i < 4000; i++) {
        struct mp4_scan s = {0};
        memcpy(p, whole, block_end[3]);
        for (int k = rand() % 3; k >= 0; k--) {
            const size_t at = block_end[0] + (size_t)rand() % (block_end[3] - block_end[0]);
            p[at] = (uint8_t)(k == 0 ? p[at] ^ 1 << rand() % 8 : rand() >> 8);
        }
        assert_int_equal(pwrite(fd, p, block_end[3], 0), block_end[3]);
        const err_t e = mp4_scan(fd, path, (int64_t)block_end[0], (int64_t)block_end[3], &s);
        assert_true(e == OK || e == ERR_DATA);
        if (e == OK) assert_in_range(s.n_bytes, block_end[0], block_end[3]);
    }
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan_survives_flipped_bits),
        cmocka_unit_test(test_wants_blocks),
        cmocka_unit_test(test_plays_from_its_first_byte_on),
        cmocka_unit_test(test_cut_at_every_byte_of_two_fragments),
        cmocka_unit_test(test_torn_header_begins_anew),
        cmocka_unit_test(test_continued_files_are_clean),
        cmocka_unit_test(test_torn_file_plays_up_to_the_tear),
        cmocka_unit_test(test_dies_at_chosen_bytes),
        cmocka_unit_test(test_killed_again_and_again),
        cmocka_unit_test(test_file_of_another_is_left_alone),
        cmocka_unit_test(test_full_disk_then_room_again),
        cmocka_unit_test(test_full_device),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
