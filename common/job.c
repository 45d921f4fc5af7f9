/* job.c - see job.h. */
#include "common/job.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/prompt.h"

enum { JOB_VERSION = 1, FILE_BYTES_MAX = 16 * 1024 * 1024, PATH_BYTES_MAX = 4095 };
enum { STEPS_BYTES_MAX = 27 };

void job_videos_free(struct job_video **videos, int32_t n)
{
    struct job_video *v = *videos;
    for (int32_t i = 0; v && i < n; i++) {
        for (int32_t k = 0; v[i].prompts && k < v[i].n_prompts; k++) free(v[i].prompts[k].text);
        free(v[i].prompts);
        for (int32_t k = 0; v[i].presets && k < v[i].n_presets; k++) free(v[i].presets[k].steps);
        free(v[i].presets);
        free(v[i].out);
        free(v[i].hashes);
        free(v[i].noise);
        free(v[i].embeds);
        free(v[i].latents);
    }
    free(v);
    *videos = NULL;
}

void job_free(struct job **job)
{
    struct job *j = *job;
    if (!j) return;
    job_videos_free(&j->videos, j->n_videos);
    for (int32_t i = 0; j->prewarm && i < j->n_prewarm; i++) free(j->prewarm[i]);
    free(j->prewarm);
    free(j);
    *job = NULL;
}

/* Writing. Every json_* below takes NULL, and what is put into an object or array is owned by it.
 */

static const char *text(const char *s)
{
    return s ? s : "";
}

static json_t *pack_prompt(const struct job_prompt *p)
{
    return json_pack("{s:s, s:I, s:b, s:b}", "text", p->text, "at_block", (json_int_t)p->at_block,
                     "rebuild", p->is_rebuild, "clean", p->is_clean);
}

static json_t *pack_preset(const struct job_preset *p)
{
    return json_pack("{s:I, s:i, s:s}", "at_block", (json_int_t)p->at_block, "window",
                     (int)p->window, "steps", p->steps);
}

static json_t *pack_video(const struct job_video *v)
{
    json_t *prompts = json_array(), *presets = json_array();
    int bad = 0;
    for (int32_t i = 0; i < v->n_prompts; i++)
        bad |= json_array_append_new(prompts, pack_prompt(&v->prompts[i]));
    for (int32_t i = 0; i < v->n_presets; i++)
        bad |= json_array_append_new(presets, pack_preset(&v->presets[i]));
    if (bad) {
        json_decref(prompts);
        json_decref(presets);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:I, s:I, s:s, s:s, s:s, s:s, s:s}", "prompts", prompts, "presets",
                     presets, "blocks", (json_int_t)v->n_blocks, "seed", (json_int_t)v->seed, "out",
                     text(v->out), "hashes", text(v->hashes), "noise", text(v->noise), "embeds",
                     text(v->embeds), "latents", text(v->latents));
}

static json_t *pack_job(const struct job *job)
{
    char id[32]; /* a string: JSON's integers end at 2^63 */
    json_t *videos = json_array(), *prewarm = json_array();
    int bad = 0;
    for (int32_t i = 0; i < job->n_videos; i++)
        bad |= json_array_append_new(videos, pack_video(&job->videos[i]));
    for (int32_t i = 0; i < job->n_prewarm; i++)
        bad |= json_array_append_new(prewarm, json_string(job->prewarm[i]));
    if (bad) {
        json_decref(videos);
        json_decref(prewarm);
        return NULL;
    }
    snprintf(id, sizeof id, "%" PRIu64, job->id);
    return json_pack("{s:i, s:s, s:b, s:o, s:o}", "v", JOB_VERSION, "id", id, "live", job->is_live,
                     "videos", videos, "prewarm", prewarm);
}

/* Reading. */

static err_t get(const json_t *o, const char *key, json_type type, json_t **v)
{
    static const char *const names[] = {"an object", "an array",  "a string", "an integer",
                                        "a real",    "a boolean", "a boolean"};
    *v = json_object_get(o, key);
    if (!*v) return FAIL(ERR_DATA, "no \"%s\"", key);
    if (json_typeof(*v) == type || (type == JSON_TRUE && json_is_false(*v))) return OK;
    return FAIL(ERR_DATA, "\"%s\" is not %s", key, names[type]);
}

static err_t get_int(const json_t *o, const char *key, int64_t min, int64_t *v)
{
    err_t e = OK;
    json_t *j = NULL;
    TRY(get(o, key, JSON_INTEGER, &j));
    *v = json_integer_value(j);
    if (*v < min) return FAIL(ERR_DATA, "\"%s\" = %" PRId64 ": at least %" PRId64, key, *v, min);
out:
    return e;
}

static err_t copy_text(const json_t *j, const char *what, size_t n_bytes_max, char **text)
{
    if (!json_is_string(j)) return FAIL(ERR_DATA, "\"%s\" is not a string", what);
    if (json_string_length(j) > n_bytes_max)
        return FAIL(ERR_DATA, "\"%s\" of %zu bytes: at most %zu", what, json_string_length(j),
                    n_bytes_max);
    *text = strdup(json_string_value(j));
    return *text ? OK : FAIL(ERR_NOMEM, "%s", what);
}

static err_t get_text(const json_t *o, const char *key, size_t n_bytes_max, char **text)
{
    return copy_text(json_object_get(o, key), key, n_bytes_max, text);
}

/* Keys that nobody reads would be wishes that nobody hears. */
static err_t check_keys(const json_t *o, const char *const *known, size_t n_known)
{
    const char *key = NULL;
    json_t *v = NULL;
    if (!json_is_object(o)) return FAIL(ERR_DATA, "not an object");
    json_object_foreach((json_t *)o, key, v)
    {
        size_t i = 0;
        while (i < n_known && strcmp(known[i], key) != 0) i++;
        if (i == n_known) return FAIL(ERR_DATA, "unknown key \"%.60s\"", key);
    }
    return OK;
}

static err_t get_array(const json_t *o, const char *key, size_t n_max, json_t **a)
{
    err_t e = OK;
    TRY(get(o, key, JSON_ARRAY, a));
    if (json_array_size(*a) > n_max)
        return FAIL(ERR_DATA, "\"%s\" has %zu entries: at most %zu", key, json_array_size(*a),
                    n_max);
out:
    return e;
}

static err_t copy_prompt(const json_t *j, bool is_clean, char **text)
{
    err_t e = OK;
    if (is_clean) return copy_text(j, "text", PROMPT_BYTES_MAX, text);
    if (!json_is_string(j)) return FAIL(ERR_DATA, "a prompt is not a string");
    TRY(prompt_check(json_string_value(j), json_string_length(j)));
    *text = strdup(json_string_value(j));
    if (!*text) return FAIL(ERR_NOMEM, "a prompt");
out:
    return e;
}

static err_t read_prompts(const json_t *o, struct job_video *v)
{
    static const char *const keys[] = {"text", "at_block", "rebuild", "clean"};
    err_t e = OK;
    json_t *a = NULL;
    int64_t last = -1;
    TRY(get_array(o, "prompts", JOB_PROMPTS_MAX, &a));
    v->prompts = calloc(json_array_size(a) + 1, sizeof *v->prompts);
    if (!v->prompts) return FAIL(ERR_NOMEM, "prompts");
    for (size_t i = 0; i < json_array_size(a); i++) {
        struct job_prompt *p = &v->prompts[v->n_prompts++];
        TRY(check_keys(json_array_get(a, i), keys, 4));
        p->is_clean = json_is_true(json_object_get(json_array_get(a, i), "clean"));
        TRY(copy_prompt(json_object_get(json_array_get(a, i), "text"), p->is_clean, &p->text));
        TRY(get_int(json_array_get(a, i), "at_block", -1, &p->at_block));
        p->is_rebuild = json_is_true(json_object_get(json_array_get(a, i), "rebuild"));
        if (p->at_block >= 0 && p->at_block <= last)
            return FAIL(ERR_DATA, "\"at_block\" = %" PRId64 ": over %" PRId64 " before it",
                        p->at_block, last);
        if (p->at_block >= 0) last = p->at_block;
    }
out:
    return e;
}

static err_t read_presets(const json_t *o, struct job_video *v)
{
    static const char *const keys[] = {"at_block", "window", "steps"};
    err_t e = OK;
    json_t *a = NULL;
    int64_t last = -1, window;
    TRY(get_array(o, "presets", JOB_PROMPTS_MAX, &a));
    v->presets = calloc(json_array_size(a) + 1, sizeof *v->presets);
    if (!v->presets) return FAIL(ERR_NOMEM, "presets");
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *j = json_array_get(a, i);
        struct job_preset *p = &v->presets[v->n_presets++];
        TRY(check_keys(j, keys, 3));
        TRY(get_text(j, "steps", STEPS_BYTES_MAX, &p->steps));
        TRY(get_int(j, "window", 1, &window));
        TRY(get_int(j, "at_block", last + 1, &p->at_block));
        p->window = window < INT32_MAX ? (int32_t)window : INT32_MAX; /* too much either way */
        last = p->at_block;
    }
out:
    return e;
}

static err_t read_video(const json_t *o, bool is_live, struct job_video *v)
{
    static const char *const keys[] = {"prompts", "presets", "blocks", "seed",   "out",
                                       "hashes",  "noise",   "embeds", "latents"};
    err_t e = OK;
    TRY(check_keys(o, keys, sizeof keys / sizeof *keys));
    TRY(read_prompts(o, v));
    if (v->n_prompts == 0 && !is_live) return FAIL(ERR_DATA, "no prompts");
    TRY(get_int(o, "blocks", 0, &v->n_blocks));
    TRY(get_int(o, "seed", 0, &v->seed));
    TRY(get_text(o, "out", PATH_BYTES_MAX, &v->out));
    TRY(get_text(o, "hashes", PATH_BYTES_MAX, &v->hashes));
    TRY(get_text(o, "noise", PATH_BYTES_MAX, &v->noise));
    TRY(get_text(o, "embeds", PATH_BYTES_MAX, &v->embeds));
    TRY(get_text(o, "latents", PATH_BYTES_MAX, &v->latents));
    TRY(read_presets(o, v));
out:
    return e;
}

static err_t read_id(const json_t *o, uint64_t *id)
{
    err_t e = OK;
    json_t *j = NULL;
    char again[32];
    TRY(get(o, "id", JSON_STRING, &j));
    *id = strtoull(json_string_value(j), NULL, 10);
    snprintf(again, sizeof again, "%" PRIu64, *id);
    if (strcmp(again, json_string_value(j)) != 0)
        return FAIL(ERR_DATA, "\"id\" is not a whole number of 64 bits");
out:
    return e;
}

static err_t read_lists(const json_t *o, struct job *j)
{
    err_t e = OK;
    json_t *videos = NULL, *prewarm = NULL;
    TRY(get_array(o, "videos", JOB_VIDEOS_MAX, &videos));
    TRY(get_array(o, "prewarm", JOB_VIDEOS_MAX, &prewarm));
    j->videos = calloc(json_array_size(videos) + 1, sizeof *j->videos);
    j->prewarm = calloc(json_array_size(prewarm) + 1, sizeof *j->prewarm);
    if (!j->videos || !j->prewarm) return FAIL(ERR_NOMEM, "videos");
    for (size_t i = 0; i < json_array_size(videos); i++) {
        e = read_video(json_array_get(videos, i), j->is_live, &j->videos[j->n_videos++]);
        if (e != OK) return err_prefix(e, "video %zu", i);
    }
    for (size_t i = 0; i < json_array_size(prewarm); i++)
        TRY(copy_prompt(json_array_get(prewarm, i), false, &j->prewarm[j->n_prewarm++]));
out:
    return e;
}

static err_t unpack(const json_t *o, struct job **out)
{
    static const char *const keys[] = {"v", "id", "live", "videos", "prewarm"};
    err_t e = OK;
    json_t *live = NULL;
    int64_t version = 0;
    struct job *j = calloc(1, sizeof *j);
    if (!j) return FAIL(ERR_NOMEM, "job");
    TRY(check_keys(o, keys, sizeof keys / sizeof *keys));
    TRY(get_int(o, "v", 0, &version));
    if (version != JOB_VERSION) {
        e = FAIL(ERR_DATA, "version %" PRId64 ": only %d is known", version, JOB_VERSION);
        goto out;
    }
    TRY(read_id(o, &j->id));
    TRY(get(o, "live", JSON_TRUE, &live));
    j->is_live = json_is_true(live);
    TRY(read_lists(o, j));
    *out = j;
    j = NULL;
out:
    job_free(&j);
    return e;
}

err_t job_write(const char *path, const struct job *job)
{
    err_t e = OK;
    struct job *again = NULL;
    char *text = NULL;
    json_t *o = pack_job(job);
    if (!o) return FAIL(ERR_DATA, "%s: a text of the job is not UTF-8", path);
    e = unpack(o, &again); /* what job_read would refuse is not written */
    if (e != OK) {
        e = err_prefix(e, "%s", path);
        goto out;
    }
    text = json_dumps(o, JSON_INDENT(1));
    if (!text) e = FAIL(ERR_NOMEM, "%s", path);
    else if (strlen(text) > FILE_BYTES_MAX)
        e = FAIL(ERR_DATA, "%s: a job of %zu bytes: at most %d", path, strlen(text),
                 FILE_BYTES_MAX);
    else e = file_write(path, text, strlen(text));
out:
    job_free(&again);
    free(text);
    json_decref(o);
    return e;
}

err_t job_read(const char *path, struct job **job)
{
    char *data = NULL;
    size_t n_bytes = 0;
    json_error_t at;
    json_t *o = NULL;
    err_t e = file_read(path, FILE_BYTES_MAX, &data, &n_bytes);
    if (e == ERR_NOINPUT || e == ERR_LIMIT) e = ERR_DATA;
    if (e != OK) goto out;
    o = json_loadb(data, n_bytes, JSON_REJECT_DUPLICATES, &at);
    if (!o) {
        e = FAIL(ERR_DATA, "%s:%d: %s", path, at.line, at.text);
        goto out;
    }
    e = unpack(o, job);
    if (e != OK) e = err_prefix(e, "%s", path);
out:
    free(data);
    json_decref(o);
    return e;
}
