/* source.c - see source.h. */
#include "common/source.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

static const char *const stages[] = {"text", "dit", "vae"};
enum { STAGES = sizeof stages / sizeof *stages, ID_BYTES = 2 * CKPT_ID_BYTES };

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
        return FAIL(ERR_NOINPUT, "model.%s: %s: %s", what, path, strerror(errno));
    }
    if (strlen(real) >= CONF_TEXT_MAX)
        return FAIL(ERR_CONFIG, "model.%s: %s: over %d bytes", what, real, CONF_TEXT_MAX - 1);
    for (const char *p = real; *p; p++)
        if (*p == ';' || (uint8_t)*p < ' ')
            return FAIL(ERR_CONFIG, "model.%s: a path with ; or a control character", what);
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

err_t source_resolve(struct conf *c)
{
    err_t e = OK;
    struct checkpoint *file = NULL;
    struct lora *lora = NULL;
    const char *wan = c->model.wan, *longlive = c->model.longlive;
    const bool has_longlive = longlive[0] != 0;
    TRY(settle(c->model.text, "text", c->model.text_id, wan, "models_t5_umt5-xxl-enc-bf16.pth",
               NULL));
    TRY(settle(c->model.vae, "vae", c->model.vae_id, wan, "Wan2.1_VAE.pth", NULL));
    TRY(settle(c->model.dit, "dit", c->model.dit_id, has_longlive ? longlive : wan,
               has_longlive ? "longlive_base.pt" : "diffusion_pytorch_model.safetensors",
               has_longlive ? "models/longlive_base.pt" : NULL));
    TRY(settle(c->model.lora, "lora", c->model.dit_id, longlive, "lora.pt", "models/lora.pt"));
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
