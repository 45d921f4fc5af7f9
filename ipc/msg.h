/* msg.h - every message: a struct, a table of its fields, a msgpack map on the wire.
 *
 * Wire form: {"v":1,"t":"prompt","request":7,"text":"..."}. Integers have bounds, strings a length,
 * a message MSG_BYTES_MAX bytes. Packing is msgpack-c's; unpacking is our own cursor over the
 * bytes (msgpack-c reserves gigabytes for a five-byte header), which allocates nothing and refuses:
 * nesting, unknown types, missing, doubled or out-of-bounds fields, trailing bytes, text that is
 * not UTF-8. An unknown key with a plain value is skipped, so that a field can be added. Another
 * "v" is refused in words. Every refusal is ERR_DATA.
 */
#ifndef IPC_MSG_H
#define IPC_MSG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/prompt.h"

enum { MSG_VERSION = 1, MSG_BYTES_MAX = 65536 };

enum msg_type {
    MSG_BELL,    /* stage -> stage: look at the ledger */
    MSG_PROMPT,  /* client -> gateway: take effect as soon as possible */
    MSG_PRESET,  /* client -> gateway: other steps and another window, as soon as possible */
    MSG_FINISH,  /* client -> gateway: the job finishes its block and file, and begins no other */
    MSG_RECEIPT, /* gateway -> client: decided */
    MSG_REFUSED, /* gateway -> client */
    MSG_TYPES
};

struct msg {
    enum msg_type type;
    uint64_t request;                /* the client's number, never 0; the answer's too */
    uint64_t job;                    /* FINISH: its number; a late one must not end the next */
    uint64_t from;                   /* BELL: enum ledger_writer */
    int64_t window;                  /* PRESET: as dit.window */
    int64_t block;                   /* RECEIPT: block of the session */
    int64_t latent;                  /* RECEIPT: first latent frame of the session */
    int64_t frame;                   /* RECEIPT: first pixel frame of the session */
    int64_t time_ms;                 /* RECEIPT: of that frame in the video */
    int64_t tokens, tokens_full;     /* RECEIPT: of the prompt, used and before it was cut */
    int64_t status;                  /* REFUSED: exit status */
    char text[PROMPT_BYTES_MAX + 1]; /* PROMPT: the prompt; PRESET: the steps; REFUSED: one line */
};

/* Bytes written to buf; 0 when cap is too small or a field is out of its bounds. */
size_t msg_pack(const struct msg *m, uint8_t *buf, size_t cap);
/* On failure m holds nothing of use. */
MUST_USE err_t msg_unpack(struct msg *m, const uint8_t *buf, size_t n_bytes);

/* docs/PROTOCOL.md's table of messages, and `longlived-ctl messages`. */
void msg_print_help(FILE *f);

#endif
