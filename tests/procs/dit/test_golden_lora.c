/* test_golden_lora.c - an adapter merged into the weights, against LongLive with the adapter beside
 * them: rank 4, alpha 6, on every linear layer of every block. */
#include "tests/procs/dit/golden_dit.h"

#include "common/lora.h"
#include "procs/weights_impl.h" /* to find a weight by its name */

/* Rows of a weight, as they lie on the device, with what the adapter adds. */
static void merge(struct golden_dit *r, struct lora *lora, const struct part *p)
{
    const struct tensor rows = tensor_rows(*p->at, p->first, p->n);
    char name[CKPT_NAME_MAX + 1];
    struct ckpt_tensor t = {.name = name, .dtype = CKPT_F32, .rank = rows.rank};
    snprintf(name, sizeof name, "%s", p->name);
    for (int32_t i = 0; i < rows.rank; i++) t.shape[i] = rows.shape[i];
    float *w = malloc(tensor_bytes(rows));
    assert_non_null(w);
    assert_ok(dev_download(r->b.d, w, rows.data, tensor_bytes(rows)));
    assert_ok(dev_sync(r->b.d));
    assert_ok(lora_check(lora, &t));
    assert_ok(lora_add(lora, &t, 0, rows.shape[0], w));
    assert_ok(dev_upload(r->b.d, rows.data, w, tensor_bytes(rows)));
    free(w);
}

static double flow_error(struct golden_dit *r, const char *name)
{
    const int64_t n = BLOCK * r->values;
    const float *x = golden_floats(&r->g, "x", n);
    return golden_distance(golden_dit_flow(r, x, 0, 0), golden_doubles(&r->g, name, n), n);
}

static void test_merged(void **state)
{
    struct golden_dit r;
    struct lora *lora = NULL;
    int64_t one;
    int32_t n_merged = 0;
    (void)state;
    golden_dit_open(&r, "lora-nano", "nano", false, (const char *[]){GOLDEN_CLEAN}, 1);
    const float *embeds = golden_floats(&r.g, "embeds", tensor_count(r.kv.embed[0]));
    const int32_t n = *golden_ints(&r.g, "n", &one);
    const float alpha = *golden_floats(&r.g, "alpha", 1);
    golden_dit_prompt(&r, embeds, n);
    assert_true(flow_error(&r, "flow_without") <= 1e-5);
    assert_true(flow_error(&r, "flow") > 1e-2); /* the adapter is not a trifle */

    assert_ok(lora_open(&lora, "tests/golden/lora-adapter.safetensors", (int32_t)alpha));
    for (int32_t i = 0; i < r.b.w->n_parts; i++)
        for (int32_t k = 0; k < lora_count(lora); k++)
            if (strcmp(lora_target(lora, k), r.b.w->parts[i].name) == 0) {
                merge(&r, lora, &r.b.w->parts[i]);
                n_merged++;
            }
    assert_int_equal(n_merged, 10 * r.b.c.dit.layers);
    golden_dit_prompt(&r, embeds, n); /* its keys and values are of other weights now */
    const double far = flow_error(&r, "flow");
    print_message("lora: relative error %.2g\n", far);
    assert_true(far <= 1e-5);
    lora_close(&lora);
    golden_dit_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_merged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
