/* tokenizer.h - text to token ids. One kind now, `bytes`: a token a byte. */
#ifndef PROCS_TEXT_TOKENIZER_H
#define PROCS_TEXT_TOKENIZER_H

#include <stdint.h>

enum { TOKEN_PAD = 0, TOKEN_EOS = 1 };

/* Writes at most n_max ids, the last one TOKEN_EOS: a longer text is cut before its end, as the
 * reference's truncation does. Returns how many were written; *n_full is how many the whole text
 * has, EOS included. ids lie in [0, vocab). n_max >= 1, vocab >= 4. */
int32_t tokenizer_bytes(const char *text, int32_t vocab, int32_t n_max, int32_t *ids,
                        int32_t *n_full);

#endif
