/* cmd_compare.c - compare: two y4m files, frame by frame. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "procs/supervisor/cmd.h"
#include "procs/supervisor/movie.h"
#include "procs/supervisor/quality.h"

struct sums {
    int64_t n, first_differing; /* -1: none */
    double mse, mse_y, ssim_y;  /* sums */
    int32_t max_error;
    bool is_longer[2];
    json_t *frames; /* NULL: they are printed as they come */
};

/* JSON has no infinity: equal pictures have none. */
static json_t *db(double mse)
{
    return mse > 0 ? json_real(quality_psnr(mse)) : json_null();
}

static void add(struct sums *s, const struct quality_frame *f)
{
    if (f->max_error > 0 && s->first_differing < 0) s->first_differing = s->n;
    if (s->frames)
        json_array_append_new(s->frames, json_pack("{s:o, s:o, s:f, s:i}", "psnr", db(f->mse),
                                                   "psnr_y", db(f->mse_y), "ssim_y", f->ssim_y,
                                                   "max_error", f->max_error));
    else
        printf("%8" PRId64 " %9.3f %9.3f %9.6f %9d\n", s->n, quality_psnr(f->mse),
               quality_psnr(f->mse_y), f->ssim_y, f->max_error);
    s->n++;
    s->mse += f->mse;
    s->mse_y += f->mse_y;
    s->ssim_y += f->ssim_y;
    if (f->max_error > s->max_error) s->max_error = f->max_error;
}

static err_t look_at_all(struct sums *s, struct movie *a, struct movie *b)
{
    err_t e = OK;
    struct quality *q = NULL;
    TRY(quality_open(&q, a->width_px, a->height_px));
    for (;;) {
        TRY(movie_next(a, &s->is_longer[0]));
        TRY(movie_next(b, &s->is_longer[1]));
        if (!s->is_longer[0] || !s->is_longer[1]) break;
        const struct quality_frame f = quality_of(q, a->yuv, b->yuv);
        add(s, &f);
    }
    if (s->n == 0) e = FAIL(ERR_DATA, "no frame to compare");
out:
    quality_close(&q);
    return e;
}

static err_t print_json(struct sums *s)
{
    const double n = (double)s->n;
    json_t *o = json_pack("{s:I, s:o, s:o, s:f, s:i, s:o, s:b, s:O}", "frames", (json_int_t)s->n,
                          "psnr", db(s->mse / n), "psnr_y", db(s->mse_y / n), "ssim_y",
                          s->ssim_y / n, "max_error", s->max_error, "first_differing",
                          s->first_differing < 0 ? json_null()
                                                 : json_integer((json_int_t)s->first_differing),
                          "same_length", s->is_longer[0] == s->is_longer[1], "each", s->frames);
    if (!o) return FAIL(ERR_NOMEM, "result");
    json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12));
    printf("\n");
    json_decref(o);
    return OK;
}

static void print_all(const struct sums *s, const struct args *a)
{
    const double n = (double)s->n;
    printf("%8s %9.3f %9.3f %9.6f %9d\n", "all", quality_psnr(s->mse / n),
           quality_psnr(s->mse_y / n), s->ssim_y / n, s->max_error);
    if (s->first_differing < 0) printf("no frame differs\n");
    else printf("first differing frame: %" PRId64 "\n", s->first_differing);
    for (int i = 0; i < 2; i++)
        if (s->is_longer[i]) printf("%s is longer\n", i ? a->word2 : a->word);
}

err_t cmd_compare(const struct args *a, const char *bin_dir)
{
    err_t e = OK;
    struct movie *one = NULL, *two = NULL;
    struct sums s = {.first_differing = -1};
    (void)bin_dir;
    TRY(movie_open(&one, a->word));
    TRY(movie_open(&two, a->word2));
    if (one->width_px != two->width_px || one->height_px != two->height_px) {
        e = FAIL(ERR_DATA, "%s has %d x %d pixels, %s %d x %d", a->word, one->width_px,
                 one->height_px, a->word2, two->width_px, two->height_px);
        goto out;
    }
    if (a->json) s.frames = json_array();
    else printf("%8s %9s %9s %9s %9s\n", "frame", "PSNR", "PSNR Y", "SSIM Y", "max error");
    TRY(look_at_all(&s, one, two));
    if (a->json) TRY(print_json(&s));
    else print_all(&s, a);
out:
    json_decref(s.frames);
    movie_close(&one);
    movie_close(&two);
    return e;
}
