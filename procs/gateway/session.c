/* session.c - see session.h. */
#include "procs/gateway/session.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

/* Blocks that an unpaced session may be ahead of its output. */
enum { LEAD_BLOCKS = 3, FRAMES_PER_PUT_MAX = 128 };

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

static int64_t block_len(const struct session *s)
{
    return s->st->conf.dit.block;
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

/* --- failing ---------------------------------------------------------------------------------- */

static void close_output(struct session *s)
{
    out_close(&s->out);
    hashes_close(&s->hashes);
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
    session_finish(s);
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
    if (i < 0) return;
    const struct prompts_entry *t = &s->prompts->entry[i];
    if (t->n_tokens_full > t->n_tokens)
        log_warn("prompt_cut", "msg=\"a prompt has %u tokens, %u are used\"", t->n_tokens_full,
                 t->n_tokens);
}

static err_t append_script(struct session *s, const char *clean, int64_t session, int64_t at_block,
                           uint64_t request)
{
    struct ledger *l = s->ledger;
    const uint64_t n = ledger_read(&page(s)->n_scripts);
    const uint32_t n_bytes = (uint32_t)strlen(clean);
    struct ledger_script *r = &l->scripts[n];
    if (n == LEDGER_SCRIPTS_MAX)
        return FAIL(ERR_LIMIT, "this pipeline has taken %llu prompts: restart it",
                    (unsigned long long)n);
    *r = (struct ledger_script){.request = request,
                                .session = session,
                                .at_block = at_block,
                                .n_text_bytes = n_bytes,
                                .asked_ns = now_ns()};
    prompt_key(&s->st->conf, clean, r->key);
    const int64_t known = find_text(l, r->key, n_bytes);
    const uint64_t n_text = ledger_read(&page(s)->n_text_bytes);
    r->text_at = (uint32_t)(known >= 0 ? known : (int64_t)n_text);
    if (known < 0) {
        if (n_text + n_bytes > LEDGER_TEXT_BYTES)
            return FAIL(ERR_LIMIT, "this pipeline has taken %llu bytes of prompts: restart it",
                        (unsigned long long)n_text);
        memcpy(l->texts + n_text, clean, n_bytes);
        ledger_publish(&page(s)->n_text_bytes, n_text + n_bytes);
    }
    count_lookup(s, r->key);
    ledger_publish(&page(s)->n_scripts, n + 1);
    return OK;
}

/* Records of this session that came with the job, not from clients. */
static int64_t count_scripted(const struct session *s, int64_t session)
{
    int64_t n = 0;
    const int64_t all = (int64_t)ledger_read(&page(s)->n_scripts);
    for (int64_t i = 0; i < all; i++) {
        const struct ledger_script *r = &s->ledger->scripts[i];
        n += r->session == session && r->request == 0 && r->at_block != SCRIPT_PREWARM;
    }
    return n;
}

/* Goes on where a predecessor was stopped; blocks are wanted only after the last of them. */
static err_t append_scripts(struct session *s)
{
    err_t e = OK;
    const struct job_video *v = video(s);
    for (int64_t i = count_scripted(s, s->at); i < v->n_prompts; i++) {
        const struct job_prompt *p = &v->prompts[i];
        TRY(append_script(s, p->text, s->at,
                          p->at_block < 0 ? SCRIPT_ASAP : record(s)->first_block + p->at_block, 0));
    }
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

static err_t open_output(struct session *s)
{
    err_t e = OK;
    const struct job_video *v = video(s);
    const struct conf *c = &s->st->conf;
    const bool resume = ledger_read(&page(s)->n_outputs) == (uint64_t)s->at + 1;
    int64_t n_lines = 0, n_frames = 0;

    if (!resume) ledger_publish(&page(s)->stream_bytes, 0);
    if (v->hashes[0]) TRY(hashes_open(&s->hashes, v->hashes, resume, &n_lines));
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
    if (s->hashes) TRY(hashes_trim(s->hashes, n_frames));
    ledger_publish(&page(s)->n_outputs, (uint64_t)s->at + 1);
    s->n_put = n_frames;
    s->n_shown = n_frames;
    s->is_paced_yet = false;
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
    err_t e = append_scripts(s);
    if (has_failed(s)) session_finish(s); /* a predecessor failed, and may have died before this */
    else if (e == OK) e = open_output(s);
    if (e != OK) fail_job(s, e);
    log_info("session", "session=%lld first_block=%lld frames=%lld", (long long)s->at,
             (long long)record(s)->first_block, (long long)s->n_put);
    ring_all(s);
}

static err_t append_session(struct session *s, int64_t video_at)
{
    const uint64_t n = ledger_read(&page(s)->n_sessions);
    if (n == LEDGER_SESSIONS_MAX)
        return FAIL(ERR_LIMIT, "this pipeline has made %llu videos: restart it",
                    (unsigned long long)n);
    struct ledger_session *r = &s->ledger->sessions[n];
    int64_t first_block = 0, first_frame = 0;
    if (n > 0) {
        const struct ledger_session *last = &s->ledger->sessions[n - 1];
        first_block = ledger_session_end(last);
        first_frame =
            last->first_frame + ledger_frames_of((first_block - last->first_block) * block_len(s));
    }
    r->first_block = first_block;
    r->first_frame = first_frame;
    r->seed = s->job->videos[video_at].seed;
    r->job = (int64_t)s->job->id;
    r->video = video_at;
    r->is_live = s->job->is_live;
    ledger_publish(&r->n_blocks, (uint64_t)s->job->videos[video_at].n_blocks);
    ledger_publish(&page(s)->n_sessions, n + 1);
    return OK;
}

/* All frames of the running session are in its output, or dropped. */
static bool session_is_whole(const struct session *s)
{
    const int64_t end = ledger_session_end(record(s));
    return end != INT64_MAX &&
           s->n_put >= ledger_frames_of((end - record(s)->first_block) * block_len(s));
}

static void end_job(struct session *s)
{
    log_info("job_done", "job=%llu status=%llu", (unsigned long long)s->job->id,
             (unsigned long long)ledger_read(&page(s)->job_error));
    ledger_publish(&page(s)->job_done, s->job->id);
    job_free(&s->job);
    s->at = -1;
}

/* Enters the session that is running or begins the job's next one; ends the job after its last. */
static err_t next_session(struct session *s)
{
    err_t e = OK;
    const int64_t n = (int64_t)ledger_read(&page(s)->n_sessions);
    const bool is_ours = n > 0 && s->ledger->sessions[n - 1].job == (int64_t)s->job->id;
    int64_t video_at = 0;
    if (is_ours && s->at < 0) { /* found after a death, or just appended */
        s->at = n - 1;
        enter_session(s);
        return OK;
    }
    if (is_ours) {
        video_at = record(s)->video + 1;
        close_output(s);
        s->at = -1;
    }
    if (video_at == s->job->n_videos || has_failed(s) || s->st->is_draining) {
        end_job(s);
        return OK;
    }
    TRY(append_session(s, video_at));
    s->at = n;
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
    const uint64_t id = ledger_read(&page(s)->job), done = ledger_read(&page(s)->job_done);
    snprintf(path, sizeof path, "%s/job.json", s->st->run_dir);
    if (access(path, R_OK) != 0 || (id == done && s->st->is_draining)) return OK;
    TRY(job_read(path, &s->job));
    if (s->job->id != (id == done ? id + 1 : id)) {
        job_free(&s->job);
        return OK; /* the one that is done */
    }
    *did_work = true;
    s->at = -1;
    if (id != done) return OK; /* a predecessor accepted it */
    ledger_publish(&page(s)->job_error, 0);
    for (int32_t i = 0; i < s->job->n_prewarm; i++)
        TRY(append_script(s, s->job->prewarm[i], -1, SCRIPT_PREWARM, 0));
    ledger_publish(&page(s)->job, s->job->id);
out:
    return e;
}

void session_finish(struct session *s)
{
    if (!s->job || s->at < 0) return;
    struct ledger_session *r = record(s);
    const int64_t wanted = (int64_t)ledger_read(&page(s)->want) / block_len(s) - r->first_block;
    const int64_t end = ledger_session_end(r);
    if (wanted <= 0) ledger_publish(&r->n_blocks, LEDGER_VOID);
    else if (r->first_block + wanted < end) ledger_publish(&r->n_blocks, (uint64_t)wanted);
    ring_all(s);
}

void session_close(struct session *s)
{
    close_output(s);
    job_free(&s->job);
}

/* --- frames ----------------------------------------------------------------------------------- */

/* Frames of the session that vae has committed. */
static int64_t frames_made(const struct session *s)
{
    const int64_t first = record(s)->first_block * block_len(s);
    const int64_t n = (int64_t)ledger_read(&s->ledger->vae.n_latents) - first;
    const int64_t end = ledger_session_end(record(s));
    const int64_t most = end == INT64_MAX ? n : end * block_len(s) - first;
    return ledger_frames_of(n < most ? n : most);
}

static bool has_prompt(const struct session *s)
{
    for (int64_t i = (int64_t)ledger_read(&page(s)->n_scripts) - 1; i >= 0; i--)
        if (s->ledger->scripts[i].session == s->at) return true;
    return false;
}

/* Raises `want`; never lowers it, and never past the session's end. */
static void raise_want(struct session *s)
{
    const struct ledger_session *r = record(s);
    const struct conf *c = &s->st->conf;
    const int64_t NB = block_len(s), end = ledger_session_end(r);
    if (!has_prompt(s)) return; /* so that a session without prompts can end without blocks */
    int64_t want = s->job->is_live ? pace_want(s->n_shown, c->run.ahead_ms, c->run.fps, (int32_t)NB)
                                   : ((s->n_put + 3) / 4 / NB + LEAD_BLOCKS) * NB;
    want += r->first_block * NB;
    if (end != INT64_MAX && want > end * NB) want = end * NB;
    if (want <= (int64_t)ledger_read(&page(s)->want)) return;
    ledger_publish(&page(s)->want, (uint64_t)want);
    bells_ring(s->st->bells, WRITER_DIT);
}

/* How many frames may be shown now: all that are made, or those whose time has come. */
static int64_t frames_due(struct session *s, int64_t n_made)
{
    int64_t n = s->n_shown;
    if (!s->job->is_live || has_failed(s) || s->st->is_draining ||
        ledger_session_end(record(s)) != INT64_MAX)
        return n_made;
    while (n < n_made) {
        const int64_t now = now_ns();
        if (!s->is_paced_yet) pace_start(&s->pace, s->st->conf.run.fps, n, now);
        s->is_paced_yet = true;
        if (now < pace_due_ns(&s->pace, n)) break;
        pace_shown(&s->pace, n++, now);
    }
    return n;
}

/* Frames to put next: 0, or any number up to what is due; for MP4 a whole block or nothing. */
static int32_t frames_to_put(const struct session *s)
{
    int64_t n = s->n_shown - s->n_put;
    if (s->out && out_wants_block(s->out)) {
        const int64_t latents = (s->n_put + 3) / 4 + block_len(s);
        const int64_t block_end = ledger_frames_of(latents / block_len(s) * block_len(s));
        n = s->n_shown >= block_end ? block_end - s->n_put : 0;
    }
    return (int32_t)(n < FRAMES_PER_PUT_MAX ? n : FRAMES_PER_PUT_MAX);
}

/* Hashes first, then the output, then the commit: so a log of hashes is never behind. */
static err_t put_frames(struct session *s, int32_t n)
{
    err_t e = OK;
    const uint8_t *rgb[FRAMES_PER_PUT_MAX];
    const int64_t first = record(s)->first_frame + s->n_put;
    stage_unit_begin(s->st, PHASE_WRITE, (uint64_t)first);
    for (int32_t i = 0; i < n; i++) rgb[i] = frames_at(&s->frames, first + i);
    if (s->hashes) TRY(hashes_put(s->hashes, s->n_put, rgb, n, (size_t)s->frames.n_bytes));
    if (s->out) TRY(out_put(s->out, rgb, n));
    s->n_put += n;
    ledger_publish(&page(s)->n_committed, (uint64_t)(first + n));
    stage_unit_end(s->st);
    bells_ring(s->st->bells, WRITER_VAE);
out:
    return e;
}

static void show_frames(struct session *s, bool *did_work)
{
    const int64_t due = frames_due(s, frames_made(s));
    if (due > s->n_shown) {
        s->n_shown = due;
        ledger_publish(&page(s)->played, (uint64_t)due);
        ledger_publish(&page(s)->n_late, (uint64_t)s->pace.n_late);
        ledger_publish(&page(s)->late_ns_max, (uint64_t)s->pace.late_ns_max);
        *did_work = true;
    }
    const int32_t n = frames_to_put(s);
    if (n <= 0) return;
    *did_work = true;
    if (has_failed(s)) close_output(s);
    const err_t e = put_frames(s, n);
    if (e != OK) fail_job(s, e);
}

err_t session_step(struct session *s, bool *did_work)
{
    err_t e = OK;
    if (!s->job) TRY(accept_job(s, did_work));
    if (!s->job) goto out;
    if (s->st->is_draining) session_finish(s);
    if (s->at < 0 || session_is_whole(s)) {
        *did_work = true;
        e = next_session(s);
        goto out;
    }
    raise_want(s);
    show_frames(s, did_work);
out:
    return e;
}

int32_t session_wait_ms(const struct session *s)
{
    if (!s->job || s->at < 0 || !s->job->is_live || !s->is_paced_yet) return STAGE_POLL_MS;
    const int64_t ms = (pace_due_ns(&s->pace, s->n_shown) - now_ns()) / NS_PER_MS;
    return ms < 1 ? 1 : ms < STAGE_POLL_MS ? (int32_t)ms : STAGE_POLL_MS;
}

/* --- prompts from clients --------------------------------------------------------------------- */

err_t session_prompt(struct session *s, const char *text, uint64_t request, int64_t *script)
{
    err_t e = OK;
    static char clean[PROMPT_BYTES_MAX + 1];
    const int64_t n = (int64_t)ledger_read(&page(s)->n_scripts);
    for (int64_t i = n - 1; i >= 0; i--) {
        if (s->ledger->scripts[i].request != request) continue;
        *script = i;
        return OK;
    }
    if (!s->job || s->at < 0) return FAIL(ERR_NONE, "no session runs");
    if (!s->job->is_live) return FAIL(ERR_NONE, "the running session has a script of its own");
    if (ledger_session_end(record(s)) != INT64_MAX) return FAIL(ERR_NONE, "the session is ending");
    TRY(prompt_clean(text, strlen(text), clean, sizeof clean));
    TRY(append_script(s, clean, s->at, SCRIPT_ASAP, request));
    *script = n;
    ring_all(s);
out:
    return e;
}
