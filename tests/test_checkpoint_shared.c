/* The checkpoints of the golden cases: counts and values as torch and safetensors give them. */
#include "../tools/convert/checkpoint.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint_builder.h"

#ifndef SHARED_DIR
#define SHARED_DIR "/nonexistent"
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void test_counts(void **state)
{
    static const struct {
        const char *folder;
        size_t n_tensors, n_elements;
    } cases[] = {
        {"cases/interpolated", 82, 316672},
        {"cases/linear", 78, 306752},
        {"cases/llama-vocabulary", 82, 2220768},
        {"cases/mlp2x-gelu", 80, 310912},
        {"cases/outliers", 123, 1525248},
        {"cases/stories260K", 47, 260032},
        {"cases/text-fp16", 33, 207308},
        {"cases/two-images-two-turns", 100, 325024},
        {"cases/v1", 125, 612880},
        {"cases/v1-ragged", 100, 174656},
        {"cases/v2", 107, 656032},
        {"cases/v2-grid-16", 82, 321792},
        {"cases/v2-head-80", 82, 997216},
        {"family/cases/composite-attention", 89, 358144},
        {"family/cases/imp-phi2", 88, 390948},
        {"family/cases/imp-phi2-old-names", 64, 347756},
        {"family/cases/imp-phi2-vocabulary", 42, 1719488},
        {"family/cases/imp-phi3", 70, 443268},
        {"family/cases/imp-qwen", 82, 358692},
        {"family/cases/imp-qwen-vocabulary", 38, 2459248},
        {"family/cases/lora", 82, 311552},
    };
    (void)state;
    if (access(SHARED_DIR "/reference/cases", F_OK) != 0)
        skip();
    for (size_t i = 0; i < COUNT(cases); i++) {
        char path[512];
        snprintf(path, sizeof path, SHARED_DIR "/reference/%s/checkpoint", cases[i].folder);
        struct checkpoint *const checkpoint = open_folder(path);
        size_t n_elements = 0;
        for (size_t t = 0; t < checkpoint_count(checkpoint); t++) {
            const struct source_tensor *const tensor = checkpoint_tensor(checkpoint, t);
            size_t n = 1;
            for (int d = 0; d < tensor->n_dims; d++)
                n *= (size_t)tensor->shape[d];
            n_elements += n;
        }
        assert_int_equal(checkpoint_count(checkpoint), cases[i].n_tensors);
        assert_int_equal(n_elements, cases[i].n_elements);
        checkpoint_close(checkpoint);
    }
}

static void test_values(void **state)
{
    static const struct {
        const char *folder, *name;
        enum dtype dtype;
        int64_t rows, columns;
        double row1[3], last, sum;
    } cases[] = {
        {"text-fp16",
         "lm_head.weight",
         DTYPE_F16,
         512,
         64,
         {0x1.6ep-2, 0x1.878p-5, 0x1.0fp-2},
         -0x1.304p-3,
         -0x1.2b022eap+3},
        {"v1",
         "model.embed_tokens.weight",
         DTYPE_BF16,
         512,
         96,
         {0x1.52p-1, 0x1.3p+0, 0x1.a2p-1},
         0x1.aap-1,
         0x1.0bb5e74p+5},
        {"v2-grid-16",
         "model.layers.1.mlp.down_proj.weight",
         DTYPE_F32,
         64,
         176,
         {0x1.616838p-3, -0x1.01a754p-3, -0x1.69b056p-3},
         -0x1.178620p-5,
         0x1.1fbec4bb54ep+1},
        {"stories260K",
         "model.layers.2.self_attn.q_proj.weight",
         DTYPE_F32,
         64,
         64,
         {0x1.3950e6p-4, -0x1.38f6a6p-5, -0x1.a70324p-2},
         0x1.b4b88ap-2,
         0x1.296492b7ddp+2},
        {"v2",
         "model.layers.0.self_attn.k_proj.weight",
         DTYPE_BF16,
         96,
         96,
         {-0x1.0cp-3, 0x1.0ep-3, -0x1.6cp-2},
         -0x1.2ap-3,
         -0x1.0c93c3p+3},
    };
    (void)state;
    if (access(SHARED_DIR "/reference/cases", F_OK) != 0)
        skip();
    for (size_t i = 0; i < COUNT(cases); i++) {
        char path[512];
        snprintf(path, sizeof path, SHARED_DIR "/reference/cases/%s/checkpoint", cases[i].folder);
        struct checkpoint *const checkpoint = open_folder(path);
        const struct source_tensor *const tensor = checkpoint_find(checkpoint, cases[i].name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, cases[i].dtype);
        assert_int_equal(tensor->shape[0], cases[i].rows);
        assert_int_equal(tensor->shape[1], cases[i].columns);
        float *const got = malloc((size_t)(cases[i].rows * cases[i].columns) * sizeof *got);
        assert_non_null(got);
        assert_int_equal(checkpoint_read(checkpoint, tensor, 0, cases[i].rows, got, NULL), MVLM_OK);
        double sum = 0;
        for (int64_t k = 0; k < cases[i].rows * cases[i].columns; k++)
            sum += (double)got[k];
        for (int k = 0; k < 3; k++)
            assert_true((double)got[cases[i].columns + k] == cases[i].row1[k]);
        assert_true((double)got[cases[i].rows * cases[i].columns - 1] == cases[i].last);
        assert_true(fabs(sum - cases[i].sum) < 1e-9); /* another order of adding */
        free(got);
        checkpoint_close(checkpoint);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
