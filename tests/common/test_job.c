/* test_job.c - the job file: written, read back, refused. */
#include "common/job.h"

#include "tests/scratch.h"

#define REST                                                                                       \
    "{\"prompts\": [{\"text\": \"a\", \"at_block\": 0}], \"blocks\": 3, \"seed\": 0,"              \
    " \"out\": \"-\", \"hashes\": \"\", \"noise\": \"\", \"embeds\": \"\", \"latents\": \"\""
#define VIDEO REST ", \"presets\": []}"
#define JOB(videos)                                                                                \
    "{\"v\": 1, \"id\": \"7\", \"live\": false, \"videos\": [" videos "], \"prewarm\": []}"

static void test_written_and_read_back(void **state)
{
    (void)state;
    struct job_prompt p0[] = {
        {"a \"cat\"\\ \xF0\x9F\x90\x88", 0, false, false},
        {"&nbsp;", 14, true, true}, /* cleaned once more it would be empty */
        {"now", -1, false, false},
    };
    struct job_preset presets[] = {{"1000,500", 0, 8}, {"7", 3, 24}};
    struct job_video videos[] = {
        {p0, 3, 81, INT64_MAX, "/tmp/\xC3\xA9 a.mp4", "h.txt", "n", "e", "l", presets, 2},
        {p0 + 1, 1, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, 0},
        {NULL, 0, 0, 5, "-", "", "", "", "", NULL, 0},
    };
    char *prewarm[] = {"one", "two"};
    const struct job job = {UINT64_MAX, true, videos, 3, prewarm, 2};
    struct job *again = NULL;
    const int32_t files = scratch_count();
    want_ok(job_write(scratch_path("job.json"), &job));
    want_ok(job_write(scratch_path("job.json"), &job));
    assert_int_equal(scratch_count(), files + 1);
    want_ok(job_read(scratch_path("job.json"), &again));
    assert_true(again->id == job.id && again->is_live);
    assert_int_equal(again->n_videos, 3);
    assert_int_equal(again->n_prewarm, 2);
    for (int i = 0; i < 3; i++) {
        const struct job_video *a = &again->videos[i], *v = &videos[i];
        assert_int_equal(a->n_prompts, v->n_prompts);
        assert_true(a->n_blocks == v->n_blocks && a->seed == v->seed);
        assert_string_equal(a->out, v->out ? v->out : "");
        assert_string_equal(a->hashes, v->hashes ? v->hashes : "");
        assert_string_equal(a->noise, v->noise ? v->noise : "");
        assert_string_equal(a->embeds, v->embeds ? v->embeds : "");
        assert_string_equal(a->latents, v->latents ? v->latents : "");
        assert_int_equal(a->n_presets, v->n_presets);
        for (int k = 0; k < v->n_presets; k++) {
            assert_string_equal(a->presets[k].steps, v->presets[k].steps);
            assert_true(a->presets[k].at_block == v->presets[k].at_block);
            assert_int_equal(a->presets[k].window, v->presets[k].window);
        }
        for (int k = 0; k < v->n_prompts; k++) {
            assert_string_equal(a->prompts[k].text, v->prompts[k].text);
            assert_true(a->prompts[k].at_block == v->prompts[k].at_block);
            assert_int_equal(a->prompts[k].is_rebuild, v->prompts[k].is_rebuild);
            assert_int_equal(a->prompts[k].is_clean, v->prompts[k].is_clean);
        }
    }
    assert_string_equal(again->prewarm[1], "two");
    job_free(&again);
    assert_null(again);
    job_free(&again);
}

static void test_what_cannot_be_written(void **state)
{
    (void)state;
    struct job_prompt p[] = {{"a", 5, false, false}, {"b", 5, false, false}};
    struct job_preset q[] = {{"1", 4, 8}, {"1", 4, 9}};
    struct job_video v = {p, 2, 9, 0, "", "", "", "", "", q, 1};
    struct job job = {1, false, &v, 1, NULL, 0};
    const char *path = scratch_path("bad.json");
    const int32_t files = scratch_count();
    want_fails(job_write(path, &job), ERR_DATA, "bad.json: video 0: \"at_block\" = 5: over 5");
    p[1].at_block = 6;
    v.n_presets = 2;
    want_fails(job_write(path, &job), ERR_DATA, "bad.json: video 0: \"at_block\" = 4: at least 5");
    v.n_presets = 1;
    v.out = "\xFF";
    want_fails(job_write(path, &job), ERR_DATA, "bad.json: a text of the job is not UTF-8");
    v.out = "";
    p[1].text = "\xFF";
    want_fails(job_write(path, &job), ERR_DATA, "bad.json: a text of the job is not UTF-8");
    p[1].text = "b";
    want_fails(job_write("/nowhere/job.json", &job), ERR_WRITE,
               "/nowhere/job.json: No such file or directory");
    assert_int_equal(scratch_count(), files);
    want_ok(job_write(path, &job));
}

static void test_every_refusal_names_path_and_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "job.json:1: "},
        {"{\n\"v\": 1,\n oops}", "job.json:3: "},
        {"[]", "job.json: not an object"},
        {"{}", "job.json: no \"v\""},
        {"{\"v\": 1, \"v\": 1}", "duplicate object key"},
        {"{\"v\": 2}", "job.json: version 2: only 1 is known"},
        {"{\"v\": \"1\"}", "job.json: \"v\" is not an integer"},
        {"{\"v\": 1, \"hint\": 1}", "job.json: unknown key \"hint\""},
        {"{\"v\": 1, \"id\": 7}", "\"id\" is not a string"},
        {"{\"v\": 1, \"id\": \"-7\"}", "\"id\" is not a whole number of 64 bits"},
        {"{\"v\": 1, \"id\": \"18446744073709551616\"}", "\"id\" is not a whole number"},
        {"{\"v\": 1, \"id\": \"7\", \"live\": 1}", "\"live\" is not a boolean"},
        {"{\"v\": 1, \"id\": \"7\", \"live\": true}", "no \"videos\""},
        {"{\"v\": 1, \"id\": \"7\", \"live\": true, \"videos\": {}}", "\"videos\" is not an array"},
        {JOB(VIDEO ","
                   "3"),
         "job.json: video 1: not an object"},
        {JOB("{}"), "video 0: no \"prompts\""},
        {JOB("{\"prompts\": []}"), "video 0: no prompts"},
        {JOB("{\"prompts\": [1]}"), "video 0: not an object"},
        {JOB("{\"prompts\": [{}]}"), "video 0: a prompt is not a string"},
        {JOB("{\"prompts\": [{\"text\": \" \"}]}"), "video 0: prompt is empty"},
        {JOB("{\"prompts\": [{\"text\": \"a\"}]}"), "video 0: no \"at_block\""},
        {JOB("{\"prompts\": [{\"text\": \"a\", \"at_block\": -2}]}"),
         "video 0: \"at_block\" = -2: at least -1"},
        {JOB("{\"prompts\": [{\"text\": \"a\", \"at_block\": 1.0}]}"),
         "\"at_block\" is not an integer"},
        {JOB("{\"prompts\": [{\"text\": \"a\\u0000\", \"at_block\": 0}]}"), "job.json:1: "},
        {JOB("{\"prompts\": [{\"text\": \"a\", \"at_block\": 0}], \"blocks\": -1}"),
         "video 0: \"blocks\" = -1: at least 0"},
        {JOB("{\"prompts\": [{\"text\": \"a\", \"at_block\": 0}], \"blocks\": 1, \"seed\": 0}"),
         "video 0: \"out\" is not a string"},
        {JOB(REST "}"), "video 0: no \"presets\""},
        {JOB(REST ", \"presets\": [{\"steps\": \"1000,900,800,700,600,500,400\"}]}"),
         "video 0: \"steps\" of 28 bytes: at most 27"},
        {JOB(REST ", \"presets\": [{\"steps\": \"1\", \"window\": 0}]}"),
         "video 0: \"window\" = 0: at least 1"},
        {JOB(VIDEO) "x", "job.json:1: "},
    };
    struct job *job = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        want_fails(job_read(scratch_put("job.json", bad[i].text), &job), ERR_DATA, bad[i].words);
        assert_non_null(strstr(err_text(), scratch_dir));
        assert_null(job);
    }
    want_fails(job_read(scratch_path("missing.json"), &job), ERR_DATA,
               "missing.json: No such file or directory");
    want_fails(job_read(scratch_dir, &job), ERR_DATA, "Is a directory");
    want_ok(job_read(scratch_put("job.json", JOB(VIDEO)), &job));
    job_free(&job);
}

static void test_a_file_too_large(void **state)
{
    (void)state;
    struct job *job = NULL;
    const size_t n = 16 * 1024 * 1024 + 1;
    char *blank = malloc(n);
    assert_non_null(blank);
    memset(blank, ' ', n);
    want_fails(job_read(scratch_put_bytes("job.json", blank, n), &job), ERR_DATA,
               "job.json: larger than 16777216 bytes");
    free(blank);
}

static void test_spoilt_files_never_crash(void **state)
{
    (void)state;
    static const char *const words[] = {
        "{",    "}",        "[",     "]",        "\"",   ",",
        ":",    "null",     "1e999", "-1",       "true", "\\u0000",
        "\xFF", "\"v\":1,", VIDEO,   "[[[[[[[[", " ",    "99999999999999999999"};
    const char *text = JOB(VIDEO ", " VIDEO);
    const char *path = NULL;
    const int fd = scratch_memory("m.json", &path);
    uint64_t seed = 2;
    int n_good = 0;
    for (int i = 0; i < 50000; i++) {
        char data[4096];
        struct job *job = NULL;
        size_t n = strlen(text);
        memcpy(data, text, n);
        n = spoil(&seed, data, n, sizeof data, words, sizeof words / sizeof *words);
        scratch_fill(fd, data, n);
        const err_t e = job_read(path, &job);
        if (e != OK) assert_int_equal(e, ERR_DATA);
        assert_true((e == OK) == (job != NULL));
        n_good += e == OK;
        job_free(&job);
    }
    close(fd);
    assert_in_range(n_good, 100, 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_and_read_back),
        cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_every_refusal_names_path_and_reason),
        cmocka_unit_test(test_a_file_too_large),
        cmocka_unit_test(test_spoilt_files_never_crash),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
