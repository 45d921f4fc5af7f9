/* table.c - the CPU's row of the dispatch, and its scratch. */
#include <omp.h>

#include "kernels/cpu/cpu.h"

enum { DEVS_MAX = 8 };

static struct arena {
    const struct dev *d;
    void *base;
    bool is_bf16;
} arenas[DEVS_MAX];

static struct arena *find(const struct dev *d)
{
    for (int i = 0; i < DEVS_MAX; i++)
        if (arenas[i].d == d) return &arenas[i];
    return NULL;
}

static err_t cpu_open(struct dev *d)
{
    err_t e = OK;
    struct arena *a = find(NULL);
    if (!a) return FAIL(ERR_LIMIT, "cpu: more than %d devices are open", DEVS_MAX);
    TRY(dev_alloc(d, (size_t)dev_threads(d) * CPU_SLOT_FLOATS * sizeof(float), &a->base));
    a->d = d;
    a->is_bf16 = false;
    cpu_blas_open();
out:
    return e;
}

static void cpu_close(struct dev *d)
{
    struct arena *a = find(d);
    MUST(a);
    dev_free(d, &a->base);
    a->d = NULL;
}

static void cpu_set_bf16(struct dev *d, bool is_on)
{
    struct arena *a = find(d);
    MUST(a);
    a->is_bf16 = is_on;
}

bool cpu_is_bf16(const struct dev *d)
{
    const struct arena *a = find(d);
    MUST(a);
    return a->is_bf16;
}

float *cpu_scratch(const struct dev *d)
{
    const struct arena *a = find(d);
    MUST(a);
    return a->base;
}

float *cpu_slot(float *scratch)
{
    return scratch + (int64_t)omp_get_thread_num() * CPU_SLOT_FLOATS;
}

/* All that the ops need is linked with the program. */
static void cpu_load(void)
{
}

static size_t cpu_choices_bytes(void)
{
    return 0;
}

static void cpu_choices(struct dev *d, void *memory)
{
    (void)d;
    (void)memory;
}

const struct ops ops_cpu = {
    .load = cpu_load,
    .open = cpu_open,
    .close = cpu_close,
    .choices_bytes = cpu_choices_bytes,
    .choices = cpu_choices,
    .set_bf16 = cpu_set_bf16,
    .keep = cpu_keep_all,
    .linear = cpu_linear,
    .linear_gelu = cpu_linear_gelu,
    .linear_add = cpu_linear_add,
    .linear_add_norm = cpu_linear_add_norm,
    .rms_norm = cpu_rms_norm,
    .layer_norm = cpu_layer_norm,
    .norm_modulate = cpu_norm_modulate,
    .l2_norm = cpu_l2_norm,
    .silu = cpu_silu,
    .cast = cpu_cast,
    .add = cpu_add,
    .gelu_mul = cpu_gelu_mul,
    .embed = cpu_embed,
    .attention = cpu_attention,
    .attention_t5 = cpu_attention_t5,
    .qkv_rope_cache = cpu_qkv_rope_cache,
    .rope_sink = cpu_rope_sink,
    .patchify = cpu_patchify,
    .unpatchify = cpu_unpatchify,
    .flow_to_x0 = cpu_flow_to_x0,
    .renoise = cpu_renoise,
    .randn = cpu_randn,
    .denorm = cpu_denorm,
    .conv3d = cpu_conv3d,
    .conv3d_norm = cpu_conv3d_norm,
    .upsample_conv = cpu_upsample_conv,
    .split_frames = cpu_split_frames,
    .split3 = cpu_split3,
    .to_rgb8 = cpu_to_rgb8,
};
