/* rules.c - see rules.h. */
#include "procs/text/rules.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"

enum { FILE_BYTES_MAX = 64 << 20, ADDED_MAX = 4096, EXTRA_IDS = 300, PATH_BYTES = 400 };
#define METASPACE "\xE2\x96\x81" /* U+2581 */

void rules_close(struct rules **r)
{
    if (!*r) return;
    for (int32_t i = 0; (*r)->added && i < (*r)->n_added; i++) free((*r)->added[i].text);
    free((*r)->added);
    free(*r);
    *r = NULL;
}

/* --- added tokens ----------------------------------------------------------------------------- */

static err_t add(struct rules *r, const char *text, int32_t id, bool left, bool right)
{
    struct added *a = r->added;
    while (a < r->added + r->n_added && strcmp(a->text, text) != 0) a++;
    if (a == r->added + r->n_added) {
        if (r->n_added == ADDED_MAX) return FAIL(ERR_DATA, "over %d added tokens", ADDED_MAX);
        a->text = strdup(text);
        if (!a->text) return FAIL(ERR_NOMEM, "tokenizer");
        a->n_bytes = strlen(text);
        r->n_added++;
    }
    a->id = id;
    a->takes_left = left;
    a->takes_right = right;
    return OK;
}

static int32_t piece_id(const struct spm *s, const char *text)
{
    for (int32_t id = 0; id < spm_count(s); id++) {
        size_t n;
        float score;
        if (strcmp(spm_piece(s, id, &n, &score), text) == 0) return id;
    }
    return -1;
}

static err_t set_defaults(struct rules *r, const struct spm *s)
{
    static const char *const special[] = {"<pad>", "</s>", "<s>", "<unk>"};
    err_t e = OK;
    size_t n_map;
    (void)spm_charsmap(s, &n_map);
    if (n_map > 0) r->steps[r->n_steps++] = RULE_MAP;
    r->steps[r->n_steps++] = RULE_STRIP_RIGHT;
    r->steps[r->n_steps++] = RULE_JOIN;
    strcpy(r->join, METASPACE);
    r->prepend = PREPEND_ALWAYS;
    r->byte_fallback = spm_has_bytes(s);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        const int32_t id = piece_id(s, special[i]);
        if (id >= 0) TRY(add(r, special[i], id, false, false));
    }
    for (int32_t i = 0; i < EXTRA_IDS; i++) {
        char text[32];
        snprintf(text, sizeof text, "<extra_id_%d>", i);
        TRY(add(r, text, spm_count(s) + EXTRA_IDS - 1 - i, false, false));
    }
out:
    return e;
}

static bool flag(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

/* One token of tokenizer.json or of tokenizer_config.json, whose id is its key. */
static err_t add_json(struct rules *r, const json_t *o, double id)
{
    const json_t *text = json_object_get(o, "content");
    if (!json_is_string(text) || json_string_length(text) == 0 ||
        strlen(json_string_value(text)) != json_string_length(text))
        return FAIL(ERR_DATA, "an added token without content");
    if (!(id >= 0 && id < INT32_MAX)) return FAIL(ERR_DATA, "an added token without id");
    if (flag(o, "single_word") || flag(o, "normalized"))
        return FAIL(ERR_DATA, "added token %.40s: single_word and normalized are not known",
                    json_string_value(text));
    return add(r, json_string_value(text), (int32_t)id, flag(o, "lstrip"), flag(o, "rstrip"));
}

static int by_length(const void *a, const void *b)
{
    const size_t n_a = ((const struct added *)a)->n_bytes, n_b = ((const struct added *)b)->n_bytes;
    return (n_a < n_b) - (n_a > n_b);
}

/* --- tokenizer.json --------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool has_step(const struct rules *r, enum rule_step step)
{
    for (int32_t i = 0; i < r->n_steps; i++)
        if (r->steps[i] == step) return true;
    return false;
}

static err_t add_step(struct rules *r, const json_t *o)
{
    const char *type = text_of(o, "type");
    if (r->n_steps + 2 > RULES_STEPS_MAX) return FAIL(ERR_DATA, "normalizer: too many steps");
    if ((strcmp(type, "Precompiled") == 0 && has_step(r, RULE_MAP)) ||
        (strcmp(type, "Replace") == 0 && has_step(r, RULE_JOIN)))
        return FAIL(ERR_DATA, "normalizer %s: a second time", type); /* bounds its growth */
    if (strcmp(type, "Precompiled") == 0) {
        r->steps[r->n_steps++] = RULE_MAP;
    } else if (strcmp(type, "Strip") == 0) {
        if (flag(o, "strip_left")) r->steps[r->n_steps++] = RULE_STRIP_LEFT;
        if (flag(o, "strip_right")) r->steps[r->n_steps++] = RULE_STRIP_RIGHT;
    } else if (strcmp(type, "Replace") == 0 &&
               strcmp(text_of(json_object_get(o, "pattern"), "Regex"), " {2,}") == 0 &&
               strlen(text_of(o, "content")) <= RULES_JOIN_BYTES_MAX) {
        r->steps[r->n_steps++] = RULE_JOIN;
        strcpy(r->join, text_of(o, "content"));
    } else {
        return FAIL(ERR_DATA, "normalizer %.40s: not known", type);
    }
    return OK;
}

static err_t read_normalizer(struct rules *r, const json_t *o)
{
    err_t e = OK;
    const json_t *step;
    size_t i;
    r->n_steps = 0;
    if (!o || json_is_null(o)) return OK;
    if (strcmp(text_of(o, "type"), "Sequence") != 0) return add_step(r, o);
    json_array_foreach(json_object_get(o, "normalizers"), i, step) TRY(add_step(r, step));
out:
    return e;
}

static err_t read_pre_tokenizer(struct rules *r, const json_t *o)
{
    static const char *const names[] = {"always", "first", "never"};
    const char *scheme = text_of(o, "prepend_scheme");
    if (strcmp(text_of(o, "type"), "Metaspace") != 0 ||
        strcmp(text_of(o, "replacement"), METASPACE) != 0 ||
        json_is_false(json_object_get(o, "split")))
        return FAIL(ERR_DATA, "pre_tokenizer %.40s: only a splitting Metaspace is known",
                    text_of(o, "type"));
    if (!*scheme) scheme = flag(o, "add_prefix_space") ? "always" : "never"; /* older files */
    for (int i = 0; i < 3; i++) {
        if (strcmp(scheme, names[i]) != 0) continue;
        r->prepend = (enum rule_prepend)i;
        return OK;
    }
    return FAIL(ERR_DATA, "prepend_scheme %.40s: not known", scheme);
}

static err_t read_tokenizer(struct rules *r, const json_t *o)
{
    err_t e = OK;
    const json_t *token, *model = json_object_get(o, "model");
    size_t i;
    if (strcmp(text_of(model, "type"), "Unigram") != 0)
        return FAIL(ERR_DATA, "model %.40s: only Unigram is known", text_of(model, "type"));
    r->byte_fallback = flag(model, "byte_fallback");
    TRY(read_normalizer(r, json_object_get(o, "normalizer")));
    TRY(read_pre_tokenizer(r, json_object_get(o, "pre_tokenizer")));
    json_array_foreach(json_object_get(o, "added_tokens"), i, token)
    {
        const json_t *id = json_object_get(token, "id");
        TRY(add_json(r, token, json_is_real(id) ? json_real_value(id) : -1));
    }
out:
    return e;
}

static err_t read_config(struct rules *r, const json_t *o)
{
    err_t e = OK;
    const char *key;
    json_t *token;
    json_object_foreach(json_object_get((json_t *)o, "added_tokens_decoder"), key, token)
    {
        char *end;
        const long id = strtol(key, &end, 10);
        TRY(add_json(r, token, *key && !*end ? (double)id : -1));
    }
out:
    return e;
}

/* *is_there false: there is no such file. */
static err_t read_file(struct rules *r, const char *dir, const char *name,
                       err_t (*take)(struct rules *r, const json_t *o), bool *is_there)
{
    char path[PATH_BYTES], *data = NULL;
    size_t n_bytes = 0;
    json_error_t at;
    json_t *o = NULL;
    err_t e = OK;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    *is_there = access(path, F_OK) == 0;
    if (!*is_there) return OK;
    TRY(file_read(path, FILE_BYTES_MAX, &data, &n_bytes));
    /* model_max_length is an integer of 31 digits: all numbers are reals. */
    o = json_loadb(data, n_bytes, JSON_DECODE_INT_AS_REAL, &at);
    if (!o) {
        e = FAIL(ERR_DATA, "%s:%d: %s", path, at.line, at.text);
        goto out;
    }
    e = take(r, o);
    if (e != OK) e = err_prefix(e, "%s", path);
out:
    json_decref(o);
    free(data);
    return e;
}

err_t rules_open(struct rules **out, const char *dir, const struct spm *s)
{
    err_t e = OK;
    bool has_json = false, has_config = false;
    struct rules *r = calloc(1, sizeof *r);
    if (!r) return FAIL(ERR_NOMEM, "tokenizer");
    r->added = calloc(ADDED_MAX, sizeof *r->added);
    if (!r->added) {
        e = FAIL(ERR_NOMEM, "tokenizer");
        goto out;
    }
    if (dir) TRY(read_file(r, dir, "tokenizer.json", read_tokenizer, &has_json));
    if (!has_json) TRY(set_defaults(r, s));
    if (dir) TRY(read_file(r, dir, "tokenizer_config.json", read_config, &has_config));
    qsort(r->added, (size_t)r->n_added, sizeof *r->added, by_length);
    r->eos = piece_id(s, "</s>");
    if (r->eos < 0) e = FAIL(ERR_DATA, "%s: the model has no piece </s>", dir ? dir : "tokenizer");
    if (e == OK) {
        *out = r;
        r = NULL;
    }
out:
    rules_close(&r);
    return e;
}
