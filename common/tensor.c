/* tensor.c - see tensor.h. */
#include "common/tensor.h"

#include "common/err.h"

size_t dtype_bytes(enum dtype t)
{
    static const size_t bytes[DTYPES] = {
        [DTYPE_F32] = 4, [DTYPE_BF16] = 2, [DTYPE_F16] = 2,
        [DTYPE_I32] = 4, [DTYPE_U64] = 8,  [DTYPE_U8] = 1,
    };
    MUST(t < DTYPES);
    return bytes[t];
}

const char *dtype_name(enum dtype t)
{
    static const char *const name[DTYPES] = {"f32", "bf16", "f16", "i32", "u64", "u8"};
    MUST(t < DTYPES);
    return name[t];
}

struct tensor tensor_of(void *data, enum dtype dtype, int32_t rank, const int32_t *shape)
{
    struct tensor t = {.data = data, .dtype = dtype, .rank = rank};
    MUST(rank >= 1 && rank <= TENSOR_RANK_MAX);
    for (int32_t i = 0; i < rank; i++) {
        MUST(shape[i] >= 0);
        t.shape[i] = shape[i];
    }
    return t;
}

int64_t tensor_count(struct tensor t)
{
    int64_t n = t.rank > 0;
    for (int32_t i = 0; i < t.rank; i++) n *= t.shape[i];
    return n;
}

size_t tensor_bytes(struct tensor t)
{
    return (size_t)tensor_count(t) * dtype_bytes(t.dtype);
}

struct tensor tensor_rows(struct tensor t, int32_t first, int32_t n)
{
    MUST(t.rank >= 1 && first >= 0 && n >= 0 && first + n <= t.shape[0]);
    const size_t row_bytes = t.shape[0] ? tensor_bytes(t) / (size_t)t.shape[0] : 0;
    t.data = (char *)t.data + (size_t)first * row_bytes;
    t.shape[0] = n;
    return t;
}

struct tensor tensor_reshape(struct tensor t, int32_t rank, const int32_t *shape)
{
    const struct tensor to = tensor_of(t.data, t.dtype, rank, shape);
    MUST(tensor_count(to) == tensor_count(t));
    return to;
}
