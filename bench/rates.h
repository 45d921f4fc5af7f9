/* rates.h - how fast a device is at best: the ceilings that floors are made of.
 *
 * A call is several tries on memory of its own, timed by marks; *best is raised to the best of them
 * and never lowered. Call it again later and a slow moment of the machine does not make a ceiling.
 */
#ifndef BENCH_RATES_H
#define BENCH_RATES_H

#include "common/dev.h"
#include "common/tensor.h"

/* FLOP a nanosecond of one square product of random numbers of this type (f32, bf16, f16), of the
 * size that is best; on a GPU that is cuBLASLt's. The device needs ops_open. */
MUST_USE err_t rates_product(struct dev *d, enum dtype type, double *best);

/* Bytes a nanosecond, read and written, of a copy that no cache holds. */
MUST_USE err_t rates_memory(struct dev *d, double *best);

#endif
