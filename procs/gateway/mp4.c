/* mp4.c - see mp4.h. The boxes are those of ISO/IEC 14496-12, 8.8. */
#include "procs/gateway/mp4.h"
#include "procs/gateway/file.h"
#include "procs/gateway/plugin/mp4.h"
#include "procs/gateway/yuv.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mp4 {
    const struct mp4_plugin *plugin;
    struct mp4_enc *enc;
    const uint8_t *header; /* the plugin's */
    size_t header_bytes;
    uint8_t *i420;
    int32_t width_px, height_px;
};

static err_t load(const struct mp4_plugin **plugin, const char *plugin_dir)
{
    static const char help[] = "MP4 needs the Debian packages libavcodec59 libavformat59 "
                               "libavutil57, or choose a .y4m file";
    char path[PATH_MAX];
    const int n = snprintf(path, sizeof path, "%s/" MP4_PLUGIN_FILE, plugin_dir);
    if (n < 0 || (size_t)n >= sizeof path) return FAIL(ERR_NONE, "%s: the path is too long", help);

    /* Never unloaded: libav keeps pointers into the plugin (its log) and threads of its own. */
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!so) return FAIL(ERR_NONE, "%s (%s)", help, dlerror());
    const struct mp4_plugin *p = dlsym(so, MP4_PLUGIN_SYMBOL);
    dlclose(so);
    if (!p || p->version != MP4_PLUGIN_VERSION)
        return FAIL(ERR_NONE, "%s is of another version: build it again", path);
    if (!p->encoder()) return FAIL(ERR_NONE, "%s (this libavcodec has no encoder for H.264)", help);
    *plugin = p;
    return OK;
}

err_t mp4_open(struct mp4 **out, const char *plugin_dir, int32_t width_px, int32_t height_px,
               int32_t fps)
{
    err_t e = OK;
    char why[MP4_WHY_BYTES] = "";
    struct mp4 *m = calloc(1, sizeof *m);
    if (!m) return FAIL(ERR_NOMEM, "mp4");

    m->width_px = width_px;
    m->height_px = height_px;
    m->i420 = malloc(yuv_bytes(width_px, height_px));
    if (!m->i420) TRY(FAIL(ERR_NOMEM, "mp4: a frame of %dx%d", width_px, height_px));
    TRY(load(&m->plugin, plugin_dir));
    e = m->plugin->open(&m->enc, width_px, height_px, fps, &m->header, &m->header_bytes, why);
    if (e != OK) TRY(FAIL(e, "mp4: %dx%d at %d fps: %s", width_px, height_px, fps, why));

    *out = m;
    m = NULL;
out:
    mp4_close(&m);
    return e;
}

void mp4_close(struct mp4 **m)
{
    if (!*m) return;
    if ((*m)->enc) (*m)->plugin->close(&(*m)->enc);
    free((*m)->i420);
    free(*m);
    *m = NULL;
}

const uint8_t *mp4_header(const struct mp4 *m, size_t *n_bytes)
{
    *n_bytes = m->header_bytes;
    return m->header;
}

void mp4_resume(struct mp4 *m, const struct mp4_scan *scan)
{
    m->plugin->resume(m->enc, scan->n_frames, scan->n_fragments);
}

err_t mp4_block(struct mp4 *m, const uint8_t *const *rgb, int32_t n_frames, const uint8_t **bytes,
                size_t *n_bytes)
{
    char why[MP4_WHY_BYTES] = "";
    MUST(n_frames > 0);
    for (int32_t i = 0; i < n_frames; i++) {
        yuv_from_rgb(m->i420, rgb[i], m->width_px, m->height_px);
        const err_t e = m->plugin->frame(m->enc, m->i420, why);
        if (e != OK) return FAIL(e, "mp4: %s", why);
    }
    const err_t e = m->plugin->cut(m->enc, bytes, n_bytes, why);
    return e == OK ? OK : FAIL(e, "mp4: %s", why);
}

/* ---- reading ---- */

enum {
    BOX_BYTES = MP4_COMMIT_BYTES, /* size and type */
    MOOF_BYTES_MAX = 1 << 20,     /* of 16 bytes a frame: more frames than a block can ever have */
};

#define BOX(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))
#define MOOF BOX('m', 'o', 'o', 'f')
#define MDAT BOX('m', 'd', 'a', 't')
#define MFHD BOX('m', 'f', 'h', 'd')
#define TRAF BOX('t', 'r', 'a', 'f')
#define TFHD BOX('t', 'f', 'h', 'd')
#define TFDT BOX('t', 'f', 'd', 't')
#define TRUN BOX('t', 'r', 'u', 'n')

/* Bytes not read yet. Every read goes through take(), which is where the bounds are kept. */
struct span {
    const uint8_t *p;
    size_t n;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool take(struct span *s, size_t n, struct span *taken)
{
    if (n > s->n) return false;
    *taken = (struct span){s->p, n};
    s->p += n;
    s->n -= n;
    return true;
}

static bool take_u32(struct span *s, uint32_t *v)
{
    struct span t;
    if (!take(s, 4, &t)) return false;
    *v = be32(t.p);
    return true;
}

static bool take_box(struct span *s, uint32_t *type, struct span *body)
{
    uint32_t size = 0;
    return take_u32(s, &size) && take_u32(s, type) && size >= BOX_BYTES &&
           take(s, size - BOX_BYTES, body);
}

/* What one moof says. */
struct moof {
    uint32_t number; /* of the fragment, from 1 */
    uint64_t time;   /* the decode time of its first sample: the index of its first frame */
    uint64_t n_samples;
    int32_t n_mfhd, n_traf, n_tfhd, n_tfdt, n_trun;
};

static bool read_tfdt(struct span b, struct moof *m)
{
    uint32_t flags = 0, high = 0, low = 0;
    if (!take_u32(&b, &flags)) return false;
    if (flags >> 24 == 1 && !take_u32(&b, &high)) return false;
    if (!take_u32(&b, &low)) return false;
    m->time = (uint64_t)high << 32 | low;
    m->n_tfdt++;
    return b.n == 0;
}

/* The count is believed only if the box has exactly the bytes that so many samples take. */
static bool read_trun(struct span b, struct moof *m)
{
    uint32_t flags = 0, n = 0;
    if (!take_u32(&b, &flags) || !take_u32(&b, &n)) return false;
    const uint64_t once = 4 * ((flags & 1) + (flags >> 2 & 1));
    const uint64_t each = 4 * (uint64_t)__builtin_popcount(flags & 0xf00);
    m->n_samples += n;
    m->n_trun++;
    return n > 0 && b.n == once + each * n;
}

static bool read_traf(struct span b, struct moof *m)
{
    uint32_t type = 0;
    struct span body;
    m->n_traf++;
    while (b.n > 0) {
        if (!take_box(&b, &type, &body)) return false;
        if (type == TFHD) m->n_tfhd++;
        if (type == TFDT && !read_tfdt(body, m)) return false;
        if (type == TRUN && !read_trun(body, m)) return false;
    }
    return m->n_tfhd == 1 && m->n_tfdt == 1 && m->n_trun == 1;
}

static bool read_moof(struct span b, struct moof *m)
{
    uint32_t type = 0, flags = 0;
    struct span body;
    *m = (struct moof){0};
    while (b.n > 0) {
        if (!take_box(&b, &type, &body)) return false;
        if (type == MFHD) {
            if (!take_u32(&body, &flags) || !take_u32(&body, &m->number)) return false;
            m->n_mfhd++;
        }
        if (type == TRAF && !read_traf(body, m)) return false;
    }
    return m->n_mfhd == 1 && m->n_traf == 1;
}

enum seen { WHOLE, TORN, WRONG };

/* Written last, and perhaps not to the last byte: "moof" as far as it goes, then zeros. */
static bool is_uncommitted(const uint8_t head[BOX_BYTES])
{
    static const uint8_t moof[] = {'m', 'o', 'o', 'f'};
    size_t n = 0;
    while (n < sizeof moof && head[4 + n] == moof[n]) n++;
    const bool is_whole = n == sizeof moof;
    while (n < sizeof moof && head[4 + n] == 0) n++;
    return !is_whole && n == sizeof moof;
}

/* Looks at the box at `at`: whole within the file, torn by its end, or not the one to be there. */
static err_t look(int fd, const char *path, int64_t at, int64_t n_bytes, uint32_t type,
                  enum seen *seen, int64_t *size)
{
    uint8_t head[BOX_BYTES];
    *seen = TORN;
    if (n_bytes - at < BOX_BYTES) return OK;
    const err_t e = file_read_at(fd, path, at, head, sizeof head);
    if (e != OK) return e;
    *size = be32(head);
    if (type == MOOF && is_uncommitted(head)) return OK;
    if (be32(head + 4) != type || *size < BOX_BYTES || (type == MOOF && *size > MOOF_BYTES_MAX))
        *seen = WRONG;
    else if (*size <= n_bytes - at) *seen = WHOLE;
    return OK;
}

/* One moof and mdat at scan->n_bytes; WHOLE moves the scan behind them. */
static err_t scan_pair(int fd, const char *path, int64_t n_bytes, uint8_t *buffer,
                       struct mp4_scan *scan, enum seen *seen)
{
    err_t e = OK;
    struct moof moof;
    int64_t moof_bytes = 0, mdat_bytes = 0;
    const int64_t at = scan->n_bytes;

    TRY(look(fd, path, at, n_bytes, MOOF, seen, &moof_bytes));
    if (*seen != WHOLE) goto out;
    TRY(file_read_at(fd, path, at, buffer, (size_t)moof_bytes));
    *seen = WRONG;
    if (!read_moof((struct span){buffer + BOX_BYTES, (size_t)moof_bytes - BOX_BYTES}, &moof) ||
        moof.number != (uint32_t)(scan->n_fragments + 1) || moof.time != (uint64_t)scan->n_frames)
        goto out;

    TRY(look(fd, path, at + moof_bytes, n_bytes, MDAT, seen, &mdat_bytes));
    if (*seen != WHOLE) goto out;
    /* A sample has a byte at least: bounds a count that no table in the box vouches for. */
    *seen = WRONG;
    if (moof.n_samples > (uint64_t)(mdat_bytes - BOX_BYTES)) goto out;
    *seen = WHOLE;
    scan->n_frames += (int64_t)moof.n_samples;
    scan->n_fragments++;
    scan->n_bytes = at + moof_bytes + mdat_bytes;
out:
    return e;
}

err_t mp4_scan(int fd, const char *path, int64_t header_bytes, int64_t n_bytes,
               struct mp4_scan *scan)
{
    err_t e = OK;
    enum seen seen = WHOLE;
    struct mp4_scan s = {.n_bytes = header_bytes};
    MUST(header_bytes <= n_bytes);
    uint8_t *buffer = malloc(MOOF_BYTES_MAX);
    if (!buffer) return FAIL(ERR_NOMEM, "mp4: a moof of %d bytes", MOOF_BYTES_MAX);

    while (seen == WHOLE && s.n_bytes < n_bytes)
        TRY(scan_pair(fd, path, n_bytes, buffer, &s, &seen));
    if (seen == WRONG)
        TRY(FAIL(ERR_DATA, "%s: the fragment at byte %lld is not one that was written here", path,
                 (long long)s.n_bytes));
    *scan = s;
out:
    free(buffer);
    return e;
}
