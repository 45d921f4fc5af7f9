/* test_source.c - from keys of [model] to files and what they are. */
#include "tests/check.h"

#include <limits.h>
#include <sys/stat.h>

#include "tests/scratch.h"

#include "common/prompt.h"
#include "common/source.h"

static void set(struct conf *c, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    want_ok(conf_set(c, text));
}

static void link_golden(const char *from, const char *to)
{
    char source[PATH_MAX], target[PATH_MAX + 64];
    assert_non_null(realpath("tests/golden/checkpoints/torch-2.1", source));
    snprintf(target, sizeof target, "%s/%s", source, from);
    assert_int_equal(symlink(target, scratch_path(to)), 0);
}

static void link_tokenizer(void)
{
    char real[PATH_MAX];
    assert_non_null(realpath("tests/golden/tokenizer/plain", real));
    assert_int_equal(mkdir(scratch_path("google"), 0700), 0);
    assert_int_equal(symlink(real, scratch_path("google/umt5-xxl")), 0);
}

static void clear(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s/*", scratch_dir);
    assert_int_equal(system(command), 0);
}

static void check_is(const char *key, const char *name)
{
    char want[PATH_MAX], real[PATH_MAX];
    snprintf(want, sizeof want, "tests/golden/checkpoints/torch-2.1/%s", name);
    assert_non_null(realpath(want, real));
    assert_string_equal(key, real);
}

static void test_random_weights_need_no_file(void **state)
{
    (void)state;
    struct conf a, b;
    conf_default(&a);
    conf_default(&b);
    want_ok(source_resolve(&a));
    memset(b.text.tokenizer, 0, sizeof b.text.tokenizer);
    strcpy(b.text.tokenizer, "bytes");
    assert_memory_equal(&a, &b, sizeof a);
    want_ok(source_check_tokenizer(&a));
    assert_string_equal(source_path(&a, "dit"), "");
}

static void test_folders(void **state)
{
    (void)state;
    struct conf c, again;
    clear();
    conf_default(&c);
    set(&c, "model.wan=%s", scratch_dir);
    want_fails(source_resolve(&c), ERR_NOINPUT, "models_t5_umt5-xxl-enc-bf16.pth: No such file");
    link_golden("model.pt", "models_t5_umt5-xxl-enc-bf16.pth");
    link_golden("parameters.pt", "Wan2.1_VAE.pth");
    link_golden("dump.pt", "diffusion_pytorch_model.safetensors"); /* content, not the name */
    conf_default(&c);
    set(&c, "model.wan=%s", scratch_dir);
    want_fails(source_resolve(&c), ERR_NOINPUT, "google/umt5-xxl: No such file");
    link_tokenizer();
    conf_default(&c);
    set(&c, "model.wan=%s", scratch_dir);
    want_ok(source_resolve(&c));
    check_is(c.model.text, "model.pt");
    assert_non_null(strstr(c.text.tokenizer, "/tests/golden/tokenizer/plain"));
    assert_int_equal(strlen(c.text.tokenizer_id), 64);
    check_is(c.model.vae, "parameters.pt");
    check_is(c.model.dit, "dump.pt");
    assert_string_equal(c.model.lora, "");
    assert_string_equal(c.model.wan, "");
    assert_int_equal(strlen(c.model.dit_id), 64);
    again = c;
    want_ok(source_resolve(&again));
    assert_memory_equal(&c, &again, sizeof c);

    /* LongLive's folder gives the DiT and the LoRA; a named file wins. */
    assert_int_equal(mkdir(scratch_path("models"), 0700), 0);
    link_golden("model.pt", "models/longlive_base.pt");
    link_golden("lora.pt", "models/lora.pt");
    conf_default(&c);
    set(&c, "model.wan=%s", scratch_dir);
    set(&c, "model.longlive=%s", scratch_dir);
    set(&c, "model.vae=tests/golden/checkpoints/torch-2.1/flat.pth");
    want_ok(source_resolve(&c));
    check_is(c.model.dit, "model.pt");
    check_is(c.model.lora, "lora.pt");
    check_is(c.model.vae, "flat.pth");
    check_is(source_path(&c, "text"), "model.pt");
    clear();
    link_golden("model.pt", "longlive_base.pt");
    link_golden("lora.pt", "lora.pt");
    conf_default(&c);
    set(&c, "model.longlive=%s", scratch_dir);
    want_ok(source_resolve(&c));
    check_is(c.model.dit, "model.pt");
    assert_string_equal(c.model.text, "");
    clear();
}

static void test_refusals(void **state)
{
    (void)state;
    struct conf c;
    conf_default(&c);
    set(&c, "model.dit=/nowhere/x.pt");
    want_fails(source_resolve(&c), ERR_NOINPUT, "model.dit: /nowhere/x.pt: No such file");
    conf_default(&c);
    set(&c, "model.lora=tests/golden/checkpoints/torch-2.1/lora.pt");
    want_fails(source_resolve(&c), ERR_CONFIG, "without model.dit");
    conf_default(&c);
    set(&c, "model.dit=tests/golden/checkpoints/torch-2.1/model.pt");
    set(&c, "model.lora=tests/golden/checkpoints/torch-2.1/model.pt");
    want_fails(source_resolve(&c), ERR_DATA, "is no LoRA matrix");
    conf_default(&c);
    set(&c, "model.text=%s", scratch_put("text.pt", "no tensors here"));
    want_fails(source_resolve(&c), ERR_DATA, "text.pt: neither");
    const char *odd = scratch_put("a;b", "x");
    conf_default(&c);
    symlink(odd, scratch_path("odd"));
    set(&c, "model.text=%s", scratch_path("odd"));
    want_fails(source_resolve(&c), ERR_CONFIG, "model.text: a path with ;");
    clear();
}

/* What opens is what was there when the run began. */
static void test_identity(void **state)
{
    (void)state;
    struct conf c, other;
    struct checkpoint *ckpt = NULL;
    struct lora *lora = NULL;
    uint8_t a[32], b[32];
    char command[200];
    clear();
    snprintf(command, sizeof command, "cp tests/golden/checkpoints/torch-2.1/model.pt %s/m.pt",
             scratch_dir);
    assert_int_equal(system(command), 0);
    conf_default(&c);
    set(&c, "model.dit=%s", scratch_path("m.pt"));
    want_ok(source_resolve(&c));
    want_ok(source_open(&c, "dit", &ckpt, &lora));
    assert_null(lora);
    assert_non_null(checkpoint_find(ckpt, "blocks.0.q.weight"));
    checkpoint_close(&ckpt);

    /* Another alpha is another identity; the place is none. */
    conf_default(&other);
    set(&other, "model.dit=%s", scratch_path("m.pt"));
    set(&other, "model.lora=tests/golden/checkpoints/torch-2.1/lora.pt");
    want_ok(source_resolve(&other));
    assert_string_not_equal(c.model.dit_id, other.model.dit_id);
    want_ok(source_open(&other, "dit", &ckpt, &lora));
    assert_int_equal(lora_count(lora), 2);
    checkpoint_close(&ckpt);
    lora_close(&lora);
    weights_identity(&c, "dit", a);
    weights_identity(&other, "dit", b);
    assert_memory_not_equal(a, b, sizeof a);
    weights_identity(&c, "text", a);
    weights_identity(&other, "text", b);
    assert_memory_equal(a, b, sizeof a);
    other = c;
    snprintf(other.model.dit, sizeof other.model.dit, "/elsewhere");
    weights_identity(&c, "dit", a);
    weights_identity(&other, "dit", b);
    assert_memory_equal(a, b, sizeof a);

    snprintf(command, sizeof command, "touch -d '2001-01-01' %s/m.pt", scratch_dir);
    assert_int_equal(system(command), 0);
    want_fails(source_open(&c, "dit", &ckpt, &lora), ERR_DATA, "not what it was");
    assert_null(ckpt);
    unlink(scratch_path("m.pt"));
    other = c;
    want_ok(source_resolve(&other)); /* of a run that goes on without its file */
    assert_memory_equal(&c, &other, sizeof c);
    want_fails(source_open(&c, "dit", &ckpt, &lora), ERR_NOINPUT, "m.pt");
    clear();
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(scratch_path(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void tokenizer_of(struct conf *c, const char *path)
{
    conf_default(c);
    set(c, "text.tokenizer=%s", path);
    want_ok(source_resolve(c));
}

/* Its identity is that of every file it reads, wherever they are; another one is another key. */
static void test_tokenizer(void **state)
{
    (void)state;
    struct conf a, b;
    uint8_t key_a[PROMPT_KEY_BYTES], key_b[PROMPT_KEY_BYTES];
    clear();
    put("spiece.model", "x");
    tokenizer_of(&a, scratch_dir);
    want_ok(source_check_tokenizer(&a));
    tokenizer_of(&b, scratch_path("spiece.model"));
    assert_string_equal(a.text.tokenizer_id, b.text.tokenizer_id);
    prompt_key(&a, "p", 0, key_a);
    prompt_key(&b, "p", 0, key_b);
    assert_memory_equal(key_a, key_b, sizeof key_a);
    b = a;
    want_ok(source_resolve(&b));
    assert_memory_equal(&a, &b, sizeof a);

    const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "spiece.model"};
    for (size_t i = 0; i < COUNT(names); i++) {
        put(names[i], "y");
        want_fails(source_check_tokenizer(&a), ERR_DATA, "is not what it was");
        tokenizer_of(&b, scratch_dir);
        prompt_key(&a, "p", 0, key_a);
        prompt_key(&b, "p", 0, key_b);
        assert_memory_not_equal(key_a, key_b, sizeof key_a);
        a = b;
        want_ok(source_check_tokenizer(&a));
    }
    unlink(scratch_path("spiece.model"));
    conf_default(&a);
    set(&a, "text.tokenizer=%s", scratch_dir);
    want_fails(source_resolve(&a), ERR_NOINPUT, "text.tokenizer: ");
    clear();
    conf_default(&a);
    set(&a, "text.tokenizer=%s", scratch_path("none"));
    want_fails(source_resolve(&a), ERR_NOINPUT, "text.tokenizer: ");
    conf_default(&a);
    set(&a, "text.tokenizer=bytes");
    set(&a, "model.text=tests/golden/checkpoints/torch-2.1/model.pt");
    want_ok(source_resolve(&a));
    assert_string_equal(a.text.tokenizer, "bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random_weights_need_no_file),
        TEST(test_folders),
        TEST(test_tokenizer),
        TEST(test_refusals),
        TEST(test_identity),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
