/* test_dev_cuda.c - the test of a GPU as a device, on the fake runtime: it holds there too, so what
 * the fake shows without a GPU is worth something. */
#include "tests/common/test_dev_cuda.c"
