/* sched.h - the sampler's constants: which timesteps, which noise levels.
 *
 * Flow matching with shift 5: sigma_i = 5 r_i / (1 + 4 r_i) for r_i = 1 - i/1000, t_i = 1000
 * sigma_i, in f32. A configured step s (1..1000) is an index from the end of that table: it runs at
 * table entry 1000 - s. LongLive's 1000,750,500,250 thus run at t = 1000, 937.5,
 * 833.33331298828125, 625. Esser et al. 2024, arXiv:2403.03206, section 5.3.2 (timestep shift).
 */
#ifndef PROCS_DIT_SCHED_H
#define PROCS_DIT_SCHED_H

#include <stdint.h>

#include "common/err.h"

/* SCHED_CLEAN: the index of t = 0, whatever the number of steps. */
enum { SCHED_STEPS_MAX = 5, SCHED_CLEAN = SCHED_STEPS_MAX };

struct sched {
    int32_t n_steps;
    float t[SCHED_STEPS_MAX + 1]; /* timestep fed to the network; [SCHED_CLEAN] is 0 */
    float sigma[SCHED_STEPS_MAX]; /* noise level at which the step runs */
};

/* steps: "1000,750,500,250". ERR_CONFIG when it is not such a list. */
MUST_USE err_t sched_open(struct sched *s, const char *steps);

/* How t[step] enters the network: n / 2 cosines, then as many sines, of t * 10000^(-k / (n / 2)),
 * computed in f64. n even. */
void sched_sinusoid(const struct sched *s, int32_t step, int32_t n, float *out);

#endif
