/* test_attn_plan.c - attention dealt to the CTAs of a GPU: every block of every tile once, and the
 * parts of a cut tile found again. */
#include "kernels/cuda/attn_plan.h"

#include <stdlib.h>

#include "tests/check.h"

struct tally {
    int32_t n_wrong_parts;
    uint8_t *seen; /* [tiles, blocks] */
};

static void run(const struct attn_plan *p, struct tally *t)
{
    struct attn_work w;
    for (int32_t c = 0; c < p->n_ctas; c++)
        for (int32_t i = 0; attn_work_at(p, p->n_blocks, c, i, &w); i++) {
            const bool is_whole = w.first == 0 && w.end == p->n_blocks;
            t->n_wrong_parts += is_whole != (w.part < 0) || w.part >= attn_parts(p);
            for (int32_t j = w.first; j < w.end; j++) t->seen[(int64_t)w.tile * p->n_blocks + j]++;
        }
}

/* The work that filled a part; its tile is -1 if there is none. */
static struct attn_work filler_of(const struct attn_plan *p, int32_t part)
{
    struct attn_work w;
    for (int32_t c = 0; c < p->n_ctas; c++)
        for (int32_t i = 0; attn_work_at(p, p->n_blocks, c, i, &w); i++)
            if (w.part == part) return w;
    return (struct attn_work){.tile = -1};
}

static void check_cuts(const struct attn_plan *p)
{
    for (int32_t i = 0; i < p->n_cut; i++) {
        struct attn_cut cut;
        int32_t n_blocks = 0;
        attn_cut_of(p, i, &cut);
        for (int32_t k = 0; cut.n_parts > 1 && k < cut.n_parts; k++) {
            const struct attn_work w = filler_of(p, attn_part(p, &cut, k));
            assert_int_equal(w.tile, cut.tile);
            assert_int_equal(w.first, n_blocks); /* in order */
            n_blocks = w.end;
        }
        if (cut.n_parts > 1) assert_int_equal(n_blocks, p->n_blocks);
    }
}

static void test_every_block_once(void **state)
{
    (void)state;
    static const int32_t queries[] = {1, 72, 128, 129, 4680, 14040, 18720};
    static const int32_t keys[] = {1, 160, 161, 1920, 4680, 9360, 18720};
    for (size_t q = 0; q < COUNT(queries); q++)
        for (size_t k = 0; k < COUNT(keys); k++)
            for (int32_t heads = 1; heads <= 12; heads += 11) {
                const struct attn_plan p = attn_plan_of(queries[q], keys[k], heads, true, 132);
                const int64_t n = (int64_t)p.n_tiles * p.n_blocks;
                struct tally t = {0, check_alloc((size_t)n)};
                run(&p, &t);
                for (int64_t i = 0; i < n; i++) assert_int_equal(t.seen[i], 1);
                assert_int_equal(t.n_wrong_parts, 0);
                check_cuts(&p);
            }
}

/* The shape this project is about: 444 tiles of 117 blocks on 132 SMs, at most 394 blocks a CTA
 * where whole tiles would take 468. */
static void test_balance(void **state)
{
    (void)state;
    const struct attn_plan p = attn_plan_of(4680, 18720, 12, true, 132);
    int32_t most = 0;
    for (int32_t c = 0; c < p.n_ctas; c++) {
        struct attn_work w;
        int32_t n = 0;
        for (int32_t i = 0; attn_work_at(&p, p.n_blocks, c, i, &w); i++) n += w.end - w.first;
        if (n > most) most = n;
    }
    assert_int_equal(most, 394);
    assert_int_equal(p.n_cut, 48);
}

/* A number of keys that only the device knows: nothing is cut, whatever it turns out to be. */
static void test_keys_unknown(void **state)
{
    (void)state;
    const struct attn_plan p = attn_plan_of(4680, 18720, 12, false, 132);
    assert_int_equal(attn_parts(&p), 0);
    uint8_t *seen = check_alloc((size_t)p.n_tiles);
    for (int32_t c = 0; c < p.n_ctas; c++) {
        struct attn_work w;
        for (int32_t i = 0; attn_work_at(&p, 3, c, i, &w); i++) {
            assert_true(w.first == 0 && w.end == 3 && w.part < 0);
            seen[w.tile]++;
        }
    }
    for (int32_t i = 0; i < p.n_tiles; i++) assert_int_equal(seen[i], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_block_once),
        TEST(test_balance),
        TEST(test_keys_unknown),
    };
    return cmocka_run_group_tests_name("attn_plan", tests, NULL, NULL);
}
