/* tokenizer.c - see tokenizer.h. */
#include "procs/text/tokenizer.h"

#include <string.h>

#include "common/err.h"

int32_t tokenizer_bytes(const char *text, int32_t vocab, int32_t n_max, int32_t *ids,
                        int32_t *n_full)
{
    const int32_t n_text = (int32_t)strlen(text);
    const int32_t n = n_text < n_max - 1 ? n_text : n_max - 1;
    MUST(n_max >= 1 && vocab >= 4);
    for (int32_t i = 0; i < n; i++) ids[i] = 2 + (uint8_t)text[i] % (vocab - 2);
    ids[n] = TOKEN_EOS;
    *n_full = n_text + 1;
    return n + 1;
}
