/* fuzz.h - a fuzz target is one function of some bytes: libFuzzer finds bytes for it (make fuzz),
 * and `make test` replays those that are in tests/fuzz/corpus (replay.c). It ends by abort when a
 * promise is broken, else it returns 0.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char fuzz_dir[32], fuzz_path[64];

static inline void fuzz_clean(void)
{
    unlink(fuzz_path);
    rmdir(fuzz_dir);
}

/* The path of a file in memory with that name and these bytes; one a process. */
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t n)
{
    static int fd = -1;
    char target[40];
    if (fd < 0) {
        fd = memfd_create(name, MFD_CLOEXEC);
        strcpy(fuzz_dir, "/tmp/longlived-fuzz-XXXXXX");
        MUST(fd >= 0 && mkdtemp(fuzz_dir));
        snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
        snprintf(fuzz_path, sizeof fuzz_path, "%s/%s", fuzz_dir, name);
        MUST(symlink(target, fuzz_path) == 0 && atexit(fuzz_clean) == 0);
    }
    MUST(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    return fuzz_path;
}

/* A refusal is in words, and only one of these codes. */
static inline void fuzz_refused(err_t e, err_t a, err_t b)
{
    MUST(e == a || e == b);
    MUST(err_text()[0] != 0 && !strchr(err_text(), '\n'));
}

#endif
