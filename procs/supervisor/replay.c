/* replay.c - see replay.h. */
#include "procs/supervisor/replay.h"

#include <stdlib.h>
#include <string.h>

static int64_t n_blocks_of(const struct ledger_session *s, int64_t n_made)
{
    const int64_t end = ledger_session_end(s);
    const int64_t n = (end < n_made ? end : n_made) - s->first_block;
    return n > 0 ? n : 0;
}

static err_t add_preset(struct job_video *v, const struct ledger *l,
                        const struct ledger_decision *d, int64_t first_block)
{
    const struct ledger_preset *r = &l->presets[d->preset - 1];
    struct job_preset *p = &v->presets[v->n_presets++];
    p->at_block = d->block - first_block;
    p->window = r->window;
    p->steps = strndup(r->steps, sizeof r->steps);
    return p->steps ? OK : FAIL(ERR_NOMEM, "preset");
}

static err_t check_decision(const struct ledger *l, const struct ledger_decision *d,
                            int64_t first_block)
{
    const uint64_t n_scripts = ledger_read(&l->gateway.n_scripts);
    if (d->script < 0 || (uint64_t)d->script >= n_scripts || d->block < first_block ||
        d->preset < 0 || (uint64_t)d->preset > ledger_read(&l->gateway.n_presets))
        return FAIL(ERR_DATA, "ledger: the decision for block %lld", (long long)d->block);
    return OK;
}

static err_t add_prompt(struct job_video *v, const struct ledger *l,
                        const struct ledger_decision *d, int64_t first_block)
{
    const struct ledger_script *s = &l->scripts[d->script];
    if (s->text_at > LEDGER_TEXT_BYTES || s->n_text_bytes > LEDGER_TEXT_BYTES - s->text_at)
        return FAIL(ERR_DATA, "ledger: prompt %lld", (long long)d->script);
    struct job_prompt *p = &v->prompts[v->n_prompts++];
    p->at_block = d->block - first_block;
    p->is_rebuild = d->kind == DECISION_REBUILD;
    p->is_clean = true;
    p->text = strndup(l->texts + s->text_at, s->n_text_bytes);
    return p->text ? OK : FAIL(ERR_NOMEM, "prompt");
}

static err_t fill_video(struct job_video *v, const struct ledger *l, int64_t session,
                        int64_t n_blocks)
{
    err_t e = OK;
    const struct ledger_session *s = &l->sessions[session];
    const int64_t n = (int64_t)ledger_read(&l->dit.n_decisions);
    int64_t script = -1, preset = 0; /* of the last decision that counts */
    if (s->files)
        return FAIL(ERR_DATA, "session %lld took its %s from a file that is not kept",
                    (long long)session, s->files & SESSION_NOISE ? "noise" : "embeddings");
    v->n_blocks = n_blocks;
    v->seed = s->seed;
    v->out = strdup("");
    v->hashes = strdup("");
    v->prompts = calloc((size_t)n + 1, sizeof *v->prompts);
    v->presets = calloc((size_t)n + 1, sizeof *v->presets);
    if (!v->out || !v->hashes || !v->prompts || !v->presets) return FAIL(ERR_NOMEM, "video");
    for (int64_t i = 0; i < n; i++) {
        const struct ledger_decision *d = &l->decisions[i];
        const bool is_last = i + 1 == n || d[1].session != session || d[1].block != d->block;
        if (d->session != session || !is_last || d->block >= s->first_block + n_blocks) continue;
        TRY(check_decision(l, d, s->first_block));
        if (d->script != script || d->kind == DECISION_REBUILD)
            TRY(add_prompt(v, l, d, s->first_block));
        if (d->preset != preset) TRY(add_preset(v, l, d, s->first_block));
        script = d->script;
        preset = d->preset;
    }
    if (v->n_prompts == 0 || v->prompts[0].at_block != 0)
        e = FAIL(ERR_DATA, "ledger: session %lld has no first prompt", (long long)session);
out:
    return e;
}

err_t replay_job(const struct ledger *l, struct job **out)
{
    err_t e = OK;
    const uint64_t n = ledger_read(&l->gateway.n_sessions);
    const int64_t n_made = (int64_t)ledger_read(&l->dit.n_latents_blocks);
    struct job *job = calloc(1, sizeof *job);
    if (!job || n > LEDGER_SESSIONS_MAX ||
        ledger_read(&l->dit.n_decisions) > LEDGER_DECISIONS_MAX ||
        ledger_read(&l->gateway.n_scripts) > LEDGER_SCRIPTS_MAX ||
        ledger_read(&l->gateway.n_presets) > LEDGER_PRESETS_MAX) {
        e = job ? FAIL(ERR_DATA, "ledger: a count above its bound") : FAIL(ERR_NOMEM, "job");
        goto out;
    }
    job->videos = calloc(n + 1, sizeof *job->videos);
    if (!job->videos) {
        e = FAIL(ERR_NOMEM, "job");
        goto out;
    }
    for (uint64_t i = 0; i < n; i++) {
        const int64_t n_blocks = n_blocks_of(&l->sessions[i], n_made);
        if (n_blocks > 0) TRY(fill_video(&job->videos[job->n_videos++], l, (int64_t)i, n_blocks));
    }
    if (job->n_videos == 0) {
        e = FAIL(ERR_NONE, "nothing was made there yet");
        goto out;
    }
    *out = job;
    job = NULL;
out:
    job_free(&job);
    return e;
}
