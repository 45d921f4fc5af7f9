/* watch.c - see watch.h. */
#include "procs/supervisor/watch.h"

#include <poll.h>
#include <string.h>

#include "common/clock.h"

#define TTY_NS ((int64_t)200 * NS_PER_MS)
#define LINES_NS ((int64_t)2 * NS_PER_S)
#define SAMPLE_NS ((int64_t)500 * NS_PER_MS)

void watch_open(struct watch *w, enum watch_mode mode, const struct conf *c, int64_t frames_before,
                int64_t n_videos)
{
    *w = (struct watch){.mode = mode,
                        .fps = c->run.fps,
                        .n_per_block = c->dit.block,
                        .frames_before = frames_before,
                        .n_videos = n_videos};
}

/* The speed between the oldest sample kept and now. */
static double speed(struct watch *w, int64_t frames, int64_t at_ns)
{
    if (w->n_samples == 0 || at_ns - w->sampled_ns >= SAMPLE_NS) {
        if (w->n_samples == WATCH_SAMPLES)
            memmove(w->samples, w->samples + 1, sizeof *w->samples * (WATCH_SAMPLES - 1));
        else w->n_samples++;
        w->samples[w->n_samples - 1].at_ns = at_ns;
        w->samples[w->n_samples - 1].frames = frames;
        w->sampled_ns = at_ns;
    }
    const int64_t ns = at_ns - w->samples[0].at_ns, n = frames - w->samples[0].frames;
    return ns > 0 && n > 0 ? (double)n * NS_PER_S / (double)ns : 0;
}

static int64_t at_least_0(int64_t n)
{
    return n > 0 ? n : 0;
}

/* Anybody may have written a ledger: positions stay small enough to count with. */
static int64_t bounded(uint64_t position)
{
    return position < UINT64_C(1) << 50 ? (int64_t)position : INT64_C(1) << 50;
}

void watch_look(struct watch *w, const struct ledger *l, int64_t at_ns, struct watch_view *out)
{
    const int64_t n_sessions = bounded(ledger_read(&l->gateway.n_sessions));
    const int64_t n_committed = bounded(ledger_read(&l->gateway.n_committed));
    const int64_t n_latents = bounded(ledger_read(&l->vae.n_latents));
    const int64_t n_blocks = bounded(ledger_read(&l->dit.n_latents_blocks));
    *out = (struct watch_view){.n_videos = w->n_videos};
    out->frames = at_least_0(n_committed - w->frames_before);
    out->fps = speed(w, out->frames, at_ns);
    out->queue = at_least_0(n_blocks * w->n_per_block - n_latents);
    out->n_late = ledger_read(&l->gateway.n_late);
    for (enum ledger_writer i = 0; i < WRITERS; i++) {
        const struct ledger_head *h = ledger_head_of((struct ledger *)l, i);
        out->ms[i] = (double)ledger_read(&h->unit_ns) / NS_PER_MS;
        if (ledger_read(&h->phase) != PHASE_OPENING) continue;
        const uint64_t permille = ledger_read(&h->unit);
        out->loaded[i] = (int32_t)(permille < 1000 ? permille : 1000) / 10;
    }
    if (n_sessions == 0 || n_sessions > LEDGER_SESSIONS_MAX) return;

    const struct ledger_session *s = &l->sessions[n_sessions - 1];
    const int64_t first_block = bounded((uint64_t)s->first_block);
    out->video = bounded((uint64_t)s->video);
    out->block = at_least_0(n_blocks - first_block);
    const uint64_t end = ledger_read(&s->n_blocks);
    out->n_blocks = end == LEDGER_VOID ? 0 : bounded(end);
    const int64_t made = ledger_frames_of(n_latents - first_block * w->n_per_block);
    const int64_t seen = s->is_live ? bounded(ledger_read(&l->gateway.played))
                                    : at_least_0(n_committed - bounded((uint64_t)s->first_frame));
    out->lead_s = (double)at_least_0(made - seen) / (w->fps > 0 ? w->fps : 1);
}

/* "loading text 40 %  dit 12 %"; false: nothing loads. */
static bool loading_text(const struct watch_view *v, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, "loading");
    const size_t n_word = n;
    for (int i = 0; i < WRITERS; i++)
        if (v->loaded[i] > 0 && n < cap)
            n += (size_t)snprintf(out + n, cap - n, "  %s %d %%", ledger_writer_names[i],
                                  v->loaded[i]);
    return n > n_word;
}

void watch_text(const struct watch_view *v, char *out, size_t cap)
{
    char video[64] = "", of[32] = "", late[48] = "";
    if (loading_text(v, out, cap)) return;
    if (v->n_videos > 1)
        snprintf(video, sizeof video, "video %lld/%lld  ", (long long)v->video + 1,
                 (long long)v->n_videos);
    if (v->n_blocks > 0) snprintf(of, sizeof of, "/%lld", (long long)v->n_blocks);
    if (v->n_late > 0) snprintf(late, sizeof late, "  late %llu", (unsigned long long)v->n_late);
    snprintf(out, cap,
             "%sblock %lld%s  frames %lld  %.1f fps  text %.0f dit %.0f vae %.0f gateway %.0f ms  "
             "lead %.1f s  queue %lld%s",
             video, (long long)v->block, of, (long long)v->frames, v->fps, v->ms[WRITER_TEXT],
             v->ms[WRITER_DIT], v->ms[WRITER_VAE], v->ms[WRITER_GATEWAY], v->lead_s,
             (long long)v->queue, late);
}

void watch_json(const struct watch_view *v, char *out, size_t cap)
{
    snprintf(out, cap,
             "{\"video\":%lld,\"videos\":%lld,\"block\":%lld,\"blocks\":%lld,\"frames\":%lld,"
             "\"fps\":%.2f,\"text_ms\":%.2f,\"dit_ms\":%.2f,\"vae_ms\":%.2f,\"gateway_ms\":%.2f,"
             "\"lead_s\":%.3f,\"queue\":%lld,\"late\":%llu}",
             (long long)v->video, (long long)v->n_videos, (long long)v->block,
             (long long)v->n_blocks, (long long)v->frames, v->fps, v->ms[WRITER_TEXT],
             v->ms[WRITER_DIT], v->ms[WRITER_VAE], v->ms[WRITER_GATEWAY], v->lead_s,
             (long long)v->queue, (unsigned long long)v->n_late);
}

/* A stopped terminal, or a pipe that nobody reads, must not stop the supervisor. */
static bool takes_writes(FILE *f)
{
    struct pollfd p = {.fd = fileno(f), .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

void watch_show(struct watch *w, const struct ledger *l, int64_t at_ns, FILE *f)
{
    char text[WATCH_LINE_MAX];
    struct watch_view v;
    const int64_t every_ns = w->mode == WATCH_TTY ? TTY_NS : LINES_NS;
    if (w->mode == WATCH_OFF || at_ns - w->shown_ns < every_ns) return;
    w->shown_ns = at_ns;
    watch_look(w, l, at_ns, &v);
    if (!takes_writes(f)) return;
    if (w->mode == WATCH_JSON) watch_json(&v, text, sizeof text);
    else watch_text(&v, text, sizeof text);
    if (w->mode == WATCH_TTY) fprintf(f, "\r%s\033[K", text);
    else fprintf(f, "%s\n", text);
    fflush(f);
    w->is_shown = w->mode == WATCH_TTY;
}

void watch_close(struct watch *w, FILE *f)
{
    if (w->is_shown && takes_writes(f)) {
        fprintf(f, "\n");
        fflush(f);
    }
    w->is_shown = false;
}
