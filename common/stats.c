/* stats.c - see stats.h. */
#include "common/stats.h"

#include <math.h>
#include <stdlib.h>

#include "common/err.h"

int64_t stats_percentile(const int64_t *sorted, int64_t n, double percent)
{
    MUST(n > 0 && percent > 0 && percent <= 100);
    /* The small term keeps a product that is whole, 95 % of 100, from being rounded up. */
    const int64_t rank = (int64_t)ceil(percent / 100 * (double)n - 1e-9);
    return sorted[rank - 1];
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

struct stats stats_of(int64_t *v, int64_t n)
{
    double sum = 0, squares = 0;
    if (n == 0) return (struct stats){0};
    qsort(v, (size_t)n, sizeof *v, by_value);
    for (int64_t i = 0; i < n; i++) sum += (double)v[i];
    const double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += ((double)v[i] - mean) * ((double)v[i] - mean);
    return (struct stats){
        .n = n,
        .mean = mean,
        .std = sqrt(squares / (double)n),
        .p50 = stats_percentile(v, n, 50),
        .p95 = stats_percentile(v, n, 95),
        .p99 = stats_percentile(v, n, 99),
        .min = v[0],
        .max = v[n - 1],
    };
}
