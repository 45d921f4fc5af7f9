/* charsmap.h - a sentencepiece model's precompiled character map, applied as the reference's
 * tokenizer (Hugging Face tokenizers, normaliser "Precompiled") applies it.
 *
 * The map is a double-array trie (Aoe 1989; units of 32 bits, little endian) from character
 * sequences to texts. sentencepiece replaces the longest match at each position. The reference
 * looks at one grapheme cluster (UAX 29) at a time: one of at most 5 bytes is replaced as a whole
 * by the text of the shortest key that it begins with; any other character by character.
 */
#ifndef PROCS_TEXT_CHARSMAP_H
#define PROCS_TEXT_CHARSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Bytes that one byte can become: the longest text of a map that is accepted. */
enum { CHARSMAP_GROWTH_MAX = 64 };

struct charsmap {
    const uint8_t *units; /* u32 little endian; NULL: the map of no change */
    size_t n_units;
    const char *texts; /* NUL-terminated, back to back */
    size_t n_texts;    /* bytes */
};

/* data is borrowed; n_bytes 0: no change. ERR_DATA, naming name: not such a map. */
MUST_USE err_t charsmap_open(struct charsmap *c, const char *name, const uint8_t *data,
                             size_t n_bytes);

/* Writes the mapped text (UTF-8, valid) to out, whose room is n_bytes * CHARSMAP_GROWTH_MAX, and
 * returns its bytes. No terminator. */
size_t charsmap_apply(const struct charsmap *c, const char *text, size_t n_bytes, char *out);

#endif
