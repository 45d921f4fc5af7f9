/* check.h - what the tests share: errors, numbers, and ops run on guarded, poisoned memory.
 *
 * An op is judged by a naive oracle in f64 written in its test; the oracle never calls the
 * product. check_op runs the op with 1, 2 and 3 threads and wants the same bits from each.
 *
 * CHECK_DEVICE=cuda:0 runs the same tests on a GPU, CHECK_TYPE=bf16 or f16 with half activations
 * and weights there: then inputs are drawn so that the half type holds them exactly, and what an
 * oracle wants is met within the rounding of its outputs.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/dev.h"
#include "common/err.h"
#include "common/tensor.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Fails with the sentence of the error. */
#define assert_ok(call) check_ok((call), #call, __FILE__, __LINE__)
void check_ok(err_t e, const char *call, const char *file, int line);

/* Passes if f, called in a child process, ends it by abort, as a broken MUST does. */
#define check_aborts(f) check_aborts_at((f), #f, __FILE__, __LINE__)
void check_aborts_at(void (*f)(void), const char *what, const char *file, int line);

/* What CHECK_DEVICE and CHECK_TYPE say; "cpu" and f32 unless set. */
const char *check_device(void);
enum dtype check_type(void);
int check_on_gpu(void);

/* --- numbers: host memory that lives until the test ends -------------------------------------- */

#define TEST(f) cmocka_unit_test_teardown(f, check_teardown)
int check_teardown(void **state);

void *check_alloc(size_t bytes);               /* zeroed */
float *check_floats(int64_t n, uint64_t seed); /* uniform in [-1, 1) */
float *check_floats_in(int64_t n, uint64_t seed, float lo, float hi);
double *check_doubles(int64_t n);     /* zeroed: an oracle's answer */
uint64_t check_next(uint64_t *state); /* splitmix64 */

/* |got - want| / |want| (Euclidean) is at most tol, or what the type under test allows: on a GPU
 * 1e-5, with bf16 3.5e-3, with f16 4.5e-4; twice as much of fewer than 64 values. NaN never
 * passes. */
#define check_close(got, want, n, tol) check_close_at((got), (want), (n), (tol), __FILE__, __LINE__)
void check_close_at(const float *got, const double *want, int64_t n, double tol, const char *file,
                    int line);

/* --- ops -------------------------------------------------------------------------------------- */

enum check_role { CHECK_IN, CHECK_OUT, CHECK_BOTH };

/* An argument in host memory. OUT is poisoned with NaN before the op and holds the result after;
 * BOTH is an input that the op changes; IN must be as it was. */
struct check_arg {
    enum check_role role;
    struct tensor t;
};

#define IN(p, ...) ((struct check_arg){CHECK_IN, TENSOR((p), DTYPE_F32, __VA_ARGS__)})
#define IN_I32(p, ...) ((struct check_arg){CHECK_IN, TENSOR((p), DTYPE_I32, __VA_ARGS__)})
#define IN_U64(p, ...) ((struct check_arg){CHECK_IN, TENSOR((p), DTYPE_U64, __VA_ARGS__)})
#define OUT(p, ...) ((struct check_arg){CHECK_OUT, TENSOR((p), DTYPE_F32, __VA_ARGS__)})
#define OUT_U8(p, ...) ((struct check_arg){CHECK_OUT, TENSOR((p), DTYPE_U8, __VA_ARGS__)})
#define BOTH(p, ...) ((struct check_arg){CHECK_BOTH, TENSOR((p), DTYPE_F32, __VA_ARGS__)})
/* Activations and weights: of the type under test. Host memory is f32 all the same. */
#define IN_ACT(p, ...) ((struct check_arg){CHECK_IN, TENSOR((p), check_type(), __VA_ARGS__)})
#define OUT_ACT(p, ...) ((struct check_arg){CHECK_OUT, TENSOR((p), check_type(), __VA_ARGS__)})
#define BOTH_ACT(p, ...) ((struct check_arg){CHECK_BOTH, TENSOR((p), check_type(), __VA_ARGS__)})
#define NONE ((struct check_arg){CHECK_IN, {0}})

/* Calls the op on device copies t of the arguments; p is the test's own. */
typedef err_t check_call(struct dev *d, const struct tensor *t, const void *p);

/* Runs with 1, 2 and 3 threads: same bits, guards intact, inputs unchanged, result in the host. */
void check_op(check_call *call, const void *p, const struct check_arg *args, size_t n);
#define CHECK_OP(call, p, ...)                                                                     \
    check_op((call), (p), (const struct check_arg[]){__VA_ARGS__},                                 \
             COUNT(((const struct check_arg[]){__VA_ARGS__})))

/* The op answers with this code and touches no output. One thread. */
void check_refused(err_t code, check_call *call, const void *p, const struct check_arg *args,
                   size_t n);
#define CHECK_REFUSED(code, call, p, ...)                                                          \
    check_refused((code), (call), (p), (const struct check_arg[]){__VA_ARGS__},                    \
                  COUNT(((const struct check_arg[]){__VA_ARGS__})))

#endif
