/* test_clean.c - a prompt's text, whatever it is. */
#include "tests/fuzz/fuzz.h"

#include "common/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char out[PROMPT_BYTES_MAX + 1], again[PROMPT_BYTES_MAX + 1];
    const err_t e = prompt_clean((const char *)data, n, out, sizeof out);
    if (e != OK) {
        fuzz_refused(e, ERR_DATA, ERR_DATA);
        return 0;
    }
    const size_t n_out = strlen(out);
    MUST(n_out > 0 && n_out <= PROMPT_BYTES_MAX);
    MUST(out[0] != ' ' && out[n_out - 1] != ' ' && !strstr(out, "  "));
    /* What is clean may be cleaned further, once, but is text still. */
    const err_t f = prompt_clean(out, n_out, again, sizeof again);
    if (f != OK) fuzz_refused(f, ERR_DATA, ERR_DATA);
    return 0;
}
