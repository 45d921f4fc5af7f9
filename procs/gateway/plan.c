/* plan.c - see plan.h. */
#include "procs/gateway/plan.h"

/* Blocks that an unpaced session may be ahead of its output. */
enum { LEAD_BLOCKS = 3 };

/* --- jobs ------------------------------------------------------------------------------------- */

static bool has_failed(const struct ledger *l)
{
    return ledger_read(&l->gateway.job_error) != 0;
}

enum gateway_job gateway_plan_job(const struct ledger *l, uint64_t id, bool is_draining)
{
    const uint64_t n = ledger_read(&l->gateway.job), n_done = ledger_read(&l->gateway.job_done);
    if (n != n_done) return id == n ? GATEWAY_JOB_RESUME : GATEWAY_JOB_NONE;
    return id == n + 1 && !is_draining ? GATEWAY_JOB_BEGIN : GATEWAY_JOB_NONE;
}

bool gateway_job_is_ending(const struct ledger *l, uint64_t id)
{
    return ledger_read(&l->gateway.job_end) >= id;
}

bool gateway_plan_ends(const struct ledger *l, uint64_t id)
{
    return id > ledger_read(&l->gateway.job_done) && !gateway_job_is_ending(l, id);
}

struct gateway_plan gateway_plan_next(const struct ledger *l, const struct conf *c,
                                      const struct job *job, int64_t at, int64_t n_put,
                                      bool is_draining)
{
    const int64_t n = (int64_t)ledger_read(&l->gateway.n_sessions);
    const bool is_ours = n > 0 && l->sessions[n - 1].job == (int64_t)job->id;
    struct gateway_plan p = {.session = at};

    if (at >= 0 && !gateway_is_whole(l, c, at, n_put)) return p;
    if (at < 0 && is_ours) { /* found after a death */
        p.action = GATEWAY_ENTER;
        p.session = n - 1;
        return p;
    }
    p.video = is_ours ? l->sessions[n - 1].video + 1 : 0;
    const bool is_last = p.video == job->n_videos || has_failed(l) || is_draining ||
                         gateway_job_is_ending(l, job->id);
    p.action = is_last ? GATEWAY_END_JOB : GATEWAY_APPEND;
    return p;
}

/* --- sessions --------------------------------------------------------------------------------- */

void gateway_plan_begin(const struct ledger *l, const struct conf *c, int64_t *first_block,
                        int64_t *first_frame)
{
    const uint64_t n = ledger_read(&l->gateway.n_sessions);
    *first_block = *first_frame = 0;
    if (n == 0) return;
    const struct ledger_session *last = &l->sessions[n - 1];
    *first_block = ledger_session_end(last);
    *first_frame = ledger_first_frame(last, *first_block, c->dit.block);
}

uint64_t gateway_plan_finish(const struct ledger *l, const struct conf *c, int64_t at)
{
    const struct ledger_session *s = &l->sessions[at];
    const int64_t n = (int64_t)ledger_read(&l->gateway.want) / c->dit.block - s->first_block;
    if (s->first_block + n >= ledger_session_end(s)) return 0;
    return n > 0 ? (uint64_t)n : LEDGER_VOID;
}

int64_t gateway_n_scripted(const struct ledger *l, int64_t session)
{
    int64_t n = 0;
    const int64_t all = (int64_t)ledger_read(&l->gateway.n_scripts);
    for (int64_t i = 0; i < all; i++) {
        const struct ledger_script *r = &l->scripts[i];
        n += r->session == session && r->request == 0 && r->at_block != SCRIPT_PREWARM;
    }
    return n;
}

int64_t gateway_n_scripted_presets(const struct ledger *l, int64_t session)
{
    int64_t n = 0;
    const int64_t all = (int64_t)ledger_read(&l->gateway.n_presets);
    for (int64_t i = 0; i < all; i++)
        n += l->presets[i].session == session && l->presets[i].request == 0;
    return n;
}

bool gateway_resumes_output(const struct ledger *l, int64_t at)
{
    return ledger_read(&l->gateway.n_outputs) == (uint64_t)at + 1;
}

/* --- flow and frames -------------------------------------------------------------------------- */

/* Latents that n frames of a session are part of. */
static int64_t latents_of(int64_t n_frames)
{
    return (n_frames + 3) / 4;
}

static bool has_prompt(const struct ledger *l, int64_t at)
{
    for (int64_t i = (int64_t)ledger_read(&l->gateway.n_scripts) - 1; i >= 0; i--)
        if (l->scripts[i].session == at) return true;
    return false;
}

int64_t gateway_plan_want(const struct ledger *l, const struct conf *c, int64_t at, int64_t n_put,
                          int64_t n_shown)
{
    const struct ledger_session *s = &l->sessions[at];
    const int64_t NB = c->dit.block, end = ledger_session_end(s);
    const int64_t now = (int64_t)ledger_read(&l->gateway.want);
    if (!has_prompt(l, at))
        return now; /* so that a session without prompts can end with no block */
    int64_t want = s->is_live ? pace_want(n_shown, c->run.ahead_ms, c->run.fps, c->dit.block)
                              : (latents_of(n_put) / NB + LEAD_BLOCKS) * NB;
    want += s->first_block * NB;
    if (end != INT64_MAX && want > end * NB) want = end * NB;
    return want > now ? want : now;
}

int64_t gateway_frames_made(const struct ledger *l, const struct conf *c, int64_t at)
{
    const int64_t NB = c->dit.block, first = l->sessions[at].first_block * NB;
    const int64_t n = (int64_t)ledger_read(&l->vae.n_latents) - first;
    const int64_t end = ledger_session_end(&l->sessions[at]);
    const int64_t most = end == INT64_MAX ? n : end * NB - first;
    return ledger_frames_of(n < most ? n : most);
}

int64_t gateway_frames_due(const struct ledger *l, const struct conf *c, int64_t at,
                           int64_t n_shown, bool is_draining, struct pace *p, int64_t now_ns)
{
    const struct ledger_session *s = &l->sessions[at];
    const int64_t n_made = gateway_frames_made(l, c, at);
    int64_t n = n_shown;
    if (!s->is_live || has_failed(l) || is_draining || ledger_session_end(s) != INT64_MAX)
        return n_made;
    while (n < n_made) {
        if (!p->fps) pace_start(p, c->run.fps, n, now_ns);
        if (now_ns < pace_due_ns(p, n)) break;
        pace_shown(p, n++, now_ns);
    }
    return n;
}

int32_t gateway_frames_to_put(const struct conf *c, int64_t n_put, int64_t n_shown,
                              bool wants_block)
{
    int64_t n = n_shown - n_put;
    if (wants_block) {
        const int64_t NB = c->dit.block, blocks = (latents_of(n_put) + NB) / NB;
        const int64_t block_end = ledger_frames_of(blocks * NB);
        n = n_shown >= block_end ? block_end - n_put : 0;
    }
    return (int32_t)(n < GATEWAY_FRAMES_PER_PUT_MAX ? n : GATEWAY_FRAMES_PER_PUT_MAX);
}

bool gateway_is_whole(const struct ledger *l, const struct conf *c, int64_t at, int64_t n_put)
{
    const struct ledger_session *s = &l->sessions[at];
    const int64_t end = ledger_session_end(s);
    return end != INT64_MAX && n_put >= ledger_frames_of((end - s->first_block) * c->dit.block);
}

/* --- prompts and presets from clients --------------------------------------------------------- */

int64_t gateway_find_request(const struct ledger *l, uint64_t request)
{
    for (int64_t i = (int64_t)ledger_read(&l->gateway.n_scripts) - 1; i >= 0; i--)
        if (l->scripts[i].request == request) return i;
    return -1;
}

int64_t gateway_find_preset(const struct ledger *l, uint64_t request)
{
    for (int64_t i = (int64_t)ledger_read(&l->gateway.n_presets) - 1; i >= 0; i--)
        if (l->presets[i].request == request) return i;
    return -1;
}

int64_t gateway_decision_of(const struct ledger *l, int64_t script)
{
    int64_t found = -1;
    for (int64_t i = (int64_t)ledger_read(&l->dit.n_decisions) - 1;
         i >= 0 && l->decisions[i].script >= script; i--)
        if (l->decisions[i].session == l->scripts[script].session) found = i;
    return found;
}

int64_t gateway_decision_of_preset(const struct ledger *l, int64_t preset)
{
    int64_t found = -1;
    for (int64_t i = (int64_t)ledger_read(&l->dit.n_decisions) - 1;
         i >= 0 && l->decisions[i].session == l->presets[preset].session &&
         l->decisions[i].preset > preset;
         i--)
        found = i;
    return found;
}
