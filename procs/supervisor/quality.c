/* quality.c - see quality.h. */
#include "procs/supervisor/quality.h"

#include <math.h>
#include <stdlib.h>

enum { SIDE = QUALITY_SIDE_MIN, MOMENTS = 5 }; /* of a, b, aa, bb, ab */

struct quality {
    int64_t width, height;
    double window[SIDE];
    double *rows; /* [MOMENTS][height][width - 10], the window laid along x */
};

err_t quality_open(struct quality **out, int32_t width_px, int32_t height_px)
{
    double sum = 0;
    if (width_px < SIDE || height_px < SIDE)
        return FAIL(ERR_DATA, "SSIM needs pictures of at least %d x %d pixels, not %d x %d", SIDE,
                    SIDE, width_px, height_px);
    struct quality *q = calloc(1, sizeof *q);
    if (q)
        q->rows = malloc((size_t)MOMENTS * (size_t)width_px * (size_t)height_px * sizeof *q->rows);
    if (!q || !q->rows) {
        quality_close(&q);
        return FAIL(ERR_NOMEM, "quality");
    }
    q->width = width_px;
    q->height = height_px;
    for (int i = 0; i < SIDE; i++) {
        const double x = i - SIDE / 2;
        q->window[i] = exp(-x * x / (2 * 1.5 * 1.5));
        sum += q->window[i];
    }
    for (int i = 0; i < SIDE; i++) q->window[i] /= sum;
    *out = q;
    return OK;
}

void quality_close(struct quality **q)
{
    if (!*q) return;
    free((*q)->rows);
    free(*q);
    *q = NULL;
}

double quality_psnr(double mse)
{
    return mse > 0 ? 10 * log10(255.0 * 255.0 / mse) : INFINITY;
}

/* The two-dimensional window is the product of two of one dimension: first along x. */
static void along_x(const struct quality *q, const uint8_t *a, const uint8_t *b)
{
    const int64_t n = q->width - SIDE + 1, plane = n * q->height;
    for (int64_t y = 0; y < q->height; y++)
        for (int64_t x = 0; x < n; x++) {
            double m[MOMENTS] = {0};
            for (int64_t i = 0; i < SIDE; i++) {
                const double w = q->window[i], p = a[y * q->width + x + i],
                             r = b[y * q->width + x + i];
                m[0] += w * p;
                m[1] += w * r;
                m[2] += w * p * p;
                m[3] += w * r * r;
                m[4] += w * p * r;
            }
            for (int k = 0; k < MOMENTS; k++) q->rows[k * plane + y * n + x] = m[k];
        }
}

static double ssim(const struct quality *q, const uint8_t *a, const uint8_t *b)
{
    const double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
    const int64_t n = q->width - SIDE + 1, plane = n * q->height, n_y = q->height - SIDE + 1;
    double sum = 0;
    along_x(q, a, b);
    for (int64_t y = 0; y < n_y; y++)
        for (int64_t x = 0; x < n; x++) {
            double m[MOMENTS] = {0};
            for (int64_t i = 0; i < SIDE; i++)
                for (int k = 0; k < MOMENTS; k++)
                    m[k] += q->window[i] * q->rows[k * plane + (y + i) * n + x];
            const double aa = m[2] - m[0] * m[0], bb = m[3] - m[1] * m[1], ab = m[4] - m[0] * m[1];
            sum += (2 * m[0] * m[1] + c1) * (2 * ab + c2) /
                   ((m[0] * m[0] + m[1] * m[1] + c1) * (aa + bb + c2));
        }
    return sum / (double)(n * n_y);
}

struct quality_frame quality_of(struct quality *q, const uint8_t *a, const uint8_t *b)
{
    struct quality_frame f = {.ssim_y = 1};
    const int64_t n_y = q->width * q->height, n = n_y * 3 / 2;
    int64_t sum = 0, sum_y = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t error = abs(a[i] - b[i]);
        sum += error * error;
        if (error > f.max_error) f.max_error = error;
        if (i == n_y - 1) sum_y = sum;
    }
    f.mse = (double)sum / (double)n;
    f.mse_y = (double)sum_y / (double)n_y;
    if (sum_y > 0) f.ssim_y = ssim(q, a, b);
    return f;
}
