/* cmd_checkpoint.c - inspect and convert: files of weights, without a pipeline. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/safetensors.h"
#include "procs/supervisor/cmd.h"

static void print_table(const struct checkpoint *c)
{
    char shape[CKPT_RANK_MAX * 24];
    int64_t n_values = 0;
    uint64_t n_bytes = 0;
    int widest = 4;
    for (int32_t i = 0; i < checkpoint_count(c); i++) {
        const int n = (int)strlen(checkpoint_at(c, i)->name);
        if (n > widest && n <= 80) widest = n;
    }
    printf("%-*s  %-22s  %-7s  %14s\n", widest, "name", "shape", "dtype", "bytes");
    for (int32_t i = 0; i < checkpoint_count(c); i++) {
        const struct ckpt_tensor *t = checkpoint_at(c, i);
        ckpt_shape_text(t->shape, t->rank, shape, sizeof shape);
        printf("%-*s  %-22s  %-7s  %14llu%s\n", widest, t->name, shape, ckpt_dtype_name(t->dtype),
               (unsigned long long)t->n_bytes, t->is_dense ? "" : "  not contiguous");
        n_values += ckpt_count(t);
        n_bytes += t->n_bytes;
    }
    printf("\n%d tensors, %lld values, %llu bytes\n", checkpoint_count(c), (long long)n_values,
           (unsigned long long)n_bytes);
}

static json_t *tensor_object(const struct ckpt_tensor *t)
{
    json_t *o = json_object(), *shape = json_array();
    for (int32_t i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_object_set_new(o, "name", json_string(t->name));
    json_object_set_new(o, "shape", shape);
    json_object_set_new(o, "dtype", json_string(ckpt_dtype_name(t->dtype)));
    json_object_set_new(o, "bytes", json_integer((json_int_t)t->n_bytes));
    json_object_set_new(o, "contiguous", json_boolean(t->is_dense));
    return o;
}

static void print_json(const struct checkpoint *c)
{
    json_t *root = json_object(), *list = json_array();
    for (int32_t i = 0; i < checkpoint_count(c); i++)
        json_array_append_new(list, tensor_object(checkpoint_at(c, i)));
    json_object_set_new(root, "tensors", list);
    json_dumpf(root, stdout, JSON_COMPACT);
    printf("\n");
    json_decref(root);
}

err_t cmd_inspect(const struct args *a, const char *bin_dir)
{
    err_t e = OK;
    struct checkpoint *c = NULL;
    (void)bin_dir;
    TRY(checkpoint_open(&c, a->word));
    if (a->json) print_json(c);
    else print_table(c);
out:
    checkpoint_close(&c);
    return e;
}

err_t cmd_convert(const struct args *a, const char *bin_dir)
{
    err_t e = OK;
    struct checkpoint *c = NULL;
    struct lora *lora = NULL;
    (void)bin_dir;
    TRY(checkpoint_open(&c, a->word));
    TRY(checkpoint_clean(c));
    if (a->lora) TRY(lora_open(&lora, a->lora, a->lora_alpha > 0 ? (int32_t)a->lora_alpha : 0));
    TRY(safetensors_write(a->word2, c, lora));
    printf("%s: %d tensors\n", a->word2, checkpoint_count(c));
out:
    lora_close(&lora);
    checkpoint_close(&c);
    return e;
}
