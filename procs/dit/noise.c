/* noise.c - see noise.h. */
#include "procs/dit/noise.h"

#include <stdlib.h>

#include "common/dump.h"
#include "kernels/ops.h"

/* Sequences of a session's seed: which block's noise, and before which step. */
static uint64_t stream_of(int64_t block, int32_t step)
{
    return (uint64_t)1 << 63 | (uint64_t)block << 8 | (uint64_t)(step + 1);
}

err_t noise_open(struct noise *n, struct stage *st, struct tensor key, size_t bytes)
{
    *n = (struct noise){.st = st, .key = key, .session = -1};
    n->block = malloc(bytes);
    return n->block ? OK : FAIL(ERR_NOMEM, "noise");
}

void noise_close(struct noise *n)
{
    checkpoint_close(&n->file);
    free(n->block);
    *n = (struct noise){0};
}

err_t noise_begin(struct noise *n, int64_t session)
{
    err_t e = OK;
    struct job *job = NULL;
    const struct ledger_session *s = &n->st->ledger->sessions[session];
    if (n->session == session) return OK;
    checkpoint_close(&n->file);
    n->session = -1;
    if (s->files & SESSION_NOISE) {
        TRY(stage_job(n->st, session, &job));
        const struct job_video *v = &job->videos[s->video];
        TRY(dump_open_noise(&n->file, v->noise, &n->st->conf, v->n_blocks));
    }
    n->session = session;
out:
    job_free(&job);
    return e;
}

err_t noise_draw(struct noise *n, struct tensor to, int64_t seed, int64_t block, int32_t step)
{
    err_t e = OK;
    struct dev *d = n->st->dev;
    const uint64_t key[2] = {(uint64_t)seed, stream_of(block, step)};
    if (n->file) {
        TRY(dump_read_noise(n->file, &n->st->conf, block, step, n->block));
        TRY(dev_upload(d, to.data, n->block, tensor_bytes(to)));
    } else {
        TRY(dev_upload(d, n->key.data, key, sizeof key));
        TRY(ops_randn(d, to, n->key, 0, 1));
    }
    TRY(ops_keep(d, to));
    TRY(dev_sync(d)); /* the key is written again */
out:
    return e;
}
