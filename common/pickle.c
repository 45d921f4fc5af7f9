/* pickle.c - the opcodes of a pickle that torch.save writes, on a machine that can call nothing:
 * what a name does is pickle_torch.c's. An opcode that is not below ends the reading.
 */
#include "common/pickle_impl.h"

#include <stdlib.h>
#include <string.h>

/* --- nodes ------------------------------------------------------------------------------------ */

err_t pickle_broken(const char *why)
{
    return FAIL(ERR_DATA, "its pickle is broken: %s", why);
}

/* Room for one more item at n. */
static err_t room(void **items, size_t *cap, size_t n, size_t item_bytes)
{
    if (n < *cap) return OK;
    if (n >= 2 * PICKLE_NODES_MAX) return pickle_broken("too many values");
    size_t more = *cap ? 2 * *cap : 256;
    while (more <= n) more *= 2;
    void *p = realloc(*items, more * item_bytes);
    if (!p) return FAIL(ERR_NOMEM, "pickle");
    *items = p;
    *cap = more;
    return OK;
}

err_t pickle_push(struct machine *m, int32_t node)
{
    err_t e = OK;
    TRY(room((void **)&m->stack, &m->cap_stack, m->n_stack, sizeof *m->stack));
    m->stack[m->n_stack++] = node;
out:
    return e;
}

err_t pickle_push_new(struct machine *m, struct node value)
{
    err_t e = OK;
    if (m->n_nodes == PICKLE_NODES_MAX) return pickle_broken("too many values");
    TRY(room((void **)&m->nodes, &m->cap_nodes, m->n_nodes, sizeof *m->nodes));
    value.first = value.last = -1;
    m->nodes[m->n_nodes] = value;
    TRY(pickle_push(m, (int32_t)m->n_nodes++));
out:
    return e;
}

err_t pickle_pop(struct machine *m, int32_t *node)
{
    if (m->n_stack == 0 || m->stack[m->n_stack - 1] == PICKLE_MARK)
        return pickle_broken("its stack is empty");
    *node = m->stack[--m->n_stack];
    return OK;
}

static err_t top(struct machine *m, enum kind kind, int32_t *node)
{
    if (m->n_stack == 0 || m->stack[m->n_stack - 1] == PICKLE_MARK)
        return pickle_broken("its stack is empty");
    *node = m->stack[m->n_stack - 1];
    return m->nodes[*node].kind == kind ? OK : pickle_broken("a value of another kind is expected");
}

err_t pickle_append(struct machine *m, int32_t to, int32_t node)
{
    err_t e = OK;
    TRY(room((void **)&m->links, &m->cap_links, m->n_links, sizeof *m->links));
    const int32_t at = (int32_t)m->n_links++;
    struct node *list = &m->nodes[to];
    m->links[at] = (struct link){node, -1};
    if (list->last >= 0) m->links[list->last].next = at;
    else list->first = at;
    list->last = at;
    list->n++;
out:
    return e;
}

/* Where the newest mark is. */
static err_t find_mark(const struct machine *m, size_t *at)
{
    for (size_t i = m->n_stack; i > 0; i--)
        if (m->stack[i - 1] == PICKLE_MARK) {
            *at = i - 1;
            return OK;
        }
    return pickle_broken("no mark on its stack");
}

/* The up to n_max first items of a tuple or list. */
int32_t pickle_items(const struct machine *m, int32_t node, int32_t *out, int32_t n_max)
{
    int32_t n = 0;
    for (int32_t l = m->nodes[node].first; l >= 0 && n < n_max; l = m->links[l].next)
        out[n++] = m->links[l].node;
    return n;
}

/* --- opcodes ---------------------------------------------------------------------------------- */

static err_t take(struct machine *m, size_t n, const uint8_t **p)
{
    if (n > m->n_bytes - m->at) return pickle_broken("it ends too early");
    *p = m->data + m->at;
    m->at += n;
    return OK;
}

/* A little-endian number of n bytes. */
static err_t take_uint(struct machine *m, size_t n, uint64_t *v)
{
    err_t e = OK;
    const uint8_t *p = NULL;
    TRY(take(m, n, &p));
    *v = 0;
    for (size_t i = n; i > 0; i--) *v = *v << 8 | p[i - 1];
out:
    return e;
}

static err_t push_int(struct machine *m, int64_t v)
{
    return pickle_push_new(m, (struct node){.kind = INT, .value = v});
}

/* Text or bytes whose length is a number of n_length bytes. */
static err_t push_text(struct machine *m, size_t n_length, enum kind kind)
{
    err_t e = OK;
    uint64_t n = 0;
    const uint8_t *p = NULL;
    TRY(take_uint(m, n_length, &n));
    TRY(take(m, n, &p));
    TRY(pickle_push_new(m,
                        (struct node){.kind = kind, .at = (uint64_t)(p - m->data), .n_bytes = n}));
out:
    return e;
}

/* An integer of n bytes, two's complement. */
static err_t push_long(struct machine *m)
{
    err_t e = OK;
    uint64_t n = 0, v = 0;
    const uint8_t *p = NULL;
    TRY(take_uint(m, 1, &n));
    TRY(take(m, n, &p));
    if (n > 8) return pickle_push_new(m, (struct node){.kind = OTHER});
    if (n > 0 && p[n - 1] & 0x80) v = UINT64_MAX;
    for (size_t i = n; i > 0; i--) v = v << 8 | p[i - 1];
    TRY(push_int(m, (int64_t)v));
out:
    return e;
}

/* Two lines: module, name. */
static err_t op_global(struct machine *m)
{
    const char *p = (const char *)m->data + m->at;
    const size_t left = m->n_bytes - m->at;
    const char *one = memchr(p, '\n', left);
    const char *two = one ? memchr(one + 1, '\n', left - (size_t)(one + 1 - p)) : NULL;
    if (!two) return pickle_broken("it ends too early");
    m->at += (size_t)(two + 1 - p);
    return pickle_global(m, p, (size_t)(one - p), one + 1, (size_t)(two - one - 1));
}

static err_t op_stack_global(struct machine *m)
{
    err_t e = OK;
    int32_t module = 0, name = 0;
    TRY(pickle_pop(m, &name));
    TRY(pickle_pop(m, &module));
    const struct node *a = &m->nodes[module], *b = &m->nodes[name];
    if (a->kind != STRING || b->kind != STRING) return pickle_broken("a global without a name");
    TRY(pickle_global(m, (const char *)m->data + a->at, a->n_bytes, (const char *)m->data + b->at,
                      b->n_bytes));
out:
    return e;
}

static err_t remember(struct machine *m, uint64_t at)
{
    err_t e = OK;
    if (at >= PICKLE_NODES_MAX) return pickle_broken("its memo is too large");
    if (m->n_stack == 0 || m->stack[m->n_stack - 1] == PICKLE_MARK)
        return pickle_broken("its stack is empty");
    TRY(room((void **)&m->memo, &m->cap_memo, at, sizeof *m->memo));
    while (m->n_memo <= at) m->memo[m->n_memo++] = -1;
    m->memo[at] = m->stack[m->n_stack - 1];
out:
    return e;
}

static err_t recall(struct machine *m, size_t n_number)
{
    err_t e = OK;
    uint64_t at = 0;
    TRY(take_uint(m, n_number, &at));
    if (at >= m->n_memo || m->memo[at] < 0) return pickle_broken("its memo has no such entry");
    TRY(pickle_push(m, m->memo[at]));
out:
    return e;
}

/* The newest n values, or with n < 0 all since the mark, as a tuple. */
static err_t op_tuple(struct machine *m, int32_t n)
{
    err_t e = OK;
    size_t from = 0;
    if (n < 0) TRY(find_mark(m, &from));
    else from = m->n_stack - (size_t)n;
    const size_t begin = n < 0 ? from + 1 : from, end = m->n_stack;
    if (n > 0 && (size_t)n > m->n_stack) return pickle_broken("its stack is empty");
    for (size_t i = begin; i < end; i++)
        if (m->stack[i] == PICKLE_MARK) return pickle_broken("its stack is empty");
    TRY(pickle_push_new(m, (struct node){.kind = TUPLE}));
    const int32_t tuple = m->stack[m->n_stack - 1];
    for (size_t i = begin; i < end; i++) TRY(pickle_append(m, tuple, m->stack[i]));
    m->stack[from] = tuple;
    m->n_stack = from + 1;
out:
    return e;
}

/* Into the container below them: the newest n values, or with n < 0 all since the mark. */
static err_t op_append(struct machine *m, int32_t n, enum kind kind)
{
    err_t e = OK;
    size_t from = 0;
    int32_t to = 0;
    if (n < 0) TRY(find_mark(m, &from));
    else if ((size_t)n <= m->n_stack) from = m->n_stack - (size_t)n;
    const size_t begin = n < 0 ? from + 1 : from, end = m->n_stack;
    if (kind == DICT && (end - begin) % 2 != 0) return pickle_broken("a key without a value");
    for (size_t i = begin; i < end; i++)
        if (m->stack[i] == PICKLE_MARK) return pickle_broken("its stack is empty");
    m->n_stack = from;
    TRY(top(m, kind, &to));
    for (size_t i = begin; i < end; i++) TRY(pickle_append(m, to, m->stack[i]));
out:
    return e;
}

/* Attributes of an object: the hooks and metadata of a state_dict. We keep none. */
static err_t op_build(struct machine *m)
{
    err_t e = OK;
    int32_t state = 0, object = 0;
    TRY(pickle_pop(m, &state));
    TRY(pickle_pop(m, &object));
    TRY(pickle_push(m, object));
out:
    return e;
}

static err_t op_pop(struct machine *m, bool to_mark)
{
    size_t at = m->n_stack - 1;
    if (m->n_stack == 0) return pickle_broken("its stack is empty");
    if (to_mark) {
        const err_t e = find_mark(m, &at);
        if (e != OK) return e;
    }
    m->n_stack = at;
    return OK;
}

/* Opcodes that only make a value. */
static err_t op_value(struct machine *m, uint8_t op, bool *is_known)
{
    err_t e = OK;
    uint64_t v = 0;
    const uint8_t *p = NULL;
    *is_known = true;
    switch (op) {
    case 'N':
    case 0x88: /* NEWTRUE */
    case 0x89: /* NEWFALSE */
        return pickle_push_new(m, (struct node){.kind = OTHER});
    case 'J': /* BININT */
        TRY(take_uint(m, 4, &v));
        return push_int(m, (int32_t)(uint32_t)v);
    case 'K': /* BININT1 */
    case 'M': /* BININT2 */
        TRY(take_uint(m, op == 'K' ? 1 : 2, &v));
        return push_int(m, (int64_t)v);
    case 0x8A: /* LONG1 */
        return push_long(m);
    case 'G': /* BINFLOAT */
        TRY(take(m, 8, &p));
        return pickle_push_new(m, (struct node){.kind = OTHER});
    case 'X': /* BINUNICODE */
        return push_text(m, 4, STRING);
    case 0x8C: /* SHORT_BINUNICODE */
    case 'U':  /* SHORT_BINSTRING */
        return push_text(m, 1, STRING);
    case 'C': /* SHORT_BINBYTES */
        return push_text(m, 1, OTHER);
    case 'B': /* BINBYTES */
        return push_text(m, 4, OTHER);
    case ']':
        return pickle_push_new(m, (struct node){.kind = LIST});
    case '}':
        return pickle_push_new(m, (struct node){.kind = DICT});
    case 0x8F: /* EMPTY_SET */
        return pickle_push_new(m, (struct node){.kind = LIST});
    default:
        *is_known = false;
    }
out:
    return e;
}

static err_t op_other(struct machine *m, uint8_t op)
{
    err_t e = OK;
    uint64_t v = 0;
    const uint8_t *p = NULL;
    switch (op) {
    case 0x80: /* PROTO */
        return take(m, 1, &p);
    case 0x95: /* FRAME */
        return take(m, 8, &p);
    case '.':
        m->is_done = true;
        return OK;
    case '(':
        return pickle_push(m, PICKLE_MARK);
    case '0':
    case '1': /* POP_MARK */
        return op_pop(m, op == '1');
    case ')':
        return op_tuple(m, 0);
    case 't':
        return op_tuple(m, -1);
    case 0x85: /* TUPLE1 */
    case 0x86:
    case 0x87:
        return op_tuple(m, op - 0x84);
    case 'a':
        return op_append(m, 1, LIST);
    case 'e':
    case 0x90: /* ADDITEMS */
        return op_append(m, -1, LIST);
    case 's':
        return op_append(m, 2, DICT);
    case 'u':
        return op_append(m, -1, DICT);
    case 'c':
        return op_global(m);
    case 0x93:
        return op_stack_global(m);
    case 'R':
        return pickle_reduce(m);
    case 'b':
        return op_build(m);
    case 'Q': /* BINPERSID */
        return pickle_storage(m);
    case 'q': /* BINPUT */
    case 'r': /* LONG_BINPUT */
        TRY(take_uint(m, op == 'q' ? 1 : 4, &v));
        return remember(m, v);
    case 0x94: /* MEMOIZE */
        return remember(m, m->n_memo);
    case 'h':
    case 'j': /* LONG_BINGET */
        return recall(m, op == 'h' ? 1 : 4);
    default:
        e = FAIL(ERR_DATA, "its pickle has opcode 0x%02x, which is not among what is read", op);
    }
out:
    return e;
}

static void close_machine(struct machine *m)
{
    free(m->nodes);
    free(m->links);
    free(m->stack);
    free(m->memo);
}

err_t pickle_scan(struct checkpoint *c, const struct ckpt_file *f, const uint8_t *data,
                  size_t n_bytes, const struct pickle_storages *storages)
{
    err_t e = OK;
    struct machine m = {.c = c, .f = f, .storages = storages, .data = data, .n_bytes = n_bytes};
    while (!m.is_done) {
        const uint8_t *op = NULL;
        bool is_known = false;
        TRY(take(&m, 1, &op));
        TRY(op_value(&m, *op, &is_known));
        if (!is_known) TRY(op_other(&m, *op));
    }
    if (m.n_stack != 1 || m.stack[0] == PICKLE_MARK) {
        e = pickle_broken("it does not end with one value");
        goto out;
    }
    TRY(pickle_collect(&m, m.stack[0]));
out:
    close_machine(&m);
    return e;
}
