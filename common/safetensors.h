/* safetensors.h - writes a checkpoint as one safetensors file; reading is checkpoint.h's. */
#ifndef COMMON_SAFETENSORS_H
#define COMMON_SAFETENSORS_H

#include "common/checkpoint.h"
#include "common/lora.h"

/* Every tensor of c under its name and dtype; with a LoRA (may be NULL) its targets are merged and
 * rounded once to their dtype. Written beside path and renamed: whole or not at all. ERR_WRITE. */
MUST_USE err_t safetensors_write(const char *path, struct checkpoint *c, struct lora *lora);

#endif
