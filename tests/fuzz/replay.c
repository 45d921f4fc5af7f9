/* replay.c - feeds the corpus of a target to it, without libFuzzer: tests/fuzz/corpus/NAME for the
 * program test_NAME. */
#include "tests/check.h"

#include <dirent.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "tests/fuzz/fuzz.h"

static char folder[256];

static void test_corpus(void **state)
{
    struct dirent **found = NULL;
    int n_fed = 0;
    (void)state;
    const int n = scandir(folder, &found, NULL, alphasort);
    if (n < 0) fail_msg("%s is missing", folder);
    for (int i = 0; i < n; i++) {
        char path[512], *data = NULL;
        size_t n_bytes = 0;
        snprintf(path, sizeof path, "%s/%s", folder, found[i]->d_name);
        free(found[i]);
        if (file_read(path, 1 << 20, &data, &n_bytes) != OK) continue; /* . and .. */
        uint8_t *exact = malloc(n_bytes + (n_bytes == 0)); /* so that ASan sees a read past it */
        assert_non_null(exact);
        memcpy(exact, data, n_bytes);
        assert_int_equal(LLVMFuzzerTestOneInput(exact, n_bytes), 0);
        free(exact);
        free(data);
        n_fed++;
    }
    free(found);
    print_message("%s: %d inputs\n", folder, n_fed);
    assert_true(n_fed > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_corpus)};
    (void)argc;
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", basename(argv[0]) + strlen("test_"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
