/* test_ahead.c - clean passes on a device of their own: the same K and V in both caches as passes
 * of one model leave in one, to the bit, and the same steps behind them. The keeper is the test's
 * own. */
#include "procs/dit/ahead.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "common/rng.h"
#include "ipc/latents.h"
#include "kernels/ops.h"
#include "tests/check.h"

enum { BLOCKS = 6, REGIONS_MAX = 8 };

/* --- a keeper -----------------------------------------------------------------------------------
 */

static struct {
    char name[KEEPER_NAME_MAX];
    void *data;
    uint64_t n_bytes;
} kept[REGIONS_MAX];
static int n_kept;
static bool is_refused;

static void *find(const char *name, uint64_t n_bytes)
{
    for (int i = 0; i < n_kept; i++) {
        if (strcmp(kept[i].name, name) != 0) continue;
        assert_int_equal(kept[i].n_bytes, n_bytes);
        return kept[i].data;
    }
    assert_true(n_kept < REGIONS_MAX);
    snprintf(kept[n_kept].name, sizeof kept[n_kept].name, "%s", name);
    kept[n_kept].data = check_alloc(n_bytes);
    kept[n_kept].n_bytes = n_bytes;
    return kept[n_kept++].data;
}

err_t __wrap_keeper_region(struct keeper *k, struct dev *d, const char *name, const char *device,
                           uint64_t n_bytes, uint64_t layout, const uint8_t *identity,
                           struct region *out);
err_t __wrap_keeper_region(struct keeper *k, struct dev *d, const char *name, const char *device,
                           uint64_t n_bytes, uint64_t layout, const uint8_t *identity,
                           struct region *out)
{
    (void)k;
    (void)device;
    (void)layout;
    (void)identity;
    if (is_refused && strcmp(name, "kv.0") == 0) return FAIL(ERR_REFUSED, "no way to %s", name);
    *out = (struct region){.dev = d, .generation = 7, .state = REGION_EMPTY, .n_bytes = n_bytes};
    out->data = find(name, n_bytes);
    return OK;
}

err_t __wrap_keeper_seal(struct keeper *k, struct region *r);
err_t __wrap_keeper_seal(struct keeper *k, struct region *r)
{
    (void)k;
    r->state = REGION_SEALED;
    return OK;
}

void __wrap_region_unmap(struct region *r);
void __wrap_region_unmap(struct region *r)
{
    *r = (struct region){0};
}

/* --- two stages: one of one model, one with another for clean passes ----------------------------
 */

struct side {
    struct stage st;
    struct ledger_head head; /* where weights say how far they are */
    struct dev *dev;
    struct weights *weights;
    struct dit *m;
    struct region weights_region, kv_region;
    struct kv kv;
    void *memory;
    struct tensor x, flow; /* [block, Z, Y, X] */
};

static struct rig {
    struct side plain, with;
    struct ahead *ahead;
    struct latents latents;
    int64_t n_values; /* of a latent */
    int64_t base;     /* of the sink */
    uint64_t n_kv, n_embed;
} r;

static void load_conf(struct conf *c, const char *const *sets, int32_t n_sets)
{
    assert_ok(conf_load(c, "configs/nano.ini", sets, n_sets));
}

static void open_side(struct side *s, const char *kv_name, struct dev *clean_dev)
{
    const struct conf *c = &s->st.conf;
    const int32_t B = c->dit.block, Z = c->model.latent_channels, Y = c->model.latent_rows;
    const int32_t X = c->model.latent_cols;
    assert_ok(dev_open(&s->dev, "cpu", 1));
    s->st.host = s->st.dev = s->dev;
    s->st.head = &s->head;
    s->st.clean_dev = clean_dev;
    assert_ok(ops_open(s->dev));
    ops_set_bf16(s->dev, c->model.parity == PARITY_REFERENCE);
    assert_ok(weights_open(&s->weights));
    assert_ok(dit_open(&s->m, s->dev, c, s->weights));
    assert_ok(weights_map(s->weights, &s->st, s->dev, "dit", &s->weights_region));
    assert_ok(stage_region(&s->st, s->dev, kv_name, r.n_kv, KV_LAYOUT, NULL, &s->kv_region));
    assert_ok(kv_open(&s->kv, c, DTYPE_F32, s->kv_region.data));
    assert_ok(dit_prepare(s->m, &s->kv, "1000"));
    const size_t n_bytes = (size_t)(B * r.n_values) * sizeof(float);
    assert_ok(dev_alloc(s->dev, 2 * n_bytes, &s->memory));
    s->x = TENSOR(s->memory, DTYPE_F32, B, Z, Y, X);
    s->flow = TENSOR((char *)s->memory + n_bytes, DTYPE_F32, B, Z, Y, X);
}

static void close_side(struct side *s)
{
    alarm(0); /* stage_beat's */
    dev_free(s->dev, &s->memory);
    dit_close(&s->m);
    kv_close(&s->kv);
    weights_close(&s->weights);
    ops_close(s->dev);
    dev_close(&s->dev);
}

static void fill(float *to, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) to[i] = rng_normal((struct rng_key){seed, 5}, (uint64_t)i);
}

static void open_rig(const char *const *sets, int32_t n_sets)
{
    struct dev *clean_dev = NULL;
    memset(&r, 0, sizeof r);
    load_conf(&r.plain.st.conf, sets, n_sets);
    r.with.st.conf = r.plain.st.conf;
    const struct conf *c = &r.plain.st.conf;
    r.n_values = latents_values(c);
    r.n_kv = kv_bytes(c, DTYPE_F32);
    r.n_embed = 2 * (uint64_t)c->text.text_len * (uint64_t)c->text.dim * sizeof(float);
    latents_open(&r.latents, c, find("latents.0", latents_bytes(c)));
    fill(r.latents.data, c->dit.ring_latents * r.n_values, 1);
    assert_ok(dev_open(&clean_dev, "cpu", 1));
    open_side(&r.plain, "kv.plain", NULL);
    open_side(&r.with, "kv.0", clean_dev);
    assert_ok(ahead_open(&r.ahead, &r.with.st));
}

static void close_rig(void)
{
    ahead_close(&r.ahead);
    close_side(&r.plain);
    close_side(&r.with);
    dev_close(&r.with.st.clean_dev);
    n_kept = 0;
}

static void set_prompt(int32_t parity, uint64_t seed)
{
    fill(r.plain.kv.embed[parity].data, tensor_count(r.plain.kv.embed[parity]), seed);
    memcpy(r.with.kv.embed[parity].data, r.plain.kv.embed[parity].data,
           tensor_bytes(r.plain.kv.embed[parity]));
    assert_ok(dit_set_prompt(r.plain.m, parity, 5));
    assert_ok(dit_set_prompt(r.with.m, parity, 5));
    assert_ok(ahead_set_prompt(r.ahead, parity, 5));
}

static void map(void)
{
    uint64_t generation = 0;
    assert_ok(ahead_map(r.ahead, &r.with.kv, &r.with.kv_region, &r.latents, &generation));
    assert_int_equal(generation, 7);
    assert_ok(ahead_prepare(r.ahead));
}

/* --- passes
 * --------------------------------------------------------------------------------------- */

static void step(struct side *s, int64_t block)
{
    const int32_t B = s->st.conf.dit.block;
    fill(s->x.data, tensor_count(s->x), 100 + (uint64_t)block);
    assert_ok(dit_pass(s->m, s->flow, s->x, 0, block * B, r.base));
}

static void clean_plain(int64_t first, int32_t n)
{
    struct tensor x = r.plain.x;
    x.shape[0] = n;
    x.data = latents_at(&r.latents, first);
    assert_ok(dit_pass(r.plain.m, TENSOR_NONE, x, SCHED_CLEAN, first, r.base));
}

static void clean_alone(int64_t block)
{
    const struct conf *c = &r.with.st.conf;
    const int32_t B = c->dit.block;
    assert_ok(ahead_begin(r.ahead, block * B, B, block * B, r.base));
    for (int32_t i = 0; i < c->dit.layers; i++) assert_ok(ahead_layer(r.ahead, i));
    assert_ok(ahead_end(r.ahead));
}

static void step_behind(int64_t block)
{
    const int32_t B = r.with.st.conf.dit.block;
    assert_ok(ahead_begin(r.ahead, (block - 1) * B, B, (block - 1) * B, r.base));
    dit_before_layer(r.with.m, ahead_layer, r.ahead);
    step(&r.with, block);
    dit_before_layer(r.with.m, NULL, NULL);
    assert_ok(ahead_end(r.ahead));
}

/* But for the sink's rotated keys of the last layer: only steps write them, and only they read
 * them. */
static void forget_last_sink(struct kv *kv)
{
    if (!kv->k_sink[0].data) return;
    const struct tensor t = tensor_rows(kv->k[kv->layers - 1], 0, kv->sink * kv->frame_tokens);
    memset(t.data, 0, tensor_bytes(t));
}

static void want_same_cache(const char *name)
{
    struct kv kv;
    char *plain = check_alloc(r.n_kv), *other = check_alloc(r.n_kv);
    memcpy(plain, find("kv.plain", r.n_kv), r.n_kv);
    memcpy(other, find(name, r.n_kv), r.n_kv);
    char *const both[] = {plain, other};
    for (size_t i = 0; i < 2 && strcmp(name, "kv.clean") == 0; i++) {
        assert_ok(kv_open(&kv, &r.plain.st.conf, DTYPE_F32, both[i]));
        forget_last_sink(&kv);
        kv_close(&kv);
    }
    assert_memory_equal(plain + r.n_embed, other + r.n_embed, r.n_kv - r.n_embed);
}

/* Blocks until the window has rolled; then another prompt, a recache, and two more. */
static void check_blocks(const char *const *sets, int32_t n_sets)
{
    open_rig(sets, n_sets);
    const struct conf *c = &r.with.st.conf;
    const int32_t B = c->dit.block, W = c->dit.window;
    map();
    set_prompt(0, 7);
    for (int64_t b = 0; b < BLOCKS; b++) {
        if (b == BLOCKS - 2) { /* the clean pass of the block before is skipped */
            const int64_t first = r.base = b * B > W ? b * B - W : 0;
            set_prompt(1, 8);
            clean_plain(first, (int32_t)(b * B - first));
            assert_ok(ahead_recache(r.ahead, first, (int32_t)(b * B - first), first, r.base));
            assert_ok(ahead_end(r.ahead));
            want_same_cache("kv.clean");
            memcpy(find("kv.0", r.n_kv), find("kv.plain", r.n_kv), r.n_kv);
            step(&r.with, b);
        } else if (b > 0) {
            clean_plain((b - 1) * B, B);
            step_behind(b);
        } else {
            step(&r.with, b);
        }
        step(&r.plain, b);
        want_same_cache("kv.0");
        assert_memory_equal(r.with.flow.data, r.plain.flow.data, tensor_bytes(r.plain.flow));
    }
    clean_plain((BLOCKS - 1) * B, B);
    clean_alone(BLOCKS - 1);
    want_same_cache("kv.0");
    want_same_cache("kv.clean");
    close_rig();
}

static void test_the_same_bits(void **state)
{
    (void)state;
    const char *const absolute[] = {"dit.window=9", "dit.global_sink=false"};
    const char *const relative[] = {"dit.window=9", "dit.rope=relative", "dit.global_sink=false"};
    const char *const straddling[] = {"dit.window=10", "dit.sink=1", "dit.rope=relative",
                                      "dit.global_sink=false"};
    check_blocks(absolute, COUNT(absolute));
    check_blocks(relative, COUNT(relative));
    check_blocks(straddling, COUNT(straddling));
}

/* What the pass reads is not what steps write: made again after the step it is the same. */
static void test_made_again(void **state)
{
    (void)state;
    open_rig((const char *const[]){"dit.window=6"}, 1);
    map();
    set_prompt(0, 7);
    step(&r.with, 0);
    step_behind(1);
    step_behind(2);
    step_behind(3);
    char *before = check_alloc(r.n_kv);
    memcpy(before, find("kv.0", r.n_kv), r.n_kv);
    step_behind(3);
    assert_memory_equal(before, find("kv.0", r.n_kv), r.n_kv);
    close_rig();
}

static void test_no_way_to_the_cache(void **state)
{
    (void)state;
    uint64_t generation = 0;
    open_rig((const char *const[]){"place.clean=cpu"}, 1);
    is_refused = true;
    const err_t e = ahead_map(r.ahead, &r.with.kv, &r.with.kv_region, &r.latents, &generation);
    is_refused = false;
    assert_int_equal(e, ERR_REFUSED);
    assert_string_equal(err_text(), "place.clean = cpu: no way to kv.0");
    close_rig();
}

/* Memory of the process itself, where none is shared: nothing is mapped a second time. */
static void test_memory_of_its_own(void **state)
{
    (void)state;
    open_rig(NULL, 0);
    is_refused = true;
    r.with.kv_region.is_own = true;
    map();
    is_refused = false;
    set_prompt(0, 7);
    step(&r.plain, 0);
    clean_plain(0, r.with.st.conf.dit.block);
    clean_alone(0);
    want_same_cache("kv.0");
    close_rig();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_same_bits),
        TEST(test_made_again),
        TEST(test_no_way_to_the_cache),
        TEST(test_memory_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
