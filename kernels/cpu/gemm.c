/* gemm.c - matrix products: OpenBLAS on tiles of fixed size, one thread a tile. */
#include <cblas.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

/* Large enough that packing the operands is cheap next to multiplying them, small enough that a
 * layer of the smallest model makes a few tiles. One tile fits a scratch slot. */
enum { TILE_ROWS = 144, TILE_COLS = 256 };

enum ending { PLAIN, GELU, GATED_ADD };

void cpu_blas_open(void)
{
    openblas_set_num_threads(1);
}

void cpu_mul_nt(float *c, int64_t c_stride, struct cpu_mat a, struct cpu_mat b, int32_t m,
                int32_t n, int32_t k, float alpha, float beta)
{
    if (m > 1) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, alpha, a.at, (int)a.stride,
                    b.at, (int)b.stride, beta, c, (int)c_stride);
        return;
    }
    /* One row: a matrix-vector product reads b once and packs nothing. Its beta 0 may read c. */
    if (beta == 0.0f) memset(c, 0, (size_t)n * sizeof *c);
    cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, alpha, b.at, (int)b.stride, a.at, 1, 1.0f, c, 1);
}

void cpu_mul_nn(float *c, int64_t c_stride, struct cpu_mat a, struct cpu_mat b, int32_t m,
                int32_t n, int32_t k)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1.0f, a.at, (int)a.stride, b.at,
                (int)b.stride, 0.0f, c, (int)c_stride);
}

static void fill_rows(float *y, int64_t stride, int32_t m, int32_t n, const float *b)
{
    for (int32_t i = 0; i < m; i++, y += stride) {
        if (b) memcpy(y, b, (size_t)n * sizeof *y);
        else memset(y, 0, (size_t)n * sizeof *y);
    }
}

void cpu_keep_rows(float *y, int64_t stride, int32_t m, int32_t n)
{
    for (int32_t i = 0; i < m; i++, y += stride)
        for (int32_t j = 0; j < n; j++) y[j] = cpu_bf16(y[j]);
}

static void gelu_rows(float *y, int64_t stride, int32_t m, int32_t n, bool is_bf16)
{
    for (int32_t i = 0; i < m; i++, y += stride)
        for (int32_t j = 0; j < n; j++) y[j] = keep(cpu_gelu1(y[j]), is_bf16);
}

/* y += gate * part, or y += part. */
static void add_rows(float *y, int64_t stride, int32_t m, int32_t n, const float *part,
                     const float *gate, bool is_bf16)
{
    for (int32_t i = 0; i < m; i++, y += stride, part += n) {
        if (gate)
            for (int32_t j = 0; j < n; j++)
                y[j] = keep(y[j] + keep(gate[j] * part[j], is_bf16), is_bf16);
        else
            for (int32_t j = 0; j < n; j++) y[j] = keep(y[j] + part[j], is_bf16);
    }
}

static err_t linear(struct dev *d, struct tensor yt, struct tensor xt, struct tensor wt,
                    const float *b, const float *gate, enum ending ending)
{
    const int32_t n_s = xt.shape[0], n_i = xt.shape[1], n_o = wt.shape[0];
    const int32_t rows = cpu_chunk(n_s, TILE_ROWS), cols = cpu_chunk(n_o, TILE_COLS);
    const float *x = xt.data, *w = wt.data;
    float *const y = yt.data, *const scratch = cpu_scratch(d);
    const bool is_bf16 = cpu_is_bf16(d);

#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(dev_threads(d))
    for (int32_t s = 0; s < n_s; s += rows) {
        for (int32_t o = 0; o < n_o; o += cols) {
            const int32_t m = (int32_t)cpu_min(rows, n_s - s), n = (int32_t)cpu_min(cols, n_o - o);
            const bool in_place = ending != GATED_ADD;
            float *const at = y + (int64_t)s * n_o + o;
            float *const part = in_place ? at : cpu_slot(scratch);
            const int64_t stride = in_place ? n_o : n;
            fill_rows(part, stride, m, n, b ? b + o : NULL);
            cpu_mul_nt(part, stride, (struct cpu_mat){x + (int64_t)s * n_i, n_i},
                       (struct cpu_mat){w + (int64_t)o * n_i, n_i}, m, n, n_i, 1.0f, 1.0f);
            if (is_bf16) cpu_keep_rows(part, stride, m, n);
            if (ending == GELU) gelu_rows(part, stride, m, n, is_bf16);
            if (ending == GATED_ADD) add_rows(at, n_o, m, n, part, gate ? gate + o : NULL, is_bf16);
        }
    }
    return OK;
}

err_t cpu_linear(struct dev *d, struct tensor y, struct tensor x, struct tensor w, struct tensor b)
{
    return linear(d, y, x, w, b.data, NULL, PLAIN);
}

err_t cpu_linear_gelu(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                      struct tensor b)
{
    return linear(d, y, x, w, b.data, NULL, GELU);
}

err_t cpu_linear_add(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                     struct tensor b, struct tensor gate)
{
    return linear(d, y, x, w, b.data, gate.data, GATED_ADD);
}

/* One op after the other: what is read once more is little beside the product. */
err_t cpu_linear_add_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                          struct tensor b, struct tensor gate, struct tensor h, struct tensor scale,
                          struct tensor shift, bool is_modulated, float eps)
{
    err_t e = OK;
    TRY(cpu_linear_add(d, y, x, w, b, gate));
    TRY((is_modulated ? cpu_norm_modulate : cpu_layer_norm)(d, h, y, scale, shift, eps));
out:
    return e;
}
