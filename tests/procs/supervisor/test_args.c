/* test_args.c - command lines, good and bad. */
#include "procs/supervisor/args.h"

#include "tests/scratch.h"

static struct args a;

/* Splits at single spaces; _ stands for a space inside a word. */
static err_t parse(const char *line)
{
    static char text[512];
    static char *argv[64];
    int argc = 0;
    snprintf(text, sizeof text, "longlived %s", line);
    for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) {
        for (char *c = w; *c; c++)
            if (*c == '_') *c = ' ';
        argv[argc++] = w;
    }
    argv[argc] = NULL;
    const err_t e = args_parse(&a, argc, argv);
    return e == OK ? args_check(&a) : e;
}

static void test_good_lines(void **state)
{
    (void)state;
    check_ok(parse("up -c x.ini --set a.b=c --set=d.e=f --run DIR --foreground"));
    assert_int_equal(a.cmd, CMD_UP);
    assert_string_equal(a.conf, "x.ini");
    assert_int_equal(a.n_sets, 2);
    assert_string_equal(a.sets[1], "d.e=f");
    assert_true(a.foreground);
    check_ok(parse("generate --prompt a_cat --seconds 2.5 --seed 7 -o out.mp4 --hashes h"));
    assert_string_equal(a.prompt, "a cat");
    assert_int_equal(a.seconds_ms, 2500);
    assert_int_equal(a.seed, 7);
    check_ok(parse("generate --script x.jsonl --blocks 12 --output out.y4m --progress json"));
    assert_int_equal(a.n_blocks, 12);
    assert_int_equal(a.seed, -1);
    check_ok(parse("serve -o -"));
    check_ok(parse("serve"));
    check_ok(parse("prompt -- --not_an_option"));
    assert_string_equal(a.word, "--not an option");
    check_ok(parse("restart dit --kill"));
    assert_true(a.kill);
    check_ok(parse("status --json"));
    check_ok(parse("inspect x.pt --json"));
    assert_string_equal(a.word, "x.pt");
    check_ok(parse("convert in.pt --lora l.pt out.safetensors --lora-alpha 64"));
    assert_string_equal(a.word, "in.pt");
    assert_string_equal(a.word2, "out.safetensors");
    assert_int_equal(a.lora_alpha, 64);
    check_ok(parse("generate --help")); /* nothing else is asked of it */
    assert_true(a.wants_help);
    check_ok(parse("--version"));
    assert_true(a.wants_version);
    check_ok(parse("help config"));
    check_ok(parse("--help"));
    assert_int_equal(a.cmd, CMD_HELP);
}

static void test_bad_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"", "no command"},
        {"fly", "unknown command fly"},
        {"up --fast", "unknown option --fast"},
        {"up -x", "unknown option -x"},
        {"up --json", "up: has no option --json"},
        {"up out.mp4", "what is \"out.mp4\""},
        {"up -c", "-c needs a value"},
        {"up --foreground=yes", "takes no value"},
        {"restart", "restart: STAGE?"},
        {"inspect", "inspect: FILE?"},
        {"inspect a b", "what is \"b\""},
        {"convert a", "convert: IN OUT.safetensors?"},
        {"convert a b c", "what is \"c\""},
        {"convert a b --lora-alpha 8", "with --lora"},
        {"convert a b --lora c --lora-alpha 65537", "at most 65536"},
        {"restart dit vae", "what is \"vae\""},
        {"prompt", "prompt: TEXT?"},
        {"generate --prompt a", "-o OUT.mp4 or OUT.y4m?"},
        {"generate -o a.mp4", "one of --prompt TEXT and --script FILE"},
        {"generate -o a.mp4 --prompt a --script b.txt", "one of --prompt TEXT and --script FILE"},
        {"generate -o a.avi --prompt a", ".mp4 or .y4m"},
        {"generate -o .mp4 --prompt a", ".mp4 or .y4m"},
        {"generate -o - --prompt a", ".mp4 or .y4m"},
        {"generate -o a.mp4 --script b.json", ".jsonl or .txt"},
        {"generate -o a.mp4 --prompt a --blocks 0", "--blocks 0: an integer from 1"},
        {"generate -o a.mp4 --prompt a --blocks 3x", "--blocks 3x"},
        {"generate -o a.mp4 --prompt a --blocks 3 --seconds 1", "one of --blocks N and"},
        {"generate -o a.mp4 --prompt a --seconds 0", "--seconds 0: a number above 0"},
        {"generate -o a.mp4 --prompt a --seconds nan", "--seconds nan"},
        {"generate -o a.mp4 --prompt a --seed -1", "--seed -1: an integer from 0"},
        {"generate -o a.mp4 --prompt a --seed 9223372036854775808", "--seed 9223372036854775808"},
        {"generate -o a.mp4 --prompt a --progress xml", "json is the only one"},
        {"bench --protocol seed --compare --ablate sink", "one of --compare and --ablate"},
        {"bench --protocol seed --preset a --preset b", "more than once: with --compare"},
        {"bench --protocol seed --preset a --ablate sink", "by --set run.preset=NAME"},
        {"bench --stage gateway", "--stage text, dit, vae or edge?"},
        {"bench --stage dit --protocol seed", "--stage: without --protocol"},
        {"bench --stage dit --compare", "--stage: without --protocol, --phase and turns"},
        {"bench --protocol seed --rounds 2", "--rounds N: of --compare and --ablate"},
        {"bench --protocol seed --compare --rounds 65", "at most 64"},
        {"bench --compare --preset 1 --preset 2 --preset 3 --preset 4 --preset 5 --preset 6"
         " --preset 7 --preset 8 --preset 9",
         "--preset: at most 8"},
        {"serve -o x.avi", ".mp4 or .y4m, or -"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fails(parse(cases[i].line), ERR_USAGE, cases[i].words);
}

static void test_too_many_sets(void **state)
{
    (void)state;
    char *argv[3 + 2 * ARGS_SETS_MAX + 2];
    int n = 0;
    argv[n++] = "longlived";
    argv[n++] = "up";
    for (int i = 0; i <= ARGS_SETS_MAX; i++) {
        argv[n++] = "--set";
        argv[n++] = "a.b=c";
    }
    check_fails(args_parse(&a, n, argv), ERR_USAGE, "--set: at most 64");
}

/* Every command explains itself in lines that fit, and usage fits an error's four lines. */
static void test_help_fits(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    for (int c = 0; c < COMMANDS + 2; c++) {
        int n_lines = 0, n_columns = 0;
        FILE *f = open_memstream(&text, &n);
        if (c < COMMANDS) args_help_command((enum command)c, f);
        else if (c == COMMANDS) args_help(f);
        else args_usage(f);
        fclose(f);
        for (size_t i = 0; i < n; i++) {
            n_lines += text[i] == '\n';
            n_columns = text[i] == '\n' ? 0 : n_columns + 1;
            assert_true(n_columns <= 110);
        }
        assert_true(n_lines > 2);
        assert_null(strstr(text, "status-fd"));
        if (c == COMMANDS + 1) assert_true(n_lines <= 4);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_lines),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_too_many_sets),
        cmocka_unit_test(test_help_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
