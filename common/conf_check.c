/* conf_check.c - what no single key can tell: relations between keys, and the spelling of texts. */
#include "common/conf.h"
#include "common/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 5, STEP_MAX = 1000, CUDA_DEVICES_MAX = 64 };
static const uint64_t SWITCH_MAX = UINT64_C(1000000000000);

/* Latent frames that are decoded again to rebuild the VAE's state after it died. */
enum { VAE_REBUILD_LATENTS = 38 };

/* Reads digits as a number up to max; moves *s past them. */
static bool read_number(const char **s, uint64_t max, uint64_t *v)
{
    char *end = NULL;
    if (**s < '0' || **s > '9') return false; /* strtoull alone would take " -1" */
    errno = 0;
    *v = strtoull(*s, &end, 10);
    *s = end;
    return errno == 0 && *v <= max;
}

static bool is_even(int32_t v)
{
    return v % 2 == 0;
}

static err_t check_steps(const char *steps)
{
    const char *s = steps;
    uint64_t v = 0, last = STEP_MAX + 1;
    int32_t n = 0;
    for (;; s++) { /* over the comma */
        if (!read_number(&s, STEP_MAX, &v) || v < 1 || v >= last || ++n > STEPS_MAX) break;
        last = v;
        if (*s == '\0') return OK;
        if (*s != ',') break;
    }
    return FAIL(ERR_CONFIG, "dit.steps = %s: 1 to %d integers from 1 to %d, strictly decreasing",
                steps, STEPS_MAX, STEP_MAX);
}

/* Blanks may follow a comma, as in LongLive's own files. */
int32_t conf_switches(const struct conf *c, int64_t at[CONF_SWITCHES_MAX])
{
    const char *s = c->run.switch_frame_indices;
    uint64_t v = 0, last = 0;
    int32_t n = 0;
    while (*s != '\0') {
        s += strspn(s, " ");
        if (n == CONF_SWITCHES_MAX || !read_number(&s, SWITCH_MAX, &v) || v < last) return 0;
        at[n++] = (int64_t)(last = v);
        if (*s == '\0') return n;
        if (*s++ != ',' || *s == '\0') return 0;
    }
    return 0;
}

static err_t check_switches(const struct conf *c)
{
    int64_t at[CONF_SWITCHES_MAX];
    const char *text = c->run.switch_frame_indices;
    if (text[0] == '\0' || conf_switches(c, at) > 0) return OK;
    return FAIL(ERR_CONFIG,
                "run.switch_frame_indices = %s: integers from 0 to %" PRIu64
                ", with commas between them, not decreasing",
                text, SWITCH_MAX);
}

static err_t check_place(const char *stage, const char *place)
{
    const char *s = place + 5;
    uint64_t device = 0;
    if (strcmp(place, "cpu") == 0) return OK;
    if (strncmp(place, "cuda:", 5) == 0 && read_number(&s, CUDA_DEVICES_MAX - 1, &device) &&
        *s == '\0')
        return OK;
    return FAIL(ERR_CONFIG, "place.%s = %s: cpu or cuda:N, N from 0 to %d", stage, place,
                CUDA_DEVICES_MAX - 1);
}

static err_t check_precision(const struct conf *c)
{
    if (c->model.precision != PRECISION_FP8 && c->model.precision != PRECISION_INT8_KV) return OK;
    return FAIL(ERR_CONFIG, "model.precision = %s: not built, only auto and fp32 are",
                c->model.precision == PRECISION_FP8 ? "fp8" : "int8_kv");
}

static err_t check_texts(const struct conf *c)
{
    err_t e = OK;
    const char *s = c->model.weights + 7;
    uint64_t seed = 0;
    if (strncmp(c->model.weights, "random:", 7) != 0 || !read_number(&s, UINT64_MAX, &seed) ||
        *s != '\0')
        return FAIL(ERR_CONFIG, "model.weights = %s: random:SEED, SEED from 0 to %" PRIu64,
                    c->model.weights, UINT64_MAX);
    TRY(check_switches(c));
    TRY(check_steps(c->dit.steps));
    TRY(check_place("text", c->place.text));
    TRY(check_place("dit", c->place.dit));
    TRY(check_place("vae", c->place.vae));
    if (c->place.clean[0]) {
        TRY(check_place("clean", c->place.clean));
        if ((strcmp(c->place.clean, "cpu") == 0) != (strcmp(c->place.dit, "cpu") == 0))
            return FAIL(ERR_CONFIG, "place.clean = %s, place.dit = %s: both cpu or both cuda:N",
                        c->place.clean, c->place.dit);
    }
out:
    return e;
}

static err_t check_sizes(const struct conf *c)
{
    const int32_t dim = c->dit.dim, heads = c->dit.heads;
    const struct {
        const char *key;
        int32_t v;
    } even[] = {
        {"model.latent_rows", c->model.latent_rows},
        {"model.latent_cols", c->model.latent_cols},
        {"dit.freq_dim", c->dit.freq_dim},
        {"vae.base_dim", c->vae.base_dim},
    };
    for (size_t i = 0; i < sizeof even / sizeof *even; i++)
        if (!is_even(even[i].v))
            return FAIL(ERR_CONFIG, "%s = %d: must be even", even[i].key, even[i].v);
    if (dim % heads != 0)
        return FAIL(ERR_CONFIG, "dit.dim = %d: not a multiple of dit.heads = %d", dim, heads);
    /* RoPE turns pairs, and gives a third of them to each of time, row and column. */
    if (!is_even(dim / heads) || dim / heads < 6)
        return FAIL(ERR_CONFIG, "dit.dim / dit.heads = %d: a head is even and at least 6 wide",
                    dim / heads);
    return OK;
}

static err_t check_window(const struct conf *c)
{
    const int32_t window = c->dit.window, sink = c->dit.sink, block = c->dit.block;
    const int32_t most = conf_window_max(c), least = most + block + VAE_REBUILD_LATENTS;
    if (sink > block) return FAIL(ERR_CONFIG, "dit.sink = %d: at most dit.block = %d", sink, block);
    if (block > window - sink)
        return FAIL(ERR_CONFIG, "dit.block = %d: at most dit.window - dit.sink = %d", block,
                    window - sink);
    if (c->dit.window_max && window > c->dit.window_max)
        return FAIL(ERR_CONFIG, "dit.window = %d: at most dit.window_max = %d", window,
                    c->dit.window_max);
    if (c->dit.ring_latents < least)
        return FAIL(ERR_CONFIG,
                    "dit.ring_latents = %d: at least dit.window%s + dit.block + %d = %d",
                    c->dit.ring_latents, most > window ? "_max" : "", VAE_REBUILD_LATENTS, least);
    return OK;
}

/* The VAE writes a block (4 frames a latent) into the ring while another is read from it; what a
 * live session keeps ahead of the viewer, and the block that tops it up, fit beside them. */
static err_t check_ahead(const struct conf *c)
{
    const int64_t room = c->vae.ring_frames - 8 * (int64_t)c->dit.block, fps = c->run.fps;
    if (room < 0)
        return FAIL(ERR_CONFIG, "vae.ring_frames = %d: at least 8 * dit.block = %d",
                    c->vae.ring_frames, 8 * c->dit.block);
    if (c->run.ahead_ms * fps / 1000 > room)
        return FAIL(ERR_CONFIG,
                    "run.ahead_ms = %d: at %" PRId64 " fps and vae.ring_frames = %d from 0 to"
                    " %" PRId64,
                    c->run.ahead_ms, fps, c->vae.ring_frames, ((room + 1) * 1000 - 1) / fps);
    return OK;
}

/* Embeddings of an earlier run would be used again. */
static err_t check_cache(const struct conf *c)
{
    if (c->cache.reuse || !c->cache.file[0]) return OK;
    return FAIL(ERR_CONFIG, "cache.reuse = false: not with cache.file = %s", c->cache.file);
}

err_t conf_check(const struct conf *c)
{
    err_t e = OK;
    TRY(check_texts(c));
    TRY(check_precision(c));
    TRY(check_sizes(c));
    TRY(check_window(c));
    TRY(check_ahead(c));
    TRY(check_cache(c));
    TRY(fault_check(c));
out:
    return e;
}
