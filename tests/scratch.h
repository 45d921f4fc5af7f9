/* scratch.h - for tests: a directory of one's own, sentences of errors, and spoilt input. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/err.h"

static char scratch_dir[32];

static inline int scratch_open(void **state)
{
    (void)state;
    strcpy(scratch_dir, "/tmp/longlived-XXXXXX");
    return mkdtemp(scratch_dir) ? 0 : -1;
}

static inline int scratch_close(void **state)
{
    char path[512];
    DIR *d = opendir(scratch_dir);
    (void)state;
    for (struct dirent *f; d && (f = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", scratch_dir, f->d_name);
        if (f->d_name[0] != '.') unlink(path);
    }
    if (d) closedir(d);
    return rmdir(scratch_dir);
}

/* Files in the directory. */
static inline int32_t scratch_count(void)
{
    int32_t n = 0;
    DIR *d = opendir(scratch_dir);
    for (struct dirent *f; d && (f = readdir(d));) n += f->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

/* The path of name in the directory; the last of four stays valid. */
static inline const char *scratch_path(const char *name)
{
    static char path[4][128];
    static int at;
    at = (at + 1) % 4;
    snprintf(path[at], sizeof path[at], "%s/%s", scratch_dir, name);
    return path[at];
}

static inline const char *scratch_put_bytes(const char *name, const void *data, size_t n)
{
    const char *path = scratch_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline const char *scratch_put(const char *name, const char *text)
{
    return scratch_put_bytes(name, text, strlen(text));
}

/* A file of the directory whose bytes are in memory, for many thousand contents. */
static inline int scratch_memory(const char *name, const char **path)
{
    char target[64];
    const int fd = memfd_create(name, MFD_CLOEXEC);
    snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
    *path = scratch_path(name);
    assert_true(fd >= 0);
    assert_int_equal(symlink(target, *path), 0);
    return fd;
}

static inline void scratch_fill(int fd, const void *data, size_t n)
{
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, data, n, 0), n);
}

static inline void want_ok(err_t e)
{
    if (e != OK) fail_msg("%s", err_text());
}

/* The code, and words that the sentence must hold. */
static inline void want_fails(err_t e, err_t code, const char *words)
{
    if (e == OK) fail_msg("no error, but wanted: %s", words);
    if (e != code) fail_msg("code %d, not %d: %s", e, code, err_text());
    if (!strstr(err_text(), words)) fail_msg("\"%s\" is not in: %s", words, err_text());
}

/* Names of the same two from before tests/check.h had a check_ok; it and they do not mix. */
#ifndef TESTS_CHECK_H
static inline void check_ok(err_t e)
{
    want_ok(e);
}

static inline void check_fails(err_t e, err_t code, const char *words)
{
    want_fails(e, code, words);
}
#endif

/* Spoils data in up to 4 places: bytes changed, cut, doubled, or words of the format put in.
 * Returns the new length; cap leaves room for twice the data and 512 bytes. */
static inline size_t spoil(uint64_t *seed, char *data, size_t n, size_t cap,
                           const char *const *words, size_t n_words)
{
    const uint64_t mix = UINT64_C(6364136223846793005);
    for (int times = (int)(*seed >> 40 & 3); times >= 0; times--) {
        *seed = *seed * mix + 1442695040888963407u;
        const uint64_t r = *seed >> 16;
        const size_t at = n > 0 ? (size_t)(r >> 8) % n : 0;
        const size_t left = n - at,
                     span = left > 0 ? (size_t)(r >> 24) % (left < 64 ? left : 64) : 0;
        const char *w = words[(r >> 12) % n_words];
        switch (r & 3) {
        case 0:
            if (n > 0) data[at] = (char)(r >> 32);
            break;
        case 1:
            memmove(data + at, data + at + span, left - span);
            n -= span;
            break;
        case 2:
            if (n + span > cap) break;
            memmove(data + at + span, data + at, left);
            n += span;
            break;
        default:
            if (n + strlen(w) > cap) break;
            memmove(data + at + strlen(w), data + at, left);
            memcpy(data + at, w, strlen(w));
            n += strlen(w);
        }
    }
    return n;
}

#endif
