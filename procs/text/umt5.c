/* umt5.c - see umt5.h. */
#include "procs/text/umt5.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels/ops.h"

enum { BUCKETS = 32 };
static const float EPS = 1e-6f;

struct umt5_layer {
    struct tensor norm1, norm2; /* [dim] */
    struct tensor q, k, v;      /* [attn, dim] */
    struct tensor o;            /* [dim, attn] */
    struct tensor gate, fc1;    /* [ffn, dim] */
    struct tensor fc2;          /* [dim, ffn] */
    struct tensor bias;         /* [BUCKETS, heads] */
};

struct umt5 {
    struct dev *d;
    enum dtype act; /* of activations and weights; the residual stream is f32 */
    int32_t dim, heads, head_dim, ffn, layers, text_len;
    struct tensor embedding, norm; /* [vocab, dim], [dim] */
    void *scratch;
    struct tensor ids, x, y, h, q, k, v, o, a, g; /* rows: text_len; x, y f32 */
    struct umt5_layer layer[];
};

static err_t declare_layer(struct umt5 *u, struct weights *w, int32_t i)
{
    err_t e = OK;
    struct umt5_layer *l = &u->layer[i];
    const int32_t attn = u->heads * u->head_dim;
    const float in_dim = 1.0f / sqrtf((float)u->dim), in_attn = 1.0f / sqrtf((float)attn);
    const struct {
        struct tensor *at;
        int32_t rows, cols;
        float mean, std;
        const char *key;
        bool is_f32;
    } part[] = {
        {&l->norm1, u->dim, 0, 1.0f, 0.1f, "norm1.weight", true},
        {&l->q, attn, u->dim, 0, in_dim / sqrtf((float)u->head_dim), "attn.q.weight", false},
        {&l->k, attn, u->dim, 0, in_dim, "attn.k.weight", false},
        {&l->v, attn, u->dim, 0, in_dim, "attn.v.weight", false},
        {&l->o, u->dim, attn, 0, in_attn, "attn.o.weight", false},
        {&l->norm2, u->dim, 0, 1.0f, 0.1f, "norm2.weight", true},
        {&l->gate, u->ffn, u->dim, 0, in_dim, "ffn.gate.0.weight", false},
        {&l->fc1, u->ffn, u->dim, 0, in_dim, "ffn.fc1.weight", false},
        {&l->fc2, u->dim, u->ffn, 0, 1.0f / sqrtf((float)u->ffn), "ffn.fc2.weight", false},
        {&l->bias, BUCKETS, u->heads, 0, 0.5f, "pos_embedding.embedding.weight", true},
    };
    for (size_t k = 0; k < sizeof part / sizeof *part; k++) {
        const int32_t shape[2] = {part[k].rows, part[k].cols};
        TRY(weights_room(w, part[k].at, part[k].is_f32 ? DTYPE_F32 : u->act, part[k].cols ? 2 : 1,
                         shape));
        TRY(weights_name(w, part[k].at, 0, part[k].rows, part[k].mean, part[k].std, "blocks.%d.%s",
                         i, part[k].key));
    }
out:
    return e;
}

static err_t declare(struct umt5 *u, struct weights *w, int32_t vocab)
{
    err_t e = OK;
    TRY(weights_room(w, &u->embedding, u->act, 2, (int32_t[]){vocab, u->dim}));
    TRY(weights_name(w, &u->embedding, 0, vocab, 0, 1.0f, "token_embedding.weight"));
    for (int32_t i = 0; i < u->layers; i++) TRY(declare_layer(u, w, i));
    TRY(weights_room(w, &u->norm, DTYPE_F32, 1, &u->dim));
    TRY(weights_name(w, &u->norm, 0, u->dim, 1.0f, 0.1f, "norm.weight"));
out:
    return e;
}

static err_t open_scratch(struct umt5 *u)
{
    err_t e = OK;
    const int32_t S = u->text_len, attn = u->heads * u->head_dim;
    const struct {
        struct tensor *at;
        enum dtype type;
        int32_t cols;
    } part[] = {{&u->ids, DTYPE_I32, 1}, {&u->x, DTYPE_F32, u->dim}, {&u->y, DTYPE_F32, u->dim},
                {&u->h, u->act, u->dim}, {&u->q, u->act, attn},      {&u->k, u->act, attn},
                {&u->v, u->act, attn},   {&u->o, u->act, attn},      {&u->a, u->act, u->ffn},
                {&u->g, u->act, u->ffn}};
    size_t n_bytes = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].at = TENSOR(NULL, part[i].type, S, part[i].cols);
        n_bytes += (tensor_bytes(*part[i].at) + 255) / 256 * 256;
    }
    TRY(dev_alloc(u->d, n_bytes, &u->scratch));
    char *p = u->scratch;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        part[i].at->data = p;
        p += (tensor_bytes(*part[i].at) + 255) / 256 * 256;
    }
    u->ids = RESHAPE(u->ids, S);
out:
    return e;
}

err_t umt5_open(struct umt5 **out, struct dev *d, const struct conf *c, struct weights *w)
{
    err_t e = OK;
    struct umt5 *u = calloc(1, sizeof *u + (size_t)c->text.layers * sizeof(struct umt5_layer));
    if (!u) return FAIL(ERR_NOMEM, "umt5");
    u->d = d;
    u->act = weights_half(c, d, DTYPE_BF16);
    u->dim = c->text.dim;
    u->heads = c->text.heads;
    u->head_dim = c->text.head_dim;
    u->ffn = c->text.ffn_dim;
    u->layers = c->text.layers;
    u->text_len = c->text.text_len;
    TRY(declare(u, w, c->text.vocab));
    TRY(open_scratch(u));
    *out = u;
    u = NULL;
out:
    umt5_close(&u);
    return e;
}

void umt5_close(struct umt5 **u)
{
    if (!*u) return;
    dev_free((*u)->d, &(*u)->scratch);
    free(*u);
    *u = NULL;
}

/* x += Attn(rms(x)); x += FFN(rms(x)) on the first n rows. */
static err_t run_layer(struct umt5 *u, const struct umt5_layer *l, int32_t n)
{
    err_t e = OK;
    struct dev *d = u->d;
    const struct tensor x = tensor_rows(u->x, 0, n), h = tensor_rows(u->h, 0, n);
    const struct tensor q = tensor_rows(u->q, 0, n), k = tensor_rows(u->k, 0, n);
    const struct tensor v = tensor_rows(u->v, 0, n), o = tensor_rows(u->o, 0, n);
    const struct tensor a = tensor_rows(u->a, 0, n), g = tensor_rows(u->g, 0, n);

    TRY(ops_rms_norm(d, h, x, l->norm1, EPS));
    TRY(ops_linear(d, q, h, l->q, TENSOR_NONE));
    TRY(ops_linear(d, k, h, l->k, TENSOR_NONE));
    TRY(ops_linear(d, v, h, l->v, TENSOR_NONE));
    TRY(ops_attention_t5(d, RESHAPE(o, n, u->heads, u->head_dim),
                         RESHAPE(q, n, u->heads, u->head_dim), RESHAPE(k, n, u->heads, u->head_dim),
                         RESHAPE(v, n, u->heads, u->head_dim), l->bias));
    TRY(ops_linear_add(d, x, o, l->o, TENSOR_NONE, TENSOR_NONE));

    TRY(ops_rms_norm(d, h, x, l->norm2, EPS));
    TRY(ops_linear(d, a, h, l->fc1, TENSOR_NONE));
    TRY(ops_linear(d, g, h, l->gate, TENSOR_NONE));
    TRY(ops_gelu_mul(d, a, a, g));
    TRY(ops_linear_add(d, x, a, l->fc2, TENSOR_NONE, TENSOR_NONE));
out:
    return e;
}

err_t umt5_encode(struct umt5 *u, const int32_t *ids, int32_t n, float *out,
                  void (*beat)(void *self), void *self)
{
    err_t e = OK;
    MUST(n >= 1 && n <= u->text_len);
    const struct tensor x = tensor_rows(u->x, 0, n), y = tensor_rows(u->y, 0, n);
    TRY(dev_upload(u->d, u->ids.data, ids, (size_t)n * sizeof *ids));
    TRY(ops_embed(u->d, x, u->embedding, tensor_rows(u->ids, 0, n)));
    for (int32_t i = 0; i < u->layers; i++) {
        if (beat) beat(self);
        TRY(run_layer(u, &u->layer[i], n));
    }
    TRY(ops_rms_norm(u->d, y, x, u->norm, EPS));
    TRY(dev_download(u->d, out, y.data, tensor_bytes(y)));
    TRY(dev_sync(u->d));
out:
    return e;
}
