/* Imp's checkpoints under all their published names: what is read alike, and what is refused; and what the command line
 * changes. */
#include "convert_fixture.h"

#include "format.h"
#include "golden.h"
#include "json_file.h"
#include "tiny.h"

/* ---- Names and slices ------------------------------------------------------------------- */

/* One tensor of several, one above the other; the parts are forgotten. */
static void fuse(struct tensors *tensors, const char *fused, const char *const *parts, size_t n)
{
    struct built_tensor whole = *find_tensor(tensors, parts[0]);
    const size_t columns = columns_of(&whole);
    size_t rows = 0;
    float *values = NULL;
    for (size_t i = 0; i < n; i++) {
        struct built_tensor *part = find_tensor(tensors, parts[i]);
        const size_t more = rows_of(part) * columns;
        values = realloc(values, (rows * columns + more) * sizeof *values);
        assert_non_null(values);
        memcpy(values + rows * columns, part->data, more * sizeof *values);
        rows += rows_of(part);
        free((void *)(uintptr_t)part->name);
        free((void *)(uintptr_t)part->data);
        *part = tensors->items[--tensors->n];
    }
    whole.name = strdup(fused);
    whole.shape[0] = (int64_t)rows;
    whole.data = values;
    tensors->items[tensors->n++] = whole;
}

static void rename_tensor(struct built_tensor *t, const char *part, const char *by)
{
    const char *at = strstr(t->name, part);
    char *name;
    if (!at)
        return;
    assert_true(asprintf(&name, "%.*s%s%s", (int)(at - t->name), t->name, by, at + strlen(part)) >
                0);
    free((void *)(uintptr_t)t->name);
    t->name = name;
}

/* The first releases of Imp: other names, q, k and v in one tensor. */
static void use_old_names(struct tensors *tensors)
{
    static const char *const names[][2] = {{"lm_head.", "lm_head.linear."},
                                           {"model.final_layernorm", "lm_head.ln"},
                                           {"model.embed_tokens", "transformer.embd.wte"},
                                           {".input_layernorm", ".ln"},
                                           {".self_attn.dense", ".mixer.out_proj"},
                                           {"model.layers.", "transformer.h."},
                                           {"model.vision_tower", "transformer.vision_tower"},
                                           {"model.mm_projector", "transformer.mm_projector"}};
    for (int layer = 0; layer < 2; layer++)
        for (int bias = 0; bias < 2; bias++) {
            static const char *const kinds[] = {"q", "k", "v"};
            char parts[3][80], fused[80];
            const char *pointers[3];
            for (int i = 0; i < 3; i++) {
                snprintf(parts[i], sizeof parts[i], "model.layers.%d.self_attn.%s_proj.%s", layer,
                         kinds[i], bias ? "bias" : "weight");
                pointers[i] = parts[i];
            }
            snprintf(fused, sizeof fused, "transformer.h.%d.mixer.Wqkv.%s", layer,
                     bias ? "bias" : "weight");
            fuse(tensors, fused, pointers, 3);
        }
    for (size_t i = 0; i < tensors->n; i++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (!strstr(tensors->items[i].name, "vision_model") || k == 6)
                rename_tensor(&tensors->items[i], names[k][0], names[k][1]);
}

/* Whatever a checkpoint calls its tensors and fields, the same file comes out. */
static void old_names_make_the_same_file(void **state)
{
    static const char *const fields[][2] = {{"hidden_size", "n_embd"},
                                            {"intermediate_size", "n_inner"},
                                            {"num_hidden_layers", "n_layer"},
                                            {"num_attention_heads", "n_head"},
                                            {"max_position_embeddings", "n_positions"},
                                            {"layer_norm_eps", "layer_norm_epsilon"}};
    struct tensors tensors;
    char first[700], path[700];
    (void)state;
    copy_checkpoint("imp-phi2");
    load_tensors(&tensors);
    remove_shards();
    save_tensors(&tensors);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    snprintf(first, sizeof first, "%s/first.bin", root);
    assert_int_equal(rename(model, first), 0);

    load_tensors(&tensors);
    use_old_names(&tensors);
    save_tensors(&tensors);
    snprintf(path, sizeof path, "%s/config.json", checkpoint);
    json_t *json = json_load_file(path, 0, NULL);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        json_object_set(json, fields[i][1], json_object_get(json, fields[i][0]));
        json_object_del(json, fields[i][0]);
    }
    json_object_set_new(json, "rotary_dim", json_integer(8));
    json_object_del(json, "partial_rotary_factor");
    json_object_del(json, "num_key_value_heads");
    assert_int_equal(json_dump_file(json, path, 0), 0);
    json_decref(json);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    expect_same_files(first, model);
}

static void expect_fields(const char *name, const char *const (*rows)[3], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        copy_checkpoint(name);
        set_field("config.json", rows[i][0], rows[i][1]);
        expect_refused(rows[i][2]);
    }
}

static void refuses_what_its_graph_cannot(void **state)
{
    static const char *const phi2[][3] = {
        {"partial_rotary_factor", "0.25", "rotates 5 of a head's 20"},
        {"partial_rotary_factor", "0", "partial_rotary_factor"},
        {"qk_layernorm", "true", "qk_layernorm"},
        {"rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2.0}", "\"dynamic\""},
        {"vocab_size", "440", "\"vocab_size\" 440"},
        {"num_experts", "8", "a mixture of experts (\"num_experts\")"},
        {"num_experts", "\"8\"", "a mixture of experts (\"num_experts\")"},
        {"n_embd", "9223372036854775807", "n_embd"},
        {"rope_parameters", "{\"rope_type\": \"default\", \"partial_rotary_factor\": 0.25}",
         "rotates 5"},
        {"conv_mode", "\"chatml\"", "\"chatml\""},
        {"mm_vision_tower", "\"facebook/dinov2\"", "\"facebook/dinov2\""},
    };
    static const char *const phi3[][3] = {
        {"rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1.0]}", "\"longrope\""},
        {"rope_scaling", "{\"type\": \"su\", \"long_factor\": [1.0]}", "\"su\""},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"sliding_window", "-3", "sliding_window"},
        {"num_local_experts", "16", "a mixture of experts (\"num_local_experts\")"},
        {"num_key_value_heads", "1", "qkv_proj"},
        {"attention_bias", "true", "attention_bias"},
    };
    (void)state;
    expect_fields("imp-phi2", phi2, sizeof phi2 / sizeof *phi2);
    expect_fields("imp-phi3", phi3, sizeof phi3 / sizeof *phi3);
    copy_checkpoint("imp-phi3");
    expect_failure(convert_with(WORDS("--rope-scale", "4")), 2, "a window of 2047", 0);
    /* attention looks back no further than that */
    assert_true(recorded("decoder.context", WORDS("--type", "f32", "-q", "--force")) == 2047);
    set_field("config.json", "sliding_window", "100000"); /* and no window that they do not fill */
    set_field("config.json", "num_local_experts", "0");
    assert_true(recorded("decoder.context", WORDS("--type", "f32", "-q", "--force")) == 4096);
}

/* ---- Options ---------------------------------------------------------------------------- */

static void positions_are_scaled(void **state)
{
    (void)state;
    copy_checkpoint("v1");
    const char *const *words = WORDS("--type", "f32", "-q", "--force", "--rope-scale", "4");
    assert_true(recorded("decoder.rope_scale", words) == 4);
    assert_true(recorded("decoder.context", words) == 8192);
    copy_checkpoint("linear-last-layer"); /* by 2 already, for 4096 positions */
    assert_true(recorded("decoder.context", words) == 8192);
    expect_failure(convert_with(WORDS("--rope-scale", "0.5", "--force")), 2, "rope-scale", 1);
}

/* 8192 positions, read into a cache of eight bits; and not one more. */
static void long_contexts_are_read(void **state)
{
    enum { N = 8192 };
    static int32_t ids[N + 1];
    mvlm_model *opened;
    mvlm_session *session;
    mvlm_memory plan;
    mvlm_error error = {0};
    const mvlm_session_options options = {.n_threads = 2};
    (void)state;
    copy_checkpoint("v1");
    expect_good(convert_with(WORDS("--type", "q8", "-q", "--rope-scale", "4")), "");
    assert_int_equal(mvlm_model_open(model, NULL, &opened, &error), MVLM_OK);
    assert_int_equal(mvlm_session_plan(opened, &options, N, 0, 1, &plan, &error), MVLM_OK);
    /* 2 layers of 4 heads of 16 values, padded to 32, for keys and values; a scale for each */
    assert_true(plan.kv_cache >= (uint64_t)N * 2 * 4 * 2 * (32 + 4));
    for (int i = 0; i < N + 1; i++)
        ids[i] = 3 + i * 7 % 400;
    assert_int_equal(mvlm_session_open(opened, &options, &session, &error), MVLM_OK);
    assert_int_equal(mvlm_read(session, 0, ids, N, &error), MVLM_OK);
    assert_int_equal(mvlm_read(session, N, ids, 1, &error), MVLM_USAGE);
    assert_int_equal(mvlm_read(session, 0, ids, N + 1, &error), MVLM_USAGE);
    mvlm_session_close(session);
    mvlm_model_close(opened);
}

static void attention_is_chosen(void **state)
{
    (void)state;
    copy_checkpoint("v1");
    assert_true(recorded("decoder.composite_attention",
                         WORDS("--type", "f32", "-q", "--attention", "composite")) == 1);
    assert_true(recorded("decoder.composite_attention",
                         WORDS("--type", "f32", "-q", "--force", "--attention", "full")) == -1);
    copy_checkpoint("text");
    expect_failure(convert_with(WORDS("--attention", "composite", "--force")), 2, "no pictures", 1);
}

/* A reader that does not know the variants must not take such a file for a plain one. */
static void variants_need_their_feature(void **state)
{
    size_t n;
    mvlm_model *opened;
    mvlm_error error = {0};
    (void)state;
    copy_checkpoint("composite");
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    uint8_t *bytes = (uint8_t *)file_load(model, &n);
    struct format_header header;
    memcpy(&header, bytes, sizeof header);
    assert_true(header.required_features == FORMAT_VARIANTS);
    header.required_features = 0;
    memcpy(bytes, &header, sizeof header);
    tiny_reseal(bytes);
    file_save(model, bytes, n);
    assert_int_equal(mvlm_model_open(model, NULL, &opened, &error), MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "variants"));
    free(bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)
    const struct CMUnitTest tests[] = {
        TEST(old_names_make_the_same_file), TEST(refuses_what_its_graph_cannot),
        TEST(positions_are_scaled),         TEST(long_contexts_are_read),
        TEST(attention_is_chosen),          TEST(variants_need_their_feature),
    };
    return cmocka_run_group_tests_name("family", tests, NULL, NULL);
}
