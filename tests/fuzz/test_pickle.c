/* test_pickle.c - a pickle in a zip that is in order, with one storage of 24 bytes. */
#include "tests/fuzz/checkpoint.h"

#include "tests/common/torchzip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct torchzip z;
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    if (n > sizeof z.bytes / 2) return 0;
    z.n = z.n_directory = z.n_entries = 0;
    torchzip_add(&z, "archive/data.pkl", data, n);
    torchzip_add(&z, "archive/data/0", values, sizeof values);
    torchzip_end(&z);
    return fuzz_checkpoint(fuzz_file("f.pt", z.bytes, z.n));
}
