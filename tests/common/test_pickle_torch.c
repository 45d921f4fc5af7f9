/* test_pickle_torch.c - the names that a pickle may call, with arguments that lie. */
#include "tests/check.h"

#include "tests/common/torchzip.h"

#include "common/checkpoint.h"

#define PICKLE(text) (text), sizeof(text) - 1

/* A tensor over storage "0" of 6 floats: first element, shape, strides. */
#define TENSOR_OF(first, shape, stride)                                                            \
    "ctorch._utils\n_rebuild_tensor_v2\n(" PK_STORAGE first shape stride "\x89"                    \
    "NtR."

static void refused(const char *pickle, size_t n, const char *words)
{
    struct checkpoint *c = NULL;
    want_fails(checkpoint_open(&c, torchzip_file("t.pt", pickle, n)), ERR_DATA, words);
    assert_null(c);
}

static void reads(const char *pickle, size_t n, const char *shape, enum ckpt_dtype dtype,
                  bool is_dense, float first)
{
    struct checkpoint *c = NULL;
    char text[CKPT_RANK_MAX * 24];
    float x;
    assert_ok(checkpoint_open(&c, torchzip_file("t.pt", pickle, n)));
    assert_int_equal(checkpoint_count(c), 1);
    const struct ckpt_tensor *t = checkpoint_at(c, 0);
    ckpt_shape_text(t->shape, t->rank, text, sizeof text);
    assert_string_equal(text, shape);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->is_dense, is_dense);
    if (is_dense && dtype == CKPT_F32 && ckpt_count(t)) {
        assert_ok(checkpoint_read(c, t, 0, 1, &x));
        assert_true(x == first);
    }
    checkpoint_close(&c);
}

static void test_tensors(void **state)
{
    (void)state;
    reads(PICKLE(TENSOR_OF("K\0", "K\2K\3\x86", "K\3K\1\x86")), "[2, 3]", CKPT_F32, true, 1);
    reads(PICKLE(TENSOR_OF("K\2", "K\4\x85", "K\1\x85")), "[4]", CKPT_F32, true, 3);
    reads(PICKLE(TENSOR_OF("K\5", ")", ")")), "[]", CKPT_F32, true, 6);
    reads(PICKLE(TENSOR_OF("K\0", "K\3K\2\x86", "K\1K\3\x86")), "[3, 2]", CKPT_F32, false, 0);
    reads(PICKLE(TENSOR_OF("K\0", "K\1K\6\x86", "K\x63K\1\x86")), "[1, 6]", CKPT_F32, true, 1);
    reads(PICKLE(TENSOR_OF("K\6", "K\0\x85", "K\1\x85")), "[0]", CKPT_F32, true, 0);
    reads(PICKLE(TENSOR_OF("K\0", "M\0\1\x85", "K\0\x85")), "[256]", CKPT_F32, false,
          0); /* expanded */
    reads(PICKLE("ctorch._utils\n_rebuild_parameter\n(" PK_TENSOR "\x88NtR."), "[2, 3]", CKPT_F32,
          true, 1);
    reads(PICKLE("ctorch._utils\n_rebuild_parameter_with_state\n(" PK_TENSOR "\x88N}tR."), "[2, 3]",
          CKPT_F32, true, 1);
    reads(PICKLE("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n"
                 "ctorch.nn.parameter\nParameter\n(" PK_STORAGE "K\1K\2\x85K\1\x85\x89NtNtR."),
          "[2]", CKPT_F32, true, 2);
    /* A storage of bytes, and the dtype beside it. */
    reads(PICKLE("ctorch._utils\n_rebuild_tensor_v3\n((U\7storagectorch.storage\nUntypedStorage\n"
                 "U\0010U\3cpuK\x18tQK\0K\3\x85K\1\x85\x89Nctorch\nuint64\ntR."),
          "[3]", CKPT_U64, true, 0);
    reads(PICKLE("ccollections\nOrderedDict\n(](U\1a" PK_TENSOR "\x86"
                 "etR."),
          "[2, 3]", CKPT_F32, true, 1);
}

static void test_places(void **state)
{
    (void)state;
    refused(PICKLE(TENSOR_OF("K\0", "K\7\x85", "K\1\x85")), "outside its storage");
    refused(PICKLE(TENSOR_OF("K\1", "K\6\x85", "K\1\x85")), "outside its storage");
    refused(PICKLE(TENSOR_OF("K\7", "K\0\x85", "K\1\x85")), "outside its storage");
    refused(PICKLE(TENSOR_OF("J\xff\xff\xff\xff", "K\1\x85", "K\1\x85")), "outside its storage");
    refused(PICKLE(TENSOR_OF("K\0", "K\2K\2\x86", "K\5K\1\x86")), "outside its storage");
    refused(PICKLE(TENSOR_OF("K\0", "K\2\x85", "J\xff\xff\xff\xff\x85")), "outside its storage");
    refused(PICKLE(TENSOR_OF("K\0", "K\2\x85", "\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7f\x85")),
            "outside its storage");
    refused(PICKLE(TENSOR_OF("K\0", "K\3K\3\x86",
                             "\x8a\x8\0\0\0\0\0\0\0\x40\x8a\x8\0\0\0\0\0\0\0\x40\x86")),
            "outside its storage");
    refused(PICKLE(TENSOR_OF("K\0", "J\0\0\0\x7fJ\0\0\0\x7f\x86", "K\0K\0\x86")), "overflows");
    refused(PICKLE(TENSOR_OF("K\0", "J\xff\xff\xff\xff\x85", "K\1\x85")), "overflows");
    refused(PICKLE(TENSOR_OF("K\0", "K\2K\2\x86", "K\1\x85")), "strides differ");
    refused(PICKLE(TENSOR_OF("K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "K\1\x85")), "9 dimensions");
    refused(PICKLE(TENSOR_OF("K\0", "NK\1\x86", "K\1K\1\x86")), "not of integers");
    refused(PICKLE(TENSOR_OF("K\0", "K\1", "K\1")), "not a tuple");
}

static void test_calls(void **state)
{
    (void)state;
    refused(PICKLE("K\1)R."), "no function");
    refused(PICKLE("ctorch\nSize\nK\1R."), "no function");
    refused(PICKLE("ctorch\nFloatStorage\n)R."), "torch.FloatStorage is called");
    refused(PICKLE("ctorch\nfloat32\n)R."), "torch.float32 is called");
    refused(PICKLE("ctorch\nSize\n)R."), "not a tuple");
    refused(PICKLE("ctorch._utils\n_rebuild_tensor_v2\n)R."), "a tensor's arguments");
    refused(PICKLE("ctorch._utils\n_rebuild_tensor_v2\n(K\1K\0))tR."), "a tensor's arguments");
    refused(PICKLE("ctorch._utils\n_rebuild_tensor_v2\n(" PK_STORAGE "N))tR."), "arguments");
    refused(PICKLE("ctorch._utils\n_rebuild_tensor_v3\n(" PK_STORAGE "K\0))\x89NK\1tR."), "dtype");
    refused(PICKLE("ctorch._utils\n_rebuild_parameter\n(K\1\x88NtR."), "a parameter of no tensor");
    refused(PICKLE("ccollections\nOrderedDict\n(K\1tR."), "dictionary's arguments");
    refused(PICKLE("ccollections\nOrderedDict\n(](K\1etR."), "dictionary's arguments");
    /* A function that would call itself. */
    refused(PICKLE("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\n"
                   "NN}tR."),
            "no function");
    refused(PICKLE("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\n"
                   "N)}tR."),
            "is called");
    refused(PICKLE("ctorch._tensor\n_rebuild_from_type_v2\n)R."), "arguments");
}

static void test_storages(void **state)
{
    (void)state;
#define ID(type, key, count) "(U\7storage" type key "U\3cpu" count "tQ."
    refused(PICKLE("K\1Q."), "not of a storage");
    refused(PICKLE(")Q."), "not of a storage");
    refused(PICKLE(ID("K\1", "U\0010", "K\6")), "not of a storage");
    refused(PICKLE(ID("ctorch\nFloatStorage\n", "K\1", "K\6")), "not of a storage");
    refused(PICKLE(ID("ctorch\nFloatStorage\n", "U\0010", "N")), "not of a storage");
    refused(PICKLE(ID("ctorch\nFloatStorage\n", "U\0010", "J\xff\xff\xff\xff")),
            "not of a storage");
    refused(PICKLE(ID("ctorch\nSize\n", "U\0010", "K\6")), "torch.Size is no storage");
    refused(PICKLE(ID("ctorch\nFloatStorage\n", "U\0011", "K\6")), "not in the zip");
    refused(PICKLE(ID("ctorch\nFloatStorage\n", "U\7../data", "K\6")), "not in the zip");
    refused(PICKLE(ID("ctorch\nFloatStorage\n", "U\0010", "K\5")), "5 elements has 24 bytes");
    refused(PICKLE(ID("ctorch\nFloatStorage\n", "U\0010", "\x8a\x8\6\0\0\0\0\0\0\x40")),
            "elements");
}

static void test_names(void **state)
{
    (void)state;
    static char pickle[1024];
    size_t n = 0;
    /* A key longer than a name may be, on every level. */
    for (int level = 0; level < 3; level++) {
        memcpy(pickle + n, "}U\xff", 3);
        memset(pickle + n + 3, 'k', 255);
        n += 3 + 255;
    }
    memcpy(pickle + n, PK_TENSOR "sss.", sizeof PK_TENSOR + 3);
    n += sizeof PK_TENSOR + 3;
    refused(pickle, n, "a tensor's name of 2");
    refused(PICKLE("}U\1\n" PK_TENSOR "s."), "byte 0x0a");
    refused(PICKLE("}(U\1a" PK_TENSOR "U\1a" PK_TENSOR "u."), "tensor a is there twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tensors),  TEST(test_places), TEST(test_calls),
        TEST(test_storages), TEST(test_names),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
