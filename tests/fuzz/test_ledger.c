/* test_ledger.c - a ledger that anybody may have written. What status and the command line read of
 * it must survive all of it; what ledger_check lets pass must serve every stage's next step. */
#include "tests/fuzz/fuzz.h"

#include "common/conf.h"
#include "ipc/ledger.h"
#include "procs/dit/plan.h"
#include "procs/gateway/plan.h"
#include "procs/supervisor/watch.h"
#include "procs/vae/plan.h"

static struct ledger l;
static struct conf c;

/* Words of the ledger: the pages' counters, and the first records of each kind. */
enum { RECORDS = 4, WRITES_MAX = 256 };

static uint64_t *word_of(uint32_t where)
{
    static const struct {
        size_t at, n;
    } parts[] = {
        {offsetof(struct ledger, text), sizeof(struct ledger_text)},
        {offsetof(struct ledger, dit), sizeof(struct ledger_dit)},
        {offsetof(struct ledger, vae), sizeof(struct ledger_vae)},
        {offsetof(struct ledger, gateway), sizeof(struct ledger_gateway)},
        {offsetof(struct ledger, sessions), RECORDS * sizeof(struct ledger_session)},
        {offsetof(struct ledger, scripts), RECORDS * sizeof(struct ledger_script)},
        {offsetof(struct ledger, presets), RECORDS * sizeof(struct ledger_preset)},
        {offsetof(struct ledger, decisions), RECORDS * sizeof(struct ledger_decision)},
    };
    enum { PARTS = sizeof parts / sizeof *parts };
    const size_t word = where / PARTS % (parts[where % PARTS].n / 8);
    return (uint64_t *)((char *)&l + parts[where % PARTS].at) + word;
}

static bool is_ready(void *self, const struct ledger_script *s)
{
    return ((uintptr_t)self + s->key[0]) % 2 == 0;
}

static void serve(void)
{
    const int64_t n = (int64_t)ledger_read(&l.gateway.n_sessions);
    const struct job job = {.id = ledger_read(&l.gateway.job), .n_videos = 2};
    int64_t block, frame;
    bool must_wait;
    (void)plan_next(&l, &c, is_ready, NULL);
    (void)plan_next(&l, &c, is_ready, (void *)1);
    (void)vae_plan_next(&l, &c);
    if (n == 0 || ledger_session_end(&l.sessions[n - 1]) != INT64_MAX) /* else none is begun */
        gateway_plan_begin(&l, &c, &block, &frame);
    (void)gateway_plan_job(&l, 1, false);
    (void)gateway_find_request(&l, 7);
    (void)ledger_session_of(&l, 5);
    for (int64_t s = -1; s < n; s++) {
        (void)gateway_plan_next(&l, &c, &job, s, 3, false);
        (void)ledger_due_script(&l, s, 3, -1, is_ready, NULL, &must_wait);
        if (s < 0) continue;
        struct pace pace = {0};
        (void)gateway_plan_finish(&l, &c, s);
        (void)gateway_plan_want(&l, &c, s, 9, 9);
        (void)gateway_n_scripted(&l, s);
        MUST(gateway_frames_made(&l, &c, s) >= 0);
        (void)gateway_frames_due(&l, &c, s, gateway_frames_made(&l, &c, s), false, &pace, 1);
    }
    for (int64_t i = 0; i < (int64_t)ledger_read(&l.gateway.n_scripts); i++) {
        const struct ledger_script *s = &l.scripts[i];
        char text[PROMPT_BYTES_MAX + 1];
        (void)gateway_decision_of(&l, i);
        memcpy(text, l.texts + s->text_at, s->n_text_bytes);
        if (s->at_block != SCRIPT_PREWARM) (void)ledger_session_is_over(&l, s->session);
    }
}

/* Each 11 bytes: where (3), what (8). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint64_t *written[WRITES_MAX];
    static struct watch watch;
    struct watch_view v;
    char text[WATCH_LINE_MAX];
    int n_written = 0;
    if (c.run.fps == 0) conf_default(&c);
    for (; n >= 11 && n_written < WRITES_MAX; data += 11, n -= 11) {
        uint64_t *at = word_of(data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16);
        memcpy(at, data + 3, 8);
        written[n_written++] = at;
    }
    watch_open(&watch, WATCH_LINES, &c, 0, 1);
    watch_look(&watch, &l, 1, &v);
    watch_text(&v, text, sizeof text);
    watch_json(&v, text, sizeof text);
    const err_t e = ledger_check(&l);
    if (e != OK) fuzz_refused(e, ERR_DATA, ERR_DATA);
    else serve();
    while (n_written > 0) *written[--n_written] = 0;
    return 0;
}
