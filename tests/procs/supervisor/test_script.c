/* test_script.c - scripts of `generate`, and the rule that gives a prompt its block. */
#include "procs/supervisor/script.h"

#include "common/prompt.h"
#include "tests/scratch.h"

static const struct script_conf endless = {.block = 3, .seed = 9};

static err_t read_text(const char *name, const char *text, const struct script_conf *conf,
                       struct job_video **v, int32_t *n)
{
    return script_read(scratch_put(name, text), conf, v, n);
}

static void test_the_table_of_longlive(void **state)
{
    (void)state;
    static const int64_t at[] = {40, 80, 120, 160, 200};
    static const int64_t want[] = {0, 14, 27, 40, 54, 67};
    int64_t blocks[6];
    script_blocks(at, 6, 3, blocks);
    assert_memory_equal(blocks, want, sizeof want);
    static const int64_t crowded[] = {0, 0, 1, 4, 5};
    static const int64_t late[] = {0, 0, 1, 2, 3, 4};
    script_blocks(crowded, 6, 3, blocks);
    assert_memory_equal(blocks, late, sizeof late);
}

/* The reference's loop, as it is written there: before a block, `if` its first frame has reached
 * the next index, one switch is made. A prompt's block is the first that it is used for. */
static void walk(const int64_t *at, int32_t n_prompts, int32_t nb, int64_t *first)
{
    int32_t segment = 0;
    first[0] = 0;
    for (int64_t block = 0, frame = 0; segment < n_prompts - 1; block++, frame += nb)
        if (frame >= at[segment]) first[++segment] = block;
}

static void test_the_rule_is_the_references_walk(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int i = 0; i < 200000; i++) {
        int64_t at[8], got[9], want[9], last = 0;
        const int32_t n = 1 + (int32_t)(seed >> 33) % 9, nb = 1 + (int32_t)(seed >> 40) % 7;
        for (int k = 0; k < n - 1; k++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            last += (int64_t)(seed >> 35) % ((seed >> 60) == 0 ? 90 : 6);
            at[k] = last;
        }
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        script_blocks(at, n, nb, got);
        walk(at, n, nb, want);
        assert_memory_equal(got, want, (size_t)n * sizeof *got);
    }
}

static void test_jsonl(void **state)
{
    (void)state;
    struct job_video *v = NULL;
    int32_t n = 0;
    const struct script_conf conf = {.block = 3, .n_blocks = 80, .seed = 9};
    want_ok(read_text("a.jsonl",
                      "\xEF\xBB\xBF{\"prompts\": [\" a  cat \"]}\r\n\n   \n"
                      "{\"prompts\": [\"a\", \"b\", \"c\"], \"switch\": [40, 80]}\n"
                      "{\"prompts\": [\"a\", \"b\"], \"switch_frame_indices\": 40}\n"
                      "{\"prompts\": [\"a\", \"b\", \"c\"], \"switch\": \" 40 , 41 \"}\n"
                      "{\"prompts\": [\"a\"], \"switch\": []}\n"
                      "{\"prompts\": [\"a\", \"b\", \"c\"], \"switch\": [0, 0]}",
                      &conf, &v, &n));
    assert_int_equal(n, 6);
    assert_int_equal(v[0].n_prompts, 1);
    assert_string_equal(v[0].prompts[0].text, " a  cat "); /* cleaned where it enters the ledger */
    assert_int_equal(v[0].prompts[0].at_block, 0);
    assert_int_equal(v[0].n_blocks, 80);
    assert_int_equal(v[0].seed, 9);
    assert_string_equal(v[0].out, "");
    assert_string_equal(v[0].hashes, "");
    assert_int_equal(v[1].prompts[0].at_block, 0);
    assert_int_equal(v[1].prompts[1].at_block, 14);
    assert_int_equal(v[1].prompts[2].at_block, 27);
    assert_string_equal(v[1].prompts[2].text, "c");
    assert_int_equal(v[2].prompts[1].at_block, 14);
    assert_int_equal(v[3].prompts[1].at_block, 14);
    assert_int_equal(v[3].prompts[2].at_block, 15); /* one switch a block */
    assert_int_equal(v[4].n_prompts, 1);
    assert_int_equal(v[5].n_prompts, 2); /* b in the place of a */
    assert_string_equal(v[5].prompts[0].text, "b");
    assert_int_equal(v[5].prompts[0].at_block, 0);
    assert_int_equal(v[5].prompts[1].at_block, 1);
    job_videos_free(&v, n);
    assert_null(v);
}

static void test_txt(void **state)
{
    (void)state;
    struct job_video *v = NULL;
    int32_t n = 0;
    want_ok(read_text("a.txt", "first  \r\n\n\t\n{\"second\"}\nthird", &endless, &v, &n));
    assert_int_equal(n, 3);
    assert_string_equal(v[0].prompts[0].text, "first");
    assert_string_equal(v[1].prompts[0].text, "{\"second\"}");
    assert_string_equal(v[2].prompts[0].text, "third");
    assert_int_equal(v[2].prompts[0].at_block, 0);
    job_videos_free(&v, n);
}

static void test_the_callers_switches(void **state)
{
    (void)state;
    struct job_video *v = NULL;
    int32_t n = 0;
    const int64_t at[] = {10, 20};
    const struct script_conf conf = {.block = 3, .at = at, .n_at = 2};
    want_ok(read_text("a.jsonl",
                      "{\"prompts\": [\"a\", \"b\", \"c\"]}\n{\"prompts\": [\"a\"]}\n"
                      "{\"prompts\": [\"a\", \"b\"], \"switch\": 3}\n",
                      &conf, &v, &n));
    assert_int_equal(v[0].prompts[1].at_block, 4);
    assert_int_equal(v[0].prompts[2].at_block, 7);
    assert_int_equal(v[1].n_prompts, 1);
    assert_int_equal(v[2].prompts[1].at_block, 1);
    job_videos_free(&v, n);
    want_fails(read_text("a.jsonl", "{\"prompts\": [\"a\", \"b\"]}\n", &conf, &v, &n), ERR_DATA,
               "a.jsonl:1: 2 switch indices for 2 prompts: 1 expected");
}

static void test_every_refusal_names_place_and_reason(void **state)
{
    (void)state;
#define TWO "{\"prompts\": [\"a\", \"b\"], \"switch\": "
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "a.jsonl: no videos"},
        {"\n \n", "a.jsonl: no videos"},
        {"{\"prompts\": [\"a\"]}\n\n{\"prompts\": [\"a\"}\n", "a.jsonl:3: column 17: "},
        {"{\"prompts\": [\"a\"]} {}\n", "a.jsonl:1: column"},
        {"{\"prompts\": [\"a\"], \"prompts\": [\"a\"]}\n", "duplicate object key"},
        {"[\"a\"]\n", "a.jsonl:1: a line is one JSON object"},
        {"{}\n", "a.jsonl:1: no prompts"},
        {"{\"prompts\": []}\n", "a.jsonl:1: no prompts"},
        {"{\"prompts\": \"a\"}\n", "a.jsonl:1: \"prompts\" is not a list"},
        {"{\"prompts\": [1]}\n", "a.jsonl:1: prompt 0 is not a string"},
        {"{\"prompts\": [\"a\", \"\"], \"switch\": [3]}\n", "a.jsonl:1: prompt 1: prompt is empty"},
        {"{\"prompt\": [\"a\"]}\n", "unknown key \"prompt\" (did you mean \"prompts\"?)"},
        {"{\"prompts\": [\"a\"], \"swich\": []}\n", "\"swich\" (did you mean \"switch\"?)"},
        {"{\"prompts\": [\"a\"], \"fps\": 1}\n", "a.jsonl:1: unknown key \"fps\""},
        {"{\"prompts\": [\"a\", \"b\", \"c\"]}\n",
         "a.jsonl:1: 3 prompts and no \"switch\": 2 expected"},
        {TWO "[]}\n", "a.jsonl:1: 0 switch indices for 2 prompts: 1 expected"},
        {TWO "[1, 2]}\n", "a.jsonl:1: 2 switch indices for 2 prompts: 1 expected"},
        {"{\"prompts\": [\"a\"], \"switch\": 5}\n", "1 switch indices for 1 prompts: 0 expected"},
        {TWO "[-1]}\n", "a.jsonl:1: switch 1 at -1: from 0 to 1000000000000"},
        {TWO "1000000000001}\n", "switch 1 at 1000000000001: from 0 to"},
        {TWO "[8, 7]}\n", "a.jsonl:1: switch 2 at 7 comes after one at 8"},
        {TWO "[1.5]}\n", "\"switch\" holds what is no integer"},
        {TWO "null}\n", "\"switch\" is neither a list of integers, nor one, nor a string"},
        {TWO "\"4,\"}\n", "\"switch\": integers with commas between them are expected"},
        {TWO "\"4 5\"}\n", "integers with commas"},
        {TWO "\"99999999999999999999\"}\n", "integers with commas"},
        {TWO "3, \"switch_frame_indices\": 3}\n", "both \"switch\" and \"switch_frame_indices\""},
        {TWO "[58]}\n", "a.jsonl:1: switch 1 at latent 58 is at block 20: the video ends after 20"},
        {TWO "[60]}\n", "a.jsonl:1: switch 1 at latent 60 is at block 20"},
        {"{\"prompts\": [\"a\", \"b\", \"c\"], \"switch\": [57, 57]}\n",
         "switch 2 at latent 57 is at block 20"},
    };
    struct job_video *v = NULL;
    int32_t n = 0;
    const struct script_conf conf = {.block = 3, .n_blocks = 20};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        want_fails(read_text("a.jsonl", bad[i].text, &conf, &v, &n), ERR_DATA, bad[i].words);
    want_fails(read_text("a.txt", "a\n\n\xFF\n", &conf, &v, &n), ERR_DATA,
               "a.txt:3: prompt is not UTF-8 at byte 1");
    want_fails(script_read(scratch_put_bytes("a.txt", "a\0b", 3), &conf, &v, &n), ERR_DATA,
               "a.txt:1: prompt has NUL at byte 2");
    want_fails(read_text("a.txt", "", &conf, &v, &n), ERR_DATA, "a.txt: no videos");
    want_fails(read_text("a.csv", "a", &conf, &v, &n), ERR_DATA,
               "a.csv: a script is a .jsonl or a .txt file");
    want_fails(script_read("/no/such.txt", &conf, &v, &n), ERR_NOINPUT,
               "/no/such.txt: No such file or directory");
    assert_null(v);
    want_ok(read_text("a.jsonl", TWO "[57]}\n", &conf, &v, &n)); /* the last block */
    assert_int_equal(v[0].prompts[1].at_block, 19);
    job_videos_free(&v, n);
}

static void test_the_demo(void **state)
{
    (void)state;
    struct job_video *v = NULL;
    int32_t n = 0;
    const struct script_conf conf = {.block = 3, .n_blocks = 14};
    want_ok(script_read("configs/demo.jsonl", &conf, &v, &n));
    assert_int_equal(n, 1);
    assert_int_equal(v[0].n_prompts, 3);
    assert_int_equal(v[0].prompts[1].at_block, 5);
    assert_int_equal(v[0].prompts[2].at_block, 10);
    job_videos_free(&v, n);
}

static void test_spoilt_files_never_crash(void **state)
{
    (void)state;
    static const char *const words[] = {"{",
                                        "}",
                                        "[",
                                        "]",
                                        "\"",
                                        ",",
                                        ":",
                                        "\n",
                                        "\"switch\": 3,",
                                        "-1",
                                        "1e999",
                                        "\\u0000",
                                        "\xFF",
                                        "99999999999999999999",
                                        "{\"prompts\": [\"a\"]}\n",
                                        "[[[[[[[[",
                                        " "};
    const char *text = "{\"prompts\": [\"a\", \"b\", \"c\"], \"switch\": [40, 80]}\n"
                       "{\"prompts\": [\"a\", \"b\"], \"switch_frame_indices\": \"40\"}\n"
                       "{\"prompts\": [\"a cat\"]}\n";
    const char *paths[2];
    const int fds[2] = {scratch_memory("m.jsonl", &paths[0]), scratch_memory("m.txt", &paths[1])};
    uint64_t seed = 4;
    int n_good = 0;
    for (int i = 0; i < 50000; i++) {
        char data[2048];
        struct job_video *v = NULL;
        const int as = i % 8 == 0; /* as text, sometimes */
        int32_t n_videos = 0;
        size_t n = strlen(text);
        memcpy(data, text, n);
        n = spoil(&seed, data, n, sizeof data, words, sizeof words / sizeof *words);
        scratch_fill(fds[as], data, n);
        const err_t e = script_read(paths[as], &endless, &v, &n_videos);
        if (e != OK) assert_int_equal(e, ERR_DATA);
        assert_true((e == OK) == (v != NULL && n_videos > 0));
        n_good += e == OK;
        job_videos_free(&v, n_videos);
    }
    close(fds[0]);
    close(fds[1]);
    assert_in_range(n_good, 1000, 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table_of_longlive),
        cmocka_unit_test(test_the_rule_is_the_references_walk),
        cmocka_unit_test(test_jsonl),
        cmocka_unit_test(test_txt),
        cmocka_unit_test(test_the_callers_switches),
        cmocka_unit_test(test_every_refusal_names_place_and_reason),
        cmocka_unit_test(test_the_demo),
        cmocka_unit_test(test_spoilt_files_never_crash),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
