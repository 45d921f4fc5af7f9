/* main.c - longlived-gateway: jobs and prompts in, frames out, and the pace of it all.
 *
 * It answers requests (ROUTER on gateway.ctl), keeps the ledger's sessions and script, raises
 * `want` and puts finished frames into the output. The running session is session.c.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "ipc/msg.h"
#include "ipc/sock.h"
#include "procs/gateway/plan.h"
#include "procs/gateway/session.h"
#include "procs/stage.h"

enum { RECEIPTS_MAX = 256 };

/* A client that waits for the decision on its prompt, or on its preset. */
struct receipt {
    uint8_t peer[SOCK_PEER_MAX];
    size_t n_peer;
    uint64_t request;
    int64_t record; /* of the script, or of the presets */
    bool is_preset;
};

struct gateway {
    struct stage *st;
    struct session session;
    struct server *server;
    struct region prompts_region, frames_region, latents_region;
    struct receipt receipt[RECEIPTS_MAX];
    int32_t n_receipts;
    int64_t rate_at_ns; /* second in which prompts and presets are counted */
    int32_t rate_n;
    struct msg msg; /* in hand */
    uint8_t wire[MSG_BYTES_MAX];
};

static void gateway_close(void **self)
{
    struct gateway *g = *self;
    if (!g) return;
    session_close(&g->session);
    server_close(&g->server);
    region_unmap(&g->prompts_region);
    region_unmap(&g->frames_region);
    region_unmap(&g->latents_region);
    free(g);
    *self = NULL;
}

/* The MP4 plugin lies in ../lib, seen from this program. */
static err_t find_plugin_dir(char *dir, size_t cap)
{
    char exe[400];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return FAIL(ERR_BUG, "/proc/self/exe cannot be read");
    exe[n] = '\0';
    *strrchr(exe, '/') = '\0';
    snprintf(dir, cap, "%s/../%s", exe, strstr(exe, "/san-bin") ? "san-lib" : "lib");
    return OK;
}

static err_t gateway_open(struct stage *st, void **self)
{
    err_t e = OK;
    struct gateway *g = calloc(1, sizeof *g);
    if (!g) return FAIL(ERR_NOMEM, "gateway");
    *self = g;
    g->st = st;
    g->session.st = st;
    g->session.ledger = st->ledger;
    g->session.at = -1;
    g->session.latents_fd = -1;
    TRY(find_plugin_dir(g->session.plugin_dir, sizeof g->session.plugin_dir));
    TRY(stage_region(st, st->host, "prompts", prompts_bytes(&st->conf), PROMPTS_LAYOUT, NULL,
                     &g->prompts_region));
    g->session.prompts = g->prompts_region.data;
    TRY(stage_region(st, st->host, "frames.0", frames_bytes(&st->conf), FRAMES_LAYOUT, NULL,
                     &g->frames_region));
    frames_open(&g->session.frames, &st->conf, g->frames_region.data);
    TRY(stage_region(st, st->host, "latents.0", latents_bytes(&st->conf), LATENTS_LAYOUT, NULL,
                     &g->latents_region));
    latents_open(&g->session.latents, &st->conf, g->latents_region.data);
    TRY(server_open(&g->server, st->run_dir, st->bells));
out:
    return e;
}

/* --- answers ---------------------------------------------------------------------------------- */

static void answer(struct gateway *g, const uint8_t *peer, size_t n_peer)
{
    const size_t n = msg_pack(&g->msg, g->wire, sizeof g->wire);
    MUST(n > 0);
    server_reply(g->server, peer, n_peer, g->wire, n);
}

static void refuse(struct gateway *g, const uint8_t *peer, size_t n_peer, uint64_t request, err_t e)
{
    memset(&g->msg, 0, sizeof g->msg);
    ledger_add(&g->st->ledger->gateway.n_refused, 1);
    g->msg.type = MSG_REFUSED;
    g->msg.request = request ? request : 1;
    g->msg.status = err_exit_status(e);
    strncpy(g->msg.text, err_text(), 400);
    answer(g, peer, n_peer);
}

static void send_receipt(struct gateway *g, const struct receipt *r,
                         const struct ledger_decision *d)
{
    const struct ledger *l = g->st->ledger;
    const struct ledger_session *s = &l->sessions[d->session];
    const int32_t NB = g->st->conf.dit.block;
    memset(&g->msg, 0, sizeof g->msg);
    g->msg.type = MSG_RECEIPT;
    g->msg.request = r->request;
    g->msg.block = d->block - s->first_block;
    g->msg.latent = g->msg.block * NB;
    g->msg.frame = ledger_first_frame(s, d->block, NB) - s->first_frame;
    g->msg.time_ms = g->msg.frame * 1000 / g->st->conf.run.fps;
    g->msg.tokens = d->n_tokens;
    g->msg.tokens_full = d->n_tokens_full;
    answer(g, r->peer, r->n_peer);
}

static void send_receipts(struct gateway *g, bool *did_work)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < g->n_receipts; i++) {
        struct receipt *r = &g->receipt[i];
        const struct ledger *l = g->st->ledger;
        const int64_t decision = r->is_preset ? gateway_decision_of_preset(l, r->record)
                                              : gateway_decision_of(l, r->record);
        const int64_t session =
            r->is_preset ? l->presets[r->record].session : l->scripts[r->record].session;
        if (decision >= 0) {
            send_receipt(g, r, &l->decisions[decision]);
            *did_work = true;
        } else if (ledger_session_is_over(l, session)) {
            (void)FAIL(ERR_NONE, "the session ended before the %s took effect",
                       r->is_preset ? "preset" : "prompt");
            refuse(g, r->peer, r->n_peer, r->request, ERR_NONE);
        } else {
            g->receipt[kept++] = *r;
        }
    }
    g->n_receipts = kept;
}

/* --- requests --------------------------------------------------------------------------------- */

static err_t check_rate(struct gateway *g)
{
    const int64_t now = now_ns();
    if (now - g->rate_at_ns > NS_PER_S) {
        g->rate_at_ns = now;
        g->rate_n = 0;
    }
    if (++g->rate_n > g->st->conf.gateway.prompt_rate_max)
        return FAIL(ERR_AGAIN, "more than %d prompts a second",
                    g->st->conf.gateway.prompt_rate_max);
    return OK;
}

static err_t take_prompt(struct gateway *g, const uint8_t *peer, size_t n_peer, uint64_t request)
{
    err_t e = OK;
    int64_t record;
    const bool is_preset = g->msg.type == MSG_PRESET;
    TRY(check_rate(g));
    if (is_preset)
        TRY(session_preset(&g->session, (int32_t)g->msg.window, g->msg.text, request, &record));
    else TRY(session_prompt(&g->session, g->msg.text, request, &record));
    for (int32_t i = 0; i < g->n_receipts; i++)
        if (g->receipt[i].request == request) return OK; /* asked again while it waits */
    if (g->n_receipts == RECEIPTS_MAX) return FAIL(ERR_AGAIN, "too many prompts wait");
    struct receipt *r = &g->receipt[g->n_receipts++];
    *r = (struct receipt){
        .n_peer = n_peer, .request = request, .record = record, .is_preset = is_preset};
    memcpy(r->peer, peer, n_peer);
out:
    return e;
}

static void handle(struct gateway *g, const uint8_t *peer, size_t n_peer, size_t n_bytes)
{
    err_t e = msg_unpack(&g->msg, g->wire, n_bytes);
    const uint64_t request = e == OK ? g->msg.request : 0;
    if (e == OK && (g->msg.type == MSG_PROMPT || g->msg.type == MSG_PRESET)) {
        e = take_prompt(g, peer, n_peer, request);
    } else if (e == OK && g->msg.type == MSG_FINISH) {
        session_finish(&g->session, g->msg.job);
        memset(&g->msg, 0, sizeof g->msg);
        g->msg.type = MSG_RECEIPT;
        g->msg.request = request;
        answer(g, peer, n_peer);
    } else if (e == OK) {
        e = FAIL(ERR_DATA, "not a request");
    }
    if (e != OK) refuse(g, peer, n_peer, request, e);
}

static err_t take_requests(struct gateway *g, bool *did_work)
{
    err_t e = OK;
    uint8_t peer[SOCK_PEER_MAX];
    size_t n_peer, n_bytes;
    for (;;) {
        TRY(server_next(g->server, peer, &n_peer, g->wire, sizeof g->wire, &n_bytes));
        if (n_bytes == 0) goto out;
        handle(g, peer, n_peer, n_bytes);
        *did_work = true;
    }
out:
    return e;
}

static err_t gateway_step(struct stage *st, void *self, bool *did_work, bool *is_done)
{
    err_t e = OK;
    struct gateway *g = self;
    /* First the session: after a death it is found again before a request is told that none runs.
     */
    TRY(session_step(&g->session, did_work));
    TRY(take_requests(g, did_work));
    send_receipts(g, did_work);
    if (st->is_draining && !g->session.job) *is_done = true;
out:
    return e;
}

static int32_t gateway_wait_ms(struct stage *st, void *self)
{
    struct gateway *g = self;
    (void)st;
    return server_has_request(g->server) ? 0 : session_wait_ms(&g->session);
}

int main(int argc, char **argv)
{
    static const struct stage_def def = {
        .writer = WRITER_GATEWAY,
        .open = gateway_open,
        .step = gateway_step,
        .close = gateway_close,
        .wait_ms = gateway_wait_ms,
    };
    return stage_main(argc, argv, &def);
}
