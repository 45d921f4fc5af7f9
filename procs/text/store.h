/* store.h - the optional file behind the prompt cache: embeddings that survive a full stop.
 *
 * Layout: a header naming the row geometry, then records of one size: key, token counts, the
 * embedding, SHA-256 of all that. Record i is the table's entry i, so the file grows no larger than
 * the table, and what is evicted there is overwritten here. One write a record; what is torn, or
 * was never written, does not verify. A file of another geometry is refused and left alone. Not a
 * format for exchange: f32, host order.
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

/* Records that the file has room for. */
int64_t store_count(const struct store *s);
/* Record i; embedding [text_len, dim]. False: it does not verify and must be ignored.
 */
bool store_read(struct store *s, int64_t i, uint8_t key[PROMPT_KEY_BYTES], float *embedding,
                int32_t *n_tokens, int32_t *n_tokens_full);
/* Writes record i. ERR_WRITE: it does not verify now; the others are as they were. */
MUST_USE err_t store_put(struct store *s, int64_t i, const uint8_t key[PROMPT_KEY_BYTES],
                         const float *embedding, int32_t n_tokens, int32_t n_tokens_full);

#endif
