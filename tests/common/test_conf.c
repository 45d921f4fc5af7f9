/* test_conf.c - the table, the file, presets, --set, and what is refused in which words. */
#include "common/conf.h"

#include "tests/scratch.h"

static err_t load(struct conf *c, const char *text)
{
    return conf_load(c, scratch_put("a.ini", text), NULL, 0);
}

static err_t load_set(struct conf *c, const char *text, const char *set)
{
    return conf_load(c, scratch_put("a.ini", text), &set, 1);
}

static void test_defaults_are_the_checkpoints(void **state)
{
    (void)state;
    struct conf c;
    conf_default(&c);
    assert_int_equal(c.text.vocab, 256384);
    assert_int_equal(c.text.dim, 4096);
    assert_int_equal(c.text.heads * c.text.head_dim, 4096);
    assert_int_equal(c.text.ffn_dim, 10240);
    assert_int_equal(c.text.layers, 24);
    assert_int_equal(c.text.text_len, 512);
    assert_int_equal(c.dit.dim, 1536);
    assert_int_equal(c.dit.heads, 12);
    assert_int_equal(c.dit.ffn_dim, 8960);
    assert_int_equal(c.dit.layers, 30);
    assert_int_equal(c.dit.freq_dim, 256);
    assert_int_equal(c.dit.window, 12);
    assert_int_equal(c.dit.sink, 3);
    assert_int_equal(c.dit.block, 3);
    assert_int_equal(c.dit.rope, ROPE_ABSOLUTE);
    assert_true(c.dit.global_sink);
    assert_string_equal(c.dit.steps, "1000,750,500,250");
    assert_int_equal(c.dit.ring_latents, 64);
    assert_int_equal(c.dit.prompt_wait_ms, 600000);
    assert_int_equal(c.vae.base_dim, 96);
    assert_int_equal(c.vae.ring_frames, 56);
    assert_int_equal(c.model.latent_channels, 16);
    assert_string_equal(c.model.weights, "random:0");
    assert_int_equal(conf_width_px(&c), 832);
    assert_int_equal(conf_height_px(&c), 480);
    assert_int_equal(conf_frame_tokens(&c), 1560);
    assert_int_equal(c.run.fps, 16);
    assert_int_equal(c.run.ahead_ms, 1200);
    assert_string_equal(c.text.tokenizer, "auto");
    assert_string_equal(c.place.dit, "cpu");
    assert_int_equal(c.supervisor.deaths, 20);
    assert_int_equal(c.supervisor.stop_s_max, 30);
    want_ok(conf_check(&c));
}

static void test_the_files_of_this_repository(void **state)
{
    (void)state;
    struct conf nano, tiny, demo;
    want_ok(conf_load(&nano, "configs/nano.ini", NULL, 0));
    want_ok(conf_load(&tiny, "configs/tiny.ini", NULL, 0));
    want_ok(conf_load(&demo, "configs/demo.ini", NULL, 0));
    assert_int_equal(conf_width_px(&demo), 96);
    assert_int_equal(conf_height_px(&demo), 96);
    assert_non_null(strstr(demo.text.tokenizer, "/configs/demo/spiece.model"));
    assert_int_equal(conf_width_px(&nano), 48);
    assert_int_equal(conf_height_px(&nano), 32);
    assert_int_equal(conf_frame_tokens(&nano), 6);
    assert_int_equal(nano.model.latent_channels, 4);
    assert_int_equal(nano.dit.dim / nano.dit.heads, 24);
    assert_int_equal(conf_width_px(&tiny), 96);
    assert_int_equal(conf_height_px(&tiny), 64);
    assert_int_equal(conf_frame_tokens(&tiny), 24);
    assert_int_equal(tiny.model.latent_channels, 16);
    assert_int_equal(tiny.dit.dim / tiny.dit.heads, 128);
    assert_int_equal(tiny.text.head_dim * tiny.text.heads, 64);
    assert_int_equal(tiny.text.vocab, 1024);
}

/* In a file, a path that is relative begins at the file's folder; by --set, and for words, not. */
static void test_paths_of_a_file(void **state)
{
    (void)state;
    struct conf c;
    char want[512];
    const char *path = scratch_put(
        "a.ini", "[model]\ntext = t/x.pth\ndit = /d/x.pt\nvae = v.pth\n[text]\ntokenizer = bytes\n"
                 "[preset.p]\nmodel.wan = ../wan\n");
    static const char *const sets[] = {"run.preset=p", "model.vae=v.pth", "model.lora=l/x.pt"};
    want_ok(conf_load(&c, path, sets, 3));
    char folder[256];
    assert_non_null(realpath(path, folder));
    *strrchr(folder, '/') = '\0';
    snprintf(want, sizeof want, "%s/t/x.pth", folder);
    assert_string_equal(c.model.text, want);
    snprintf(want, sizeof want, "%s/../wan", folder);
    assert_string_equal(c.model.wan, want);
    assert_string_equal(c.model.dit, "/d/x.pt");
    assert_string_equal(c.model.vae, "v.pth");
    assert_string_equal(c.model.lora, "l/x.pt");
    assert_string_equal(c.text.tokenizer, "bytes");
}

/* Full size is what the defaults are: these two differ from them in weights and places alone. */
static void test_the_files_for_gpus(void **state)
{
    (void)state;
    static const struct {
        const char *path, *text, *dit, *vae, *clean;
    } files[] = {
        {"configs/longlive-h100.ini", "cuda:0", "cuda:0", "cuda:0", ""},
        {"configs/longlive-2gpu.ini", "cuda:1", "cuda:0", "cuda:1", "cuda:1"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct conf c, want;
        want_ok(conf_load(&c, files[i].path, NULL, 0));
        assert_int_equal(conf_width_px(&c), 832);
        assert_int_equal(conf_height_px(&c), 480);
        assert_int_equal(conf_frame_tokens(&c), 1560);
        conf_default(&want);
        strcpy(want.model.weights, "random:1");
        strcpy(want.place.text, files[i].text);
        strcpy(want.place.dit, files[i].dit);
        strcpy(want.place.vae, files[i].vae);
        strcpy(want.place.clean, files[i].clean);
        memcpy(want.presets, c.presets, sizeof c.presets);
        want.dit.window_max = c.presets[0] ? 12 : 0;
        assert_memory_equal(&c, &want, sizeof c);
        assert_int_equal(conf_overlaps(&c), i == 1); /* on one GPU they take turns */
        c.dit.overlap = i == 0 ? OVERLAP_TRUE : OVERLAP_FALSE;
        assert_int_equal(conf_overlaps(&c), i == 0);
    }
}

/* The VAE waits for clean passes on its own device, where it works beside dit at all. */
static void test_who_makes_way_for_clean_passes(void **state)
{
    (void)state;
    static const struct {
        const char *dit, *vae, *clean;
        int32_t overlap; /* enum conf_overlap */
        int cleans_first;
    } row[] = {
        {"cuda:0", "cuda:1", "", OVERLAP_AUTO, 0},
        {"cuda:0", "cuda:1", "cuda:1", OVERLAP_AUTO, 1},
        {"cuda:0", "cuda:1", "cuda:1", OVERLAP_TRUE, 1},
        {"cuda:0", "cuda:1", "cuda:1", OVERLAP_FALSE, 0},
        {"cuda:0", "cuda:1", "cuda:2", OVERLAP_AUTO, 0},
        {"cuda:0", "cuda:1", "cuda:0", OVERLAP_AUTO, 0},
        {"cuda:0", "cuda:1", "cuda:10", OVERLAP_TRUE, 0},
        {"cuda:0", "cuda:0", "cuda:0", OVERLAP_AUTO, 0}, /* they take turns */
        {"cuda:0", "cuda:0", "cuda:0", OVERLAP_TRUE, 1},
        {"cuda:0", "cuda:0", "cuda:1", OVERLAP_TRUE, 0},
        {"cpu", "cpu", "cpu", OVERLAP_AUTO, 1},
        {"cpu", "cpu", "", OVERLAP_TRUE, 0},
        {"cpu", "cuda:0", "cpu", OVERLAP_TRUE, 0},
    };
    struct conf c;
    conf_default(&c);
    assert_string_equal(c.place.clean, "");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        strcpy(c.place.dit, row[i].dit);
        strcpy(c.place.vae, row[i].vae);
        strcpy(c.place.clean, row[i].clean);
        c.dit.overlap = row[i].overlap;
        if (conf_cleans_first(&c) != row[i].cleans_first) fail_msg("row %zu", i);
    }
}

static void test_every_refusal_names_place_and_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"[dit]\nwindw = 9\n", "a.ini:2: unknown key dit.windw (did you mean dit.window?)"},
        {"[dit]\n\n# x\nwindow = 99\n", "a.ini:4: dit.window = 99: from 3 to 24"},
        {"[dit]\nwindow = two\n", "a.ini:2: dit.window = two: an integer from 3 to 24"},
        {"[dit]\nwindow =\n", "a.ini:2: dit.window = : an integer from 3 to 24"},
        {"[dit]\nglobal_sink = 1\n", "a.ini:2: dit.global_sink = 1: true or false"},
        {"[dit]\nrope = none\n", "a.ini:2: dit.rope = none: absolute or relative"},
        {"[dit]\nwindow = 9\nwindow = 9\n", "a.ini:3: dit.window a second time"},
        {"[dit]\nwindow = 9\n[run]\n[dit]\nwindow = 8\n", "a.ini:5: dit.window a second time"},
        {"[run]\nfrobnicate = 1\n", "a.ini:2: unknown key run.frobnicate"},
        {"[ditt]\n", "a.ini:1: unknown section [ditt] (did you mean [dit]?)"},
        {"[mountains]\n", "a.ini:1: unknown section [mountains]"},
        {"[]\n", "a.ini:1: unknown section []"},
        {"window = 9\n", "a.ini:1: window: before any [section]"},
        {"[dit\nwindow = 9\n", "a.ini:1: [ without ]"},
        {"[dit] window = 9\n", "a.ini:1: text after a section's ]"},
        {"[dit]\nwindow\n", "a.ini:2: neither [section] nor key = value"},
        {"[dit]\nwindow\nwindw = 2\n", "a.ini:2: neither [section] nor key = value"},
        {"[dit]\n  window = 9\n", "a.ini:2: indented line"},
        {"[dit]\nsteps = 1000\n\t,750\n", "a.ini:3: indented line"},
        {"[dit]\r\n", "a.ini:1: control character 0x0d at byte 6"},
        {"[dit]\nwindow = \x1b[2J\n", "a.ini:2: control character 0x1b at byte 10"},
        {"[cache]\nfile = a;b\n", "a.ini:2: cache.file: cannot hold ';' (byte 2)"},
        {"[run]\npreset = a\n", "a.ini:2: unknown preset a (known: none)"},
        {"[preset.]\n", "a.ini:1: [preset.]: a preset's name is 1 to 40"},
        {"[preset.a b]\n", "a.ini:1: [preset.a b]: a preset's name is"},
        {"[preset.aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee]\n",
         "a.ini:1: section name of 57 bytes: at most 48"},
        {"[preset.a]\nwindow = 9\n", "a.ini:2: window: a key is spelt section.key"},
        {"[preset.a]\ndit.windw = 9\n", "a.ini:2: unknown key dit.windw (did you mean dit.window"},
        {"[preset.a]\ndit.window = 99\n", "a.ini:2: dit.window = 99: from 3 to 24"},
        {"[preset.a]\nrun.preset = b\n", "a.ini:2: run.preset: a preset cannot choose"},
        {"[preset.a]\ndit.window = 9\ndit.window = 9\n", "a.ini:3: dit.window a second time"},
        {"[dit]\nsink = 6\n", "a.ini: dit.sink = 6: at most dit.block = 3"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct conf c, before;
        memset(&c, 0x5A, sizeof c);
        before = c;
        want_fails(load(&c, bad[i].text), ERR_CONFIG, bad[i].words);
        assert_memory_equal(&c, &before, sizeof c);
    }
}

static void test_files_that_cannot_be_read(void **state)
{
    (void)state;
    struct conf c;
    char *large = malloc(300 * 1024);
    assert_non_null(large);
    memset(large, '\n', 300 * 1024);
    want_fails(conf_load(&c, "/no/such.ini", NULL, 0), ERR_NOINPUT,
               "/no/such.ini: No such file or directory");
    want_fails(conf_load(&c, "/tmp", NULL, 0), ERR_NOINPUT, "/tmp: Is a directory");
    want_fails(conf_load(&c, "/dev/null", NULL, 0), ERR_NOINPUT, "not a regular file");
    want_fails(conf_load(&c, scratch_put_bytes("a.ini", large, 256 * 1024 + 1), NULL, 0),
               ERR_CONFIG, "a.ini: larger than 262144 bytes");
    want_ok(conf_load(&c, scratch_put_bytes("a.ini", large, 256 * 1024), NULL, 0));
    want_fails(conf_load(&c, scratch_put_bytes("a.ini", "[dit]\n\0", 7), NULL, 0), ERR_CONFIG,
               "a.ini:2: NUL at byte 1");
    free(large);
}

/* inih cuts a line at 199 bytes and reads the rest as another: the rest here is a key. */
static void test_a_long_line_sets_no_other_key(void **state)
{
    (void)state;
    struct conf c;
    char text[400] = "[dit]\nsteps = ";
    memset(text + strlen(text), '1', 199 - strlen("steps = "));
    strcat(text, "window=5\n");
    want_fails(load(&c, text), ERR_CONFIG, "a.ini:2: line of 207 bytes: at most 180");

    strcpy(text, "[run]\nfps = 16 ;");
    while (strlen(text) < 6 + 180) strcat(text, "x");
    want_ok(load(&c, text)); /* 180 bytes are taken, as the last line without newline */
    strcat(text, "x");
    want_fails(load(&c, text), ERR_CONFIG, "a.ini:2: line of 181 bytes: at most 180");
}

static void test_what_is_accepted(void **state)
{
    (void)state;
    struct conf c;
    want_ok(load(&c, "")); /* all defaults */
    want_fails(load(&c, "[dit]\nwindow=9;nine\n"), ERR_CONFIG, "dit.window = 9;nine: an integer");
    want_ok(load(&c, "\xEF\xBB\xBF[dit] ; first\n# c\n; d\n \t\nwindow=9 ; nine\n[run]\n[dit]\n"
                     "sink\t=\t2\nglobal_sink = false\nrope = relative"));
    assert_int_equal(c.dit.window, 9);
    assert_int_equal(c.dit.sink, 2);
    assert_false(c.dit.global_sink);
    assert_int_equal(c.dit.rope, ROPE_RELATIVE);
}

static void test_set_overrides_the_file(void **state)
{
    (void)state;
    struct conf c;
    const char *sets[] = {"dit.window=20", " dit.window = 21 ", "run.dir="};
    want_ok(conf_load(&c, scratch_put("a.ini", "[dit]\nwindow = 9\n"), sets, 3));
    assert_int_equal(c.dit.window, 21);
    want_ok(conf_set(&c, "cache.file=/a=b"));
    assert_string_equal(c.cache.file, "/a=b");

    static const char *const bad[][2] = {
        {"dit.window=99", "--set: dit.window = 99: from 3 to 24"},
        {"dit.windw=9", "--set: unknown key dit.windw (did you mean dit.window?)"},
        {"window=9", "--set: window: a key is spelt section.key"},
        {"dit.window", "--set: dit.window: section.key=value is expected"},
        {"", "--set: : section.key=value is expected"},
        {"=", "--set: : a key is spelt section.key"},
        {"run.preset=b", "--set: unknown preset b (known: a)"},
        {"run.dir=a\nb", "--set: run.dir: cannot hold a control character (byte 2)"},
        {"dit.sink=6", "a.ini with --set: dit.sink = 6: at most dit.block = 3"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        want_fails(load_set(&c, "[preset.a]\ndit.window = 9\n", bad[i][0]), ERR_CONFIG, bad[i][1]);
    char longest[1000] = "run.dir=";
    memset(longest + 8, 'x', sizeof longest - 9);
    longest[sizeof longest - 1] = '\0';
    want_fails(conf_set(&c, longest), ERR_CONFIG, "over 319 bytes");
    longest[8 + 160] = '\0';
    want_fails(conf_set(&c, longest), ERR_CONFIG, ": up to 159 bytes");
    longest[8 + 159] = '\0';
    want_ok(conf_set(&c, longest));
}

static void test_presets(void **state)
{
    (void)state;
    struct conf c;
    const char *text = "[preset.fast]\ndit.window = 9\nplace.dit = cuda:1\n"
                       "[run]\nfps = 24\npreset = fast\n[dit]\nwindow = 20\nsink = 2\n"
                       "[preset.slow]\nrun.fps = 8\n";
    want_ok(load(&c, text));
    assert_int_equal(c.dit.window, 9); /* over the file, wherever it stands in it */
    assert_string_equal(c.place.dit, "cuda:1");
    assert_int_equal(c.dit.sink, 2);
    assert_int_equal(c.run.fps, 24);
    assert_string_equal(c.run.preset, ""); /* applied */

    want_ok(load_set(&c, text, "dit.window=10")); /* --set over the preset */
    assert_int_equal(c.dit.window, 10);
    want_ok(load_set(&c, text, "run.preset=slow")); /* instead of the file's choice */
    assert_int_equal(c.dit.window, 20);
    assert_int_equal(c.run.fps, 8);
    want_ok(load_set(&c, text, "run.preset="));
    assert_int_equal(c.dit.window, 20);
    assert_int_equal(c.run.fps, 24);
    want_fails(load_set(&c, text, "run.preset=medium"), ERR_CONFIG,
               "--set: unknown preset medium (known: fast, slow)");
    want_fails(load(&c, "[preset.x]\nrun.fps = 8\n[run]\npreset = y\n"), ERR_CONFIG,
               "a.ini:4: unknown preset y (known: x)");

    char many[4000] = "";
    for (int i = 0; i < 33; i++) sprintf(many + strlen(many), "[preset.p%d]\nrun.fps = 8\n", i);
    want_fails(load(&c, many), ERR_CONFIG, "a.ini:66: over 32 presets");
}

/* Steps and window of the seed's presets, and what the first does without; those that need a
 * precision are refused by its name. */
static void test_presets_of_the_seed(void **state)
{
    (void)state;
    static const char *const files[] = {"configs/nano.ini", "configs/demo.ini",
                                        "configs/longlive-h100.ini"};
    static const struct {
        const char *name, *steps, *refused;
        int32_t window;
    } presets[] = {
        {"baseline", "1000,750,500,250", NULL, 12},
        {"quality", "1000,750,500,250", NULL, 12},
        {"balanced", "1000,750,500,250", NULL, 12},
        {"speed", "1000,750,500,250", NULL, 12},
        {"turbo", "1000,500,250", NULL, 8},
        {"turbo_fp8", "1000,500,250", "fp8", 8},
        {"ultra", "1000,250", "fp8", 6},
        {"low_memory", NULL, "int8_kv", 12},
    };
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < sizeof presets / sizeof *presets; k++) {
            struct conf c;
            char choice[64], why[64];
            const char *sets[] = {choice, "model.precision=auto"};
            snprintf(choice, sizeof choice, "run.preset=%s", presets[k].name);
            if (presets[k].refused) {
                snprintf(why, sizeof why, "model.precision = %s: not built", presets[k].refused);
                want_fails(conf_load(&c, files[i], sets, 1), ERR_CONFIG, why);
            }
            want_ok(conf_load(&c, files[i], sets, presets[k].refused ? 2 : 1));
            assert_int_equal(c.dit.window, presets[k].window);
            if (presets[k].steps) assert_string_equal(c.dit.steps, presets[k].steps);
            assert_int_equal(c.gpu.graphs, k > 0);
            assert_int_equal(c.dit.overlap, k > 0 ? OVERLAP_AUTO : OVERLAP_FALSE);
            assert_int_equal(c.cache.reuse, k > 0);
        }
}

/* A resolved configuration has the presets of its file, each with steps and window, and room for
 * the largest of their windows. */
static void test_presets_are_kept(void **state)
{
    (void)state;
    struct conf c, then;
    const char *text = "[preset.wide]\ndit.window = 15\n[preset.quick]\ndit.steps = 1000\n"
                       "[preset.tall]\nmodel.latent_rows = 8\n[dit]\nwindow = 9\n";
    want_ok(load_set(&c, text, "dit.window=6"));
    assert_int_equal(c.dit.window_max, 15);
    assert_string_equal(c.presets,
                        "\n[preset.wide]\ndit.window = 15\ndit.steps = 1000,750,500,250\n"
                        "\n[preset.quick]\ndit.window = 9\ndit.steps = 1000\n"
                        "\n[preset.tall]\nmodel.latent_rows = 8\ndit.window = 9\n"
                        "dit.steps = 1000,750,500,250\n");
    const char *path = scratch_path("c.ini");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    conf_write(&c, f);
    assert_int_equal(fclose(f), 0);
    want_ok(conf_load(&then, path, NULL, 0));
    assert_memory_equal(&then, &c, sizeof c);

    want_ok(conf_load_preset(&then, path, "quick"));
    assert_int_equal(then.dit.window, 9); /* the file's, not --set's */
    assert_string_equal(then.dit.steps, "1000");
    want_ok(conf_check_change(&c, &then));
    want_ok(conf_load_preset(&then, path, "tall"));
    want_fails(conf_check_change(&c, &then), ERR_CONFIG, "model.latent_rows = 8: 60 here");
    want_fails(conf_load_preset(&then, path, "low"), ERR_CONFIG,
               "preset: unknown preset low (known: wide, quick, tall)");

    want_ok(load_set(&c, text, "dit.window=20"));
    assert_int_equal(c.dit.window_max, 20);
    want_ok(load_set(&c, text, "dit.window_max=9"));
    want_fails(load_set(&c, text, "dit.window_max=8"), ERR_CONFIG,
               "dit.window = 9: at most dit.window_max = 8");
    want_ok(load(&c, "[dit]\nwindow = 9\n"));
    assert_int_equal(c.dit.window_max, 0);

    char many[12000] = "";
    for (int i = 0; i < 32; i++)
        sprintf(many + strlen(many), "[preset.p%d]\nmodel.vae = /%0150d\nmodel.dit = /%0150d\n", i,
                i, i);
    want_fails(load(&c, many), ERR_CONFIG, "presets of more than 8191 bytes");
}

static void check_round_trip(const struct conf *c)
{
    struct conf again;
    const char *path = scratch_path("b.ini");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    conf_write(c, f);
    assert_int_equal(fclose(f), 0);
    want_ok(conf_load(&again, path, NULL, 0));
    assert_memory_equal(&again, c, sizeof again);
}

static void test_written_and_read_back(void **state)
{
    (void)state;
    static const char *const odd[] = {
        "run.seed=9223372036854775807",
        "run.dir=/tmp/\xC3\xA9 [x] = #1: y",
        "cache.file=[run]",
        "dit.rope=relative",
        "dit.global_sink=false",
        "dit.steps=5,4,3,2,1",
        "place.vae=cuda:63",
        "place.dit=cuda:0",
        "place.clean=cuda:62",
        "model.weights=random:18446744073709551615",
        "dit.window=24",
        "dit.ring_latents=4096",
        "vae.ring_frames=4096",
        "run.ahead_ms=0",
    };
    static const char *const files[] = {"configs/nano.ini", "configs/tiny.ini", "configs/demo.ini"};
    struct conf c;
    conf_default(&c);
    check_round_trip(&c);
    for (int i = 0; i < 3; i++) {
        want_ok(conf_load(&c, files[i], NULL, 0));
        check_round_trip(&c);
        want_ok(conf_load(&c, files[i], odd, sizeof odd / sizeof *odd));
        check_round_trip(&c);
    }
    memset(c.cache.file, '=', CONF_TEXT_MAX - 1); /* the longest line */
    memset(c.run.dir, 0xC3, CONF_TEXT_MAX - 1);
    check_round_trip(&c);
    strcpy(c.run.preset, "gone"); /* a resolved configuration names none */
    struct conf again;
    FILE *f = fopen(scratch_path("b.ini"), "w");
    assert_non_null(f);
    conf_write(&c, f);
    fclose(f);
    want_ok(conf_load(&again, scratch_path("b.ini"), NULL, 0));
    assert_string_equal(again.run.preset, "");
}

static void test_help_has_a_line_for_every_key(void **state)
{
    (void)state;
    char *help = NULL, *ini = NULL;
    size_t n = 0, n_ini = 0;
    struct conf c;
    int lines = 0, keys = 0;
    FILE *f = open_memstream(&help, &n);
    conf_print_help(f);
    fclose(f);
    conf_default(&c);
    f = open_memstream(&ini, &n_ini);
    conf_write(&c, f);
    fclose(f);
    assert_non_null(strstr(help, "| key | type | bounds | default | meaning |\n"));
    assert_non_null(strstr(help, "| `dit.window` | i32 | from 3 to 24 | `12` | latent frames in "));
    assert_non_null(strstr(help, "| `dit.rope` | enum | absolute or relative | `absolute` |"));
    assert_non_null(strstr(help, "| `cache.file` | text | up to 159 bytes | empty |"));
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        int bars = 0;
        for (char *p = line; *p; p++) bars += *p == '|';
        assert_int_equal(bars, 6);
    }
    for (char *line = strtok(ini, "\n"); line; line = strtok(NULL, "\n"))
        keys += strchr(line, '=') != NULL;
    assert_int_equal(lines, keys + 2);
    free(help);
    free(ini);
}

static void test_spoilt_files_never_crash(void **state)
{
    (void)state;
    static const char *const words[] = {"[dit]\n",
                                        "\n",
                                        "=",
                                        "[preset.a]\n",
                                        "run.preset=a",
                                        "window",
                                        " ",
                                        "\t",
                                        ";",
                                        "99999999999",
                                        "[",
                                        "]",
                                        "dit.",
                                        "-1",
                                        "\xFF",
                                        "preset = a\n",
                                        "true",
                                        "\n ",
                                        "#"};
    const char *text = "[preset.a]\ndit.window = 9\nplace.dit = cuda:1\n[run]\nfps = 24\n"
                       "preset = a\n[dit]\nwindow = 20\nsink = 2\nsteps = 1000,500\n"
                       "global_sink = false\nrope = relative\n[cache]\nfile = /tmp/x ; here\n";
    uint64_t seed = 1;
    int n_good = 0;
    const char *path = NULL;
    const int fd = scratch_memory("m.ini", &path);
    for (int i = 0; i < 50000; i++) {
        char data[2048];
        struct conf c;
        size_t n = strlen(text);
        memcpy(data, text, n);
        n = spoil(&seed, data, n, sizeof data, words, sizeof words / sizeof *words);
        scratch_fill(fd, data, n);
        const err_t e = conf_load(&c, path, NULL, 0);
        if (e != OK) assert_int_equal(e, ERR_CONFIG);
        else want_ok(conf_check(&c));
        n_good += e == OK;
    }
    close(fd);
    assert_in_range(n_good, 1000, 30000); /* both sides were met */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_the_checkpoints),
        cmocka_unit_test(test_the_files_of_this_repository),
        cmocka_unit_test(test_paths_of_a_file),
        cmocka_unit_test(test_the_files_for_gpus),
        cmocka_unit_test(test_who_makes_way_for_clean_passes),
        cmocka_unit_test(test_every_refusal_names_place_and_reason),
        cmocka_unit_test(test_files_that_cannot_be_read),
        cmocka_unit_test(test_a_long_line_sets_no_other_key),
        cmocka_unit_test(test_what_is_accepted),
        cmocka_unit_test(test_set_overrides_the_file),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_presets_of_the_seed),
        cmocka_unit_test(test_presets_are_kept),
        cmocka_unit_test(test_written_and_read_back),
        cmocka_unit_test(test_help_has_a_line_for_every_key),
        cmocka_unit_test(test_spoilt_files_never_crash),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
