/* args.c - see args.h. */
#include "procs/supervisor/args.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, TEXT, SETS, PRESETS, COUNT, NUMBER, SECONDS };

#define ON(c) (1u << CMD_##c)
#define ON_ALL 0xffffffffu
#define ON_RUNS (ON(UP) | ON(GENERATE) | ON(SERVE))
#define ON_SESSIONS (ON(GENERATE) | ON(SERVE))
#define ON_OUTPUTS (ON_SESSIONS | ON(REPLAY))
#define ON_CONF                                                                                    \
    (ON_RUNS | ON(PREPARE) | ON(DOWN) | ON(STATUS) | ON(RESTART) | ON(PROMPT) | ON(PRESET) |       \
     ON(DOCTOR) | ON(BENCH) | ON(TRACE))

static const struct option {
    const char *name;
    char letter;
    enum kind kind;
    size_t at;
    unsigned on; /* which commands */
    const char *value, *help;
} options[] = {
    {"help", 'h', FLAG, offsetof(struct args, wants_help), ON_ALL, NULL, "this text"},
    {"config", 'c', TEXT, offsetof(struct args, conf), ON_CONF, "FILE",
     "configuration; default configs/demo.ini of this tree"},
    {"set", 0, SETS, offsetof(struct args, sets), ON_CONF, "S.K=V",
     "sets a key of the configuration; may be repeated"},
    {"run", 0, TEXT, offsetof(struct args, run), ON_CONF | ON(REPLAY), "DIR",
     "run directory; default [run] dir, or /dev/shm/longlived-UID/main"},
    {"output", 'o', TEXT, offsetof(struct args, out), ON_OUTPUTS | ON(TRACE), "OUT",
     "OUT.mp4 or OUT.y4m; for serve also - (y4m to standard output); for trace OUT.json"},
    {"protocol", 0, TEXT, offsetof(struct args, protocol), ON(BENCH), "NAME",
     "seed, paper or stream: docs/BENCHMARKS.md"},
    {"stage", 0, TEXT, offsetof(struct args, stage), ON(BENCH), "NAME",
     "text, dit, vae or edge alone, without a pipeline (needs make benches)"},
    {"quick", 0, FLAG, offsetof(struct args, quick), ON(BENCH), NULL, "fewer samples"},
    {"phase", 0, TEXT, offsetof(struct args, phase), ON(BENCH), "NAME",
     "this one alone; a name that is none is answered with the list"},
    {"merge", 0, FLAG, offsetof(struct args, merge), ON(BENCH), NULL,
     "adds to what is there; phases that are there already begin another run"},
    {"preset", 0, PRESETS, offsetof(struct args, presets), ON(BENCH), "NAME",
     "[preset.NAME] of the configuration; with --compare may be repeated"},
    {"compare", 0, FLAG, offsetof(struct args, compare), ON(BENCH), NULL,
     "the preset baseline and those named (or balanced), by turns"},
    {"ablate", 0, TEXT, offsetof(struct args, ablate), ON(BENCH), "NAME",
     "values of one key, by turns: window, sink, graph, edge, overlap, precision"},
    {"rounds", 0, COUNT, offsetof(struct args, n_rounds), ON(BENCH), "N",
     "turns of --compare and --ablate; default 3"},
    {"out", 0, TEXT, offsetof(struct args, out), ON(BENCH), "DIR",
     "folder of the results; default results"},
    {"diff", 0, TEXT, offsetof(struct args, diff), ON(BENCH), "A.json",
     "runs nothing: in what B.json differs from it by more than their runs do"},
    {"prompt", 0, TEXT, offsetof(struct args, prompt), ON_SESSIONS, "TEXT", "the (first) prompt"},
    {"script", 0, TEXT, offsetof(struct args, script), ON(GENERATE), "FILE",
     ".jsonl: a video a line, with switches; .txt: a prompt a line, each a video"},
    {"blocks", 0, COUNT, offsetof(struct args, n_blocks), ON(GENERATE), "N",
     "length in blocks; default 40"},
    {"seconds", 0, SECONDS, offsetof(struct args, seconds_ms), ON(GENERATE), "S",
     "length in seconds, rounded up to a block"},
    {"seed", 0, NUMBER, offsetof(struct args, seed), ON_SESSIONS, "N",
     "seed of the noise; default run.seed"},
    {"hashes", 0, TEXT, offsetof(struct args, hashes), ON_OUTPUTS, "FILE",
     "writes `index sha256` of every raw RGB24 frame"},
    {"noise", 0, TEXT, offsetof(struct args, noise), ON(GENERATE), "FILE",
     "starts from this noise: noise [T,C,H,W], eps [T/3,steps-1,3,C,H,W]"},
    {"embeds", 0, TEXT, offsetof(struct args, embeds), ON(GENERATE), "FILE",
     "instead of the text encoder: prompt_embeds [prompts,text_len,D]"},
    {"latents", 0, TEXT, offsetof(struct args, latents), ON(GENERATE), "FILE",
     "writes the clean latents: out [T,C,H,W]; all three safetensors"},
    {"prewarm", 0, TEXT, offsetof(struct args, prewarm), ON_SESSIONS, "FILE",
     "encodes these prompts before they are asked for; a prompt a line, or .jsonl"},
    {"quiet", 0, FLAG, offsetof(struct args, quiet), ON_OUTPUTS | ON(BENCH), NULL,
     "no status line, no warnings"},
    {"progress", 0, TEXT, offsetof(struct args, progress), ON_OUTPUTS, "json",
     "status as JSON objects, one a line, on standard error"},
    {"keep-run", 0, FLAG, offsetof(struct args, keep_run), ON_RUNS | ON(REPLAY), NULL,
     "leaves logs, configuration and ledger in RUN_DIR, for replay too"},
    {"foreground", 0, FLAG, offsetof(struct args, foreground), ON(UP), NULL,
     "stays, and tells what happens"},
    {"json", 0, FLAG, offsetof(struct args, json), ON(STATUS) | ON(INSPECT) | ON(COMPARE), NULL,
     "one JSON object"},
    {"lora", 0, TEXT, offsetof(struct args, lora), ON(CONVERT), "FILE", "merges this LoRA"},
    {"lora-alpha", 0, NUMBER, offsetof(struct args, lora_alpha), ON(CONVERT), "N",
     "its alpha, whose scale is alpha / rank; default its rank"},
    {"kill", 0, FLAG, offsetof(struct args, kill), ON(RESTART), NULL,
     "by SIGKILL, as a crash; else it finishes its work"},
    {"status-fd", 0, NUMBER, offsetof(struct args, status_fd), ON(UP), NULL, NULL},
};
enum { LORA_ALPHA_MAX = 65536 };
enum { OPTIONS = sizeof options / sizeof *options };

static const struct {
    const char *name, *word, *summary, *more;
    bool has_two;
} commands[COMMANDS] = {
    [CMD_UP] = {"up", NULL, "starts a pipeline in the background; returns when all serve",
                "longlived up -c configs/tiny.ini --run /dev/shm/mine\n"},
    [CMD_PREPARE] = {"prepare", NULL, "makes a run directory for supervisord, systemd or a hand",
                     "longlived prepare -c configs/tiny.ini --run /dev/shm/mine\n"
                     "\nThe directory and its config.ini; then start longlived-keeper, -text, -dit,"
                     " -vae and\n-gateway with --run DIR. With the same configuration what is there"
                     " stays. See launch/.\n"},
    [CMD_DOWN] = {"down", NULL, "ends it: the running session finishes block and file",
                  "longlived down --run /dev/shm/mine\n"},
    [CMD_STATUS] = {"status", NULL, "processes and counters of a running pipeline",
                    "longlived status --json\n"},
    [CMD_RESTART] = {"restart", "STAGE", "ends one process; returns when its successor serves",
                     "longlived restart dit --kill     (keeper, text, dit, vae or gateway)\n"},
    [CMD_GENERATE] = {"generate", NULL, "makes videos from prompts, as fast as it can",
                      "longlived generate --prompt \"a red ball\" --seconds 5 -o ball.mp4\n"
                      "  longlived generate --script configs/demo.jsonl -o demo.mp4\n"
                      "\nWith --run DIR, and a pipeline up in DIR, that one does the work;"
                      " otherwise a pipeline\nof its own comes and goes."
                      " Several videos: OUT-000.mp4, OUT-001.mp4 ...\n"},
    [CMD_SERVE] = {"serve", NULL, "live: an endless video; prompts from standard input",
                   "longlived serve --prompt \"a red ball\" -o - | ffplay -\n"
                   "\nEvery line of standard input, and every longlived prompt, is a new prompt."
                   " SIGINT or\nSIGTERM once finishes the block and the file, twice stops.\n"},
    [CMD_REPLAY] = {"replay", "RUN_DIR", "makes the frames of a kept or running pipeline again",
                    "longlived replay /dev/shm/mine --hashes again.sha256\n"
                    "\nRUN_DIR was left by --keep-run, or is one in use. Every session becomes a"
                    " video, each\nprompt taking effect at the block at which it did: the same"
                    " frames, to the bit.\n"},
    [CMD_PROMPT] = {"prompt", "TEXT", "changes the live prompt; prints when it takes effect",
                    "longlived prompt \"a blue cube\"\n"},
    [CMD_PRESET] = {"preset", "NAME", "changes the live session to a preset; prints from where on",
                    "longlived preset turbo\n"
                    "\nNAME is a [preset.NAME] of the running configuration, whose steps and window"
                    " may be\nothers, and nothing else.\n"},
    [CMD_DOCTOR] = {"doctor", NULL, "what is missing here, and what to do about it",
                    "longlived doctor -c configs/tiny.ini\n"},
    [CMD_BENCH] = {"bench", "[B.json]", "where the milliseconds go, by a protocol",
                   "longlived bench --protocol seed --quick -c configs/nano.ini --out results\n"
                   "  longlived bench --stage dit -c configs/nano.ini\n"
                   "  longlived bench --diff before/seed.json after/seed.json\n"
                   "\nA pipeline of its own comes and goes; DIR/PROTOCOL.json, .csv and .html are"
                   " written.\n"},
    [CMD_TRACE] = {"trace", NULL, "what the processes did last, for ui.perfetto.dev",
                   "longlived trace --run /dev/shm/mine -o trace.json\n"
                   "\nOf a pipeline that runs, or that --keep-run left: its newest 8,192 spans of"
                   " each stage.\n"},
    [CMD_COMPARE] = {"compare", "A.y4m B.y4m", "how far the frames of two videos are apart",
                     "longlived compare a.y4m b.y4m\n"
                     "\nPSNR in dB, SSIM, largest error of each frame and of all, and the first"
                     " frame that differs.\n",
                     true},
    [CMD_INSPECT] = {"inspect", "FILE", "tensors of a checkpoint: names, shapes, dtypes, bytes",
                     "longlived inspect longlive_base.pt\n"
                     "\nReads safetensors, torch.save files and folders of safetensors; runs"
                     " nothing in them.\n"},
    [CMD_CONVERT] = {"convert", "IN OUT.safetensors", "writes a checkpoint as safetensors",
                     "longlived convert longlive_base.pt longlive.safetensors --lora lora.pt\n"
                     "\nNames as a model has them: of a training dump the generator, without"
                     " wrappers' prefixes.\n",
                     true},
    [CMD_HELP] = {"help", "[COMMAND | config | faults]",
                  "explains a command, every key of the configuration, places of fault.point",
                  "longlived help config\n"},
};

const char *args_name(enum command c)
{
    return commands[c].name;
}

void args_usage(FILE *f)
{
    fprintf(f, "usage: longlived COMMAND [options]\ncommands:");
    for (int c = 0; c < COMMANDS; c++)
        fprintf(f, "%s %s", c == COMMANDS / 2 ? "\n         " : "", commands[c].name);
    fprintf(f, "\nlonglived COMMAND --help explains one\n");
}

void args_help(FILE *f)
{
    fprintf(f, "usage: longlived COMMAND [options]\n\n");
    for (int c = 0; c < COMMANDS; c++)
        fprintf(f, "  %-10s%s\n", commands[c].name, commands[c].summary);
    fprintf(f,
            "\nlonglived COMMAND --help explains one; longlived --version says which one this is."
            "\nexit: 0 done, 2 usage, 3 gave up, 65 bad data, 66 missing input, 69 no device or"
            " no session,\n      70 internal or device fault, 73 cannot write, 75 try again,"
            " 78 configuration,\n      100 already running\n");
}

void args_help_command(enum command c, FILE *f)
{
    fprintf(f, "usage: longlived %s%s%s%s\n%s\n\n", commands[c].name,
            c == CMD_HELP ? "" : " [options]", commands[c].word ? " " : "",
            commands[c].word ? commands[c].word : "", commands[c].summary);
    for (int i = 0; i < OPTIONS; i++) {
        const struct option *o = &options[i];
        char left[40];
        if (!(o->on & (1u << c)) || !o->help) continue;
        snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter ? "-" : "",
                 o->letter ? o->letter : ' ', o->letter ? ", " : "   ", o->name,
                 o->value ? " " : "", o->value ? o->value : "");
        fprintf(f, "  %-24s%s\n", left, o->help);
    }
    fprintf(f, "\n  %s", commands[c].more);
}

/* Whole decimal text from lo to hi. */
static err_t read_int(const char *name, const char *text, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    errno = 0;
    const long long v = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end || v < lo || v > hi)
        return FAIL(ERR_USAGE, "--%s %s: an integer from %lld to %lld", name, text, (long long)lo,
                    (long long)hi);
    *out = v;
    return OK;
}

static err_t read_seconds(const char *name, const char *text, int64_t *out_ms)
{
    char *end;
    const double s = strtod(text, &end);
    if (end == text || *end || !(s > 0) || s > 1e8)
        return FAIL(ERR_USAGE, "--%s %s: a number above 0, at most 1e8", name, text);
    *out_ms = (int64_t)ceil(s * 1000);
    return OK;
}

static err_t put(struct args *a, const struct option *o, const char *value)
{
    void *at = (char *)a + o->at;
    switch (o->kind) {
    case FLAG:
        *(bool *)at = true;
        return OK;
    case TEXT:
        *(const char **)at = value;
        return OK;
    case COUNT:
        return read_int(o->name, value, 1, ARGS_BLOCKS_MAX, at);
    case NUMBER:
        return read_int(o->name, value, 0, INT64_MAX, at);
    case SECONDS:
        return read_seconds(o->name, value, at);
    case PRESETS:
        if (a->n_presets == ARGS_PRESETS_MAX)
            return FAIL(ERR_USAGE, "--preset: at most %d", ARGS_PRESETS_MAX);
        a->presets[a->n_presets++] = value;
        return OK;
    case SETS:
        if (a->n_sets == ARGS_SETS_MAX) return FAIL(ERR_USAGE, "--set: at most %d", ARGS_SETS_MAX);
        a->sets[a->n_sets++] = value;
        return OK;
    }
    return FAIL(ERR_BUG, "option kind");
}

/* --name, --name=value, -x; NULL: no such. *value: what is behind the =, or NULL. */
static const struct option *find(const char *arg, const char **value)
{
    *value = NULL;
    if (arg[1] != '-') {
        for (int i = 0; i < OPTIONS; i++)
            if (options[i].letter && options[i].letter == arg[1] && !arg[2]) return &options[i];
        return NULL;
    }
    const size_t n = strcspn(arg + 2, "=");
    for (int i = 0; i < OPTIONS; i++)
        if (strlen(options[i].name) == n && strncmp(options[i].name, arg + 2, n) == 0) {
            if (arg[2 + n]) *value = arg + 2 + n + 1;
            return &options[i];
        }
    return NULL;
}

static err_t parse_option(struct args *a, int *i, int argc, char **argv)
{
    const char *value, *arg = argv[*i];
    const struct option *o = find(arg, &value);
    const char *cmd = commands[a->cmd].name;
    if (!o) return FAIL(ERR_USAGE, "%s: unknown option %s (longlived %s --help)", cmd, arg, cmd);
    if (!(o->on & (1u << a->cmd)))
        return FAIL(ERR_USAGE, "%s: has no option %s (longlived %s --help)", cmd, arg, cmd);
    if (o->kind == FLAG && value) return FAIL(ERR_USAGE, "%s: --%s takes no value", cmd, o->name);
    if (o->kind != FLAG && !value) {
        if (*i + 1 >= argc) return FAIL(ERR_USAGE, "%s: %s needs a value", cmd, arg);
        value = argv[++*i];
    }
    return put(a, o, value);
}

static err_t parse_command(struct args *a, const char *name)
{
    for (int c = 0; c < COMMANDS; c++)
        if (strcmp(commands[c].name, name) == 0) {
            a->cmd = (enum command)c;
            return OK;
        }
    return FAIL(ERR_USAGE, "unknown command %s (longlived --help)", name);
}

err_t args_parse(struct args *a, int argc, char **argv)
{
    err_t e = OK;
    *a = (struct args){.cmd = CMD_HELP, .seed = -1, .lora_alpha = -1, .status_fd = -1};
    if (argc < 2) return FAIL(ERR_USAGE, "no command");
    if (strcmp(argv[1], "--version") == 0) {
        a->wants_version = true;
        return OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return OK;
    TRY(parse_command(a, argv[1]));
    bool is_words = false; /* after -- */
    for (int i = 2; i < argc; i++) {
        if (!is_words && strcmp(argv[i], "--") == 0) {
            is_words = true;
        } else if (!is_words && argv[i][0] == '-' && argv[i][1]) {
            TRY(parse_option(a, &i, argc, argv));
        } else if (a->word && !a->word2 && commands[a->cmd].has_two) {
            a->word2 = argv[i];
        } else if (a->word || !commands[a->cmd].word) {
            return FAIL(ERR_USAGE, "%s: what is \"%.60s\"? (longlived %s --help)",
                        commands[a->cmd].name, argv[i], commands[a->cmd].name);
        } else {
            a->word = argv[i];
        }
    }
out:
    return e;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), n_end = strlen(end);
    return n > n_end && strcmp(s + n - n_end, end) == 0;
}

static err_t check_out(const struct args *a)
{
    const bool is_serve = a->cmd == CMD_SERVE;
    if (a->cmd == CMD_REPLAY && !a->out)
        return a->hashes ? OK : FAIL(ERR_USAGE, "replay: --hashes FILE or -o OUT?");
    if (!a->out) return is_serve ? OK : FAIL(ERR_USAGE, "generate: -o OUT.mp4 or OUT.y4m?");
    if (is_serve && strcmp(a->out, "-") == 0) return OK;
    if (!ends_with(a->out, ".mp4") && !ends_with(a->out, ".y4m"))
        return FAIL(ERR_USAGE, "%s: -o %s: .mp4 or .y4m%s", commands[a->cmd].name, a->out,
                    is_serve ? ", or -" : "");
    return OK;
}

static err_t check_bench(const struct args *a)
{
    static const char *const names[] = {"seed", "paper", "stream"};
    const bool is_by_turns = a->compare || a->ablate;
    if (a->diff || a->word) {
        if (a->diff && a->word && !a->protocol && !a->stage) return OK;
        return FAIL(ERR_USAGE, "bench: --diff A.json B.json, --protocol or --stage?");
    }
    if (a->stage) {
        static const char *const stages[] = {"text", "dit", "vae", "edge"};
        if (a->protocol || a->phase || is_by_turns)
            return FAIL(ERR_USAGE, "bench: --stage: without --protocol, --phase and turns");
        for (int i = 0; i < 4; i++)
            if (strcmp(a->stage, stages[i]) == 0) return OK;
        return FAIL(ERR_USAGE, "bench: --stage text, dit, vae or edge?");
    }
    if (a->compare && a->ablate) return FAIL(ERR_USAGE, "bench: one of --compare and --ablate");
    if (a->ablate && a->n_presets)
        return FAIL(ERR_USAGE, "bench: --ablate: the preset by --set run.preset=NAME");
    if (!a->compare && a->n_presets > 1)
        return FAIL(ERR_USAGE, "bench: --preset more than once: with --compare");
    if (a->n_rounds > ARGS_ROUNDS_MAX || (a->n_rounds && !is_by_turns))
        return FAIL(ERR_USAGE, "bench: --rounds N: of --compare and --ablate, at most %d",
                    ARGS_ROUNDS_MAX);
    for (int i = 0; i < 3; i++)
        if (a->protocol && strcmp(a->protocol, names[i]) == 0) return OK;
    return FAIL(ERR_USAGE, "bench: --protocol seed, paper or stream, or --stage?");
}

err_t args_check(const struct args *a)
{
    err_t e = OK;
    if (a->wants_help || a->cmd == CMD_HELP) return OK;
    const bool is_optional = commands[a->cmd].word && *commands[a->cmd].word == '[';
    if (commands[a->cmd].word && !is_optional &&
        (!a->word || (commands[a->cmd].has_two && !a->word2)))
        return FAIL(ERR_USAGE, "%s: %s?", commands[a->cmd].name, commands[a->cmd].word);
    if (a->lora_alpha >= 0 && (!a->lora || a->lora_alpha > LORA_ALPHA_MAX))
        return FAIL(ERR_USAGE, "convert: --lora-alpha N: with --lora, at most %d", LORA_ALPHA_MAX);
    if (a->progress && strcmp(a->progress, "json") != 0)
        return FAIL(ERR_USAGE, "--progress %s: json is the only one", a->progress);
    if (ON_OUTPUTS & (1u << a->cmd)) TRY(check_out(a));
    if (a->cmd == CMD_TRACE && (!a->out || strcmp(a->out, "-") == 0))
        return FAIL(ERR_USAGE, "trace: -o OUT.json?");
    if (a->cmd == CMD_BENCH) TRY(check_bench(a));
    if (a->cmd == CMD_GENERATE) {
        if (!a->prompt == !a->script)
            return FAIL(ERR_USAGE, "generate: one of --prompt TEXT and --script FILE");
        if (a->n_blocks && a->seconds_ms)
            return FAIL(ERR_USAGE, "generate: one of --blocks N and --seconds S");
        if (a->script && !ends_with(a->script, ".jsonl") && !ends_with(a->script, ".txt"))
            return FAIL(ERR_USAGE, "generate: --script %s: .jsonl or .txt", a->script);
    }
out:
    return e;
}
