/* test_out.c - y4m to files and to standard output, cut and continued at every byte; refusals. */
#include "procs/gateway/out.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { X = 4, Y = 2, N_FRAMES = 5, WHOLE_BYTES_MAX = 4096 };

static char dir[64];
static char path[96];
static uint8_t whole[WHOLE_BYTES_MAX]; /* the file of N_FRAMES frames */
static size_t n_whole;

static struct out_conf conf_of(const char *name, bool resume)
{
    return (struct out_conf){.path = name,
                             .width_px = X,
                             .height_px = Y,
                             .fps = 16,
                             .plugin_dir = "/no/such/dir",
                             .resume = resume};
}

static err_t put(struct out *o, int64_t first, int32_t n)
{
    static uint8_t rgb[N_FRAMES][X * Y * 3];
    const uint8_t *frames[N_FRAMES];
    for (int32_t i = 0; i < n; i++) {
        for (int k = 0; k < X * Y * 3; k++) rgb[i][k] = (uint8_t)(31 * (first + i) + 11 * k);
        frames[i] = rgb[i];
    }
    return out_put(o, frames, n);
}

static size_t slurp(uint8_t *to)
{
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(to, 1, WHOLE_BYTES_MAX, f) : 0;
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

static int make_dir(void **state)
{
    (void)state;
    struct out *o = NULL;
    int64_t n = -1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    strcpy(dir, "/tmp/longlived-out.XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/v.y4m", dir);
    const struct out_conf conf = conf_of(path, false);
    if (out_open(&o, &conf, &n) != OK || n != 0 || put(o, 0, N_FRAMES) != OK) return -1;
    out_close(&o);
    n_whole = slurp(whole);
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static size_t header_bytes(void)
{
    return (size_t)((const uint8_t *)memchr(whole, '\n', n_whole) - whole) + 1;
}

/* ---- paths ---- */

static void test_suffixes_that_are_none(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "v", "v.mkv", ".y4m", ".mp4", "--", "v.y4m.gz", "mp4"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct out *o = NULL;
        int64_t n = -1;
        const struct out_conf conf = conf_of(wrong[i], false);
        assert_int_equal(out_open(&o, &conf, &n), ERR_USAGE);
        assert_null(o);
        assert_int_equal(n, -1);
        assert_non_null(strstr(err_text(), wrong[i]));
        assert_non_null(strstr(err_text(), ".mp4 or .y4m"));
        assert_non_null(strstr(err_text(), "- for standard output"));
    }
}

static err_t open_at(const char *name)
{
    struct out *o = NULL;
    int64_t n = -1;
    const struct out_conf conf = conf_of(name, true);
    const err_t e = out_open(&o, &conf, &n);
    out_close(&o);
    return e;
}

static void test_unwritable_places(void **state)
{
    (void)state;
    char other[160];
    assert_int_equal(open_at("/no/such/dir/v.y4m"), ERR_WRITE);
    assert_non_null(strstr(err_text(), "/no/such/dir/v.y4m"));
    assert_non_null(strstr(err_text(), strerror(ENOENT)));
    snprintf(other, sizeof other, "%s/under.y4m", path); /* a file is no directory */
    assert_int_equal(open_at(other), ERR_WRITE);
    assert_non_null(strstr(err_text(), strerror(ENOTDIR)));

    /* Root may write anywhere, so look as somebody else. */
    snprintf(other, sizeof other, "%s/other.y4m", dir);
    const bool is_root = geteuid() == 0;
    chmod(path, 0444);
    chmod(dir, 0555);
    if (is_root) assert_int_equal(seteuid(65534), 0);
    const err_t in_dir = open_at(other);
    const bool says_why = strstr(err_text(), strerror(EACCES)) && strstr(err_text(), other);
    const err_t at_file = open_at(path);
    if (is_root) assert_int_equal(seteuid(0), 0);
    chmod(dir, 0755);
    chmod(path, 0644);
    assert_int_equal(in_dir, ERR_WRITE);
    assert_int_equal(at_file, ERR_WRITE);
    assert_true(says_why);
    assert_int_equal(access(other, F_OK), -1);
}

static void test_mp4_without_plugin_names_the_packages(void **state)
{
    (void)state;
    struct out *o = NULL;
    int64_t n = -1;
    const struct out_conf conf = conf_of("v.mp4", false);
    assert_int_equal(out_open(&o, &conf, &n), ERR_NONE);
    assert_non_null(strstr(err_text(), "libavcodec59 libavformat59 libavutil57"));
    assert_null(strchr(err_text(), '\n'));
    assert_int_equal(access("v.mp4", F_OK), -1);
}

static void test_full_device(void **state)
{
    (void)state;
    char full[128];
    struct out *o = NULL;
    int64_t n = 0;
    snprintf(full, sizeof full, "%s/full.y4m", dir);
    assert_int_equal(symlink("/dev/full", full), 0);
    const struct out_conf conf = conf_of(full, true);
    const err_t e = out_open(&o, &conf, &n);
    unlink(full);
    assert_int_equal(e, ERR_FULL);
    assert_null(o);
    assert_non_null(strstr(err_text(), full));
    assert_non_null(strstr(err_text(), strerror(ENOSPC)));
}

/* ---- files ---- */

static void test_file_cut_at_every_byte_and_continued(void **state)
{
    (void)state;
    static uint8_t got[WHOLE_BYTES_MAX];
    const size_t frame_bytes = (n_whole - header_bytes()) / N_FRAMES;
    assert_int_equal(n_whole, header_bytes() + N_FRAMES * frame_bytes);
    for (size_t cut = 0; cut <= n_whole; cut++) {
        struct out *o = NULL;
        int64_t n = -1;
        const size_t want = cut < header_bytes() ? 0 : (cut - header_bytes()) / frame_bytes;
        const struct out_conf conf = conf_of(path, true);
        spill(whole, cut);
        assert_int_equal(out_open(&o, &conf, &n), OK);
        assert_int_equal(n, want);
        assert_int_equal(slurp(got), header_bytes() + want * frame_bytes); /* no torn tail */
        if (n < N_FRAMES) assert_int_equal(put(o, n, (int32_t)(N_FRAMES - n)), OK);
        assert_false(out_wants_block(o));
        out_close(&o);
        assert_null(o);
        assert_int_equal(slurp(got), n_whole);
        assert_memory_equal(got, whole, n_whole);
    }
}

static void test_file_of_another_is_left_alone(void **state)
{
    (void)state;
    static uint8_t got[WHOLE_BYTES_MAX], bad[WHOLE_BYTES_MAX];
    for (size_t at = 0; at <= header_bytes(); at++) { /* the last is in the mark of frame 0 */
        struct out *o = NULL;
        int64_t n = -1;
        const struct out_conf conf = conf_of(path, true);
        memcpy(bad, whole, n_whole);
        bad[at] ^= 4;
        spill(bad, n_whole);
        assert_int_equal(out_open(&o, &conf, &n), ERR_DATA);
        assert_null(o);
        assert_int_equal(n, -1);
        assert_non_null(strstr(err_text(), path));
        assert_int_equal(slurp(got), n_whole);
        assert_memory_equal(got, bad, n_whole);
    }
    struct out *o = NULL;
    int64_t n = -1;
    struct out_conf conf = conf_of(path, true);
    conf.width_px = 6;
    spill(whole, n_whole);
    assert_int_equal(out_open(&o, &conf, &n), ERR_DATA);
    conf.resume = false; /* but a new beginning is what was asked for */
    assert_int_equal(out_open(&o, &conf, &n), OK);
    assert_int_equal(n, 0);
    out_close(&o);
}

static void test_full_disk_then_room_again(void **state)
{
    (void)state;
    static uint8_t got[WHOLE_BYTES_MAX];
    struct out *o = NULL;
    int64_t n = -1;
    struct rlimit was, small;
    const struct out_conf conf = conf_of(path, false);
    const size_t frame_bytes = (n_whole - header_bytes()) / N_FRAMES;
    assert_int_equal(out_open(&o, &conf, &n), OK);
    assert_int_equal(put(o, 0, 2), OK);
    getrlimit(RLIMIT_FSIZE, &was);
    small = was;
    small.rlim_cur = n_whole - frame_bytes - 3; /* within the fourth frame */
    setrlimit(RLIMIT_FSIZE, &small);
    const err_t e = put(o, 2, 3);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_int_equal(e, ERR_WRITE);
    assert_non_null(strstr(err_text(), path));
    assert_int_equal(slurp(got), header_bytes() + 3 * frame_bytes);
    assert_int_equal(put(o, 2, 3), OK);
    out_close(&o);
    assert_int_equal(slurp(got), n_whole);
    assert_memory_equal(got, whole, n_whole);
}

/* ---- standard output ---- */

static int kept_stdout = -1;

/* Assertions jump, so none is made between these two. */
static void stdout_is(int fd)
{
    fflush(stdout);
    kept_stdout = dup(STDOUT_FILENO);
    dup2(fd, STDOUT_FILENO);
}

static void stdout_is_back(void)
{
    dup2(kept_stdout, STDOUT_FILENO);
    close(kept_stdout);
}

struct told {
    int64_t last, calls, repeats;
    bool went_back, was_large;
};

static void told(void *self, int64_t stream_bytes)
{
    struct told *t = self;
    t->went_back |= stream_bytes < t->last;
    t->was_large |= stream_bytes - t->last > PIPE_BUF;
    t->repeats += stream_bytes == t->last;
    t->last = stream_bytes;
    t->calls++;
}

static void test_stream_continued_from_every_byte(void **state)
{
    (void)state;
    static uint8_t got[WHOLE_BYTES_MAX];
    const size_t frame_bytes = (n_whole - header_bytes()) / N_FRAMES;
    for (size_t sent = 0; sent <= n_whole; sent++) {
        struct out *o = NULL;
        struct told t = {.last = (int64_t)sent};
        int64_t n = -1;
        int fd[2];
        struct out_conf conf = conf_of("-", true);
        conf.stream_bytes = (int64_t)sent;
        conf.wrote = told;
        conf.self = &t;
        assert_int_equal(pipe(fd), 0); /* which holds more than the whole stream */
        stdout_is(fd[1]);
        err_t e = out_open(&o, &conf, &n);
        if (e == OK && n < N_FRAMES) e = put(o, n, (int32_t)(N_FRAMES - n));
        out_close(&o);
        stdout_is_back();
        close(fd[1]);
        const ssize_t n_got = read(fd[0], got, sizeof got);
        close(fd[0]);
        assert_int_equal(e, OK);
        assert_int_equal(n, sent < header_bytes() ? 0 : (sent - header_bytes()) / frame_bytes);
        assert_int_equal(n_got, n_whole - sent);
        assert_memory_equal(got, whole + sent, n_whole - sent);
        assert_int_equal(t.last, n_whole);
        assert_false(t.went_back || t.was_large);
    }
}

struct reader {
    int fd;
    size_t n_bytes;
    uint64_t sum;
};

/* Reads nothing for a while, then everything in pieces of an odd size. */
static void *read_late(void *arg)
{
    struct reader *r = arg;
    uint8_t piece[777];
    poll(NULL, 0, 350);
    for (ssize_t n; (n = read(r->fd, piece, sizeof piece)) > 0;)
        for (ssize_t i = 0; i < n; i++) r->sum = r->sum * 31 + piece[i], r->n_bytes++;
    return NULL;
}

/* A large frame, a pipe that is small, does not block, and is not read for three ticks. */
static void test_stream_waits_for_a_slow_reader(void **state)
{
    (void)state;
    enum { WIDE = 320, HIGH = 240 };
    uint8_t *rgb = malloc(WIDE * HIGH * 3);
    struct out *o = NULL;
    struct told t = {0};
    struct reader r = {0};
    pthread_t thread;
    int64_t n = -1;
    int fd[2];
    struct out_conf conf = conf_of("-", false);
    conf.width_px = WIDE;
    conf.height_px = HIGH;
    conf.wrote = told;
    conf.self = &t;
    for (int i = 0; i < WIDE * HIGH * 3; i++) rgb[i] = (uint8_t)(i * 7 + i / 999);
    assert_int_equal(pipe2(fd, O_NONBLOCK), 0);
    fcntl(fd[0], F_SETFL, 0);
    r.fd = fd[0];
    stdout_is(fd[1]);
    pthread_create(&thread, NULL, read_late, &r);
    err_t e = out_open(&o, &conf, &n);
    for (int i = 0; i < 2 && e == OK; i++) e = out_put(o, (const uint8_t *const[]){rgb}, 1);
    stdout_is_back();
    close(fd[1]);
    pthread_join(thread, NULL);
    close(fd[0]);
    out_close(&o);
    free(rgb);
    assert_int_equal(e, OK);
    assert_int_equal(r.n_bytes, t.last);
    assert_true(t.last > 2 * WIDE * HIGH * 3 / 2);
    assert_true(t.repeats >= 2); /* the caller was given a sign of life meanwhile */
    assert_false(t.went_back || t.was_large);
}

static void test_stream_reader_gone(void **state)
{
    (void)state;
    struct out *o = NULL;
    int64_t n = -1;
    int fd[2];
    const struct out_conf conf = conf_of("-", false);
    assert_int_equal(pipe(fd), 0);
    stdout_is(fd[1]);
    const err_t opened = out_open(&o, &conf, &n);
    close(fd[0]);
    const err_t e = opened == OK ? put(o, 0, 1) : opened;
    stdout_is_back();
    close(fd[1]);
    out_close(&o);
    assert_int_equal(opened, OK);
    assert_int_equal(e, ERR_WRITE);
    assert_string_equal(err_text(), "the reader of standard output is gone");
}

static void test_stream_to_a_full_device(void **state)
{
    (void)state;
    struct out *o = NULL;
    int64_t n = -1;
    const struct out_conf conf = conf_of("-", false);
    const int fd = open("/dev/full", O_WRONLY);
    stdout_is(fd);
    const err_t e = out_open(&o, &conf, &n);
    stdout_is_back();
    close(fd);
    assert_int_equal(e, ERR_WRITE);
    assert_null(o);
    assert_non_null(strstr(err_text(), "standard output"));
    assert_non_null(strstr(err_text(), strerror(ENOSPC)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suffixes_that_are_none),
        cmocka_unit_test(test_unwritable_places),
        cmocka_unit_test(test_mp4_without_plugin_names_the_packages),
        cmocka_unit_test(test_full_device),
        cmocka_unit_test(test_file_cut_at_every_byte_and_continued),
        cmocka_unit_test(test_file_of_another_is_left_alone),
        cmocka_unit_test(test_full_disk_then_room_again),
        cmocka_unit_test(test_stream_continued_from_every_byte),
        cmocka_unit_test(test_stream_waits_for_a_slow_reader),
        cmocka_unit_test(test_stream_reader_gone),
        cmocka_unit_test(test_stream_to_a_full_device),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
