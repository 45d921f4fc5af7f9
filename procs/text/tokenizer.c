/* tokenizer.c - see tokenizer.h. */
#include "procs/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/prompt.h"
#include "common/source.h"
#include "procs/text/charsmap.h"
#include "procs/text/rules.h"
#include "procs/text/unigram.h"

enum {
    MODEL_BYTES_MAX = 64 << 20,
    PART_BYTES_MAX = 2 * PROMPT_BYTES_MAX * CHARSMAP_GROWTH_MAX, /* mapped, spaces joined */
    METASPACE_BYTES = 3
};
#define METASPACE "\xE2\x96\x81" /* U+2581 */

struct tokenizer {
    int32_t vocab;
    struct spm *spm; /* NULL: bytes */
    struct rules *rules;
    struct unigram *unigram;
    struct charsmap map;
    char *part, *other, *word; /* a part of the text, normalised; it again; one word of it */
};

void tokenizer_close(struct tokenizer **t)
{
    if (!*t) return;
    unigram_close(&(*t)->unigram);
    rules_close(&(*t)->rules);
    spm_close(&(*t)->spm);
    free((*t)->part);
    free((*t)->other);
    free((*t)->word);
    free(*t);
    *t = NULL;
}

static err_t check_ids(const struct tokenizer *t)
{
    int32_t most = spm_count(t->spm) - 1;
    for (int32_t i = 0; i < t->rules->n_added; i++)
        if (t->rules->added[i].id > most) most = t->rules->added[i].id;
    if (most >= t->vocab)
        return FAIL(ERR_CONFIG, "text.vocab = %d: the tokenizer has ids to %d", t->vocab, most);
    return OK;
}

static err_t open_model(struct tokenizer *t, const char *path)
{
    err_t e = OK;
    struct stat st;
    char model[CONF_TEXT_MAX + 16], *data = NULL;
    size_t n_bytes = 0, n_map = 0;
    const bool is_dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    snprintf(model, sizeof model, "%s%s", path, is_dir ? "/spiece.model" : "");
    e = file_read(model, MODEL_BYTES_MAX, &data, &n_bytes);
    if (e == ERR_LIMIT) e = ERR_DATA;
    if (e != OK) goto out;
    TRY(spm_open(&t->spm, model, data, n_bytes));
    TRY(rules_open(&t->rules, is_dir ? path : NULL, t->spm));
    const uint8_t *map = spm_charsmap(t->spm, &n_map);
    TRY(charsmap_open(&t->map, model, map, n_map));
    TRY(check_ids(t));
    const size_t word_max = PART_BYTES_MAX + METASPACE_BYTES;
    TRY(unigram_open(&t->unigram, t->spm, t->rules->byte_fallback, word_max));
    t->part = malloc(PART_BYTES_MAX);
    t->other = malloc(PART_BYTES_MAX);
    t->word = malloc(word_max);
    if (!t->part || !t->other || !t->word) e = FAIL(ERR_NOMEM, "tokenizer");
out:
    free(data);
    return e;
}

err_t tokenizer_open(struct tokenizer **out, const struct conf *c)
{
    err_t e = OK;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) return FAIL(ERR_NOMEM, "tokenizer");
    t->vocab = c->text.vocab;
    if (strcmp(c->text.tokenizer, "bytes") != 0) {
        TRY(source_check_tokenizer(c));
        TRY(open_model(t, c->text.tokenizer));
    }
    *out = t;
    t = NULL;
out:
    tokenizer_close(&t);
    return e;
}

/* --- a part between added tokens -------------------------------------------------------------- */

/* Unicode's White_Space. */
static size_t space_at(const char *s, size_t n)
{
    const uint8_t *c = (const uint8_t *)s;
    if (n >= 1 && ((c[0] >= 9 && c[0] <= 13) || c[0] == ' ')) return 1;
    if (n >= 2 && c[0] == 0xC2 && (c[1] == 0x85 || c[1] == 0xA0)) return 2;
    if (n < 3) return 0;
    const uint32_t cp = (c[0] & 0xFu) << 12 | (c[1] & 0x3Fu) << 6 | (c[2] & 0x3Fu);
    const bool is_space =
        c[0] >> 4 == 0xE && (cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 ||
                             cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000);
    return is_space ? 3 : 0;
}

static size_t space_before(const char *s, size_t n)
{
    size_t back = 1;
    while (back < n && back < 3 && ((uint8_t)s[n - back] & 0xC0) == 0x80) back++;
    return n > 0 && space_at(s + n - back, back) == back ? back : 0;
}

/* s to out; returns the bytes. */
static size_t join_spaces(const char *s, size_t n, const char *join, char *out)
{
    size_t n_out = 0;
    for (size_t i = 0; i < n;) {
        size_t run = 0;
        while (i + run < n && s[i + run] == ' ') run++;
        if (run >= 2) {
            memcpy(out + n_out, join, strlen(join));
            n_out += strlen(join);
            i += run;
        } else {
            out[n_out++] = s[i++];
        }
    }
    return n_out;
}

/* From and to t->part; returns the bytes. */
static size_t normalise(struct tokenizer *t, size_t n)
{
    for (int32_t i = 0; i < t->rules->n_steps; i++) {
        char *from = t->part;
        size_t k;
        switch (t->rules->steps[i]) {
        case RULE_MAP:
            n = charsmap_apply(&t->map, t->part, n, t->other);
            break;
        case RULE_STRIP_LEFT:
            while ((k = space_at(from, n)) > 0) from += k, n -= k;
            memcpy(t->other, from, n);
            break;
        case RULE_STRIP_RIGHT:
            while ((k = space_before(t->part, n)) > 0) n -= k;
            continue;
        case RULE_JOIN:
            n = join_spaces(t->part, n, t->rules->join, t->other);
            break;
        }
        char *swap = t->part;
        t->part = t->other;
        t->other = swap;
    }
    return n;
}

/* Bytes of a word's beginning at s: a space or U+2581; 0: none. */
static size_t mark_at(const char *s, size_t n)
{
    if (n >= 1 && s[0] == ' ') return 1;
    return n >= METASPACE_BYTES && memcmp(s, METASPACE, METASPACE_BYTES) == 0 ? METASPACE_BYTES : 0;
}

/* is_first: the part begins where the text does. */
static void encode_part(struct tokenizer *t, const char *text, size_t n_text, bool is_first,
                        struct ids *out)
{
    const enum rule_prepend prepend = t->rules->prepend;
    bool has_mark = prepend == PREPEND_ALWAYS || (prepend == PREPEND_FIRST && is_first);
    memcpy(t->part, text, n_text);
    const size_t n = normalise(t, n_text);
    for (size_t i = 0; i < n;) {
        const size_t n_mark = mark_at(t->part + i, n - i);
        size_t n_word = 0;
        if (n_mark > 0 || has_mark) {
            memcpy(t->word, METASPACE, METASPACE_BYTES);
            n_word = METASPACE_BYTES;
        }
        has_mark = false;
        for (i += n_mark; i < n && mark_at(t->part + i, n - i) == 0; i++)
            t->word[n_word++] = t->part[i];
        unigram_encode(t->unigram, t->word, n_word, out);
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

static const struct added *added_at(const struct rules *r, const char *s, size_t n)
{
    for (int32_t i = 0; i < r->n_added; i++) /* longest first */
        if (r->added[i].n_bytes <= n && memcmp(r->added[i].text, s, r->added[i].n_bytes) == 0)
            return &r->added[i];
    return NULL;
}

static void encode_text(struct tokenizer *t, const char *text, size_t n, struct ids *out)
{
    size_t begin = 0; /* of the part in hand */
    for (size_t i = 0; i < n;) {
        const struct added *a = added_at(t->rules, text + i, n - i);
        if (!a) {
            i++;
            continue;
        }
        size_t end = i, k;
        while (a->takes_left && end > begin && (k = space_before(text + begin, end - begin)) > 0)
            end -= k;
        if (end > begin) encode_part(t, text + begin, end - begin, begin == 0, out);
        ids_put(out, a->id);
        i += a->n_bytes;
        while (a->takes_right && (k = space_at(text + i, n - i)) > 0) i += k;
        begin = i;
    }
    if (n > begin) encode_part(t, text + begin, n - begin, begin == 0, out);
}

static void encode_bytes(const struct tokenizer *t, const char *text, size_t n, struct ids *out)
{
    MUST(t->vocab >= 4);
    for (size_t i = 0; i < n; i++) ids_put(out, 2 + (uint8_t)text[i] % (t->vocab - 2));
}

int32_t tokenizer_encode(struct tokenizer *t, const char *text, int32_t n_max, int32_t *ids,
                         int32_t *n_full)
{
    const size_t n = strlen(text);
    struct ids out = {.at = ids, .n_max = n_max - 1};
    MUST(n_max >= 1 && n <= PROMPT_BYTES_MAX);
    if (t->spm) encode_text(t, text, n, &out);
    else encode_bytes(t, text, n, &out);
    const int32_t n_ids = out.n < out.n_max ? out.n : out.n_max;
    ids[n_ids] = t->spm ? t->rules->eos : TOKEN_EOS;
    *n_full = out.n + 1;
    return n_ids + 1;
}
