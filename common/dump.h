/* dump.h - the files that let anybody repeat a run elsewhere: the noise it starts from, embeddings
 * instead of prompts, and the latents that come out. All safetensors; F64, F32, F16 or BF16 are
 * read.
 *
 *   noise   noise [T, z, Y, X], eps [T / block, steps - 1, block, z, Y, X]
 *   embeds  prompt_embeds [prompts, text_len, dim]; rows of zeros at a prompt's end are padding
 *   latents out [T, z, Y, X] F32, written as they are made
 */
#ifndef COMMON_DUMP_H
#define COMMON_DUMP_H

#include <stdbool.h>

#include "common/checkpoint.h"
#include "common/conf.h"

/* Opens a noise file for a video of n_blocks, or of as many as it holds: n_blocks 0. It may hold
 * more. ERR_DATA: not such a file, or of another size, in one sentence; ERR_NOINPUT, ERR_NOMEM. */
MUST_USE err_t dump_open_noise(struct checkpoint **out, const char *path, const struct conf *c,
                               int64_t n_blocks);
/* Blocks that it holds. */
int64_t dump_blocks(const struct checkpoint *noise, const struct conf *c);
/* What a block starts from (step -1) or what is mixed in after a step: [block, z, Y, X] to out. */
MUST_USE err_t dump_read_noise(struct checkpoint *noise, const struct conf *c, int64_t block,
                               int32_t step, float *out);

/* Opens a file of embeddings for n_prompts; it may hold more. Errors as above. */
MUST_USE err_t dump_open_embeds(struct checkpoint **out, const char *path, const struct conf *c,
                                int64_t n_prompts);
/* A prompt's rows [text_len, dim] to out; *n_tokens: without the padding, at least 1. */
MUST_USE err_t dump_read_embed(struct checkpoint *embeds, const struct conf *c, int64_t prompt,
                               float *out, int32_t *n_tokens);

/* --- writing latents: a file of known size, each latent at its place, so that writing one again
 * changes nothing and a successor needs to know nothing. ERR_WRITE naming path. */

/* Opens for n_latents: anew, or what a predecessor began. */
MUST_USE err_t dump_latents_open(int *fd, const char *path, const struct conf *c, int64_t n_latents,
                                 bool resume);
MUST_USE err_t dump_latents_put(int fd, const char *path, const struct conf *c, int64_t at,
                                const float *latent);
/* The file of a video that ended after n_latents. */
MUST_USE err_t dump_latents_end(int fd, const char *path, const struct conf *c, int64_t n_latents);

#endif
