/* quality.h - how near one picture is to another: PSNR, SSIM, the largest error.
 *
 * Pictures are 8 bit 4:2:0: Y [height, width], then U and V [height / 2, width / 2]. PSNR is 10
 * log10 (255^2 / MSE), over all samples, and over Y. SSIM is that of Y: the mean of the index of Z.
 * Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error
 * Visibility to Structural Similarity", IEEE Transactions on Image Processing 13 (2004), equation
 * 13, K1 = 0.01, K2 = 0.03, L = 255, under a circular-symmetric Gaussian of 11 x 11 samples,
 * standard deviation 1.5, sum 1, at each place where it lies inside the picture. In f64.
 */
#ifndef SUPERVISOR_QUALITY_H
#define SUPERVISOR_QUALITY_H

#include <stdint.h>

#include "common/err.h"

enum { QUALITY_SIDE_MIN = 11 };

struct quality;

struct quality_frame {
    double mse, mse_y; /* 0: equal */
    double ssim_y;     /* 1: equal */
    int32_t max_error; /* of any sample */
};

/* ERR_DATA: no room for the window. ERR_NOMEM. */
MUST_USE err_t quality_open(struct quality **out, int32_t width_px, int32_t height_px);
void quality_close(struct quality **q);

struct quality_frame quality_of(struct quality *q, const uint8_t *a, const uint8_t *b);

/* In dB; infinite for 0. */
double quality_psnr(double mse);

#endif
