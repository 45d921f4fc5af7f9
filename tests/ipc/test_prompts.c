/* test_prompts.c - no torn embedding, no needed one evicted, the least recently used one first. */
#include "ipc/prompts.h"

#include "tests/scratch.h"

#include <signal.h>
#include <sys/wait.h>

enum { ROWS = 4, DIM = 8, N = ROWS * DIM };

static struct ledger *ledger;

static int open_ledger(void **state)
{
    (void)state;
    ledger = calloc(1, sizeof *ledger);
    return ledger ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(ledger);
    return 0;
}

static struct conf shape(int32_t n_entries)
{
    struct conf c;
    conf_default(&c);
    c.cache.prompts = n_entries;
    c.text.text_len = ROWS;
    c.text.dim = DIM;
    return c;
}

static struct prompts *table(int32_t n_entries)
{
    const struct conf c = shape(n_entries);
    struct prompts *p = aligned_alloc(4096, (prompts_bytes(&c) + 4095) / 4096 * 4096);
    assert_non_null(p);
    memset(p, 0, prompts_bytes(&c));
    prompts_format(p, &c);
    return p;
}

static const uint8_t *key_of(int k)
{
    static uint8_t key[4][PROMPT_KEY_BYTES];
    static int at;
    at = (at + 1) % 4;
    memset(key[at], 0, PROMPT_KEY_BYTES);
    memcpy(key[at], &k, sizeof k);
    return key[at];
}

/* Key k's embedding: n_tokens rows of k + position. */
static void put(struct prompts *p, int32_t at, int k, int32_t n_tokens)
{
    float *x = prompts_begin(p, at);
    for (int i = 0; i < n_tokens * DIM; i++) x[i] = (float)(k + i);
    prompts_commit(p, at, key_of(k), n_tokens, n_tokens + 5);
}

/* --- one entry ---------------------------------------------------------------------------------
 */

static void test_copy_gives_zeros_after_the_tokens(void **state)
{
    (void)state;
    struct prompts *p = table(2);
    for (int32_t n = ROWS; n >= 1; n--) { /* each over a longer one */
        float x[N];
        int32_t n_tokens = 0, n_full = 0;
        memset(x, 0xFF, sizeof x);
        put(p, 1, 40 + n, n);
        assert_int_equal(prompts_find(p, key_of(40 + n)), 1);
        assert_true(prompts_copy(p, 1, key_of(40 + n), x, &n_tokens, &n_full));
        assert_int_equal(n_tokens, n);
        assert_int_equal(n_full, n + 5);
        for (int i = 0; i < N; i++) assert_true(x[i] == (i < n * DIM ? (float)(40 + n + i) : 0.0f));
    }
    assert_int_equal(prompts_count(p), 1);
    free(p);
}

static void test_missing_keys_are_missed(void **state)
{
    (void)state;
    struct prompts *p = table(3);
    float x[N];
    int32_t n, n_full;
    const uint8_t none[PROMPT_KEY_BYTES] = {0}; /* what an empty entry's key looks like */
    assert_int_equal(prompts_find(p, none), -1);
    assert_false(prompts_copy(p, 0, none, x, &n, &n_full));
    put(p, 0, 1, 2);
    assert_int_equal(prompts_find(p, key_of(2)), -1);
    assert_false(prompts_copy(p, 0, key_of(2), x, &n, &n_full));
    put(p, 0, 2, 2); /* replaced */
    assert_int_equal(prompts_find(p, key_of(1)), -1);
    assert_false(prompts_copy(p, 0, key_of(1), x, &n, &n_full));
    assert_int_equal(prompts_find(p, key_of(2)), 0);
    free(p);
}

static void test_format_leaves_a_formatted_table_alone(void **state)
{
    (void)state;
    struct prompts *p = table(3);
    const struct conf c = shape(3);
    put(p, 2, 9, 1);
    prompts_format(p, &c);
    assert_int_equal(prompts_find(p, key_of(9)), 2);
    free(p);
}

/* --- deaths and races ----------------------------------------------------------------------------
 */

/* Killed between begin and commit, again and again: nobody reads it, the next one fills it. */
static void test_a_writer_killed_inside(void **state)
{
    (void)state;
    struct prompts *p = table(2);
    float x[N];
    int32_t n, n_full;
    bool evicts;
    put(p, 0, 1, 2);
    put(p, 1, 2, 2);
    for (int i = 0; i < 5; i++) {
        prompts_begin(p, 0)[3] = 77;
        assert_int_equal(prompts_find(p, key_of(1)), -1);
        assert_false(prompts_copy(p, 0, key_of(1), x, &n, &n_full));
        assert_int_equal(prompts_count(p), 1);
        assert_int_equal(prompts_victim(p, ledger, -1, 0, &evicts), 0);
        assert_false(evicts);
    }
    put(p, 0, 3, 1);
    assert_int_equal(prompts_find(p, key_of(3)), 0);
    assert_true(prompts_copy(p, 0, key_of(3), x, &n, &n_full));
    assert_true(x[3] == 6.0f);
    assert_int_equal(prompts_count(p), 2);
    free(p);
}

/* A child writes entry 0 without a pause, key after key; what is copied is all of one key. */
static void test_a_reader_during_writes(void **state)
{
    (void)state;
    enum { KEYS = 5, TRIES = 200000 };
    const struct conf c = shape(1);
    struct prompts *p =
        mmap(NULL, prompts_bytes(&c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int n_read = 0, n_missed = 0, status;
    assert_true(p != MAP_FAILED);
    prompts_format(p, &c);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    for (int k = 1; pid == 0; k++) put(p, 0, 100 * (k % KEYS), 1 + k % KEYS % ROWS);
    for (int i = 0; i < TRIES || n_read < 100; i++) {
        const int k = 100 * (i % KEYS);
        float x[N];
        int32_t n = 0, n_full = 0;
        if (!prompts_copy(p, 0, key_of(k), x, &n, &n_full)) {
            n_missed++;
            continue;
        }
        n_read++;
        assert_int_equal(n, 1 + i % KEYS % ROWS);
        assert_int_equal(n_full, n + 5);
        for (int j = 0; j < N; j++) assert_true(x[j] == (j < n * DIM ? (float)(k + j) : 0.0f));
    }
    assert_true(n_missed > 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    /* Wherever it was killed, the entry serves again. */
    put(p, 0, 7, 1);
    assert_int_equal(prompts_find(p, key_of(7)), 0);
    munmap(p, prompts_bytes(&c));
}

/* --- victims -------------------------------------------------------------------------------------
 */

static void ask(int64_t i, int k, int64_t session, int64_t at_block)
{
    struct ledger_script *s = &ledger->scripts[i];
    *s = (struct ledger_script){.session = session, .at_block = at_block};
    memcpy(s->key, key_of(k), PROMPT_KEY_BYTES);
    ledger->gateway.n_scripts = (uint64_t)i + 1;
}

static int32_t victim(const struct prompts *p, int64_t last_decided, int64_t at, bool want_evicts)
{
    bool evicts = !want_evicts;
    const int32_t i = prompts_victim(p, ledger, last_decided, at, &evicts);
    assert_int_equal(evicts, want_evicts);
    return i;
}

static void test_victims_by_hand(void **state)
{
    (void)state;
    struct prompts *p = table(3);
    memset(ledger, 0, sizeof *ledger);
    ask(0, 1, 0, 0);
    ask(1, 2, 0, 2);
    ask(2, 3, 0, 4);
    ask(3, 1, 0, 6);
    ask(4, 4, 0, 8);
    assert_int_equal(victim(p, -1, 0, false), 0); /* empty ones first */
    put(p, 0, 1, 1);
    assert_int_equal(victim(p, -1, 1, false), 1);
    put(p, 1, 2, 1);
    put(p, 2, 3, 1);
    assert_int_equal(victim(p, -1, 4, false), -1); /* all are still to come */
    assert_int_equal(victim(p, 0, 4, false), -1);  /* 1 comes again */
    assert_int_equal(victim(p, 1, 4, true), 1);    /* 2 has been decided */
    assert_int_equal(victim(p, 2, 4, true), 1);    /* so has 3, but later */
    assert_int_equal(victim(p, 3, 4, true), 1);
    ask(4, 2, 0, 8);
    ask(5, 4, 0, 9);
    assert_int_equal(victim(p, 4, 5, true), 2); /* 2 was used again */
    free(p);
}

static void test_who_needs_nothing_any_more(void **state)
{
    (void)state;
    struct prompts *p = table(2);
    memset(ledger, 0, sizeof *ledger);
    ledger->sessions[0].n_blocks = 5; /* over */
    ledger->sessions[1].first_block = 5;
    ledger->gateway.n_sessions = 2;
    ledger->dit.n_latents_blocks = 5;
    ask(0, 1, 0, 4);
    ask(1, 2, 1, 7);
    ask(2, 3, 1, 8);
    put(p, 0, 1, 1);
    put(p, 1, 2, 1);
    assert_int_equal(victim(p, -1, 2, true), 0); /* its session is over: never decided */
    ask(0, 1, -1, SCRIPT_PREWARM);
    assert_int_equal(victim(p, -1, 2, true), 0); /* nobody decides a prewarmed one */
    ask(1, 2, -1, SCRIPT_PREWARM);
    assert_int_equal(victim(p, -1, 2, true), 0);
    free(p);
}

/* Entries that no script names leave in the order in which they came. */
static void test_loaded_entries_by_age(void **state)
{
    (void)state;
    struct prompts *p = table(3);
    memset(ledger, 0, sizeof *ledger);
    ask(0, 9, 0, 0);
    put(p, 2, 1, 1);
    put(p, 0, 2, 1);
    put(p, 1, 3, 1);
    assert_int_equal(victim(p, -1, 0, true), 2);
    put(p, 2, 4, 1);
    assert_int_equal(victim(p, -1, 0, true), 0);
    free(p);
}

/* A list of keys, most recent first: the textbook. Returns whether the key was there. */
static bool model_use(int *list, int *n, int capacity, int k, int *evicted)
{
    int at = 0;
    *evicted = -1;
    while (at < *n && list[at] != k) at++;
    const bool is_hit = at < *n;
    if (!is_hit && *n == capacity) *evicted = list[--*n], at = *n;
    memmove(list + 1, list, (size_t)at * sizeof *list);
    list[0] = k;
    *n += !is_hit;
    return is_hit;
}

/* Prompts asked and decided one by one, against the textbook's list. */
static int run_lru(int capacity, int n_keys, int n_scripts)
{
    struct prompts *p = table(capacity);
    int list[128], n = 0, n_evictions = 0;
    uint64_t seed = (uint64_t)capacity;
    memset(ledger, 0, sizeof *ledger);
    for (int i = 0; i < n_scripts; i++) {
        int evicted;
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        const int k = 1 + (int)((seed >> 33) % (uint64_t)n_keys);
        ask(i, k, 0, SCRIPT_ASAP);
        const bool is_hit = model_use(list, &n, capacity, k, &evicted);
        assert_int_equal(prompts_find(p, key_of(k)) >= 0, is_hit);
        if (is_hit) continue;
        const int32_t was = evicted < 0 ? -1 : prompts_find(p, key_of(evicted));
        const int32_t at = victim(p, i - 1, i, evicted >= 0);
        assert_in_range(at, 0, capacity - 1);
        if (evicted >= 0) assert_int_equal(at, was);
        n_evictions += evicted >= 0;
        put(p, at, k, 1);
        assert_int_equal(prompts_count(p), n);
    }
    free(p);
    return n_evictions;
}

static void test_least_recently_used_leaves(void **state)
{
    (void)state;
    assert_true(run_lru(1, 3, 300) > 100);
    assert_true(run_lru(2, 4, 300) > 50);
    assert_true(run_lru(7, 20, 1000) > 300);
    assert_true(run_lru(100, 140, 3000) > 300);
    assert_int_equal(run_lru(100, 100, 2000), 0); /* all of them fit */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_gives_zeros_after_the_tokens),
        cmocka_unit_test(test_missing_keys_are_missed),
        cmocka_unit_test(test_format_leaves_a_formatted_table_alone),
        cmocka_unit_test(test_a_writer_killed_inside),
        cmocka_unit_test(test_a_reader_during_writes),
        cmocka_unit_test(test_victims_by_hand),
        cmocka_unit_test(test_who_needs_nothing_any_more),
        cmocka_unit_test(test_loaded_entries_by_age),
        cmocka_unit_test(test_least_recently_used_leaves),
    };
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
