/* test_tokenizer.c - a token a byte, EOS last, cut before the end. */
#include "procs/text/tokenizer.h"

#include <string.h>

#include "tests/check.h"

static void test_a_token_a_byte_then_eos(void **state)
{
    (void)state;
    int32_t ids[8], n_full = 0;
    assert_int_equal(tokenizer_bytes("aZ\xff", 256384, 8, ids, &n_full), 4);
    assert_int_equal(n_full, 4);
    assert_int_equal(ids[0], 2 + 'a');
    assert_int_equal(ids[1], 2 + 'Z');
    assert_int_equal(ids[2], 2 + 255);
    assert_int_equal(ids[3], TOKEN_EOS);
}

static void test_every_length_against_the_limit(void **state)
{
    (void)state;
    char text[40];
    for (int32_t n_max = 1; n_max <= 20; n_max++)
        for (int32_t n_text = 0; n_text < 39; n_text++) {
            int32_t ids[21], n_full = 0;
            memset(text, 'x', sizeof text);
            text[n_text] = '\0';
            for (int32_t i = 0; i < 21; i++) ids[i] = -7;
            const int32_t want = n_text + 1 < n_max ? n_text + 1 : n_max;
            assert_int_equal(tokenizer_bytes(text, 128, n_max, ids, &n_full), want);
            assert_int_equal(n_full, n_text + 1);
            for (int32_t i = 0; i < want - 1; i++) assert_int_equal(ids[i], 2 + 'x' % 126);
            assert_int_equal(ids[want - 1], TOKEN_EOS);
            for (int32_t i = want; i < 21; i++) assert_int_equal(ids[i], -7);
        }
}

/* Neither padding nor EOS nor anything outside a vocabulary of any size. */
static void test_ids_lie_in_the_vocabulary(void **state)
{
    (void)state;
    char text[256];
    int32_t ids[256], n_full = 0;
    for (int32_t i = 0; i < 255; i++) text[i] = (char)(i + 1);
    text[255] = '\0';
    for (int32_t vocab = 4; vocab <= 300; vocab++) {
        assert_int_equal(tokenizer_bytes(text, vocab, 256, ids, &n_full), 256);
        for (int32_t i = 0; i < 255; i++) assert_true(ids[i] > TOKEN_EOS && ids[i] < vocab);
    }
}

static void no_room(void)
{
    int32_t id, n_full;
    tokenizer_bytes("a", 128, 0, &id, &n_full);
}

static void no_vocabulary(void)
{
    int32_t ids[4], n_full;
    tokenizer_bytes("a", 3, 4, ids, &n_full);
}

static void test_broken_promises_abort(void **state)
{
    (void)state;
    check_aborts(no_room);
    check_aborts(no_vocabulary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_token_a_byte_then_eos),
        TEST(test_every_length_against_the_limit),
        TEST(test_ids_lie_in_the_vocabulary),
        TEST(test_broken_promises_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
