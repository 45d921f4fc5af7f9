/* chrome.c - see chrome.h. */
#include "procs/supervisor/chrome.h"

#include <stdio.h>

#include "common/clock.h"

/* Differences are taken in f64: anybody may have written the times. */
static int64_t first_begin(const struct trace *t)
{
    int64_t first_ns = INT64_MAX;
    for (int w = 0; w < WRITERS; w++)
        for (int64_t i = 0; i < t->of[w].n; i++)
            if (t->of[w].v[i].began_ns < first_ns) first_ns = t->of[w].v[i].began_ns;
    return first_ns;
}

/* "block 7", "step 2": what people look for. */
static void name_of(const struct ledger_span *s, char out[48])
{
    const bool is_known = s->phase >= 0 && s->phase < PHASES;
    if (s->phase == PHASE_DENOISE && s->part == SPAN_WHOLE)
        snprintf(out, 48, "block %lld", (long long)s->unit);
    else if (s->phase == PHASE_DENOISE) snprintf(out, 48, "step %d", (int)s->part);
    else if (s->phase == PHASE_DECODE) snprintf(out, 48, "latent %lld", (long long)s->unit);
    else snprintf(out, 48, "%s", is_known ? ledger_phase_names[s->phase] : "?");
}

json_t *chrome_trace(const struct trace *t)
{
    const int64_t zero_ns = first_begin(t);
    char name[48];
    json_t *events = json_array();
    for (int w = 0; w < WRITERS; w++) {
        json_array_append_new(events,
                              json_pack("{s:s, s:s, s:i, s:{s:s}}", "name", "process_name", "ph",
                                        "M", "pid", w + 1, "args", "name", ledger_writer_names[w]));
        for (int64_t i = 0; i < t->of[w].n; i++) {
            const struct ledger_span *s = &t->of[w].v[i];
            const bool is_known = s->phase >= 0 && s->phase < PHASES;
            name_of(s, name);
            json_array_append_new(
                events,
                json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i, s:{s:I, s:i}}", "name", name, "cat",
                          is_known ? ledger_phase_names[s->phase] : "?", "ph", "X", "ts",
                          ((double)s->began_ns - (double)zero_ns) / NS_PER_US, "dur",
                          ((double)s->ended_ns - (double)s->began_ns) / NS_PER_US, "pid", w + 1,
                          "tid", 1, "args", "unit", (json_int_t)s->unit, "part", (int)s->part));
        }
    }
    return json_pack("{s:o, s:s}", "traceEvents", events, "displayTimeUnit", "ms");
}
