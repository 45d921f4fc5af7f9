/* session.c - see session.h. */
#include "procs/gateway/session.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/dump.h"
#include "common/fault.h"
#include "common/log.h"
#include "procs/gateway/plan.h"

#define RETRY_NS ((int64_t)500 * NS_PER_MS) /* a full disk is tried again that often */

static struct ledger_gateway *page(const struct session *s)
{
    return &s->ledger->gateway;
}

static struct ledger_session *record(const struct session *s)
{
    return &s->ledger->sessions[s->at];
}

static const struct job_video *video(const struct session *s)
{
    return &s->job->videos[record(s)->video];
}

static bool has_failed(const struct session *s)
{
    return ledger_read(&page(s)->job_error) != 0;
}

static void ring_all(const struct session *s)
{
    bells_ring(s->st->bells, WRITER_TEXT);
    bells_ring(s->st->bells, WRITER_DIT);
    bells_ring(s->st->bells, WRITER_VAE);
}

/* The running session gets no block after those already allowed. */
static void end_session(struct session *s)
{
    if (!s->job || s->at < 0) return;
    const uint64_t n_blocks = gateway_plan_finish(s->ledger, &s->st->conf, s->at);
    if (n_blocks) ledger_publish(&record(s)->n_blocks, n_blocks);
    ring_all(s);
}

/* --- failing ---------------------------------------------------------------------------------- */

static void close_output(struct session *s)
{
    out_close(&s->out);
    hashes_close(&s->hashes);
    if (s->latents_fd >= 0) close(s->latents_fd);
    s->latents_fd = -1;
}

/* Keeps the first failure of a job: its line in a file, its status in the ledger. */
static void fail_job(struct session *s, err_t e)
{
    char path[512];
    if (has_failed(s)) return;
    log_warn("job_failed", "job=%llu msg=\"%s\"", (unsigned long long)s->job->id, err_text());
    snprintf(path, sizeof path, "%s/job.error", s->st->run_dir);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0) {
        dprintf(fd, "%s\n", err_text());
        close(fd);
    }
    ledger_publish(&page(s)->job_error, (uint64_t)err_exit_status(e));
    close_output(s);
    end_session(s);
}

/* --- the script ------------------------------------------------------------------------------- */

/* Where the text already lies in the ledger, or -1: repeated prompts take no room. */
static int64_t find_text(const struct ledger *l, const uint8_t *key, uint32_t n_bytes)
{
    const int64_t n = (int64_t)ledger_read(&l->gateway.n_scripts);
    for (int64_t i = n - 1; i >= 0; i--)
        if (l->scripts[i].n_text_bytes == n_bytes &&
            memcmp(l->scripts[i].key, key, PROMPT_KEY_BYTES) == 0)
            return l->scripts[i].text_at;
    return -1;
}

static void count_lookup(struct session *s, const uint8_t *key)
{
    const int32_t i = prompts_find(s->prompts, key);
    ledger_add(i >= 0 ? &page(s)->n_hits : &page(s)->n_misses, 1);
}

struct wish {
    const char *text;
    bool is_clean;
    int64_t session, at_block;
    uint64_t request;
    bool is_rebuild;
    const uint8_t *key; /* NULL: that of the text */
};

static err_t append_script(struct session *s, const struct wish *w)
{
    err_t e = OK;
    char clean[PROMPT_BYTES_MAX + 1];
    struct ledger *l = s->ledger;
    const uint64_t n = ledger_read(&page(s)->n_scripts);
    struct ledger_script *r = &l->scripts[n];
    if (w->is_clean) memcpy(clean, w->text, strlen(w->text) + 1);
    else TRY(prompt_clean(w->text, strlen(w->text), clean, sizeof clean));
    const uint32_t n_bytes = (uint32_t)strlen(clean);
    if (n == LEDGER_SCRIPTS_MAX)
        return FAIL(ERR_LIMIT, "this pipeline has taken %llu prompts: restart it",
                    (unsigned long long)n);
    *r = (struct ledger_script){.request = w->request,
                                .session = w->session,
                                .at_block = w->at_block,
                                .is_rebuild = w->is_rebuild,
                                .n_text_bytes = n_bytes,
                                .asked_ns = now_ns()};
    if (w->key) memcpy(r->key, w->key, sizeof r->key);
    else prompt_key(&s->st->conf, clean, (int64_t)n, r->key);
    const int64_t known = find_text(l, r->key, n_bytes);
    const uint64_t n_text = ledger_read(&page(s)->n_text_bytes);
    r->text_at = (uint32_t)(known >= 0 ? known : (int64_t)n_text);
    if (known < 0) {
        if (n_text + n_bytes > LEDGER_TEXT_BYTES)
            return FAIL(ERR_LIMIT, "this pipeline has taken %llu bytes of prompts: restart it",
                        (unsigned long long)n_text);
        memcpy(l->texts + n_text, clean, n_bytes);
        ledger_publish(&page(s)->n_text_bytes, n_text + n_bytes);
        TRY(fault(FAULT_GATEWAY_TEXT));
    }
    count_lookup(s, r->key);
    TRY(fault(FAULT_GATEWAY_SCRIPT));
    ledger_publish(&page(s)->n_scripts, n + 1);
    e = fault(FAULT_GATEWAY_SCRIPTED);
out:
    return e;
}

static err_t append_preset(struct session *s, int64_t at_block, uint64_t request, int32_t window,
                           const char *steps)
{
    err_t e = OK;
    struct conf c = s->st->conf;
    const uint64_t n = ledger_read(&page(s)->n_presets);
    struct ledger_preset *r = &s->ledger->presets[n];
    if (n == LEDGER_PRESETS_MAX)
        return FAIL(ERR_LIMIT, "this pipeline has taken %llu presets: restart it",
                    (unsigned long long)n);
    c.dit.window_max = conf_window_max(&c); /* what there is memory for */
    c.dit.window = window;
    snprintf(c.dit.steps, sizeof c.dit.steps, "%s", steps);
    TRY(conf_check(&c));
    *r = (struct ledger_preset){.request = request,
                                .session = s->at,
                                .at_block = at_block,
                                .asked_ns = now_ns(),
                                .window = window};
    snprintf(r->steps, sizeof r->steps, "%s", steps);
    TRY(fault(FAULT_GATEWAY_PRESET));
    ledger_publish(&page(s)->n_presets, n + 1);
    e = fault(FAULT_GATEWAY_PRESET_TAKEN);
out:
    return e;
}

/* As append_scripts, and before them: a block may be wanted as soon as there is a prompt. */
static err_t append_presets(struct session *s)
{
    err_t e = OK;
    const struct job_video *v = video(s);
    for (int64_t i = gateway_n_scripted_presets(s->ledger, s->at); i < v->n_presets; i++) {
        const struct job_preset *p = &v->presets[i];
        TRY(append_preset(s, record(s)->first_block + p->at_block, 0, p->window, p->steps));
    }
out:
    return e;
}

/* Goes on where a predecessor was stopped; blocks are wanted only after the last of them. */
static err_t append_scripts(struct session *s)
{
    err_t e = OK;
    const struct job_video *v = video(s);
    struct checkpoint *embeds = NULL;
    uint8_t file_id[CKPT_ID_BYTES], key[PROMPT_KEY_BYTES];
    if (v->embeds[0]) {
        TRY(dump_open_embeds(&embeds, v->embeds, &s->st->conf, v->n_prompts));
        checkpoint_identity(embeds, file_id);
    }
    for (int64_t i = gateway_n_scripted(s->ledger, s->at); i < v->n_prompts; i++) {
        const struct job_prompt *p = &v->prompts[i];
        if (embeds) prompt_embed_key(file_id, i, key);
        const struct wish w = {
            .text = p->text,
            .is_clean = p->is_clean,
            .session = s->at,
            .at_block = p->at_block < 0 ? SCRIPT_ASAP : record(s)->first_block + p->at_block,
            .is_rebuild = p->is_rebuild,
            .key = embeds ? key : NULL,
        };
        TRY(append_script(s, &w));
    }
out:
    checkpoint_close(&embeds);
    return e;
}

/* --- latents ---------------------------------------------------------------------------------- */

/* The session's latent that becomes frame f of it. */
static int64_t latent_of(int64_t f)
{
    return (f + 3) / 4;
}

/* The latents of n frames to be put. The ring still has them: it keeps 38 behind vae, and vae is at
 * most its own ring of frames ahead. */
static err_t put_latents(struct session *s, int32_t n)
{
    err_t e = OK;
    const int64_t base = record(s)->first_block * s->st->conf.dit.block;
    if (s->latents_fd < 0) return OK;
    for (int64_t i = latent_of(s->n_put); i <= latent_of(s->n_put + n - 1); i++)
        TRY(dump_latents_put(s->latents_fd, video(s)->latents, &s->st->conf, i,
                             latents_at(&s->latents, base + i)));
out:
    return e;
}

/* --- jobs and sessions ------------------------------------------------------------------------ */

static void wrote(void *self, int64_t stream_bytes)
{
    struct session *s = self;
    ledger_publish(&page(s)->stream_bytes, (uint64_t)stream_bytes);
    stage_beat(s->st, PHASE_WRITE, ledger_read(&s->st->head->unit));
}

/* A pace goes on over the death of a gateway, so that what its viewers missed counts as late; a new
 * session's starts with its first frame. */
static void open_pace(struct session *s, bool resume)
{
    if (!resume) ledger_publish(&page(s)->t0_ns, 0);
    s->pace = (struct pace){.t0_ns = (int64_t)ledger_read(&page(s)->t0_ns),
                            .n_late = (int64_t)ledger_read(&page(s)->n_late),
                            .late_ns_max = (int64_t)ledger_read(&page(s)->late_ns_max)};
    if (s->pace.t0_ns) s->pace.fps = s->st->conf.run.fps;
    s->retry_ns = 0;
    ledger_publish(&page(s)->is_paused, 0);
}

static err_t open_output(struct session *s)
{
    err_t e = OK;
    const struct job_video *v = video(s);
    const struct conf *c = &s->st->conf;
    const bool resume = gateway_resumes_output(s->ledger, s->at);
    int64_t n_lines = 0, n_frames = 0;

    if (!resume) ledger_publish(&page(s)->stream_bytes, 0);
    if (v->hashes[0]) TRY(hashes_open(&s->hashes, v->hashes, resume, &n_lines));
    TRY(fault(FAULT_GATEWAY_HASHES));
    if (v->out[0]) {
        const struct out_conf oc = {
            .path = v->out,
            .width_px = conf_width_px(c),
            .height_px = conf_height_px(c),
            .fps = c->run.fps,
            .plugin_dir = s->plugin_dir,
            .resume = resume,
            .stream_bytes = (int64_t)ledger_read(&page(s)->stream_bytes),
            .wrote = wrote,
            .self = s,
        };
        TRY(out_open(&s->out, &oc, &n_frames));
    } else if (resume) {
        n_frames = (int64_t)ledger_read(&page(s)->n_committed) - record(s)->first_frame;
    }
    if (v->latents[0])
        TRY(dump_latents_open(&s->latents_fd, v->latents, c, v->n_blocks * c->dit.block, resume));
    TRY(fault(FAULT_GATEWAY_OUTPUT));
    if (s->hashes) TRY(hashes_trim(s->hashes, n_frames));
    TRY(fault(FAULT_GATEWAY_TRIMMED));
    ledger_publish(&page(s)->n_outputs, (uint64_t)s->at + 1);
    TRY(fault(FAULT_GATEWAY_OUTPUT_BEGUN));
    s->n_put = n_frames;
    s->n_shown = n_frames;
    open_pace(s, resume);
    ledger_publish(&page(s)->n_committed, (uint64_t)(record(s)->first_frame + n_frames));
    ledger_publish(&page(s)->played, (uint64_t)n_frames);
out:
    return e;
}

/* The session at s->at, new or found: its prompts, then its output. */
static void enter_session(struct session *s)
{
    s->n_put = (int64_t)ledger_read(&page(s)->n_committed) - record(s)->first_frame;
    s->n_shown = s->n_put;
    err_t e = append_presets(s);
    if (e == OK) e = append_scripts(s);
    if (has_failed(s)) end_session(s); /* a predecessor failed, and may have died before this */
    else if (e == OK) e = open_output(s);
    if (e != OK) fail_job(s, e);
    log_info("session", "session=%lld first_block=%lld frames=%lld", (long long)s->at,
             (long long)record(s)->first_block, (long long)s->n_put);
    ring_all(s);
}

static err_t append_session(struct session *s, int64_t video_at)
{
    err_t e = OK;
    const uint64_t n = ledger_read(&page(s)->n_sessions);
    if (n == LEDGER_SESSIONS_MAX)
        return FAIL(ERR_LIMIT, "this pipeline has made %llu videos: restart it",
                    (unsigned long long)n);
    struct ledger_session *r = &s->ledger->sessions[n];
    gateway_plan_begin(s->ledger, &s->st->conf, &r->first_block, &r->first_frame);
    r->seed = s->job->videos[video_at].seed;
    r->job = (int64_t)s->job->id;
    r->video = video_at;
    r->is_live = s->job->is_live;
    r->files = (s->job->videos[video_at].noise[0] ? SESSION_NOISE : 0) |
               (s->job->videos[video_at].embeds[0] ? SESSION_EMBEDS : 0);
    ledger_publish(&r->n_blocks, (uint64_t)s->job->videos[video_at].n_blocks);
    TRY(fault(FAULT_GATEWAY_SESSION));
    ledger_publish(&page(s)->n_sessions, n + 1);
    e = fault(FAULT_GATEWAY_SESSION_BEGUN);
out:
    return e;
}

static void end_job(struct session *s)
{
    log_info("job_done", "job=%llu status=%llu", (unsigned long long)s->job->id,
             (unsigned long long)ledger_read(&page(s)->job_error));
    fault(FAULT_GATEWAY_JOB_END);
    ledger_publish(&page(s)->job_done, s->job->id);
    fault(FAULT_GATEWAY_JOB_DONE);
    job_free(&s->job);
    s->at = -1;
}

/* A video that was ended early has fewer latents than its file was begun for. */
static void end_latents(struct session *s)
{
    if (s->latents_fd < 0 || has_failed(s)) return;
    const int64_t n = s->n_put ? latent_of(s->n_put - 1) + 1 : 0;
    const err_t e = dump_latents_end(s->latents_fd, video(s)->latents, &s->st->conf, n);
    if (e != OK) fail_job(s, e);
}

/* Enters the session that is running or begins the job's next one; ends the job after its last. */
static err_t next_session(struct session *s, const struct gateway_plan *plan)
{
    err_t e = OK;
    end_latents(s);
    close_output(s);
    s->at = -1;
    if (plan->action == GATEWAY_END_JOB) {
        end_job(s);
        return OK;
    }
    if (plan->action == GATEWAY_APPEND) TRY(append_session(s, plan->video));
    s->at = (int64_t)ledger_read(&page(s)->n_sessions) - 1;
    enter_session(s);
out:
    if (e != OK) {
        fail_job(s, e);
        end_job(s);
    }
    return OK;
}

static err_t accept_job(struct session *s, bool *did_work)
{
    err_t e = OK;
    char path[512];
    snprintf(path, sizeof path, "%s/job.json", s->st->run_dir);
    if (access(path, R_OK) != 0) return OK;
    TRY(job_read(path, &s->job));
    const enum gateway_job plan = gateway_plan_job(s->ledger, s->job->id, s->st->is_draining);
    if (plan == GATEWAY_JOB_NONE) {
        job_free(&s->job);
        return OK;
    }
    *did_work = true;
    s->at = -1;
    TRY(fault(FAULT_GATEWAY_JOB));
    if (plan == GATEWAY_JOB_RESUME) return OK;
    ledger_publish(&page(s)->job_error, 0);
    for (int32_t i = 0; i < s->job->n_prewarm; i++)
        TRY(append_script(
            s,
            &(struct wish){.text = s->job->prewarm[i], .session = -1, .at_block = SCRIPT_PREWARM}));
    ledger_publish(&page(s)->job, s->job->id);
    e = fault(FAULT_GATEWAY_JOB_ACCEPTED);
out:
    return e;
}

void session_finish(struct session *s, uint64_t job)
{
    if (!gateway_plan_ends(s->ledger, job)) return;
    ledger_publish(&page(s)->job_end, job);
    if (s->job && s->job->id == job) end_session(s);
}

void session_close(struct session *s)
{
    close_output(s);
    job_free(&s->job);
}

/* --- frames ----------------------------------------------------------------------------------- */

/* Raises `want`; never lowers it. */
static void raise_want(struct session *s)
{
    const int64_t want = gateway_plan_want(s->ledger, &s->st->conf, s->at, s->n_put, s->n_shown);
    if (want == (int64_t)ledger_read(&page(s)->want)) return;
    ledger_publish(&page(s)->want, (uint64_t)want);
    fault(FAULT_GATEWAY_WANT);
    bells_ring(s->st->bells, WRITER_DIT);
}

/* Latents and hashes first, then the output, then the commit: so a log of hashes is never behind.
 */
static err_t put_frames(struct session *s, int32_t n)
{
    err_t e = OK;
    const uint8_t *rgb[GATEWAY_FRAMES_PER_PUT_MAX];
    const int64_t first = record(s)->first_frame + s->n_put;
    stage_unit_begin(s->st, PHASE_WRITE, (uint64_t)first);
    TRY(fault(FAULT_GATEWAY_PUT));
    for (int32_t i = 0; i < n; i++) rgb[i] = frames_at(&s->frames, first + i);
    TRY(put_latents(s, n));
    if (s->hashes) TRY(hashes_put(s->hashes, s->n_put, rgb, n, (size_t)s->frames.n_bytes));
    TRY(fault(FAULT_GATEWAY_HASHED));
    if (s->out) TRY(out_put(s->out, rgb, n));
    TRY(fault(FAULT_GATEWAY_WRITTEN));
    s->n_put += n;
    ledger_publish(&page(s)->n_committed, (uint64_t)(first + n));
    TRY(fault(FAULT_GATEWAY_COMMITTED));
    stage_unit_end(s->st, n);
    bells_ring(s->st->bells, WRITER_VAE);
out:
    return e;
}

static bool is_open_ended(const struct session *s)
{
    return s->job->is_live && !s->st->is_draining && ledger_session_end(record(s)) == INT64_MAX;
}

/* A live session on a full disk shows nothing more, so that nothing more is made, until there is
 * room. Any other job, and one that is to end, fails. */
static void pause_or_fail(struct session *s, err_t e)
{
    if (e != ERR_FULL || !is_open_ended(s) || has_failed(s)) {
        fail_job(s, e);
        return;
    }
    if (!s->retry_ns) log_warn("paused", "msg=\"%s: paused until there is room\"", err_text());
    s->retry_ns = now_ns() + RETRY_NS;
    ledger_publish(&page(s)->is_paused, 1);
    if (s->hashes) e = hashes_trim(s->hashes, s->n_put); /* those of the frames put again */
    else e = OK;
    if (e != OK) fail_job(s, e);
}

static void go_on(struct session *s)
{
    if (!s->retry_ns) return;
    s->retry_ns = 0;
    ledger_publish(&page(s)->is_paused, 0);
    log_warn("goes_on", "msg=\"there is room again: the session goes on\"");
}

static void look_what_is_due(struct session *s, bool *did_work)
{
    const int64_t due = gateway_frames_due(s->ledger, &s->st->conf, s->at, s->n_shown,
                                           s->st->is_draining, &s->pace, now_ns());
    if (due <= s->n_shown) return;
    s->n_shown = due;
    ledger_publish(&page(s)->played, (uint64_t)due);
    ledger_publish(&page(s)->n_late, (uint64_t)s->pace.n_late);
    ledger_publish(&page(s)->late_ns_max, (uint64_t)s->pace.late_ns_max);
    if (s->pace.fps) ledger_publish(&page(s)->t0_ns, (uint64_t)s->pace.t0_ns);
    *did_work = true;
}

static void show_frames(struct session *s, bool *did_work)
{
    const struct conf *c = &s->st->conf;
    if (s->retry_ns && is_open_ended(s) && now_ns() < s->retry_ns) return;
    if (!s->retry_ns) look_what_is_due(s, did_work);
    const bool wants_block = s->out && out_wants_block(s->out);
    const int32_t n = gateway_frames_to_put(c, s->n_put, s->n_shown, wants_block);
    if (n <= 0) return;
    *did_work = true;
    if (has_failed(s)) close_output(s);
    const err_t e = put_frames(s, n);
    if (e != OK) pause_or_fail(s, e);
    else go_on(s);
}

err_t session_step(struct session *s, bool *did_work)
{
    err_t e = OK;
    if (!s->job) TRY(accept_job(s, did_work));
    if (!s->job) goto out;
    if (s->st->is_draining || gateway_job_is_ending(s->ledger, s->job->id)) end_session(s);
    const struct gateway_plan plan =
        gateway_plan_next(s->ledger, &s->st->conf, s->job, s->at, s->n_put, s->st->is_draining);
    if (plan.action != GATEWAY_RUN) {
        *did_work = true;
        e = next_session(s, &plan);
        goto out;
    }
    raise_want(s);
    show_frames(s, did_work);
out:
    return e;
}

int32_t session_wait_ms(const struct session *s)
{
    if (!s->job || s->at < 0 || !s->job->is_live || !s->pace.fps) return STAGE_POLL_MS;
    const int64_t ms = (pace_due_ns(&s->pace, s->n_shown) - now_ns()) / NS_PER_MS;
    return ms < 1 ? 1 : ms < STAGE_POLL_MS ? (int32_t)ms : STAGE_POLL_MS;
}

/* --- prompts and presets from clients --------------------------------------------------------- */

static err_t check_is_live(const struct session *s)
{
    if (!s->job || s->at < 0) return FAIL(ERR_NONE, "no session runs");
    if (!s->job->is_live) return FAIL(ERR_NONE, "the running session has a script of its own");
    if (ledger_session_end(record(s)) != INT64_MAX) return FAIL(ERR_NONE, "the session is ending");
    return OK;
}

err_t session_prompt(struct session *s, const char *text, uint64_t request, int64_t *script)
{
    err_t e = OK;
    *script = gateway_find_request(s->ledger, request);
    if (*script >= 0) return OK;
    TRY(check_is_live(s));
    TRY(append_script(
        s, &(struct wish){
               .text = text, .session = s->at, .at_block = SCRIPT_ASAP, .request = request}));
    *script = (int64_t)ledger_read(&page(s)->n_scripts) - 1;
    ring_all(s);
out:
    return e;
}

err_t session_preset(struct session *s, int32_t window, const char *steps, uint64_t request,
                     int64_t *preset)
{
    err_t e = OK;
    *preset = gateway_find_preset(s->ledger, request);
    if (*preset >= 0) return OK;
    TRY(check_is_live(s));
    TRY(append_preset(s, SCRIPT_ASAP, request, window, steps));
    *preset = (int64_t)ledger_read(&page(s)->n_presets) - 1;
    ring_all(s);
out:
    return e;
}
