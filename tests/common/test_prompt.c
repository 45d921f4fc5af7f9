/* test_prompt.c - what a prompt may be, what is left of it, and when two have one key. */
#include "common/prompt.h"

#include "tests/scratch.h"

static err_t clean(const char *text, char out[PROMPT_BYTES_MAX + 1])
{
    return prompt_clean(text, strlen(text), out, PROMPT_BYTES_MAX + 1);
}

static void test_white_space_runs_become_one_blank(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"a cat", "a cat"},
        {"  a \t\r\n\v\f cat  ", "a cat"},
        {"a\302\240c", "a c"}, /* U+00A0 */
        {"a\u1680b", "a b"},
        {"a\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200Ab", "a b"},
        {"a\u2028\u2029\u202Fb", "a b"},
        {"a\u205Fb\u3000", "a b"},
        {"a\u200Bb", "a\u200Bb"}, /* not white space */
        {"a\033b", "ab"},         /* the rest of cleaning is test_clean's */
        {"\U0001F534  ball", "\U0001F534 ball"},
        {"\U0010FFFF", "\U0010FFFF"},
        {"\uD7FF\uE000", "\uD7FF\uE000"}, /* around the surrogates */
    };
    char out[PROMPT_BYTES_MAX + 1], again[PROMPT_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        want_ok(clean(cases[i][0], out));
        assert_string_equal(out, cases[i][1]);
        want_ok(clean(out, again));
        assert_string_equal(again, out);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "prompt is empty"},
        {" \t\xE3\x80\x80", "prompt is empty"},
        {"a\x80", "prompt is not UTF-8 at byte 2"}, /* stray */
        {"a\xC3", "prompt is not UTF-8 at byte 2"}, /* cut short */
        {"a\xE2\x82", "prompt is not UTF-8 at byte 2"},
        {"\xC3(", "prompt is not UTF-8 at byte 1"},
        {"\xC0\x80", "prompt is not UTF-8 at byte 1"}, /* overlong */
        {"\xC1\xBF", "prompt is not UTF-8 at byte 1"},
        {"\xE0\x9F\xBF", "prompt is not UTF-8 at byte 1"},
        {"\xF0\x8F\xBF\xBF", "prompt is not UTF-8 at byte 1"},
        {"ab\xED\xA0\x80", "prompt is not UTF-8 at byte 3"}, /* surrogates */
        {"ab\xED\xBF\xBF", "prompt is not UTF-8 at byte 3"},
        {"\xF4\x90\x80\x80", "prompt is not UTF-8 at byte 1"}, /* over U+10FFFF */
        {"\xF8\x88\x80\x80\x80", "prompt is not UTF-8 at byte 1"},
        {"\xFF", "prompt is not UTF-8 at byte 1"},
    };
    char out[PROMPT_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        want_fails(clean(bad[i][0], out), ERR_DATA, bad[i][1]);
    want_fails(prompt_clean("a\0b", 3, out, sizeof out), ERR_DATA, "prompt has NUL at byte 2");
}

static void test_the_longest(void **state)
{
    (void)state;
    static char text[PROMPT_BYTES_MAX + 2], out[PROMPT_BYTES_MAX + 1];
    memset(text, 'x', sizeof text);
    want_ok(prompt_clean(text, PROMPT_BYTES_MAX, out, sizeof out));
    assert_int_equal(strlen(out), PROMPT_BYTES_MAX);
    want_fails(prompt_clean(text, PROMPT_BYTES_MAX + 1, out, sizeof out), ERR_DATA,
               "prompt of 16385 bytes: at most 16384");
}

/* Every code point: encoded by the book, taken if and only if it is a scalar value. */
static void test_every_code_point(void **state)
{
    (void)state;
    char out[PROMPT_BYTES_MAX + 1];
    for (uint32_t cp = 1; cp < 0x120000; cp++) {
        char s[4];
        size_t n = 0;
        if (cp < 0x80) {
            s[n++] = (char)cp;
        } else {
            const int more = cp < 0x800 ? 1 : cp < 0x10000 ? 2 : 3;
            s[n++] = (char)((0xFF00u >> (more + 1)) | cp >> (6 * more));
            for (int i = more - 1; i >= 0; i--) s[n++] = (char)(0x80 | (cp >> (6 * i) & 0x3F));
        }
        const bool is_scalar = cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF);
        const err_t e = prompt_clean(s, n, out, sizeof out);
        const bool is_plain = (cp > ' ' && cp < 0x7F) || (cp >= 0x4E00 && cp <= 0x9FFF);
        if (is_plain) assert_true(e == OK && strlen(out) == n && memcmp(s, out, n) == 0);
        if (e == OK) assert_true(is_scalar && prompt_check(out, strlen(out)) == OK);
        else if (is_scalar) assert_string_equal(err_text(), "prompt is empty");
        else assert_string_equal(err_text(), "prompt is not UTF-8 at byte 1");
    }
}

static bool same(const uint8_t a[32], const uint8_t b[32])
{
    return memcmp(a, b, 32) == 0;
}

/* What changes the weights of a stage, key by key. */
static void test_identity_depends_on_what_shapes_the_weights(void **state)
{
    (void)state;
    static const char *const stages[] = {"text", "dit", "vae"};
    static const struct {
        const char *set, *stages; /* the stages whose weights are others then */
    } cases[] = {
        {"model.weights=random:1", "text dit vae"},
        {"model.parity=clean", "text dit vae"},
        {"model.latent_channels=8", "dit vae"},
        {"model.latent_rows=30", ""},
        {"text.vocab=1000", "text"},
        {"text.dim=64", "text dit"},
        {"text.heads=8", "text"},
        {"text.head_dim=8", "text"},
        {"text.ffn_dim=64", "text"},
        {"text.layers=2", "text"},
        {"text.text_len=64", ""},
        {"dit.dim=768", "dit"},
        {"dit.heads=6", ""},
        {"dit.ffn_dim=64", "dit"},
        {"dit.layers=2", "dit"},
        {"dit.freq_dim=64", "dit"},
        {"dit.window=20", ""},
        {"dit.steps=1000", ""},
        {"vae.base_dim=32", "vae"},
        {"place.dit=cuda:0", ""},
        {"run.seed=7", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int s = 0; s < 3; s++) {
            struct conf a, b;
            uint8_t ida[32], idb[32];
            conf_default(&a);
            conf_default(&b);
            want_ok(conf_set(&b, cases[i].set));
            weights_identity(&a, stages[s], ida);
            weights_identity(&b, stages[s], idb);
            if (same(ida, idb) != !strstr(cases[i].stages, stages[s]))
                fail_msg("%s and %s", cases[i].set, stages[s]);
        }
    struct conf c;
    uint8_t id[3][32];
    conf_default(&c);
    for (int s = 0; s < 3; s++) weights_identity(&c, stages[s], id[s]);
    assert_false(same(id[0], id[1]) || same(id[1], id[2]) || same(id[0], id[2]));

    /* The same numbers in the same places are still another stage's. */
    static const char *const alike[] = {
        "text.vocab=16",  "text.dim=16", "text.heads=16",  "text.head_dim=16", "text.ffn_dim=16",
        "text.layers=16", "dit.dim=16",  "dit.ffn_dim=16", "dit.layers=16",    "dit.freq_dim=16"};
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) want_ok(conf_set(&c, alike[i]));
    weights_identity(&c, "text", id[0]);
    weights_identity(&c, "dit", id[1]);
    assert_false(same(id[0], id[1]));
}

static void test_key_depends_on_what_shapes_the_embedding(void **state)
{
    (void)state;
    static const char *const other[] = {"text.text_len=64", "text.layers=2", "text.tokenizer=spm",
                                        "model.weights=random:1", "model.parity=clean"};
    static const char *const equal[] = {"dit.dim=768", "vae.base_dim=32", "run.seed=7"};
    struct conf c;
    uint8_t key[32], again[32];
    conf_default(&c);
    prompt_key(&c, "a cat", 0, key);
    prompt_key(&c, "a cat", 1, again);
    assert_true(same(key, again));
    prompt_key(&c, "a cat.", 0, again);
    assert_false(same(key, again));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        struct conf d = c;
        want_ok(conf_set(&d, other[i]));
        prompt_key(&d, "a cat", 0, again);
        assert_false(same(key, again));
    }
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++) {
        struct conf d = c;
        want_ok(conf_set(&d, equal[i]));
        prompt_key(&d, "a cat", 0, again);
        assert_true(same(key, again));
    }
}

/* Then no two prompts of a pipeline have one key. */
static void test_key_without_reuse(void **state)
{
    (void)state;
    struct conf c;
    uint8_t key[32], again[32];
    conf_default(&c);
    want_ok(conf_set(&c, "cache.reuse=false"));
    prompt_key(&c, "a cat", 0, key);
    prompt_key(&c, "a cat", 0, again);
    assert_true(same(key, again));
    prompt_key(&c, "a cat", 1, again);
    assert_false(same(key, again));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_white_space_runs_become_one_blank),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_the_longest),
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_identity_depends_on_what_shapes_the_weights),
        cmocka_unit_test(test_key_depends_on_what_shapes_the_embedding),
        cmocka_unit_test(test_key_without_reuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
