/* test_conv_plan.c - convolution cut into tiles: every output once, every unit of its sum once, the
 * last part where all others are waited for; which shapes have a kernel; how much of the machine
 * the decoder's shapes use. */
#include "kernels/cuda/conv_plan.h"

#include "tests/check.h"

enum { SMS = 132 };

struct shape {
    int32_t frames, rows, cols, n_in, n_out, kt, k;
    bool adds;
};

static struct conv_plan plan(struct shape s)
{
    struct conv_plan p = {0};
    assert_true(
        conv_plan_of(&p, s.frames, s.rows, s.cols, s.n_in, s.n_out, s.kt, s.k, s.adds, SMS));
    return p;
}

/* One more of each output of a tile. */
static void mark(const struct conv_plan *p, const struct conv_tile *t, uint8_t *seen)
{
    const int32_t n = p->n == CONV_GATHER_N ? p->n_out : p->n;
    for (int32_t y = t->row; y < t->row + CONV_ROWS && y < p->rows; y++)
        for (int32_t x = t->col; x < t->col + 8 * p->blocks && x < p->cols; x++)
            for (int32_t o = t->out; o < t->out + n && o < p->n_out; o++)
                seen[((((int64_t)t->phase * p->frames + t->frame) * p->rows + y) * p->cols + x) *
                         p->n_out +
                     o]++;
}

/* As the CTAs take them: units of each tile; a cut one's parts follow each other in its sum, and
 * go to neighbouring CTAs, the last to the last, which so waits for none that starts after it. */
static void check_cover(struct shape s)
{
    const struct conv_plan p = plan(s);
    const int64_t n = (int64_t)p.phases * s.frames * s.rows * s.cols * s.n_out;
    uint8_t *seen = check_alloc((size_t)n);
    int32_t *units = check_alloc((size_t)p.n_tiles * sizeof *units), n_parts = 0;
    assert_true(p.n_ctas <= SMS);
    for (int32_t cta = 0; cta < p.n_ctas; cta++) {
        struct conv_work w;
        for (int32_t i = 0; conv_work_at(&p, cta, i, &w); i++) {
            const struct conv_tile t = conv_tile_at(&p, w.tile);
            assert_true(w.tile < p.n_tiles && w.first < w.end);
            assert_int_equal(units[w.tile], w.first); /* the parts before it are done */
            units[w.tile] = w.end;
            if (w.end == p.n_units) mark(&p, &t, seen);
            if (w.cut < 0) continue;
            assert_int_equal(w.cut * p.n_parts + w.part, cta);
            assert_int_equal(w.part == p.n_parts - 1, w.end == p.n_units);
            n_parts += w.part < p.n_parts - 1;
        }
    }
    assert_int_equal(n_parts, p.n_cut * (p.n_parts - 1));
    assert_true(n_parts <= CONV_PARTS_MAX);
    for (int32_t i = 0; i < p.n_tiles; i++) assert_int_equal(units[i], p.n_units);
    for (int64_t i = 0; i < n; i++) assert_int_equal(seen[i], 1);
}

static void test_every_output_once(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {2, 33, 17, 96, 96, 3, 3, false},     {1, 60, 104, 384, 384, 3, 3, false},
        {2, 120, 208, 384, 384, 3, 3, false}, {3, 16, 16, 96, 3, 3, 3, false},
        {1, 1, 1, 16, 384, 3, 3, false},      {2, 20, 33, 192, 96, 1, 2, false},
        {3, 37, 51, 192, 384, 3, 3, false},   {1, 17, 9, 64, 192, 3, 1, false},
        {2, 60, 104, 384, 192, 1, 2, false},  {5, 19, 47, 32, 2, 1, 3, false},
        {2, 17, 19, 64, 192, 3, 3, false},
    };
    for (size_t i = 0; i < COUNT(shapes); i++) {
        struct shape s = shapes[i];
        check_cover(s);
        s.adds = true;
        check_cover(s);
    }
}

/* Each convolution of the decoder at its full width; a width that is not there is refused. */
static void test_served(void **state)
{
    (void)state;
    static const struct {
        int32_t n_in, n_out, kt, k, chunk, n;
    } served[] = {
        {16, 384, 3, 3, 16, 192},  {384, 384, 3, 3, 64, 192}, {192, 384, 3, 3, 64, 192},
        {192, 192, 3, 3, 64, 192}, {96, 96, 3, 3, 32, 96},    {96, 3, 3, 3, 32, CONV_GATHER_N},
        {384, 768, 3, 1, 64, 192}, {384, 192, 1, 2, 64, 192}, {192, 96, 1, 2, 64, 96},
    };
    struct conv_plan p = {0};
    for (size_t i = 0; i < COUNT(served); i++) {
        assert_true(conv_plan_of(&p, 2, 60, 104, served[i].n_in, served[i].n_out, served[i].kt,
                                 served[i].k, i % 2, SMS));
        assert_int_equal(p.chunk, served[i].chunk);
        assert_int_equal(p.n, served[i].n);
    }
    assert_false(conv_plan_of(&p, 2, 60, 104, 24, 24, 3, 3, false, SMS));
    assert_false(conv_plan_of(&p, 2, 60, 104, 64, 100, 3, 3, false, SMS));
    assert_false(conv_plan_of(&p, 2, 60, 104, 96, 4, 3, 3, false, SMS));
    assert_false(conv_plan_of(&p, 2, 60, 104, 32 * CONV_GATHER_UNITS, 3, 3, 3, false, SMS));
}

/* Where a tile has all channels, and not only 96 of 192 or 192 of 384; what is kept needs a kernel
 * that adds. */
static void test_norms(void **state)
{
    (void)state;
    static const struct {
        int32_t n_in, n_out, kt, k;
        bool is_whole;
    } cases[] = {
        {96, 96, 3, 3, true},   {192, 96, 3, 3, true},  {192, 192, 3, 3, true},
        {64, 192, 1, 3, true},  {16, 192, 3, 3, false}, {64, 192, 3, 1, false},
        {96, 288, 3, 3, false}, {96, 3, 3, 3, false},   {384, 384, 3, 3, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int adds = 0; adds < 2; adds++) {
            const struct conv_plan p = plan((struct shape){
                2, 60, 104, cases[i].n_in, cases[i].n_out, cases[i].kt, cases[i].k, adds});
            assert_int_equal(conv_plan_norms(&p, adds, false), cases[i].is_whole);
            assert_int_equal(conv_plan_norms(&p, adds, true), cases[i].is_whole && adds);
        }
}

/* Units that the slowest CTA does of those it would do if all shared alike, in percent. */
static int32_t efficiency(struct shape s)
{
    const struct conv_plan p = plan(s);
    int64_t most = 0;
    for (int32_t cta = 0; cta < p.n_ctas; cta++) {
        struct conv_work w;
        int64_t n = 0;
        for (int32_t i = 0; conv_work_at(&p, cta, i, &w); i++) n += w.end - w.first;
        if (n > most) most = n;
    }
    return (int32_t)((int64_t)p.n_tiles * p.n_units * 100 / SMS / most);
}

/* One frame of 60 x 104 has 56 tiles for 132 CTAs, 104 of half the size; two of 120 x 208 are 20
 * over three rounds. */
static void test_the_machine_is_used(void **state)
{
    (void)state;
    assert_true(efficiency((struct shape){1, 60, 104, 384, 384, 3, 3, false}) >= 78);
    assert_true(efficiency((struct shape){2, 120, 208, 384, 384, 3, 3, false}) >= 95);
    assert_true(efficiency((struct shape){4, 240, 416, 192, 192, 3, 3, false}) >= 98);
    assert_true(efficiency((struct shape){4, 480, 832, 96, 96, 3, 3, false}) >= 98);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_every_output_once), TEST(test_served),
                                       TEST(test_norms), TEST(test_the_machine_is_used)};
    return cmocka_run_group_tests_name("conv_plan", tests, NULL, NULL);
}
