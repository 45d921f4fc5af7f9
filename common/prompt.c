/* prompt.c - see prompt.h. */
#include "common/prompt.h"

#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/clean.h"

_Static_assert(crypto_hash_sha256_BYTES == PROMPT_KEY_BYTES, "a key is one SHA-256");

/* Decodes one code point of RFC 3629 UTF-8; its length in bytes, or 0: overlong, surrogate, beyond
 * U+10FFFF, cut short or a stray byte. */
static size_t decode(const uint8_t *s, size_t n, uint32_t *cp)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t c = s[0];
    const size_t len = c < 0x80         ? 1
                       : c >> 5 == 0x6  ? 2
                       : c >> 4 == 0xE  ? 3
                       : c >> 3 == 0x1E ? 4
                                        : 0;
    if (len == 0 || len > n) return 0;
    uint32_t v = len == 1 ? c : c & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (s[i] >> 6 != 0x2) return 0;
        v = v << 6 | (s[i] & 0x3Fu);
    }
    if (v < least[len] || v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF)) return 0;
    *cp = v;
    return len;
}

static err_t check_bytes(const char *text, size_t n_bytes)
{
    const uint8_t *s = (const uint8_t *)text;
    if (n_bytes > PROMPT_BYTES_MAX)
        return FAIL(ERR_DATA, "prompt of %zu bytes: at most %d", n_bytes, PROMPT_BYTES_MAX);
    for (size_t i = 0; i < n_bytes;) {
        uint32_t cp = 0;
        const size_t len = decode(s + i, n_bytes - i, &cp);
        if (len == 0) return FAIL(ERR_DATA, "prompt is not UTF-8 at byte %zu", i + 1);
        if (cp == 0) return FAIL(ERR_DATA, "prompt has NUL at byte %zu", i + 1);
        i += len;
    }
    return OK;
}

err_t prompt_clean(const char *text, size_t n_bytes, char *out, size_t cap)
{
    err_t e = OK;
    char *clean = NULL;
    size_t n = 0;
    MUST(cap > PROMPT_BYTES_MAX);
    TRY(check_bytes(text, n_bytes));
    TRY(clean_text(text, n_bytes, &clean, &n));
    if (n == 0) e = FAIL(ERR_DATA, "prompt is empty");
    else if (n > PROMPT_BYTES_MAX)
        e = FAIL(ERR_DATA, "prompt of %zu bytes, once cleaned: at most %d", n, PROMPT_BYTES_MAX);
    else memcpy(out, clean, n + 1);
out:
    free(clean);
    return e;
}

err_t prompt_check(const char *text, size_t n_bytes)
{
    char clean[PROMPT_BYTES_MAX + 1];
    return prompt_clean(text, n_bytes, clean, sizeof clean);
}

/* Lengths before bytes, and numbers of fixed width: no two lists of parts give the same bytes. */
static void add_u64(crypto_hash_sha256_state *h, uint64_t v)
{
    uint8_t le[8];
    for (int i = 0; i < 8; i++) le[i] = (uint8_t)(v >> (8 * i));
    crypto_hash_sha256_update(h, le, sizeof le);
}

static void add_bytes(crypto_hash_sha256_state *h, const void *data, size_t n)
{
    add_u64(h, n);
    crypto_hash_sha256_update(h, data, n);
}

static void add_text(crypto_hash_sha256_state *h, const char *s)
{
    add_bytes(h, s, strlen(s));
}

void prompt_key(const struct conf *c, const char *clean, int64_t at, uint8_t key[PROMPT_KEY_BYTES])
{
    crypto_hash_sha256_state h;
    uint8_t weights[32];
    weights_identity(c, "text", weights);
    crypto_hash_sha256_init(&h);
    add_text(&h, "longlived.prompt.1");
    add_text(&h, c->text.tokenizer_id[0] ? c->text.tokenizer_id : c->text.tokenizer);
    add_bytes(&h, weights, sizeof weights);
    add_u64(&h, (uint64_t)c->text.text_len);
    add_text(&h, clean);
    if (!c->cache.reuse) add_u64(&h, (uint64_t)at);
    crypto_hash_sha256_final(&h, key);
}

void prompt_embed_key(const uint8_t file_id[32], int64_t at, uint8_t key[PROMPT_KEY_BYTES])
{
    crypto_hash_sha256_state h;
    crypto_hash_sha256_init(&h);
    add_text(&h, "longlived.embed.1");
    add_bytes(&h, file_id, 32);
    add_u64(&h, (uint64_t)at);
    crypto_hash_sha256_final(&h, key);
}

void weights_identity(const struct conf *c, const char *stage, uint8_t id[32])
{
    /* The DiT's heads shape no weight: Q, K, V and their norms are dim wide however it is split.
     * The text encoder's do: its attention is heads * head_dim wide, its bias table heads. */
    const int32_t text[] = {c->text.vocab,    c->text.dim,     c->text.heads,
                            c->text.head_dim, c->text.ffn_dim, c->text.layers};
    const int32_t dit[] = {c->model.latent_channels, c->text.dim,   c->dit.dim,
                           c->dit.ffn_dim,           c->dit.layers, c->dit.freq_dim};
    const int32_t vae[] = {c->model.latent_channels, c->vae.base_dim};
    const struct {
        const char *stage;
        const int32_t *dims;
        size_t n;
        const char *path, *id;
    } of[] = {
        {"text", text, sizeof text / sizeof *text, c->model.text, c->model.text_id},
        {"dit", dit, sizeof dit / sizeof *dit, c->model.dit, c->model.dit_id},
        {"vae", vae, sizeof vae / sizeof *vae, c->model.vae, c->model.vae_id},
    };
    size_t at = 0;
    crypto_hash_sha256_state h;
    while (at < 3 && strcmp(of[at].stage, stage) != 0) at++;
    MUST(at < 3);
    crypto_hash_sha256_init(&h);
    add_text(&h, "longlived.weights.1");
    add_text(&h, stage);
    add_text(&h, of[at].path[0] ? "file" : c->model.weights);
    add_text(&h, of[at].path[0] ? of[at].id : "");
    add_u64(&h, (uint64_t)c->model.parity);
    for (size_t i = 0; i < of[at].n; i++) add_u64(&h, (uint64_t)of[at].dims[i]);
    crypto_hash_sha256_final(&h, id);
}
