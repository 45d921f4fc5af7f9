/* out.c - see out.h. Which bytes: y4m.c and mp4.c. Where to, and how to go on: here. */
#include "procs/gateway/out.h"
#include "common/fault.h"
#include "procs/gateway/file.h"
#include "procs/gateway/mp4.h"
#include "procs/gateway/y4m.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHUNK_BYTES = PIPE_BUF, /* the most a pipe with any room takes without blocking */
    WAIT_MS = 100,
    HEADER_BYTES_MAX = 64 * 1024, /* compared on the heap; ftyp and moov are about 1 kB */
};

enum kind { KIND_STREAM, KIND_Y4M, KIND_MP4 };

struct out {
    enum kind kind;
    int fd;     /* -1: none; standard output is not ours to close */
    char *path; /* for sentences */
    int32_t width_px, height_px;
    int64_t n_frames; /* whole frames put */
    int64_t n_bytes;  /* where the next frame begins */

    int64_t sent_bytes; /* stream: may be ahead of n_bytes, never behind */
    void (*wrote)(void *self, int64_t stream_bytes);
    void *self;

    uint8_t *frame; /* y4m: one frame */
    size_t frame_bytes;

    struct mp4 *mp4;
    const uint8_t *block; /* mp4: encoded but not written yet, mp4's */
    size_t block_bytes;
    int32_t block_frames; /* 0: there is none */
};

static err_t kind_of(const char *path, enum kind *kind)
{
    const size_t n = strlen(path);
    if (strcmp(path, "-") == 0) *kind = KIND_STREAM;
    else if (n > 4 && strcmp(path + n - 4, ".y4m") == 0) *kind = KIND_Y4M;
    else if (n > 4 && strcmp(path + n - 4, ".mp4") == 0) *kind = KIND_MP4;
    else
        return FAIL(ERR_USAGE, "output %s: must end in .mp4 or .y4m, or be - for standard output",
                    path);
    return OK;
}

static void tell(const struct out *o)
{
    if (o->wrote) o->wrote(o->self, o->sent_bytes);
}

/* Sends what of [at, at + n_bytes) has not been sent. */
static err_t send_at(struct out *o, int64_t at, const uint8_t *from, size_t n_bytes)
{
    const int64_t end = at + (int64_t)n_bytes;
    while (o->sent_bytes < end) {
        const int64_t left = end - o->sent_bytes;
        const size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        struct pollfd p = {.fd = o->fd, .events = POLLOUT};
        if (poll(&p, 1, WAIT_MS) <= 0) { /* late or interrupted; write() knows anything worse */
            tell(o);
            continue;
        }
        const ssize_t k = write(o->fd, from + (o->sent_bytes - at), n);
        if (k < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (k < 0 && errno == EPIPE)
            return FAIL(ERR_WRITE, "the reader of standard output is gone");
        if (k <= 0)
            return FAIL(ERR_WRITE, "cannot write %s: %s", o->path, strerror(k < 0 ? errno : EIO));
        o->sent_bytes += k;
        tell(o);
    }
    return OK;
}

/* Does the file begin with the header, as far as it goes? */
static err_t compare_header(struct out *o, const uint8_t *header, size_t header_bytes,
                            int64_t n_bytes)
{
    err_t e = OK;
    const size_t n = n_bytes < (int64_t)header_bytes ? (size_t)n_bytes : header_bytes;
    MUST(header_bytes <= HEADER_BYTES_MAX);
    uint8_t *got = malloc(header_bytes);
    if (!got) return FAIL(ERR_NOMEM, "output header");
    TRY(file_read_at(o->fd, o->path, 0, got, n));
    if (memcmp(got, header, n) != 0)
        TRY(FAIL(ERR_DATA,
                 "%s: cannot be continued: it was not written by longlived as %s of %dx%d "
                 "with this rate and encoder",
                 o->path, o->kind == KIND_MP4 ? "MP4" : "y4m", o->width_px, o->height_px));
out:
    free(got);
    return e;
}

/* Counts the whole frames of a file of n_bytes, and cuts it behind the last. */
static err_t resume_file(struct out *o, const uint8_t *header, size_t header_bytes, int64_t n_bytes)
{
    err_t e = OK;
    struct mp4_scan scan = {0};
    TRY(compare_header(o, header, header_bytes, n_bytes));
    if (n_bytes < (int64_t)header_bytes) goto out; /* a torn header: as if there were nothing */
    if (o->kind == KIND_MP4) {
        TRY(mp4_scan(o->fd, o->path, (int64_t)header_bytes, n_bytes, &scan));
        mp4_resume(o->mp4, &scan);
        o->n_frames = scan.n_frames;
        o->n_bytes = scan.n_bytes;
    } else {
        TRY(y4m_scan(o->fd, o->path, header_bytes, o->frame_bytes, n_bytes, &o->n_frames));
        o->n_bytes = (int64_t)header_bytes + o->n_frames * (int64_t)o->frame_bytes;
    }
    if (o->n_bytes < n_bytes) TRY(file_cut(o->fd, o->path, o->n_bytes));
out:
    return e;
}

/* After a death within a frame, sent_bytes is ahead of n_bytes: send_at leaves those bytes out. */
static void resume_stream(struct out *o, size_t header_bytes, int64_t stream_bytes)
{
    o->sent_bytes = stream_bytes;
    if (stream_bytes < (int64_t)header_bytes) return;
    o->n_frames = (stream_bytes - (int64_t)header_bytes) / (int64_t)o->frame_bytes;
    o->n_bytes = (int64_t)header_bytes + o->n_frames * (int64_t)o->frame_bytes;
}

static err_t open_fd(struct out *o, const struct out_conf *conf)
{
    err_t e = OK;
    char line[Y4M_HEADER_BYTES_MAX];
    const uint8_t *header = (const uint8_t *)line;
    size_t header_bytes = 0;
    int64_t n_bytes = 0;

    if (o->kind == KIND_MP4) header = mp4_header(o->mp4, &header_bytes);
    else header_bytes = y4m_header(line, o->width_px, o->height_px, conf->fps);
    if (o->kind == KIND_STREAM) {
        o->fd = STDOUT_FILENO;
        if (conf->resume) resume_stream(o, header_bytes, conf->stream_bytes);
    } else {
        TRY(file_open(&o->fd, conf->path, conf->resume, &n_bytes));
        if (n_bytes > 0) TRY(resume_file(o, header, header_bytes, n_bytes));
    }
    if (o->n_bytes == 0) {
        if (o->kind == KIND_STREAM) TRY(send_at(o, 0, header, header_bytes));
        else TRY(file_write_at(o->fd, o->path, 0, header, header_bytes));
        o->n_bytes = (int64_t)header_bytes;
    }
out:
    return e;
}

err_t out_open(struct out **out, const struct out_conf *conf, int64_t *n_frames)
{
    err_t e = OK;
    enum kind kind = KIND_STREAM;
    MUST(conf->width_px >= 2 && conf->width_px <= 16384 && conf->width_px % 2 == 0);
    MUST(conf->height_px >= 2 && conf->height_px <= 16384 && conf->height_px % 2 == 0);
    MUST(conf->fps >= 1 && conf->fps <= 1000 && conf->stream_bytes >= 0);
    struct out *o = calloc(1, sizeof *o);
    if (!o) return FAIL(ERR_NOMEM, "output");

    o->fd = -1;
    TRY(kind_of(conf->path, &kind));
    o->kind = kind;
    o->width_px = conf->width_px;
    o->height_px = conf->height_px;
    o->wrote = conf->wrote;
    o->self = conf->self;
    o->path = strdup(kind == KIND_STREAM ? "standard output" : conf->path);
    if (!o->path) TRY(FAIL(ERR_NOMEM, "output"));
    if (kind == KIND_MP4) {
        TRY(mp4_open(&o->mp4, conf->plugin_dir, conf->width_px, conf->height_px, conf->fps));
    } else {
        o->frame_bytes = y4m_frame_bytes(conf->width_px, conf->height_px);
        o->frame = malloc(o->frame_bytes);
        if (!o->frame) TRY(FAIL(ERR_NOMEM, "output: a frame of %zu bytes", o->frame_bytes));
    }
    TRY(open_fd(o, conf));
    *n_frames = o->n_frames;
    *out = o;
    o = NULL;
out:
    out_close(&o);
    return e;
}

void out_close(struct out **out)
{
    struct out *o = *out;
    if (!o) return;
    if (o->fd >= 0 && o->kind != KIND_STREAM) close(o->fd);
    mp4_close(&o->mp4);
    free(o->frame);
    free(o->path);
    free(o);
    *out = NULL;
}

bool out_wants_block(const struct out *o)
{
    return o->kind == KIND_MP4;
}

/* A block that could not be written is kept, because the muxer has counted it. */
static err_t put_block(struct out *o, const uint8_t *const *rgb, int32_t n_frames)
{
    err_t e = OK;
    if (o->block_frames == 0) {
        TRY(mp4_block(o->mp4, rgb, n_frames, &o->block, &o->block_bytes));
        o->block_frames = n_frames;
    }
    TRY(fault(FAULT_GATEWAY_ENCODED));
    MUST(o->block_frames == n_frames);
    TRY(file_commit_at(o->fd, o->path, o->n_bytes, o->block, o->block_bytes, MP4_COMMIT_BYTES));
    o->block_frames = 0;
    o->n_bytes += (int64_t)o->block_bytes;
    o->n_frames += n_frames;
out:
    return e;
}

err_t out_put(struct out *o, const uint8_t *const *rgb, int32_t n_frames)
{
    err_t e = OK;
    MUST(n_frames > 0);
    if (o->kind == KIND_MP4) return put_block(o, rgb, n_frames);

    /* Counted at the end only: frames of a put that failed are put again, over themselves. */
    int64_t at = o->n_bytes;
    for (int32_t i = 0; i < n_frames; i++) {
        y4m_frame(o->frame, rgb[i], o->width_px, o->height_px);
        if (o->kind == KIND_STREAM) TRY(send_at(o, at, o->frame, o->frame_bytes));
        else TRY(file_write_at(o->fd, o->path, at, o->frame, o->frame_bytes));
        at += (int64_t)o->frame_bytes;
    }
    o->n_bytes = at;
    o->n_frames += n_frames;
out:
    return e;
}
