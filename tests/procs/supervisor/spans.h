/* spans.h - for tests: spans of stages that never ran, in a ledger made by hand. */
#ifndef TESTS_SPANS_H
#define TESTS_SPANS_H

#include "ipc/ledger.h"

static inline void spans_add(struct ledger *l, enum ledger_writer w, enum ledger_phase phase,
                             int64_t unit, int32_t part, int64_t began_ns, int64_t ended_ns)
{
    ledger_span_add(&l->spans[w], (struct ledger_span){.began_ns = began_ns,
                                                       .ended_ns = ended_ns,
                                                       .unit = unit,
                                                       .phase = (int32_t)phase,
                                                       .part = part});
}

#endif
