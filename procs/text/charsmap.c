/* charsmap.c - see charsmap.h. */
#include "procs/text/charsmap.h"

#include <string.h>
#include <utf8proc.h>

enum { CLUSTER_BYTES_MAX = 5 };

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

err_t charsmap_open(struct charsmap *c, const char *name, const uint8_t *data, size_t n_bytes)
{
    *c = (struct charsmap){0};
    if (n_bytes == 0) return OK;
    const uint32_t n_trie = n_bytes >= 4 ? read_u32(data) : 0;
    if (n_bytes < 4 || n_trie % 4 != 0 || n_trie == 0 || n_trie > n_bytes - 4)
        return FAIL(ERR_DATA, "%s: character map of %zu bytes is cut short", name, n_bytes);
    const char *texts = (const char *)data + 4 + n_trie;
    const size_t n_texts = n_bytes - 4 - n_trie;
    if (n_texts == 0 || texts[n_texts - 1] != '\0')
        return FAIL(ERR_DATA, "%s: character map whose last text has no end", name);
    for (size_t i = 0; i < n_texts; i += strlen(texts + i) + 1)
        if (strlen(texts + i) > CHARSMAP_GROWTH_MAX)
            return FAIL(ERR_DATA, "%s: character map with a text of %zu bytes: at most %d", name,
                        strlen(texts + i), CHARSMAP_GROWTH_MAX);
    *c = (struct charsmap){
        .units = data + 4, .n_units = n_trie / 4, .texts = texts, .n_texts = n_texts};
    return OK;
}

/* A unit: bits 0-7 label (with bit 31: none), 8 has a leaf, 9-30 offset; a leaf: bits 0-30. */
static bool unit_at(const struct charsmap *c, size_t i, uint32_t *unit)
{
    if (i >= c->n_units) return false;
    *unit = read_u32(c->units + 4 * i);
    return true;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The text of the shortest key that s begins with; NULL: none. */
static const char *lookup(const struct charsmap *c, const char *s, size_t n)
{
    uint32_t unit = 0;
    if (!unit_at(c, 0, &unit)) return NULL;
    size_t at = offset_of(unit);
    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)s[i];
        at ^= byte;
        if (!unit_at(c, at, &unit) || (unit & 0x800000FFu) != byte) return NULL;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (!unit_at(c, at, &unit)) return NULL;
        const size_t text = unit & 0x7FFFFFFFu;
        return text < c->n_texts ? c->texts + text : NULL;
    }
    return NULL;
}

static size_t put(char *out, const char *text, size_t n)
{
    memcpy(out, text, n);
    return n;
}

static size_t apply_cluster(const struct charsmap *c, const char *s, size_t n, char *out)
{
    size_t n_out = 0;
    utf8proc_int32_t cp = 0;
    const char *whole = n <= CLUSTER_BYTES_MAX ? lookup(c, s, n) : NULL;
    if (whole) return put(out, whole, strlen(whole));
    for (size_t i = 0; i < n;) {
        const utf8proc_ssize_t len =
            utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &cp);
        const size_t n_char = len > 0 ? (size_t)len : 1;
        const char *part = lookup(c, s + i, n_char);
        n_out += part ? put(out + n_out, part, strlen(part)) : put(out + n_out, s + i, n_char);
        i += n_char;
    }
    return n_out;
}

size_t charsmap_apply(const struct charsmap *c, const char *text, size_t n_bytes, char *out)
{
    size_t n_out = 0, cluster = 0;
    utf8proc_int32_t before = 0, cp = 0, state = 0;
    if (!c->units) return put(out, text, n_bytes);
    for (size_t i = 0; i < n_bytes;) {
        const utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)text + i,
                                                      (utf8proc_ssize_t)(n_bytes - i), &cp);
        if (i > 0 && utf8proc_grapheme_break_stateful(before, cp, &state)) {
            n_out += apply_cluster(c, text + cluster, i - cluster, out + n_out);
            cluster = i;
        }
        before = cp;
        i += len > 0 ? (size_t)len : 1;
    }
    return n_out + apply_cluster(c, text + cluster, n_bytes - cluster, out + n_out);
}
