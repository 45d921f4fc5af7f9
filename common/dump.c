/* dump.c - see dump.h. */
#include "common/dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The header of a latents file is padded to this, so that its shape may change in place. */
enum { HEADER_BYTES = 256 };

static int64_t latent_values(const struct conf *c)
{
    return (int64_t)c->model.latent_channels * c->model.latent_rows * c->model.latent_cols;
}

static int64_t n_renoised(const struct conf *c)
{
    int64_t n = 0;
    for (const char *s = c->dit.steps; *s; s++) n += *s == ',';
    return n;
}

/* The tensor must be there, of floats, and of this shape; a dimension of -1 is whatever it is. */
static err_t check(const struct checkpoint *f, const char *name, int32_t rank, const int64_t *want)
{
    char is[192], must[192];
    int64_t shape[CKPT_RANK_MAX];
    const struct ckpt_tensor *t = checkpoint_find(f, name);
    if (!t) return FAIL(ERR_DATA, "%s: no tensor %s", checkpoint_path(f), name);
    bool fits = t->rank == rank && ckpt_is_float(t->dtype) && t->is_dense;
    for (int32_t i = 0; i < rank; i++) {
        shape[i] = want[i] < 0 && i < t->rank ? t->shape[i] : want[i];
        fits = fits && shape[i] == t->shape[i];
    }
    if (fits) return OK;
    ckpt_shape_text(t->shape, t->rank, is, sizeof is);
    ckpt_shape_text(shape, rank, must, sizeof must);
    return FAIL(ERR_DATA, "%s: %s is %s %s, not floats %s", checkpoint_path(f), name,
                ckpt_dtype_name(t->dtype), is, must);
}

int64_t dump_blocks(const struct checkpoint *noise, const struct conf *c)
{
    return checkpoint_find(noise, "noise")->shape[0] / c->dit.block;
}

err_t dump_open_noise(struct checkpoint **out, const char *path, const struct conf *c,
                      int64_t n_blocks)
{
    err_t e = OK;
    struct checkpoint *f = NULL;
    const int64_t z = c->model.latent_channels, Y = c->model.latent_rows, X = c->model.latent_cols;
    TRY(checkpoint_open(&f, path));
    TRY(check(f, "noise", 4, (int64_t[]){-1, z, Y, X}));
    const int64_t n = dump_blocks(f, c);
    if (n < 1 || n < n_blocks) {
        e = FAIL(ERR_DATA, "%s: noise of %lld blocks, not %lld", path, (long long)n,
                 (long long)(n_blocks ? n_blocks : 1));
        goto out;
    }
    if (n_renoised(c) > 0)
        TRY(check(f, "eps", 6, (int64_t[]){n, n_renoised(c), c->dit.block, z, Y, X}));
    *out = f;
    f = NULL;
out:
    checkpoint_close(&f);
    return e;
}

err_t dump_read_noise(struct checkpoint *noise, const struct conf *c, int64_t block, int32_t step,
                      float *out)
{
    const int64_t n = c->dit.block * latent_values(c);
    if (step < 0) return checkpoint_read(noise, checkpoint_find(noise, "noise"), block * n, n, out);
    return checkpoint_read(noise, checkpoint_find(noise, "eps"), (block * n_renoised(c) + step) * n,
                           n, out);
}

err_t dump_open_embeds(struct checkpoint **out, const char *path, const struct conf *c,
                       int64_t n_prompts)
{
    err_t e = OK;
    struct checkpoint *f = NULL;
    TRY(checkpoint_open(&f, path));
    TRY(check(f, "prompt_embeds", 3, (int64_t[]){-1, c->text.text_len, c->text.dim}));
    const int64_t n = checkpoint_find(f, "prompt_embeds")->shape[0];
    if (n < n_prompts) {
        e = FAIL(ERR_DATA, "%s: %lld embeddings, not %lld", path, (long long)n,
                 (long long)n_prompts);
        goto out;
    }
    *out = f;
    f = NULL;
out:
    checkpoint_close(&f);
    return e;
}

err_t dump_read_embed(struct checkpoint *embeds, const struct conf *c, int64_t prompt, float *out,
                      int32_t *n_tokens)
{
    err_t e = OK;
    const int64_t n = (int64_t)c->text.text_len * c->text.dim;
    TRY(checkpoint_read(embeds, checkpoint_find(embeds, "prompt_embeds"), prompt * n, n, out));
    int64_t used = n;
    while (used > 0 && out[used - 1] == 0) used--;
    *n_tokens = used > 0 ? (int32_t)((used - 1) / c->text.dim) + 1 : 1;
out:
    return e;
}

/* --- latents ---------------------------------------------------------------------------------- */

static err_t failed(const char *path)
{
    return FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
}

static err_t write_all(int fd, const char *path, const void *data, size_t n, int64_t at)
{
    for (size_t done = 0; done < n;) {
        const ssize_t wrote = pwrite(fd, (const char *)data + done, n - done, at + (int64_t)done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return failed(path);
        done += (size_t)wrote;
    }
    return OK;
}

static int64_t latent_bytes(const struct conf *c)
{
    return latent_values(c) * (int64_t)sizeof(float);
}

err_t dump_latents_end(int fd, const char *path, const struct conf *c, int64_t n_latents)
{
    char header[8 + HEADER_BYTES];
    err_t e = OK;
    const uint64_t n_header = HEADER_BYTES;
    const int64_t n_bytes = n_latents * latent_bytes(c);
    memset(header, ' ', sizeof header);
    memcpy(header, &n_header, 8);
    const int n = snprintf(
        header + 8, HEADER_BYTES,
        "{\"out\":{\"dtype\":\"F32\",\"shape\":[%lld,%d,%d,%d],\"data_offsets\":[0,%lld]}}",
        (long long)n_latents, c->model.latent_channels, c->model.latent_rows, c->model.latent_cols,
        (long long)n_bytes);
    header[8 + n] = ' ';
    TRY(write_all(fd, path, header, sizeof header, 0));
    if (ftruncate(fd, (int64_t)sizeof header + n_bytes) != 0) e = failed(path);
out:
    return e;
}

err_t dump_latents_open(int *fd, const char *path, const struct conf *c, int64_t n_latents,
                        bool resume)
{
    err_t e = OK;
    const int at = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (resume ? 0 : O_TRUNC), 0666);
    if (at < 0) return failed(path);
    e = dump_latents_end(at, path, c, n_latents);
    if (e == OK) *fd = at;
    else close(at);
    return e;
}

err_t dump_latents_put(int fd, const char *path, const struct conf *c, int64_t at,
                       const float *latent)
{
    return write_all(fd, path, latent, (size_t)latent_bytes(c),
                     8 + HEADER_BYTES + at * latent_bytes(c));
}
