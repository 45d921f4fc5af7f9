/* stats.h - what is said of a series of durations.
 *
 * Every percentile is a value that was measured: nearest rank, the least value that at least so
 * many per cent of all do not exceed (Hyndman and Fan 1996, definition 1; numpy's inverted_cdf).
 * The standard deviation is that of the series itself, with divisor n, as numpy.std has it.
 */
#ifndef COMMON_STATS_H
#define COMMON_STATS_H

#include <stdint.h>

struct stats {
    int64_t n;
    double mean, std;
    int64_t p50, p95, p99, min, max;
};

/* The least of n sorted values that at least `percent` of them do not exceed. n > 0, 0 < percent
 * <= 100. */
int64_t stats_percentile(const int64_t *sorted, int64_t n, double percent);

/* Sorts v. All 0 for n = 0. */
struct stats stats_of(int64_t *v, int64_t n);

#endif
