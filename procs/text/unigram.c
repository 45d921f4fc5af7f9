/* unigram.c - see unigram.h. */
#include "procs/text/unigram.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double UNKNOWN_PENALTY = 10.0;

/* Best way to a byte position. */
struct node {
    double score;
    int32_t id, from; /* the last piece and its begin; from -1: not reached */
    int32_t next;     /* on the best path: the end of the piece that begins here */
};

struct unigram {
    const struct spm *spm;
    uint32_t *slots; /* open addressing; id + 1, 0 empty */
    size_t n_slots;  /* a power of 2 */
    size_t piece_bytes_max;
    double unknown_score;
    int32_t unk, bytes[256];
    bool byte_fallback;
    struct node *nodes; /* [text_bytes_max + 1] */
    size_t text_bytes_max;
};

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

/* FNV-1a: a byte at a time, so all prefixes of a text are hashed in one walk. */
static uint64_t hash_byte(uint64_t h, char byte)
{
    return (h ^ (uint8_t)byte) * UINT64_C(0x100000001b3);
}

/* The slot of the piece, or the empty one where it would be. */
static size_t slot_of(const struct unigram *u, uint64_t h, const char *s, size_t n)
{
    size_t i = (size_t)(h ^ h >> 32) & (u->n_slots - 1);
    for (; u->slots[i] != 0; i = (i + 1) & (u->n_slots - 1)) {
        size_t n_piece;
        float score;
        const char *piece = spm_piece(u->spm, (int32_t)u->slots[i] - 1, &n_piece, &score);
        if (n_piece == n && memcmp(piece, s, n) == 0) break;
    }
    return i;
}

static int32_t id_at(const struct unigram *u, uint64_t h, const char *s, size_t n)
{
    return (int32_t)u->slots[slot_of(u, h, s, n)] - 1;
}

int32_t unigram_id(const struct unigram *u, const char *piece, size_t n_bytes)
{
    uint64_t h = HASH_BEGIN;
    for (size_t i = 0; i < n_bytes; i++) h = hash_byte(h, piece[i]);
    return id_at(u, h, piece, n_bytes);
}

static void fill(struct unigram *u)
{
    double least = 0;
    for (int32_t id = 0; id < spm_count(u->spm); id++) {
        size_t n;
        float score;
        uint64_t h = HASH_BEGIN;
        const char *s = spm_piece(u->spm, id, &n, &score);
        for (size_t i = 0; i < n; i++) h = hash_byte(h, s[i]);
        if (id == 0 || (double)score < least) least = (double)score;
        if (n > u->piece_bytes_max) u->piece_bytes_max = n;
        if (n > 0) u->slots[slot_of(u, h, s, n)] = (uint32_t)id + 1;
    }
    u->unknown_score = least - UNKNOWN_PENALTY;
}

static void find_bytes(struct unigram *u)
{
    for (int b = 0; b < 256; b++) {
        char piece[8];
        const int n = snprintf(piece, sizeof piece, "<0x%02X>", b);
        u->bytes[b] = unigram_id(u, piece, (size_t)n);
    }
}

err_t unigram_open(struct unigram **out, const struct spm *s, bool byte_fallback,
                   size_t text_bytes_max)
{
    err_t e = OK;
    struct unigram *u = calloc(1, sizeof *u);
    if (!u) return FAIL(ERR_NOMEM, "tokenizer");
    u->spm = s;
    u->unk = spm_unk(s);
    u->byte_fallback = byte_fallback;
    u->text_bytes_max = text_bytes_max;
    u->n_slots = 16;
    while (u->n_slots < 2 * (size_t)spm_count(s)) u->n_slots *= 2;
    u->slots = calloc(u->n_slots, sizeof *u->slots);
    u->nodes = malloc((text_bytes_max + 1) * sizeof *u->nodes);
    if (!u->slots || !u->nodes) {
        e = FAIL(ERR_NOMEM, "tokenizer");
        goto out;
    }
    fill(u);
    find_bytes(u);
    *out = u;
    u = NULL;
out:
    unigram_close(&u);
    return e;
}

void unigram_close(struct unigram **u)
{
    if (!*u) return;
    free((*u)->slots);
    free((*u)->nodes);
    free(*u);
    *u = NULL;
}

static void offer(struct node *to, double score, int32_t id, size_t from)
{
    if (to->from >= 0 && score <= to->score) return;
    *to = (struct node){.score = score, .id = id, .from = (int32_t)from};
}

static size_t char_bytes(const char *s, size_t n_left)
{
    const uint8_t c = (uint8_t)s[0];
    const size_t n = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    return n < n_left ? n : n_left;
}

static void find_path(struct unigram *u, const char *s, size_t n)
{
    for (size_t i = 1; i <= n; i++) u->nodes[i].from = -1;
    u->nodes[0] = (struct node){.score = 0};
    for (size_t at = 0; at < n;) {
        const size_t n_char = char_bytes(s + at, n - at);
        const double score = u->nodes[at].score;
        bool has_char = false;
        uint64_t h = HASH_BEGIN;
        for (size_t len = 1; len <= u->piece_bytes_max && at + len <= n; len++) {
            h = hash_byte(h, s[at + len - 1]);
            const int32_t id = id_at(u, h, s + at, len);
            if (id < 0) continue;
            size_t n_piece;
            float piece_score;
            (void)spm_piece(u->spm, id, &n_piece, &piece_score);
            offer(&u->nodes[at + len], score + (double)piece_score, id, at);
            has_char |= len == n_char;
        }
        if (!has_char) offer(&u->nodes[at + n_char], score + u->unknown_score, u->unk, at);
        at += n_char;
    }
}

void ids_put(struct ids *out, int32_t id)
{
    if (out->n < out->n_max) out->at[out->n] = id;
    out->n++;
}

static void put_unknown(const struct unigram *u, const char *s, size_t n, struct ids *out)
{
    bool has_all = u->byte_fallback;
    for (size_t i = 0; i < n; i++) has_all = has_all && u->bytes[(uint8_t)s[i]] >= 0;
    if (!has_all) ids_put(out, u->unk);
    for (size_t i = 0; i < n && has_all; i++) ids_put(out, u->bytes[(uint8_t)s[i]]);
}

void unigram_encode(struct unigram *u, const char *text, size_t n_bytes, struct ids *out)
{
    MUST(n_bytes <= u->text_bytes_max);
    const int32_t end = (int32_t)n_bytes;
    struct node *node = u->nodes;
    find_path(u, text, n_bytes);
    for (int32_t at = end; at > 0; at = node[at].from) node[node[at].from].next = at;
    for (int32_t at = 0; at < end;) {
        int32_t to = node[at].next;
        if (node[to].id != u->unk) {
            ids_put(out, node[to].id);
        } else {
            while (to < end && node[node[to].next].id == u->unk) to = node[to].next;
            put_unknown(u, text + at, (size_t)(to - at), out);
        }
        at = to;
    }
}
