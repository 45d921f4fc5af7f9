/* test_conf.c - a configuration file; one that is taken is written and read to the same. */
#include "tests/fuzz/fuzz.h"

#include "common/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct conf c, again;
    char *text = NULL;
    size_t n_text = 0;
    const err_t e = conf_load(&c, fuzz_file("f.ini", data, n), NULL, 0);
    if (e != OK) {
        fuzz_refused(e, ERR_CONFIG, ERR_CONFIG);
        return 0;
    }
    FILE *f = open_memstream(&text, &n_text);
    MUST(f);
    conf_write(&c, f);
    fclose(f);
    MUST(conf_load(&again, fuzz_file("f.ini", (const uint8_t *)text, n_text), NULL, 0) == OK);
    MUST(memcmp(&c, &again, sizeof c) == 0);
    free(text);
    return 0;
}
