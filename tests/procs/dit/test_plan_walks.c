/* test_plan_walks.c - what dit does next: random walks with kills, with clean passes of their own
 * and beside the next block. */
#include "procs/dit/plan.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static struct ledger *l;
static struct conf c;

static int open_ledger(void **state)
{
    (void)state;
    conf_default(&c);
    l = malloc(sizeof *l);
    return l ? 0 : -1;
}

static int close_ledger(void **state)
{
    (void)state;
    free(l);
    return 0;
}

static bool ready(void *self, const struct ledger_script *s)
{
    return *(const int64_t *)self & 1ll << (s - l->scripts);
}

enum { WALK_BLOCKS = 400 };

/* What a ledger does not tell: whose K/V the ring holds, how often a block was made. */
struct walk {
    struct conf c;
    uint64_t seed;
    int64_t is_ready; /* bits of scripts */
    bool has_ahead;   /* clean passes have a device of their own */
    bool is_clean[WALK_BLOCKS + 1];
    int32_t n_made[WALK_BLOCKS + 1], n_kills, n_rebuilds, n_presets[2];
    int32_t n_beside, n_kills_beside[2];
};

static int64_t pick(struct walk *w, int64_t n)
{
    return (int64_t)(check_next(&w->seed) % (uint64_t)n);
}

static int64_t first_block_of(const struct plan *p)
{
    return l->sessions[p->session].first_block;
}

/* What a block looks at has clean K/V: the sink's blocks and the window's. */
static void check_window(const struct walk *w, const struct plan *p)
{
    const struct ledger_decision *d = &l->decisions[l->dit.n_decisions - 1];
    const int64_t NB = w->c.dit.block, first = first_block_of(p), at = (p->block - first) * NB;
    int64_t recached = 0, from = at;
    int32_t n = 0;
    assert_int_equal(d->session, p->session);
    assert_true(d->block <= p->block);
    const int32_t window = plan_window(l, &w->c, d->preset);
    if (d->block == p->block && plan_recaches((enum decision_kind)d->kind) && at > 0) {
        plan_recache(&w->c, window, (enum decision_kind)d->kind, at, d->sink_base, &from, &n);
        recached = from + n;
    }
    for (int64_t f = d->sink_base; f < at; f++) {
        const bool is_sink = f < d->sink_base + w->c.dit.sink;
        const bool is_seen = f >= at + NB - (window - w->c.dit.sink);
        if (!is_sink && !is_seen) continue;
        assert_true(w->is_clean[first + f / NB] || (f >= from && f < recached));
    }
    /* Its latents and those that are looked at again lie in the ring at once. */
    assert_true((p->block + 1) * NB <= (int64_t)l->vae.n_latents + w->c.dit.ring_latents);
}

static void do_block(struct walk *w, const struct plan *p)
{
    const struct ledger_decision *d = &l->decisions[l->dit.n_decisions - 1];
    const int64_t NB = w->c.dit.block, first = first_block_of(p), at = (p->block - first) * NB;
    int64_t from = at;
    int32_t n = 0;
    check_window(w, p);
    if (d->block == p->block && plan_recaches((enum decision_kind)d->kind) && at > 0)
        plan_recache(&w->c, plan_window(l, &w->c, d->preset), (enum decision_kind)d->kind, at,
                     d->sink_base, &from, &n);
    for (int64_t f = from; f < from + n; f++)
        if (f % NB == 0 || f == from) w->is_clean[first + f / NB] = true;
    w->is_clean[p->block] = false; /* noisy */
}

/* Not what lies between the fields. */
static bool is_same(const struct plan *a, const struct plan *b)
{
    return a->action == b->action && a->block == b->block && a->session == b->session &&
           a->script == b->script && a->preset == b->preset && a->kind == b->kind &&
           a->sink_base == b->sink_base && a->waits_for_prompt == b->waits_for_prompt &&
           a->needs == b->needs;
}

static void want_again(struct walk *w, const struct plan *p)
{
    const struct plan again = plan_next(l, &w->c, ready, &w->is_ready);
    assert_true(is_same(&again, p));
}

/* A clean pass and the next block beside it, which is made under the decision in force. K is raised
 * before L: killed before that, both are made again; after it, the block alone. */
static void step_both(struct walk *w, const struct plan *clean, const struct plan *p)
{
    const struct ledger_decision *d = &l->decisions[l->dit.n_decisions - 1];
    const int64_t killed = pick(w, 6);
    assert_true(p->block == clean->block + 1 && p->session == clean->session);
    assert_true(d->block < p->block || d->kind == DECISION_STEPS);
    w->is_clean[clean->block] = true; /* of each layer, before the block's comes to it */
    do_block(w, p);
    w->n_beside++;
    if (killed < 2) w->n_kills_beside[killed]++;
    if (killed == 0) {
        w->is_clean[clean->block] = false;
        want_again(w, clean);
        return;
    }
    l->dit.n_clean_blocks = (uint64_t)p->block;
    want_again(w, p);
    if (killed == 1) return;
    w->n_made[p->block]++;
    l->dit.n_latents_blocks = (uint64_t)p->block + 1;
}

/* One unit of dit; a kill comes before its publication. */
static bool step_dit(struct walk *w)
{
    struct plan p = plan_next(l, &w->c, ready, &w->is_ready);
    if (w->has_ahead && p.action == PLAN_CLEAN) {
        const struct plan next = plan_after_clean(l, &w->c, ready, &w->is_ready);
        if (next.action == PLAN_BLOCK) {
            step_both(w, &p, &next);
            return true;
        }
    }
    const bool is_killed = pick(w, 4) == 0;
    if (p.action == PLAN_WAIT) return false;
    if (p.action == PLAN_BLOCK) do_block(w, &p);
    if (p.action == PLAN_CLEAN) assert_int_equal(p.block, (int64_t)l->dit.n_latents_blocks - 1);
    if (is_killed) { /* a successor sees the same ledger and goes on with the same unit */
        const struct plan again = plan_next(l, &w->c, ready, &w->is_ready);
        assert_int_equal(again.action, p.action);
        assert_int_equal(again.block, p.block);
        assert_int_equal(again.script, p.script);
        w->n_kills++;
        return true;
    }
    if (p.action == PLAN_DECIDE) {
        struct ledger_decision *d = &l->decisions[l->dit.n_decisions];
        assert_int_equal(p.block, l->dit.n_latents_blocks);
        const bool has_last = l->dit.n_decisions > 0 && d[-1].session == p.session;
        const bool is_preset = has_last && p.preset > d[-1].preset;
        assert_true(ready(&w->is_ready, &l->scripts[p.script]));
        assert_true(l->dit.n_decisions == 0 || d[-1].script < p.script ||
                    (d[-1].script == p.script && (p.kind == DECISION_REBUILD || is_preset)));
        if (p.kind == DECISION_STEPS)
            assert_int_equal(plan_window(l, &w->c, p.preset), plan_window(l, &w->c, d[-1].preset));
        w->n_rebuilds += p.kind == DECISION_REBUILD;
        w->n_presets[p.kind == DECISION_STEPS] += is_preset;
        assert_int_equal(p.kind == DECISION_START,
                         l->dit.n_decisions == 0 || d[-1].session != p.session);
        *d = (struct ledger_decision){.block = p.block,
                                      .session = p.session,
                                      .script = p.script,
                                      .preset = p.preset,
                                      .kind = p.kind,
                                      .kv_generation = (uint32_t)l->dit.kv_generation,
                                      .sink_base = p.sink_base};
        l->dit.n_decisions++;
    } else if (p.action == PLAN_BLOCK) {
        w->n_made[p.block]++;
        l->dit.n_latents_blocks = (uint64_t)p.block + 1;
    } else {
        w->is_clean[p.block] = p.action == PLAN_CLEAN;
        l->dit.n_clean_blocks = (uint64_t)p.block + 1;
    }
    return true;
}

/* The gateway: sessions one after another, some left open and ended later; prompts for them. */
static void step_gateway(struct walk *w)
{
    const int64_t NB = w->c.dit.block, n = (int64_t)l->gateway.n_sessions;
    struct ledger_session *s = n ? &l->sessions[n - 1] : NULL;
    const int64_t wanted = (int64_t)l->gateway.want / NB;
    const int64_t end = s ? ledger_session_end(s) : 0, n_scripts = (int64_t)l->gateway.n_scripts;
    if (s && end == INT64_MAX && pick(w, 30) == 0) {
        const int64_t made = wanted - s->first_block;
        s->n_blocks = made > 0 ? (uint64_t)made : LEDGER_VOID;
    } else if (end <= (int64_t)l->dit.n_latents_blocks && n_scripts < 60) {
        l->sessions[n].first_block = end;
        l->sessions[n].n_blocks = pick(w, 2) ? 0 : (uint64_t)(1 + pick(w, 12));
        l->gateway.n_sessions++;
        if (pick(w, 4)) return; /* else its first prompt comes later */
    } else if (s && end > (int64_t)l->dit.n_latents_blocks && n_scripts < 63 && pick(w, 3) == 0) {
        const int64_t kinds[] = {SCRIPT_ASAP, SCRIPT_PREWARM, s->first_block,
                                 (int64_t)l->dit.n_latents_blocks + pick(w, 4)};
        struct ledger_script *r = &l->scripts[n_scripts];
        r->at_block = kinds[pick(w, 4)];
        r->session = r->at_block == SCRIPT_PREWARM ? -1 : n - 1;
        l->gateway.n_scripts++;
    } else if (s && l->gateway.n_presets < 60 && pick(w, 4) == 0) {
        static const int32_t windows[] = {6, 8, 12, 15};
        struct ledger_preset *r = &l->presets[l->gateway.n_presets++];
        r->at_block = pick(w, 2) ? SCRIPT_ASAP : (int64_t)l->dit.n_latents_blocks + pick(w, 4);
        r->session = n - 1;
        r->window = windows[pick(w, 4)];
    } else if (s && wanted < end && wanted < WALK_BLOCKS) {
        for (int64_t i = 0; i < n_scripts; i++) /* only once it has a prompt */
            if (l->scripts[i].session == n - 1) {
                l->gateway.want += (uint64_t)NB;
                break;
            }
    }
}

/* The keeper died, and region kv with it. */
static void lose_cache(struct walk *w)
{
    l->dit.kv_generation++;
    memset(w->is_clean, 0, sizeof w->is_clean);
}

struct walks {
    int64_t n_blocks, n_kills, n_rebuilds, n_presets[2], n_beside, n_kills_beside[2];
};

static void run_walk(uint64_t seed, bool global_sink, bool has_ahead, struct walks *all)
{
    static struct walk w;
    memset(&w, 0, sizeof w);
    memset(l, 0, sizeof *l);
    w.c = c;
    w.c.dit.global_sink = global_sink;
    w.has_ahead = has_ahead;
    w.seed = seed;
    for (int i = 0; i < 6000; i++) {
        const int64_t who = pick(&w, 8), L = (int64_t)l->dit.n_latents_blocks;
        if (who < 2) step_gateway(&w);
        else if (who == 2) w.is_ready |= 1ll << pick(&w, 63);
        else if (who == 3 && (int64_t)l->vae.n_latents < L * c.dit.block) l->vae.n_latents++;
        else if (pick(&w, 200) == 0) lose_cache(&w);
        else step_dit(&w);
        const uint64_t K = l->dit.n_clean_blocks;
        assert_true(K <= l->dit.n_latents_blocks && l->dit.n_latents_blocks <= K + 1);
        assert_true(l->dit.n_latents_blocks <= l->gateway.want / (uint64_t)c.dit.block);
    }
    for (int64_t b = 0; b < WALK_BLOCKS; b++)
        assert_int_equal(w.n_made[b], b < (int64_t)l->dit.n_latents_blocks);
    all->n_blocks += (int64_t)l->dit.n_latents_blocks;
    all->n_kills += w.n_kills;
    all->n_rebuilds += w.n_rebuilds;
    all->n_beside += w.n_beside;
    for (int i = 0; i < 2; i++) all->n_presets[i] += w.n_presets[i];
    for (int i = 0; i < 2; i++) all->n_kills_beside[i] += w.n_kills_beside[i];
}

static void run_walks(bool has_ahead, struct walks *w)
{
    for (uint64_t seed = 1; seed <= 150; seed++) run_walk(seed, seed % 2, has_ahead, w);
    print_message("plan: %lld blocks, %lld kills, %lld rebuilds, %lld windows, %lld steps, "
                  "%lld beside\n",
                  (long long)w->n_blocks, (long long)w->n_kills, (long long)w->n_rebuilds,
                  (long long)w->n_presets[0], (long long)w->n_presets[1], (long long)w->n_beside);
    assert_true(w->n_blocks > 3000 && w->n_kills > 1000 && w->n_rebuilds > 100);
    assert_true(w->n_presets[0] > 100 && w->n_presets[1] > 100);
}

static void test_random_walks(void **state)
{
    (void)state;
    struct walks w = {0};
    run_walks(false, &w);
    assert_int_equal(w.n_beside, 0);
}

static void test_random_walks_beside(void **state)
{
    (void)state;
    struct walks w = {0};
    run_walks(true, &w);
    assert_true(w.n_beside > 1000);
    assert_true(w.n_kills_beside[0] > 100 && w.n_kills_beside[1] > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random_walks),
        TEST(test_random_walks_beside),
    };
    return cmocka_run_group_tests(tests, open_ledger, close_ledger);
}
