/* recovery.c - death to ready: SIGKILL of each stage under the product's supervisor.
 *
 *     bench-recovery [KILLS [CONFIG]]    of each stage; 50, configs/demo.ini
 *
 * A live session of that configuration runs at its pace into /dev/null. The clock starts before
 * kill() and stops when the successor, in its place in the ledger, has left the phase `opening`: it
 * holds its lease and regions, has told the supervisor that it can serve, and works. `gone` of it
 * is the dying itself: until the kernel has taken back what the process had, its GPU's side
 * included, nobody hears of its death. Stages are killed by turns, each only after it has committed
 * something since its last death, or the supervisor would make it wait; text, which works only for
 * new prompts, is given one before each kill.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/scratch.h"
#include "common/clock.h"
#include "ipc/ledger.h"

enum { KILLS = 50, KILLS_MAX = 1000, LOOK_US = 50, PATIENCE_S = 30 };

struct pipeline {
    char top[SCRATCH_PATH_MAX], run_dir[SCRATCH_PATH_MAX + 8];
    pid_t serve;
    const char *conf;
    int32_t n_kills, n_prompts;
    const struct ledger *ledger;
};

static uint64_t committed(const struct ledger *l, enum ledger_writer w)
{
    switch (w) {
    case WRITER_TEXT:
        return ledger_read(&l->text.n_encoded);
    case WRITER_DIT:
        return ledger_read(&l->dit.n_latents_blocks);
    case WRITER_VAE:
        return ledger_read(&l->vae.n_latents);
    default:
        return ledger_read(&l->gateway.n_committed);
    }
}

static const struct ledger_head *head_of(const struct pipeline *p, enum ledger_writer w)
{
    return ledger_head_of((struct ledger *)p->ledger, w);
}

static err_t wait_for_commit(const struct pipeline *p, enum ledger_writer w, uint64_t before)
{
    const int64_t until_ns = now_ns() + (int64_t)PATIENCE_S * NS_PER_S;
    while (committed(p->ledger, w) <= before) {
        if (now_ns() > until_ns || waitpid(p->serve, NULL, WNOHANG) != 0)
            return FAIL(ERR_TIMEOUT, "%s commits nothing", ledger_writer_names[w]);
        sleep_ns(NS_PER_MS);
    }
    return OK;
}

static err_t ask_prompt(struct pipeline *p)
{
    err_t e = OK;
    pid_t pid;
    char text[64];
    snprintf(text, sizeof text, "a ball of colour %d", p->n_prompts++);
    TRY(scratch_fork(&pid));
    if (pid == 0)
        scratch_exec("longlived", (const char *[]){"prompt", "--run", p->run_dir, text, NULL});
    TRY(scratch_join(&pid));
out:
    return e;
}

static err_t start(struct pipeline *p)
{
    err_t e = OK;
    static const char deaths[] = "supervisor.deaths=1000";
    const int64_t until_ns = now_ns() + (int64_t)PATIENCE_S * NS_PER_S;
    TRY(scratch_make(p->top));
    snprintf(p->run_dir, sizeof p->run_dir, "%s/run", p->top);
    TRY(scratch_fork(&p->serve));
    if (p->serve == 0)
        scratch_exec("longlived", (const char *[]){"serve", "-c", p->conf, "--run", p->run_dir,
                                                   "--set", deaths, "--prompt", "a ball", NULL});
    while (ledger_map(p->run_dir, &p->ledger) != OK) {
        if (now_ns() > until_ns || waitpid(p->serve, NULL, WNOHANG) != 0)
            return FAIL(ERR_TIMEOUT, "the pipeline does not start");
        sleep_ns(10 * NS_PER_MS);
    }
out:
    return e;
}

static void stop(struct pipeline *p)
{
    char path[SCRATCH_PATH_MAX + 16];
    int status;
    if (p->serve > 0) {
        kill(p->serve, SIGTERM);
        waitpid(p->serve, &status, 0);
    }
    ledger_unmap(&p->ledger);
    snprintf(path, sizeof path, "%s", p->top);
    scratch_remove(path);
}

/* One kill; the times until the victim is gone and until the successor works. */
static err_t kill_one(struct pipeline *p, enum ledger_writer w, int64_t *gone_ns, int64_t *took_ns)
{
    err_t e = OK;
    const struct ledger_head *h = head_of(p, w);
    const uint64_t incarnation = ledger_read(&h->incarnation);
    struct pollfd victim = {.fd = pidfd_open((pid_t)ledger_read(&h->pid), 0), .events = POLLIN};
    const int64_t began_ns = now_ns(), until_ns = began_ns + (int64_t)PATIENCE_S * NS_PER_S;
    if (victim.fd < 0 || pidfd_send_signal(victim.fd, SIGKILL, NULL, 0) != 0) {
        e = FAIL(ERR_BUG, "%s: nobody to kill", ledger_writer_names[w]);
        goto out;
    }
    *gone_ns = 0;
    /* A new incarnation says `opening` in its first beat, which comes after its number. */
    int64_t beat_ns = 0;
    while (beat_ns < began_ns || ledger_read(&h->phase) == PHASE_OPENING) {
        if (now_ns() > until_ns) {
            e = FAIL(ERR_TIMEOUT, "%s did not come back", ledger_writer_names[w]);
            goto out;
        }
        sleep_ns(LOOK_US * NS_PER_US);
        if (*gone_ns == 0 && poll(&victim, 1, 0) > 0) *gone_ns = now_ns() - began_ns;
        if (ledger_read(&h->incarnation) != incarnation)
            beat_ns = (int64_t)ledger_read(&h->beat_ns);
    }
    *took_ns = now_ns() - began_ns;
out:
    if (victim.fd >= 0) close(victim.fd);
    return e;
}

static err_t report(struct bench *b, const struct pipeline *p, enum ledger_writer w,
                    const char *what, int64_t *ns)
{
    struct bench_case c = {.threads = 1};
    char name[32];
    const char *conf = strrchr(p->conf, '/');
    conf = conf ? conf + 1 : p->conf;
    snprintf(c.shape, sizeof c.shape, "%.*s, live session", (int)strcspn(conf, "."), conf);
    snprintf(name, sizeof name, "recovery.%s%s", ledger_writer_names[w], what);
    c.name = name;
    return bench_report(b, &c, ns, p->n_kills);
}

static err_t bench(struct bench *b, struct pipeline *p)
{
    err_t e = OK;
    static int64_t took_ns[WRITERS][KILLS_MAX], gone_ns[WRITERS][KILLS_MAX];
    uint64_t before[WRITERS] = {0};
    TRY(start(p));
    TRY(wait_for_commit(p, WRITER_GATEWAY, 0));
    for (int32_t i = 0; i < p->n_kills; i++)
        for (enum ledger_writer w = 0; w < WRITERS; w++) {
            if (w == WRITER_TEXT) TRY(ask_prompt(p));
            TRY(wait_for_commit(p, w, before[w]));
            TRY(kill_one(p, w, &gone_ns[w][i], &took_ns[w][i]));
            before[w] = committed(p->ledger, w);
        }
    for (enum ledger_writer w = 0; w < WRITERS; w++) {
        TRY(report(b, p, w, "", took_ns[w]));
        TRY(report(b, p, w, ".gone", gone_ns[w]));
    }
out:
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct bench *b = NULL;
    struct pipeline p = {.conf = argc > 2 ? argv[2] : "configs/demo.ini",
                         .n_kills = argc > 1 ? atoi(argv[1]) : KILLS};
    if (p.n_kills < 1 || p.n_kills > KILLS_MAX) {
        e = FAIL(ERR_USAGE, "bench-recovery [KILLS [CONFIG]]: 1 to %d kills", KILLS_MAX);
        goto out;
    }
    TRY(bench_open(&b, argv));
    TRY(bench(b, &p));
out:
    stop(&p);
    bench_close(&b);
    return bench_exit(e);
}
