/* mobilevlm-convert, where it refuses: whatever is wrong is named on one line, and nothing is left
 * behind. */
#include <math.h>
#include <unistd.h>

#include "convert_fixture.h"
#include "json_file.h"

/* ---- config.json and its neighbours ----------------------------------------------------- */

/* Each field of v1's config.json is wrong in turn; the message names it. */
struct wrong_field {
    const char *key, *value, *part; /* of config.json; of the message */
};

static void expect_fields_refused(const struct wrong_field *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        copy_checkpoint("v1");
        set_field("config.json", rows[i].key, rows[i].value);
        if (strcmp(rows[i].key, "vision_config.num_hidden_layers") ==
            0) /* else -2 of four are the two that are there */
            set_field("config.json", "mm_vision_select_layer", "-1");
        expect_refused(rows[i].part);
    }
}

static void refuses_wrong_decoder_fields(void **state)
{
    static const struct wrong_field rows[] = {
        {"model_type", "\"gpt_neox\"", "\"gpt_neox\""},
        {"model_type", NULL, "model_type"},
        {"model_type", "3", "model_type"},
        {"hidden_act", "\"mish\"", "\"mish\""},
        {"hidden_act", "[]", "hidden_act"},
        {"hidden_size", NULL, "hidden_size"},
        {"hidden_size", "null", "hidden_size"},
        {"hidden_size", "\"64\"", "hidden_size"},
        {"hidden_size", "64.0", "hidden_size"},
        {"hidden_size", "0", "hidden_size"},
        {"hidden_size", "-64", "hidden_size"},
        {"hidden_size", "9223372036854775807", "hidden_size"},
        {"hidden_size", "128", "64"},
        {"intermediate_size", "113", "mlp.gate_proj.weight"},
        {"num_hidden_layers", "3", "model.layers.2."},
        {"num_hidden_layers", "1", "model.layers.1."},
        {"num_hidden_layers", "0", "num_hidden_layers"},
        {"num_attention_heads", "3", "num_attention_heads"},
        {"num_attention_heads", "0", "num_attention_heads"},
        {"num_attention_heads", "true", "num_attention_heads"},
        {"num_attention_heads", "64", "head_dim"},
        {"num_key_value_heads", "3", "heads"},
        {"num_key_value_heads", "8", "heads"},
        {"num_key_value_heads", "2", "k_proj.weight"},
        {"head_dim", "15", "15 of a head's 15"},
        {"head_dim", "32", "q_proj.weight"},
        {"vocab_size", "471", "model.embed_tokens.weight"},
        {"vocab_size", "469", "469"},
        {"vocab_size", "5000000000", "vocab_size"},
        {"max_position_embeddings", "0", "max_position_embeddings"},
        {"rms_norm_eps", "\"1e-6\"", "rms_norm_eps"},
        {"rms_norm_eps", "-1e-6", "norm_eps"},
        {"rms_norm_eps", "7", "norm_eps"},
        {"rope_theta", "0", "rope_theta"},
        {"rope_theta", "-1e4", "rope_theta"},
        {"rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2.0}", "\"dynamic\""},
        {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 2.0}", "\"llama3\""},
        {"rope_scaling", "{\"type\": \"linear\"}", "factor"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": -2}", "factor"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 2000}", "factor"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": \"2\"}", "factor"},
        {"rope_scaling", "{}", "rope_scaling"},
        {"rope_scaling", "2.0", "rope_scaling"},
        {"rope_scaling", "{\"type\": \"linear\", \"rope_type\": \"yarn\", \"factor\": 2}",
         "\"yarn\""},
        {"rope_parameters", "{\"rope_type\": \"llama3\", \"factor\": 2.0}", "\"llama3\""},
        {"rope_parameters", "{\"rope_theta\": -3}", "rope_theta"},
        {"partial_rotary_factor", "0.2", "rotates 3 of a head's 16"},
        {"partial_rotary_factor", "0.01", "rotates 0 of a head's 16"},
        {"partial_rotary_factor", "1.5", "partial_rotary_factor"},
        {"partial_rotary_factor", "-0.5", "partial_rotary_factor"},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"num_local_experts", "8", "mixture of experts"},
        {"num_experts", "true", "mixture of experts"},
        {"qk_layernorm", "true", "qk_layernorm"},
        {"tie_word_embeddings", "1", "tie_word_embeddings"},
        {"attention_bias", "true", "attention_bias"},
        {"mlp_bias", "true", "mlp_bias"},
        {"quantization_config", "{\"bits\": 4}", "quantization_config"},
        {"conv_mode", "\"v9\"", "\"v9\""},
    };
    (void)state;
    expect_fields_refused(rows, sizeof rows / sizeof *rows);
}

static void refuses_wrong_picture_fields(void **state)
{
    static const struct wrong_field rows[] = {
        {"mm_projector_type", "\"resampler\"", "\"resampler\""},
        {"mm_projector_type", "\"mlpx_gelu\"", "\"mlpx_gelu\""},
        {"mm_projector_type", "\"mlp0x_gelu\"", "\"mlp0x_gelu\""},
        {"mm_projector_type", "\"mlp99x_gelu\"", "\"mlp99x_gelu\""},
        {"mm_projector_type", "\"mlp99999999999999999999x_gelu\"", "gelu\""},
        {"mm_projector_type", "\"mlp2x_gelu_and_very_much_more_text_behind_it\"",
         "mm_projector_type"},
        {"mm_projector_type", "\"ldpnetv2\"", "model.mm_projector.mlp.mlp.0.weight"},
        {"mm_projector_type", "3", "mm_projector_type"},
        {"mm_use_im_start_end", "true", "mm_use_im_start_end"},
        {"mm_use_im_start_end", "\"no\"", "mm_use_im_start_end"},
        {"image_aspect_ratio", "\"anyres\"", "\"anyres\""},
        {"mm_vision_select_feature", "\"cls_patch\"", "\"cls_patch\""},
        {"mm_vision_select_layer", "4", "mm_vision_select_layer"},
        {"mm_vision_select_layer", "-5", "mm_vision_select_layer"},
        {"mm_vision_select_layer", "\"-2\"", "mm_vision_select_layer"},
        {"mm_hidden_size", "47", "mm_hidden_size"},
        {"vision_tower_type", "\"eva\"", "\"eva\""},
        {"vision_tower_type", "\"siglip\"", "patch_embedding.bias"},
        {"vision_config", "3", "vision_config"},
        {"vision_config", "{}", "image_size"},
        {"vision_config", "null", "mm_hidden_size"},
        {"vision_config.patch_size", "0", "patch_size"},
        {"vision_config.patch_size", "13", "patch"},
        {"vision_config.image_size", "84", "position_embedding"},
        {"vision_config.image_size", "4097", "image_size"},
        {"vision_config.hidden_act", "\"mish\"", "\"mish\""},
        {"vision_config.num_attention_heads", "5", "heads"},
        {"vision_config.num_hidden_layers", "4", "encoder.layers.3"},
        {"vision_config.num_hidden_layers", "2", "encoder.layers.2"},
        {"vision_config.layer_norm_eps", "[]", "layer_norm_eps"},
    };
    (void)state;
    expect_fields_refused(rows, sizeof rows / sizeof *rows);
}

static void refuses_wrong_neighbours(void **state)
{
    static const struct {
        const char *file, *key, *value, *part;
    } rows[] = {
        {"tokenizer_config.json", "add_eos_token", "true", "add_eos_token"},
        {"tokenizer_config.json", "add_bos_token", "1", "add_bos_token"},
        {"tokenizer_config.json", "legacy", "\"no\"", "legacy"},
        {"generation_config.json", "eos_token_id", "\"</s>\"", "eos_token_id"},
        {"generation_config.json", "eos_token_id", "-2", "eos_token_id"},
        {"generation_config.json", "eos_token_id", "[2, null]", "eos_token_id"},
        {"generation_config.json", "eos_token_id", "470", "470"},
        {"generation_config.json", "eos_token_id",
         "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]", "end tokens"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_checkpoint("text");
        set_field(rows[i].file, rows[i].key, rows[i].value);
        expect_refused(rows[i].part);
    }
}

/* Files that published folders do not have, and that would change the answer. */
static void refuses_strange_side_files(void **state)
{
    static const struct {
        const char *file, *text, *part;
    } rows[] = {
        {"added_tokens.json", "{\"<im_x>\": 469}", "\"<im_x>\" (id 469)"},
        {"added_tokens.json", "{\"</s>\": 3}", "\"</s>\" (id 3)"},
        {"added_tokens.json", "{\"</s>\": 2, \"<pad>\": 470}", "471 pieces"},
        {"added_tokens.json", "{\"</s>\": 2, \"<pad>\": 471}", "\"<pad>\" (id 471)"},
        {"added_tokens.json", "{\"</s>\": \"2\"}", "\"</s>\""},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"5\": {\"content\": \"<x>\"}}}",
         "\"<x>\""},
        {"preprocessor_config.json", "{\"image_mean\": [0.5, 0.5, 0.5]}", "image_mean"},
        {"preprocessor_config.json", "{\"image_std\": [0.5, 0.5]}", "image_std"},
        {"preprocessor_config.json", "{\"resample\": 2}", "resample"},
        {"preprocessor_config.json", "{\"size\": {\"shortest_edge\": 336}}", "size"},
        {"preprocessor_config.json", "{\"crop_size\": 224}", "crop_size"},
        {"preprocessor_config.json", "{\"do_normalize\": false}", "do_normalize"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_checkpoint("v1");
        write_text(rows[i].file, rows[i].text);
        expect_refused(rows[i].part);
    }
    copy_checkpoint("v1");
    set_field("config.json", "vision_config", NULL);
    set_field("config.json", "mm_vision_tower", "\"google/siglip-base-patch16-224\"");
    expect_refused("siglip-base");
    copy_checkpoint("v1"); /* only what is cut needs the cutting */
    set_field("config.json", "image_aspect_ratio", "\"square\"");
    write_text("preprocessor_config.json", "{\"do_center_crop\": false}");
    expect_refused("do_center_crop");
}

static void refuses_what_is_no_json(void **state)
{
    static const char *const files[] = {"config.json", "generation_config.json",
                                        "tokenizer_config.json"};
    static const char *const texts[] = {"",
                                        "{",
                                        "[]",
                                        "3",
                                        "null",
                                        "{\"a\": 1, \"a\": 2}",
                                        "{\"a\": \"\xff\"}",
                                        "{\"a\": 1} {}",
                                        "{\"a\": 1e999}",
                                        "{\"a\": \"\\u0000\"}"};
    char deep[5000];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        copy_checkpoint("text");
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            write_text(files[i], texts[k]);
            expect_refused(files[i]);
        }
        write_text(files[i], deep);
        expect_refused(files[i]);
        remove_file(files[i]);
        char path[600];
        snprintf(path, sizeof path, "%s/%s", checkpoint, files[i]);
        assert_int_equal(mkdir(path, 0777), 0);
        expect_refused(files[i]);
    }
}

static void refuses_missing_folders_and_files(void **state)
{
    static const char *const needed[] = {"config.json", "tokenizer.model", "model.safetensors"};
    (void)state;
    expect_refused(checkpoint); /* is not there */
    assert_int_equal(mkdir(checkpoint, 0777), 0);
    expect_refused(checkpoint);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        copy_checkpoint("text");
        remove_file(needed[i]);
        expect_refused(i < 2 ? needed[i] : checkpoint);
    }
    expect_failure(run(WORDS(CONVERT_PROGRAM, CONVERT_PROGRAM, "-o", model), NULL), 3,
                   CONVERT_PROGRAM, 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, "", "-o", model), NULL), 3, "", 0);
}

/* ---- Tensors ---------------------------------------------------------------------------- */

static const char gate[] = "model.layers.1.mlp.gate_proj.weight";

static void lose_one(struct tensors *t)
{
    struct built_tensor *lost = find_tensor(t, gate), *last = &t->items[t->n - 1];
    const struct built_tensor kept = *lost;
    *lost = *last;
    *last = kept;
    forget_last_tensor(t);
}

static void transpose_one(struct tensors *t)
{
    struct built_tensor *tensor = find_tensor(t, gate);
    const int64_t rows = tensor->shape[0];
    tensor->shape[0] = tensor->shape[1];
    tensor->shape[1] = rows;
}

static void flatten_one(struct tensors *t)
{
    struct built_tensor *tensor = find_tensor(t, gate);
    tensor->shape[0] *= tensor->shape[1];
    tensor->n_dims = 1;
}

static void retype_one(struct tensors *t)
{
    find_tensor(t, gate)->dtype = DTYPE_I32;
}

static void add_leftover(struct tensors *t)
{
    add_tensor(t, "model.layers.1.mlp.gate_proj.bias", DTYPE_F32, 1, 128);
}

static void add_layer(struct tensors *t)
{
    add_tensor(t, "model.layers.2.input_layernorm.weight", DTYPE_F32, 1, 64);
}

static void refuses_wrong_tensors(void **state)
{
    static const struct {
        void (*damage)(struct tensors *);
        const char *part;
    } rows[] = {{lose_one, gate},
                {transpose_one, gate},
                {flatten_one, gate},
                {retype_one, gate},
                {add_leftover, "model.layers.1.mlp.gate_proj.bias"},
                {add_layer, "model.layers.2.input_layernorm.weight"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tensors tensors;
        copy_checkpoint("text");
        load_tensors(&tensors);
        rows[i].damage(&tensors);
        save_tensors(&tensors);
        expect_refused(rows[i].part);
    }
}

/* Puts `value` into one place of a tensor. */
static void put_value(const char *name, float value)
{
    struct tensors tensors;
    copy_checkpoint("text");
    load_tensors(&tensors);
    ((float *)(uintptr_t)find_tensor(&tensors, name)->data)[77 % 64] = value;
    save_tensors(&tensors);
}

/* Beyond f16's range: in a matrix, in the table of embeddings; but norms stay f32. */
static void f16_refuses_values_beyond_its_range(void **state)
{
    static const char *const names[] = {gate, "model.embed_tokens.weight"};
    static const float values[] = {1e6f, -65520, 1e38f, (float)INFINITY};
    (void)state;
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            put_value(names[i], values[k]);
            expect_failure(convert_with(WORDS("--type", "f16")), 3, names[i], 0);
        }
    expect_good(convert_with(WORDS("--type", "f32")), "");
    put_value(gate, 65504);
    expect_good(convert_with(WORDS("--type", "f16", "--force")), "");
    put_value("model.norm.weight", 1e6f);
    expect_good(convert_with(WORDS("--type", "f16", "--force")), "");
}

/* ---- tokenizer.model -------------------------------------------------------------------- */

static size_t read_tokenizer(uint8_t bytes[16384])
{
    FILE *file = fopen(GOLDEN "/tokenizer.model", "rb");
    assert_non_null(file);
    const size_t n = fread(bytes, 1, 16384, file);
    fclose(file);
    return n;
}

/* The trainer's field 3, a varint: 2 is BPE. Pieces have such a field too, before it. */
static void refuses_a_unigram_tokenizer(void **state)
{
    uint8_t bytes[16384];
    const size_t n = read_tokenizer(bytes);
    size_t at = 0;
    (void)state;
    for (size_t i = 0; i + 1 < n; i++)
        if (bytes[i] == 0x18 && bytes[i + 1] == 2)
            at = i + 1;
    copy_checkpoint("text");
    for (uint8_t type = 0; type < 5; type++)
        if (type != 2) {
            bytes[at] = type;
            file_write(checkpoint, "tokenizer.model", bytes, n);
            expect_refused("no BPE model");
        }
}

static int run_code(const char *const *argv)
{
    struct program_result result = run(argv, NULL);
    const int code = result.code;
    program_free(&result);
    return code;
}

/* Refused, or (where what is cut off has defaults) taken; never anything else. */
static void survives_a_damaged_tokenizer(void **state)
{
    uint8_t bytes[16384];
    const size_t n = read_tokenizer(bytes);
    (void)state;
    copy_checkpoint("text");
    for (size_t length = 0; length < n; length += length + 90 < n ? 83 : 1) {
        file_write(checkpoint, "tokenizer.model", bytes, length);
        struct program_result result = convert_with(WORDS("--force"));
        if (result.code == 0 && length + 90 >= n)
            program_free(&result);
        else
            expect_failure(result, 3, "tokenizer.model", count_files(out_folder));
    }
    for (size_t i = 0; i < n; i += 37) {
        bytes[i] ^= 0xff;
        file_write(checkpoint, "tokenizer.model", bytes, n);
        struct program_result result = convert_with(WORDS("--force"));
        if (result.code != 0)
            assert_int_equal(result.code, 3);
        else if (run_code(WORDS(MOBILEVLM_PROGRAM, "info", "-m", model)) != 0)
            fail_msg("byte %zu: a file was written that cannot be opened", i);
        program_free(&result);
        bytes[i] ^= 0xff;
    }
}

/* ---- Outputs ---------------------------------------------------------------------------- */

static void refuses_wrong_options(void **state)
{
    static const struct {
        const char *words[6], *part;
    } rows[] = {
        {{NULL}, "checkpoint"},
        {{"a"}, "-o"},
        {{"-o", "@"}, "checkpoint"},
        {{"a", "b", "-o", "@"}, "2"},
        {{"a", "-o"}, "-o"},
        {{"a", "-o", "@", "--no-such"}, "--no-such"},
        {{"a", "-o", "@", "--type", "q3"}, "q3"},
        {{"a", "-o", "@", "-t", "0"}, "-t"},
        {{"a", "-o", "@", "-t", "x"}, "-t"},
        {{"a", "-o", "@", "--force=1"}, "--force"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *argv[8] = {CONVERT_PROGRAM};
        for (size_t k = 0; rows[i].words[k]; k++)
            argv[1 + k] = strcmp(rows[i].words[k], "@") == 0 ? model : rows[i].words[k];
        expect_failure(run(argv, NULL), 2, rows[i].part, 0);
    }
    expect_failure(run(WORDS(CONVERT_PROGRAM, "a", "-o", model), "MOBILEVLM_CONVERT_TYPE=f99"), 2,
                   "f99", 0);
}

static void refuses_outputs_that_cannot_be(void **state)
{
    char folder[700], inside[700];
    snprintf(folder, sizeof folder, "%s/no/model.bin", out_folder);
    snprintf(inside, sizeof inside, "%s/config.json/model.bin", checkpoint);
    (void)state;
    copy_checkpoint("text");
    expect_failure(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", out_folder), NULL), 8, out_folder,
                   0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", out_folder, "--force"), NULL), 8,
                   "folder", 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", folder), NULL), 8, folder, 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", inside), NULL), 8, inside, 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", "/dev/full"), NULL), 2, "/dev/full",
                   0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", "/dev/full", "--force"), NULL), 8,
                   "/dev/full", 0);
}

/* The limit on a file's size stands for the full disk: both make write(2) fail midway. */
static void a_full_disk_leaves_nothing(void **state)
{
    static const char *const limits[] = {"0", "1", "100", "900"}; /* of 512 or 1024 bytes */
    (void)state;
    copy_checkpoint("text");
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        char script[64];
        snprintf(script, sizeof script, "ulimit -f %s; exec \"$0\" \"$@\"", limits[i]);
        expect_failure(run(WORDS("/bin/sh", "-c", script, CONVERT_PROGRAM, checkpoint, "-o", model,
                                 "--type", "f32"),
                           NULL),
                       8, model, 0);
    }
}

/* ---- Signals ---------------------------------------------------------------------------- */

static void add_entry(json_t *header, size_t *at, const char *name, int64_t rows, int64_t columns)
{
    const size_t end = *at + 2 * (size_t)(rows * columns);
    json_object_set_new(header, name,
                        json_pack("{s:s, s:[I, I], s:[I, I]}", "dtype", "BF16", "shape",
                                  (json_int_t)rows, (json_int_t)columns, "data_offsets",
                                  (json_int_t)*at, (json_int_t)end));
    *at = end;
}

/* model.safetensors of a gigabyte of zeros, which takes no room on the disk. */
static void build_large_weights(void)
{
    enum { HIDDEN = 2048, FFN = 8192, LAYERS = 8 };
    static const struct {
        const char *name;
        int64_t rows, columns;
    } parts[] = {{"self_attn.q_proj", HIDDEN, HIDDEN},   {"self_attn.k_proj", HIDDEN, HIDDEN},
                 {"self_attn.v_proj", HIDDEN, HIDDEN},   {"self_attn.o_proj", HIDDEN, HIDDEN},
                 {"mlp.gate_proj", FFN, HIDDEN},         {"mlp.up_proj", FFN, HIDDEN},
                 {"mlp.down_proj", HIDDEN, FFN},         {"input_layernorm", HIDDEN, 1},
                 {"post_attention_layernorm", HIDDEN, 1}};
    json_t *header = json_object();
    char name[128], path[600];
    size_t at = 0;
    add_entry(header, &at, "model.embed_tokens.weight", 470, HIDDEN);
    add_entry(header, &at, "model.norm.weight", HIDDEN, 1);
    for (int layer = 0; layer < LAYERS; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, parts[i].name);
            add_entry(header, &at, name, parts[i].rows, parts[i].columns);
        }
    char *text = json_written(header, JSON_COMPACT);
    build_safetensors_raw(checkpoint, "model.safetensors", text, strlen(text), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", checkpoint);
    assert_int_equal(truncate(path, (off_t)(8 + strlen(text) + at)), 0);
    free(text);
    json_decref(header);
    set_field("config.json", "hidden_size", "2048");
    set_field("config.json", "intermediate_size", "8192");
    set_field("config.json", "num_hidden_layers", "8");
}

/* The signal comes once the file has been begun, and long before it can be complete. */
static void signals_leave_nothing(void **state)
{
    (void)state;
    copy_checkpoint("text");
    build_large_weights();
    expect_signals_leave_nothing("0", "--type", "f32");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(refuses_wrong_decoder_fields), TEST(refuses_wrong_picture_fields),
        TEST(refuses_wrong_neighbours),     TEST(refuses_strange_side_files),
        TEST(refuses_what_is_no_json),      TEST(refuses_missing_folders_and_files),
        TEST(refuses_wrong_tensors),        TEST(f16_refuses_values_beyond_its_range),
        TEST(refuses_a_unigram_tokenizer),  TEST(survives_a_damaged_tokenizer),
        TEST(refuses_wrong_options),        TEST(refuses_outputs_that_cannot_be),
        TEST(a_full_disk_leaves_nothing),   TEST(signals_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
