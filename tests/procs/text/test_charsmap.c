/* test_charsmap.c - a map built by hand, and maps that are none. That real ones are applied as the
 * reference does is seen in test_tokenizer.c. */
#include "procs/text/charsmap.h"

#include <string.h>

#include "tests/check.h"

enum { UNITS = 8192 };

/* A double array in which the children of the k-th node that has any lie at 256 k ^ byte. */
struct builder {
    uint32_t unit[UNITS];
    uint32_t n_nodes;
    char texts[256];
    size_t n_texts;
};

static uint32_t child_base(struct builder *b, uint32_t node)
{
    uint32_t base = (b->unit[node] >> 10) ^ node;
    if (b->unit[node] >> 10 == 0) {
        base = 256 * ++b->n_nodes;
        b->unit[node] |= (base ^ node) << 10;
    }
    return base;
}

static void add(struct builder *b, const char *key, const char *text)
{
    uint32_t node = 0;
    for (; *key; key++) {
        const uint32_t at = child_base(b, node) ^ (uint8_t)*key;
        b->unit[at] |= (uint8_t)*key;
        node = at;
    }
    const uint32_t leaf = child_base(b, node);
    b->unit[node] |= 1u << 8;
    b->unit[leaf] = 0x80000000u | (uint32_t)b->n_texts;
    strcpy(b->texts + b->n_texts, text);
    b->n_texts += strlen(text) + 1;
}

static size_t pack(const struct builder *b, uint8_t *out)
{
    const uint32_t n = sizeof b->unit;
    memcpy(out, &n, 4);
    memcpy(out + 4, b->unit, n);
    memcpy(out + 4 + n, b->texts, b->n_texts);
    return 4 + n + b->n_texts;
}

static struct builder b;
static uint8_t blob[sizeof b + 512];

static void becomes(const struct charsmap *c, const char *text, const char *want)
{
    char out[64 * CHARSMAP_GROWTH_MAX] = "";
    const size_t n = charsmap_apply(c, text, strlen(text), out);
    out[n] = '\0';
    assert_string_equal(out, want);
}

static void test_map(void **state)
{
    (void)state;
    struct charsmap c;
    memset(&b, 0, sizeof b);
    add(&b, "A", "a");
    add(&b, "e\xCC\x81", "\xC3\xA9");
    add(&b, "\xE3\x81\x8B\xE3\x82\x99", "\xE3\x81\x8C"); /* ka and its voice mark: ga */
    add(&b, "\xEF\xAC\x81", "fi");
    add(&b, "\xE2\x80\x8B", "");
    assert_ok(charsmap_open(&c, "x", blob, pack(&b, blob)));
    becomes(&c, "", "");
    becomes(&c, "xAyAA", "xayaa");
    becomes(&c, "e e\xCC\x81.", "e \xC3\xA9.");
    becomes(&c, "\xEF\xAC\x81lm", "film");
    becomes(&c,
            "a\xE2\x80\x8B"
            "b",
            "ab");
    /* 6 bytes in one cluster: the reference goes character by character, and changes nothing. */
    becomes(&c, "\xE3\x81\x8B\xE3\x82\x99", "\xE3\x81\x8B\xE3\x82\x99");
    /* A cluster that only begins with a key is replaced as a whole, what follows the key with it.
     */
    becomes(&c, "A\xCC\x81", "a");
    becomes(&c, "\xE4\xB8\xAD\xF0\x9F\x98\x80", "\xE4\xB8\xAD\xF0\x9F\x98\x80");
}

static void test_none(void **state)
{
    (void)state;
    struct charsmap c;
    assert_ok(charsmap_open(&c, "x", NULL, 0));
    becomes(&c, "xA e\xCC\x81", "xA e\xCC\x81");
}

static void refused(const void *data, size_t n)
{
    struct charsmap c;
    assert_int_equal(charsmap_open(&c, "name", data, n), ERR_DATA);
    assert_non_null(strstr(err_text(), "name: character map"));
}

static void test_not_a_map(void **state)
{
    (void)state;
    uint8_t long_text[8 + CHARSMAP_GROWTH_MAX + 2] = {4};
    refused("\4\0\0", 3);
    refused("\4\0\0\0\0\0\0\0", 8);           /* no texts */
    refused("\4\0\0\0\0\0\0\0x", 9);          /* a text without its end */
    refused("\0\0\0\0\0", 5);                 /* no trie */
    refused("\3\0\0\0\0\0\0\0\0", 9);         /* not whole units */
    refused("\xFC\xFF\xFF\xFF\0\0\0\0\0", 9); /* beyond the end */
    memset(long_text + 8, 'x', CHARSMAP_GROWTH_MAX + 1);
    refused(long_text, sizeof long_text);
}

/* Any bytes for a trie: nothing outside it is read, and the room suffices. */
static void test_spoilt_maps(void **state)
{
    (void)state;
    static const char text[] =
        "Ae\xCC\x81 \xE3\x81\x8B\xE3\x82\x99 \xEF\xAC\x81lm \xF0\x9F\x98\x80";
    char out[sizeof text * CHARSMAP_GROWTH_MAX];
    uint64_t seed = 3;
    for (int i = 0; i < 2000; i++) {
        struct charsmap c;
        const size_t n = pack(&b, blob);
        for (int k = 0; k < 1 + i % 40; k++)
            blob[4 + check_next(&seed) % (sizeof b.unit / 4)] = (uint8_t)check_next(&seed);
        assert_ok(charsmap_open(&c, "x", blob, n));
        assert_true(charsmap_apply(&c, text, sizeof text - 1, out) <= sizeof out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_map),
        TEST(test_none),
        TEST(test_not_a_map),
        TEST(test_spoilt_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
