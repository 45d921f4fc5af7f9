/* sched.c - see sched.h. */
#include "procs/dit/sched.h"

#include <math.h>
#include <stdlib.h>

enum { TABLE = 1000 };
static const float SHIFT = 5.0f;

/* torch.linspace(1, 0, 1001) counts in f32 steps, up from one end and down from the other. */
static float sigma_of(int32_t index)
{
    const float step = 1.0f / TABLE;
    const float r =
        index < TABLE / 2 ? fmaf(-step, (float)index, 1.0f) : step * (float)(TABLE - index);
    return SHIFT * r / (1.0f + (SHIFT - 1.0f) * r);
}

err_t sched_open(struct sched *s, const char *steps)
{
    const char *at = steps;
    int32_t last = TABLE + 1;
    *s = (struct sched){0};
    for (;;) {
        char *end;
        const long step = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || step < 1 || step >= last ||
            s->n_steps == SCHED_STEPS_MAX)
            return FAIL(ERR_CONFIG, "dit.steps = %s: 1 to %d falling numbers from 1 to %d", steps,
                        SCHED_STEPS_MAX, TABLE);
        s->sigma[s->n_steps] = sigma_of(TABLE - (int32_t)step);
        s->t[s->n_steps] = s->sigma[s->n_steps] * (float)TABLE;
        s->n_steps++;
        last = (int32_t)step;
        if (*end == '\0') return OK;
        at = end + 1;
    }
}

void sched_sinusoid(const struct sched *s, int32_t step, int32_t n, float *out)
{
    const int32_t half = n / 2;
    MUST(step >= 0 && step <= SCHED_CLEAN && n % 2 == 0);
    for (int32_t k = 0; k < half; k++) {
        const double angle = (double)s->t[step] * pow(10000.0, -(double)k / half);
        out[k] = (float)cos(angle);
        out[half + k] = (float)sin(angle);
    }
}
