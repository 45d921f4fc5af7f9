/* tokenizer.h - text to token ids: `bytes`, a token a byte, or the files of a umT5 folder.
 *
 * With a folder the ids are those of Hugging Face's T5TokenizerFast on the same files, which is
 * what the reference uses: added tokens are cut out of the text first, longest first; each part
 * between them is normalised, its spaces become U+2581, and every word is segmented by itself.
 */
#ifndef PROCS_TEXT_TOKENIZER_H
#define PROCS_TEXT_TOKENIZER_H

#include "common/conf.h"

enum { TOKEN_PAD = 0, TOKEN_EOS = 1 };

struct tokenizer;

/* c->text.tokenizer: bytes, a folder with spiece.model, or such a file alone. ERR_NOINPUT,
 * ERR_DATA: not what it must be, or changed since the run began; ERR_CONFIG: ids beyond text.vocab.
 * The configuration is resolved (common/source.h). */
MUST_USE err_t tokenizer_open(struct tokenizer **out, const struct conf *c);
void tokenizer_close(struct tokenizer **t);

/* Writes at most n_max ids, the last one EOS: a longer text is cut before its end, as the
 * reference's truncation does. Returns how many were written; *n_full is how many the whole text
 * has, EOS included. text: clean, at most PROMPT_BYTES_MAX. n_max >= 1. Allocates nothing. */
int32_t tokenizer_encode(struct tokenizer *t, const char *text, int32_t n_max, int32_t *ids,
                         int32_t *n_full);

#endif
