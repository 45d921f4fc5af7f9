/* checkpoint.h - for fuzz targets: everything that a checkpoint's reader promises. */
#ifndef TESTS_FUZZ_CHECKPOINT_H
#define TESTS_FUZZ_CHECKPOINT_H

#include "tests/fuzz/fuzz.h"

#include "common/lora.h"

/* Every dense tensor lies in the file and can be read from end to end. */
static inline void fuzz_read_all(struct checkpoint *c)
{
    for (int32_t i = 0; i < checkpoint_count(c); i++) {
        const struct ckpt_tensor *t = checkpoint_at(c, i);
        float x[256];
        uint8_t raw[256];
        MUST(checkpoint_find(c, t->name) == t);
        if (!t->is_dense) continue;
        for (uint64_t at = 0; at < t->n_bytes; at += sizeof raw) {
            const uint64_t left = t->n_bytes - at;
            MUST(checkpoint_read_raw(c, t, at, left < sizeof raw ? left : sizeof raw, raw) == OK);
        }
        const int64_t n = ckpt_count(t);
        if (ckpt_is_float(t->dtype))
            MUST(checkpoint_read(c, t, n > 256 ? n - 256 : 0, n < 256 ? n : 256, x) == OK);
    }
}

static inline int fuzz_checkpoint(const char *path)
{
    struct checkpoint *c = NULL;
    struct lora *l = NULL;
    uint8_t id[CKPT_ID_BYTES];
    err_t e = checkpoint_open(&c, path);
    if (e != OK) fuzz_refused(e, ERR_DATA, ERR_DATA);
    else {
        fuzz_read_all(c);
        e = checkpoint_clean(c);
        if (e != OK) fuzz_refused(e, ERR_DATA, ERR_DATA);
        else fuzz_read_all(c);
        checkpoint_identity(c, id);
    }
    checkpoint_close(&c);
    e = lora_open(&l, path, 0);
    if (e != OK) fuzz_refused(e, ERR_DATA, ERR_DATA);
    lora_close(&l);
    return 0;
}

#endif
