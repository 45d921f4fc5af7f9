/* test_rules.c - the rules beside a model: defaults, both files, and what is refused. */
#include "procs/text/rules.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/check.h"
#include "tests/procs/text/model.h"
#include "tests/scratch.h"

static struct model m;
static struct spm *spm;

static int begin(void **state)
{
    model_begin(&m);
    model_piece(&m, "a", -1, NORMAL);
    model_trainer(&m, 1, 0);
    return scratch_open(state) || spm_open(&spm, "x.model", m.data, m.n) != OK;
}

static int finish(void **state)
{
    spm_close(&spm);
    return scratch_close(state);
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(scratch_path(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const struct added *added(const struct rules *r, const char *text)
{
    for (int32_t i = 0; i < r->n_added; i++)
        if (strcmp(r->added[i].text, text) == 0) return &r->added[i];
    return NULL;
}

#define MODEL "\"model\": {\"type\": \"Unigram\", \"byte_fallback\": true}"
#define SPACE "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\xE2\x96\x81\""

static void test_defaults(void **state)
{
    (void)state;
    struct rules *r = NULL;
    assert_ok(rules_open(&r, NULL, spm));
    assert_int_equal(r->n_steps, 2);
    assert_int_equal(r->steps[0], RULE_STRIP_RIGHT);
    assert_int_equal(r->steps[1], RULE_JOIN);
    assert_int_equal(r->prepend, PREPEND_ALWAYS);
    assert_false(r->byte_fallback);
    assert_int_equal(r->eos, 1);
    assert_int_equal(r->n_added, 304);
    assert_int_equal(added(r, "<unk>")->id, 3);
    assert_int_equal(added(r, "<extra_id_299>")->id, 5); /* 5 pieces */
    assert_int_equal(added(r, "<extra_id_0>")->id, 304);
    for (int32_t i = 1; i < r->n_added; i++)
        assert_true(r->added[i - 1].n_bytes >= r->added[i].n_bytes);
    rules_close(&r);
    assert_null(r);
}

static void test_both_files(void **state)
{
    (void)state;
    struct rules *r = NULL;
    put("tokenizer.json",
        "{" MODEL "," SPACE
        ", \"prepend_scheme\": \"first\"}, \"normalizer\": {\"type\": \"Sequence\","
        " \"normalizers\": [{\"type\": \"Precompiled\"}, {\"type\": \"Strip\", \"strip_left\": "
        "true,"
        " \"strip_right\": true}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"},"
        " \"content\": \" \"}]}, \"added_tokens\": [{\"id\": 7, \"content\": \"<a>\"},"
        " {\"id\": 8, \"content\": \"<bb>\", \"lstrip\": true}]}");
    put("tokenizer_config.json",
        "{\"model_max_length\": 1000000000000000019884624838656, \"added_tokens_decoder\":"
        " {\"7\": {\"content\": \"<a>\", \"rstrip\": true}}}");
    assert_ok(rules_open(&r, scratch_dir, spm));
    assert_int_equal(r->n_steps, 4);
    const enum rule_step want[] = {RULE_MAP, RULE_STRIP_LEFT, RULE_STRIP_RIGHT, RULE_JOIN};
    assert_memory_equal(r->steps, want, sizeof want);
    assert_string_equal(r->join, " ");
    assert_int_equal(r->prepend, PREPEND_FIRST);
    assert_true(r->byte_fallback);
    assert_int_equal(r->n_added, 2);
    assert_string_equal(r->added[0].text, "<bb>");
    assert_true(r->added[0].takes_left && !r->added[0].takes_right);
    assert_int_equal(r->added[1].id, 7);
    assert_true(!r->added[1].takes_left && r->added[1].takes_right);
    rules_close(&r);
}

static void test_older_spelling(void **state)
{
    (void)state;
    struct rules *r = NULL;
    put("tokenizer.json",
        "{" MODEL "," SPACE ", \"add_prefix_space\": true}, \"normalizer\": null}");
    unlink(scratch_path("tokenizer_config.json"));
    assert_ok(rules_open(&r, scratch_dir, spm));
    assert_int_equal(r->prepend, PREPEND_ALWAYS);
    assert_int_equal(r->n_steps, 0);
    rules_close(&r);
    put("tokenizer.json", "{" MODEL "," SPACE ", \"add_prefix_space\": false}}");
    assert_ok(rules_open(&r, scratch_dir, spm));
    assert_int_equal(r->prepend, PREPEND_NEVER);
    rules_close(&r);
}

static void test_what_is_not_understood(void **state)
{
    (void)state;
    static const struct {
        const char *json, *words;
    } cases[] = {
        {"", "tokenizer.json:"},
        {"{\"model\": {\"type\": \"BPE\"}}", "model BPE"},
        {"{" MODEL "}", "pre_tokenizer"},
        {"{" MODEL "," SPACE ", \"split\": false}}", "pre_tokenizer Metaspace"},
        {"{" MODEL "," SPACE ", \"prepend_scheme\": \"often\"}}", "prepend_scheme often"},
        {"{" MODEL "," SPACE "}, \"normalizer\": {\"type\": \"NFKC\"}}", "normalizer NFKC"},
        {"{" MODEL "," SPACE "}, \"normalizer\": {\"type\": \"Replace\", \"pattern\":"
         " {\"String\": \"a\"}, \"content\": \"b\"}}",
         "normalizer Replace"},
        {"{" MODEL "," SPACE "}, \"normalizer\": {\"type\": \"Sequence\", \"normalizers\":"
         " [{\"type\": \"Precompiled\"}, {\"type\": \"Precompiled\"}]}}",
         "second time"},
        {"{" MODEL "," SPACE "}, \"added_tokens\": [{\"content\": \"<a>\"}]}", "without id"},
        {"{" MODEL "," SPACE "}, \"added_tokens\": [{\"id\": -1, \"content\": \"<a>\"}]}", "id"},
        {"{" MODEL "," SPACE "}, \"added_tokens\": [{\"id\": 1e99, \"content\": \"<a>\"}]}", "id"},
        {"{" MODEL "," SPACE "}, \"added_tokens\": [{\"id\": 5, \"content\": \"\"}]}", "content"},
        {"{" MODEL "," SPACE "}, \"added_tokens\": [{\"id\": 5, \"content\": \"x\","
         " \"single_word\": true}]}",
         "single_word"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rules *r = NULL;
        put("tokenizer.json", cases[i].json);
        const err_t e = rules_open(&r, scratch_dir, spm);
        if (e != ERR_DATA || !strstr(err_text(), cases[i].words) ||
            !strstr(err_text(), "/tokenizer.json"))
            fail_msg("%s: code %d, %s", cases[i].json, e, err_text());
        assert_null(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),
        TEST(test_both_files),
        TEST(test_older_spelling),
        TEST(test_what_is_not_understood),
    };
    return cmocka_run_group_tests(tests, begin, finish);
}
