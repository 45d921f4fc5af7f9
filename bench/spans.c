/* spans.c - what it costs a pipeline that its stages write down when they did what.
 *
 * All spans of one block, as procs/stage.c adds them: DiT's four steps, the block, its clean pass,
 * the VAE's three latents, the gateway's three puts; each with its two looks at the clock. And what
 * share of a block that is, of what dit alone does for one of the smallest configuration: blocks
 * with and without, by turns.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/rig.h"
#include "common/clock.h"
#include "ipc/ledger.h"

enum { DIT = 6, VAE = 3, GATEWAY = 3, PAIRS = 1000 };

static void add(struct ledger_spans *s, int32_t n, enum ledger_phase phase)
{
    for (int32_t i = 0; i < n; i++) {
        const int64_t began_ns = now_ns();
        ledger_span_add(s, (struct ledger_span){.began_ns = began_ns,
                                                .ended_ns = now_ns(),
                                                .unit = i,
                                                .phase = (int32_t)phase,
                                                .part = i});
    }
}

static err_t run_block(void *self)
{
    struct ledger *l = self;
    add(&l->spans[WRITER_DIT], DIT, PHASE_DENOISE);
    add(&l->spans[WRITER_VAE], VAE, PHASE_DECODE);
    add(&l->spans[WRITER_GATEWAY], GATEWAY, PHASE_WRITE);
    return OK;
}

/* Which of a pair comes first changes from one to the next, too. */
static err_t run_pair(struct rig_dit *t, struct ledger *l, int32_t i, int64_t *with_ns,
                      int64_t *without_ns)
{
    err_t e = OK;
    for (int32_t k = 0; k < 2; k++) {
        const bool is_with = (i + k) % 2;
        const int64_t began_ns = now_ns();
        TRY(rig_dit_block(t));
        if (is_with) TRY(run_block(l));
        *(is_with ? with_ns : without_ns) = now_ns() - began_ns;
    }
out:
    return e;
}

static err_t bench_share(struct bench *b, struct ledger *l)
{
    err_t e = OK;
    struct conf c;
    struct rig_dit t = {0};
    static int64_t with_ns[PAIRS], without_ns[PAIRS];
    struct bench_case k = {.name = "block", .threads = 1};
    TRY(conf_load(&c, "configs/nano.ini", NULL, 0));
    c.cpu.threads = 1;
    TRY(rig_dit_open(&t, &c, "cpu"));
    for (int32_t i = 0; i < PAIRS; i++) TRY(run_pair(&t, l, i, &with_ns[i], &without_ns[i]));
    const struct bench_cost cost = bench_cost_of(with_ns, without_ns, PAIRS);
    snprintf(k.shape, sizeof k.shape, "nano, with spans");
    TRY(bench_report(b, &k, with_ns, PAIRS));
    snprintf(k.shape, sizeof k.shape, "nano, without");
    TRY(bench_report(b, &k, without_ns, PAIRS));
    printf("# spans: %.3f %% of a block, standard error %.3f %%\n", 100 * cost.share,
           100 * cost.error);
out:
    rig_dit_close(&t);
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct bench *b = NULL;
    struct ledger *l = NULL;
    (void)argc;
    TRY(bench_open(&b, argv));
    l = calloc(1, sizeof *l);
    if (!l) {
        e = FAIL(ERR_NOMEM, "ledger");
        goto out;
    }
    for (int is_cold = 0; is_cold < 2; is_cold++) {
        const struct bench_case c = {.name = "spans",
                                     .shape = "all of a block",
                                     .threads = 1,
                                     .is_cold = is_cold,
                                     .run = run_block,
                                     .self = l};
        TRY(bench_run(b, &c));
    }
    TRY(bench_share(b, l));
out:
    free(l);
    bench_close(&b);
    return bench_exit(e);
}
