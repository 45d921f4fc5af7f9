/* rig.c - see rig.h. Linked by --wrap=dlopen. */
#include "tests/fake_cuda/rig.h"

#include <string.h>

#include "tests/fake_cuda/fake.h"

struct rig rig;

void *__real_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags)
{
    assert_string_equal(name, "libcublasLt.so.13");
    return __real_dlopen(rig.soname, flags);
}

int rig_setup(void **state)
{
    (void)state;
    fake_cuda("gpus=9");
    assert_ok(dev_open(&rig.d, "cuda:0", 1));
    return 0;
}

int rig_teardown(void **state)
{
    cuda_gemm_close(rig.d);
    dev_close(&rig.d);
    assert_int_equal(fake_lt.n_live, 0);
    return check_teardown(state);
}

void rig_want(err_t e, err_t code, const char *words)
{
    if (e != code) fail_msg("code %d, not %d: %s", e, code, e == OK ? "" : err_text());
    if (!strstr(err_text(), words)) fail_msg("\"%s\" is not in: %s", words, err_text());
    assert_null(strchr(err_text(), '\n'));
}

/* --- what gemm.c calls ------------------------------------------------------------------------ */

const struct cuda_scratch *cuda_scratch(const struct dev *d)
{
    static float work[4];
    static const struct cuda_scratch s = {.gemm = work, .data = rig.scratch};
    (void)d;
    return &s;
}

static err_t passed(const char *name, const void *y, struct tensor b)
{
    rig.pass = (struct rig_pass){name, y, b.data};
    return OK;
}

err_t cuda_bias_act(struct dev *d, struct tensor y, struct tensor b, bool is_gelu)
{
    (void)d;
    return passed(is_gelu ? "bias_gelu" : "bias", y.data, b);
}

err_t cuda_gate_add(struct dev *d, struct tensor y, const void *z, enum dtype type, struct tensor b,
                    const float *gate)
{
    (void)d, (void)y, (void)type, (void)gate;
    return passed("gate_add", z, b);
}

err_t cuda_gate_add_norm(struct dev *d, struct tensor y, const void *z, struct tensor b,
                         const float *gate, struct tensor h, struct tensor scale,
                         struct tensor shift, bool is_modulated, float eps)
{
    (void)d, (void)y, (void)gate, (void)h, (void)scale, (void)shift, (void)is_modulated, (void)eps;
    return passed("gate_add_norm", z, b);
}

err_t cuda_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                      struct tensor b, float eps)
{
    (void)d, (void)y, (void)w, (void)eps;
    return passed("layer_norm", x.data, b);
}

err_t cuda_norm_modulate(struct dev *d, struct tensor y, struct tensor x, struct tensor scale,
                         struct tensor shift, float eps)
{
    (void)d, (void)y, (void)scale, (void)eps;
    return passed("norm_modulate", x.data, shift);
}
