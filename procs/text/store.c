/* store.c - see store.h. */
#include "procs/text/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct store_header {
    char magic[8]; /* "llprompt" */
    uint32_t version, row_len, dim, reserved;
};

/* Of one record; the embedding follows, then SHA-256 of head and embedding. */
struct record_head {
    uint8_t key[PROMPT_KEY_BYTES];
    int32_t n_tokens, n_tokens_full;
};

enum { STORE_VERSION = 1, SUM_BYTES = crypto_hash_sha256_BYTES };

struct store {
    int fd;
    char path[CONF_TEXT_MAX];
    size_t embedding_bytes, record_bytes;
    int32_t row_len;
    int64_t n_records;
    uint8_t *record; /* one, in memory */
};

static err_t check_header(struct store *s, const struct store_header *want)
{
    struct store_header h;
    const ssize_t n = pread(s->fd, &h, sizeof h, 0);
    if (n == 0) {
        if (pwrite(s->fd, want, sizeof *want, 0) != (ssize_t)sizeof *want)
            return FAIL(ERR_WRITE, "cache.file %s: %s", s->path, strerror(errno));
        return OK;
    }
    if (n != (ssize_t)sizeof h || memcmp(&h, want, sizeof h) != 0)
        return FAIL(ERR_DATA, "cache.file %s: not a prompt cache of [%u, %u] embeddings", s->path,
                    want->row_len, want->dim);
    return OK;
}

err_t store_open(struct store **out, const char *path, const struct conf *c)
{
    err_t e = OK;
    struct stat st;
    struct store_header want = {.magic = "llprompt",
                                .version = STORE_VERSION,
                                .row_len = (uint32_t)c->text.text_len,
                                .dim = (uint32_t)c->text.dim};
    struct store *s = calloc(1, sizeof *s);
    if (!s) return FAIL(ERR_NOMEM, "prompt store");
    s->row_len = c->text.text_len;
    snprintf(s->path, sizeof s->path, "%s", path);
    s->embedding_bytes = (size_t)c->text.text_len * (size_t)c->text.dim * sizeof(float);
    s->record_bytes = sizeof(struct record_head) + s->embedding_bytes + SUM_BYTES;
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->fd < 0) {
        e = FAIL(ERR_WRITE, "cache.file %s: %s", path, strerror(errno));
        goto out;
    }
    TRY(check_header(s, &want));
    s->record = malloc(s->record_bytes);
    if (!s->record || fstat(s->fd, &st) != 0) {
        e = FAIL(ERR_NOMEM, "prompt store");
        goto out;
    }
    s->n_records = (st.st_size - (int64_t)sizeof want) / (int64_t)s->record_bytes;
    *out = s;
    s = NULL;
out:
    store_close(&s);
    return e;
}

void store_close(struct store **s)
{
    if (!*s) return;
    if ((*s)->fd >= 0) close((*s)->fd);
    free((*s)->record);
    free(*s);
    *s = NULL;
}

int64_t store_count(const struct store *s)
{
    return s->n_records;
}

static off_t record_offset(const struct store *s, int64_t i)
{
    return (off_t)sizeof(struct store_header) + (off_t)i * (off_t)s->record_bytes;
}

static void sum_of(const struct store *s, uint8_t sum[SUM_BYTES])
{
    crypto_hash_sha256(sum, s->record, s->record_bytes - SUM_BYTES);
}

bool store_read(struct store *s, int64_t i, uint8_t key[PROMPT_KEY_BYTES], float *embedding,
                int32_t *n_tokens, int32_t *n_tokens_full)
{
    struct record_head head;
    uint8_t sum[SUM_BYTES];
    if (pread(s->fd, s->record, s->record_bytes, record_offset(s, i)) != (ssize_t)s->record_bytes)
        return false;
    sum_of(s, sum);
    if (memcmp(sum, s->record + s->record_bytes - SUM_BYTES, SUM_BYTES) != 0) return false;
    memcpy(&head, s->record, sizeof head);
    if (head.n_tokens < 1 || head.n_tokens > s->row_len || head.n_tokens_full < head.n_tokens)
        return false;
    memcpy(key, head.key, sizeof head.key);
    memcpy(embedding, s->record + sizeof head, s->embedding_bytes);
    *n_tokens = head.n_tokens;
    *n_tokens_full = head.n_tokens_full;
    return true;
}

err_t store_put(struct store *s, int64_t i, const uint8_t key[PROMPT_KEY_BYTES],
                const float *embedding, int32_t n_tokens, int32_t n_tokens_full)
{
    struct record_head head = {.n_tokens = n_tokens, .n_tokens_full = n_tokens_full};
    memcpy(head.key, key, sizeof head.key);
    memcpy(s->record, &head, sizeof head);
    memcpy(s->record + sizeof head, embedding, s->embedding_bytes);
    sum_of(s, s->record + s->record_bytes - SUM_BYTES);
    errno = ENOSPC; /* of a write that was short */
    if (pwrite(s->fd, s->record, s->record_bytes, record_offset(s, i)) != (ssize_t)s->record_bytes)
        return FAIL(ERR_WRITE, "cache.file %s: %s", s->path, strerror(errno));
    if (i >= s->n_records) s->n_records = i + 1;
    return OK;
}
