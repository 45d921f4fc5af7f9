/* stage.c - `bench-stage NAME RUNS < config.ini`: one stage alone, on synthetic input, as a JSON
 * object on standard output. What `longlived bench --stage` runs; what the figures mean is in
 * docs/BENCHMARKS.md.
 *
 * Where the time of a pass goes is told by runs in which the device marks the begin of each op,
 * by turns with plain ones. A recorded pass has no such places, so on a GPU its ops are queued one
 * by one for that; how long the recorded one takes stands beside it.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/parts.h"
#include "bench/rates.h"
#include "bench/rig.h"
#include "common/clock.h"
#include "common/stats.h"
#include "ipc/prompts.h"
#include "kernels/ops.h"
#include "procs/supervisor/results.h"

enum { OPS_MAX = 8192, SHAPE_MAX = 40, RUNS_MAX = 1001, WARM_UPS = 3 };
enum { TOKENS_SHORT = 64 }; /* of a prompt of a sentence or three */

/* One way to run a stage, plain or watched. */
struct pass {
    const char *name;
    err_t (*run)(void *self);
    void *self;
    struct dev *d;
    const char *(*part)(struct parts *p, const char *op, const struct tensor *t);
    struct parts parts;
};

struct stage_bench {
    struct conf conf;
    int32_t n_runs;
    double flop_rate; /* the best of the device's matrix product so far, a nanosecond */
    json_t *out, *passes;
    int64_t took_ns[RUNS_MAX];
    /* of the watched run: */
    struct pass *pass;
    struct dev_marks *marks;
    int32_t n_ops;
    const char *op[OPS_MAX], *part[OPS_MAX];
    char shape[OPS_MAX][SHAPE_MAX];
    double flops[OPS_MAX], bytes[OPS_MAX];
    int64_t at_ns[OPS_MAX + 2];
    err_t e;
};

static void put_ms(json_t *o, const char *key, double ns)
{
    json_object_set_new(o, key, json_real(ns / NS_PER_MS));
}

static void add(json_t *o, const char *key, double v)
{
    json_object_set_new(o, key, json_real(json_number_value(json_object_get(o, key)) + v));
}

static void add_ms(json_t *o, const char *key, double ns)
{
    add(o, key, ns / NS_PER_MS);
}

/* --- timing ----------------------------------------------------------------------------------- */

static err_t time_one(err_t (*run)(void *), void *self, int64_t *ns)
{
    const int64_t began_ns = now_ns();
    const err_t e = run(self);
    *ns = now_ns() - began_ns;
    return e;
}

/* A series NAME_ms of plain runs. */
static err_t put_series(struct stage_bench *b, const char *name, err_t (*run)(void *), void *self)
{
    err_t e = OK;
    char key[48];
    for (int32_t i = 0; i < WARM_UPS; i++) TRY(run(self));
    for (int32_t i = 0; i < b->n_runs; i++) TRY(time_one(run, self, &b->took_ns[i]));
    snprintf(key, sizeof key, "%s_ms", name);
    json_object_set_new(b->out, key, results_stats(b->took_ns, b->n_runs));
out:
    return e;
}

static void see(void *self, const char *op, const struct tensor *t, size_t n)
{
    struct stage_bench *b = self;
    if (b->e != OK) return;
    if (b->n_ops == OPS_MAX) {
        b->e = FAIL(ERR_LIMIT, "%s: more than %d ops", b->pass->name, OPS_MAX);
        return;
    }
    b->op[b->n_ops] = op;
    b->part[b->n_ops] = b->pass->part(&b->pass->parts, op, t);
    b->flops[b->n_ops] = parts_flops(op, t);
    b->bytes[b->n_ops] = parts_bytes(op, t, n);
    parts_shape(op, t, b->shape[b->n_ops], SHAPE_MAX);
    b->n_ops++;
    b->e = dev_mark(b->pass->d, b->marks, b->n_ops);
}

/* Mark 0 at the begin, one at the begin of each op, one at the end. */
static err_t run_watched(struct stage_bench *b)
{
    err_t e = OK;
    struct dev *d = b->pass->d;
    b->n_ops = 0;
    b->pass->parts.section = NULL;
    TRY(dev_mark(d, b->marks, 0));
    ops_watch(see, b);
    e = b->pass->run(b->pass->self);
    ops_watch(NULL, NULL);
    if (e == OK) e = b->e;
    if (e != OK) goto out;
    TRY(dev_mark(d, b->marks, b->n_ops + 1));
    TRY(dev_sync(d));
    TRY(dev_marks_read(d, b->marks, b->n_ops + 2, b->at_ns));
out:
    return e;
}

/* The row of an op and shape; a new one behind the others. */
static json_t *row_of(json_t *rows, const char *op, const char *shape)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (strcmp(json_string_value(json_object_get(row, "op")), op) == 0 &&
            strcmp(json_string_value(json_object_get(row, "shape")), shape) == 0)
            return row;
    }
    row = json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:f}", "op", op, "shape", shape, "n", 0, "ms",
                    0.0, "floor_ms", 0.0, "gflop", 0.0, "mb", 0.0);
    json_array_append_new(rows, row);
    return row;
}

/* One call more: its time and its work. */
static void add_call(struct stage_bench *b, json_t *rows, int32_t i, double ns)
{
    json_t *row = row_of(rows, b->op[i], b->shape[i]);
    json_object_set_new(row, "n", json_integer(json_integer_value(json_object_get(row, "n")) + 1));
    add_ms(row, "ms", ns);
    add_ms(row, "floor_ms", b->flops[i]);
    add(row, "gflop", b->flops[i] / 1e9);
    add(row, "mb", b->bytes[i] / 1e6);
}

/* All parts of one watched run, so that they sum to its whole. */
static void put_parts(struct stage_bench *b, json_t *o, const int64_t *at_ns)
{
    json_t *parts = json_object(), *ops = json_object(), *floors = json_object();
    json_t *rows = json_array();
    add_ms(parts, "other", (double)at_ns[1]); /* before the first op: what is uploaded */
    for (int32_t i = 0; i < b->n_ops; i++) {
        const double ns = (double)(at_ns[i + 2] - at_ns[i + 1]);
        add_ms(parts, b->part[i], ns);
        add_ms(ops, b->op[i], ns);
        add_call(b, rows, i, ns);
        if (b->flops[i] > 0) add_ms(floors, b->part[i], b->flops[i]);
    }
    json_object_set_new(o, "parts", parts);
    json_object_set_new(o, "ops", ops);
    json_object_set_new(o, "floors", floors);
    json_object_set_new(o, "rows", rows);
    json_object_set_new(o, "n_ops", json_integer(b->n_ops));
}

static int64_t median(const int64_t *ns, int32_t n)
{
    int64_t sorted[RUNS_MAX];
    memcpy(sorted, ns, (size_t)n * sizeof *ns);
    return stats_of(sorted, n).p50;
}

/* Plain and watched runs by turns, and the parts of the watched one whose whole is their median.
 * recorded_ns above 0: the median of the recorded pass. */
static err_t put_pass(struct stage_bench *b, struct pass *p, int64_t recorded_ns)
{
    err_t e = OK;
    const int32_t n = b->n_runs;
    int64_t whole_ns[RUNS_MAX], *at_ns = NULL;
    json_t *o = json_object();
    json_object_set_new(b->passes, p->name, o);
    b->pass = p;
    TRY(dev_marks_open(p->d, &b->marks, OPS_MAX + 2));
    for (int32_t i = 0; i < WARM_UPS; i++) TRY(run_watched(b));
    const size_t n_marks = (size_t)b->n_ops + 2;
    at_ns = calloc((size_t)n * n_marks, sizeof *at_ns);
    if (!at_ns) {
        e = FAIL(ERR_NOMEM, "runs");
        goto out;
    }
    for (int32_t i = 0; i < n; i++) {
        TRY(time_one(p->run, p->self, &b->took_ns[i]));
        TRY(run_watched(b));
        MUST((size_t)b->n_ops + 2 == n_marks);
        memcpy(at_ns + (size_t)i * n_marks, b->at_ns, n_marks * sizeof *at_ns);
        whole_ns[i] = b->at_ns[n_marks - 1];
    }
    const double plain = (double)median(b->took_ns, n), sum = (double)median(whole_ns, n);
    int32_t at = 0;
    while (whole_ns[at] != (int64_t)sum) at++;
    put_ms(o, "plain_ms", plain);
    if (recorded_ns > 0) put_ms(o, "recorded_ms", (double)recorded_ns);
    put_ms(o, "sum_ms", sum);
    json_object_set_new(o, "sum_of_plain", json_real(sum / plain));
    json_object_set_new(o, "is_within_3_percent", json_boolean(fabs(sum / plain - 1) < 0.03));
    put_parts(b, o, at_ns + (size_t)at * n_marks);
out:
    dev_marks_close(p->d, &b->marks);
    free(at_ns);
    return e;
}

/* --- the ceiling ------------------------------------------------------------------------------ */

/* Some more tries; by now and then over the run, so that not all of them meet a slow moment. */
static err_t raise_ceiling(struct stage_bench *b, struct dev *d)
{
    return rates_product(d, dit_act(&b->conf, d), &b->flop_rate);
}

static void scale(json_t *o, const char *key, double by)
{
    json_object_set_new(o, key, json_real(json_number_value(json_object_get(o, key)) * by));
}

/* Until the ceiling is known a floor is its FLOP in millions, the milliseconds at 1 a nanosecond.
 */
static void put_floors(struct stage_bench *b)
{
    const char *name, *part;
    json_t *pass, *floor, *row;
    size_t i;
    if (b->flop_rate == 0) return; /* of copies there is none */
    json_object_set_new(b->out, "ceiling_tflops", json_real(b->flop_rate / 1e3));
    json_object_foreach(b->passes, name, pass)
    {
        json_t *floors = json_object_get(pass, "floors");
        json_object_foreach(floors, part, floor) scale(floors, part, 1 / b->flop_rate);
        json_array_foreach(json_object_get(pass, "rows"), i, row)
            scale(row, "floor_ms", 1 / b->flop_rate);
    }
}

static err_t run_sync(void *self)
{
    return dev_sync(self);
}

/* --- stages ----------------------------------------------------------------------------------- */

struct hit {
    struct dev *d;
    struct prompts *table;
    uint8_t key[PROMPT_KEY_BYTES];
    float *row;
    struct tensor to;
};

/* What a decision does for a prompt that is in the table. */
static err_t run_hit(void *self)
{
    err_t e = OK;
    struct hit *h = self;
    int32_t n, n_full;
    const int32_t at = prompts_find(h->table, h->key);
    if (at < 0 || !prompts_copy(h->table, at, h->key, h->row, &n, &n_full))
        return FAIL(ERR_BUG, "the table has lost its entry");
    TRY(dev_upload(h->d, h->to.data, h->row, tensor_bytes(h->to)));
    TRY(dev_sync(h->d));
out:
    return e;
}

static err_t put_hit(struct stage_bench *b, struct dev *d)
{
    err_t e = OK;
    struct conf c = b->conf;
    struct hit h = {.d = d};
    void *memory = NULL;
    c.cache.prompts = 1;
    const size_t n_bytes = (size_t)c.text.text_len * (size_t)c.text.dim * sizeof(float);
    h.table = calloc(1, (size_t)prompts_bytes(&c));
    h.row = malloc(n_bytes);
    if (!h.table || !h.row) {
        e = FAIL(ERR_NOMEM, "prompts");
        goto out;
    }
    prompts_format(h.table, &c);
    memset(prompts_begin(h.table, 0), 0, n_bytes);
    prompts_commit(h.table, 0, h.key, 1, 1);
    TRY(dev_alloc(d, n_bytes, &memory));
    h.to = TENSOR(memory, DTYPE_F32, c.text.text_len, c.text.dim);
    TRY(put_series(b, "hit", run_hit, &h));
out:
    dev_free(d, &memory);
    free(h.table);
    free(h.row);
    return e;
}

static err_t bench_text(struct stage_bench *b, const struct conf *c, bool is_watched)
{
    err_t e = OK;
    struct rig_text t = {0};
    TRY(rig_text_open(&t, c, c->place.text));
    TRY(raise_ceiling(b, t.rig.d));
    if (!is_watched) {
        TRY(put_series(b, "sync", run_sync, t.rig.d));
        TRY(put_hit(b, t.rig.d));
        TRY(put_series(b, "miss", rig_text_run, &t));
        json_object_set_new(b->out, "tokens", json_integer(t.n));
        t.n = t.n < TOKENS_SHORT ? t.n : TOKENS_SHORT;
        TRY(put_series(b, "short", rig_text_run, &t));
        json_object_set_new(b->out, "short_tokens", json_integer(t.n));
    } else {
        struct pass p = {"encode", rig_text_run, &t, t.rig.d, parts_of_text, {0}};
        TRY(put_pass(b, &p, 0)); /* never recorded */
    }
    TRY(raise_ceiling(b, t.rig.d));
out:
    rig_text_close(&t);
    return e;
}

static int64_t recorded(const struct stage_bench *b, const struct dev *d, const char *series)
{
    const json_t *s = json_object_get(b->out, series);
    if (dev_kind(d) == DEV_CPU || !b->conf.gpu.graphs) return 0;
    return (int64_t)(json_number_value(json_object_get(s, "p50")) * NS_PER_MS);
}

static err_t bench_dit(struct stage_bench *b, const struct conf *c, bool is_watched)
{
    err_t e = OK;
    struct rig_dit t = {0};
    TRY(rig_dit_open(&t, c, c->place.dit));
    const struct sched *s = dit_sched(t.model);
    struct dev *d = t.rig.d;
    TRY(raise_ceiling(b, d));
    if (!is_watched) {
        TRY(put_series(b, "sync", run_sync, d));
        TRY(put_series(b, "block", rig_dit_block, &t));
        for (t.step = 0; t.step < s->n_steps; t.step++) {
            char name[24];
            snprintf(name, sizeof name, "step_%d", t.step);
            TRY(put_series(b, name, rig_dit_pass, &t));
        }
        t.step = SCHED_CLEAN;
        TRY(put_series(b, "clean", rig_dit_pass, &t));
        TRY(put_series(b, "recache", rig_dit_recache, &t));
        json_object_set_new(b->out, "recached_latents", json_integer(rig_dit_recached(&t)));
    } else {
        struct pass p = {"step", rig_dit_pass, &t, d, parts_of_dit, {0}};
        t.step = 0;
        TRY(put_pass(b, &p, recorded(b, d, "step_0_ms")));
        t.step = SCHED_CLEAN;
        p.name = "clean";
        TRY(put_pass(b, &p, recorded(b, d, "clean_ms")));
        p.name = "recache";
        p.run = rig_dit_recache;
        TRY(put_pass(b, &p, recorded(b, d, "recache_ms")));
    }
    TRY(raise_ceiling(b, d));
out:
    rig_dit_close(&t);
    return e;
}

static err_t bench_vae(struct stage_bench *b, const struct conf *c, bool is_watched)
{
    err_t e = OK;
    struct rig_vae t = {0};
    TRY(rig_vae_open(&t, c, c->place.vae));
    TRY(rig_vae_run(&t)); /* a session's first latent is another one */
    TRY(raise_ceiling(b, t.rig.d));
    if (!is_watched) {
        TRY(put_series(b, "sync", run_sync, t.rig.d));
        TRY(put_series(b, "latent", rig_vae_run, &t));
    } else {
        const struct parts size = {c->model.latent_rows, c->model.latent_cols, NULL};
        struct pass p = {"latent", rig_vae_run, &t, t.rig.d, parts_of_vae, size};
        TRY(put_pass(b, &p, recorded(b, t.rig.d, "latent_ms")));
    }
    TRY(raise_ceiling(b, t.rig.d));
out:
    rig_vae_close(&t);
    return e;
}

/* What goes from one stage to the next, on its device and in host memory that is pinned, as the
 * regions are. */
struct edge {
    struct dev *d;
    char *device, *host;
    size_t latent_bytes, frame_bytes;
    int32_t n_latents;
};

/* dit's side: a block's latents to the ring on the device and to that of the host. */
static err_t run_latents_out(void *self)
{
    err_t e = OK;
    struct edge *g = self;
    const size_t n = g->latent_bytes;
    for (int32_t i = 0; i < g->n_latents; i++) {
        char *const from = g->device + (size_t)i * n;
        TRY(dev_copy(g->d, g->device + (size_t)(g->n_latents + i) * n, from, n));
        TRY(dev_download(g->d, g->host + (size_t)i * n, from, n));
    }
    TRY(dev_sync(g->d));
out:
    return e;
}

/* vae's, where there is no ring on the device. */
static err_t run_latent_in(void *self)
{
    struct edge *g = self;
    const err_t e = dev_upload(g->d, g->device, g->host, g->latent_bytes);
    return e == OK ? dev_sync(g->d) : e;
}

static err_t run_frames_out(void *self)
{
    err_t e = OK;
    struct edge *g = self;
    for (int i = 0; i < VAE_FRAMES_MAX; i++)
        TRY(dev_download(g->d, g->host + (size_t)i * g->frame_bytes,
                         g->device + (size_t)i * g->frame_bytes, g->frame_bytes));
    TRY(dev_sync(g->d));
out:
    return e;
}

static err_t edge_open(struct edge *g, const struct conf *c, const char *place)
{
    err_t e = OK;
    void *at = NULL;
    g->n_latents = c->dit.block;
    g->latent_bytes = tensor_bytes(TENSOR(NULL, DTYPE_F32, c->model.latent_channels,
                                          c->model.latent_rows, c->model.latent_cols));
    g->frame_bytes = (size_t)conf_frame_bytes(c);
    const size_t n_bytes =
        2 * (size_t)g->n_latents * g->latent_bytes + VAE_FRAMES_MAX * g->frame_bytes;
    TRY(dev_open(&g->d, place, c->cpu.threads));
    TRY(dev_alloc(g->d, n_bytes, &at));
    g->device = at;
    if (posix_memalign(&at, 4096, n_bytes) != 0) return FAIL(ERR_NOMEM, "edge");
    g->host = memset(at, 0, n_bytes);
    TRY(dev_pin(g->d, g->host, n_bytes));
out:
    return e;
}

static void edge_close(struct edge *g)
{
    void *at = g->device;
    if (!g->d) return;
    dev_unpin(g->d, g->host);
    dev_free(g->d, &at);
    free(g->host);
    dev_close(&g->d);
}

static err_t bench_edge(struct stage_bench *b, const struct conf *c, bool is_watched)
{
    err_t e = OK;
    struct edge dit = {0}, vae = {0};
    if (is_watched) return OK; /* copies, no ops */
    TRY(edge_open(&dit, c, c->place.dit));
    TRY(put_series(b, "sync", run_sync, dit.d));
    TRY(put_series(b, "latents_out", run_latents_out, &dit));
    edge_close(&dit);
    TRY(edge_open(&vae, c, c->place.vae));
    TRY(put_series(b, "latent_in", run_latent_in, &vae));
    TRY(put_series(b, "frames_out", run_frames_out, &vae));
    json_object_set_new(b->out, "latent_bytes", json_integer((json_int_t)vae.latent_bytes));
    json_object_set_new(b->out, "frame_bytes", json_integer((json_int_t)vae.frame_bytes));
out:
    edge_close(&dit);
    edge_close(&vae);
    return e;
}

static const struct {
    const char *name;
    err_t (*run)(struct stage_bench *b, const struct conf *c, bool is_watched);
} stages[] = {{"text", bench_text}, {"dit", bench_dit}, {"vae", bench_vae}, {"edge", bench_edge}};

static err_t run_stage(struct stage_bench *b, const char *name)
{
    err_t e = OK;
    struct conf eager = b->conf;
    eager.gpu.graphs = false;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        if (strcmp(stages[i].name, name) != 0) continue;
        TRY(stages[i].run(b, &b->conf, false));
        TRY(stages[i].run(b, &eager, true));
        return OK;
    }
    e = FAIL(ERR_USAGE, "bench-stage %s: text, dit, vae or edge", name);
out:
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct stage_bench *b = calloc(1, sizeof *b);
    if (!b) return err_exit_status(FAIL(ERR_NOMEM, "bench"));
    b->out = json_object();
    b->passes = json_object();
    if (argc == 3) b->n_runs = atoi(argv[2]);
    if (b->n_runs < 1 || b->n_runs > RUNS_MAX)
        e = FAIL(ERR_USAGE, "usage: bench-stage text|dit|vae|edge RUNS < config.ini");
    if (e == OK) e = conf_load(&b->conf, "/dev/stdin", NULL, 0);
    if (e == OK) e = run_stage(b, argv[1]);
    put_floors(b);
    if (json_object_size(b->passes)) json_object_set(b->out, "passes", b->passes);
    if (e == OK) json_dumpf(b->out, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    else fprintf(stderr, "longlived: %s\n", err_text());
    json_decref(b->passes);
    json_decref(b->out);
    free(b);
    return err_exit_status(e);
}
