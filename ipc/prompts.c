/* prompts.c - see prompts.h. */
#include "ipc/prompts.h"

#include <string.h>

static size_t table_bytes(uint32_t n_entries)
{
    const size_t n = sizeof(struct prompts) + n_entries * sizeof(struct prompts_entry);
    return (n + 4095) / 4096 * 4096;
}

static float *embedding_of(const struct prompts *p, int32_t i)
{
    char *base = (char *)p + table_bytes(p->n_entries);
    return (float *)(void *)base + (size_t)i * p->row_len * p->dim;
}

static size_t embedding_bytes(const struct prompts *p)
{
    return (size_t)p->row_len * p->dim * sizeof(float);
}

uint64_t prompts_bytes(const struct conf *c)
{
    return table_bytes((uint32_t)c->cache.prompts) + (uint64_t)c->cache.prompts *
                                                         (uint64_t)c->text.text_len *
                                                         (uint64_t)c->text.dim * sizeof(float);
}

void prompts_format(struct prompts *p, const struct conf *c)
{
    if (p->n_entries) return;
    p->row_len = (uint32_t)c->text.text_len;
    p->dim = (uint32_t)c->text.dim;
    atomic_thread_fence(memory_order_release);
    p->n_entries = (uint32_t)c->cache.prompts; /* last: it marks the format as whole */
}

static bool is_readable(uint64_t version)
{
    return version > 0 && version % 2 == 0;
}

int32_t prompts_find(const struct prompts *p, const uint8_t key[PROMPT_KEY_BYTES])
{
    for (uint32_t i = 0; i < p->n_entries; i++)
        if (is_readable(ledger_read(&p->entry[i].version)) &&
            memcmp(p->entry[i].key, key, PROMPT_KEY_BYTES) == 0)
            return (int32_t)i;
    return -1;
}

bool prompts_copy(const struct prompts *p, int32_t i, const uint8_t key[PROMPT_KEY_BYTES],
                  float *out, int32_t *n_tokens, int32_t *n_tokens_full)
{
    const struct prompts_entry *t = &p->entry[i];
    const uint64_t version = ledger_read(&t->version);
    if (!is_readable(version) || memcmp(t->key, key, PROMPT_KEY_BYTES) != 0) return false;
    *n_tokens = (int32_t)t->n_tokens;
    *n_tokens_full = (int32_t)t->n_tokens_full;
    memcpy(out, embedding_of(p, i), embedding_bytes(p));
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit((counter *)&t->version, memory_order_relaxed) == version;
}

float *prompts_begin(struct prompts *p, int32_t i)
{
    struct prompts_entry *t = &p->entry[i];
    /* A writer killed inside leaves the version odd; its successor goes on to the next odd one. */
    const uint64_t version = ledger_read(&t->version);
    ledger_publish(&t->version, version % 2 ? version + 2 : version + 1);
    atomic_thread_fence(memory_order_seq_cst);
    memset(embedding_of(p, i), 0, embedding_bytes(p));
    return embedding_of(p, i);
}

void prompts_commit(struct prompts *p, int32_t i, const uint8_t key[PROMPT_KEY_BYTES],
                    int32_t n_tokens, int32_t n_tokens_full)
{
    struct prompts_entry *t = &p->entry[i];
    uint64_t newest = 0;
    for (uint32_t k = 0; k < p->n_entries; k++)
        if (p->entry[k].loaded > newest) newest = p->entry[k].loaded;
    memcpy(t->key, key, PROMPT_KEY_BYTES);
    t->n_tokens = (uint32_t)n_tokens;
    t->n_tokens_full = (uint32_t)n_tokens_full;
    t->loaded = newest + 1;
    ledger_publish(&t->version, ledger_read(&t->version) + 1);
}

/* Newest script record before `at` that names the key; -1 none. */
static int64_t last_use(const struct ledger *l, const uint8_t *key, int64_t at)
{
    for (int64_t s = at - 1; s >= 0; s--)
        if (memcmp(l->scripts[s].key, key, PROMPT_KEY_BYTES) == 0) return s;
    return -1;
}

int32_t prompts_victim(const struct prompts *p, const struct ledger *l, int64_t last_decided,
                       int64_t at, bool *evicts)
{
    int32_t victim = -1;
    int64_t oldest_use = 0;
    uint64_t oldest_load = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const struct prompts_entry *t = &p->entry[i];
        *evicts = false;
        if (!is_readable(ledger_read(&t->version))) return (int32_t)i;
        const int64_t used = last_use(l, t->key, at);
        if (used > last_decided && l->scripts[used].at_block != SCRIPT_PREWARM &&
            !ledger_session_is_over(l, l->scripts[used].session))
            continue;
        if (victim < 0 || used < oldest_use || (used == oldest_use && t->loaded < oldest_load)) {
            victim = (int32_t)i;
            oldest_use = used;
            oldest_load = t->loaded;
        }
    }
    *evicts = victim >= 0;
    return victim;
}

int32_t prompts_count(const struct prompts *p)
{
    int32_t n = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) n += is_readable(ledger_read(&p->entry[i].version));
    return n;
}
