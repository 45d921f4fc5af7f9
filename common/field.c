/* field.c - see field.h. */
#include "common/field.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void field_bounds(const struct field *f, char *text, size_t cap)
{
    size_t n = 0;
    switch (f->type) {
    case FIELD_I32:
    case FIELD_I64:
        snprintf(text, cap, "from %" PRId64 " to %" PRId64, f->min, f->max);
        return;
    case FIELD_BOOL:
        snprintf(text, cap, "true or false");
        return;
    case FIELD_TEXT:
    case FIELD_PATH:
        if (f->min > 0) snprintf(text, cap, "%" PRId64 " to %" PRId64 " bytes", f->min, f->max);
        else snprintf(text, cap, "up to %" PRId64 " bytes", f->max);
        return;
    case FIELD_ENUM:
        break;
    }
    text[0] = '\0';
    for (int64_t i = 0; i <= f->max && n < cap; i++)
        n += (size_t)snprintf(text + n, cap - n, "%s%s", i ? " or " : "", f->names[i]);
}

static err_t refuse(const struct field *f, const char *text, const char *before)
{
    char bounds[FIELD_VALUE_MAX];
    field_bounds(f, bounds, sizeof bounds);
    return FAIL(ERR_CONFIG, "%s.%s = %.80s%s: %s%s", f->section, f->key, text,
                strlen(text) > 80 ? "..." : "", before, bounds);
}

static err_t set_integer(const struct field *f, char *member, const char *text)
{
    char *end = NULL;
    const char *digits = text + (text[0] == '-');
    /* strtoll alone would take "+3", " 3" and "". */
    const bool is_integer = digits[0] != '\0' && digits[strspn(digits, "0123456789")] == '\0';
    if (!is_integer) return refuse(f, text, "an integer ");
    errno = 0;
    const int64_t v = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0' || v < f->min || v > f->max) return refuse(f, text, "");
    if (f->type == FIELD_I64) {
        memcpy(member, &v, sizeof v);
    } else {
        const int32_t v32 = (int32_t)v;
        memcpy(member, &v32, sizeof v32);
    }
    return OK;
}

static err_t set_text(const struct field *f, char *member, const char *text)
{
    const size_t n = strlen(text);
    if ((int64_t)n < f->min || (int64_t)n > f->max) return refuse(f, text, "");
    for (size_t i = 0; i < n; i++) {
        const uint8_t c = (uint8_t)text[i];
        if (c < ' ' || c == 0x7F || c == ';')
            return FAIL(ERR_CONFIG, "%s.%s: cannot hold %s (byte %zu)", f->section, f->key,
                        c == ';' ? "';'" : "a control character", i + 1);
    }
    if (n > 0 && (text[0] == ' ' || text[n - 1] == ' '))
        return FAIL(ERR_CONFIG, "%s.%s: white space at an end", f->section, f->key);
    memset(member, 0, f->n_bytes);
    memcpy(member, text, n);
    return OK;
}

err_t field_set(const struct field *f, void *base, const char *text)
{
    char *member = (char *)base + f->at;
    switch (f->type) {
    case FIELD_I32:
        MUST(f->n_bytes == sizeof(int32_t));
        return set_integer(f, member, text);
    case FIELD_I64:
        MUST(f->n_bytes == sizeof(int64_t));
        return set_integer(f, member, text);
    case FIELD_TEXT:
    case FIELD_PATH:
        MUST(f->max < (int64_t)f->n_bytes);
        return set_text(f, member, text);
    case FIELD_BOOL: {
        const bool v = strcmp(text, "true") == 0;
        MUST(f->n_bytes == sizeof v);
        if (!v && strcmp(text, "false") != 0) return refuse(f, text, "");
        memcpy(member, &v, sizeof v);
        return OK;
    }
    case FIELD_ENUM:
        MUST(f->n_bytes == sizeof(int32_t));
        for (int32_t i = 0; i <= f->max; i++) {
            if (strcmp(text, f->names[i]) != 0) continue;
            memcpy(member, &i, sizeof i);
            return OK;
        }
        return refuse(f, text, "");
    }
    MUST(!"a type that field_set knows");
}

void field_get(const struct field *f, const void *base, char *text, size_t cap)
{
    const char *member = (const char *)base + f->at;
    int32_t v32 = 0;
    int64_t v64 = 0;
    bool v = false;
    MUST(cap >= FIELD_VALUE_MAX);
    switch (f->type) {
    case FIELD_I32:
        memcpy(&v32, member, sizeof v32);
        snprintf(text, cap, "%" PRId32, v32);
        return;
    case FIELD_I64:
        memcpy(&v64, member, sizeof v64);
        snprintf(text, cap, "%" PRId64, v64);
        return;
    case FIELD_BOOL:
        memcpy(&v, member, sizeof v);
        snprintf(text, cap, "%s", v ? "true" : "false");
        return;
    case FIELD_TEXT:
    case FIELD_PATH:
        snprintf(text, cap, "%s", member);
        return;
    case FIELD_ENUM:
        memcpy(&v32, member, sizeof v32);
        MUST(v32 >= 0 && v32 <= f->max);
        snprintf(text, cap, "%s", f->names[v32]);
        return;
    }
}

const struct field *field_find(const struct field *fields, int32_t n, const char *section,
                               const char *key)
{
    for (int32_t i = 0; i < n; i++)
        if (strcmp(fields[i].section, section) == 0 && strcmp(fields[i].key, key) == 0)
            return &fields[i];
    return NULL;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein 1966, by the rows of Wagner and Fischer 1974; b up to FIELD_NAME_MAX bytes. */
static size_t distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t row[FIELD_NAME_MAX + 1];
    for (size_t j = 0; j <= n_b; j++) row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            const size_t swap = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(swap, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[n_b];
}

const char *field_nearest(const char *word, const char *const *known, int32_t n)
{
    const char *best = NULL;
    const size_t n_word = strlen(word);
    if (n_word > FIELD_NAME_MAX) return NULL;
    size_t best_d = (n_word / 3 > 2 ? n_word / 3 : 2) + 1;
    for (int32_t i = 0; i < n; i++) {
        MUST(strlen(known[i]) <= FIELD_NAME_MAX);
        const size_t d = distance(word, n_word, known[i], strlen(known[i]));
        if (d >= best_d) continue;
        best_d = d;
        best = known[i];
    }
    return best;
}
