/* test_torchfile.c - a file that says it is torch.save's: the zip, and the pickle in it. */
#include "tests/fuzz/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    return fuzz_checkpoint(fuzz_file("f.pt", data, n));
}
