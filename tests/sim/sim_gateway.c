/* sim_gateway.c - the gateway's work, in the order of writes of its main.c, session.c and out.c. */
#include "tests/sim/sim.h"

#include <string.h>

#include "common/err.h"

static struct ledger_gateway *page(struct sim *s)
{
    return &s->ledger->gateway;
}

static struct ledger_session *record(struct sim *s)
{
    return &s->ledger->sessions[s->gateway.at];
}

static bool has_out(const struct sim *s)
{
    return s->client.has_out[s->gateway.job->id - 1];
}

static bool has_hashes(const struct sim *s)
{
    return s->client.has_hashes[s->gateway.job->id - 1];
}

static bool wants_block(const struct sim *s)
{
    return s->gateway.has_output && s->client.by_block[s->gateway.job->id - 1];
}

static void ring_all(struct sim *s)
{
    sim_ring(s, WRITER_TEXT);
    sim_ring(s, WRITER_DIT);
    sim_ring(s, WRITER_VAE);
}

/* --- the script ------------------------------------------------------------------------------- */

static int64_t find_text(const struct ledger *l, const uint8_t *key)
{
    for (int64_t i = (int64_t)l->gateway.n_scripts - 1; i >= 0; i--)
        if (memcmp(l->scripts[i].key, key, PROMPT_KEY_BYTES) == 0) return l->scripts[i].text_at;
    return -1;
}

static void tell_text(struct sim *s, uint64_t script)
{
    if (s->stage[WRITER_TEXT].is_open && sim_pick(s, s->drop_1_in) != 0)
        s->text.told[script / 64] |= 1ull << (script % 64);
}

static bool append_script(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    struct ledger *l = s->ledger;
    const uint64_t n = l->gateway.n_scripts;
    struct ledger_script *r = &l->scripts[n];
    int64_t known;
    MUST(n < SIM_SCRIPTS_MAX);
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].sub_line)
    r->session = g->script.session;
    r->at_block = g->script.at_block;
    STEP;
    r->request = g->script.request;
    r->n_text_bytes = sizeof g->script.text;
    sim_text_key(g->script.text, r->key);
    known = find_text(l, r->key);
    r->text_at = (uint32_t)(known >= 0 ? known : (int64_t)l->gateway.n_text_bytes);
    STEP;
    if (r->text_at == l->gateway.n_text_bytes) {
        memcpy(l->texts + r->text_at, &g->script.text, sizeof g->script.text);
        STEP;
        ledger_publish(&l->gateway.n_text_bytes, r->text_at + sizeof g->script.text);
        STEP;
    }
    ledger_publish(&l->gateway.n_scripts, n + 1);
    tell_text(s, n);
    UNIT_END;
}

static bool append_preset(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    struct ledger *l = s->ledger;
    const uint64_t n = l->gateway.n_presets;
    struct ledger_preset *r = &l->presets[n];
    MUST(n < SIM_PRESETS_MAX);
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].sub_line)
    r->session = g->at;
    r->at_block = g->preset.at_block;
    r->request = g->preset.request;
    STEP;
    r->window = g->preset.window;
    snprintf(r->steps, sizeof r->steps, "%s", g->preset.steps);
    STEP;
    ledger_publish(&l->gateway.n_presets, n + 1);
    UNIT_END;
}

static void scripted(struct sim *s, int64_t session, int64_t at_block, uint32_t text)
{
    s->gateway.script.session = session;
    s->gateway.script.at_block = at_block;
    s->gateway.script.request = 0;
    s->gateway.script.text = text;
}

/* --- jobs and sessions ------------------------------------------------------------------------ */

static bool accept_job(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].line)
    ledger_publish(&page(s)->job_error, 0);
    STEP;
    for (g->i = 0; g->i < g->job->n_prewarm; g->i++) {
        scripted(s, -1, SCRIPT_PREWARM, 7);
        PART(append_script(s));
        STEP;
    }
    ledger_publish(&page(s)->job, g->job->id);
    sim_note(s, "accepts job", (int64_t)g->job->id, 0);
    UNIT_END;
}

static bool append_session(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    const uint64_t n = page(s)->n_sessions;
    struct ledger_session *r = &s->ledger->sessions[n];
    int64_t block, frame;
    MUST(n < SIM_SESSIONS_MAX);
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].line)
    g->has_output = false;
    g->at = -1;
    gateway_plan_begin(s->ledger, &s->conf, &block, &frame);
    r->first_block = block;
    r->first_frame = frame;
    r->seed = g->job->videos[g->video].seed;
    STEP;
    r->job = (int64_t)g->job->id;
    r->video = g->video;
    r->is_live = g->job->is_live;
    STEP;
    ledger_publish(&r->n_blocks, (uint64_t)g->job->videos[g->video].n_blocks);
    STEP;
    ledger_publish(&page(s)->n_sessions, n + 1);
    sim_note(s, "appends session: at block", (int64_t)n, r->first_block);
    UNIT_END;
}

static void finish(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    if (!g->job || g->at < 0) return;
    const uint64_t n = gateway_plan_finish(s->ledger, &s->conf, g->at);
    if (n) ledger_publish(&record(s)->n_blocks, n);
    ring_all(s);
}

/* An output that is there is cut behind its last whole unit, another begun with a header. */
static void open_file(struct sim_file *f, bool resume)
{
    if (!resume) f->n = 0;
    f->is_torn = false;
    f->has_header = true;
}

static bool open_output(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    struct sim_file *out = &s->out[g->at], *hashes = &s->hashes[g->at];
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].sub_line)
    g->resumes = gateway_resumes_output(s->ledger, g->at);
    if (has_hashes(s)) {
        open_file(hashes, g->resumes);
        STEP;
    }
    g->n_put = g->resumes ? (int64_t)page(s)->n_committed - record(s)->first_frame : 0;
    if (has_out(s)) {
        open_file(out, g->resumes);
        if (s->broken != SIM_OUTPUT_RESUMED_BY_LEDGER) g->n_put = out->n;
        STEP;
    }
    if (has_hashes(s)) {
        if (hashes->n < g->n_put) sim_fail(s, "the log of hashes is behind the output");
        hashes->n = g->n_put;
        STEP;
    }
    ledger_publish(&page(s)->n_outputs, (uint64_t)g->at + 1);
    STEP;
    g->n_shown = g->n_put;
    g->pace.fps = 0;
    g->has_output = has_out(s) || has_hashes(s);
    ledger_publish(&page(s)->n_committed, (uint64_t)(record(s)->first_frame + g->n_put));
    ledger_publish(&page(s)->played, (uint64_t)g->n_put);
    UNIT_END;
}

static bool enter_session(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].line)
    g->at = (int64_t)page(s)->n_sessions - 1;
    g->n_shown = g->n_put = (int64_t)page(s)->n_committed - record(s)->first_frame;
    g->video = record(s)->video;
    for (g->i = gateway_n_scripted_presets(s->ledger, g->at);
         g->i < g->job->videos[g->video].n_presets; g->i++) {
        const struct job_preset *p = &g->job->videos[g->video].presets[g->i];
        g->preset.at_block = record(s)->first_block + p->at_block;
        g->preset.request = 0;
        g->preset.window = p->window;
        g->preset.steps = p->steps;
        PART(append_preset(s));
        STEP;
    }
    for (g->i = gateway_n_scripted(s->ledger, g->at); g->i < g->job->videos[g->video].n_prompts;
         g->i++) {
        const struct job_prompt *p = &g->job->videos[g->video].prompts[g->i];
        scripted(s, g->at, p->at_block < 0 ? SCRIPT_ASAP : record(s)->first_block + p->at_block,
                 s->client.texts[g->job->id - 1][g->video][g->i]);
        PART(append_script(s));
        STEP;
    }
    if (page(s)->job_error) {
        finish(s);
    } else {
        PART(open_output(s));
    }
    ring_all(s);
    sim_note(s, "enters session: frames", g->at, g->n_put);
    UNIT_END;
}

static void end_job(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    ledger_publish(&page(s)->job_done, g->job->id);
    sim_note(s, "ends job", (int64_t)g->job->id, 0);
    g->has_output = false;
    g->job = NULL;
    g->at = -1;
}

static bool fail_job(struct sim *s)
{
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].line)
    ledger_publish(&page(s)->job_error, (uint64_t)err_exit_status(ERR_WRITE));
    s->gateway.has_output = false;
    sim_note(s, "fails job", (int64_t)s->gateway.job->id, 0);
    STEP;
    finish(s);
    UNIT_END;
}

/* --- frames ----------------------------------------------------------------------------------- */

static uint64_t read_frame(struct sim *s, int64_t i)
{
    const int64_t f = record(s)->first_frame + s->gateway.n_put + i;
    const uint64_t rgb = s->frames[f % s->conf.vae.ring_frames];
    if (rgb != s->want_frame[f])
        sim_fail(s, "frame %lld is read, and is not the one that was made", (long long)f);
    return rgb;
}

static void append_to(struct sim *s, struct sim_file *f, int64_t i)
{
    if (f->n >= SIM_FRAMES_MAX) sim_fail(s, "more frames than there can be");
    f->unit[f->n++] = read_frame(s, i);
}

/* Frames one by one; a block at once, by its first bytes written last. */
static bool write_out(struct sim *s, struct sim_file *f, bool at_once)
{
    struct sim_gateway *g = &s->gateway;
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].sub_line)
    f->is_torn = true;
    STEP;
    for (g->i = 0; g->i < g->n; g->i++) {
        append_to(s, f, g->i);
        if (!at_once) STEP;
    }
    f->is_torn = false;
    UNIT_END;
}

static bool put_frames(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    const uint64_t end = (uint64_t)(record(s)->first_frame + g->n_put + g->n);
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].line)
    if (s->broken == SIM_COMMIT_BEFORE_WRITE) {
        ledger_publish(&page(s)->n_committed, end);
        STEP;
    }
    if (g->has_output && has_hashes(s)) {
        PART(write_out(s, &s->hashes[g->at], false));
        STEP;
    }
    if (g->has_output && has_out(s)) {
        PART(write_out(s, &s->out[g->at], wants_block(s)));
        STEP;
    }
    if (!g->has_output)
        for (g->i = 0; g->i < g->n; g->i++) read_frame(s, g->i);
    ledger_publish(&page(s)->n_committed, end);
    g->n_put += g->n;
    sim_ring(s, WRITER_VAE);
    UNIT_END;
}

/* --- clients ---------------------------------------------------------------------------------- */

static bool take_prompt(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].line)
    g->script.session = g->at;
    g->script.at_block = SCRIPT_ASAP;
    g->script.request = g->mail.request;
    g->script.text = g->mail.text;
    PART(append_script(s));
    ring_all(s);
    UNIT_END;
}

static bool take_preset(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    UNIT_BEGIN(&s->stage[WRITER_GATEWAY].line)
    g->preset.at_block = SCRIPT_ASAP;
    g->preset.request = g->mail.request;
    g->preset.window = g->mail.window;
    g->preset.steps = g->mail.steps;
    PART(append_preset(s));
    ring_all(s);
    UNIT_END;
}

static void wait_for_decision(struct sim *s, uint64_t request)
{
    struct sim_gateway *g = &s->gateway;
    for (int32_t i = 0; i < g->n_waiting; i++)
        if (g->waiting[i] == request) return;
    if (g->n_waiting < SIM_MAILS_MAX) g->waiting[g->n_waiting++] = request;
}

static void take_finish(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    if (s->broken == SIM_FINISH_NOT_WRITTEN) finish(s);
    else if (gateway_plan_ends(s->ledger, g->mail.job))
        ledger_publish(&page(s)->job_end, g->mail.job);
    s->client.is_told_end[g->mail.job - 1] = true;
    sim_answer(s, g->mail.request);
}

/* The request in hand; an answer at once, or later by send_receipts. */
static void handle(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    const int64_t known = s->broken == SIM_REQUESTS_NOT_REMEMBERED ? -1
                          : g->mail.is_preset ? gateway_find_preset(s->ledger, g->mail.request)
                                              : gateway_find_request(s->ledger, g->mail.request);
    if (g->mail.is_finish) {
        take_finish(s);
    } else if (known >= 0) {
        wait_for_decision(s, g->mail.request);
    } else if (!g->job || g->at < 0 || !g->job->is_live ||
               ledger_session_end(record(s)) != INT64_MAX) {
        sim_check_refusal(s);
        sim_answer(s, g->mail.request);
    } else {
        wait_for_decision(s, g->mail.request);
        g->work = g->mail.is_preset ? WORK_PRESET : WORK_PROMPT;
    }
}

static bool take_mail(struct sim *s)
{
    for (int32_t i = 0; i < s->n_mails; i++) {
        if (s->mails[i].at_ns > s->now_ns) continue;
        s->gateway.mail = s->mails[i];
        s->mails[i] = s->mails[--s->n_mails];
        return true;
    }
    return false;
}

static void send_receipts(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    int32_t kept = 0;
    for (int32_t i = 0; i < g->n_waiting; i++) {
        const struct ledger *l = s->ledger;
        const int64_t script = gateway_find_request(l, g->waiting[i]);
        const int64_t preset = gateway_find_preset(l, g->waiting[i]);
        if (script < 0 && preset < 0) continue; /* killed in between: it is asked again */
        const int64_t decision =
            script < 0 ? gateway_decision_of_preset(l, preset) : gateway_decision_of(l, script);
        if (decision >= 0 || ledger_session_is_over(l, script < 0 ? l->presets[preset].session
                                                                  : l->scripts[script].session))
            sim_answer(s, g->waiting[i]);
        else g->waiting[kept++] = g->waiting[i];
    }
    g->n_waiting = kept;
}

/* --- a step ----------------------------------------------------------------------------------- */

static bool work(struct sim *s)
{
    switch (s->gateway.work) {
    case WORK_ACCEPT:
        return accept_job(s);
    case WORK_APPEND:
        return append_session(s);
    case WORK_ENTER:
        return enter_session(s);
    case WORK_PUT:
        return put_frames(s);
    case WORK_PROMPT:
        return take_prompt(s);
    case WORK_PRESET:
        return take_preset(s);
    default:
        return fail_job(s);
    }
}

static bool find_job(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    if (!s->asked) return false;
    const enum gateway_job p = gateway_plan_job(s->ledger, s->asked->id, g->is_draining);
    if (p == GATEWAY_JOB_NONE) return false;
    g->job = s->asked;
    g->at = -1;
    if (p == GATEWAY_JOB_BEGIN) g->work = WORK_ACCEPT;
    return true;
}

static bool show_frames(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    const int64_t due = gateway_frames_due(s->ledger, &s->conf, g->at, g->n_shown, g->is_draining,
                                           &g->pace, s->now_ns);
    if (due > g->n_shown) {
        g->n_shown = due;
        ledger_publish(&page(s)->played, (uint64_t)due);
    }
    g->n = gateway_frames_to_put(&s->conf, g->n_put, g->n_shown, wants_block(s));
    if (g->n <= 0) return false;
    if (page(s)->job_error) g->has_output = false;
    g->work = g->has_output && sim_pick(s, s->fail_1_in) == 0 ? WORK_FAIL : WORK_PUT;
    return true;
}

static bool run_session(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    const struct ledger *l = s->ledger;
    if (g->is_draining || gateway_job_is_ending(l, g->job->id)) finish(s);
    const struct gateway_plan p =
        gateway_plan_next(l, &s->conf, g->job, g->at, g->n_put, g->is_draining);
    g->video = p.video;
    if (p.action == GATEWAY_END_JOB) end_job(s);
    else if (p.action == GATEWAY_ENTER) g->work = WORK_ENTER;
    else if (p.action == GATEWAY_APPEND) g->work = WORK_APPEND;
    if (p.action != GATEWAY_RUN) return true;
    const uint64_t want = (uint64_t)gateway_plan_want(l, &s->conf, g->at, g->n_put, g->n_shown);
    if (want == l->gateway.want) return show_frames(s);
    ledger_publish(&page(s)->want, want);
    sim_ring(s, WRITER_DIT);
    return true;
}

bool sim_gateway_step(struct sim *s)
{
    struct sim_gateway *g = &s->gateway;
    if (!s->stage[WRITER_GATEWAY].is_open) {
        memset(g, 0, sizeof *g);
        g->at = -1;
        return s->stage[WRITER_GATEWAY].is_open = true;
    }
    if (g->work != WORK_NONE) {
        s->n_units[WRITER_GATEWAY]++;
        if (!work(s)) return true;
        g->work = g->work == WORK_APPEND ? WORK_ENTER : WORK_NONE;
        return true;
    }
    /* A session that can be found is entered before anybody is told that there is none. */
    if (s->broken != SIM_REQUESTS_BEFORE_SESSION) {
        if (!g->job && find_job(s)) return true;
        if (g->job && g->at < 0) return run_session(s);
    }
    send_receipts(s);
    if (take_mail(s)) {
        handle(s);
        return true;
    }
    return g->job ? run_session(s) : find_job(s);
}

int64_t sim_gateway_wait_ns(const struct sim *s)
{
    const struct sim_gateway *g = &s->gateway;
    if (!g->job || g->at < 0 || !g->job->is_live || !g->pace.fps) return INT64_MAX;
    const int64_t ns = pace_due_ns(&g->pace, g->n_shown) - s->now_ns;
    return ns < NS_PER_MS ? NS_PER_MS : ns;
}
