/* source.c - see source.h. */
#include "common/source.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include <sys/stat.h>

#include "common/file.h"

static const char *const stages[] = {"text", "dit", "vae"};
enum { STAGES = sizeof stages / sizeof *stages, ID_BYTES = 2 * CKPT_ID_BYTES };
enum { TOKENIZER_BYTES_MAX = 64 << 20 };

/* The first of the names that is there; else the first. */
static void find_in(char out[PATH_MAX], const char *folder, const char *name, const char *other)
{
    snprintf(out, PATH_MAX, "%s/%s", folder, other ? other : name);
    if (!other || access(out, F_OK) != 0) snprintf(out, PATH_MAX, "%s/%s", folder, name);
}

/* The key's file as an absolute path; from the folder, if the key is empty and there is one. A file
 * whose identity is known may be gone: its weights can be held still. */
static err_t settle(char key[CONF_TEXT_MAX], const char *what, const char *id, const char *folder,
                    const char *name, const char *other)
{
    char path[PATH_MAX], real[PATH_MAX];
    if (key[0]) snprintf(path, sizeof path, "%s", key);
    else if (folder[0]) find_in(path, folder, name, other);
    else return OK;
    if (!realpath(path, real)) {
        if (key[0] && id[0]) return OK;
        return FAIL(ERR_NOINPUT, "%s: %s: %s", what, path, strerror(errno));
    }
    if (strlen(real) >= CONF_TEXT_MAX)
        return FAIL(ERR_CONFIG, "%s: %s: over %d bytes", what, real, CONF_TEXT_MAX - 1);
    for (const char *p = real; *p; p++)
        if (*p == ';' || (uint8_t)*p < ' ')
            return FAIL(ERR_CONFIG, "%s: a path with ; or a control character", what);
    memset(key, 0, CONF_TEXT_MAX);
    memcpy(key, real, strlen(real));
    return OK;
}

const char *source_path(const struct conf *c, const char *stage)
{
    const char *const paths[STAGES] = {c->model.text, c->model.dit, c->model.vae};
    for (int i = 0; i < STAGES; i++)
        if (strcmp(stages[i], stage) == 0) return paths[i];
    MUST(!"a stage with weights");
    return "";
}

static const char *id_of(const struct conf *c, const char *stage)
{
    const char *const ids[STAGES] = {c->model.text_id, c->model.dit_id, c->model.vae_id};
    for (int i = 0; i < STAGES; i++)
        if (strcmp(stages[i], stage) == 0) return ids[i];
    MUST(!"a stage with weights");
    return "";
}

/* Opens a stage's files; hex: what they are now. */
static err_t open_now(const struct conf *c, const char *stage, struct checkpoint **ckpt,
                      struct lora **lora, char hex[ID_BYTES + 1])
{
    err_t e = OK;
    struct checkpoint *file = NULL;
    struct lora *l = NULL;
    uint8_t id[2][CKPT_ID_BYTES] = {{0}, {0}}, sum[CKPT_ID_BYTES];
    TRY(checkpoint_open(&file, source_path(c, stage)));
    TRY(checkpoint_clean(file));
    checkpoint_identity(file, id[0]);
    if (strcmp(stage, "dit") == 0 && c->model.lora[0]) {
        TRY(lora_open(&l, c->model.lora, c->model.lora_alpha));
        lora_identity(l, id[1]);
    }
    crypto_hash_sha256(sum, id[0], sizeof id);
    sodium_bin2hex(hex, ID_BYTES + 1, sum, sizeof sum);
    *ckpt = file;
    *lora = l;
    file = NULL;
    l = NULL;
out:
    checkpoint_close(&file);
    lora_close(&l);
    return e;
}

/* --- the tokenizer ---------------------------------------------------------------------------- */

static bool is_bytes(const struct conf *c)
{
    return strcmp(c->text.tokenizer, "bytes") == 0;
}

/* Name, length, content: no two lists of files give the same bytes. */
static err_t add_file(crypto_hash_sha256_state *h, const char *path, const char *name)
{
    char head[64], *data = NULL;
    size_t n_bytes = 0;
    const err_t e = file_read(path, TOKENIZER_BYTES_MAX, &data, &n_bytes);
    if (e == OK) {
        const int n = snprintf(head, sizeof head, "%s %zu\n", name, n_bytes);
        crypto_hash_sha256_update(h, (const uint8_t *)head, (size_t)n);
        crypto_hash_sha256_update(h, (const uint8_t *)data, n_bytes);
    }
    free(data);
    return e == ERR_LIMIT ? ERR_DATA : e;
}

static err_t tokenizer_now(const char *path, char hex[ID_BYTES + 1])
{
    static const char *const names[] = {"spiece.model", "tokenizer.json", "tokenizer_config.json"};
    err_t e = OK;
    crypto_hash_sha256_state h;
    uint8_t sum[crypto_hash_sha256_BYTES];
    char file[PATH_MAX];
    struct stat st;
    const bool is_dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    crypto_hash_sha256_init(&h);
    if (!is_dir) TRY(add_file(&h, path, names[0]));
    for (size_t i = 0; is_dir && i < sizeof names / sizeof *names; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        if (i == 0 || access(file, F_OK) == 0) TRY(add_file(&h, file, names[i]));
    }
    crypto_hash_sha256_final(&h, sum);
    sodium_bin2hex(hex, ID_BYTES + 1, sum, sizeof sum);
out:
    return e == OK ? OK : err_prefix(e, "text.tokenizer");
}

static err_t settle_tokenizer(struct conf *c)
{
    err_t e = OK;
    const bool is_auto = strcmp(c->text.tokenizer, "auto") == 0;
    if (is_auto) memset(c->text.tokenizer, 0, sizeof c->text.tokenizer);
    if (is_auto && !c->model.wan[0]) strcpy(c->text.tokenizer, "bytes");
    if (is_bytes(c)) return OK;
    TRY(settle(c->text.tokenizer, "text.tokenizer", c->text.tokenizer_id, c->model.wan,
               "google/umt5-xxl", NULL));
    if (!c->text.tokenizer_id[0]) TRY(tokenizer_now(c->text.tokenizer, c->text.tokenizer_id));
out:
    return e;
}

err_t source_check_tokenizer(const struct conf *c)
{
    err_t e = OK;
    char hex[ID_BYTES + 1];
    if (is_bytes(c) || !c->text.tokenizer_id[0]) return OK;
    TRY(tokenizer_now(c->text.tokenizer, hex));
    if (strcmp(hex, c->text.tokenizer_id) != 0)
        e = FAIL(ERR_DATA, "%s is not what it was when this run began, or text.tokenizer_id says",
                 c->text.tokenizer);
out:
    return e;
}

/* --- the whole -------------------------------------------------------------------------------- */

err_t source_resolve(struct conf *c)
{
    err_t e = OK;
    struct checkpoint *file = NULL;
    struct lora *lora = NULL;
    const char *wan = c->model.wan, *longlive = c->model.longlive;
    const bool has_longlive = longlive[0] != 0;
    TRY(settle(c->model.text, "model.text", c->model.text_id, wan,
               "models_t5_umt5-xxl-enc-bf16.pth", NULL));
    TRY(settle(c->model.vae, "model.vae", c->model.vae_id, wan, "Wan2.1_VAE.pth", NULL));
    TRY(settle(c->model.dit, "model.dit", c->model.dit_id, has_longlive ? longlive : wan,
               has_longlive ? "longlive_base.pt" : "diffusion_pytorch_model.safetensors",
               has_longlive ? "models/longlive_base.pt" : NULL));
    TRY(settle(c->model.lora, "model.lora", c->model.dit_id, longlive, "lora.pt",
               "models/lora.pt"));
    TRY(settle_tokenizer(c));
    memset(c->model.wan, 0, sizeof c->model.wan); /* applied */
    memset(c->model.longlive, 0, sizeof c->model.longlive);
    if (c->model.lora[0] && !c->model.dit[0])
        return FAIL(ERR_CONFIG, "model.lora = %s: without model.dit", c->model.lora);
    for (int i = 0; i < STAGES; i++) {
        char hex[ID_BYTES + 1];
        char *id = (char *)id_of(c, stages[i]);
        if (!source_path(c, stages[i])[0] || id[0]) continue;
        TRY(open_now(c, stages[i], &file, &lora, hex));
        memcpy(id, hex, sizeof hex);
        checkpoint_close(&file);
        lora_close(&lora);
    }
out:
    return e;
}

err_t source_open(const struct conf *c, const char *stage, struct checkpoint **ckpt,
                  struct lora **lora)
{
    err_t e = OK;
    char hex[ID_BYTES + 1];
    TRY(open_now(c, stage, ckpt, lora, hex));
    if (strcmp(hex, id_of(c, stage)) != 0) {
        checkpoint_close(ckpt);
        lora_close(lora);
        e = FAIL(ERR_DATA, "%s is not what it was when this run began, or model.%s_id says",
                 source_path(c, stage), stage);
    }
out:
    return e;
}
