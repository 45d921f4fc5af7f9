/* model.h - for tests: a sentencepiece model file written by hand, piece by piece.
 * Fields: sentencepiece_model.proto. */
#ifndef TESTS_MODEL_H
#define TESTS_MODEL_H

#include <stdint.h>
#include <string.h>

enum model_piece { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6 };

struct model {
    uint8_t data[16384];
    size_t n;
};

static inline void model_varint(struct model *m, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) m->data[m->n++] = (uint8_t)(v | 0x80);
    m->data[m->n++] = (uint8_t)v;
}

static inline void model_bytes(struct model *m, uint32_t field, const void *data, size_t n)
{
    model_varint(m, field << 3 | 2);
    model_varint(m, n);
    memcpy(m->data + m->n, data, n);
    m->n += n;
}

static inline void model_piece(struct model *m, const char *text, float score, int kind)
{
    struct model p = {.n = 0};
    model_bytes(&p, 1, text, strlen(text));
    model_varint(&p, 2 << 3 | 5);
    memcpy(p.data + p.n, &score, 4);
    p.n += 4;
    model_varint(&p, 3 << 3 | 0);
    model_varint(&p, (uint64_t)kind);
    model_bytes(m, 1, p.data, p.n);
}

/* type: 1 unigram, 2 BPE. Byte pieces want has_bytes. */
static inline void model_trainer(struct model *m, int type, int has_bytes)
{
    struct model t = {.n = 0};
    model_varint(&t, 3 << 3 | 0);
    model_varint(&t, (uint64_t)type);
    model_varint(&t, 35 << 3 | 0);
    model_varint(&t, (uint64_t)has_bytes);
    model_bytes(m, 2, t.data, t.n);
}

/* <pad> 0, </s> 1, <s> 2, <unk> 3: as umT5's. */
static inline void model_begin(struct model *m)
{
    m->n = 0;
    model_piece(m, "<pad>", 0, CONTROL);
    model_piece(m, "</s>", 0, CONTROL);
    model_piece(m, "<s>", 0, CONTROL);
    model_piece(m, "<unk>", 0, UNKNOWN);
}

#endif
