/* pickle_torch.c - what the names in a torch pickle would do in Python, done on plain nodes: a
 * storage, a tensor over one, a dictionary. Nothing is looked up outside the list, nothing runs.
 */
#include "common/pickle_impl.h"

#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 16, VISITS_MAX = 4 << 20, ARGS_MAX = 16 };

/* --- names ------------------------------------------------------------------------------------ */

enum what {
    MAKES_DICT,
    MAKES_TENSOR,     /* storage, first element, shape, strides, ... */
    MAKES_TENSOR_OF,  /* the same; dtype is the seventh */
    MAKES_SAME,       /* its first argument is the tensor */
    MAKES_BY_ARGS,    /* function, type, arguments of the function, state */
    MAKES_SHAPE,      /* torch.Size: its argument is the tuple */
    MAKES_OTHER,      /* nothing that we look into */
    IS_STORAGE,       /* of a dtype */
    IS_BYTES_STORAGE, /* of bytes, whatever the dtype */
    IS_DTYPE,
    IS_TYPE
};

static const struct global {
    const char *module, *name;
    enum what what;
    enum ckpt_dtype dtype;
} globals[] = {
    {"collections", "OrderedDict", MAKES_DICT, 0},
    {"torch._utils", "_rebuild_tensor", MAKES_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor_v2", MAKES_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor_v3", MAKES_TENSOR_OF, 0},
    {"torch._utils", "_rebuild_parameter", MAKES_SAME, 0},
    {"torch._utils", "_rebuild_parameter_with_state", MAKES_SAME, 0},
    {"torch._tensor", "_rebuild_from_type_v2", MAKES_BY_ARGS, 0},
    {"torch", "Size", MAKES_SHAPE, 0},
    {"torch", "device", MAKES_OTHER, 0},
    {"builtins", "set", MAKES_OTHER, 0},
    {"__builtin__", "set", MAKES_OTHER, 0},
    {"torch", "Tensor", IS_TYPE, 0},
    {"torch.nn.parameter", "Parameter", IS_TYPE, 0},
    {"torch", "UntypedStorage", IS_BYTES_STORAGE, 0},
    {"torch.storage", "UntypedStorage", IS_BYTES_STORAGE, 0},
    {"torch", "DoubleStorage", IS_STORAGE, CKPT_F64},
    {"torch", "FloatStorage", IS_STORAGE, CKPT_F32},
    {"torch", "HalfStorage", IS_STORAGE, CKPT_F16},
    {"torch", "BFloat16Storage", IS_STORAGE, CKPT_BF16},
    {"torch", "LongStorage", IS_STORAGE, CKPT_I64},
    {"torch", "IntStorage", IS_STORAGE, CKPT_I32},
    {"torch", "ShortStorage", IS_STORAGE, CKPT_I16},
    {"torch", "CharStorage", IS_STORAGE, CKPT_I8},
    {"torch", "ByteStorage", IS_STORAGE, CKPT_U8},
    {"torch", "BoolStorage", IS_STORAGE, CKPT_BOOL},
    {"torch", "float64", IS_DTYPE, CKPT_F64},
    {"torch", "float32", IS_DTYPE, CKPT_F32},
    {"torch", "float16", IS_DTYPE, CKPT_F16},
    {"torch", "bfloat16", IS_DTYPE, CKPT_BF16},
    {"torch", "int64", IS_DTYPE, CKPT_I64},
    {"torch", "int32", IS_DTYPE, CKPT_I32},
    {"torch", "int16", IS_DTYPE, CKPT_I16},
    {"torch", "int8", IS_DTYPE, CKPT_I8},
    {"torch", "uint64", IS_DTYPE, CKPT_U64},
    {"torch", "uint32", IS_DTYPE, CKPT_U32},
    {"torch", "uint16", IS_DTYPE, CKPT_U16},
    {"torch", "uint8", IS_DTYPE, CKPT_U8},
    {"torch", "bool", IS_DTYPE, CKPT_BOOL},
    {"torch", "float8_e4m3fn", IS_DTYPE, CKPT_F8_E4M3},
    {"torch", "float8_e5m2", IS_DTYPE, CKPT_F8_E5M2},
};
enum { GLOBALS = sizeof globals / sizeof *globals };

err_t pickle_global(struct machine *m, const char *module, size_t n_module, const char *name,
                    size_t n_name)
{
    char text[128];
    for (int32_t i = 0; i < GLOBALS; i++)
        if (strlen(globals[i].module) == n_module && strlen(globals[i].name) == n_name &&
            memcmp(globals[i].module, module, n_module) == 0 &&
            memcmp(globals[i].name, name, n_name) == 0)
            return pickle_push_new(m, (struct node){.kind = GLOBAL, .value = i});
    snprintf(text, sizeof text, "%.*s.%.*s", (int)(n_module < 60 ? n_module : 60), module,
             (int)(n_name < 60 ? n_name : 60), name);
    for (char *p = text; *p; p++)
        if (*p < ' ' || *p > '~') *p = '?';
    return FAIL(ERR_DATA, "its pickle needs %s, which is not among what is read", text);
}

/* --- calls ------------------------------------------------------------------------------------ */

static err_t make_tensor(struct machine *m, const struct global *g, const int32_t *arg, int32_t n)
{
    const int32_t n_least = g->what == MAKES_TENSOR_OF ? 7 : 4;
    if (n < n_least || m->nodes[arg[0]].kind != STORAGE || m->nodes[arg[1]].kind != INT)
        return pickle_broken("a tensor's arguments");
    struct node t = {.kind = TENSOR, .dtype = m->nodes[arg[0]].dtype, .storage = arg[0]};
    if (g->what == MAKES_TENSOR_OF) {
        const struct node *d = &m->nodes[arg[6]];
        if (d->kind != GLOBAL || globals[d->value].what != IS_DTYPE)
            return pickle_broken("a tensor's dtype");
        t.dtype = globals[d->value].dtype;
    } else if (m->nodes[arg[0]].is_bytes) {
        return pickle_broken("a tensor without a dtype");
    }
    t.value = m->nodes[arg[1]].value;
    t.shape = arg[2];
    t.stride = arg[3];
    return pickle_push_new(m, t);
}

static err_t make_dict(struct machine *m, const int32_t *arg, int32_t n)
{
    err_t e = OK;
    int32_t pair[3];
    TRY(pickle_push_new(m, (struct node){.kind = DICT}));
    const int32_t to = m->stack[m->n_stack - 1];
    if (n == 0) return OK;
    if (m->nodes[arg[0]].kind != LIST) return pickle_broken("a dictionary's arguments");
    for (int32_t l = m->nodes[arg[0]].first; l >= 0; l = m->links[l].next) {
        const int32_t at = m->links[l].node;
        if (pickle_items(m, at, pair, 3) != 2) return pickle_broken("a dictionary's arguments");
        TRY(pickle_append(m, to, pair[0]));
        TRY(pickle_append(m, to, pair[1]));
    }
out:
    return e;
}

/* What Python would call g with these arguments for; leaves the result on the stack. */
static err_t call(struct machine *m, int32_t function, int32_t args)
{
    int32_t arg[ARGS_MAX];
    if (m->nodes[function].kind != GLOBAL || m->nodes[args].kind != TUPLE)
        return pickle_broken("a call of what is no function");
    const struct global *g = &globals[m->nodes[function].value];
    const int32_t n = pickle_items(m, args, arg, ARGS_MAX);
    switch (g->what) {
    case MAKES_DICT:
        return make_dict(m, arg, n);
    case MAKES_TENSOR:
    case MAKES_TENSOR_OF:
        return make_tensor(m, g, arg, n);
    case MAKES_SAME:
        if (n < 1 || m->nodes[arg[0]].kind != TENSOR)
            return pickle_broken("a parameter of no tensor");
        return pickle_push(m, arg[0]);
    case MAKES_SHAPE:
        if (n != 1 || m->nodes[arg[0]].kind != TUPLE)
            return pickle_broken("a shape is not a tuple");
        return pickle_push(m, arg[0]);
    case MAKES_OTHER:
        return pickle_push_new(m, (struct node){.kind = OTHER});
    default:
        return FAIL(ERR_DATA, "%s.%s is called: it is no function", g->module, g->name);
    }
}

err_t pickle_reduce(struct machine *m)
{
    err_t e = OK;
    int32_t args = 0, function = 0, part[4];
    TRY(pickle_pop(m, &args));
    TRY(pickle_pop(m, &function));
    const struct node *f = &m->nodes[function];
    if (f->kind == GLOBAL && globals[f->value].what == MAKES_BY_ARGS) {
        if (m->nodes[args].kind != TUPLE || pickle_items(m, args, part, 4) != 4)
            return pickle_broken("a tensor's arguments");
        function = part[0];
        args = part[2];
    }
    TRY(call(m, function, args));
out:
    return e;
}

/* ("storage", TYPE, KEY, device, elements) */
err_t pickle_storage(struct machine *m)
{
    err_t e = OK;
    int32_t id = 0, part[6];
    TRY(pickle_pop(m, &id));
    if (m->nodes[id].kind != TUPLE || pickle_items(m, id, part, 6) != 5)
        return pickle_broken("a persistent id is not of a storage");
    const struct node *type = &m->nodes[part[1]], *key = &m->nodes[part[2]];
    const struct node *count = &m->nodes[part[4]];
    if (type->kind != GLOBAL || key->kind != STRING || count->kind != INT || count->value < 0)
        return pickle_broken("a persistent id is not of a storage");
    const struct global *g = &globals[type->value];
    if (g->what != IS_STORAGE && g->what != IS_BYTES_STORAGE)
        return FAIL(ERR_DATA, "%s.%s is no storage", g->module, g->name);
    struct node s = {.kind = STORAGE, .dtype = g->dtype, .is_bytes = g->what == IS_BYTES_STORAGE};
    TRY(m->storages->find(m->storages->self, (const char *)m->data + key->at, key->n_bytes, &s.at,
                          &s.n_bytes));
    const uint64_t size = s.is_bytes ? 1 : ckpt_dtype_bytes(s.dtype);
    if (s.n_bytes % size != 0 || s.n_bytes / size != (uint64_t)count->value)
        return FAIL(ERR_DATA, "a storage of %lld elements has %llu bytes", (long long)count->value,
                    (unsigned long long)s.n_bytes);
    TRY(pickle_push_new(m, s));
out:
    return e;
}

/* --- tensors ---------------------------------------------------------------------------------- */

static err_t ints_of(const struct machine *m, int32_t node, int64_t *out, int32_t *n)
{
    int32_t item[CKPT_RANK_MAX];
    const struct node *t = &m->nodes[node];
    if (t->kind != TUPLE && t->kind != LIST) return pickle_broken("a shape is not a tuple");
    if (t->n > CKPT_RANK_MAX)
        return FAIL(ERR_DATA, "a tensor of %d dimensions: at most %d", t->n, CKPT_RANK_MAX);
    *n = pickle_items(m, node, item, CKPT_RANK_MAX);
    for (int32_t i = 0; i < *n; i++) {
        if (m->nodes[item[i]].kind != INT) return pickle_broken("a shape is not of integers");
        out[i] = m->nodes[item[i]].value;
    }
    return OK;
}

/* Row-major without gaps; where a dimension is 1 its stride does not matter. */
static bool is_dense(const int64_t *shape, const int64_t *stride, int32_t rank)
{
    int64_t step = 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        if (shape[i] != 1 && stride[i] != step) return false;
        step *= shape[i];
    }
    return true;
}

/* Elements from the first to the last; -1: over 2^62, or a stride below 0. */
static int64_t extent_of(const int64_t *shape, const int64_t *stride, int32_t rank)
{
    int64_t n = 1, step;
    for (int32_t i = 0; i < rank; i++)
        if (stride[i] < 0 || __builtin_mul_overflow(shape[i] - 1, stride[i], &step) ||
            __builtin_add_overflow(n, step, &n) || n > INT64_MAX / 2)
            return -1;
    return n;
}

static err_t add_tensor(struct machine *m, const struct node *from, const char *name, size_t n)
{
    err_t e = OK;
    int64_t stride[CKPT_RANK_MAX];
    int32_t n_strides = 0;
    const struct node *s = &m->nodes[from->storage];
    struct ckpt_tensor t = {.dtype = from->dtype};
    const uint64_t size = ckpt_dtype_bytes(t.dtype), n_elements = s->n_bytes / size;
    TRY(ints_of(m, from->shape, t.shape, &t.rank));
    TRY(ints_of(m, from->stride, stride, &n_strides));
    if (n_strides != t.rank) return pickle_broken("a shape and its strides differ");
    if (!ckpt_shape_bytes(t.shape, t.rank, t.dtype, &t.n_bytes))
        return FAIL(ERR_DATA, "%.*s: its shape overflows", (int)(n < 200 ? n : 200), name);
    const int64_t extent = t.n_bytes ? extent_of(t.shape, stride, t.rank) : 0;
    if (from->value < 0 || (uint64_t)from->value > n_elements || extent < 0 ||
        (uint64_t)extent > n_elements - (uint64_t)from->value)
        return FAIL(ERR_DATA, "%.*s: lies outside its storage", (int)(n < 200 ? n : 200), name);
    t.at = s->at + (uint64_t)from->value * size;
    t.is_dense = t.n_bytes == 0 || is_dense(t.shape, stride, t.rank);
    TRY(ckpt_add(m->c, m->f, name, n, &t));
out:
    return e;
}

/* The node's tensors under the name of n bytes; the key that follows is written behind it. */
static err_t visit(struct machine *m, int32_t at, char *name, size_t n, int32_t depth)
{
    err_t e = OK;
    const struct node *node = &m->nodes[at];
    int64_t index = 0;
    if (++m->n_visits > VISITS_MAX)
        return FAIL(ERR_DATA, "its pickle refers to the same values too often");
    if (node->kind == TENSOR) return add_tensor(m, node, n ? name : "tensor", n ? n : 6);
    if (node->kind != DICT && node->kind != LIST && node->kind != TUPLE) return OK;
    if (depth == DEPTH_MAX) return FAIL(ERR_DATA, "its pickle is nested deeper than %d", DEPTH_MAX);
    for (int32_t l = node->first; l >= 0; l = m->links[l].next) {
        char number[24];
        const char *key = number;
        size_t n_key = 0;
        if (node->kind == DICT) {
            const struct node *k = &m->nodes[m->links[l].node];
            l = m->links[l].next; /* the value: a dictionary has pairs */
            if (k->kind == STRING) {
                key = (const char *)m->data + k->at;
                n_key = k->n_bytes;
            } else if (k->kind == INT) {
                index = k->value;
            } else {
                continue;
            }
        }
        if (key == number)
            n_key = (size_t)snprintf(number, sizeof number, "%lld", (long long)index++);
        const size_t n_dot = n > 0;
        /* Too long for a tensor: cut here, refused there. */
        const size_t left = n + n_dot <= CKPT_NAME_MAX ? CKPT_NAME_MAX + 1 - n - n_dot : 0;
        if (n_key > left) n_key = left;
        if (n_dot) name[n] = '.';
        memcpy(name + n + n_dot, key, n_key);
        TRY(visit(m, m->links[l].node, name, n + n_dot + n_key, depth + 1));
    }
out:
    return e;
}

err_t pickle_collect(struct machine *m, int32_t root)
{
    char name[CKPT_NAME_MAX + 2 + DEPTH_MAX];
    return visit(m, root, name, 0, 0);
}
