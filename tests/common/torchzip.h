/* torchzip.h - for tests: the zip of a torch.save file from pieces, and spoilt on purpose. */
#ifndef TESTS_COMMON_TORCHZIP_H
#define TESTS_COMMON_TORCHZIP_H

#include <stdbool.h>

#include "tests/scratch.h"

struct torchzip {
    uint8_t bytes[1 << 16], directory[1 << 14];
    size_t n, n_directory;
    uint32_t n_entries;
    bool is_64; /* every size and place is in a 64-bit field */
};

static inline void torchzip_number(uint8_t *to, size_t *n, uint64_t v, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++) to[(*n)++] = (uint8_t)(i < 8 ? v >> 8 * i : 0);
}

/* A stored entry; torch pads its local extra field so that the bytes begin at a multiple of 64. */
static inline void torchzip_add(struct torchzip *z, const char *name, const void *data, size_t n)
{
    const size_t n_name = strlen(name), at = z->n;
    const size_t pad = 4 + (64 - (at + 30 + n_name + 4) % 64) % 64;
    const uint64_t narrow = z->is_64 ? UINT32_MAX : n;
    memcpy(z->bytes + z->n, "PK\003\004\000\000\000\000", 8);
    z->n += 8;
    torchzip_number(z->bytes, &z->n, 0, 10); /* method, time, date, checksum */
    torchzip_number(z->bytes, &z->n, narrow, 4);
    torchzip_number(z->bytes, &z->n, narrow, 4);
    torchzip_number(z->bytes, &z->n, n_name, 2);
    torchzip_number(z->bytes, &z->n, pad, 2);
    memcpy(z->bytes + z->n, name, n_name);
    z->n += n_name;
    torchzip_number(z->bytes, &z->n, 'F' | 'B' << 8 | (pad - 4) << 16, 4);
    memset(z->bytes + z->n, 'Z', pad - 4);
    z->n += pad - 4;
    memcpy(z->bytes + z->n, data, n);
    z->n += n;

    uint8_t *d = z->directory;
    memcpy(d + z->n_directory, "PK\001\002", 4);
    z->n_directory += 4;
    torchzip_number(d, &z->n_directory, 0, 16);
    torchzip_number(d, &z->n_directory, narrow, 4);
    torchzip_number(d, &z->n_directory, narrow, 4);
    torchzip_number(d, &z->n_directory, n_name, 2);
    torchzip_number(d, &z->n_directory, z->is_64 ? 28 : 0, 2);
    torchzip_number(d, &z->n_directory, 0, 10);
    torchzip_number(d, &z->n_directory, z->is_64 ? UINT32_MAX : at, 4);
    memcpy(d + z->n_directory, name, n_name);
    z->n_directory += n_name;
    if (z->is_64) {
        torchzip_number(d, &z->n_directory, 1 | 24 << 16, 4);
        torchzip_number(d, &z->n_directory, n, 8);
        torchzip_number(d, &z->n_directory, n, 8);
        torchzip_number(d, &z->n_directory, at, 8);
    }
    z->n_entries++;
}

static inline void torchzip_end(struct torchzip *z)
{
    const size_t at = z->n;
    memcpy(z->bytes + z->n, z->directory, z->n_directory);
    z->n += z->n_directory;
    if (z->is_64) {
        const size_t end_at = z->n;
        memcpy(z->bytes + z->n, "PK\006\006", 4);
        z->n += 4;
        torchzip_number(z->bytes, &z->n, 44, 8);
        torchzip_number(z->bytes, &z->n, 0, 12);
        torchzip_number(z->bytes, &z->n, z->n_entries, 8);
        torchzip_number(z->bytes, &z->n, z->n_entries, 8);
        torchzip_number(z->bytes, &z->n, z->n_directory, 8);
        torchzip_number(z->bytes, &z->n, at, 8);
        memcpy(z->bytes + z->n, "PK\006\007", 4);
        z->n += 4;
        torchzip_number(z->bytes, &z->n, 0, 4);
        torchzip_number(z->bytes, &z->n, end_at, 8);
        torchzip_number(z->bytes, &z->n, 1, 4);
    }
    memcpy(z->bytes + z->n, "PK\005\006", 4);
    z->n += 4;
    torchzip_number(z->bytes, &z->n, 0, 4);
    torchzip_number(z->bytes, &z->n, z->is_64 ? 0xFFFF : z->n_entries, 2);
    torchzip_number(z->bytes, &z->n, z->is_64 ? 0xFFFF : z->n_entries, 2);
    torchzip_number(z->bytes, &z->n, z->is_64 ? UINT32_MAX : z->n_directory, 4);
    torchzip_number(z->bytes, &z->n, z->is_64 ? UINT32_MAX : at, 4);
    torchzip_number(z->bytes, &z->n, 0, 2);
}

/* The file of one pickle and one storage "0" of 24 bytes. */
static inline const char *torchzip_file(const char *name, const void *pickle, size_t n_pickle)
{
    static struct torchzip z;
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    memset(&z, 0, sizeof z);
    torchzip_add(&z, "archive/data.pkl", pickle, n_pickle);
    torchzip_add(&z, "archive/data/0", values, sizeof values);
    torchzip_add(&z, "archive/version", "3\n", 2);
    torchzip_end(&z);
    return scratch_put_bytes(name, z.bytes, z.n);
}

/* Pieces of a pickle: storage "0" as floats, and a tensor [2, 3] over it, on the stack. */
#define PK_STORAGE "(U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\6tQ"
#define PK_TENSOR                                                                                  \
    "ctorch._utils\n_rebuild_tensor_v2\n(" PK_STORAGE "K\0K\2K\3\x86K\3K\1\x86\x89"                \
    "ccollections\nOrderedDict\n)RtR"

#endif
