/* spans.c - what it costs a pipeline that its stages write down when they did what.
 *
 * All spans of one block, as procs/stage.c adds them: DiT's four steps, the block, its clean pass,
 * the VAE's three latents, the gateway's three puts; each with its two looks at the clock.
 */
#include <stdlib.h>

#include "bench/bench.h"
#include "common/clock.h"
#include "ipc/ledger.h"

enum { DIT = 6, VAE = 3, GATEWAY = 3 };

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
out:
    free(l);
    bench_close(&b);
    return bench_exit(e);
}
