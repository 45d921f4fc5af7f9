/* hashes.c - see hashes.h. */
#include "procs/gateway/hashes.h"
#include "procs/gateway/file.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    HEX_BYTES = 2 * crypto_hash_sha256_BYTES,
    LINE_BYTES_MAX = 19 + 1 + HEX_BYTES + 1, /* index, space, hash, newline */
    READ_BYTES = 64 * 1024,
};

struct hashes {
    int fd;
    char *path;
    int64_t n_lines, n_bytes;
    char *lines; /* what one put writes */
    int32_t room_lines;
};

static int32_t n_digits(int64_t v)
{
    int32_t n = 1;
    for (; v >= 10; v /= 10) n++;
    return n;
}

/* The bytes of line `index`, known without reading it. */
static int64_t line_bytes(int64_t index)
{
    return n_digits(index) + 1 + HEX_BYTES + 1;
}

/* Where line n begins: lines are counted by the length of their index. */
static int64_t offset_of(int64_t n)
{
    int64_t bytes = 0;
    for (int64_t first = 0, end = 10; first < n; first = end, end *= 10)
        bytes += ((n < end ? n : end) - first) * line_bytes(first);
    return bytes;
}

static bool is_line(const char *p, int64_t index)
{
    char want[32];
    const int n = snprintf(want, sizeof want, "%" PRId64 " ", index);
    if (memcmp(p, want, (size_t)n) != 0) return false;
    return strspn(p + n, "0123456789abcdef") == HEX_BYTES && p[n + HEX_BYTES] == '\n';
}

/* Checks every whole line of a log of n_bytes, a window at a time. A last line too short to be
 * whole is torn: it is left out, whatever it holds. */
static err_t scan(struct hashes *h, int64_t n_bytes)
{
    err_t e = OK;
    char *window = malloc(READ_BYTES + 1);
    if (!window) return FAIL(ERR_NOMEM, "hashes");
    while (h->n_bytes + line_bytes(h->n_lines) <= n_bytes) {
        const int64_t left = n_bytes - h->n_bytes;
        const size_t n = left < READ_BYTES ? (size_t)left : READ_BYTES;
        TRY(file_read_at(h->fd, h->path, h->n_bytes, window, n));
        window[n] = '\0'; /* ends strspn */
        size_t at = 0;
        for (size_t k; at + (k = (size_t)line_bytes(h->n_lines)) <= n; at += k, h->n_lines++)
            if (!is_line(window + at, h->n_lines))
                TRY(FAIL(ERR_DATA, "%s: line %" PRId64 " is not \"%" PRId64 " sha256\"", h->path,
                         h->n_lines + 1, h->n_lines));
        h->n_bytes += (int64_t)at;
    }
out:
    free(window);
    return e;
}

err_t hashes_open(struct hashes **out, const char *path, bool resume, int64_t *n_lines)
{
    err_t e = OK;
    int64_t n_bytes = 0;
    struct hashes *h = calloc(1, sizeof *h);
    if (!h) return FAIL(ERR_NOMEM, "hashes");

    h->fd = -1;
    if (sodium_init() < 0) TRY(FAIL(ERR_NONE, "hashes: libsodium does not start"));
    h->path = strdup(path);
    if (!h->path) TRY(FAIL(ERR_NOMEM, "hashes"));
    TRY(file_open(&h->fd, path, resume, &n_bytes));
    TRY(scan(h, n_bytes));
    if (h->n_bytes < n_bytes) TRY(file_cut(h->fd, path, h->n_bytes));
    *n_lines = h->n_lines;
    *out = h;
    h = NULL;
out:
    hashes_close(&h);
    return e;
}

void hashes_close(struct hashes **h)
{
    if (!*h) return;
    if ((*h)->fd >= 0) close((*h)->fd);
    free((*h)->path);
    free((*h)->lines);
    free(*h);
    *h = NULL;
}

err_t hashes_trim(struct hashes *h, int64_t n_lines)
{
    err_t e = OK;
    MUST(n_lines >= 0);
    if (n_lines > h->n_lines)
        return FAIL(ERR_DATA,
                    "%s: has %" PRId64 " lines, but the output has %" PRId64 " frames: they do not "
                    "belong together",
                    h->path, h->n_lines, n_lines);
    TRY(file_cut(h->fd, h->path, offset_of(n_lines)));
    h->n_lines = n_lines;
    h->n_bytes = offset_of(n_lines);
out:
    return e;
}

err_t hashes_put(struct hashes *h, int64_t first_index, const uint8_t *const *rgb, int32_t n_frames,
                 size_t frame_bytes)
{
    uint8_t sum[crypto_hash_sha256_BYTES];
    char hex[HEX_BYTES + 1];
    size_t n = 0;
    MUST(n_frames > 0 && first_index == h->n_lines);
    if (n_frames > h->room_lines) {
        char *grown = realloc(h->lines, (size_t)n_frames * LINE_BYTES_MAX + 1);
        if (!grown) return FAIL(ERR_NOMEM, "hashes: %d lines", n_frames);
        h->lines = grown;
        h->room_lines = n_frames;
    }
    for (int32_t i = 0; i < n_frames; i++) {
        crypto_hash_sha256(sum, rgb[i], frame_bytes);
        sodium_bin2hex(hex, sizeof hex, sum, sizeof sum);
        n += (size_t)snprintf(h->lines + n, LINE_BYTES_MAX + 1, "%" PRId64 " %s\n", first_index + i,
                              hex);
    }
    const err_t e = file_write_at(h->fd, h->path, h->n_bytes, h->lines, n);
    if (e != OK) return e;
    h->n_lines += n_frames;
    h->n_bytes += (int64_t)n;
    return OK;
}
