/* check.c - see check.h. */
#include "tests/check.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/ops.h"

enum { GUARD = 64, ARGS_MAX = 16, BLOCKS_MAX = 16384 };

const char *check_device(void)
{
    const char *name = getenv("CHECK_DEVICE");
    return name ? name : "cpu";
}

enum dtype check_type(void)
{
    const char *name = getenv("CHECK_TYPE");
    if (name && strcmp(name, "bf16") == 0) return DTYPE_BF16;
    return name && strcmp(name, "f16") == 0 ? DTYPE_F16 : DTYPE_F32;
}

int check_on_gpu(void)
{
    return strcmp(check_device(), "cpu") != 0;
}

/* --- half types, by hand: the oracle owes nothing to the product ------------------------------ */

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return 0x7FC0;
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float of_bf16(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float of_f16(uint16_t h)
{
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const float sign = h & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexpf((float)mantissa, -24);
    return sign * ldexpf((float)(1024 + mantissa), exponent - 25);
}

/* Rounds to nearest, ties to even, by way of the distance between neighbours. */
static uint16_t to_f16(float x)
{
    int exponent;
    if (isnan(x)) return 0x7E00;
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const float a = fabsf(x);
    if (a >= 65520.0f) return sign | 0x7C00;
    if (a < 0x1p-14f) return sign | (uint16_t)lrintf(ldexpf(a, 24));
    (void)frexpf(a, &exponent);                          /* a in [2^(exponent - 1), 2^exponent) */
    const long units = lrintf(ldexpf(a, 11 - exponent)); /* 1024 to 2048 */
    return (uint16_t)(sign | (((exponent + 13) * 1024) + units));
}

static float rounded(float x)
{
    switch (check_type()) {
    case DTYPE_BF16:
        return of_bf16(to_bf16(x));
    case DTYPE_F16:
        return of_f16(to_f16(x));
    default:
        return x;
    }
}

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
        x[i] = rounded(lo + (hi - lo) * (float)(check_next(&seed) >> 40) * 0x1p-24f);
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

/* Of a few values one rounding alone may be 3.9e-3 (bf16), and z is rounded before gelu(z) where
 * the library has no tile for the shape, as PyTorch rounds it. */
static double allowed(double tol, int64_t n)
{
    const int n_roundings = n < 64 ? 2 : 1;
    if (!check_on_gpu()) return tol;
    switch (check_type()) {
    case DTYPE_BF16:
        return fmax(tol, n_roundings * 3.5e-3);
    case DTYPE_F16:
        return fmax(tol, n_roundings * 4.5e-4);
    default:
        return fmax(tol, 1e-5);
    }
}

void check_close_at(const float *got, const double *want, int64_t n, double tol, const char *file,
                    int line)
{
    tol = allowed(tol, n);
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

/* --- ops -------------------------------------------------------------------------------------- */

struct copy {
    void *block; /* guard, tensor, guard */
    struct tensor t;
};

static bool is_half(struct tensor t)
{
    return t.dtype == DTYPE_BF16 || t.dtype == DTYPE_F16;
}

/* f32 in host memory to the tensor's type, and back. */
static void narrow(uint8_t *to, struct tensor t)
{
    const float *const x = t.data;
    for (int64_t i = 0; i < tensor_count(t); i++)
        ((uint16_t *)to)[i] = t.dtype == DTYPE_BF16 ? to_bf16(x[i]) : to_f16(x[i]);
}

static uint8_t *widened(const uint8_t *from, struct tensor t)
{
    float *x = check_alloc((size_t)tensor_count(t) * sizeof *x);
    for (int64_t i = 0; i < tensor_count(t); i++) {
        const uint16_t h = ((const uint16_t *)from)[i];
        x[i] = t.dtype == DTYPE_BF16 ? of_bf16(h) : of_f16(h);
    }
    return (uint8_t *)x;
}

static struct copy copy_in(struct dev *d, const struct check_arg *a)
{
    struct copy c = {.t = a->t};
    if (!a->t.data) return c;
    const size_t bytes = tensor_bytes(a->t);
    uint8_t *host = malloc(bytes + 2 * GUARD);
    assert_non_null(host);
    memset(host, 0xA5, bytes + 2 * GUARD);
    if (a->role == CHECK_OUT) memset(host + GUARD, 0xFF, bytes); /* NaN, as f32 */
    else if (is_half(a->t)) narrow(host + GUARD, a->t);
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
    assert_ok(dev_sync(d));
    dev_free(d, &c->block);
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(host[i], 0xA5);
        assert_int_equal(host[GUARD + bytes + i], 0xA5);
    }
    return is_half(c->t) ? widened(host + GUARD, c->t) : host + GUARD;
}

/* Bytes of the argument in host memory, where halves are f32. */
static size_t host_bytes(struct tensor t)
{
    return is_half(t) ? (size_t)tensor_count(t) * sizeof(float) : tensor_bytes(t);
}

/* One run on one device; results in out. */
static err_t run(int32_t n_threads, check_call *call, const void *p, const struct check_arg *args,
                 size_t n, uint8_t **out)
{
    struct dev *d = NULL;
    struct copy copies[ARGS_MAX];
    struct tensor t[ARGS_MAX];
    assert_true(n <= ARGS_MAX);
    assert_ok(dev_open(&d, check_device(), n_threads));
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
            if (first[i]) assert_memory_equal(first[i], again[i], host_bytes(args[i].t));
    }
    for (size_t i = 0; i < n; i++) {
        if (!first[i]) continue;
        if (args[i].role == CHECK_IN)
            assert_memory_equal(first[i], args[i].t.data, host_bytes(args[i].t));
        else memcpy(args[i].t.data, first[i], host_bytes(args[i].t));
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
        const size_t bytes = out[i] ? host_bytes(args[i].t) : 0;
        for (size_t j = 0; j < bytes; j++) {
            const uint8_t was =
                args[i].role == CHECK_OUT ? 0xFF : ((const uint8_t *)args[i].t.data)[j];
            assert_int_equal(out[i][j], was);
        }
    }
}
