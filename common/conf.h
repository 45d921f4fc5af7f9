/* conf.h - the configuration of a pipeline: one table describes file, --set, --help and docs.
 *
 * An ini file fills struct conf; `--set section.key=value` overrides any key. Unknown sections and
 * keys, values of the wrong type or out of bounds, duplicates and over-long lines are ERR_CONFIG
 * with one sentence naming file, line, key and, for an unknown key, the nearest known one. A
 * missing file is ERR_NOINPUT. Sizes of the model follow the LongLive 1.3B checkpoint unless set.
 *
 * `up` writes the resolved configuration to RUN_DIR/config.ini; every stage reads only that file.
 */
#ifndef COMMON_CONF_H
#define COMMON_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"

enum { CONF_TEXT_MAX = 160, CONF_SWITCHES_MAX = CONF_TEXT_MAX / 2, CONF_PRESETS_BYTES = 8192 };
enum conf_rope { ROPE_ABSOLUTE, ROPE_RELATIVE };
enum conf_overlap { OVERLAP_AUTO, OVERLAP_TRUE, OVERLAP_FALSE };
enum conf_parity { PARITY_REFERENCE, PARITY_CLEAN };
/* The last two, of the DiT's matrices and of its K and V, are what presets name and no kernel does.
 */
enum conf_precision { PRECISION_AUTO, PRECISION_FP32, PRECISION_FP8, PRECISION_INT8_KV };

struct conf {
    struct {
        char dir[CONF_TEXT_MAX];    /* run directory; "" is the default for this user */
        char preset[CONF_TEXT_MAX]; /* section [preset.NAME] to apply; "" none */
        int64_t seed;
        char switch_frame_indices[CONF_TEXT_MAX]; /* latents: 40,80; see conf_switches */
        int32_t fps;                              /* presentation, frames a second */
        int32_t ahead_ms; /* how much finished video a live session keeps before the viewer */
    } run;
    struct {
        char weights[CONF_TEXT_MAX]; /* random:SEED, of a model without a file */
        int32_t parity;              /* enum conf_parity: where results are rounded */
        char wan[CONF_TEXT_MAX];     /* downloaded folders; "" none */
        char longlive[CONF_TEXT_MAX];
        char text[CONF_TEXT_MAX]; /* checkpoints; "" none: see common/source.h */
        char dit[CONF_TEXT_MAX];
        char lora[CONF_TEXT_MAX];
        char vae[CONF_TEXT_MAX];
        int32_t precision;           /* enum conf_precision */
        int32_t lora_alpha;          /* 0: the LoRA's rank */
        char text_id[CONF_TEXT_MAX]; /* what the files were when the run began */
        char dit_id[CONF_TEXT_MAX];
        char vae_id[CONF_TEXT_MAX];
        int32_t latent_channels; /* z */
        int32_t latent_rows;     /* pixels / 8 */
        int32_t latent_cols;
    } model;
    struct {
        char tokenizer[CONF_TEXT_MAX]; /* auto, bytes or a path; resolved, not auto */
        char tokenizer_id[CONF_TEXT_MAX];
        int32_t vocab, dim, heads, head_dim, ffn_dim, layers;
        int32_t text_len; /* tokens that condition the DiT, EOS included */
        bool resident;    /* weights stay in memory; else only while a prompt is encoded */
    } text;
    struct {
        int32_t dim, heads, ffn_dim, layers, freq_dim;
        int32_t window;            /* latent frames in the KV cache, sink included */
        int32_t window_max;        /* for which it has room; 0: window. See conf_window_max */
        int32_t sink;              /* latent frames that stay */
        int32_t block;             /* latent frames made at once */
        int32_t rope;              /* enum conf_rope */
        bool global_sink;          /* a prompt switch keeps the sink's K/V */
        char steps[CONF_TEXT_MAX]; /* denoising steps as table indices: 1000,750,500,250 */
        int32_t ring_latents;      /* clean latents kept */
        int32_t prompt_wait_ms;    /* how long a due prompt may take to encode */
        int32_t overlap;           /* enum conf_overlap; see conf_overlaps */
    } dit;
    struct {
        int32_t base_dim;
        int32_t ring_frames; /* RGB frames between VAE and gateway */
    } vae;
    struct {
        int32_t prompt_rate_max; /* prompts a second taken from clients */
    } gateway;
    struct {
        int32_t prompts;          /* embeddings kept */
        char file[CONF_TEXT_MAX]; /* "" none: embeddings that survive a full stop */
        bool reuse;               /* a prompt that comes again is not encoded again */
    } cache;
    struct {
        char text[CONF_TEXT_MAX], dit[CONF_TEXT_MAX], vae[CONF_TEXT_MAX]; /* device names */
        char clean[CONF_TEXT_MAX]; /* of clean passes; "" none: they are made where the DiT is */
    } place;
    struct {
        int32_t threads;
    } cpu;
    struct {
        bool graphs; /* passes are recorded once and replayed */
        bool edge;   /* latents go from GPU to GPU where that is possible */
    } gpu;
    struct {                       /* a place that fails, for tests: common/fault.h */
        char point[CONF_TEXT_MAX]; /* "" none */
        int32_t action;            /* enum fault_action */
        int32_t at;                /* at its n-th passage, from 1 */
        bool repeat;               /* and at every later one */
        int32_t delay_ms;
    } fault;
    struct {
        int32_t deaths; /* of one stage within deaths_s: give up */
        int32_t deaths_s;
        int32_t fault_deaths; /* by a stage's own fault at one block: give up */
        int32_t beat_s_max;   /* without a sign of life: killed */
        int32_t ready_s_max;  /* from exec to ready */
        int32_t stop_s_max;   /* to drain, then killed */
    } supervisor;
    char presets[CONF_PRESETS_BYTES]; /* the file's [preset.NAME] sections, as conf_write spells */
};

void conf_default(struct conf *c);

/* Reads path over the defaults, applies the preset, then each of sets ("section.key=value"), then
 * checks relations between keys (conf_check). sets may be NULL when n_sets is 0. */
MUST_USE err_t conf_load(struct conf *c, const char *path, const char *const *sets, int32_t n_sets);

/* The configuration at path under its preset `name` instead of its own choice; the rest as
 * conf_load. Of a resolved one: what a change to that preset would make of it. */
MUST_USE err_t conf_load_preset(struct conf *c, const char *path, const char *name);

/* The first key but dit.steps and dit.window in which a and b differ, with both values, in one
 * sentence of ERR_CONFIG: what a change in mid-stream cannot change. */
MUST_USE err_t conf_check_change(const struct conf *a, const struct conf *b);

/* One assignment, as --set; does not check relations. */
MUST_USE err_t conf_set(struct conf *c, const char *assignment);

/* Relations between keys: dim = heads * head dim, sink <= block <= window - sink, even sizes ... */
MUST_USE err_t conf_check(const struct conf *c);

/* run.switch_frame_indices as numbers; their count. 0 when it is empty or conf_check refuses it. */
int32_t conf_switches(const struct conf *c, int64_t at[CONF_SWITCHES_MAX]);

/* The whole configuration as an ini file that conf_load reads back to the same struct. */
void conf_write(const struct conf *c, FILE *f);

/* docs/CONFIG.md's table, and `--help config`. */
void conf_print_help(FILE *f);

/* Frame and shape arithmetic that every process shares. */
static inline int32_t conf_window_max(const struct conf *c)
{
    return c->dit.window_max > c->dit.window ? c->dit.window_max : c->dit.window;
}
/* The DiT works on while the VAE decodes. On one GPU they would only take each other's time slices:
 * there, unless told otherwise, the DiT waits until the VAE has decoded all that was made. */
static inline bool conf_overlaps(const struct conf *c)
{
    const bool same = strcmp(c->place.dit, c->place.vae) == 0 && strcmp(c->place.dit, "cpu") != 0;
    return c->dit.overlap == OVERLAP_TRUE || (c->dit.overlap == OVERLAP_AUTO && !same);
}
/* The VAE leaves the clean pass of a block the device that both are on, and decodes the block after
 * it: the DiT's next step follows that pass layer by layer. */
static inline bool conf_cleans_first(const struct conf *c)
{
    return c->place.clean[0] && strcmp(c->place.clean, c->place.vae) == 0 && conf_overlaps(c);
}
static inline int32_t conf_width_px(const struct conf *c)
{
    return c->model.latent_cols * 8;
}
static inline int32_t conf_height_px(const struct conf *c)
{
    return c->model.latent_rows * 8;
}
static inline int64_t conf_frame_bytes(const struct conf *c)
{
    return (int64_t)conf_width_px(c) * conf_height_px(c) * 3;
}
/* Tokens of one latent frame. */
static inline int32_t conf_frame_tokens(const struct conf *c)
{
    return (c->model.latent_rows / 2) * (c->model.latent_cols / 2);
}

#endif
