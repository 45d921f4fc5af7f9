/* test_pickle.c - the machine: opcodes that are read, that are not, and pickles that lie. */
#include "tests/check.h"

#include "tests/common/torchzip.h"

#include "common/checkpoint.h"

#define PICKLE(text) (text), sizeof(text) - 1

static void reads(const char *pickle, size_t n, const char *names)
{
    struct checkpoint *c = NULL;
    char got[512] = "";
    assert_ok(checkpoint_open(&c, torchzip_file("t.pt", pickle, n)));
    for (int32_t i = 0; i < checkpoint_count(c); i++) {
        strcat(got, checkpoint_at(c, i)->name);
        strcat(got, " ");
    }
    assert_string_equal(got, names);
    checkpoint_close(&c);
}

static void refused(const char *pickle, size_t n, const char *words)
{
    struct checkpoint *c = NULL;
    want_fails(checkpoint_open(&c, torchzip_file("t.pt", pickle, n)), ERR_DATA, words);
    assert_null(c);
}

static void test_opcodes_that_are_read(void **state)
{
    (void)state;
    reads(PICKLE("\x80\2}U\1a" PK_TENSOR "s."), "a ");
    reads(PICKLE("\x80\2}(X\1\0\0\0a" PK_TENSOR "U\1b" PK_TENSOR "u."), "a b ");
    reads(PICKLE("\x80\2](" PK_TENSOR "NK\3" PK_TENSOR "e."), "0 3 ");
    reads(PICKLE("\x80\2]" PK_TENSOR "a."), "0 ");
    reads(PICKLE("\x80\2" PK_TENSOR "."), "tensor ");
    reads(PICKLE("\x80\2}J\xff\xff\xff\xff" PK_TENSOR "sM\1\1" PK_TENSOR "s."), "-1 257 ");
    reads(PICKLE("\x80\2}\x8a\1\x80" PK_TENSOR "s\x8a\2\0\1" PK_TENSOR "s\x8a\0" PK_TENSOR "s."),
          "-128 256 0 ");
    /* Protocol 4: frames, short text, memoize, globals from the stack. */
    reads(
        PICKLE("\x80\4\x95\0\0\0\0\0\0\0\0}\x94\x8c\1q\x94\x8c\13collections\x94\x8c\13OrderedDict"
               "\x94\x93\x94)R\x94s."),
        "");
    /* The memo by number, short and long; the same tensor twice. */
    reads(PICKLE("\x80\2}q\7U\1a" PK_TENSOR "r\0\1\0\0sh\7U\1bj\0\1\0\0s0."), "a b ");
    /* Values that are passed over: floats, bytes, sets, long integers, truths. */
    reads(PICKLE("\x80\2}(G????????K\1C\1xK\2B\2\0\0\0xyK\3\x8f(K\1\x90K\4\x88K\5\x89\x8a\x9"
                 "123456789U\1a" PK_TENSOR "u."),
          "a ");
    reads(PICKLE("\x80\2}(K\1K\2"
                 "1U\1a" PK_TENSOR "s."),
          "a ");
    /* Attributes of a dictionary. */
    reads(PICKLE("\x80\2}U\1a" PK_TENSOR "s}U\t_metadata)sb."), "a ");
}

static void test_opcodes_that_are_not(void **state)
{
    (void)state;
    static const char no[] = "iloIFLSVPpgd2\x81\x82\x83\x84\x8b\x8d\x8e\x91\x92\x96\x97\x98\xff";
    char pickle[16] = "\x80\2}";
    for (size_t i = 0; i < sizeof no - 1; i++) {
        pickle[3] = no[i];
        refused(pickle, 12, "has opcode 0x");
    }
    refused(PICKLE("\x80\2cos\nsystem\n(U\4truetR."), "os.system");
    refused(PICKLE("\x80\2cbuiltins\neval\n(U\4truetR."), "builtins.eval");
    refused(PICKLE("\x80\2ctorch\nload\n(U\4truetR."), "torch.load");
    refused(PICKLE("\x80\2c\n\x1b[31m\n."), ".?[31m");
    refused(PICKLE("\x80\4\x8c\2os\x8c\6system\x93."), "os.system");
    refused(PICKLE("\x80\2c__builtin__\ngetattr\n."), "getattr");
}

static void test_ends_and_stacks(void **state)
{
    (void)state;
    refused(PICKLE(""), "ends too early");
    refused(PICKLE("\x80\2}"), "ends too early");
    refused(PICKLE("\x80\2."), "one value");
    refused(PICKLE("\x80\2}}."), "one value");
    refused(PICKLE("\x80\2(."), "one value");
    refused(PICKLE("\x80\2U\xffz."), "ends too early");
    refused(PICKLE("\x80\2X\xff\xff\xff\xffz."), "ends too early");
    refused(PICKLE("\x80\2ctorch"), "ends too early");
    refused(PICKLE("\x80\2ctorch\nFloat"), "ends too early");
    refused(PICKLE("\x80\2t."), "no mark");
    refused(PICKLE("\x80\2K\1\x86."), "stack is empty");
    refused(PICKLE("\x80\2}(K\1\x86."), "stack is empty");
    refused(PICKLE("\x80\2R."), "stack is empty");
    refused(PICKLE("\x80\2(R."), "stack is empty");
    refused(PICKLE("\x80\2"
                   "0."),
            "stack is empty");
    refused(PICKLE("\x80\2Q."), "stack is empty");
    refused(PICKLE("\x80\2b."), "stack is empty");
    refused(PICKLE("\x80\2s."), "stack is empty");
    refused(PICKLE("\x80\2K\1K\1s."), "stack is empty");
    refused(PICKLE("\x80\2K\1K\1K\1s."), "another kind");
    refused(PICKLE("\x80\2}(K\1u."), "without a value");
    refused(PICKLE("\x80\2]K\1K\1s."), "another kind");
    refused(PICKLE("\x80\2}K\1a."), "another kind");
    refused(PICKLE("\x80\2K\1K\1\x93."), "without a name");
    refused(PICKLE("\x80\2q\1."), "stack is empty");
    refused(PICKLE("\x80\2(q\1."), "stack is empty");
    refused(PICKLE("\x80\2h\1."), "no such entry");
    refused(PICKLE("\x80\2}q\3h\2."), "no such entry");
    refused(PICKLE("\x80\2}r\xff\xff\xff\xff."), "memo is too large");
    refused(PICKLE("\x80\2}j\xff\xff\xff\xff."), "no such entry");
}

/* Cycles, depth, and references that double a thousand times over. */
static void test_bombs(void **state)
{
    (void)state;
    static char pickle[1 << 14];
    size_t n = 0;
    refused(PICKLE("\x80\2]q\1h\1a."), "nested deeper");
    refused(PICKLE("\x80\2}q\1U\1ah\1s."), "nested deeper");
    refused(PICKLE("\x80\2}q\1U\1a}q\2U\1bh\1ss."), "nested deeper");

    for (int depth = 16; depth <= 17; depth++) {
        n = 0;
        for (int i = 0; i < depth; i++) pickle[n++] = ']';
        for (int i = 1; i < depth; i++) pickle[n++] = 'a';
        pickle[n++] = '.';
        if (depth == 16) reads(pickle, n, "");
        else refused(pickle, n, "nested deeper");
    }
}

/* Each list holds the one before it 64 times: 64^15 visits, but for the bound. */
static void test_doubling(void **state)
{
    (void)state;
    static char pickle[1 << 14];
    size_t n = 0;
    memcpy(pickle, "]q\0000", 4);
    n = 4;
    for (char i = 1; i < 15; i++) {
        memcpy(pickle + n, "](", 2);
        n += 2;
        for (int k = 0; k < 64; k++) {
            pickle[n++] = 'h';
            pickle[n++] = (char)(i - 1);
        }
        pickle[n++] = 'e';
        pickle[n++] = 'q';
        pickle[n++] = i;
        if (i < 14) pickle[n++] = '0';
    }
    pickle[n++] = '.';
    refused(pickle, n, "too often");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_opcodes_that_are_read),
        TEST(test_opcodes_that_are_not),
        TEST(test_ends_and_stacks),
        TEST(test_bombs),
        TEST(test_doubling),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
