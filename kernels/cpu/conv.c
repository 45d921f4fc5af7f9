/* conv.c - the VAE's convolutions: patches of a chunk of pixels in scratch, times the weights. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

/* Few pixels still make several chunks, so that every thread has one. */
enum { CHUNK_PIXELS = 256, CHUNK_PIXELS_MIN = 32, CHUNKS_WANTED = 8 };

struct conv {
    const float *x, *past, *w, *b, *residual;
    float *y;
    int64_t n_t, n_y, n_x; /* of the output */
    int32_t n_c, n_o, n_kt, n_k;
    int32_t shift; /* 1: an input row and column stand for two of the output */
    bool is_bf16;
};

/* The k taps of input row yy around output column xx. */
static void patch_row(const struct conv *c, float *patch, const float *row, int64_t xx)
{
    const int64_t n_c = c->n_c, first = xx - c->n_k / 2;
    if (!c->shift && first >= 0 && first + c->n_k <= c->n_x) {
        memcpy(patch, row + first * n_c, (size_t)(c->n_k * n_c) * sizeof *patch);
        return;
    }
    for (int32_t kx = 0; kx < c->n_k; kx++, patch += n_c) {
        const int64_t at = first + kx;
        if (at < 0 || at >= c->n_x) memset(patch, 0, (size_t)n_c * sizeof *patch);
        else memcpy(patch, row + (at >> c->shift) * n_c, (size_t)n_c * sizeof *patch);
    }
}

/* The inputs under the taps of output pixel p, in the order of the weights: kt, ky, kx, c. */
static void patch_of(const struct conv *c, float *patch, int64_t p)
{
    const int64_t t = p / (c->n_y * c->n_x), yy = p / c->n_x % c->n_y, xx = p % c->n_x;
    const int64_t in_row = (c->n_x >> c->shift) * c->n_c, in_frame = (c->n_y >> c->shift) * in_row;
    const int64_t n_row = (int64_t)c->n_k * c->n_c;
    for (int32_t kt = 0; kt < c->n_kt; kt++) {
        const int64_t from = t + kt; /* counted from the oldest past frame */
        const int64_t n_past = c->n_kt - 1;
        const float *const frame =
            from < n_past ? c->past + from * in_frame : c->x + (from - n_past) * in_frame;
        for (int32_t ky = 0; ky < c->n_k; ky++, patch += n_row) {
            const int64_t at = yy + ky - c->n_k / 2;
            if (at < 0 || at >= c->n_y) memset(patch, 0, (size_t)n_row * sizeof *patch);
            else patch_row(c, patch, frame + (at >> c->shift) * in_row, xx);
        }
    }
}

/* Output pixels [p, p + m). What is added comes first, as y may be the residual; rounding adds it
 * last, and the slot then holds the convolution behind the patches. */
static void conv_chunk(const struct conv *c, int64_t p, int32_t m, float *slot)
{
    const int32_t n_taps = c->n_kt * c->n_k * c->n_k, n_in = n_taps * c->n_c;
    const bool is_apart = c->is_bf16 && c->residual;
    float *const y = is_apart ? slot + (int64_t)m * n_in : c->y + p * c->n_o;
    const float *patches = c->x + p * c->n_c;
    if (n_taps > 1) {
        for (int32_t i = 0; i < m; i++) patch_of(c, slot + (int64_t)i * n_in, p + i);
        patches = slot;
    }
    for (int64_t i = 0; i < m; i++) {
        float *const row = y + i * c->n_o;
        const float *const add = c->residual ? c->residual + (p + i) * c->n_o : NULL;
        if (add && !is_apart)
            for (int32_t o = 0; o < c->n_o; o++) row[o] = add[o] + c->b[o];
        else memcpy(row, c->b, (size_t)c->n_o * sizeof *row);
    }
    cpu_mul_nt(y, c->n_o, (struct cpu_mat){patches, n_in}, (struct cpu_mat){c->w, n_in}, m, c->n_o,
               n_in, 1.0f, 1.0f);
    if (c->is_bf16) cpu_keep_rows(y, c->n_o, m, c->n_o);
    if (!is_apart) return;
    for (int64_t i = 0; i < (int64_t)m * c->n_o; i++) {
        const int64_t at = p * c->n_o + i;
        c->y[at] = cpu_bf16(y[i] + c->residual[at]);
    }
}

static err_t convolve(struct dev *d, const struct conv *c)
{
    const int64_t n = c->n_t * c->n_y * c->n_x;
    const int64_t n_in = (int64_t)c->n_kt * c->n_k * c->n_k * c->n_c;
    const int64_t wanted = cpu_max(CHUNK_PIXELS_MIN, (n + CHUNKS_WANTED - 1) / CHUNKS_WANTED);
    const int64_t fit = CPU_SLOT_FLOATS / (n_in + (c->is_bf16 && c->residual ? c->n_o : 0));
    if (fit < 1)
        return FAIL(ERR_SHAPE, "convolution: scratch has no room for a patch of %lld",
                    (long long)n_in);
    const int32_t rows = cpu_chunk(n, cpu_min(cpu_min(wanted, CHUNK_PIXELS), fit));
    float *const scratch = cpu_scratch(d);

#pragma omp parallel for schedule(dynamic) num_threads(dev_threads(d))
    for (int64_t p = 0; p < n; p += rows)
        conv_chunk(c, p, (int32_t)cpu_min(rows, n - p), cpu_slot(scratch));
    return OK;
}

err_t cpu_conv3d(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                 struct tensor w, struct tensor b, struct tensor residual)
{
    const struct conv c = {
        .x = x.data,
        .past = past.data,
        .w = w.data,
        .b = b.data,
        .residual = residual.data,
        .y = y.data,
        .n_t = y.shape[0],
        .n_y = y.shape[1],
        .n_x = y.shape[2],
        .n_c = x.shape[3],
        .n_o = y.shape[3],
        .n_kt = w.shape[1],
        .n_k = w.shape[2],
        .is_bf16 = cpu_is_bf16(d),
    };
    return convolve(d, &c);
}

err_t cpu_conv3d_norm(struct dev *d, struct tensor h, struct tensor x, struct tensor past,
                      struct tensor w, struct tensor b, struct tensor residual, struct tensor g,
                      struct tensor y)
{
    const struct tensor plain = y.data ? y : h;
    const err_t e = cpu_conv3d(d, plain, x, past, w, b, residual);
    return e != OK ? e : cpu_l2_norm(d, h, plain, g, 1);
}

err_t cpu_upsample_conv(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                        struct tensor b)
{
    const struct conv c = {
        .x = x.data,
        .w = w.data,
        .b = b.data,
        .y = y.data,
        .n_t = y.shape[0],
        .n_y = y.shape[1],
        .n_x = y.shape[2],
        .n_c = x.shape[3],
        .n_o = y.shape[3],
        .n_kt = 1,
        .n_k = 3,
        .shift = 1,
        .is_bf16 = cpu_is_bf16(d),
    };
    return convolve(d, &c);
}

/* --- moving channels ------------------------------------------------------------------------- */

err_t cpu_split_frames(struct dev *d, struct tensor yt, struct tensor xt)
{
    const int64_t n_c = yt.shape[3], n_p = (int64_t)yt.shape[1] * yt.shape[2];
    const int64_t n_rows = (int64_t)xt.shape[0] * n_p;
    const float *const x = xt.data;
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t i = 0; i < n_rows; i++) {
        float *const y = (float *)yt.data + (i / n_p * 2 * n_p + i % n_p) * n_c;
        memcpy(y, x + i * 2 * n_c, (size_t)n_c * sizeof *y);
        memcpy(y + n_p * n_c, x + (i * 2 + 1) * n_c, (size_t)n_c * sizeof *y);
    }
    return OK;
}

err_t cpu_split3(struct dev *d, struct tensor q, struct tensor k, struct tensor v,
                 struct tensor qkv)
{
    const int64_t n_s = q.shape[0], n_c = q.shape[1];
#pragma omp parallel for schedule(static) num_threads(dev_threads(d))
    for (int64_t s = 0; s < n_s; s++) {
        const float *const in = (const float *)qkv.data + s * 3 * n_c;
        const size_t bytes = (size_t)n_c * sizeof *in;
        memcpy((float *)q.data + s * n_c, in, bytes);
        memcpy((float *)k.data + s * n_c, in + n_c, bytes);
        memcpy((float *)v.data + s * n_c, in + 2 * n_c, bytes);
    }
    return OK;
}
