/* source.h - where a pipeline's weights come from: from the keys of [model] to files.
 *
 * model.wan and model.longlive are folders as they are downloaded; model.text, .dit, .lora and .vae
 * name files and win over them. A stage without a file has random weights. `up` resolves all of
 * that once: RUN_DIR/config.ini names files by absolute path and tells what they were
 * (model.*_id), so that a stage that starts again never goes on with other weights.
 */
#ifndef COMMON_SOURCE_H
#define COMMON_SOURCE_H

#include "common/checkpoint.h"
#include "common/conf.h"
#include "common/lora.h"

/* Folders to files, text.tokenizer from auto to what it means, files to absolute paths, empty ids
 * (model.*_id, text.tokenizer_id) to what the files are now. Headers are read. ERR_NOINPUT,
 * ERR_DATA, ERR_CONFIG (a LoRA without a DiT; a path that no ini file holds). Resolved already:
 * nothing changes. */
MUST_USE err_t source_resolve(struct conf *c);

/* The file of a stage ("text", "dit", "vae"); "": random weights. */
const char *source_path(const struct conf *c, const char *stage);

/* Opens it, names clean, and the DiT's LoRA (*lora NULL: none). ERR_DATA: not what it was when the
 * run began. The caller closes both. */
MUST_USE err_t source_open(const struct conf *c, const char *stage, struct checkpoint **ckpt,
                           struct lora **lora);

/* A tokenizer's files are spiece.model and, in a folder, tokenizer.json and tokenizer_config.json.
 * ERR_DATA: they are not what they were when the run began. Tokens from bytes: OK. */
MUST_USE err_t source_check_tokenizer(const struct conf *c);

#endif
