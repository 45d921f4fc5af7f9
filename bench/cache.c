/* cache.c - looking up a prompt among as many entries as the demo keeps.
 *
 * key    SHA-256 of a prompt of 86 bytes: what the gateway does once a prompt
 * find   the entry of a key; worst case, so the hit is the last entry and the miss passes them all
 * copy   an embedding out of the table: what dit does when a prompt takes effect
 */
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "common/clock.h"
#include "ipc/prompts.h"

static const char prompt[] =
    "A red ball rests on a wooden table in front of a plain blue background, soft light. %04d";

struct table {
    struct conf conf;
    struct prompts *prompts;
    float *out;
    uint8_t last[PROMPT_KEY_BYTES], missing[PROMPT_KEY_BYTES];
    char text[sizeof prompt + 8];
};

static void key_of(struct table *t, int32_t i, uint8_t key[PROMPT_KEY_BYTES])
{
    snprintf(t->text, sizeof t->text, prompt, i);
    prompt_key(&t->conf, t->text, 0, key);
}

static err_t run_key(void *self)
{
    struct table *t = self;
    uint8_t key[PROMPT_KEY_BYTES];
    prompt_key(&t->conf, t->text, 0, key);
    return OK;
}

static err_t run_hit(void *self)
{
    const struct table *t = self;
    return prompts_find(t->prompts, t->last) == t->conf.cache.prompts - 1
               ? OK
               : FAIL(ERR_BUG, "the last entry was not found");
}

static err_t run_miss(void *self)
{
    const struct table *t = self;
    return prompts_find(t->prompts, t->missing) < 0 ? OK : FAIL(ERR_BUG, "a key nobody put");
}

static err_t run_copy(void *self)
{
    const struct table *t = self;
    int32_t n_tokens, n_full;
    const int32_t at = prompts_find(t->prompts, t->last);
    return prompts_copy(t->prompts, at, t->last, t->out, &n_tokens, &n_full)
               ? OK
               : FAIL(ERR_BUG, "the last entry was not found");
}

static err_t fill(struct table *t)
{
    const struct conf *c = &t->conf;
    const size_t n_row = (size_t)c->text.text_len * (size_t)c->text.dim * sizeof(float);
    const size_t n_bytes = (prompts_bytes(c) + 4095) / 4096 * 4096;
    t->prompts = aligned_alloc(4096, n_bytes);
    t->out = malloc(n_row);
    if (!t->prompts || !t->out) return FAIL(ERR_NOMEM, "table of prompts");
    memset(t->prompts, 0, n_bytes);
    memset(t->out, 0, n_row);
    prompts_format(t->prompts, c);
    for (int32_t i = 0; i < c->cache.prompts; i++) {
        key_of(t, i, t->last);
        memset(prompts_begin(t->prompts, i), 1, n_row);
        prompts_commit(t->prompts, i, t->last, 20, 20);
    }
    key_of(t, c->cache.prompts, t->missing);
    return OK;
}

static err_t bench(struct bench *b, struct table *t)
{
    err_t e = OK;
    const struct conf *c = &t->conf;
    const double n_row = (double)c->text.text_len * c->text.dim * sizeof(float);
    struct bench_case cases[] = {
        {.name = "cache.key", .run = run_key},
        {.name = "cache.find hit", .run = run_hit},
        {.name = "cache.find miss", .run = run_miss},
        {.name = "cache.find hit", .run = run_hit, .is_cold = true},
        {.name = "cache.copy", .run = run_copy},
        {.name = "cache.copy", .run = run_copy, .is_cold = true, .bytes = 2 * n_row},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cases[i].threads = 1;
        cases[i].self = t;
        if (cases[i].run == run_key)
            snprintf(cases[i].shape, sizeof cases[i].shape, "%zu bytes", strlen(t->text));
        else if (cases[i].run == run_copy)
            snprintf(cases[i].shape, sizeof cases[i].shape, "%d entries, %d x %d f32",
                     c->cache.prompts, c->text.text_len, c->text.dim);
        else snprintf(cases[i].shape, sizeof cases[i].shape, "%d entries", c->cache.prompts);
        TRY(bench_run(b, &cases[i]));
    }
out:
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct bench *b = NULL;
    struct table t = {0};
    (void)argc;
    TRY(bench_open(&b, argv));
    TRY(conf_load(&t.conf, "configs/demo.ini", NULL, 0));
    TRY(fill(&t));
    TRY(bench(b, &t));
out:
    free(t.prompts);
    free(t.out);
    bench_close(&b);
    return bench_exit(e);
}
