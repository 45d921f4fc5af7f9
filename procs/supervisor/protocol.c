/* protocol.c - see protocol.h. */
#include "procs/supervisor/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const prompts[PROTOCOL_PROMPTS] = {
    "A panda eats bamboo in a misty forest, soft morning light",
    "Ocean waves break on black rocks at sunset, seen from above",
    "A red car drives through a city at night, neon signs in the wet street",
    "Fireworks over a harbour, their colours in the water below",
    "A person dances alone in the rain under a street lamp",
    "White birds rise from a still lake at dawn, mountains behind it",
    "A steam train crosses a snowy plain, smoke drifting over the trees",
    "Autumn leaves fall slowly in a park, a bench in the foreground",
};

bool protocol_is_switch(const struct protocol_length *n, int64_t i)
{
    const int64_t at = i - n->n_warm;
    return n->switch_every > 0 && at >= 0 && at % n->switch_every == n->switch_every - 1;
}

void protocol_prompt(int64_t i, int64_t take, char text[PROTOCOL_TEXT_MAX])
{
    const char *base = prompts[i % PROTOCOL_PROMPTS];
    if (take > 0) snprintf(text, PROTOCOL_TEXT_MAX, "Take %lld: %s", (long long)take, base);
    else snprintf(text, PROTOCOL_TEXT_MAX, "%s", base);
}

static err_t fill_video(struct job_video *v, int64_t n_prompts, int64_t n_blocks, int64_t seed)
{
    v->n_blocks = n_blocks;
    v->seed = seed;
    v->out = strdup("");
    v->hashes = strdup("");
    v->prompts = calloc((size_t)n_prompts, sizeof *v->prompts);
    return v->out && v->hashes && v->prompts ? OK : FAIL(ERR_NOMEM, "job");
}

static err_t add_prompt(struct job_video *v, int64_t at_block, int64_t i, int64_t take)
{
    char text[PROTOCOL_TEXT_MAX];
    struct job_prompt *p = &v->prompts[v->n_prompts++];
    protocol_prompt(i, take, text);
    p->at_block = at_block;
    p->text = strdup(text);
    return p->text ? OK : FAIL(ERR_NOMEM, "prompt");
}

static err_t open_job(struct job **out, int64_t n_videos)
{
    struct job *job = calloc(1, sizeof *job);
    if (job) job->videos = calloc((size_t)n_videos, sizeof *job->videos);
    if (!job || !job->videos) {
        job_free(&job);
        return FAIL(ERR_NOMEM, "job");
    }
    *out = job;
    return OK;
}

err_t protocol_calls(struct job **out, const struct conf *c, const struct protocol_length *n)
{
    err_t e = OK;
    struct job *job = NULL;
    TRY(open_job(&job, n->n_blocks));
    for (int64_t i = 0; i < n->n_blocks; i++) {
        struct job_video *v = &job->videos[job->n_videos++];
        TRY(fill_video(v, 1, n->call_blocks ? n->call_blocks : 1, c->run.seed + i));
        TRY(add_prompt(v, 0, i, protocol_is_switch(n, i) ? i : 0));
    }
    *out = job;
    job = NULL;
out:
    job_free(&job);
    return e;
}

err_t protocol_stream(struct job **out, const struct conf *c, const struct protocol_length *n)
{
    err_t e = OK;
    struct job *job = NULL;
    TRY(open_job(&job, 1));
    struct job_video *v = &job->videos[job->n_videos++];
    TRY(fill_video(v, n->n_blocks + 1, n->n_blocks, c->run.seed));
    TRY(add_prompt(v, 0, 0, 0));
    for (int64_t i = 0, k = 1; i < n->n_blocks; i++)
        if (protocol_is_switch(n, i)) TRY(add_prompt(v, i, k++, i));
    *out = job;
    job = NULL;
out:
    job_free(&job);
    return e;
}
