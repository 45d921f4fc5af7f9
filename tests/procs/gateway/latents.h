/* latents.h - for tests of the gateway: what a file of latents holds. */
#ifndef TESTS_PROCS_GATEWAY_LATENTS_H
#define TESTS_PROCS_GATEWAY_LATENTS_H

#include "common/checkpoint.h"
#include "tests/scratch.h"

/* Latents [0, n), value(latent, i) each, and nothing else. */
static inline void check_latents(const char *path, int64_t n_values,
                                 float (*value)(int64_t latent, int64_t i), int64_t n)
{
    struct checkpoint *f = NULL;
    float *got = malloc((size_t)n_values * sizeof *got);
    assert_non_null(got);
    assert_int_equal(checkpoint_open(&f, path), OK);
    const struct ckpt_tensor *t = checkpoint_find(f, "out");
    assert_true(t && t->dtype == CKPT_F32 && t->rank == 4);
    assert_int_equal(t->shape[0], n);
    assert_int_equal(ckpt_count(t), n * n_values);
    for (int64_t l = 0; l < n; l++) {
        assert_int_equal(checkpoint_read(f, t, l * n_values, n_values, got), OK);
        for (int64_t i = 0; i < n_values; i++) assert_true(got[i] == value(l, i));
    }
    checkpoint_close(&f);
    free(got);
}

#endif
