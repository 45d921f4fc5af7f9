/* cmd_bench_phases.c - the phases of bench's protocols: which job, and which series of its times.
 * What the words mean is in docs/BENCHMARKS.md. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "procs/supervisor/cmd_bench.h"
#include "procs/supervisor/results.h"
#include "procs/supervisor/variants.h"

enum {
    WARM = 50,
    STEADY = 1000,
    STEADY_QUICK = 100,
    SWITCHES = 50,
    SWITCHES_QUICK = 10,
    SWITCH_EVERY = 11, /* ten under the old prompt, one under the new */
    THROUGHPUT_S = 60,
    THROUGHPUT_S_QUICK = 10,
    CALLS_MAX = 2400, /* a ledger has room for 4,096 sessions */
    BREAKDOWN = 100,
    VIDEOS = 5,
    VIDEOS_QUICK = 1,
    VIDEO_LATENTS = 120, /* in whole blocks */
    LIVE_BLOCKS = 500,
    LIVE_BLOCKS_QUICK = 30,
    GANTT_BLOCKS = 3
};

/* --- helpers ---------------------------------------------------------------------------------- */

static const struct ledger *ledger_of(const struct bench *b)
{
    return pipeline_ledger(&b->p);
}

static void put_ms(json_t *o, const char *key, double ns)
{
    json_object_set_new(o, key, json_real(ns / NS_PER_MS));
}

static void put_number(json_t *o, const char *key, double v)
{
    json_object_set_new(o, key, json_real(v));
}

/* Room for any series of these times. */
static err_t alloc_series(const struct times *t, int64_t **out)
{
    const int64_t n = t->n_frames + t->n_blocks * t->n_per_block;
    *out = malloc(((size_t)n + 1) * sizeof **out);
    return *out ? OK : FAIL(ERR_NOMEM, "series");
}

/* What everybody did while a few blocks were made, for a picture of it. */
static void put_spans(struct bench *b, const struct times *t, int64_t from, json_t *o)
{
    json_t *list = json_array();
    const int64_t to = from + GANTT_BLOCKS < t->n_blocks ? from + GANTT_BLOCKS : t->n_blocks;
    const int64_t begin_ns = t->block[from].began_ns, end_ns = t->block[to - 1].ready_ns;
    for (int w = 0; w < WRITERS; w++) {
        const struct trace_list *spans = &b->trace.of[w];
        for (int64_t i = 0; i < spans->n; i++) {
            const struct ledger_span *s = &spans->v[i];
            if (s->ended_ns <= begin_ns || s->began_ns >= end_ns) continue;
            json_array_append_new(
                list, json_pack("{s:s, s:s, s:I, s:i, s:f, s:f}", "stage", ledger_writer_names[w],
                                "phase", ledger_phase_names[s->phase], "unit", (json_int_t)s->unit,
                                "part", (int)s->part, "began_ms",
                                (double)(s->began_ns - begin_ns) / NS_PER_MS, "ended_ms",
                                (double)(s->ended_ns - begin_ns) / NS_PER_MS));
        }
    }
    json_object_set_new(o, "spans", list);
}

/* --- seed ------------------------------------------------------------------------------------- */

/* fresh: calls, each from an empty window. steady: blocks of one stream, window full. */
enum series { FRESH, STEADY_STREAM, SERIES };
static const char *const series_names[SERIES] = {"fresh", "steady"};

static err_t run_series(struct bench *b, enum series which, const struct protocol_length *n,
                        int64_t limit_ns, struct times *t)
{
    err_t e = OK;
    struct job *job = NULL;
    const struct bench_until until = {.n_warm = n->n_warm, .limit_ns = limit_ns};
    if (which == FRESH) TRY(protocol_calls(&job, &b->p.conf, n));
    else TRY(protocol_stream(&job, &b->p.conf, n));
    TRY(bench_job(b, job, &until, t, NULL));
out:
    job_free(&job);
    return e;
}

/* Pixel frames of a block: 12 in a stream, 9 of a call. */
static int64_t px_of(const struct bench *b, enum series which)
{
    const int64_t n = b->p.conf.dit.block;
    return which == FRESH ? ledger_frames_of(n) : 4 * n;
}

/* The names that the seed's files have, whatever a phase adds to them. */
static json_t *series_object(struct bench *b, enum series which)
{
    char at[32];
    const time_t now = time(NULL);
    json_t *o = bench_object(b->run, series_names[which]);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    json_object_set_new(o, "pipeline_type", json_string("longlived"));
    json_object_set_new(o, "preset", json_string(variants_preset(b->args)));
    json_object_set_new(o, "device", json_string(b->p.conf.place.dit));
    json_object_set_new(o, "timestamp", json_string(at));
    json_object_set_new(o, "latents_per_call", json_integer(b->p.conf.dit.block));
    json_object_set_new(o, "px_frames_per_call", json_integer((json_int_t)px_of(b, which)));
    bench_put_memory(b, o);
    return o;
}

static void put_components(json_t *o, const struct components *c)
{
    json_t *list = json_object();
    char name[32];
    for (int i = 0; i < TIMES_STEPS_MAX; i++) {
        snprintf(name, sizeof name, "denoise_step_%d", i);
        if (i < 4 || c->step_ns[i] > 0) put_ms(list, name, c->step_ns[i]);
    }
    put_ms(list, "vae_decode", c->decode_ns);
    put_ms(list, "kv_cache_ops", c->kv_ns);
    put_ms(list, "prompt_encode", c->encode_ns);
    put_ms(list, "sync_overhead", c->sync_ns);
    json_object_set_new(o, "components", list);
}

static void put_hand_offs(const struct times *t, int64_t *v, json_t *o)
{
    json_t *list = json_object();
    json_object_set_new(list, "dit_to_vae", results_stats(v, measure_dit_to_vae(t, v)));
    json_object_set_new(list, "vae_to_gateway", results_stats(v, measure_vae_to_gateway(t, v)));
    json_object_set_new(o, "hand_off_ms", list);
}

static err_t steady_state(struct bench *b, int series)
{
    err_t e = OK;
    struct times t = {0};
    int64_t *v = NULL;
    const enum series which = (enum series)series;
    const int64_t n = b->args->quick ? STEADY_QUICK : STEADY;
    const struct protocol_length length = {.n_blocks = WARM + n, .n_warm = WARM};
    TRY(run_series(b, which, &length, 0, &t));
    TRY(alloc_series(&t, &v));
    json_t *o = series_object(b, which);
    const int64_t n_gaps = measure_gaps(&t, WARM, WARM + n, v);
    results_put_seed(o, "ss", v, n_gaps);
    json_object_set_new(o, "call_ms", results_stats(v, n_gaps));
    for (int64_t i = 0; i < n_gaps; i++) v[i] /= px_of(b, which);
    json_object_set_new(o, "px_frame_ms", results_stats(v, n_gaps));
    const double max_ms = json_number_value(json_object_get(o, "ss_max"));
    json_object_set_new(o, "meets_40ms", json_boolean(max_ms <= 40));
    const bool is_overlapped = which == STEADY_STREAM && conf_overlaps(&b->p.conf);
    const struct components c =
        measure_components(&t, &b->trace, WARM + n - BREAKDOWN, WARM + n, is_overlapped);
    put_components(o, &c);
    put_hand_offs(&t, v, o);
    put_spans(b, &t, WARM + n - GANTT_BLOCKS - 1, o);
out:
    times_free(&t);
    free(v);
    return e;
}

/* The last decision for the block. */
static int64_t decision_of(const struct ledger *l, int64_t block)
{
    int64_t i = (int64_t)ledger_read(&l->dit.n_decisions) - 1;
    while (i >= 0 && l->decisions[i].block != block) i--;
    return i;
}

/* A fresh switch is a whole call, from the request; a steady one is what the new prompt costs: its
 * encoding, and from its decision to its first frame. */
static err_t switch_series(struct bench *b, enum series which, const struct protocol_length *length,
                           const struct times *t, int64_t *v)
{
    const struct ledger *l = ledger_of(b);
    struct switch_times s;
    double parts[6] = {0};
    static const char *const names[6] = {"encode",  "prompt", "recache",
                                         "denoise", "decode", "other"};
    int64_t n = 0;
    for (int64_t i = WARM; i < length->n_blocks; i++) {
        if (!protocol_is_switch(length, i)) continue;
        const int64_t d = decision_of(l, t->first_block + i);
        if (d < 0 || !measure_switch(t, &b->trace, l, &b->p.conf, d, &s))
            return FAIL(ERR_BUG, "switch at block %lld: not in the trace", (long long)i);
        v[n++] =
            which == FRESH ? s.whole_ns : s.encoder_ns + s.asked_ns + s.total_ns - s.decided_ns;
        const int64_t all[6] = {s.encoder_ns, s.prompt_ns, s.recache_ns,
                                s.denoise_ns, s.decode_ns, s.other_ns};
        for (int k = 0; k < 6; k++) parts[k] += (double)all[k];
    }
    json_t *o = series_object(b, which), *list = json_object();
    results_put_seed(o, "ps", v, n);
    json_object_set_new(o, "switch_ms", results_stats(v, n));
    for (int k = 0; k < 6; k++) put_ms(list, names[k], parts[k] / (double)n);
    json_object_set_new(o, "switch_parts_ms", list);
    return OK;
}

static err_t seed_prompt_switch(struct bench *b, int series)
{
    err_t e = OK;
    struct times t = {0};
    int64_t *v = NULL;
    const enum series which = (enum series)series;
    const int64_t n = b->args->quick ? SWITCHES_QUICK : SWITCHES;
    const struct protocol_length length = {
        .n_blocks = WARM + n * SWITCH_EVERY, .n_warm = WARM, .switch_every = SWITCH_EVERY};
    TRY(run_series(b, which, &length, 0, &t));
    TRY(alloc_series(&t, &v));
    TRY(switch_series(b, which, &length, &t, v));
out:
    times_free(&t);
    free(v);
    return e;
}

/* Blocks that were ready within the limit after the last warm one, and the one that crossed it. */
static err_t throughput(struct bench *b, int series)
{
    err_t e = OK;
    struct times t = {0};
    const enum series which = (enum series)series;
    const int64_t limit_ns =
        (int64_t)(b->args->quick ? THROUGHPUT_S_QUICK : THROUGHPUT_S) * NS_PER_S;
    const struct protocol_length length = {.n_blocks = which == FRESH ? WARM + CALLS_MAX : 0,
                                           .n_warm = WARM};
    TRY(run_series(b, which, &length, limit_ns, &t));
    const int64_t begin_ns = t.block[WARM - 1].ready_ns;
    int64_t last = WARM;
    while (last + 1 < t.n_blocks && t.block[last + 1].ready_ns > 0 &&
           t.block[last].ready_ns - begin_ns < limit_ns)
        last++;
    const double s = (double)(t.block[last].ready_ns - begin_ns) / NS_PER_S;
    const int64_t n = last - WARM + 1;
    json_t *o = series_object(b, which);
    put_number(o, "fps", (double)(n * t.n_per_block) / s);
    put_number(o, "px_fps", (double)(n * px_of(b, which)) / s);
    json_object_set_new(o, "total_frames", json_integer((json_int_t)(n * t.n_per_block)));
    json_object_set_new(o, "px_total_frames", json_integer((json_int_t)(n * px_of(b, which))));
    put_number(o, "duration_s", s);
out:
    times_free(&t);
    return e;
}

/* --- paper ------------------------------------------------------------------------------------ */

enum { SPEEDS = 3 };
static const char *const speed_names[SPEEDS] = {"px_fps", "px_fps_without_text",
                                                "px_fps_without_text_and_vae"};

static void put_video(struct bench *b, const struct times *t, int64_t from, int64_t to,
                      json_t *list, double sum[SPEEDS])
{
    const struct ledger *l = ledger_of(b);
    const int64_t d = decision_of(l, t->first_block + from);
    const int64_t asked_ns = l->scripts[l->decisions[d].script].asked_ns;
    const int64_t end_ns = t->block[to - 1].ready_ns;
    const int64_t took_ns[SPEEDS] = {end_ns - asked_ns, end_ns - t->block[from].began_ns,
                                     measure_dit_busy(t, from, to)};
    const int64_t n = ledger_frames_of((to - from) * t->n_per_block);
    json_t *o = json_object();
    json_object_set_new(o, "latents", json_integer((json_int_t)((to - from) * t->n_per_block)));
    json_object_set_new(o, "px_frames", json_integer((json_int_t)n));
    put_number(o, "seconds", (double)took_ns[0] / NS_PER_S);
    for (int k = 0; k < SPEEDS; k++) {
        const double fps = (double)n * NS_PER_S / (double)took_ns[k];
        put_number(o, speed_names[k], fps);
        sum[k] += fps;
    }
    json_array_append_new(list, o);
}

/* Videos one after the other, the first of which warms up. */
static err_t videos(struct bench *b, int series)
{
    err_t e = OK;
    (void)series;
    struct times t = {0};
    struct job *job = NULL;
    int64_t *v = NULL;
    double sum[SPEEDS] = {0};
    const int64_t n = b->args->quick ? VIDEOS_QUICK : VIDEOS;
    const int64_t n_blocks = VIDEO_LATENTS / b->p.conf.dit.block;
    const struct bench_until until = {0};
    const struct protocol_length length = {.n_blocks = 1 + n, .call_blocks = n_blocks};
    TRY(protocol_calls(&job, &b->p.conf, &length));
    TRY(bench_job(b, job, &until, &t, NULL));
    TRY(alloc_series(&t, &v));
    json_t *list = json_array();
    json_object_set_new(b->run, "videos", list);
    for (int64_t i = 1; i <= n; i++) put_video(b, &t, i * n_blocks, (i + 1) * n_blocks, list, sum);
    for (int k = 0; k < SPEEDS; k++) put_number(b->run, speed_names[k], sum[k] / (double)n);
    const int64_t n_latents = n_blocks * b->p.conf.dit.block;
    put_number(b->run, "latent_fps",
               sum[0] / (double)n * (double)n_latents / (double)ledger_frames_of(n_latents));
    const int64_t n_gaps = measure_gaps(&t, n * n_blocks, (n + 1) * n_blocks, v);
    json_object_set_new(b->run, "block_ms", results_stats(v, n_gaps));
    put_spans(b, &t, n * n_blocks + n_blocks / 2, b->run);
    bench_put_memory(b, b->run);
out:
    times_free(&t);
    job_free(&job);
    free(v);
    return e;
}

/* --- stream ----------------------------------------------------------------------------------- */

/* From what a viewer waits for to the first frame of one block. */
static err_t first_frame(struct bench *b, json_t *o)
{
    err_t e = OK;
    struct times t = {0};
    struct job *job = NULL;
    int64_t given_ns = 0;
    const struct bench_until until = {0};
    TRY(protocol_calls(&job, &b->p.conf, &(struct protocol_length){.n_blocks = 1}));
    TRY(bench_job(b, job, &until, &t, &given_ns));
    if (b->exec_ns > 0) put_ms(o, "cold", (double)(t.put_ns[0] - b->exec_ns));
    else put_ms(o, "warm", (double)(t.put_ns[0] - given_ns));
    b->exec_ns = 0;
out:
    times_free(&t);
    job_free(&job);
    return e;
}

/* A live session until so many blocks were shown; the times are cut there: when it ends, what is
 * left is put at once. */
static err_t run_live(struct bench *b, const struct bench_until *until, struct times *t)
{
    err_t e = OK;
    struct job *job = NULL;
    TRY(protocol_stream(&job, &b->p.conf, &(struct protocol_length){0}));
    job->is_live = true;
    TRY(bench_job(b, job, until, t, NULL));
    t->n_blocks = until->n_shown;
    t->n_frames = ledger_frames_of(t->n_blocks * t->n_per_block);
out:
    job_free(&job);
    return e;
}

static void put_intervals(json_t *o, const struct times *t, int32_t window, int64_t *v,
                          int64_t (*series)(const struct times *, int32_t, enum interval,
                                            int64_t *))
{
    for (enum interval k = 0; k <= INTERVALS; k++)
        json_object_set_new(o, k < INTERVALS ? interval_names[k] : "all",
                            results_stats(v, series(t, window, k, v)));
}

static err_t intervals(struct bench *b, int series)
{
    err_t e = OK;
    (void)series;
    struct times t = {0};
    int64_t *v = NULL;
    const struct conf *c = &b->p.conf;
    const struct bench_until until = {.n_shown = b->args->quick ? LIVE_BLOCKS_QUICK : LIVE_BLOCKS};
    json_t *first = json_object();
    json_object_set_new(b->run, "first_frame_ms", first);
    TRY(first_frame(b, first));
    TRY(first_frame(b, first));
    const uint64_t n_late = ledger_read(&ledger_of(b)->gateway.n_late);
    TRY(run_live(b, &until, &t));
    TRY(alloc_series(&t, &v));
    const struct ledger_gateway *g = &ledger_of(b)->gateway;
    json_t *o = bench_object(b->run, "intervals");
    put_intervals(bench_object(o, "completion_ms"), &t, c->dit.window, v, measure_completion);
    put_intervals(bench_object(o, "presentation_ms"), &t, c->dit.window, v, measure_presentation);
    const int64_t n = measure_presentation(&t, c->dit.window, INTERVALS, v);
    int64_t n_dropped = 0;
    double off_ns = 0;
    for (int64_t f = 0; f < t.n_frames; f++) n_dropped += t.put_ns[f] == 0;
    for (int64_t i = 0; i < n; i++) off_ns += (double)llabs(v[i] - NS_PER_S / c->run.fps);
    put_ms(o, "jitter_ms", off_ns / (double)n);
    put_number(o, "px_fps",
               (double)n * NS_PER_S / (double)(t.put_ns[t.n_frames - 1] - t.put_ns[0]));
    const uint64_t n_late_now = ledger_read(&g->n_late) - n_late;
    json_object_set_new(o, "late_frames", json_integer((json_int_t)n_late_now));
    put_ms(o, "late_ms_max", n_late_now ? (double)ledger_read(&g->late_ns_max) : 0);
    json_object_set_new(o, "dropped_frames", json_integer((json_int_t)n_dropped));
    json_object_set_new(bench_object(o, "hand_off_ms"), "dit_to_vae",
                        results_stats(v, measure_dit_to_vae(&t, v)));
    put_spans(b, &t, t.n_blocks - GANTT_BLOCKS - 1, o);
    bench_put_memory(b, b->run);
out:
    times_free(&t);
    free(v);
    return e;
}

static json_t *switch_object(const struct switch_times *s)
{
    json_t *o = json_object();
    json_object_set_new(o, "block", json_integer((json_int_t)s->block));
    json_object_set_new(o, "is_hit", json_boolean(s->is_hit));
    json_object_set_new(o, "tokens", json_integer(s->n_tokens));
    json_object_set_new(o, "recached_latents", json_integer(s->n_recached));
    put_ms(o, "encode_ms", (double)s->encode_ns);
    put_ms(o, "lead_ms", (double)s->lead_ns);
    put_ms(o, "block_ms", (double)s->block_ns);
    put_ms(o, "prompt_ms", (double)s->prompt_ns);
    put_ms(o, "recache_ms", (double)s->recache_ns);
    put_ms(o, "denoise_ms", (double)s->denoise_ns);
    put_ms(o, "decode_ms", (double)s->decode_ns);
    put_ms(o, "other_ms", (double)s->other_ns);
    put_ms(o, "total_ms", (double)s->total_ns);
    put_ms(o, "shown_ms", (double)s->shown_ns);
    return o;
}

static err_t stream_prompt_switch(struct bench *b, int series)
{
    err_t e = OK;
    (void)series;
    struct times t = {0};
    int64_t *total = NULL, *shown = NULL;
    const struct ledger *l;
    const int64_t n = b->args->quick ? SWITCHES_QUICK : SWITCHES;
    const struct bench_until until = {.n_shown = bench_switch_at(n + 1), .n_switches = n};
    TRY(run_live(b, &until, &t));
    TRY(alloc_series(&t, &total));
    TRY(alloc_series(&t, &shown));
    l = ledger_of(b);
    json_t *o = bench_object(b->run, "switches"), *list = json_array();
    json_object_set_new(o, "each", list);
    for (int is_hit = 0; is_hit < 2; is_hit++) {
        int64_t n_kind = 0;
        for (int64_t i = 0; i < (int64_t)ledger_read(&l->dit.n_decisions); i++) {
            struct switch_times s;
            if (l->decisions[i].session != t.block[0].session ||
                l->decisions[i].kind != DECISION_SWITCH ||
                !measure_switch(&t, &b->trace, l, &b->p.conf, i, &s) || s.is_hit != is_hit)
                continue;
            json_array_append_new(list, switch_object(&s));
            total[n_kind] = s.total_ns;
            shown[n_kind++] = s.shown_ns;
        }
        json_t *kind = bench_object(o, is_hit ? "hit" : "miss");
        json_object_set_new(kind, "ready_ms", results_stats(total, n_kind));
        json_object_set_new(kind, "shown_ms", results_stats(shown, n_kind));
    }
    if ((int64_t)json_array_size(list) != n)
        e = FAIL(ERR_AGAIN, "%lld of %lld prompts were shown: this machine is too slow for %d fps",
                 (long long)json_array_size(list), (long long)n, b->p.conf.run.fps);
    bench_put_memory(b, b->run);
out:
    times_free(&t);
    free(total);
    free(shown);
    return e;
}

const struct bench_phase bench_phases[BENCH_PHASES] = {
    {"seed", "fresh.steady-state", steady_state, FRESH},
    {"seed", "fresh.prompt-switch", seed_prompt_switch, FRESH},
    {"seed", "fresh.throughput", throughput, FRESH},
    {"seed", "steady.steady-state", steady_state, STEADY_STREAM},
    {"seed", "steady.prompt-switch", seed_prompt_switch, STEADY_STREAM},
    {"seed", "steady.throughput", throughput, STEADY_STREAM},
    {"paper", "videos", videos, 0},
    {"stream", "intervals", intervals, 0},
    {"stream", "prompt-switch", stream_prompt_switch, 0},
};
