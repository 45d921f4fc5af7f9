/* prompt.h - a prompt's text: what is accepted, how it is cleaned, and the key of its embedding. */
#ifndef COMMON_PROMPT_H
#define COMMON_PROMPT_H

#include <stddef.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"

enum { PROMPT_BYTES_MAX = 16384, PROMPT_KEY_BYTES = 32 };

/* Refuses (ERR_DATA, one sentence) a prompt that is empty, over PROMPT_BYTES_MAX bytes, not UTF-8,
 * or has NUL. Writes the cleaned text (see clean.h), NUL-terminated, to out (cap >
 * PROMPT_BYTES_MAX). Cleaning twice is not cleaning once: it is done where a prompt enters the
 * ledger, and nowhere before. */
MUST_USE err_t prompt_clean(const char *text, size_t n_bytes, char *out, size_t cap);

/* The same refusals, for those before the ledger. */
MUST_USE err_t prompt_check(const char *text, size_t n_bytes);

/* SHA-256 of tokenizer (its identity), text encoder (weights identity and shape) and cleaned text;
 * without cache.reuse of `at`, too, the prompt's number in the ledger, so that no other finds it.
 */
void prompt_key(const struct conf *c, const char *clean, int64_t at, uint8_t key[PROMPT_KEY_BYTES]);

/* The key of an embedding that a file brings: SHA-256 of the file's identity and its place there.
 */
void prompt_embed_key(const uint8_t file_id[32], int64_t at, uint8_t key[PROMPT_KEY_BYTES]);

/* Identity of the weights of one stage ("text", "dit", "vae"): SHA-256 of their source (of a file
 * its model.*_id, not its path) and shape.
 * Another identity means another content of region weights.X. */
void weights_identity(const struct conf *c, const char *stage, uint8_t id[32]);

#endif
