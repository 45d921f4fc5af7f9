/* parts.c - see parts.h. */
#include "bench/parts.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool is(const char *op, const char *name)
{
    return strcmp(op, name) == 0;
}

static bool is_norm(const char *op)
{
    return is(op, "rms_norm") || is(op, "layer_norm") || is(op, "norm_modulate") ||
           is(op, "l2_norm");
}

static const char modulated[] = "modulated"; /* attention, feed-forward or the head follows */

/* The patches: patchify, linear, norm_modulate. A layer's order: linear (q, k, v in one),
 * qkv_rope_cache, rope_sink, attention, linear_add_norm; linear, rms_norm, attention,
 * linear_add_norm; linear_gelu, linear_add_norm. The head: linear, unpatchify. */
const char *parts_of_dit(struct parts *p, const char *op, const struct tensor *t)
{
    if (is(op, "linear_add_norm")) {
        const char *const ended = p->section ? p->section : "other";
        p->section = is(ended, "self_attention") ? "cross_attention" : modulated;
        return ended;
    }
    if (is(op, "norm_modulate")) p->section = modulated;
    if (is_norm(op)) return "norms";
    if (is(op, "qkv_rope_cache") || is(op, "rope_sink")) return "kv";
    if (is(op, "linear_gelu")) p->section = "ffn";
    if (is(op, "patchify") || is(op, "unpatchify")) p->section = "other";
    if (is(op, "linear") && p->section == modulated)
        p->section = t[0].shape[1] == 3 * t[1].shape[1] ? "self_attention" : "other";
    const bool is_in_layer = is(op, "linear") || is(op, "linear_gelu") || is(op, "attention");
    return is_in_layer && p->section ? p->section : "other";
}

/* rms_norm, three linears, attention_t5, linear_add; rms_norm, two linears, gelu_mul, linear_add:
 * an attention begins with every other norm. */
const char *parts_of_text(struct parts *p, const char *op, const struct tensor *t)
{
    (void)t;
    if (is(op, "rms_norm")) {
        p->section = p->section && is(p->section, "attention") ? "ffn" : "attention";
        return "norms";
    }
    return is(op, "embed") || !p->section ? "other" : p->section;
}

/* Attention, its projections and convolutions of one tap see a list of positions: those without
 * time, all of one frame, are the middle's, and the others follow a convolution of their size. */
const char *parts_of_vae(struct parts *p, const char *op, const struct tensor *t)
{
    static const char *const names[] = {"1x", "2x", "4x", "8x"};
    if (is(op, "denorm")) p->section = names[0];
    if (is(op, "to_rgb8")) return "rgb";
    for (int i = 0; i < 4 && t[0].rank == 4; i++)
        if (t[0].shape[1] == p->latent_rows << i && t[0].shape[2] == p->latent_cols << i)
            p->section = names[i];
    return p->section ? p->section : "other";
}

double parts_flops(const char *op, const struct tensor *t)
{
    const double n = (double)tensor_count(t[0]);
    if (strncmp(op, "linear", 6) == 0) return 2 * n * t[1].shape[1];
    if (is(op, "attention") || is(op, "attention_t5")) return 4 * n * t[2].shape[0];
    if (strncmp(op, "conv3d", 6) == 0) /* w [O, kt, k, k, C] */
        return 2 * n * t[3].shape[1] * t[3].shape[2] * t[3].shape[3] * t[3].shape[4];
    if (is(op, "upsample_conv")) return 2 * n * 9 * t[2].shape[4];
    return 0;
}

double parts_bytes(const char *op, const struct tensor *t, size_t n)
{
    double sum = 0;
    if (is(op, "embed")) return 2 * (double)tensor_bytes(t[0]);
    if (is(op, "rope_sink")) return 2 * (double)tensor_bytes(t[1]);
    if (is(op, "qkv_rope_cache")) return 6 * (double)tensor_bytes(t[0]); /* qkv; q, k, v */
    for (size_t i = 0; i < n; i++)
        if (t[i].data) sum += (double)tensor_bytes(t[i]);
    return sum;
}

void parts_shape(const char *op, const struct tensor *t, char *out, size_t cap)
{
    int32_t d[TENSOR_RANK_MAX], n = t[0].rank;
    size_t at = 0;
    for (int32_t i = 0; i < n; i++) d[i] = t[0].shape[i];
    if (n == 2 && strncmp(op, "linear", 6) == 0) d[n++] = t[1].shape[1];
    if (n == 3 && strncmp(op, "attention", 9) == 0) {
        d[3] = d[2];
        d[2] = d[1];
        d[1] = t[2].shape[0];
        n = 4;
    }
    out[0] = '\0';
    for (int32_t i = 0; i < n && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%d", i ? "x" : "", d[i]);
    if (at >= cap || n != 4) return;
    const struct tensor *const w = strncmp(op, "conv3d", 6) == 0 ? &t[3]
                                   : is(op, "upsample_conv")     ? &t[2]
                                                                 : NULL;
    if (w && w->shape[1] > 1)
        snprintf(out + at, cap - at, "x%d k%dx%d", w->shape[4], w->shape[1], w->shape[2]);
    else if (w) snprintf(out + at, cap - at, "x%d k%d", w->shape[4], w->shape[2]);
}
