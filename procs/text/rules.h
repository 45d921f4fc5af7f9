/* rules.h - what a tokenizer does besides segmentation, read from the files beside spiece.model.
 *
 *   tokenizer.json          normaliser steps, pre-tokeniser, byte fallback, added tokens
 *   tokenizer_config.json   its added_tokens_decoder overrides added tokens
 *
 * These are Hugging Face's files. Without them the rules are those that transformers 4.51 gives a
 * T5 tokenizer that it converts from spiece.model, with umT5's 300 <extra_id_N>. What of a file is
 * not understood is an error, not a guess. Vocabulary and character map are the model's.
 */
#ifndef PROCS_TEXT_RULES_H
#define PROCS_TEXT_RULES_H

#include "procs/text/spm.h"

enum { RULES_STEPS_MAX = 8, RULES_JOIN_BYTES_MAX = 3 };

enum rule_step {
    RULE_MAP,         /* the model's character map */
    RULE_STRIP_LEFT,  /* white space off the begin */
    RULE_STRIP_RIGHT, /* off the end */
    RULE_JOIN         /* two and more spaces become `join` */
};

enum rule_prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

/* A text that is one token wherever it stands. */
struct added {
    char *text;
    size_t n_bytes;
    int32_t id;
    bool takes_left, takes_right; /* white space beside it goes with it */
};

struct rules {
    enum rule_step steps[RULES_STEPS_MAX];
    int32_t n_steps;
    char join[RULES_JOIN_BYTES_MAX + 1];
    enum rule_prepend prepend; /* U+2581 before a text, or before that at the prompt's begin */
    bool byte_fallback;
    struct added *added; /* longest first */
    int32_t n_added;
    int32_t eos; /* id of </s> */
};

/* dir: the folder; NULL: the defaults. ERR_DATA names file and reason; ERR_NOINPUT: unreadable. */
MUST_USE err_t rules_open(struct rules **out, const char *dir, const struct spm *s);
void rules_close(struct rules **r);

#endif
