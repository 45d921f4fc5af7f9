/* store.h - the optional file behind the prompt cache: embeddings that survive a full stop.
 *
 * Layout: a header naming the row geometry, then records of one size: key, token counts, the
 * embedding, SHA-256 of all that. Appended by one write each; a torn or foreign tail is cut on
 * open. A file of another geometry is refused and left alone. Not a format for exchange: f32, host
 * order.
 */
#ifndef PROCS_TEXT_STORE_H
#define PROCS_TEXT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/prompt.h"

struct store;

/* Opens or makes the file. ERR_WRITE when it cannot be written, ERR_DATA when it is not ours. */
MUST_USE err_t store_open(struct store **out, const char *path, const struct conf *c);
void store_close(struct store **s);

int64_t store_count(const struct store *s);
/* Record i (0: oldest); embedding [text_len, dim]. False: it does not verify and must be ignored.
 */
bool store_read(struct store *s, int64_t i, uint8_t key[PROMPT_KEY_BYTES], float *embedding,
                int32_t *n_tokens, int32_t *n_tokens_full);
MUST_USE err_t store_append(struct store *s, const uint8_t key[PROMPT_KEY_BYTES],
                            const float *embedding, int32_t n_tokens, int32_t n_tokens_full);

#endif
