/* test_rope.c - rotary positions and the ring's rows, against f64. */
#include <math.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/check.h"

static const float eps = 1e-6f;

struct grid {
    int32_t n_f, n_y, n_x, n_heads, n_t, n_yx, n_slots, n_sink;
};

static err_t call(struct dev *d, const struct tensor *t, const void *p)
{
    const struct grid *g = p;
    return ops_qkv_rope_cache(d, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], g->n_y,
                              g->n_x, eps);
}

static err_t call_sink(struct dev *d, const struct tensor *t, const void *p)
{
    const struct grid *g = p;
    return ops_rope_sink(d, t[0], t[1], t[2], t[3], g->n_y, g->n_x);
}

/* cos and sin of positions 0 .. n-1; pair j of n_pairs turns by 10000^(-j / n_pairs). */
static float *rot_table(int32_t first, int32_t n, int32_t n_pairs)
{
    float *rot = check_alloc((size_t)(n * n_pairs * 2 + 1) * sizeof *rot);
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < n_pairs; j++) {
            const double angle = (first + i) * pow(10000.0, -(double)j / n_pairs);
            rot[(i * n_pairs + j) * 2] = (float)cos(angle);
            rot[(i * n_pairs + j) * 2 + 1] = (float)sin(angle);
        }
    }
    return rot;
}

static double *normed(const float *x, const float *w, int32_t n_c)
{
    double sum = 0, *y = check_doubles(n_c);
    for (int32_t c = 0; c < n_c; c++) sum += (double)x[c] * (double)x[c] / n_c;
    for (int32_t c = 0; c < n_c; c++) y[c] = (double)x[c] / sqrt(sum + (double)eps) * (double)w[c];
    return y;
}

/* Rotates one token's heads: frame f, row y, column x. */
static void rotated(const struct grid *g, double *out, const double *in, const float *rot_t,
                    const float *rot_yx, int32_t f, int32_t y, int32_t x)
{
    const int32_t n_pairs = g->n_t + 2 * g->n_yx;
    for (int32_t i = 0; i < g->n_heads * n_pairs; i++) {
        const int32_t j = i % n_pairs;
        const float *r;
        if (j < g->n_t) r = rot_t + (f * g->n_t + j) * 2;
        else if (j < g->n_t + g->n_yx) r = rot_yx + (y * g->n_yx + j - g->n_t) * 2;
        else r = rot_yx + (x * g->n_yx + j - g->n_t - g->n_yx) * 2;
        const double a = in[2 * i], b = in[2 * i + 1], c = (double)r[0], s = (double)r[1];
        out[2 * i] = a * c - b * s;
        out[2 * i + 1] = a * s + b * c;
    }
}

static double *widen(const float *x, int64_t n)
{
    double *y = check_doubles(n);
    for (int64_t i = 0; i < n; i++) y[i] = (double)x[i];
    return y;
}

static void one(struct grid g, int32_t *slots)
{
    const int32_t n_frame = g.n_y * g.n_x, n_s = g.n_f * n_frame;
    const int32_t n_d = 2 * (g.n_t + 2 * g.n_yx), n_c = g.n_heads * n_d;
    const int32_t n_m = g.n_slots * n_frame, n_p = g.n_sink * n_frame;
    const int32_t n_g = g.n_y > g.n_x ? g.n_y : g.n_x;
    float *qkv = check_floats_in((int64_t)n_s * 3 * n_c, 1, -3, 3);
    float *wq = check_floats(n_c, 2), *wk = check_floats(n_c, 3);
    float *rot_t = rot_table(5, g.n_f, g.n_t), *rot_yx = rot_table(0, n_g, g.n_yx);
    float *q = check_floats((int64_t)n_s * n_c, 4), *k = check_floats((int64_t)n_m * n_c, 5);
    float *v = check_floats((int64_t)n_m * n_c, 6), *sink = check_floats((int64_t)n_p * n_c, 7);
    double *want_q = check_doubles((int64_t)n_s * n_c), *want_k = widen(k, (int64_t)n_m * n_c);
    double *want_v = widen(v, (int64_t)n_m * n_c), *want_sink = widen(sink, (int64_t)n_p * n_c);
    for (int32_t s = 0; s < n_s; s++) {
        const int32_t f = s / n_frame, y = s % n_frame / g.n_x, x = s % g.n_x;
        const int64_t to = ((int64_t)slots[f] * n_frame + s % n_frame) * n_c;
        const float *in = qkv + (int64_t)s * 3 * n_c;
        const double *kn = normed(in + n_c, wk, n_c);
        rotated(&g, want_q + (int64_t)s * n_c, normed(in, wq, n_c), rot_t, rot_yx, f, y, x);
        rotated(&g, want_k + to, kn, rot_t, rot_yx, f, y, x);
        for (int32_t c = 0; c < n_c; c++) {
            want_v[to + c] = (double)in[2 * n_c + c];
            if (slots[f] < g.n_sink) want_sink[to + c] = kn[c];
        }
    }
    CHECK_OP(call, &g, OUT_ACT(q, n_s, g.n_heads, n_d), BOTH_ACT(k, n_m, g.n_heads, n_d),
             BOTH_ACT(v, n_m, g.n_heads, n_d), n_p ? BOTH_ACT(sink, n_p, g.n_heads, n_d) : NONE,
             IN_ACT(qkv, n_s, 3 * n_c), IN(wq, n_c), IN(wk, n_c), IN_I32(slots, g.n_f),
             IN(rot_t, g.n_f, g.n_t, 2), IN(rot_yx, n_g, g.n_yx, 2));
    check_close(q, want_q, (int64_t)n_s * n_c, 1e-6);
    check_close(k, want_k, (int64_t)n_m * n_c, 1e-6);
    check_close(v, want_v, (int64_t)n_m * n_c, 0);
    check_close(sink, want_sink, (int64_t)n_p * n_c, 1e-6);
}

/* Rows of other slots keep what they had: the oracle starts from it. */
static void test_qkv_rope_cache(void **state)
{
    (void)state;
    one((struct grid){1, 1, 1, 1, 1, 1, 1, 0}, (int32_t[]){0});
    one((struct grid){1, 1, 1, 1, 1, 1, 1, 1}, (int32_t[]){0});
    one((struct grid){3, 3, 5, 2, 22, 21, 7, 3}, (int32_t[]){6, 1, 3});
    one((struct grid){3, 6, 4, 3, 2, 3, 5, 0}, (int32_t[]){4, 0, 2});
    one((struct grid){2, 2, 7, 1, 4, 2, 4, 4}, (int32_t[]){3, 0});
    one((struct grid){2, 1, 3, 12, 22, 21, 3, 1}, (int32_t[]){2, 0}); /* rows of the 1.3B model */
    one((struct grid){2, 3, 2, 1, 44, 42, 2, 1}, (int32_t[]){1, 0});
    one((struct grid){1, 1, 2, 34, 14, 9, 1, 1}, (int32_t[]){0});
}

static void test_slot_out_of_range(void **state)
{
    (void)state;
    const struct grid g = {1, 1, 2, 1, 1, 1, 3, 0};
    float *x = check_floats(64, 1), *out = check_floats(64, 2);
    int32_t bad[] = {3, -1};
    if (check_on_gpu()) skip(); /* it is read there, where nobody looks */
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK_REFUSED(ERR_SHAPE, call, &g, OUT(out, 2, 1, 6), OUT(out, 6, 1, 6), OUT(out, 6, 1, 6),
                      NONE, IN(x, 2, 18), IN(x, 6), IN(x, 6), IN_I32(&bad[i], 1), IN(x, 1, 1, 2),
                      IN(x, 2, 1, 2));
}

static void test_rope_sink(void **state)
{
    (void)state;
    static const struct grid grids[] = {
        {1, 1, 1, 1, 1, 1, 1, 1}, {3, 3, 5, 2, 22, 21, 7, 3}, {2, 4, 2, 3, 2, 3, 2, 2}};
    for (size_t i = 0; i < COUNT(grids); i++) {
        const struct grid g = grids[i];
        const int32_t n_frame = g.n_y * g.n_x, n_p = g.n_f * n_frame, n_m = g.n_slots * n_frame;
        const int32_t n_d = 2 * (g.n_t + 2 * g.n_yx), n_c = g.n_heads * n_d;
        const int32_t n_g = g.n_y > g.n_x ? g.n_y : g.n_x;
        float *k = check_floats((int64_t)n_m * n_c, 1), *sink = check_floats((int64_t)n_p * n_c, 2);
        float *rot_t = rot_table(-4, g.n_f, g.n_t), *rot_yx = rot_table(0, n_g, g.n_yx);
        double *want = widen(k, (int64_t)n_m * n_c), *in = widen(sink, (int64_t)n_p * n_c);
        for (int32_t s = 0; s < n_p; s++)
            rotated(&g, want + (int64_t)s * n_c, in + (int64_t)s * n_c, rot_t, rot_yx, s / n_frame,
                    s % n_frame / g.n_x, s % g.n_x);
        CHECK_OP(call_sink, &g, BOTH_ACT(k, n_m, g.n_heads, n_d), IN_ACT(sink, n_p, g.n_heads, n_d),
                 IN(rot_t, g.n_f, g.n_t, 2), IN(rot_yx, n_g, g.n_yx, 2));
        check_close(k, want, (int64_t)n_m * n_c, 1e-6);
    }
}

/* D 128 as in the 1.3B model: 22 pairs by time, 21 by row and by column. Pairs (1, 0) come out as
 * (cos, sin) of position times 10000^(-j / n_pairs): angles worked out by hand, position t 5, y 0,
 * x 1. */
static void test_known_angles(void **state)
{
    (void)state;
    const struct grid g = {1, 1, 2, 1, 22, 21, 1, 1};
    if (check_type() != DTYPE_F32) skip(); /* its angles are not halves */
    float k[2 * 128], sink[2 * 128];
    for (int i = 0; i < 256; i++) sink[i] = i % 2 ? 0.0f : 1.0f;
    CHECK_OP(call_sink, &g, OUT_ACT(k, 2, 1, 128), IN_ACT(sink, 2, 1, 128),
             IN(rot_table(5, 1, 22), 1, 22, 2), IN(rot_table(0, 2, 21), 2, 21, 2));
    static const struct {
        int pair;
        double angle;
    } known[] = {
        {0, 5.0},  {1, 5 * 0.657933225}, {11, 5 * 0.01},     {22, 0.0}, {42, 0.0},
        {43, 1.0}, {44, 0.644946677},    {50, 0.0464158883},
    };
    for (size_t i = 0; i < COUNT(known); i++) {
        const float *pair = k + 128 + 2 * known[i].pair;
        assert_true(fabs((double)pair[0] - cos(known[i].angle)) < 1e-6);
        assert_true(fabs((double)pair[1] - sin(known[i].angle)) < 1e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_qkv_rope_cache),
        TEST(test_slot_out_of_range),
        TEST(test_rope_sink),
        TEST(test_known_angles),
    };
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
