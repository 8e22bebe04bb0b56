/* LoRA adapters: merged as by hand, damaged, refused. */
#include "convert_fixture.h"

enum { RANK = 3 };
#define ADAPTED "model.layers.1.mlp.up_proj.weight"
#define PREFIX  "base_model.model."

static float *numbers(size_t n, float scale)
{
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = scale * (float)((i * 37 + 11) % 101 - 50);
    return values;
}

/* The adapter: W += 2 B A of one matrix, and a bias in the place of another; `more` keys of zeros. */
static void make_adapter(struct tensors *base, const char *folder, const char *more)
{
    const struct built_tensor *w = find_tensor(base, ADAPTED),
                              *bias = find_tensor(base, "model.mm_projector.0.bias");
    const size_t rows = rows_of(w), columns = columns_of(w), n = rows_of(bias);
    struct built_tensor pair[3] = {{PREFIX "model.layers.1.mlp.up_proj.lora_A.weight",
                                    DTYPE_F32,
                                    2,
                                    {RANK, (int64_t)columns},
                                    numbers(RANK * columns, 0.001f)},
                                   {PREFIX "model.layers.1.mlp.up_proj.lora_B.weight",
                                    DTYPE_F32,
                                    2,
                                    {(int64_t)rows, RANK},
                                    numbers(rows * RANK, 0.002f)},
                                   {more, DTYPE_F32, 2, {RANK, 4}, numbers(RANK * 4, 0)}};
    float *replaced = numbers(n, 0.1f);
    const struct built_storage storage = {DTYPE_F32, replaced, n};
    const struct built_view view = {
        PREFIX "model.mm_projector.0.bias", 0, 0, 1, {(int64_t)n}, {1}, true};
    mkdir(folder, 0777);
    build_safetensors(folder, "adapter_model.safetensors", pair, more ? 3 : 2);
    build_torch(folder, "non_lora_trainables.bin", &view, 1, &storage, 1, PLAIN_DICT);
    static const char config[] =
        "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"bias\": \"none\"}";
    file_write(folder, "adapter_config.json", config, sizeof config - 1);
    for (size_t i = 0; i < 3; i++)
        free((void *)(uintptr_t)pair[i].data);
    free(replaced);
}

/* W += 2 B A, in the converter's order of sums. */
static void add_product(struct built_tensor *w, const float *a, const float *b)
{
    const size_t rows = rows_of(w), columns = columns_of(w);
    float *values = (float *)(uintptr_t)w->data;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++) {
            float sum = 0;
            for (size_t k = 0; k < RANK; k++)
                sum += b[r * RANK + k] * a[k * columns + i];
            values[r * columns + i] += 2.0f * sum;
        }
}

/* The checkpoint as the adapter makes it. */
static void merge_by_hand(struct tensors *base)
{
    struct built_tensor *w = find_tensor(base, ADAPTED);
    float *a = numbers(RANK * columns_of(w), 0.001f), *b = numbers(rows_of(w) * RANK, 0.002f);
    add_product(w, a, b);
    free(a);
    free(b);
    struct built_tensor *bias = find_tensor(base, "model.mm_projector.0.bias");
    free((void *)(uintptr_t)bias->data);
    bias->data = numbers(rows_of(bias), 0.1f);
}

static void open_base(struct tensors *tensors, char folder[600])
{
    copy_checkpoint("composite");
    load_tensors(tensors);
    remove_shards();
    build_safetensors(checkpoint, "model.safetensors", tensors->items, tensors->n);
    snprintf(folder, 600, "%s/adapter", root);
}

static void forget(struct tensors *tensors)
{
    while (tensors->n)
        forget_last_tensor(tensors);
}

static void adapters_are_merged(void **state)
{
    static const char tower[] =
        PREFIX "model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
               ".lora_A.weight";
    struct tensors tensors;
    char folder[600], merged[700];
    (void)state;
    open_base(&tensors, folder);
    make_adapter(&tensors, folder, tower);
    struct program_result result = convert_with(WORDS("--type", "f32", "--lora", folder));
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.err, "1 tensors of the adapter are of the vision tower"));
    program_free(&result);
    snprintf(merged, sizeof merged, "%s/merged.bin", root);
    assert_int_equal(rename(model, merged), 0);
    merge_by_hand(&tensors);
    save_tensors(&tensors);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    expect_same_files(merged, model);
}

static void expect_adapter_refused(const char *folder, const char *part)
{
    expect_failure(convert_with(WORDS("--type", "f32", "--lora", folder)), 3, part, 0);
}

static void refuses_wrong_adapters(void **state)
{
    static const char *const configs[][2] = {
        {"{}", "peft_type"},
        {"{\"peft_type\": \"IA3\"}", "\"IA3\""},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 6}", "\"r\" is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3}", "lora_alpha"},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 6}", "rank 4 do not fit"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"bias\": \"all\"}", "\"bias\""},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_dora\": true}", "use_dora"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_rslora\": true}",
         "use_rslora"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"init_lora_weights\": \"pissa\"}",
         "\"pissa\""},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"modules_to_save\": "
         "[\"lm_head\"]}",
         "modules_to_save"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"rank_pattern\": {\"a\": 1}}",
         "rank_pattern"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"fan_in_fan_out\": true}",
         "fan_in_fan_out"},
        {"[]", "adapter_config.json"},
    };
    static const char *const strangers[][2] = {
        {PREFIX "model.layers.0.self_attn.q_proj.lora_A.weight", "has no other half"},
        {PREFIX "model.layers.9.self_attn.q_proj.lora_A.weight", "has no place in this model"},
        {PREFIX "model.layers.0.self_attn.q_proj.lora_embedding_A", "has no place in this model"},
        {"q_proj.lora_A.weight", "has no place in this model"},
    };
    struct tensors tensors;
    char folder[600];
    (void)state;
    open_base(&tensors, folder);
    expect_adapter_refused(folder, "adapter_config.json");
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        make_adapter(&tensors, folder, strangers[i][0]);
        expect_adapter_refused(folder, strangers[i][1]);
    }
    make_adapter(&tensors, folder, NULL);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        file_write(folder, "adapter_config.json", configs[i][0], strlen(configs[i][0]));
        expect_adapter_refused(folder, configs[i][1]);
    }
    make_adapter(&tensors, folder, NULL);
    file_write(folder, "non_lora_trainables.bin", "no zip", 6);
    expect_adapter_refused(folder, "non_lora_trainables.bin");
    file_write(folder, "adapter_model.bin", "no zip", 6);
    expect_adapter_refused(folder, "holds both");
    expect_failure(
        run(WORDS(CONVERT_PROGRAM, "--random", "v2-1.7b", "-o", model, "--lora", folder), NULL), 2,
        "random weights have no base", 0);
    forget(&tensors);
}

static void survives_damaged_adapters(void **state)
{
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "non_lora_trainables.bin"};
    struct tensors tensors;
    char folder[600];
    (void)state;
    open_base(&tensors, folder);
    make_adapter(&tensors, folder, NULL);
    forget(&tensors);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect_survival(folder, files[i], WORDS("--type", "f32", "-q", "--lora", folder));
}

/* Of a matrix that holds q, k and v: each gets its rows of B. */
static void adapters_of_fused_matrices(void **state)
{
    static const char fused[] = "model.layers.0.self_attn.qkv_proj.weight";
    static const char config[] = "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6}";
    struct tensors tensors;
    char folder[600], merged[700];
    (void)state;
    copy_checkpoint("imp-phi3");
    load_tensors(&tensors);
    remove_shards();
    build_safetensors(checkpoint, "model.safetensors", tensors.items, tensors.n);
    struct built_tensor *w = find_tensor(&tensors, fused);
    const size_t rows = rows_of(w), columns = columns_of(w);
    float *a = numbers(RANK * columns, 0.001f), *b = numbers(rows * RANK, 0.002f);
    const struct built_tensor pair[] = {{PREFIX "model.layers.0.self_attn.qkv_proj.lora_A.weight",
                                         DTYPE_F32,
                                         2,
                                         {RANK, (int64_t)columns},
                                         a},
                                        {PREFIX "model.layers.0.self_attn.qkv_proj.lora_B.weight",
                                         DTYPE_F32,
                                         2,
                                         {(int64_t)rows, RANK},
                                         b}};
    snprintf(folder, sizeof folder, "%s/adapter", root);
    mkdir(folder, 0777);
    build_safetensors(folder, "adapter_model.safetensors", pair, 2);
    file_write(folder, "adapter_config.json", config, sizeof config - 1);
    expect_good(convert_with(WORDS("--type", "f32", "-q", "--lora", folder)), "");
    snprintf(merged, sizeof merged, "%s/merged.bin", root);
    assert_int_equal(rename(model, merged), 0);
    add_product(w, a, b);
    free(a);
    free(b);
    save_tensors(&tensors);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    expect_same_files(merged, model);
}

static void adapters_need_their_base(void **state)
{
    struct tensors tensors;
    char folder[600];
    (void)state;
    open_base(&tensors, folder);
    make_adapter(&tensors, folder, NULL);
    forget(&tensors);
    copy_checkpoint("v1"); /* 112 wide where composite is 96 */
    expect_adapter_refused(folder, "do not fit 112 x 64");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)
    const struct CMUnitTest tests[] = {
        TEST(adapters_are_merged),       TEST(refuses_wrong_adapters),
        TEST(survives_damaged_adapters), TEST(adapters_of_fused_matrices),
        TEST(adapters_need_their_base),
    };
    return cmocka_run_group_tests_name("lora", tests, NULL, NULL);
}
