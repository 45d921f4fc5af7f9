/* test_plan.c - what text does next: a table of cases over small scripts and a table of two. */
#include "procs/text/plan.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static struct ledger *l;
static struct prompts *table;
static struct conf c;

static int open_ledger(void **state)
{
    (void)state;
    conf_default(&c);
    c.cache.prompts = 2;
    c.text.text_len = c.text.dim = 1;
    l = malloc(sizeof *l);
    table = malloc(prompts_bytes(&c));
    return l && table ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(l);
    free(table);
    return 0;
}

/* A script is a word, a letter a record: its key. Capitals are of a session that is over, digits
 * are prewarmed. The table holds two letters, '.' an empty entry; the older first. */
static const struct {
    const char *name, *script, *table;
    int64_t n_seen, decided; /* decided: script of the last decision, -1 none */
    int64_t want, entry, n_seen_after;
    bool does_evict;
} cases[] = {
    {"nothing asked", "", "..", 0, -1, -1, -1, 0, false},
    {"the first", "a", "..", 0, -1, 0, 0, 0, false},
    {"is there", "a", "a.", 0, -1, -1, -1, 1, false},
    {"in order", "ab", "a.", 0, -1, 1, 1, 1, false},
    {"the same text twice", "aa", "a.", 0, -1, -1, -1, 2, false},
    {"decided ones are not needed", "ab", "..", 0, 0, 1, 0, 1, false},
    {"all are decided", "ab", "..", 0, 1, -1, -1, 2, false},
    {"still needed, but evicted: again", "ab", "b.", 2, -1, 0, 1, 2, false},
    {"over, so not needed", "Ab", "..", 0, -1, 1, 0, 1, false},
    {"no room: both are to be decided", "abc", "ab", 2, -1, 2, -1, 2, false},
    {"room with a decision", "abc", "ab", 2, 0, 2, 0, 2, true},
    {"room where a session is over", "Abc", "ab", 2, -1, 2, 0, 2, true},
    {"the least recently used", "abac", "ab", 3, 2, 3, 1, 3, true},
    {"a key of later use is no reason to wait", "abca", "ab", 0, 0, 2, 0, 2, true},
    {"prewarm", "1", "..", 0, -1, 0, 0, 0, false},
    {"prewarmed once", "1a", "a.", 1, -1, -1, -1, 2, false},
    {"prewarmed before decided scripts", "1a", "..", 0, 1, 0, 0, 0, false},
    {"a prewarmed one makes room", "12a", "12", 2, -1, 2, 0, 2, true},
    {"a torn entry is an empty one", "a", "!b", 0, -1, 0, 0, 0, false},
};

static void key_of(char letter, uint8_t key[PROMPT_KEY_BYTES])
{
    memset(key, letter >= 'A' && letter <= 'Z' ? letter + 'a' - 'A' : letter, PROMPT_KEY_BYTES);
}

static void lay_one(const char *script, const char *entries, int64_t n_seen, int64_t decided)
{
    memset(l, 0, sizeof *l);
    memset(table, 0, prompts_bytes(&c));
    prompts_format(table, &c);
    l->gateway.n_sessions = 2; /* 0: block 0, made; 1: open */
    l->sessions[0].n_blocks = 1;
    l->sessions[1].first_block = 1;
    l->dit.n_latents_blocks = 1;
    for (const char *s = script; *s; s++) {
        struct ledger_script *r = &l->scripts[l->gateway.n_scripts++];
        const bool is_prewarm = *s >= '0' && *s <= '9';
        r->session = is_prewarm ? -1 : !(*s >= 'A' && *s <= 'Z');
        r->at_block = is_prewarm ? SCRIPT_PREWARM : SCRIPT_ASAP;
        key_of(*s, r->key);
    }
    for (int32_t k = 0; k < 2; k++) {
        uint8_t key[PROMPT_KEY_BYTES];
        if (entries[k] == '.') continue;
        prompts_begin(table, k);
        key_of(entries[k], key);
        if (entries[k] != '!') prompts_commit(table, k, key, 1, 1);
    }
    l->text.n_scripts_seen = (uint64_t)n_seen;
    l->dit.n_decisions = decided >= 0;
    l->decisions[0].script = decided;
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        lay_one(cases[i].script, cases[i].table, cases[i].n_seen, cases[i].decided);
        const struct text_plan p = text_plan_next(l, table);
        if (p.script != cases[i].want || p.entry != cases[i].entry ||
            p.n_seen != cases[i].n_seen_after)
            fail_msg("%s: script %lld, entry %d, seen %lld", cases[i].name, (long long)p.script,
                     p.entry, (long long)p.n_seen);
        if (p.does_evict != cases[i].does_evict) fail_msg("%s: does_evict", cases[i].name);
    }
}

/* After the loss of region kv dit asks for a prompt that was decided long ago. */
static void test_a_lost_embedding_comes_first(void **state)
{
    (void)state;
    static const struct {
        const char *script, *table;
        int64_t decided, want, entry;
        bool does_evict;
    } again[] = {
        {"ab", "..", 0, 0, 0, false},  /* before b, which is missing too */
        {"ab", "b.", 0, 0, 1, false},  /* b stays: it is to be decided */
        {"abc", "bc", 0, 0, 0, true},  /* all stay to be decided: one is made again later */
        {"ab", "a.", 0, -1, -1, false} /* there: nothing goes over it until it is taken */
    };
    for (size_t i = 0; i < COUNT(again); i++) {
        lay_one(again[i].script, again[i].table, 2, again[i].decided);
        l->dit.needs_script = 1;
        const struct text_plan p = text_plan_next(l, table);
        if (p.script != again[i].want || p.entry != again[i].entry ||
            p.does_evict != again[i].does_evict)
            fail_msg("%zu: script %lld, entry %d", i, (long long)p.script, p.entry);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_cases), TEST(test_a_lost_embedding_comes_first)};
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
