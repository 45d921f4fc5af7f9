/* check.c - see check.h. */
#include "tests/check.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/ops.h"

enum { GUARD = 64, ARGS_MAX = 16, BLOCKS_MAX = 4096 };

static void *blocks[BLOCKS_MAX];
static size_t n_blocks;

void check_ok(err_t e, const char *call, const char *file, int line)
{
    if (e == OK) return;
    print_error("%s: code %d: %s\n", call, (int)e, err_text());
    _fail(file, line);
}

void check_aborts_at(void (*f)(void), const char *what, const char *file, int line)
{
    int status = 0;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr)) _exit(2);
        f();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) return;
    print_error("%s did not abort\n", what);
    _fail(file, line);
}

int check_teardown(void **state)
{
    (void)state;
    while (n_blocks > 0) free(blocks[--n_blocks]);
    return 0;
}

void *check_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    assert_non_null(p);
    assert_true(n_blocks < BLOCKS_MAX);
    blocks[n_blocks++] = p;
    return p;
}

uint64_t check_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

float *check_floats_in(int64_t n, uint64_t seed, float lo, float hi)
{
    float *x = check_alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = lo + (hi - lo) * (float)(check_next(&seed) >> 40) * 0x1p-24f;
    return x;
}

float *check_floats(int64_t n, uint64_t seed)
{
    return check_floats_in(n, seed, -1.0f, 1.0f);
}

double *check_doubles(int64_t n)
{
    return check_alloc((size_t)n * sizeof(double));
}

void check_close_at(const float *got, const double *want, int64_t n, double tol, const char *file,
                    int line)
{
    double diff = 0, norm = 0, worst = -1;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const double one = fabs((double)got[i] - want[i]);
        diff += one * one;
        norm += want[i] * want[i];
        if (!(one <= worst)) worst = one, at = i;
        if (isnan(one)) break;
    }
    const double ratio = norm > 0 ? sqrt(diff / norm) : sqrt(diff);
    if (ratio <= tol) return;
    print_error("relative error %.3g, at most %.3g; worst at %lld of %lld: got %.9g, want %.9g\n",
                ratio, tol, (long long)at, (long long)n, (double)got[at], want[at]);
    _fail(file, line);
}

/* --- ops ---------------------------------------------------------------------------------------
 */

struct copy {
    void *block; /* guard, tensor, guard */
    struct tensor t;
};

static struct copy copy_in(struct dev *d, const struct check_arg *a)
{
    struct copy c = {.t = a->t};
    if (!a->t.data) return c;
    const size_t bytes = tensor_bytes(a->t);
    uint8_t *host = malloc(bytes + 2 * GUARD);
    assert_non_null(host);
    memset(host, 0xA5, bytes + 2 * GUARD);
    if (a->role == CHECK_OUT) memset(host + GUARD, 0xFF, bytes); /* NaN, as f32 */
    else memcpy(host + GUARD, a->t.data, bytes);
    assert_ok(dev_alloc(d, bytes + 2 * GUARD, &c.block));
    assert_ok(dev_upload(d, c.block, host, bytes + 2 * GUARD));
    c.t.data = (uint8_t *)c.block + GUARD;
    free(host);
    return c;
}

/* What the copy holds now, after a look at its guards. */
static uint8_t *copy_out(struct dev *d, struct copy *c)
{
    if (!c->block) return NULL;
    const size_t bytes = tensor_bytes(c->t);
    uint8_t *host = check_alloc(bytes + 2 * GUARD);
    assert_ok(dev_download(d, host, c->block, bytes + 2 * GUARD));
    dev_free(d, &c->block);
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(host[i], 0xA5);
        assert_int_equal(host[GUARD + bytes + i], 0xA5);
    }
    return host + GUARD;
}

/* One run on one device; results in out. */
static err_t run(int32_t n_threads, check_call *call, const void *p, const struct check_arg *args,
                 size_t n, uint8_t **out)
{
    struct dev *d = NULL;
    struct copy copies[ARGS_MAX];
    struct tensor t[ARGS_MAX];
    assert_true(n <= ARGS_MAX);
    assert_ok(dev_open(&d, "cpu", n_threads));
    assert_ok(ops_open(d));
    for (size_t i = 0; i < n; i++) {
        copies[i] = copy_in(d, &args[i]);
        t[i] = copies[i].t;
    }
    const size_t live = dev_live_bytes(d);
    dev_seal(d);
    const err_t e = call(d, t, p);
    assert_ok(dev_sync(d));
    assert_int_equal(dev_live_bytes(d), live);
    assert_int_equal(dev_allocs_sealed(d), 0);
    for (size_t i = 0; i < n; i++) out[i] = copy_out(d, &copies[i]);
    ops_close(d);
    dev_close(&d);
    return e;
}

void check_op(check_call *call, const void *p, const struct check_arg *args, size_t n)
{
    uint8_t *first[ARGS_MAX] = {0}, *again[ARGS_MAX] = {0};
    assert_ok(run(1, call, p, args, n, first));
    for (int32_t n_threads = 2; n_threads <= 3; n_threads++) {
        assert_ok(run(n_threads, call, p, args, n, again));
        for (size_t i = 0; i < n; i++)
            if (first[i]) assert_memory_equal(first[i], again[i], tensor_bytes(args[i].t));
    }
    for (size_t i = 0; i < n; i++) {
        if (!first[i]) continue;
        if (args[i].role == CHECK_IN)
            assert_memory_equal(first[i], args[i].t.data, tensor_bytes(args[i].t));
        else memcpy(args[i].t.data, first[i], tensor_bytes(args[i].t));
    }
}

void check_refused(err_t code, check_call *call, const void *p, const struct check_arg *args,
                   size_t n)
{
    uint8_t *out[ARGS_MAX] = {0};
    const uint64_t n_before = ops_count();
    const err_t e = run(1, call, p, args, n, out);
    if (e != code) print_error("code %d, want %d\n", (int)e, (int)code);
    assert_int_equal(e, code);
    if (code == ERR_SHAPE) assert_true(ops_count() <= n_before + 1);
    for (size_t i = 0; i < n; i++) {
        const size_t bytes = out[i] ? tensor_bytes(args[i].t) : 0;
        for (size_t j = 0; j < bytes; j++) {
            const uint8_t was =
                args[i].role == CHECK_OUT ? 0xFF : ((const uint8_t *)args[i].t.data)[j];
            assert_int_equal(out[i][j], was);
        }
    }
}
