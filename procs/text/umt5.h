/* umt5.h - the umT5 encoder: token ids to the rows that condition the DiT.
 *
 * Pre-norm T5 encoder with a position-bias table per layer and a gated GELU feed-forward; no scale
 * in attention, no biases. Raffel et al. 2020 (arXiv:1910.10683), Chung et al. 2023 (UniMax, umT5).
 * Keys are those of models_t5_umt5-xxl-enc-bf16.pth.
 */
#ifndef PROCS_TEXT_UMT5_H
#define PROCS_TEXT_UMT5_H

#include "common/conf.h"
#include "procs/weights.h"

struct umt5;

/* Declares the weights in w, allocates activations for text_len tokens. */
MUST_USE err_t umt5_open(struct umt5 **out, struct dev *d, const struct conf *c, struct weights *w);
void umt5_close(struct umt5 **u);

/* Encodes ids[0..n) (host), n <= text_len, to out [n, dim] on the host. Running only the valid
 * tokens equals running the padded sequence: padded keys have weight 0 and padded rows are zeroed.
 * beat(self) is called once a layer. */
MUST_USE err_t umt5_encode(struct umt5 *u, const int32_t *ids, int32_t n, float *out,
                           void (*beat)(void *self), void *self);

#endif
