/* args.h - the command line: one table describes commands, options and --help. */
#ifndef SUPERVISOR_ARGS_H
#define SUPERVISOR_ARGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

enum command {
    CMD_UP,
    CMD_PREPARE,
    CMD_DOWN,
    CMD_STATUS,
    CMD_RESTART,
    CMD_GENERATE,
    CMD_SERVE,
    CMD_REPLAY,
    CMD_PROMPT,
    CMD_PRESET,
    CMD_DOCTOR,
    CMD_BENCH,
    CMD_TRACE,
    CMD_COMPARE,
    CMD_INSPECT,
    CMD_CONVERT,
    CMD_HELP,
    COMMANDS
};

enum {
    ARGS_SETS_MAX = 64,
    ARGS_PRESETS_MAX = 8,
    ARGS_ROUNDS_MAX = 64,
    ARGS_BLOCKS_MAX = 1000000000
};

struct args {
    enum command cmd;
    bool wants_help, wants_version;
    /* restart STAGE, replay RUN_DIR, prompt TEXT, preset NAME, B.json; NULL: not given */
    const char *word;
    const char *word2; /* convert IN OUT, compare A B */
    const char *conf, *run, *prompt, *script, *out, *hashes, *prewarm, *progress, *lora;
    const char *noise, *embeds, *latents;
    const char *protocol, *phase, *diff, *ablate, *stage;
    const char *commit; /* of the build: main's, not the command line's */
    const char *sets[ARGS_SETS_MAX];
    int32_t n_sets;
    const char *presets[ARGS_PRESETS_MAX];
    int32_t n_presets;
    int64_t n_blocks;   /* 0: not given */
    int64_t n_rounds;   /* 0: not given */
    int64_t seed;       /* -1: not given */
    int64_t seconds_ms; /* 0: not given */
    int64_t lora_alpha; /* -1: not given */
    int64_t status_fd;  /* -1; up in the background tells its parent through it */
    bool foreground, json, kill, quiet, keep_run, quick, merge, compare;
};

/* ERR_USAGE names what is wrong. Pointers are into argv. */
MUST_USE err_t args_parse(struct args *a, int argc, char **argv);

/* What is asked of a command is there, and nothing contradicts: after args_parse, unless help. */
MUST_USE err_t args_check(const struct args *a);

const char *args_name(enum command c);
void args_help(FILE *f); /* all commands */
void args_help_command(enum command c, FILE *f);
void args_usage(FILE *f); /* four lines at most */

#endif
