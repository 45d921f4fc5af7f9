/* ledger.c - see ledger.h. */
#include "ipc/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Processes of different builds may meet in one file: the shape is a promise, not an accident. */
_Static_assert(sizeof(counter) == 8 && ATOMIC_LONG_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
               "counters are shared between processes: lock-free");
_Static_assert(sizeof(struct ledger_text) <= LEDGER_PAGE_BYTES, "page");
_Static_assert(sizeof(struct ledger_dit) <= LEDGER_PAGE_BYTES, "page");
_Static_assert(sizeof(struct ledger_vae) <= LEDGER_PAGE_BYTES, "page");
_Static_assert(sizeof(struct ledger_gateway) <= LEDGER_PAGE_BYTES, "page");
_Static_assert(sizeof(struct ledger_head) == 11 * 8, "no padding");
_Static_assert(sizeof(struct ledger_session) == 8 * 8, "no padding");
_Static_assert(sizeof(struct ledger_script) == 48 + PROMPT_KEY_BYTES, "no padding");
_Static_assert(sizeof(struct ledger_decision) == 64 + PROMPT_KEY_BYTES, "no padding");
_Static_assert(sizeof(struct ledger_preset) == 36 + LEDGER_STEPS_BYTES, "no padding");
_Static_assert(sizeof(struct ledger_spans) == 8 + LEDGER_SPANS * 32, "no padding");
_Static_assert(sizeof(struct ledger_memory) == (4 + MEMORY_CLASSES) * 8, "no padding");
_Static_assert(offsetof(struct ledger, text) == 0 * LEDGER_PAGE_BYTES, "a page a writer");
_Static_assert(offsetof(struct ledger, dit) == 1 * LEDGER_PAGE_BYTES, "a page a writer");
_Static_assert(offsetof(struct ledger, vae) == 2 * LEDGER_PAGE_BYTES, "a page a writer");
_Static_assert(offsetof(struct ledger, gateway) == 3 * LEDGER_PAGE_BYTES, "a page a writer");
_Static_assert(offsetof(struct ledger, sessions) == 4 * LEDGER_PAGE_BYTES, "records follow");
_Static_assert(sizeof(struct ledger) ==
                   4 * LEDGER_PAGE_BYTES + LEDGER_SESSIONS_MAX * sizeof(struct ledger_session) +
                       LEDGER_SCRIPTS_MAX * sizeof(struct ledger_script) +
                       LEDGER_PRESETS_MAX * sizeof(struct ledger_preset) +
                       LEDGER_DECISIONS_MAX * sizeof(struct ledger_decision) + LEDGER_TEXT_BYTES +
                       WRITERS * sizeof(struct ledger_spans) +
                       LEDGER_MEMORIES * sizeof(struct ledger_memory),
               "no padding between the parts");

const char *const ledger_writer_names[WRITERS] = {
    [WRITER_TEXT] = "text",
    [WRITER_DIT] = "dit",
    [WRITER_VAE] = "vae",
    [WRITER_GATEWAY] = "gateway",
};

const char *const ledger_phase_names[PHASES] = {
    [PHASE_OPENING] = "opening", [PHASE_IDLE] = "idle",       [PHASE_ENCODE] = "encode",
    [PHASE_PROMPT] = "prompt",   [PHASE_RECACHE] = "recache", [PHASE_DENOISE] = "denoise",
    [PHASE_CLEAN] = "clean",     [PHASE_DECODE] = "decode",   [PHASE_WRITE] = "write",
};

const char *const ledger_memory_names[MEMORY_CLASSES] = {
    [MEMORY_WEIGHTS] = "weights",
    [MEMORY_STATE] = "state",
    [MEMORY_EDGE] = "edge",
    [MEMORY_SCRATCH] = "scratch",
};

struct ledger_head *ledger_head_of(struct ledger *l, enum ledger_writer w)
{
    struct ledger_head *const heads[WRITERS] = {
        [WRITER_TEXT] = &l->text.head,
        [WRITER_DIT] = &l->dit.head,
        [WRITER_VAE] = &l->vae.head,
        [WRITER_GATEWAY] = &l->gateway.head,
    };
    MUST(w >= 0 && w < WRITERS);
    return heads[w];
}

err_t ledger_map(const char *run_dir, const struct ledger **out)
{
    err_t e = OK;
    char path[PATH_MAX];
    struct stat st;
    void *at = MAP_FAILED;
    const int n = snprintf(path, sizeof path, "%s/ledger", run_dir);
    if (n < 0 || n >= (int)sizeof path) return FAIL(ERR_CONFIG, "run directory: name too long");

    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return FAIL(ERR_NONE, "%s: nothing runs there", run_dir);
    if (fd < 0) return FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        e = FAIL(ERR_NOINPUT, "%s: not a file", path);
        goto out;
    }
    if (st.st_size == 0) { /* between its creation and its first byte */
        e = FAIL(ERR_NONE, "%s: being made", path);
        goto out;
    }
    /* A shorter file would be a SIGBUS later; a longer one is another version's. */
    if (st.st_size != (off_t)sizeof(struct ledger)) {
        e = FAIL(ERR_DATA, "%s: %lld bytes, not the %zu of this version", path,
                 (long long)st.st_size, sizeof(struct ledger));
        goto out;
    }
    at = mmap(NULL, sizeof(struct ledger), PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        e = FAIL(ERR_NOMEM, "%s: %s", path, strerror(errno));
        goto out;
    }
    *out = at;
out:
    close(fd);
    return e;
}

void ledger_unmap(const struct ledger **l)
{
    if (!l || !*l) return;
    munmap((void *)(uintptr_t)*l, sizeof **l);
    *l = NULL;
}

/* A count is the writer's; a reader never steps out of its own map because of it. */
static int64_t count_of(const counter *c, int64_t n_max)
{
    const uint64_t n = ledger_read(c);
    return n < (uint64_t)n_max ? (int64_t)n : n_max;
}

int32_t ledger_spans_read(const struct ledger_spans *s, uint64_t *from, struct ledger_span *out,
                          int32_t cap)
{
    const uint64_t n = ledger_read(&s->n);
    /* The oldest slot is the one that the writer may be in. A wrapped difference: not of this ring.
     */
    if (n - *from >= LEDGER_SPANS) *from = n < LEDGER_SPANS ? 0 : n - LEDGER_SPANS + 1;
    const int32_t n_out = (int32_t)(n - *from < (uint64_t)cap ? n - *from : (uint64_t)cap);
    for (int32_t i = 0; i < n_out; i++) out[i] = s->ring[(*from + (uint64_t)i) % LEDGER_SPANS];
    atomic_thread_fence(memory_order_acquire);
    const uint64_t n_now = ledger_read(&s->n);
    int32_t n_lost = 0; /* overwritten meanwhile */
    while (n_lost < n_out && n_now - (*from + (uint64_t)n_lost) >= LEDGER_SPANS) n_lost++;
    for (int32_t i = n_lost; i < n_out; i++) out[i - n_lost] = out[i];
    *from += (uint64_t)n_out;
    return n_out - n_lost;
}

int64_t ledger_session_of(const struct ledger *l, int64_t block)
{
    /* Newest first: sessions lie in the order of their blocks, and the last one is asked about. */
    for (int64_t i = count_of(&l->gateway.n_sessions, LEDGER_SESSIONS_MAX) - 1; i >= 0; i--) {
        const struct ledger_session *s = &l->sessions[i];
        if (block < s->first_block) continue;
        return block < ledger_session_end(s) ? i : -1;
    }
    return -1;
}

/* --- bytes that anybody may have written ------------------------------------------------------ */

/* 2^40 blocks are a thousand years. */
static const int64_t BLOCKS_MAX = INT64_C(1) << 40, FRAMES_MAX = INT64_C(1) << 50;

static bool is_position(int64_t v, int64_t most)
{
    return v >= 0 && v <= most;
}

/* The sessions follow each other; only the last may have no end yet. */
static err_t check_sessions(const struct ledger *l, int64_t n)
{
    int64_t next = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct ledger_session *s = &l->sessions[i];
        const uint64_t n_blocks = ledger_read(&s->n_blocks);
        const bool is_open = n_blocks == 0, is_void = n_blocks == LEDGER_VOID;
        if (s->first_block != next || !is_position(s->first_frame, FRAMES_MAX) ||
            (is_open && i < n - 1) || (!is_void && n_blocks > (uint64_t)BLOCKS_MAX) ||
            !is_position(s->video, FRAMES_MAX))
            return FAIL(ERR_DATA, "ledger: session %lld is broken", (long long)i);
        next += is_void ? 0 : (int64_t)n_blocks;
        if (next > BLOCKS_MAX) return FAIL(ERR_DATA, "ledger: sessions without end");
    }
    return OK;
}

static err_t check_scripts(const struct ledger *l, int64_t n, int64_t n_sessions, uint64_t n_text)
{
    for (int64_t i = 0; i < n; i++) {
        const struct ledger_script *s = &l->scripts[i];
        const bool is_prewarm = s->at_block == SCRIPT_PREWARM;
        if (s->at_block < SCRIPT_PREWARM || s->at_block > BLOCKS_MAX || s->session >= n_sessions ||
            (s->session < 0 && !is_prewarm) || s->n_text_bytes > PROMPT_BYTES_MAX ||
            s->text_at > n_text || s->n_text_bytes > n_text - s->text_at)
            return FAIL(ERR_DATA, "ledger: script record %lld is broken", (long long)i);
    }
    return OK;
}

/* Windows are those of dit.window's bounds; what fits into memory dit knows. */
static err_t check_presets(const struct ledger *l, int64_t n, int64_t n_sessions)
{
    for (int64_t i = 0; i < n; i++) {
        const struct ledger_preset *p = &l->presets[i];
        if (p->session < 0 || p->session >= n_sessions || p->at_block < SCRIPT_ASAP ||
            p->at_block > BLOCKS_MAX || p->window < 3 || p->window > 24 ||
            !memchr(p->steps, '\0', sizeof p->steps))
            return FAIL(ERR_DATA, "ledger: preset record %lld is broken", (long long)i);
    }
    return OK;
}

static err_t check_decisions(const struct ledger *l, int64_t n, int64_t n_sessions,
                             int64_t n_scripts, int64_t n_presets)
{
    for (int64_t i = 0; i < n; i++) {
        const struct ledger_decision *d = &l->decisions[i];
        if (!is_position(d->block, BLOCKS_MAX) || d->session < 0 || d->session >= n_sessions ||
            d->script < 0 || d->script >= n_scripts || d->n_tokens < 0 || d->preset < 0 ||
            d->preset > n_presets)
            return FAIL(ERR_DATA, "ledger: decision %lld is broken", (long long)i);
    }
    return OK;
}

/* A count that follows from another is read before it: both grow while we look. */
err_t ledger_check(const struct ledger *l)
{
    err_t e = OK;
    const uint64_t n_latents = ledger_read(&l->vae.n_latents);
    uint64_t K, L;
    do { /* both of one moment */
        K = ledger_read(&l->dit.n_clean_blocks);
        L = ledger_read(&l->dit.n_latents_blocks);
    } while (K != ledger_read(&l->dit.n_clean_blocks));
    const uint64_t n_seen = ledger_read(&l->text.n_scripts_seen);
    const uint64_t n_decisions = ledger_read(&l->dit.n_decisions);
    const uint64_t n_scripts = ledger_read(&l->gateway.n_scripts);
    const uint64_t n_presets = ledger_read(&l->gateway.n_presets);
    const uint64_t n_sessions = ledger_read(&l->gateway.n_sessions);
    const uint64_t n_text = ledger_read(&l->gateway.n_text_bytes);
    if (n_decisions > LEDGER_DECISIONS_MAX || n_scripts > LEDGER_SCRIPTS_MAX ||
        n_sessions > LEDGER_SESSIONS_MAX || n_text > LEDGER_TEXT_BYTES || n_seen > n_scripts ||
        n_presets > LEDGER_PRESETS_MAX)
        return FAIL(ERR_DATA, "ledger: a count is larger than its array");
    if (L > (uint64_t)BLOCKS_MAX || K > L || L - K > 1 || n_latents > (uint64_t)FRAMES_MAX ||
        ledger_read(&l->gateway.want) > (uint64_t)FRAMES_MAX ||
        ledger_read(&l->gateway.n_committed) > (uint64_t)FRAMES_MAX ||
        ledger_read(&l->gateway.played) > (uint64_t)FRAMES_MAX)
        return FAIL(ERR_DATA, "ledger: a position is out of bounds");
    TRY(check_sessions(l, (int64_t)n_sessions));
    TRY(check_scripts(l, (int64_t)n_scripts, (int64_t)n_sessions, n_text));
    TRY(check_presets(l, (int64_t)n_presets, (int64_t)n_sessions));
    TRY(check_decisions(l, (int64_t)n_decisions, (int64_t)n_sessions, (int64_t)n_scripts,
                        (int64_t)n_presets));
    if (L > 0 && ledger_session_of(l, (int64_t)L - 1) < 0)
        e = FAIL(ERR_DATA, "ledger: blocks of no session");
out:
    return e;
}

int64_t ledger_due_script(const struct ledger *l, int64_t session, int64_t block, int64_t after,
                          bool (*is_ready)(void *self, const struct ledger_script *s), void *self,
                          bool *must_wait)
{
    const int64_t n = count_of(&l->gateway.n_scripts, LEDGER_SCRIPTS_MAX);
    const int64_t oldest = after < 0 ? 0 : after + 1;
    bool has_unready = false;

    /* Newest first, so the first record that can decide does. A scripted one is bound to its block
     * and decides even unready: taking an older one instead would make other frames. */
    *must_wait = false;
    for (int64_t i = n - 1; i >= oldest; i--) {
        const struct ledger_script *s = &l->scripts[i];
        const bool is_asap = s->at_block == SCRIPT_ASAP;
        if (s->session != session) continue;
        if (!is_asap && (s->at_block < 0 || s->at_block > block)) continue;
        if (is_ready(self, s)) return i;
        has_unready = true;
        if (!is_asap) {
            *must_wait = true;
            return -1;
        }
    }
    /* An unready ASAP prompt lets the old one go on, but a session's first has no old one. */
    *must_wait = after < 0 && has_unready;
    return -1;
}

int64_t ledger_due_preset(const struct ledger *l, int64_t session, int64_t block, int64_t after)
{
    for (int64_t i = count_of(&l->gateway.n_presets, LEDGER_PRESETS_MAX) - 1; i >= after; i--)
        if (l->presets[i].session == session && l->presets[i].at_block <= block) return i + 1;
    return 0;
}
