/* script.c - see script.h. */
#include "procs/supervisor/script.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/field.h"
#include "common/file.h"
#include "common/prompt.h"

enum { FILE_BYTES_MAX = 16 * 1024 * 1024 };
static const int64_t AT_MAX = INT64_C(1000000000000); /* 7,900 years at 16 frames a second */

/* One line on its way to a video. */
struct line {
    const struct script_conf *conf;
    int32_t n_prompts, n_at;
    int64_t *at;     /* [n_at] owned */
    int64_t *blocks; /* [n_prompts] owned */
};

void script_blocks(const int64_t *at, int32_t n_prompts, int32_t block, int64_t *blocks)
{
    blocks[0] = 0;
    for (int32_t i = 1; i < n_prompts; i++) {
        const int64_t due = (at[i - 1] + block - 1) / block;
        const int64_t free_from = i == 1 ? 0 : blocks[i - 1] + 1;
        blocks[i] = due > free_from ? due : free_from;
    }
}

static err_t add_at(struct line *l, int64_t index)
{
    const int64_t last = l->n_at > 0 ? l->at[l->n_at - 1] : 0;
    if (index < 0 || index > AT_MAX)
        return FAIL(ERR_DATA, "switch %d at %" PRId64 ": from 0 to %" PRId64, l->n_at + 1, index,
                    AT_MAX);
    if (index < last)
        return FAIL(ERR_DATA, "switch %d at %" PRId64 " comes after one at %" PRId64, l->n_at + 1,
                    index, last);
    l->at[l->n_at++] = index;
    return OK;
}

static err_t alloc_at(struct line *l, size_t n)
{
    free(l->at);
    l->at = calloc(n + 1, sizeof *l->at);
    return l->at ? OK : FAIL(ERR_NOMEM, "switch indices");
}

/* "40, 80": as LongLive's YAML spells it. */
static err_t read_at_text(struct line *l, const char *s)
{
    err_t e = OK;
    TRY(alloc_at(l, strlen(s)));
    s += strspn(s, " ");
    if (*s == '\0') return OK;
    for (;; s++) {
        char *end = NULL;
        errno = 0;
        const int64_t v = strtoll(s, &end, 10);
        if (end == s || errno != 0)
            return FAIL(ERR_DATA, "\"switch\": integers with commas between them are expected");
        TRY(add_at(l, v));
        s = end + strspn(end, " ");
        if (*s == '\0') return OK;
        if (*s != ',')
            return FAIL(ERR_DATA, "\"switch\": integers with commas between them are expected");
    }
out:
    return e;
}

static err_t read_at(struct line *l, const json_t *v)
{
    err_t e = OK;
    if (json_is_string(v)) return read_at_text(l, json_string_value(v));
    TRY(alloc_at(l, json_is_array(v) ? json_array_size(v) : 1));
    if (json_is_integer(v)) return add_at(l, json_integer_value(v));
    if (!json_is_array(v))
        return FAIL(ERR_DATA, "\"switch\" is neither a list of integers, nor one, nor a string");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *index = json_array_get(v, i);
        if (!json_is_integer(index)) return FAIL(ERR_DATA, "\"switch\" holds what is no integer");
        TRY(add_at(l, json_integer_value(index)));
    }
out:
    return e;
}

static err_t default_at(struct line *l)
{
    err_t e = OK;
    TRY(alloc_at(l, (size_t)l->conf->n_at));
    if (l->n_prompts == 1) return OK;
    if (!l->conf->at)
        return FAIL(ERR_DATA, "%d prompts and no \"switch\": %d expected", l->n_prompts,
                    l->n_prompts - 1);
    for (int32_t i = 0; i < l->conf->n_at; i++) TRY(add_at(l, l->conf->at[i]));
out:
    return e;
}

static err_t check_keys(const json_t *o)
{
    static const char *const known[] = {"prompts", "switch", "switch_frame_indices"};
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)o, key, v)
    {
        size_t i = 0;
        while (i < 3 && strcmp(known[i], key) != 0) i++;
        if (i < 3) continue;
        const char *near = field_nearest(key, known, 3);
        if (!near) return FAIL(ERR_DATA, "unknown key \"%.60s\"", key);
        return FAIL(ERR_DATA, "unknown key \"%.60s\" (did you mean \"%s\"?)", key, near);
    }
    return OK;
}

/* One prompt to the end of the video's list. */
static err_t add_prompt(struct job_video *v, const char *text, size_t n_bytes)
{
    err_t e = OK;
    TRY(prompt_check(text, n_bytes));
    v->prompts[v->n_prompts].text = strndup(text, n_bytes);
    if (!v->prompts[v->n_prompts].text) return FAIL(ERR_NOMEM, "a prompt");
    v->n_prompts++;
out:
    return e;
}

static err_t alloc_video(struct job_video *v, const struct script_conf *conf, size_t n_prompts)
{
    v->n_blocks = conf->n_blocks;
    v->seed = conf->seed;
    v->out = strdup("");
    v->hashes = strdup("");
    v->prompts = calloc(n_prompts, sizeof *v->prompts);
    return v->out && v->hashes && v->prompts ? OK : FAIL(ERR_NOMEM, "a video");
}

static err_t read_prompts(const json_t *o, struct line *l, struct job_video *v)
{
    err_t e = OK;
    const json_t *a = json_object_get(o, "prompts");
    const size_t n = json_array_size(a);
    if (a && !json_is_array(a)) return FAIL(ERR_DATA, "\"prompts\" is not a list");
    if (n == 0) return FAIL(ERR_DATA, "no prompts");
    if (n > JOB_PROMPTS_MAX) return FAIL(ERR_DATA, "%zu prompts: at most %d", n, JOB_PROMPTS_MAX);
    TRY(alloc_video(v, l->conf, n));
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(a, i);
        if (!json_is_string(p)) return FAIL(ERR_DATA, "prompt %zu is not a string", i);
        e = add_prompt(v, json_string_value(p), json_string_length(p));
        if (e != OK) return err_prefix(e, "prompt %zu", i);
    }
    l->n_prompts = (int32_t)n;
out:
    return e;
}

/* Gives every prompt its block; index 0 drops prompt 0. */
static err_t place_prompts(const struct line *l, struct job_video *v)
{
    if (l->n_at != l->n_prompts - 1)
        return FAIL(ERR_DATA, "%d switch indices for %d prompts: %d expected", l->n_at,
                    l->n_prompts, l->n_prompts - 1);
    script_blocks(l->at, l->n_prompts, l->conf->block, l->blocks);
    for (int32_t i = 0; i < l->n_prompts; i++) {
        if (i > 0 && v->n_blocks > 0 && l->blocks[i] >= v->n_blocks)
            return FAIL(ERR_DATA,
                        "switch %d at latent %" PRId64 " is at block %" PRId64
                        ": the video ends after %" PRId64 " blocks",
                        i, l->at[i - 1], l->blocks[i], v->n_blocks);
        v->prompts[i].at_block = l->blocks[i];
    }
    if (l->n_prompts > 1 && l->blocks[1] == 0) {
        free(v->prompts[0].text);
        v->n_prompts--;
        memmove(v->prompts, v->prompts + 1, (size_t)v->n_prompts * sizeof *v->prompts);
    }
    return OK;
}

static err_t read_object(const json_t *o, const struct script_conf *conf, struct job_video *v)
{
    err_t e = OK;
    struct line l = {.conf = conf};
    const json_t *at = json_object_get(o, "switch");
    const json_t *synonym = json_object_get(o, "switch_frame_indices");
    if (!json_is_object(o)) return FAIL(ERR_DATA, "a line is one JSON object");
    TRY(check_keys(o));
    TRY(read_prompts(o, &l, v));
    if (at && synonym) {
        e = FAIL(ERR_DATA, "both \"switch\" and \"switch_frame_indices\"");
        goto out;
    }
    if (at || synonym) TRY(read_at(&l, at ? at : synonym));
    else TRY(default_at(&l));
    l.blocks = calloc((size_t)l.n_prompts, sizeof *l.blocks);
    if (!l.blocks) {
        e = FAIL(ERR_NOMEM, "blocks");
        goto out;
    }
    TRY(place_prompts(&l, v));
out:
    free(l.at);
    free(l.blocks);
    return e;
}

static err_t read_json_line(const char *line, size_t n, const struct script_conf *conf,
                            struct job_video *v)
{
    err_t e = OK;
    json_error_t at;
    json_t *o = json_loadb(line, n, JSON_REJECT_DUPLICATES, &at);
    if (!o) return FAIL(ERR_DATA, "column %d: %s", at.column, at.text);
    e = read_object(o, conf, v);
    json_decref(o);
    return e;
}

static err_t read_text_line(const char *line, size_t n, const struct script_conf *conf,
                            struct job_video *v)
{
    err_t e = OK;
    TRY(alloc_video(v, conf, 1));
    TRY(add_prompt(v, line, n));
out:
    return e;
}

/* The next line without the white space at its end; its length. */
static size_t take_line(const char **next, const char *end, const char **line)
{
    const char *nl = memchr(*next, '\n', (size_t)(end - *next));
    size_t n = (size_t)((nl ? nl : end) - *next);
    *line = *next;
    *next += n + (nl != NULL);
    while (n > 0 && strchr(" \t\r\v\f", (*line)[n - 1]) && (*line)[n - 1] != '\0') n--;
    return n;
}

static err_t add_line(struct job_video **videos, int32_t *n_videos, bool is_json, const char *line,
                      size_t n, const struct script_conf *conf)
{
    if (*n_videos == JOB_VIDEOS_MAX) return FAIL(ERR_DATA, "over %d videos", JOB_VIDEOS_MAX);
    if ((*n_videos & (*n_videos - 1)) == 0) { /* full at every power of two */
        const size_t cap = *n_videos > 0 ? (size_t)*n_videos * 2 : 1;
        struct job_video *more = realloc(*videos, cap * sizeof *more);
        if (!more) return FAIL(ERR_NOMEM, "videos");
        *videos = more;
    }
    struct job_video *v = &(*videos)[(*n_videos)++];
    memset(v, 0, sizeof *v);
    return is_json ? read_json_line(line, n, conf, v) : read_text_line(line, n, conf, v);
}

err_t script_read(const char *path, const struct script_conf *conf, struct job_video **videos,
                  int32_t *n_videos)
{
    err_t e = OK;
    char *data = NULL;
    struct job_video *v = NULL;
    size_t n_bytes = 0;
    int32_t n = 0;
    const char *dot = strrchr(path, '.');
    const bool is_json = dot && strcmp(dot, ".jsonl") == 0;
    MUST(conf->block >= 1 && conf->n_blocks >= 0 && conf->n_at >= 0);
    if (!is_json && !(dot && strcmp(dot, ".txt") == 0))
        return FAIL(ERR_DATA, "%s: a script is a .jsonl or a .txt file", path);
    e = file_read(path, FILE_BYTES_MAX, &data, &n_bytes);
    if (e == ERR_LIMIT) e = ERR_DATA;
    if (e != OK) goto out;

    const char *next = data, *end = data + n_bytes;
    if (n_bytes >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0) next += 3;
    for (int32_t number = 1; next < end; number++) {
        const char *line = NULL;
        const size_t n_line = take_line(&next, end, &line);
        if (n_line == 0) continue;
        e = add_line(&v, &n, is_json, line, n_line, conf);
        if (e != OK) {
            e = err_prefix(e, "%s:%d", path, number);
            goto out;
        }
    }
    if (n == 0) {
        e = FAIL(ERR_DATA, "%s: no videos", path);
        goto out;
    }
    *videos = v;
    *n_videos = n;
    v = NULL;
out:
    job_videos_free(&v, n);
    free(data);
    return e;
}
