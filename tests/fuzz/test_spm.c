/* test_spm.c - spiece.model: the library's reader, the character map, and a text segmented by what
 * was read. */
#include "tests/fuzz/fuzz.h"

#include "procs/text/charsmap.h"
#include "procs/text/unigram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "A ball \xEF\xAC\x81lm e\xCC\x81 \xE4\xB8\x80<0x41>";
    char mapped[sizeof text * CHARSMAP_GROWTH_MAX];
    int32_t at[64];
    struct spm *s = NULL;
    struct unigram *u = NULL;
    struct charsmap map;
    size_t n_map = 0;
    const err_t e = spm_open(&s, "f", data, n);
    if (e != OK) {
        fuzz_refused(e, ERR_DATA, ERR_NOMEM);
        MUST(!s);
        return 0;
    }
    struct ids out = {.at = at, .n_max = 64};
    const uint8_t *bytes = spm_charsmap(s, &n_map);
    const err_t m = charsmap_open(&map, "f", bytes, n_map);
    if (m == OK) MUST(charsmap_apply(&map, text, sizeof text - 1, mapped) <= sizeof mapped);
    else fuzz_refused(m, ERR_DATA, ERR_DATA);
    MUST(unigram_open(&u, s, true, sizeof text) == OK);
    unigram_encode(u, text, sizeof text - 1, &out);
    for (int32_t i = 0; i < out.n && i < out.n_max; i++) MUST(at[i] >= 0 && at[i] < spm_count(s));
    unigram_close(&u);
    spm_close(&s);
    return 0;
}
