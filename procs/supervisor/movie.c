/* movie.c - see movie.h. */
#include "procs/supervisor/movie.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 256, SIDE_MAX = 16384 };

struct open_movie {
    struct movie m;
    FILE *f;
    char path[LINE_BYTES];
    int64_t n_read;
};

/* The number behind a letter of the header, or 0. */
static int32_t size_of(const char *word)
{
    char *end;
    const long n = strtol(word + 1, &end, 10);
    return *end == '\0' && n >= 2 && n <= SIDE_MAX && n % 2 == 0 ? (int32_t)n : 0;
}

/* YUV4MPEG2 W48 H32 F16:1 Ip A1:1 C420jpeg ...; without C it is 4:2:0, too. Source: yuv4mpeg(5). */
static err_t read_header(struct open_movie *o)
{
    char line[LINE_BYTES], *save = NULL;
    if (!fgets(line, sizeof line, o->f) || !strchr(line, '\n') || strncmp(line, "YUV4MPEG2 ", 10))
        return FAIL(ERR_DATA, "%s: not a y4m file", o->path);
    *strchr(line, '\n') = '\0';
    strtok_r(line, " ", &save);
    for (char *w; (w = strtok_r(NULL, " ", &save));) {
        if (*w == 'W') o->m.width_px = size_of(w);
        if (*w == 'H') o->m.height_px = size_of(w);
        if (*w == 'C' && strcmp(w, "C420jpeg") != 0 && strcmp(w, "C420") != 0)
            return FAIL(ERR_DATA, "%s: %s is not 4:2:0", o->path, w);
    }
    if (!o->m.width_px || !o->m.height_px)
        return FAIL(ERR_DATA, "%s: no even width and height up to %d", o->path, SIDE_MAX);
    return OK;
}

err_t movie_open(struct movie **out, const char *path)
{
    err_t e = OK;
    struct open_movie *o = calloc(1, sizeof *o);
    struct movie *m = o ? &o->m : NULL;
    if (!o) return FAIL(ERR_NOMEM, "movie");
    snprintf(o->path, sizeof o->path, "%s", path);
    o->f = fopen(path, "rb");
    if (!o->f) {
        e = FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
        goto out;
    }
    TRY(read_header(o));
    m->n_bytes = (size_t)m->width_px * (size_t)m->height_px * 3 / 2;
    m->yuv = malloc(m->n_bytes);
    if (!m->yuv) {
        e = FAIL(ERR_NOMEM, "a frame of %s", path);
        goto out;
    }
    *out = m;
    m = NULL;
out:
    movie_close(&m);
    return e;
}

void movie_close(struct movie **m)
{
    struct open_movie *o = (struct open_movie *)*m;
    if (!o) return;
    if (o->f) fclose(o->f);
    free(o->m.yuv);
    free(o);
    *m = NULL;
}

err_t movie_next(struct movie *m, bool *has_frame)
{
    struct open_movie *o = (struct open_movie *)m;
    char line[LINE_BYTES];
    *has_frame = fgets(line, sizeof line, o->f) != NULL;
    if (!*has_frame && !ferror(o->f)) return OK;
    if (!*has_frame || strncmp(line, "FRAME", 5) != 0 || !strchr(line, '\n') ||
        fread(m->yuv, 1, m->n_bytes, o->f) != m->n_bytes)
        return FAIL(ERR_DATA, "%s: frame %lld is not whole", o->path, (long long)o->n_read);
    o->n_read++;
    return OK;
}
