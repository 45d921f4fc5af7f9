/* prompts.h - region `prompts`: the prompt cache, embeddings by key.
 *
 * Written by text alone, read by dit and gateway. An entry has a version counter: odd while it is
 * written or empty, even and above zero when it can be read. A reader copies and looks at the
 * counter again, so an entry replaced under its hands is a miss and never a torn embedding. A
 * reader needs no text process.
 *
 * Least recently used: how recent an entry is follows from the ledger (the newest script record
 * that names its key), so nobody but text writes here.
 */
#ifndef IPC_PROMPTS_H
#define IPC_PROMPTS_H

#include "ipc/ledger.h"

enum { PROMPTS_LAYOUT = 1 };

struct prompts_entry {
    counter version;
    uint8_t key[PROMPT_KEY_BYTES];
    uint32_t n_tokens;      /* valid rows, EOS included */
    uint32_t n_tokens_full; /* before the cut at text_len */
    uint64_t loaded;        /* order in which entries came; for those no script names */
};

struct prompts {
    uint32_t n_entries, row_len; /* text_len rows of dim f32 each */
    uint32_t dim, reserved;
    struct prompts_entry entry[]; /* n_entries, then the embeddings [n_entries, text_len, dim] */
};

uint64_t prompts_bytes(const struct conf *c);
/* Formats a new region; does nothing to one that has this format. */
void prompts_format(struct prompts *p, const struct conf *c);

/* Index of the readable entry with this key, or -1. */
int32_t prompts_find(const struct prompts *p, const uint8_t key[PROMPT_KEY_BYTES]);
/* Copies the embedding [text_len, dim] f32 (rows past n_tokens are zero) to out. False: the entry
 * is not this key's any more. */
bool prompts_copy(const struct prompts *p, int32_t i, const uint8_t key[PROMPT_KEY_BYTES],
                  float *out, int32_t *n_tokens, int32_t *n_tokens_full);

/* Writer: where to put entry i's embedding; not readable until prompts_commit. */
float *prompts_begin(struct prompts *p, int32_t i);
void prompts_commit(struct prompts *p, int32_t i, const uint8_t key[PROMPT_KEY_BYTES],
                    int32_t n_tokens, int32_t n_tokens_full);
/* Writer: an entry to fill for script `at`: an empty one, else the least recently used one that no
 * prompt still to be decided before `at` needs. -1: every entry is needed, wait. *evicts tells. */
int32_t prompts_victim(const struct prompts *p, const struct ledger *l, int64_t last_decided,
                       int64_t at, bool *evicts);
int32_t prompts_count(const struct prompts *p);

#endif
