/* test_spm.c - what is read of a model file, and that no file brings the program down. */
#include "procs/text/spm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "tests/check.h"
#include "tests/procs/text/model.h"

static struct model m;

static void refused(const void *data, size_t n, const char *words)
{
    struct spm *s = NULL;
    const err_t e = spm_open(&s, "x.model", data, n);
    assert_int_equal(e, ERR_DATA);
    assert_null(s);
    if (!strstr(err_text(), words) || strncmp(err_text(), "x.model: ", 9) != 0)
        fail_msg("%s is not in %s", words, err_text());
    assert_null(strchr(err_text(), '\n'));
}

static void test_pieces(void **state)
{
    (void)state;
    struct spm *s = NULL;
    size_t n = 7;
    float score = 0;
    model_begin(&m);
    model_piece(&m, "\xE2\x96\x81h\xC3\xA9", -3.25f, NORMAL);
    model_trainer(&m, 1, 0);
    assert_ok(spm_open(&s, "x.model", m.data, m.n));
    assert_int_equal(spm_count(s), 5);
    assert_int_equal(spm_unk(s), 3);
    assert_false(spm_has_bytes(s));
    assert_string_equal(spm_piece(s, 4, &n, &score), "\xE2\x96\x81h\xC3\xA9");
    assert_int_equal(n, 6);
    assert_true(score == -3.25f);
    assert_string_equal(spm_piece(s, 0, &n, &score), "<pad>");
    (void)spm_charsmap(s, &n);
    assert_int_equal(n, 0);
    spm_close(&s);
    assert_null(s);
    spm_close(&s);
}

static void test_map_and_bytes(void **state)
{
    (void)state;
    struct spm *s = NULL;
    struct model spec = {.n = 0};
    size_t n = 0;
    char piece[8];
    static const uint8_t map[] = {4, 0, 0, 0, 0, 0, 0, 0, 0};
    model_begin(&m);
    for (int b = 0; b < 256; b++) {
        snprintf(piece, sizeof piece, "<0x%02X>", b);
        model_piece(&m, piece, 0, BYTE);
    }
    model_piece(&m, "a", -1, NORMAL);
    model_trainer(&m, 1, 1);
    model_bytes(&spec, 2, "first", 5); /* the last one counts */
    model_bytes(&spec, 2, map, sizeof map);
    model_bytes(&m, 3, spec.data, spec.n);
    assert_ok(spm_open(&s, "x.model", m.data, m.n));
    assert_true(spm_has_bytes(s));
    const uint8_t *got = spm_charsmap(s, &n);
    assert_int_equal(n, sizeof map);
    assert_memory_equal(got, map, sizeof map);
    spm_close(&s);
}

static void test_not_a_model(void **state)
{
    (void)state;
    refused("", 0, "");
    refused("hello, I am a text", 18, "not a sentencepiece model");
    model_begin(&m);
    model_piece(&m, "a", -1, NORMAL);
    model_trainer(&m, 2, 0);
    refused(m.data, m.n, "unigram");
    m.n = 0;
    model_piece(&m, "a", -1, NORMAL);
    model_trainer(&m, 1, 0);
    refused(m.data, m.n, "");
    /* A piece twice; a length beyond the end. */
    model_begin(&m);
    model_piece(&m, "a", -1, NORMAL);
    model_piece(&m, "a", -1, NORMAL);
    refused(m.data, m.n, "");
    model_begin(&m);
    model_varint(&m, 1 << 3 | 2);
    model_varint(&m, UINT64_C(1) << 62);
    refused(m.data, m.n, "");
}

/* Cut anywhere, and with any byte changed: opened or refused in one line. */
static void test_spoilt_files(void **state)
{
    (void)state;
    char *data = NULL;
    size_t n = 0;
    uint64_t seed = 1;
    int32_t n_refused = 0;
    assert_ok(file_read("tests/golden/tokenizer/plain/spiece.model", 1 << 20, &data, &n));
    for (int i = 0; i < 400; i++) {
        struct spm *s = NULL;
        uint8_t *copy = malloc(n);
        memcpy(copy, data, n);
        const bool is_cut = i % 2 == 0;
        const size_t at = check_next(&seed) % n;
        copy[at] = (uint8_t)check_next(&seed);
        const err_t e = spm_open(&s, "x.model", copy, is_cut ? at : n);
        free(copy);
        assert_true(e == OK || e == ERR_DATA);
        n_refused += e != OK;
        spm_close(&s);
    }
    assert_true(n_refused > 100);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pieces),
        TEST(test_map_and_bytes),
        TEST(test_not_a_model),
        TEST(test_spoilt_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
