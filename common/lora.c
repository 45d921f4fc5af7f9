/* lora.c - see lora.h. */
#include "common/lora.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pair {
    char target[CKPT_NAME_MAX + 1]; /* NAME.weight */
    const struct ckpt_tensor *a, *b;
};

struct lora {
    struct checkpoint *c;
    int32_t alpha;
    struct pair *pairs;
    int32_t n;
    int32_t held; /* the pair whose factors are below; -1: none */
    float *a, *b; /* [rank, in], [out, rank] */
};

/* Splits NAME.lora_X.weight or NAME.lora_X.ADAPTER.weight; target: NAME.weight. */
static bool parse(const char *name, char *target, char *which)
{
    static const char base[] = "base_model.model.", inner[] = "model.", end[] = ".weight";
    if (strncmp(name, base, sizeof base - 1) == 0) name += sizeof base - 1;
    if (strncmp(name, inner, sizeof inner - 1) == 0) name += sizeof inner - 1;
    const char *mid = strstr(name, ".lora_");
    if (!mid || mid == name || (mid[6] != 'A' && mid[6] != 'B')) return false;
    *which = mid[6];
    const char *tail = mid + 7;
    if (strcmp(tail, end) != 0) { /* an adapter's name, without a dot */
        const char *dot = tail[0] == '.' ? strchr(tail + 1, '.') : NULL;
        if (!dot || dot == tail + 1 || strcmp(dot, end) != 0) return false;
    }
    return snprintf(target, CKPT_NAME_MAX + 1, "%.*s%s", (int)(mid - name), name, end) <=
           CKPT_NAME_MAX;
}

static const struct pair *find(const struct lora *l, const char *target)
{
    for (int32_t i = 0; i < l->n; i++)
        if (strcmp(l->pairs[i].target, target) == 0) return &l->pairs[i];
    return NULL;
}

static err_t pair_up(struct lora *l)
{
    for (int32_t i = 0; i < checkpoint_count(l->c); i++) {
        const struct ckpt_tensor *t = checkpoint_at(l->c, i);
        char target[CKPT_NAME_MAX + 1], which = 0;
        if (!parse(t->name, target, &which) || t->rank != 2 || !ckpt_is_float(t->dtype))
            return FAIL(ERR_DATA, "%s: %.200s is no LoRA matrix", checkpoint_path(l->c), t->name);
        struct pair *p = (struct pair *)find(l, target);
        if (!p) {
            p = &l->pairs[l->n++];
            strcpy(p->target, target);
        }
        const struct ckpt_tensor **of = which == 'A' ? &p->a : &p->b;
        if (*of) return FAIL(ERR_DATA, "%s: %.200s: two adapters", checkpoint_path(l->c), t->name);
        *of = t;
    }
    for (int32_t i = 0; i < l->n; i++) {
        const struct pair *p = &l->pairs[i];
        if (!p->a || !p->b || p->a->shape[0] != p->b->shape[1] || p->a->shape[0] < 1)
            return FAIL(ERR_DATA, "%s: %.200s: lora_A [rank, in] and lora_B [out, rank] differ",
                        checkpoint_path(l->c), p->target);
    }
    if (l->n == 0) return FAIL(ERR_DATA, "%s: no LoRA there", checkpoint_path(l->c));
    return OK;
}

err_t lora_open(struct lora **out, const char *path, int32_t alpha)
{
    err_t e = OK;
    bool found = false;
    struct lora *l = calloc(1, sizeof *l);
    if (!l) return FAIL(ERR_NOMEM, "lora");
    l->alpha = alpha;
    l->held = -1;
    TRY(checkpoint_open(&l->c, path));
    TRY(checkpoint_select(l->c, "generator_lora.", &found));
    TRY(checkpoint_clean(l->c));
    l->pairs = calloc((size_t)checkpoint_count(l->c) + 1, sizeof *l->pairs);
    if (!l->pairs) {
        e = FAIL(ERR_NOMEM, "lora");
        goto out;
    }
    TRY(pair_up(l));
    *out = l;
    l = NULL;
out:
    lora_close(&l);
    return e;
}

void lora_close(struct lora **l)
{
    if (!*l) return;
    checkpoint_close(&(*l)->c);
    free((*l)->pairs);
    free((*l)->a);
    free((*l)->b);
    free(*l);
    *l = NULL;
}

const char *lora_path(const struct lora *l)
{
    return checkpoint_path(l->c);
}

void lora_identity(const struct lora *l, uint8_t id[CKPT_ID_BYTES])
{
    crypto_hash_sha256_state h;
    checkpoint_identity(l->c, id);
    crypto_hash_sha256_init(&h);
    crypto_hash_sha256_update(&h, id, CKPT_ID_BYTES);
    crypto_hash_sha256_update(&h, (const uint8_t *)&l->alpha, sizeof l->alpha);
    crypto_hash_sha256_final(&h, id);
}

int32_t lora_count(const struct lora *l)
{
    return l->n;
}

const char *lora_target(const struct lora *l, int32_t i)
{
    MUST(i >= 0 && i < l->n);
    return l->pairs[i].target;
}

err_t lora_check(const struct lora *l, const struct ckpt_tensor *t)
{
    const struct pair *p = find(l, t->name);
    if (!p) return OK;
    if (t->rank == 2 && ckpt_is_float(t->dtype) && t->shape[0] == p->b->shape[0] &&
        t->shape[1] == p->a->shape[1])
        return OK;
    return FAIL(ERR_DATA, "%s: the LoRA of %.200s is [%lld, %lld]", lora_path(l), t->name,
                (long long)p->b->shape[0], (long long)p->a->shape[1]);
}

/* Reads the factors of a pair, unless they are here. */
static err_t hold(struct lora *l, const struct pair *p)
{
    err_t e = OK;
    const int64_t n_a = ckpt_count(p->a), n_b = ckpt_count(p->b);
    if (l->held == p - l->pairs) return OK;
    l->held = -1;
    free(l->a);
    free(l->b);
    l->a = malloc((size_t)n_a * sizeof *l->a + 1);
    l->b = malloc((size_t)n_b * sizeof *l->b + 1);
    if (!l->a || !l->b) return FAIL(ERR_NOMEM, "lora");
    TRY(checkpoint_read(l->c, p->a, 0, n_a, l->a));
    TRY(checkpoint_read(l->c, p->b, 0, n_b, l->b));
    l->held = (int32_t)(p - l->pairs);
out:
    return e;
}

/* sum[i] += b[k] a[k, i] over k, for one row. */
static void product(float *sum, const float *b, const float *a, int64_t rank, int64_t n_in)
{
    memset(sum, 0, (size_t)n_in * sizeof *sum);
    for (int64_t k = 0; k < rank; k++) {
        const float f = b[k], *row = a + k * n_in;
        for (int64_t i = 0; i < n_in; i++) sum[i] += f * row[i];
    }
}

err_t lora_add(struct lora *l, const struct ckpt_tensor *t, int64_t first, int64_t n, float *w)
{
    err_t e = OK;
    const struct pair *p = find(l, t->name);
    if (!p) return OK;
    TRY(lora_check(l, t));
    TRY(hold(l, p));
    const int64_t rank = p->a->shape[0], n_in = p->a->shape[1];
    const float scale = l->alpha ? (float)l->alpha / (float)rank : 1.0f;
    float *sum = malloc((size_t)n_in * sizeof *sum + 1);
    if (!sum) return FAIL(ERR_NOMEM, "lora");
    MUST(first >= 0 && n >= 0 && first + n <= p->b->shape[0]);
    for (int64_t r = 0; r < n; r++) {
        product(sum, l->b + (first + r) * rank, l->a, rank, n_in);
        for (int64_t i = 0; i < n_in; i++) w[r * n_in + i] += scale * sum[i];
    }
    free(sum);
out:
    return e;
}
