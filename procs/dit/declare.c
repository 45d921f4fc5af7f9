/* declare.c - the DiT's weights: their shapes, their names in the public checkpoints, and how
 * random ones are drawn. */
#include <math.h>
#include <stdio.h>

#include "procs/dit/dit_impl.h"

/* A linear layer: weight [n_out, n_in] at N(0, 1 / sqrt(n_in)), bias at N(0, 0.05). The weight has
 * the type of the layer's input, the bias that of its output. */
static err_t declare_linear(struct weights *w, struct tensor *weight, enum dtype in,
                            struct tensor *bias, enum dtype out_type, int32_t n_out, int32_t n_in,
                            const char *key)
{
    err_t e = OK;
    TRY(weights_room(w, weight, in, 2, (int32_t[]){n_out, n_in}));
    TRY(weights_name(w, weight, 0, n_out, 0, 1.0f / sqrtf((float)n_in), "%s.weight", key));
    TRY(weights_room(w, bias, out_type, 1, &n_out));
    TRY(weights_name(w, bias, 0, n_out, 0, 0.05f, "%s.bias", key));
out:
    return e;
}

static err_t declare_vector(struct weights *w, struct tensor *at, int32_t rows, int32_t n,
                            float mean, float std, const char *key)
{
    err_t e = OK;
    const int32_t shape[2] = {rows, n};
    TRY(weights_room(w, at, DTYPE_F32, rows > 1 ? 2 : 1, rows > 1 ? shape : shape + 1));
    TRY(weights_name(w, at, 0, rows > 1 ? rows : n, mean, std, "%s", key));
out:
    return e;
}

#define KEY(...) (snprintf(key, sizeof key, __VA_ARGS__), key)

/* q, k and v are one matrix here and three in the checkpoint. */
static err_t declare_qkv(struct dit *m, struct weights *w, int32_t i)
{
    err_t e = OK;
    struct dit_layer *l = &m->layer[i];
    const int32_t C = m->C, three = 3 * C;
    TRY(weights_room(w, &l->qkv_w, m->act, 2, (int32_t[]){three, C}));
    TRY(weights_room(w, &l->qkv_b, m->act, 1, &three));
    for (int32_t part = 0; part < 3; part++) {
        const char name = "qkv"[part];
        TRY(weights_name(w, &l->qkv_w, part * C, C, 0, 1.0f / sqrtf((float)C),
                         "blocks.%d.self_attn.%c.weight", i, name));
        TRY(weights_name(w, &l->qkv_b, part * C, C, 0, 0.05f, "blocks.%d.self_attn.%c.bias", i,
                         name));
    }
out:
    return e;
}

static err_t declare_layer(struct dit *m, struct weights *w, int32_t i)
{
    err_t e = OK;
    char key[64];
    struct dit_layer *l = &m->layer[i];
    const int32_t C = m->C;
    const enum dtype act = m->act;
    TRY(declare_vector(w, &l->modulation, MODS, C, 0, 0.3f, KEY("blocks.%d.modulation", i)));
    TRY(declare_qkv(m, w, i));
    TRY(declare_vector(w, &l->norm_q, 1, C, 1, 0.1f, KEY("blocks.%d.self_attn.norm_q.weight", i)));
    TRY(declare_vector(w, &l->norm_k, 1, C, 1, 0.1f, KEY("blocks.%d.self_attn.norm_k.weight", i)));
    TRY(declare_linear(w, &l->o_w, act, &l->o_b, DTYPE_F32, C, C, KEY("blocks.%d.self_attn.o", i)));
    TRY(declare_vector(w, &l->norm3_w, 1, C, 1, 0.1f, KEY("blocks.%d.norm3.weight", i)));
    TRY(declare_vector(w, &l->norm3_b, 1, C, 0, 0.1f, KEY("blocks.%d.norm3.bias", i)));
    TRY(declare_linear(w, &l->xq_w, act, &l->xq_b, act, C, C, KEY("blocks.%d.cross_attn.q", i)));
    TRY(declare_linear(w, &l->xk_w, act, &l->xk_b, act, C, C, KEY("blocks.%d.cross_attn.k", i)));
    TRY(declare_linear(w, &l->xv_w, act, &l->xv_b, act, C, C, KEY("blocks.%d.cross_attn.v", i)));
    TRY(declare_linear(w, &l->xo_w, act, &l->xo_b, DTYPE_F32, C, C,
                       KEY("blocks.%d.cross_attn.o", i)));
    TRY(declare_vector(w, &l->xnorm_q, 1, C, 1, 0.1f,
                       KEY("blocks.%d.cross_attn.norm_q.weight", i)));
    TRY(declare_vector(w, &l->xnorm_k, 1, C, 1, 0.1f,
                       KEY("blocks.%d.cross_attn.norm_k.weight", i)));
    TRY(declare_linear(w, &l->ffn0_w, act, &l->ffn0_b, act, m->ffn, C, KEY("blocks.%d.ffn.0", i)));
    TRY(declare_linear(w, &l->ffn2_w, act, &l->ffn2_b, DTYPE_F32, C, m->ffn,
                       KEY("blocks.%d.ffn.2", i)));
out:
    return e;
}

/* A convolution of patches onto themselves, which is a linear layer of their values. */
static err_t declare_patch(struct dit *m, struct weights *w)
{
    err_t e = OK;
    const int32_t C = m->C, n_in = m->z * 4;
    TRY(weights_room(w, &m->patch_w, m->act, 2, (int32_t[]){C, n_in}));
    TRY(weights_name(w, &m->patch_w, 0, C, 0, 1.0f / sqrtf((float)n_in), "patch_embedding.weight"));
    weights_as(w, 5, (int32_t[]){C, m->z, 1, 2, 2});
    TRY(declare_vector(w, &m->patch_b, 1, C, 0, 0.05f, "patch_embedding.bias"));
out:
    return e;
}

err_t dit_declare(struct dit *m, struct weights *w)
{
    err_t e = OK;
    const int32_t C = m->C;
    TRY(declare_patch(m, w));
    TRY(declare_linear(w, &m->text0_w, m->act, &m->text0_b, m->act, C, m->text_dim,
                       "text_embedding.0"));
    TRY(declare_linear(w, &m->text2_w, m->act, &m->text2_b, m->act, C, C, "text_embedding.2"));
    TRY(declare_linear(w, &m->time0_w, DTYPE_F32, &m->time0_b, DTYPE_F32, C, m->freq_dim,
                       "time_embedding.0"));
    TRY(declare_linear(w, &m->time2_w, DTYPE_F32, &m->time2_b, DTYPE_F32, C, C,
                       "time_embedding.2"));
    TRY(declare_linear(w, &m->time_proj_w, DTYPE_F32, &m->time_proj_b, DTYPE_F32, MODS * C, C,
                       "time_projection.1"));
    for (int32_t i = 0; i < m->layers; i++) TRY(declare_layer(m, w, i));
    TRY(declare_vector(w, &m->head_mod, 2, C, 0, 0.3f, "head.modulation"));
    TRY(declare_linear(w, &m->head_w, m->act, &m->head_b, DTYPE_F32, m->z * 4, C, "head.head"));
out:
    return e;
}
