/* tensor.h - a view of dense, row-major numbers. A tensor never owns its memory.
 *
 * shape[] is outermost first. The memory belongs to one of: a region, a model's state, a scratch
 * arena, a file mapping. Copying the struct copies the view.
 */
#ifndef COMMON_TENSOR_H
#define COMMON_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_U64, DTYPE_U8, DTYPES };
enum { TENSOR_RANK_MAX = 5 };

struct tensor {
    void *data; /* device memory */
    enum dtype dtype;
    int32_t rank;
    int32_t shape[TENSOR_RANK_MAX];
};

size_t dtype_bytes(enum dtype t);
const char *dtype_name(enum dtype t); /* "f32", "bf16" ...; lives for ever */

/* A view of data with the given shape; rank 1 to TENSOR_RANK_MAX, every dimension >= 0. */
struct tensor tensor_of(void *data, enum dtype t, int32_t rank, const int32_t *shape);

/* tensor_f32(p, 3, (int32_t[]){a, b, c}) without the brackets. */
#define TENSOR(data, t, ...)                                                                       \
    tensor_of((data), (t), (int32_t)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)),          \
              (int32_t[]){__VA_ARGS__})

/* The absent tensor: data NULL, rank 0. An op that allows it says so. */
#define TENSOR_NONE ((struct tensor){0})

int64_t tensor_count(struct tensor t); /* elements; 0 for the absent tensor */
size_t tensor_bytes(struct tensor t);

/* Rows [first, first + n) of the outermost dimension. MUST lie inside. */
struct tensor tensor_rows(struct tensor t, int32_t first, int32_t n);

/* The same memory, another shape of as many elements. MUST agree. */
struct tensor tensor_reshape(struct tensor t, int32_t rank, const int32_t *shape);
#define RESHAPE(t, ...)                                                                            \
    tensor_reshape((t), (int32_t)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)),             \
                   (int32_t[]){__VA_ARGS__})

#ifdef __cplusplus
}
#endif
#endif
