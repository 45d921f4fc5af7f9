/* clean.c - see clean.h. */
#include "common/clean.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "common/entities.h"

/* A code point becomes four of at most 4 bytes at the worst; an entity, a fifth more than it was.
 */
enum { GROWTH_MAX = 16, NAME_MAX_CHARS = 32, FTFY_NAME_MAX = 24, UNKNOWN = 0xFFFD };

struct text {
    char *at; /* room: cap */
    size_t n, cap;
};

static void put(struct text *t, const char *s, size_t n)
{
    MUST(n <= t->cap - t->n);
    memcpy(t->at + t->n, s, n);
    t->n += n;
}

static void put_char(struct text *t, int32_t cp)
{
    utf8proc_uint8_t s[4];
    put(t, (const char *)s, (size_t)utf8proc_encode_char(cp, s));
}

static size_t get_char(const char *s, size_t n, int32_t *cp)
{
    const utf8proc_ssize_t len =
        utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, cp);
    MUST(len > 0); /* valid, by contract */
    return (size_t)len;
}

static err_t reserve(struct text *t, size_t n_from)
{
    const size_t cap = GROWTH_MAX * (n_from + 1);
    if (cap <= t->cap) return OK;
    char *at = realloc(t->at, cap);
    if (!at) return FAIL(ERR_NOMEM, "prompt");
    t->at = at;
    t->cap = cap;
    return OK;
}

/* --- entities --------------------------------------------------------------------------------- */

/* Bytes 0x80 to 0x9F in Windows-1252; where it has none, as they are. */
static int32_t windows_1252(int32_t byte)
{
    static const uint16_t of[32] = {
        0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
        0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178,
    };
    return of[byte - 0x80];
}

/* A number of a character reference: -1 is nothing at all. */
static int32_t numbered(uint32_t v)
{
    if (v == 0) return UNKNOWN;
    if (v >= 0x80 && v <= 0x9F) return windows_1252((int32_t)v);
    if ((v >= 0xD800 && v <= 0xDFFF) || v > 0x10FFFF) return UNKNOWN;
    if (v < 9 || v == 0xB || (v >= 0xE && v < 0x20) || v == 0x7F || (v >= 0xFDD0 && v <= 0xFDEF) ||
        (v & 0xFFFE) == 0xFFFE)
        return -1;
    return (int32_t)v;
}

/* "&#123;" or "&#x7b;", with or without the end; the bytes it takes, 0: it is none. */
static size_t read_number(const char *s, size_t n, int32_t *cp, bool *has_end)
{
    const bool is_hex = n > 2 && (s[2] == 'x' || s[2] == 'X');
    const size_t first = is_hex ? 3 : 2;
    size_t i = first;
    uint32_t v = 0;
    if (n < 3 || s[1] != '#') return 0;
    for (; i < n; i++) {
        const char c = s[i];
        const uint32_t digit = c >= '0' && c <= '9'             ? (uint32_t)(c - '0')
                               : is_hex && c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                               : is_hex && c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                                : 99;
        if (digit == 99) break;
        v = v > 0x110000 ? v : v * (is_hex ? 16 : 10) + digit;
    }
    if (i == first) return 0;
    *cp = numbered(v);
    *has_end = i < n && s[i] == ';';
    return i + *has_end;
}

/* As html.unescape: any name, with or without its end, or the longest name that it begins with. */
static size_t read_name(const char *s, size_t n, const char **text, size_t *n_text)
{
    size_t ends[NAME_MAX_CHARS + 1] = {1}, i = 1;
    int n_chars = 0;
    int32_t cp;
    while (i < n && n_chars < NAME_MAX_CHARS && !strchr("\t\n\f <&#;", s[i])) {
        i += get_char(s + i, n - i, &cp);
        ends[++n_chars] = i;
    }
    if (i < n && s[i] == ';' && (*text = entity_find(s + 1, i - 1, true, n_text))) return i + 1;
    for (; n_chars >= 2; n_chars--)
        if ((*text = entity_find(s + 1, ends[n_chars] - 1, false, n_text))) return ends[n_chars];
    return 0;
}

static void unescape(const struct text *from, struct text *to)
{
    to->n = 0;
    for (size_t i = 0; i < from->n;) {
        const char *s = from->at + i, *text = NULL;
        const size_t n = from->n - i;
        size_t n_text = 0, taken = 0;
        int32_t cp = -1;
        bool has_end;
        if (*s == '&' && (taken = read_number(s, n, &cp, &has_end)) > 0) {
            if (cp >= 0) put_char(to, cp);
        } else if (*s == '&' && (taken = read_name(s, n, &text, &n_text)) > 0) {
            put(to, text, n_text);
        } else {
            taken = 1;
            put(to, s, 1);
        }
        i += taken;
    }
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* As ftfy: only what ends in ';'. A number that is ';' itself stays. */
static void unescape_ended(const struct text *from, struct text *to)
{
    to->n = 0;
    for (size_t i = 0; i < from->n;) {
        const char *s = from->at + i, *text = NULL;
        const size_t n = from->n - i, first = n > 1 && s[1] == '#' ? 2 : 1;
        size_t end = first, n_text = 0;
        int32_t cp = -1;
        bool has_end = false;
        while (end < n && end - first < FTFY_NAME_MAX && is_alnum(s[end])) end++;
        const bool is_ended = *s == '&' && end > first && end < n && s[end] == ';';
        if (is_ended && first == 1 && (text = entity_find(s + 1, end - 1, true, &n_text))) {
            put(to, text, n_text);
            i += end + 1;
        } else if (is_ended && read_number(s, n, &cp, &has_end) == end + 1 && cp != ';') {
            if (cp >= 0) put_char(to, cp);
            i += end + 1;
        } else {
            put(to, s, 1);
            i++;
        }
    }
}

/* --- characters ------------------------------------------------------------------------------- */

static const char *ligature(int32_t cp)
{
    static const struct {
        int32_t cp;
        const char *text;
    } of[] = {
        {0x132, "IJ"},         {0x133, "ij"},        {0x149, "\xCA\xBCn"}, {0x1C4, "D\xC5\xBD"},
        {0x1C5, "D\xC5\xBE"},  {0x1C6, "d\xC5\xBE"}, {0x1C7, "LJ"},        {0x1C8, "Lj"},
        {0x1C9, "lj"},         {0x1CA, "NJ"},        {0x1CB, "Nj"},        {0x1CC, "nj"},
        {0x1F1, "DZ"},         {0x1F2, "Dz"},        {0x1F3, "dz"},        {0xFB00, "ff"},
        {0xFB01, "fi"},        {0xFB02, "fl"},       {0xFB03, "ffi"},      {0xFB04, "ffl"},
        {0xFB05, "\xC5\xBFt"}, {0xFB06, "st"},
    };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (of[i].cp == cp) return of[i].text;
    return NULL;
}

static bool is_control(int32_t cp)
{
    return cp < 9 || cp == 0xB || (cp >= 0xE && cp < 0x20) || cp == 0x7F ||
           (cp >= 0x206A && cp <= 0x206F) || cp == 0xFEFF || (cp >= 0xFFF9 && cp <= 0xFFFC);
}

static void put_fixed(struct text *to, int32_t cp)
{
    utf8proc_int32_t wide[4];
    int class = 0;
    const char *text;
    if (cp >= 0x80 && cp <= 0x9F) cp = windows_1252(cp);
    if ((text = ligature(cp))) {
        for (; *text; text += get_char(text, strlen(text), &cp)) {
            (void)get_char(text, strlen(text), &cp);
            put_fixed(to, cp);
        }
        return;
    }
    if (cp == 0x3000 || (cp >= 0xFF01 && cp <= 0xFFEE)) { /* full and half width */
        const utf8proc_ssize_t n =
            utf8proc_decompose_char(cp, wide, 4, UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE, &class);
        for (utf8proc_ssize_t i = 0; i < n && i < 4; i++) put_char(to, wide[i]);
        return;
    }
    if (cp == 0x2BC || (cp >= 0x2018 && cp <= 0x201B)) cp = '\'';
    if (cp >= 0x201C && cp <= 0x201F) cp = '"';
    if (!is_control(cp)) put_char(to, cp);
}

/* ESC [ 1 ; 31 m: the bytes of it, or 0. */
static size_t terminal_escape(const char *s, size_t n)
{
    size_t i = 2;
    if (n < 3 || s[0] != 033 || s[1] != '[') return 0;
    while (i < n && ((s[i] >= '0' && s[i] <= '9') || s[i] == ';')) i++;
    return i < n && is_alnum(s[i]) ? i + 1 : 0;
}

static void fix_characters(const struct text *from, struct text *to)
{
    to->n = 0;
    for (size_t i = 0; i < from->n;) {
        int32_t cp;
        const size_t n_escape = terminal_escape(from->at + i, from->n - i);
        if (n_escape > 0) {
            i += n_escape;
            continue;
        }
        i += get_char(from->at + i, from->n - i, &cp);
        put_fixed(to, cp);
    }
}

/* NFC of from, into to. */
static err_t compose(const struct text *from, struct text *to)
{
    err_t e = OK;
    utf8proc_uint8_t *nfc = NULL;
    const utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)from->at, (utf8proc_ssize_t)from->n, &nfc,
                     UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n < 0) return FAIL(ERR_NOMEM, "prompt");
    to->n = 0;
    TRY(reserve(to, (size_t)n));
    put(to, (const char *)nfc, (size_t)n);
out:
    free(nfc);
    return e;
}

/* --- the whole -------------------------------------------------------------------------------- */

struct work {
    struct text a, b, before;
};

/* The step's input is a, its output becomes a. */
static err_t step(struct work *w, void (*f)(const struct text *from, struct text *to))
{
    const err_t e = reserve(&w->b, w->a.n);
    if (e != OK) return e;
    f(&w->a, &w->b);
    const struct text swap = w->a;
    w->a = w->b;
    w->b = swap;
    return OK;
}

static err_t set(struct text *t, const char *s, size_t n)
{
    err_t e = OK;
    t->n = 0;
    TRY(reserve(t, n));
    put(t, s, n);
out:
    return e;
}

/* One line, until nothing changes. */
static err_t fix_line(struct work *w, const char *s, size_t n, bool decodes)
{
    err_t e = OK;
    TRY(set(&w->a, s, n));
    do {
        TRY(set(&w->before, w->a.at, w->a.n));
        if (decodes) TRY(step(w, unescape_ended));
        TRY(step(w, fix_characters));
        TRY(compose(&w->a, &w->b));
        const struct text swap = w->a;
        w->a = w->b;
        w->b = swap;
    } while (w->a.n != w->before.n || memcmp(w->a.at, w->before.at, w->a.n) != 0);
out:
    return e;
}

/* White space as Python's str.isspace. */
static bool is_space(int32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static void join_spaces(const struct text *from, struct text *to)
{
    bool is_gap = false;
    to->n = 0;
    for (size_t i = 0; i < from->n;) {
        int32_t cp;
        const size_t n = get_char(from->at + i, from->n - i, &cp);
        if (is_space(cp)) {
            is_gap = true;
        } else {
            if (is_gap && to->n > 0) put(to, " ", 1);
            is_gap = false;
            put(to, from->at + i, n);
        }
        i += n;
    }
}

err_t clean_text(const char *text, size_t n_bytes, char **out, size_t *n_out)
{
    err_t e = OK;
    struct work w = {0};
    struct text all = {0};
    bool decodes = true;
    TRY(reserve(&all, n_bytes));
    for (size_t i = 0; i < n_bytes;) {
        const char *nl = memchr(text + i, '\n', n_bytes - i);
        const size_t n = nl ? (size_t)(nl - text) + 1 - i : n_bytes - i;
        decodes = decodes && !memchr(text + i, '<', n);
        TRY(fix_line(&w, text + i, n, decodes));
        put(&all, w.a.at, w.a.n);
        i += n;
    }
    TRY(set(&w.a, all.at, all.n));
    TRY(step(&w, unescape));
    TRY(step(&w, unescape));
    TRY(step(&w, join_spaces));
    w.a.at[w.a.n] = '\0'; /* room: GROWTH_MAX */
    *n_out = w.a.n;
    *out = w.a.at;
    w.a.at = NULL;
out:
    free(all.at);
    free(w.a.at);
    free(w.b.at);
    free(w.before.at);
    return e;
}
