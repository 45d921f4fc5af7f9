/* test_safetensors.c - a file that says it is safetensors. */
#include "tests/fuzz/checkpoint.h"

/* The length of the header is put right, else no input would get past it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t file[1 << 16];
    if (n < 2 || n > sizeof file - 8) return 0;
    /* Two bytes: how many of the bytes are values; then the header, then the values. */
    const size_t n_values = (data[0] | (size_t)data[1] << 8) % (n - 1);
    const uint64_t n_header = n - 2 - n_values;
    memcpy(file, &n_header, 8);
    memcpy(file + 8, data + 2, n - 2);
    return fuzz_checkpoint(fuzz_file("f.safetensors", file, n + 6));
}
