/* ops.c - the front: shapes and types are checked here, once for all backends.
 *
 * A signature says what an op takes: "y=SC x=SC w=C". A letter is a dimension; it is bound where
 * it first stands and must agree from there on. A digit is itself. A leading '*' is any number of
 * dimensions, the same wherever it stands. After a colon the type, if not f32: i is i32, u is u64,
 * b is u8, f any float type, a any float type but the same for all that are a. A '?' at the end
 * says that the tensor may be absent. Every dimension is at least 1. On the CPU every float is f32.
 */
#include "kernels/ops.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernels/ops_impl.h"

enum { DEVS_MAX = 8 };

static const struct ops *const backend[DEV_KINDS] = {
    [DEV_CPU] = &ops_cpu,
    [DEV_CUDA] = &ops_cuda,
};

static struct dev *opened[DEVS_MAX];
static uint64_t n_ops;
static void (*watcher)(void *self, const char *op, const struct tensor *t, size_t n);
static void *watcher_self;

static struct dev **find(struct dev *d)
{
    for (int i = 0; i < DEVS_MAX; i++)
        if (opened[i] == d) return &opened[i];
    return NULL;
}

void ops_load(const char *device)
{
    const struct ops *o = backend[strcmp(device, "cpu") == 0 ? DEV_CPU : DEV_CUDA];
    if (o) o->load(); /* else dev_open says that this build has no such device */
}

err_t ops_open(struct dev *d)
{
    err_t e = OK;
    MUST(d && !find(d));
    struct dev **at = find(NULL);
    if (!at) return FAIL(ERR_LIMIT, "ops: more than %d devices are open", DEVS_MAX);
    MUST(backend[dev_kind(d)]);
    TRY(backend[dev_kind(d)]->open(d));
    *at = d;
out:
    return e;
}

void ops_close(struct dev *d)
{
    struct dev **at = d ? find(d) : NULL;
    if (!at) return;
    backend[dev_kind(d)]->close(d);
    *at = NULL;
}

size_t ops_choices_bytes(const struct dev *d)
{
    return backend[dev_kind(d)]->choices_bytes();
}

void ops_choices(struct dev *d, void *memory)
{
    MUST(find(d) && memory && ops_choices_bytes(d) > 0);
    backend[dev_kind(d)]->choices(d, memory);
}

void ops_set_bf16(struct dev *d, bool is_on)
{
    MUST(find(d));
    if (backend[dev_kind(d)]->set_bf16) backend[dev_kind(d)]->set_bf16(d, is_on);
}

uint64_t ops_count(void)
{
    return n_ops;
}

void ops_watch(void (*seen)(void *self, const char *op, const struct tensor *t, size_t n),
               void *self)
{
    watcher = seen;
    watcher_self = self;
}

/* --- signatures ------------------------------------------------------------------------------ */

struct sig {
    const char *op;
    int32_t dim[26]; /* by letter; 0: not bound yet */
    int32_t n_lead;  /* the dimensions behind '*'; 0: not bound yet */
    int32_t lead[TENSOR_RANK_MAX];
    bool is_f32; /* the device has no other float type */
    int32_t act; /* 1 + the type of what is a; 0: not bound yet */
};

/* The value of a letter that was bound. */
static int64_t dim(const struct sig *g, char letter)
{
    return g->dim[letter - 'A'];
}

static const char *shape_text(struct tensor t, char *text, size_t bytes)
{
    size_t n = 0;
    if (!t.data || t.rank < 1) return "absent";
    text[0] = '\0';
    for (int32_t i = 0; i < t.rank && n < bytes; i++)
        n += (size_t)snprintf(text + n, bytes - n, "%c%d", i ? ',' : '[', t.shape[i]);
    if (n < bytes)
        snprintf(text + n, bytes - n, "] %s", t.dtype < DTYPES ? dtype_name(t.dtype) : "?");
    return text;
}

static bool bind(int32_t *kept, int32_t value)
{
    if (*kept == 0) *kept = value;
    return *kept == value && value > 0;
}

/* Whether t has the shape of the n letters at s, binding what is new. */
static bool has_shape(struct sig *g, struct tensor t, const char *s, int32_t n)
{
    int32_t at = 0;
    if (t.rank < 1 || t.rank > TENSOR_RANK_MAX) return false;
    if (n > 0 && s[0] == '*') {
        s++, n--;
        if (t.rank - n < 1 || !bind(&g->n_lead, t.rank - n)) return false;
        for (; at < g->n_lead; at++)
            if (!bind(&g->lead[at], t.shape[at])) return false;
    }
    if (t.rank - at != n) return false;
    for (int32_t i = 0; i < n; i++) {
        const int32_t value = t.shape[at + i];
        const bool is_digit = s[i] >= '0' && s[i] <= '9';
        if (is_digit ? value != s[i] - '0' : !bind(&g->dim[s[i] - 'A'], value)) return false;
    }
    return true;
}

static bool is_float(const struct sig *g, enum dtype t)
{
    return t == DTYPE_F32 || (!g->is_f32 && (t == DTYPE_BF16 || t == DTYPE_F16));
}

static bool has_type(struct sig *g, enum dtype t, char code)
{
    switch (code) {
    case 'i':
        return t == DTYPE_I32;
    case 'u':
        return t == DTYPE_U64;
    case 'b':
        return t == DTYPE_U8;
    case 'f':
        return is_float(g, t);
    case 'a':
        if (g->act == 0) g->act = 1 + (int32_t)t;
        return g->act == 1 + (int32_t)t && is_float(g, t);
    default:
        return t == DTYPE_F32;
    }
}

/* One item of a signature, "name=shape:type?", n bytes long. */
static err_t check_one(struct sig *g, const char *item, int32_t n, struct tensor t)
{
    char text[96];
    const char *const shape = (const char *)memchr(item, '=', (size_t)n) + 1;
    int32_t n_shape = (int32_t)(item + n - shape);
    char type = '\0';
    if (shape[n_shape - 1] == '?') {
        if (!t.data && t.rank == 0) return OK;
        n_shape--;
    }
    if (n_shape > 2 && shape[n_shape - 2] == ':') {
        type = shape[n_shape - 1];
        n_shape -= 2;
    }
    if (t.data && has_type(g, t.dtype, type) && has_shape(g, t, shape, n_shape)) return OK;
    return FAIL(ERR_SHAPE, "%s: %.*s is %s", g->op, n, item, shape_text(t, text, sizeof text));
}

/* Checks the tensors against the signature, one item each, and counts the op. */
static err_t check_all(struct dev *d, struct sig *g, const char *spec, const struct tensor *t,
                       size_t n_tensors)
{
    err_t e = OK;
    if (!find(d)) return FAIL(ERR_BUG, "%s: ops_open was not called on this device", g->op);
    g->is_f32 = dev_kind(d) == DEV_CPU;
    for (size_t i = 0; i < n_tensors; i++) {
        const int32_t n = (int32_t)strcspn(spec, " ");
        MUST(n > 0);
        TRY(check_one(g, spec, n, t[i]));
        spec += n + (spec[n] == ' ');
    }
    MUST(*spec == '\0');
    TRY(dev_enter(d));
    n_ops++;
    if (watcher) watcher(watcher_self, g->op, t, n_tensors);
out:
    return e;
}

#define CHECK(spec, ...)                                                                           \
    check_all(d, &g, (spec), (const struct tensor[]){__VA_ARGS__},                                 \
              sizeof((const struct tensor[]){__VA_ARGS__}) / sizeof(struct tensor))

/* A relation between bound dimensions, in words that end "op: ...". */
static err_t need(const struct sig *g, bool holds, const char *what)
{
    if (holds) return OK;
    n_ops--; /* refused after all */
    return FAIL(ERR_SHAPE, "%s: needs %s", g->op, what);
}

#define SIG(name) struct sig g = {.op = (name)}
#define FORWARD(op, ...) (e != OK ? e : backend[dev_kind(d)]->op(d, __VA_ARGS__))

err_t ops_keep(struct dev *d, struct tensor x)
{
    SIG("keep");
    const err_t e = CHECK("x=*", x);
    if (e != OK || !backend[dev_kind(d)]->keep) return e;
    return backend[dev_kind(d)]->keep(d, x);
}

/* --- linear, norms, elementwise --------------------------------------------------------------- */

err_t ops_linear(struct dev *d, struct tensor y, struct tensor x, struct tensor w, struct tensor b)
{
    SIG("linear");
    const err_t e = CHECK("y=SO:f x=SI:a w=OI:a b=O:f?", y, x, w, b);
    return FORWARD(linear, y, x, w, b);
}

err_t ops_linear_gelu(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                      struct tensor b)
{
    SIG("linear_gelu");
    const err_t e = CHECK("y=SO:a x=SI:a w=OI:a b=O:f?", y, x, w, b);
    return FORWARD(linear_gelu, y, x, w, b);
}

err_t ops_linear_add(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                     struct tensor b, struct tensor gate)
{
    SIG("linear_add");
    const err_t e = CHECK("y=SO:f x=SI:a w=OI:a b=O:f? gate=O?", y, x, w, b, gate);
    return FORWARD(linear_add, y, x, w, b, gate);
}

err_t ops_linear_add_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                          struct tensor b, struct tensor gate, struct tensor h, struct tensor scale,
                          struct tensor shift, bool is_modulated, float eps)
{
    SIG("linear_add_norm");
    MUST(eps > 0);
    const err_t e = CHECK("y=SO x=SI:a w=OI:a b=O:f? gate=O? h=SO:a scale=O shift=O", y, x, w, b,
                          gate, h, scale, shift);
    return FORWARD(linear_add_norm, y, x, w, b, gate, h, scale, shift, is_modulated, eps);
}

err_t ops_rms_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w, float eps)
{
    SIG("rms_norm");
    MUST(eps > 0);
    const err_t e = CHECK("y=SC:f x=SC:f w=C", y, x, w);
    return FORWARD(rms_norm, y, x, w, eps);
}

err_t ops_layer_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                     struct tensor b, float eps)
{
    SIG("layer_norm");
    MUST(eps > 0);
    const err_t e = CHECK("y=SC:f x=SC w=C b=C", y, x, w, b);
    return FORWARD(layer_norm, y, x, w, b, eps);
}

err_t ops_norm_modulate(struct dev *d, struct tensor y, struct tensor x, struct tensor scale,
                        struct tensor shift, float eps)
{
    SIG("norm_modulate");
    MUST(eps > 0);
    const err_t e = CHECK("y=SC:f x=SC scale=C shift=C", y, x, scale, shift);
    return FORWARD(norm_modulate, y, x, scale, shift, eps);
}

err_t ops_l2_norm(struct dev *d, struct tensor y, struct tensor x, struct tensor g_, int with_silu)
{
    SIG("l2_norm");
    const err_t e = CHECK("y=*C:a x=*C:a g=C", y, x, g_);
    return FORWARD(l2_norm, y, x, g_, with_silu);
}

err_t ops_silu(struct dev *d, struct tensor y, struct tensor x)
{
    SIG("silu");
    const err_t e = CHECK("y=* x=*", y, x);
    return FORWARD(silu, y, x);
}

err_t ops_cast(struct dev *d, struct tensor y, struct tensor x)
{
    SIG("cast");
    const err_t e = CHECK("y=*:f x=*:f", y, x);
    return FORWARD(cast, y, x);
}

err_t ops_add(struct dev *d, struct tensor y, struct tensor a, struct tensor b)
{
    SIG("add");
    const err_t e = CHECK("y=* a=* b=*", y, a, b);
    return FORWARD(add, y, a, b);
}

err_t ops_gelu_mul(struct dev *d, struct tensor y, struct tensor a, struct tensor g_)
{
    SIG("gelu_mul");
    const err_t e = CHECK("y=*:a a=*:a g=*:a", y, a, g_);
    return FORWARD(gelu_mul, y, a, g_);
}

err_t ops_embed(struct dev *d, struct tensor y, struct tensor table, struct tensor ids)
{
    SIG("embed");
    const err_t e = CHECK("y=SC table=VC:f ids=S:i", y, table, ids);
    return FORWARD(embed, y, table, ids);
}

/* --- attention and rotary positions ------------------------------------------------------------
 */

err_t ops_attention(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                    struct tensor v, struct tensor n_keys, struct tensor last_bias, float scale)
{
    SIG("attention");
    const err_t e = CHECK("o=SND:a q=SND:a k=MND:a v=MND:a n_keys=1:i? last_bias=1?", o, q, k, v,
                          n_keys, last_bias);
    return FORWARD(attention, o, q, k, v, n_keys, last_bias, scale);
}

err_t ops_attention_t5(struct dev *d, struct tensor o, struct tensor q, struct tensor k,
                       struct tensor v, struct tensor table)
{
    err_t e = OK;
    SIG("attention_t5");
    TRY(CHECK("o=SND:a q=SND:a k=SND:a v=SND:a table=BN", o, q, k, v, table));
    TRY(need(&g, dim(&g, 'B') % 4 == 0 && dim(&g, 'B') < 512, "B % 4 == 0 and B < 512"));
out:
    return FORWARD(attention_t5, o, q, k, v, table);
}

/* T pairs by time and U each by row and column make the D/2 pairs of a head. */
static err_t need_rot(const struct sig *g, int32_t n_rows, int32_t n_cols)
{
    err_t e = OK;
    TRY(need(g, n_rows > 0 && n_cols > 0, "n_rows > 0 and n_cols > 0"));
    TRY(need(g, dim(g, 'D') == 2 * (dim(g, 'T') + 2 * dim(g, 'U')), "pt + 2*ps == D/2"));
    TRY(need(g, dim(g, 'G') >= n_rows && dim(g, 'G') >= n_cols, "G >= max(Y, X)"));
out:
    return e;
}

err_t ops_qkv_rope_cache(struct dev *d, struct tensor q, struct tensor k_ring, struct tensor v_ring,
                         struct tensor k_sink, struct tensor qkv, struct tensor wq,
                         struct tensor wk, struct tensor slots, struct tensor rot_t,
                         struct tensor rot_yx, int32_t n_rows, int32_t n_cols, float eps)
{
    err_t e = OK;
    SIG("qkv_rope_cache");
    MUST(eps > 0);
    TRY(CHECK("q=SND:a k_ring=MND:a v_ring=MND:a k_sink=PND:a? qkv=SA:a wq=C wk=C slots=F:i "
              "rot_t=FT2 rot_yx=GU2",
              q, k_ring, v_ring, k_sink, qkv, wq, wk, slots, rot_t, rot_yx));
    const int64_t n_frame = (int64_t)n_rows * n_cols;
    TRY(need_rot(&g, n_rows, n_cols));
    TRY(need(&g, dim(&g, 'C') == dim(&g, 'N') * dim(&g, 'D'), "C == N*D"));
    TRY(need(&g, dim(&g, 'A') == 3 * dim(&g, 'C'), "qkv of 3*C columns"));
    TRY(need(&g, dim(&g, 'S') == dim(&g, 'F') * n_frame, "S == F*Y*X"));
    TRY(need(&g, dim(&g, 'M') % n_frame == 0 && dim(&g, 'P') % n_frame == 0,
             "k_ring and k_sink of whole frames"));
out:
    return FORWARD(qkv_rope_cache, q, k_ring, v_ring, k_sink, qkv, wq, wk, slots, rot_t, rot_yx,
                   n_rows, n_cols, eps);
}

err_t ops_rope_sink(struct dev *d, struct tensor k_ring, struct tensor k_sink, struct tensor rot_t,
                    struct tensor rot_yx, int32_t n_rows, int32_t n_cols)
{
    err_t e = OK;
    SIG("rope_sink");
    TRY(CHECK("k_ring=MND:a k_sink=PND:a rot_t=FT2 rot_yx=GU2", k_ring, k_sink, rot_t, rot_yx));
    TRY(need_rot(&g, n_rows, n_cols));
    TRY(need(&g, dim(&g, 'P') == dim(&g, 'F') * n_rows * n_cols, "k_sink of F*Y*X rows"));
    TRY(need(&g, dim(&g, 'M') >= dim(&g, 'P'), "k_ring of at least F*Y*X rows"));
out:
    return FORWARD(rope_sink, k_ring, k_sink, rot_t, rot_yx, n_rows, n_cols);
}

/* --- latents -----------------------------------------------------------------------------------
 */

static err_t need_patches(const struct sig *g)
{
    err_t e = OK;
    const int64_t n_patches = dim(g, 'F') * (dim(g, 'Y') / 2) * (dim(g, 'X') / 2);
    TRY(need(g, dim(g, 'Y') % 2 == 0 && dim(g, 'X') % 2 == 0, "even Y and X"));
    TRY(need(g, dim(g, 'S') == n_patches, "S == F*(Y/2)*(X/2)"));
    TRY(need(g, dim(g, 'A') == 4 * dim(g, 'C'), "patches of 4*C columns"));
out:
    return e;
}

err_t ops_patchify(struct dev *d, struct tensor y, struct tensor x)
{
    err_t e = OK;
    SIG("patchify");
    TRY(CHECK("y=SA:f x=FCYX", y, x));
    TRY(need_patches(&g));
out:
    return FORWARD(patchify, y, x);
}

err_t ops_unpatchify(struct dev *d, struct tensor y, struct tensor x)
{
    err_t e = OK;
    SIG("unpatchify");
    TRY(CHECK("y=FCYX x=SA", y, x));
    TRY(need_patches(&g));
out:
    return FORWARD(unpatchify, y, x);
}

err_t ops_flow_to_x0(struct dev *d, struct tensor x0, struct tensor x, struct tensor flow,
                     float sigma)
{
    SIG("flow_to_x0");
    const err_t e = CHECK("x0=* x=* flow=*", x0, x, flow);
    return FORWARD(flow_to_x0, x0, x, flow, sigma);
}

err_t ops_renoise(struct dev *d, struct tensor y, struct tensor x0, struct tensor eps, float sigma)
{
    SIG("renoise");
    const err_t e = CHECK("y=* x0=* eps=*", y, x0, eps);
    return FORWARD(renoise, y, x0, eps, sigma);
}

err_t ops_randn(struct dev *d, struct tensor y, struct tensor key, float mean, float std)
{
    SIG("randn");
    const err_t e = CHECK("y=*:f key=2:u", y, key);
    return FORWARD(randn, y, key, mean, std);
}

/* --- VAE ---------------------------------------------------------------------------------------
 */

err_t ops_denorm(struct dev *d, struct tensor y, struct tensor latent, struct tensor inv_std,
                 struct tensor mean)
{
    SIG("denorm");
    const err_t e = CHECK("y=YXC:f latent=CYX inv_std=C mean=C", y, latent, inv_std, mean);
    return FORWARD(denorm, y, latent, inv_std, mean);
}

/* P past frames and K x L x L taps. */
static err_t need_taps(const struct sig *g)
{
    err_t e = OK;
    TRY(need(g, dim(g, 'K') == 1 || dim(g, 'K') == 3, "kt 1 or 3"));
    TRY(need(g, dim(g, 'L') == 1 || dim(g, 'L') == 3, "k 1 or 3"));
    TRY(need(g, dim(g, 'P') == dim(g, 'K') - 1, "kt - 1 past frames"));
out:
    return e;
}

err_t ops_conv3d(struct dev *d, struct tensor y, struct tensor x, struct tensor past,
                 struct tensor w, struct tensor b, struct tensor residual)
{
    err_t e = OK;
    SIG("conv3d");
    TRY(CHECK("y=TYXO:f x=TYXC:a past=PYXC:a? w=OKLLC:a b=O residual=TYXO:a?", y, x, past, w, b,
              residual));
    TRY(need_taps(&g));
out:
    return FORWARD(conv3d, y, x, past, w, b, residual);
}

err_t ops_conv3d_norm(struct dev *d, struct tensor h, struct tensor x, struct tensor past,
                      struct tensor w, struct tensor b, struct tensor residual, struct tensor g_,
                      struct tensor y)
{
    err_t e = OK;
    SIG("conv3d_norm");
    TRY(CHECK("h=TYXO:a x=TYXC:a past=PYXC:a? w=OKLLC:a b=O residual=TYXO:a? g=O y=TYXO:a?", h, x,
              past, w, b, residual, g_, y));
    TRY(need_taps(&g));
out:
    return FORWARD(conv3d_norm, h, x, past, w, b, residual, g_, y);
}

err_t ops_upsample_conv(struct dev *d, struct tensor y, struct tensor x, struct tensor w,
                        struct tensor b)
{
    err_t e = OK;
    SIG("upsample_conv");
    TRY(CHECK("y=TABO:a x=TYXC:a w=O133C:a b=O", y, x, w, b));
    TRY(need(&g, dim(&g, 'A') == 2 * dim(&g, 'Y') && dim(&g, 'B') == 2 * dim(&g, 'X'),
             "y of twice the rows and columns of x"));
out:
    return FORWARD(upsample_conv, y, x, w, b);
}

err_t ops_split_frames(struct dev *d, struct tensor y, struct tensor x)
{
    err_t e = OK;
    SIG("split_frames");
    TRY(CHECK("y=AYXC:a x=TYXB:a", y, x));
    TRY(need(&g, dim(&g, 'A') == 2 * dim(&g, 'T') && dim(&g, 'B') == 2 * dim(&g, 'C'),
             "y of twice the frames and half the channels of x"));
out:
    return FORWARD(split_frames, y, x);
}

err_t ops_split3(struct dev *d, struct tensor q, struct tensor k, struct tensor v,
                 struct tensor qkv)
{
    err_t e = OK;
    SIG("split3");
    TRY(CHECK("q=SC:a k=SC:a v=SC:a qkv=SA:a", q, k, v, qkv));
    TRY(need(&g, dim(&g, 'A') == 3 * dim(&g, 'C'), "qkv of 3*C columns"));
out:
    return FORWARD(split3, q, k, v, qkv);
}

err_t ops_to_rgb8(struct dev *d, struct tensor y, struct tensor x)
{
    SIG("to_rgb8");
    const err_t e = CHECK("y=*3:b x=*3:f", y, x);
    return FORWARD(to_rgb8, y, x);
}
