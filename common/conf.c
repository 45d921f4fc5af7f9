/* conf.c - see conf.h. The table, the ini file, presets and --set; relations are conf_check's. */
#include "common/conf.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/field.h"
#include "common/file.h"

/* inih (INI_MAX_LINE 200) cuts a longer line in silence and reads the rest as a line of its own, so
 * that a long value could set another key; it cuts section names at 49 bytes. */
enum { FILE_BYTES_MAX = 256 * 1024, LINE_BYTES_MAX = 180, SECTION_BYTES_MAX = 48 };
enum { PRESETS_MAX = 32, PRESET_NAME_MAX = 40, TEXT_MAX = CONF_TEXT_MAX - 1 };

#define I32(s, k, min, max, fb, help) FIELD(struct conf, s, k, FIELD_I32, min, max, fb, help)
#define TEXT(s, k, min, max, fb, help) FIELD(struct conf, s, k, FIELD_TEXT, min, max, fb, help)
#define PATH(s, k, min, max, fb, help) FIELD(struct conf, s, k, FIELD_PATH, min, max, fb, help)
#define BOOL(s, k, fb, help) FIELD(struct conf, s, k, FIELD_BOOL, 0, 1, fb, help)

static const char *const rope_names[] = {"absolute", "relative"};
static const char *const overlap_names[] = {"auto", "true", "false"};
static const char *const parity_names[] = {"reference", "clean"};
static const char *const precision_names[] = {"auto", "fp32", "fp8", "int8_kv"};

/* clang-format off */
static const struct field fields[] = {
    TEXT(run, dir, 0, TEXT_MAX, "", "run directory; empty: the default for this user"),
    TEXT(run, preset, 0, PRESET_NAME_MAX, "", "section [preset.NAME] to apply; empty: none"),
    FIELD(struct conf, run, seed, FIELD_I64, 0, INT64_MAX, "0", "seed of a video's noise"),
    TEXT(run, switch_frame_indices, 0, TEXT_MAX, "",
         "latents at which a script's prompts change, for lines without \"switch\": 40,80"),
    I32(run, fps, 1, 120, "16", "frames presented a second"),
    I32(run, ahead_ms, 0, 600000, "1200", "finished video a live session keeps before the viewer"),

    TEXT(model, weights, 1, TEXT_MAX, "random:0",
         "weights of a model without a file: random:SEED, drawn"),
    FIELD_NAMED(struct conf, model, parity, parity_names, "reference",
                "rounding: to bf16 where LongLive rounds, or nowhere; on the CPU"),
    PATH(model, wan, 0, TEXT_MAX, "",
         "downloaded folder of Wan2.1-T2V-1.3B: text, vae and dit that are not named below"),
    PATH(model, longlive, 0, TEXT_MAX, "",
         "downloaded folder of LongLive-1.3B: dit and lora that are not named below"),
    PATH(model, text, 0, TEXT_MAX, "", "checkpoint of the text encoder"),
    PATH(model, dit, 0, TEXT_MAX, "", "checkpoint of the DiT: a file, or a folder of safetensors"),
    PATH(model, lora, 0, TEXT_MAX, "", "LoRA that is merged into the DiT; empty: none"),
    PATH(model, vae, 0, TEXT_MAX, "", "checkpoint of the VAE"),
    I32(model, lora_alpha, 0, 65536, "0", "the LoRA's alpha, whose scale is alpha / rank; 0: rank"),
    TEXT(model, text_id, 0, 64, "", "identity of the file; empty: `up` fills it in"),
    TEXT(model, dit_id, 0, 64, "", "identity of the files, LoRA and alpha included"),
    TEXT(model, vae_id, 0, 64, "", "identity of the file"),
    FIELD_NAMED(struct conf, model, precision, precision_names, "auto",
                "auto: bf16 (VAE fp16) on a GPU, fp32 on the CPU; fp8, int8_kv: not built"),
    I32(model, latent_channels, 1, 64, "16", "channels of a latent frame"),
    I32(model, latent_rows, 2, 2048, "60", "rows of a latent frame, pixels / 8; even"),
    I32(model, latent_cols, 2, 2048, "104", "columns of a latent frame, pixels / 8; even"),

    PATH(text, tokenizer, 1, TEXT_MAX, "auto",
         "bytes, a umT5 folder, its spiece.model; auto: google/umt5-xxl of model.wan, else bytes"),
    TEXT(text, tokenizer_id, 0, 64, "", "identity of its files; empty: `up` fills it in"),
    I32(text, vocab, 8, 1048576, "256384", "tokens in the vocabulary"),
    I32(text, dim, 8, 16384, "4096", "width of the text encoder"),
    I32(text, heads, 1, 256, "64", "attention heads of the text encoder"),
    I32(text, head_dim, 2, 256, "64", "width of one head; attention is heads * head_dim wide"),
    I32(text, ffn_dim, 8, 65536, "10240", "width of the text encoder's feed-forward layer"),
    I32(text, layers, 1, 128, "24", "layers of the text encoder"),
    I32(text, text_len, 2, 4096, "512", "tokens that condition the DiT, EOS included"),
    BOOL(text, resident, "true",
         "the encoder's weights stay in memory; false: only while prompts are encoded"),

    I32(dit, dim, 6, 16384, "1536", "width of the DiT; a multiple of dit.heads"),
    I32(dit, heads, 1, 256, "12", "attention heads; dim / heads is even and at least 6"),
    I32(dit, ffn_dim, 8, 65536, "8960", "width of the DiT's feed-forward layer"),
    I32(dit, layers, 1, 128, "30", "layers of the DiT"),
    I32(dit, freq_dim, 2, 4096, "256", "width of the time step's sinusoids; even"),
    I32(dit, window, 3, 24, "12", "latent frames in the KV cache, sink included"),
    I32(dit, window_max, 0, 24, "0",
        "for which there is memory; 0: dit.window, or more if a preset of the file has more"),
    I32(dit, sink, 0, 12, "3", "latent frames that stay in the KV cache; at most dit.block"),
    I32(dit, block, 1, 12, "3", "latent frames made at once; at most dit.window - dit.sink"),
    FIELD_NAMED(struct conf, dit, rope, rope_names, "absolute", "how time enters RoPE"),
    BOOL(dit, global_sink, "true", "a prompt switch keeps the sink's K and V"),
    TEXT(dit, steps, 1, TEXT_MAX, "1000,750,500,250",
         "denoising steps: 1 to 5 integers from 1 to 1000, strictly decreasing"),
    I32(dit, ring_latents, 53, 4096, "64",
        "clean latent frames kept; at least dit.window + dit.block + 38, to rebuild the VAE"),
    I32(dit, prompt_wait_ms, 100, 86400000, "600000", "how long a due prompt may take to encode"),
    FIELD_NAMED(struct conf, dit, overlap, overlap_names, "auto",
                "the DiT works on while the VAE decodes; false: turns; auto: turns on one GPU"),

    I32(vae, base_dim, 2, 512, "96", "channels of the VAE's last stage; even"),
    I32(vae, ring_frames, 24, 4096, "56",
        "RGB frames between VAE and gateway; at least 8 * dit.block"),

    I32(gateway, prompt_rate_max, 1, 10000, "20", "prompts a second taken from clients"),

    I32(cache, prompts, 1, 10000, "100", "embeddings kept"),
    TEXT(cache, file, 0, TEXT_MAX, "", "keeps embeddings over a full stop; empty: none"),
    BOOL(cache, reuse, "true", "a prompt that comes again is not encoded again"),

    TEXT(place, text, 1, TEXT_MAX, "cpu", "device of the text encoder: cpu or cuda:N"),
    TEXT(place, dit, 1, TEXT_MAX, "cpu", "device of the DiT: cpu or cuda:N"),
    TEXT(place, vae, 1, TEXT_MAX, "cpu", "device of the VAE: cpu or cuda:N"),
    TEXT(place, clean, 0, TEXT_MAX, "",
         "device of the DiT's clean passes, beside the next block; empty: that of the DiT"),

    I32(cpu, threads, 1, 256, "2", "threads of one process on the CPU"),
    BOOL(gpu, graphs, "true", "passes are recorded as CUDA graphs; false: op by op, each time"),
    BOOL(gpu, edge, "true", "latents go from GPU to GPU if they can; false: through host memory"),

    I32(supervisor, deaths, 1, 1000, "20", "deaths of one stage within deaths_s: give up"),
    I32(supervisor, deaths_s, 1, 86400, "60", "seconds in which deaths are counted"),
    I32(supervisor, fault_deaths, 1, 1000, "5",
        "deaths by a stage's own fault at one block: give up"),
    I32(supervisor, beat_s_max, 1, 3600, "10", "seconds without a sign of life: killed"),
    I32(supervisor, ready_s_max, 1, 86400, "600", "seconds from start to ready, then killed"),
    I32(supervisor, stop_s_max, 1, 3600, "30", "seconds to drain, then killed"),

    TEXT(fault, point, 0, 40, "", "for tests: a place that fails; see `help faults`; empty: none"),
    FIELD_NAMED(struct conf, fault, action, fault_action_names, "kill", "what happens there"),
    I32(fault, at, 1, INT32_MAX, "1", "at the place's n-th passage"),
    BOOL(fault, repeat, "false", "and at every later passage"),
    I32(fault, delay_ms, 0, 600000, "1000", "how long action delay lasts"),
};
/* clang-format on */
enum { N_FIELDS = sizeof fields / sizeof *fields };

struct preset {
    char name[PRESET_NAME_MAX + 1];
    bool has[N_FIELDS]; /* values holds fields[i] */
    struct conf values;
};

/* A file being read. */
struct load {
    const char *path, *next; /* next: the first byte not yet given to inih */
    int32_t line;
    struct conf *c;
    bool seen[N_FIELDS]; /* fields[i] was set */
    int32_t preset_line;
    struct preset *presets;
    int32_t n_presets;
    err_t e;         /* the handler's first */
    int32_t at_line; /* where e came from */
};

void conf_default(struct conf *c)
{
    memset(c, 0, sizeof *c); /* padding too: two equal configurations are equal bytes */
    for (int32_t i = 0; i < N_FIELDS; i++) MUST(field_set(&fields[i], c, fields[i].fallback) == OK);
}

static err_t unknown_key(const char *section, const char *key)
{
    char name[N_FIELDS][FIELD_NAME_MAX + 1], word[2 * LINE_BYTES_MAX];
    const char *known[N_FIELDS];
    for (int32_t i = 0; i < N_FIELDS; i++) {
        snprintf(name[i], sizeof name[i], "%s.%s", fields[i].section, fields[i].key);
        known[i] = name[i];
    }
    snprintf(word, sizeof word, "%s.%s", section, key);
    const char *near = field_nearest(word, known, N_FIELDS);
    if (!near) return FAIL(ERR_CONFIG, "unknown key %.100s", word);
    return FAIL(ERR_CONFIG, "unknown key %.100s (did you mean %s?)", word, near);
}

/* "section.key" of at most a line's bytes. */
static err_t find_dotted(const struct field **f, const char *dotted)
{
    char section[LINE_BYTES_MAX + 1];
    const char *dot = strchr(dotted, '.');
    const size_t n = dot ? (size_t)(dot - dotted) : 0;
    if (!dot || n >= sizeof section)
        return FAIL(ERR_CONFIG, "%.100s: a key is spelt section.key", dotted);
    memcpy(section, dotted, n);
    section[n] = '\0';
    *f = field_find(fields, N_FIELDS, section, dot + 1);
    return *f ? OK : unknown_key(section, dot + 1);
}

static const char *skip_space(const char *s)
{
    while (*s == ' ' || *s == '\t') s++;
    return s;
}

static err_t set_one(struct conf *c, const char *assignment)
{
    char text[2 * CONF_TEXT_MAX];
    err_t e = OK;
    const struct field *f = NULL;
    const char *from = skip_space(assignment);
    if (strlen(from) >= sizeof text)
        return FAIL(ERR_CONFIG, "%.40s...: over %zu bytes", from, sizeof text - 1);
    strcpy(text, from);
    char *equals = strchr(text, '=');
    if (!equals) return FAIL(ERR_CONFIG, "%.100s: section.key=value is expected", text);
    char *value = equals + 1 + (skip_space(equals + 1) - (equals + 1));
    for (char *p = equals; p > text && (p[-1] == ' ' || p[-1] == '\t'); p--) p[-1] = '\0';
    for (size_t n = strlen(value); n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'); n--)
        value[n - 1] = '\0';
    *equals = '\0';
    TRY(find_dotted(&f, text));
    TRY(field_set(f, c, value));
out:
    return e;
}

err_t conf_set(struct conf *c, const char *assignment)
{
    err_t e = set_one(c, assignment);
    return e == OK ? OK : err_prefix(e, "--set");
}

/* A preset's name, a section's name after "preset.". */
static bool is_preset_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '_' && s[i] != '-') return false;
    return n > 0 && n <= PRESET_NAME_MAX;
}

/* Here, not in the handler: inih does not report a section without keys. */
static err_t check_section(const char *line, size_t n)
{
    char name[SECTION_BYTES_MAX + 1];
    const char *known[N_FIELDS];
    const char *end = memchr(line, ']', n);
    if (!end) return FAIL(ERR_CONFIG, "[ without ]");
    const size_t n_name = (size_t)(end - line) - 1;
    if (n_name > SECTION_BYTES_MAX)
        return FAIL(ERR_CONFIG, "section name of %zu bytes: at most %d", n_name, SECTION_BYTES_MAX);
    const char *after = skip_space(end + 1);
    if (after < line + n && *after != ';' && *after != '#')
        return FAIL(ERR_CONFIG, "text after a section's ]"); /* inih would ignore it */
    memcpy(name, line + 1, n_name);
    name[n_name] = '\0';
    if (strncmp(name, "preset.", 7) == 0) {
        if (is_preset_name(name + 7, n_name - 7)) return OK;
        return FAIL(ERR_CONFIG, "[%s]: a preset's name is 1 to %d of A-Z a-z 0-9 _ -", name,
                    PRESET_NAME_MAX);
    }
    for (int32_t i = 0; i < N_FIELDS; i++) {
        known[i] = fields[i].section;
        if (strcmp(known[i], name) == 0) return OK;
    }
    const char *near = field_nearest(name, known, N_FIELDS);
    if (!near) return FAIL(ERR_CONFIG, "unknown section [%s]", name);
    return FAIL(ERR_CONFIG, "unknown section [%s] (did you mean [%s]?)", name, near);
}

static err_t check_line(const char *line, size_t n)
{
    if (n > LINE_BYTES_MAX)
        return FAIL(ERR_CONFIG, "line of %zu bytes: at most %d", n, LINE_BYTES_MAX);
    for (size_t i = 0; i < n; i++) {
        const uint8_t c = (uint8_t)line[i];
        if (c == 0) return FAIL(ERR_CONFIG, "NUL at byte %zu", i + 1);
        if ((c < ' ' && c != '\t') || c == 0x7F)
            return FAIL(ERR_CONFIG, "control character 0x%02x at byte %zu", c, i + 1);
    }
    /* inih would take it for more of the value above it. */
    if ((line[0] == ' ' || line[0] == '\t') && skip_space(line) < line + n)
        return FAIL(ERR_CONFIG, "indented line: a value is one line, and keys start at the margin");
    return line[0] == '[' ? check_section(line, n) : OK;
}

static err_t check_lines(const char *path, const char *data, size_t n_bytes)
{
    int32_t number = 1;
    for (const char *line = data, *end = data + n_bytes; line < end; number++) {
        const char *nl = memchr(line, '\n', (size_t)(end - line));
        const size_t n = (size_t)((nl ? nl : end) - line);
        const err_t e = check_line(line, n);
        if (e != OK) return err_prefix(e, "%s:%d", path, number);
        line += n + 1;
    }
    return OK;
}

/* For inih, as fgets; counts the lines, which inih's handler is not told. */
static char *next_line(char *str, int cap, void *user)
{
    struct load *l = user;
    const size_t n_line = strcspn(l->next, "\n");
    const size_t n = n_line + (l->next[n_line] == '\n');
    if (n == 0) return NULL;
    MUST(n < (size_t)cap);
    memcpy(str, l->next, n);
    str[n] = '\0';
    l->next += n;
    l->line++;
    return str;
}

static err_t preset_of(struct load *l, const char *name, struct preset **p)
{
    for (int32_t i = 0; i < l->n_presets; i++) {
        *p = &l->presets[i];
        if (strcmp((*p)->name, name) == 0) return OK;
    }
    if (l->n_presets == PRESETS_MAX) return FAIL(ERR_CONFIG, "over %d presets", PRESETS_MAX);
    *p = &l->presets[l->n_presets++];
    snprintf((*p)->name, sizeof(*p)->name, "%s", name);
    return OK;
}

/* A relative path in a file begins at the file's folder. */
static err_t set_path(const struct load *l, const struct field *f, struct conf *c,
                      const char *value)
{
    char named[PATH_MAX], folder[PATH_MAX], path[2 * PATH_MAX];
    const char *slash = strrchr(l->path, '/');
    const bool is_word = strcmp(value, "auto") == 0 || strcmp(value, "bytes") == 0;
    if (!value[0] || value[0] == '/' || is_word) return field_set(f, c, value);
    snprintf(named, sizeof named, "%.*s", slash ? (int)(slash + 1 - l->path) : 1,
             slash ? l->path : ".");
    if (!realpath(named, folder)) return FAIL(ERR_NOINPUT, "%s: %s", named, strerror(errno));
    snprintf(path, sizeof path, "%s/%s", folder, value);
    return field_set(f, c, path);
}

static err_t take(struct load *l, const char *section, const char *key, const char *value)
{
    err_t e = OK;
    const struct field *f = NULL;
    struct conf *into = l->c;
    bool *seen = l->seen;
    if (section[0] == '\0') return FAIL(ERR_CONFIG, "%.100s: before any [section]", key);
    if (strncmp(section, "preset.", 7) == 0) {
        struct preset *p = NULL;
        TRY(find_dotted(&f, key));
        TRY(preset_of(l, section + 7, &p));
        if (f->at == offsetof(struct conf, run.preset))
            return FAIL(ERR_CONFIG, "run.preset: a preset cannot choose a preset");
        into = &p->values;
        seen = p->has;
    } else {
        f = field_find(fields, N_FIELDS, section, key);
        if (!f) return unknown_key(section, key);
        if (f->at == offsetof(struct conf, run.preset)) l->preset_line = l->line;
    }
    if (seen[f - fields]) return FAIL(ERR_CONFIG, "%s.%s a second time", f->section, f->key);
    seen[f - fields] = true;
    TRY(f->type == FIELD_PATH ? set_path(l, f, into, value) : field_set(f, into, value));
out:
    return e;
}

/* inih goes on after a handler's error: the first one is kept. */
static int on_key(void *user, const char *section, const char *key, const char *value)
{
    struct load *l = user;
    if (l->e != OK) return 1;
    l->e = take(l, section, key, value);
    l->at_line = l->line;
    return l->e == OK;
}

static err_t parse(struct load *l, const char *data, size_t n_bytes)
{
    err_t e = OK;
    const bool has_bom = n_bytes >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0;
    data += has_bom ? 3 : 0;
    n_bytes -= has_bom ? 3 : 0;
    TRY(check_lines(l->path, data, n_bytes));
    l->next = data;
    const int rc = ini_parse_stream(next_line, l, on_key, l);
    if (rc < 0) return FAIL(ERR_NOMEM, "%s", l->path);
    if (l->e != OK && rc == l->at_line) return err_prefix(l->e, "%s:%d", l->path, rc);
    if (rc > 0) return FAIL(ERR_CONFIG, "%s:%d: neither [section] nor key = value", l->path, rc);
out:
    return e;
}

static err_t set_all(struct conf *c, const char *const *sets, int32_t n_sets)
{
    err_t e = OK;
    for (int32_t i = 0; i < n_sets && e == OK; i++) e = conf_set(c, sets[i]);
    return e;
}

static void copy_field(const struct field *f, struct conf *to, const struct conf *from)
{
    memcpy((char *)to + f->at, (const char *)from + f->at, f->n_bytes);
}

static err_t apply_preset(const struct load *l, const char *name, const char *place, struct conf *c)
{
    char known[256] = "";
    size_t n = 0;
    for (int32_t i = 0; i < l->n_presets; i++) {
        const struct preset *p = &l->presets[i];
        if (n < sizeof known)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", p->name);
        if (strcmp(p->name, name) != 0) continue;
        for (int32_t k = 0; k < N_FIELDS; k++)
            if (p->has[k]) copy_field(&fields[k], c, &p->values);
        return OK;
    }
    return FAIL(ERR_CONFIG, "%s: unknown preset %s (known: %s)", place, name,
                known[0] ? known : "none");
}

/* What a change in mid-stream changes: every preset has these, its own or the file's. */
static bool is_changeable(const struct field *f)
{
    return f->at == offsetof(struct conf, dit.steps) || f->at == offsetof(struct conf, dit.window);
}

/* Keeps the presets, so that a resolved configuration has them too, and makes room for the largest
 * of their windows unless the file says how much there is. */
static err_t keep_presets(struct load *l, const struct conf *base, struct conf *c)
{
    char value[FIELD_VALUE_MAX];
    size_t n = 0;
    int32_t window = c->dit.window;
    memset(c->presets, 0, sizeof c->presets);
    for (int32_t i = 0; i < l->n_presets; i++) {
        struct preset *p = &l->presets[i];
        n += (size_t)snprintf(c->presets + n, sizeof c->presets - n, "\n[preset.%s]\n", p->name);
        for (int32_t k = 0; k < N_FIELDS && n < sizeof c->presets; k++) {
            const struct field *f = &fields[k];
            if (!p->has[k] && !is_changeable(f)) continue;
            if (!p->has[k]) copy_field(f, &p->values, base);
            field_get(f, &p->values, value, sizeof value);
            n += (size_t)snprintf(c->presets + n, sizeof c->presets - n, "%s.%s =%s%s\n",
                                  f->section, f->key, value[0] ? " " : "", value);
        }
        if (n >= sizeof c->presets)
            return FAIL(ERR_CONFIG, "presets of more than %zu bytes", sizeof c->presets - 1);
        if (p->values.dit.window > window) window = p->values.dit.window;
    }
    if (c->dit.window_max == 0 && l->n_presets > 0) c->dit.window_max = window;
    return OK;
}

/* l has the file in it. --set may choose the preset, and comes after it: once to learn the name,
 * once to stay. */
static err_t resolve(struct load *l, const char *preset, const char *const *sets, int32_t n_sets)
{
    err_t e = OK;
    char place[LINE_BYTES_MAX];
    struct conf tried = *l->c, base = *l->c;
    TRY(set_all(&tried, sets, n_sets));
    /* The file's own choice, or another name, which --set chose. */
    if (strcmp(tried.run.preset, base.run.preset) != 0) snprintf(place, sizeof place, "--set");
    else snprintf(place, sizeof place, "%.160s:%d", l->path, l->preset_line);
    if (preset) TRY(apply_preset(l, preset, "preset", l->c));
    else if (tried.run.preset[0]) TRY(apply_preset(l, tried.run.preset, place, l->c));
    TRY(set_all(l->c, sets, n_sets));
    memset(l->c->run.preset, 0, sizeof l->c->run.preset);
    TRY(keep_presets(l, &base, l->c));
    e = conf_check(l->c);
    if (e != OK && preset) e = err_prefix(e, "preset %s", preset);
    else if (e != OK) e = err_prefix(e, "%s%s", l->path, n_sets > 0 ? " with --set" : "");
out:
    return e;
}

static err_t load(struct conf *c, const char *path, const char *preset, const char *const *sets,
                  int32_t n_sets)
{
    err_t e = OK;
    struct conf read;
    struct load l = {.path = path, .c = &read};
    char *data = NULL;
    size_t n_bytes = 0;

    conf_default(&read);
    l.presets = calloc(PRESETS_MAX, sizeof *l.presets);
    if (!l.presets) return FAIL(ERR_NOMEM, "presets");
    e = file_read(path, FILE_BYTES_MAX, &data, &n_bytes);
    if (e == ERR_LIMIT) e = ERR_CONFIG; /* waiting does not make it smaller */
    if (e != OK) goto out;
    TRY(parse(&l, data, n_bytes));
    TRY(resolve(&l, preset, sets, n_sets));
    *c = read;
out:
    free(data);
    free(l.presets);
    return e;
}

err_t conf_load(struct conf *c, const char *path, const char *const *sets, int32_t n_sets)
{
    return load(c, path, NULL, sets, n_sets);
}

err_t conf_load_preset(struct conf *c, const char *path, const char *name)
{
    return load(c, path, name, NULL, 0);
}

err_t conf_check_change(const struct conf *a, const struct conf *b)
{
    char now[FIELD_VALUE_MAX], then[FIELD_VALUE_MAX];
    for (int32_t i = 0; i < N_FIELDS; i++) {
        if (is_changeable(&fields[i])) continue;
        field_get(&fields[i], a, now, sizeof now);
        field_get(&fields[i], b, then, sizeof then);
        if (strcmp(now, then) != 0)
            return FAIL(ERR_CONFIG,
                        "%s.%s = %s: %s here, and only dit.steps and dit.window change"
                        " in mid-stream",
                        fields[i].section, fields[i].key, then, now[0] ? now : "empty");
    }
    return OK;
}

void conf_write(const struct conf *c, FILE *f)
{
    char value[FIELD_VALUE_MAX];
    const char *section = "";
    fprintf(f, "# longlived: a resolved configuration\n");
    for (int32_t i = 0; i < N_FIELDS; i++) {
        if (strcmp(section, fields[i].section) != 0)
            fprintf(f, "\n[%s]\n", section = fields[i].section);
        field_get(&fields[i], c, value, sizeof value);
        if (fields[i].at == offsetof(struct conf, run.preset)) value[0] = '\0'; /* applied */
        fprintf(f, "%s =%s%s\n", fields[i].key, value[0] ? " " : "", value);
    }
    fputs(c->presets, f);
}

void conf_print_help(FILE *f)
{
    static const char *const types[] = {"i32", "i64", "bool", "text", "path", "enum"};
    char bounds[FIELD_VALUE_MAX];
    fprintf(f, "| key | type | bounds | default | meaning |\n| --- | --- | --- | --- | --- |\n");
    for (int32_t i = 0; i < N_FIELDS; i++) {
        const struct field *d = &fields[i];
        field_bounds(d, bounds, sizeof bounds);
        fprintf(f, "| `%s.%s` | %s | %s | %s%s%s | %s |\n", d->section, d->key, types[d->type],
                bounds, d->fallback[0] ? "`" : "", d->fallback[0] ? d->fallback : "empty",
                d->fallback[0] ? "`" : "", d->help);
    }
}
