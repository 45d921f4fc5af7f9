/* pickle_impl.h - the pickle machine's values, shared by its opcodes (pickle.c) and by what torch's
 * names do (pickle_torch.c).
 *
 * Nodes refer to each other by index, so a cycle or a bomb of references costs a bounded walk and
 * nothing else; an opcode makes at most one node and a call at most one.
 */
#ifndef COMMON_PICKLE_IMPL_H
#define COMMON_PICKLE_IMPL_H

#include "common/checkpoint_impl.h"

enum { PICKLE_NODES_MAX = 2 << 20, PICKLE_MARK = -1 };

/* OTHER: a value that we do not look into. */
enum kind { OTHER, INT, STRING, TUPLE, LIST, DICT, GLOBAL, STORAGE, TENSOR };

struct node {
    enum kind kind;
    int32_t n, first, last; /* TUPLE, LIST, DICT (keys and values by turns): links; -1 none */
    enum ckpt_dtype dtype;  /* STORAGE, TENSOR */
    bool is_bytes;          /* STORAGE: of no dtype */
    int32_t storage, shape, stride; /* TENSOR: nodes */
    int64_t value;        /* INT; GLOBAL: which; TENSOR: its first element in the storage */
    uint64_t at, n_bytes; /* STRING: in the pickle; STORAGE: in the file */
};

struct link {
    int32_t node, next;
};

struct machine {
    struct checkpoint *c;
    const struct ckpt_file *f;
    const struct pickle_storages *storages;
    const uint8_t *data;
    size_t n_bytes, at;
    struct node *nodes;
    struct link *links;
    int32_t *stack, *memo; /* nodes; the stack has marks, the memo -1 where it has none */
    size_t n_nodes, n_links, n_stack, n_memo;
    size_t cap_nodes, cap_links, cap_stack, cap_memo;
    int64_t n_visits;
    bool is_done;
};

MUST_USE err_t pickle_broken(const char *why);
MUST_USE err_t pickle_push(struct machine *m, int32_t node);
MUST_USE err_t pickle_push_new(struct machine *m, struct node value);
MUST_USE err_t pickle_pop(struct machine *m, int32_t *node);
MUST_USE err_t pickle_append(struct machine *m, int32_t to, int32_t node);
/* The up to n_max first items of a tuple or list; how many. */
int32_t pickle_items(const struct machine *m, int32_t node, int32_t *out, int32_t n_max);

/* A name that is not in the list ends the reading. */
MUST_USE err_t pickle_global(struct machine *m, const char *module, size_t n_module,
                             const char *name, size_t n_name);
MUST_USE err_t pickle_reduce(struct machine *m);  /* function, arguments -> result */
MUST_USE err_t pickle_storage(struct machine *m); /* persistent id -> storage */
/* Every tensor under the node into the checkpoint's table. */
MUST_USE err_t pickle_collect(struct machine *m, int32_t root);

#endif
