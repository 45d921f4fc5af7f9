/* unigram.h - the most likely segmentation of a text into pieces, as the reference's tokenizer
 * (Hugging Face tokenizers, model "Unigram") finds it.
 *
 * Kudo 2018 (arXiv:1804.10959), section 3.2: the Viterbi path over the pieces' log probabilities. A
 * character that no piece covers costs the lowest score less 10; neighbours of that kind are one
 * unknown. Unlike sentencepiece the reference adds in float64 and lets any entry of the vocabulary
 * be a piece, control symbols and byte pieces too; of two paths that cost the same the one found
 * first stays, from left to right and shorter pieces first.
 */
#ifndef PROCS_TEXT_UNIGRAM_H
#define PROCS_TEXT_UNIGRAM_H

#include "procs/text/spm.h"

struct unigram;

/* Room for ids; n counts all that came, also those that found no room. */
struct ids {
    int32_t *at;
    int32_t n_max, n;
};

/* text_bytes_max: of a text to encode. byte_fallback: an unknown becomes the pieces of its bytes,
 * if the model has all of them. The spm is borrowed. */
MUST_USE err_t unigram_open(struct unigram **out, const struct spm *s, bool byte_fallback,
                            size_t text_bytes_max);
void unigram_close(struct unigram **u);

/* Appends the ids of one text (UTF-8, valid). Allocates nothing. */
void unigram_encode(struct unigram *u, const char *text, size_t n_bytes, struct ids *out);

/* Id of a piece, or -1. */
int32_t unigram_id(const struct unigram *u, const char *piece, size_t n_bytes);

void ids_put(struct ids *out, int32_t id);

#endif
