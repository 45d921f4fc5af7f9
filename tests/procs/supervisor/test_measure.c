/* test_measure.c - series from a clock of our own: each number here was worked out by hand. */
#include "procs/supervisor/measure.h"

#include "tests/procs/supervisor/spans.h"
#include "tests/scratch.h"

enum { BLOCKS = 6, PER_BLOCK = 3, LATENTS = BLOCKS * PER_BLOCK, FRAMES = 1 + 4 * (LATENTS - 1) };

static struct ledger *l;
static struct conf c;
static struct trace tr;
static struct block_times block[BLOCKS];
static struct latent_times latent[LATENTS];
static int64_t put_ns[FRAMES], put_began_ns[FRAMES];
static const struct times t = {.n_per_block = PER_BLOCK,
                               .n_blocks = BLOCKS,
                               .n_frames = FRAMES,
                               .block = block,
                               .latent = latent,
                               .put_ns = put_ns,
                               .put_began_ns = put_began_ns};

/* Block b is made from 1000 b to 1000 b + 100; its latents are decoded in 200 each behind that, and
 * the frames of a latent put 7 later, in 3. */
static int open_all(void **state)
{
    (void)state;
    conf_default(&c);
    c.dit.window = 9;
    l = calloc(1, sizeof *l);
    for (int64_t b = 0; b < BLOCKS; b++) {
        block[b] = (struct block_times){.at = b,
                                        .began_ns = 1000 * b,
                                        .made_ns = 1000 * b + 100,
                                        .given_ns = 1000 * b + 100,
                                        .step_ns = {20, 25, 25, 20},
                                        .clean_ns = 30};
        for (int64_t k = 0; k < PER_BLOCK; k++) {
            const int64_t i = b * PER_BLOCK + k;
            latent[i].frame = i == 0 ? 0 : 4 * i - 3;
            latent[i].began_ns = 1000 * b + 110 + 200 * k;
            latent[i].ready_ns = latent[i].began_ns + 200;
            for (int64_t f = latent[i].frame; f < 4 * i + 1; f++) {
                put_began_ns[f] = latent[i].ready_ns + 7;
                put_ns[f] = latent[i].ready_ns + 10;
            }
        }
        block[b].ready_ns = latent[b * PER_BLOCK + 2].ready_ns;
    }
    return l ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    trace_free(&tr);
    free(l);
    return 0;
}

static void test_gaps(void **state)
{
    (void)state;
    int64_t v[BLOCKS];
    block[3].ready_ns += 5;
    assert_int_equal(measure_gaps(&t, 1, 5, v), 3);
    assert_true(v[0] == 1000 && v[1] == 1005 && v[2] == 995);
    assert_int_equal(measure_gaps(&t, 2, 3, v), 0);
}

/* The window of 9 latents is full at block 3: boundaries are two before it and three from it on. */
static void test_kinds_of_completion(void **state)
{
    (void)state;
    int64_t v[LATENTS];
    assert_int_equal(measure_completion(&t, 9, INTERVAL_NORMAL, v), 12);
    for (int i = 0; i < 12; i++) assert_int_equal(v[i], 200);
    latent[9].ready_ns += 50;
    assert_int_equal(measure_completion(&t, 9, INTERVAL_BOUNDARY, v), 2);
    assert_true(v[0] == 600 && v[1] == 600);
    assert_int_equal(measure_completion(&t, 9, INTERVAL_FULL, v), 3);
    assert_true(v[0] == 650 && v[1] == 600 && v[2] == 600);
    assert_int_equal(measure_completion(&t, 9, INTERVALS, v), LATENTS - 1);
    assert_true(v[8] == 650 && v[9] == 150);
}

/* Frames of one latent are put at once here; block b > 0 begins with frame 12 b - 3. */
static void test_kinds_of_presentation(void **state)
{
    (void)state;
    int64_t v[FRAMES];
    assert_int_equal(measure_presentation(&t, 9, INTERVAL_BOUNDARY, v), 2);
    assert_true(v[0] == 600 && v[1] == 600);
    assert_int_equal(measure_presentation(&t, 9, INTERVAL_FULL, v), 3);
    assert_int_equal(measure_presentation(&t, 9, INTERVAL_NORMAL, v), FRAMES - 1 - 5);
    assert_true(v[0] == 200 && v[1] == 0 && v[2] == 0 && v[3] == 0 && v[4] == 200);
    put_ns[33] += 1; /* the first of block 3 */
    measure_presentation(&t, 9, INTERVAL_FULL, v);
    assert_int_equal(v[0], 601);
}

/* Asked at 2050, encoded from 2060 to 2200, decided for block 4 at 3960; dit worked on block 3 from
 * 3000 to 3100, and on its clean pass to 3130. */
static void switch_at_4(void)
{
    l->scripts[0].asked_ns = 2050;
    l->decisions[0] = (struct ledger_decision){
        .block = 4, .script = 0, .kind = DECISION_SWITCH, .n_tokens = 9, .decided_ns = 3960};
    block[4].prompt_ns = 4;
    block[4].recache_ns = 40;
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 2, SPAN_WHOLE, 2000,
              2100);                                           /* before the prompt was there */
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 3, 1, 3020, 3045); /* part of the next */
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 3, SPAN_WHOLE, 3000, 3100);
    spans_add(l, WRITER_DIT, PHASE_CLEAN, 3, 0, 3100, 3130);
}

static void test_a_switch_that_misses(void **state)
{
    (void)state;
    struct switch_times s;
    switch_at_4();
    spans_add(l, WRITER_TEXT, PHASE_ENCODE, 0, 0, 2060, 2200);
    check_ok(trace_look(&tr, l));
    assert_true(measure_switch(&t, &tr, l, &c, 0, &s));
    assert_true(!s.is_hit && s.block == 4 && s.n_tokens == 9 && s.n_recached == 9);
    assert_true(s.encode_ns == 150 && s.encoder_ns == 140);
    assert_true(s.block_ns == 130 && s.lead_ns == 3960 - 2200 - 130);
    assert_true(s.prompt_ns == 4 && s.recache_ns == 40 && s.denoise_ns == 90);
    assert_int_equal(s.decode_ns, 200);
    assert_int_equal(s.total_ns, 4310 - 2050); /* its first latent */
    assert_int_equal(s.encode_ns + s.lead_ns + s.block_ns + s.prompt_ns + s.recache_ns +
                         s.denoise_ns + s.decode_ns + s.other_ns,
                     s.total_ns);
    assert_int_equal(s.whole_ns, 4710 - 2050);
    assert_int_equal(s.shown_ns, 4320 - 2050);
}

static void test_a_switch_that_hits(void **state)
{
    (void)state;
    struct switch_times s;
    switch_at_4();
    spans_add(l, WRITER_TEXT, PHASE_ENCODE, 1, 0, 2060, 2200); /* another prompt */
    check_ok(trace_look(&tr, l));
    assert_true(measure_switch(&t, &tr, l, &c, 0, &s));
    assert_true(s.is_hit && s.encode_ns == 0 && s.encoder_ns == 0);
    assert_int_equal(s.block_ns, 50 + 130);
    l->decisions[0].block = BLOCKS; /* not made yet */
    assert_false(measure_switch(&t, &tr, l, &c, 0, &s));
}

/* A switch at block 4 whose prompt is there at 2200. Beside block 3, which is made from 3000 to
 * 3100, the clean pass of block 2 is part of that; between blocks, and beside a try of block 3 that
 * failed, it is work of its own. */
static void test_clean_passes_beside_blocks(void **state)
{
    (void)state;
    static const struct {
        int64_t began_ns, ended_ns, block_ns;
    } row[] = {
        {2900, 2940, 140},                    /* between */
        {2960, 3000, 140},                    /* up to its begin */
        {3000, 3040, 100},                    /* beside, from its begin on */
        {3010, 3050, 100}, {2500, 2540, 140}, /* killed; block 3 is made again from 3000 on */
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct switch_times s;
        memset(l, 0, sizeof *l);
        trace_free(&tr);
        l->scripts[0].asked_ns = 2050;
        l->decisions[0] = (struct ledger_decision){
            .block = 4, .script = 0, .kind = DECISION_SWITCH, .n_tokens = 9, .decided_ns = 3960};
        spans_add(l, WRITER_TEXT, PHASE_ENCODE, 0, 0, 2060, 2200);
        spans_add(l, WRITER_DIT, PHASE_DENOISE, 2, SPAN_WHOLE, 2000, 2100);
        spans_add(l, WRITER_DIT, PHASE_CLEAN, 2, 0, row[i].began_ns, row[i].ended_ns);
        spans_add(l, WRITER_DIT, PHASE_DENOISE, 3, 0, 3000, 3045);
        spans_add(l, WRITER_DIT, PHASE_DENOISE, 3, SPAN_WHOLE, 3000, 3100);
        check_ok(trace_look(&tr, l));
        assert_true(measure_switch(&t, &tr, l, &c, 0, &s));
        if (s.block_ns != row[i].block_ns) fail_msg("row %zu: %lld", i, (long long)s.block_ns);
    }
}

/* The last pass of a trace is beside nothing: what comes after it is not known. */
static void test_a_clean_pass_at_the_end(void **state)
{
    (void)state;
    struct switch_times s;
    switch_at_4(); /* ends with block 3's clean pass */
    spans_add(l, WRITER_TEXT, PHASE_ENCODE, 0, 0, 2060, 2200);
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 4, 0, 3100, 3140); /* no block, but a step */
    check_ok(trace_look(&tr, l));
    assert_true(measure_switch(&t, &tr, l, &c, 0, &s));
    assert_int_equal(s.block_ns, 130);
    spans_add(l, WRITER_DIT, PHASE_DENOISE, 4, SPAN_WHOLE, 3100, 3200); /* from 3100 on: beside */
    check_ok(trace_look(&tr, l));
    assert_true(measure_switch(&t, &tr, l, &c, 0, &s));
    assert_int_equal(s.block_ns, 100 + 100);
}

static void test_components(void **state)
{
    (void)state;
    spans_add(l, WRITER_TEXT, PHASE_ENCODE, 0, 0, 500, 700);   /* before */
    spans_add(l, WRITER_TEXT, PHASE_ENCODE, 1, 0, 2100, 2140); /* between 710 and 4710 */
    check_ok(trace_look(&tr, l));
    block[2].recache_ns = 8;
    struct components x = measure_components(&t, &tr, 1, 5, false);
    assert_true(x.step_ns[0] == 20 && x.step_ns[1] == 25 && x.step_ns[3] == 20);
    assert_true(x.decode_ns == 600 && x.kv_ns == 32 && x.encode_ns == 10);
    assert_true(x.sync_ns == 1000 - 90 - 32 - 600 - 10);
    x = measure_components(&t, &tr, 1, 5, true);
    assert_true(x.sync_ns == 1000 - 600); /* the vae is the busier one */
    for (int b = 0; b < BLOCKS; b++) block[b].made_ns += 800;
    x = measure_components(&t, &tr, 1, 5, true);
    assert_true(x.sync_ns == 1000 - 930); /* dit is */
    assert_int_equal(measure_dit_busy(&t, 1, 3), 2 * 930);
}

/* A taker that was busy has no hand-off. */
static void test_hand_offs(void **state)
{
    (void)state;
    int64_t v[LATENTS];
    assert_int_equal(measure_dit_to_vae(&t, v), BLOCKS);
    for (int i = 0; i < BLOCKS; i++) assert_int_equal(v[i], 10);
    assert_int_equal(measure_vae_to_gateway(&t, v), LATENTS);
    for (int i = 0; i < LATENTS; i++) assert_int_equal(v[i], 7);
    block[2].given_ns = 1500; /* while latents of block 1 are decoded */
    assert_int_equal(measure_dit_to_vae(&t, v), BLOCKS - 1);
    for (int64_t f = latent[4].frame; f < latent[6].frame; f++) { /* two latents in one put */
        put_began_ns[f] = latent[5].ready_ns + 9;
        put_ns[f] = latent[5].ready_ns + 12;
    }
    assert_int_equal(measure_vae_to_gateway(&t, v), LATENTS - 1);
    assert_true(v[3] == 7 && v[4] == 9 && v[5] == 7);
    put_ns[latent[6].frame] = latent[7].ready_ns + 1; /* still at the one before */
    assert_int_equal(measure_vae_to_gateway(&t, v), LATENTS - 2);
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(test_gaps),
        WITH(test_kinds_of_completion),
        WITH(test_kinds_of_presentation),
        WITH(test_a_switch_that_misses),
        WITH(test_a_switch_that_hits),
        WITH(test_clean_passes_beside_blocks),
        WITH(test_a_clean_pass_at_the_end),
        WITH(test_components),
        WITH(test_hand_offs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
