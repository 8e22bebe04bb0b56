/* mobilevlm-convert, where it works: checkpoint -> model.bin, which mobilevlm then verifies and
 * answers from. */
#include "convert_fixture.h"

static const char *const cases[] = {"v1", "v2", "two-images", "text", "linear-last-layer"};
enum { N_CASES = sizeof cases / sizeof *cases };

/* The program's answer to the text case's question. */
static void expect_answer(const char *path)
{
    expect_good(run(WORDS(MOBILEVLM_PROGRAM, "-m", path, "-p", "How many horses are there?"), NULL),
                "There are 43.\n");
}

/* A field of the model's description. */
static json_t *description_field(const char *path, const char *key)
{
    struct program_result result =
        run(WORDS(MOBILEVLM_PROGRAM, "info", "--json", "-m", path), NULL);
    json_t *json = json_loads(result.out, 0, NULL),
           *field = json_object_get(json_object_get(json, "description"), key);
    assert_non_null(field);
    json_incref(field);
    json_decref(json);
    program_free(&result);
    return field;
}

static void expect_integer(const char *path, const char *key, json_int_t expected)
{
    json_t *field = description_field(path, key);
    assert_int_equal(json_integer_value(field), expected);
    json_decref(field);
}

static void expect_verified(const char *path)
{
    expect_good(run(WORDS(MOBILEVLM_PROGRAM, "verify", "-q", "-m", path), NULL), "");
}

static void golden_checkpoints_convert_and_verify(void **state)
{
    static const char *const types[] = {"f32", "f16", "q8", "q4"};
    (void)state;
    for (size_t i = 0; i < N_CASES; i++)
        for (size_t k = 0; k < 4; k++) {
            copy_checkpoint(cases[i]);
            expect_good(convert_with(WORDS("--type", types[k], "--force")), "");
            expect_verified(model);
            assert_int_equal(count_files(out_folder), 1);
        }
}

static void both_types_answer(void **state)
{
    (void)state;
    copy_checkpoint("text");
    expect_good(convert_with(WORDS("--type", "f32")), "");
    expect_answer(model);
    expect_good(convert_with(WORDS("--type=f16", "--force")), "");
    expect_answer(model);
}

/* Threads, time and the spelling of the folder leave no trace. */
static void conversions_are_the_same_byte_for_byte(void **state)
{
    static const char *const types[] = {"f32", "f16", "q8", "q4"};
    char other[700], slash[600];
    snprintf(other, sizeof other, "%s/other.bin", out_folder);
    snprintf(slash, sizeof slash, "%s//", checkpoint);
    (void)state;
    for (size_t i = 0; i < N_CASES; i++)
        for (size_t k = 0; k < 4; k++) {
            copy_checkpoint(cases[i]);
            expect_good(convert_with(WORDS("--type", types[k], "--force", "-t", "1")), "");
            expect_good(run(WORDS(CONVERT_PROGRAM, "--force", "-t", "3", "--output", other, slash,
                                  "--type", types[k]),
                            NULL),
                        "");
            expect_same_files(model, other);
        }
}

static void says_what_it_did_on_standard_error(void **state)
{
    (void)state;
    copy_checkpoint("text");
    struct program_result result = convert_with(WORDS("--type", "f16"));
    assert_non_null(strstr(result.err, model));
    assert_non_null(strstr(result.err, "decoder.layers.%d.gate.weight"));
    assert_int_equal(result.n_out, 0);
    program_free(&result);
    result = convert_with(WORDS("--force")); /* each row has its own type */
    assert_non_null(strstr(result.err, "decoder.embedding.weight             q8 "));
    assert_non_null(strstr(result.err, "decoder.layers.%d.gate.weight        q4 "));
    program_free(&result);
    result = convert_with(WORDS("--type", "f32", "--force", "-q"));
    assert_int_equal(result.code, 0);
    assert_string_equal(result.err, "");
    program_free(&result);
}

static void options_come_from_the_environment_too(void **state)
{
    char variable[700], other[700];
    snprintf(variable, sizeof variable, "MOBILEVLM_CONVERT_OUTPUT=%s", model);
    snprintf(other, sizeof other, "%s/other.bin", out_folder);
    (void)state;
    copy_checkpoint("text");
    expect_good(run(WORDS(CONVERT_PROGRAM, checkpoint), variable), "");
    expect_good(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", other), variable), "");
    expect_same_files(model, other);
}

static void the_file_is_as_readable_as_others(void **state)
{
    struct stat about;
    (void)state;
    copy_checkpoint("text");
    const mode_t before = umask(027);
    expect_good(convert_with(WORDS("-q")), "");
    umask(before);
    assert_int_equal(stat(model, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0640);
}

static void force_overwrites(void **state)
{
    char other[700];
    snprintf(other, sizeof other, "%s/other.bin", out_folder);
    (void)state;
    copy_checkpoint("text");
    file_write(out_folder, "model.bin", "old", 3);
    expect_failure(convert_with(WORDS("-q")), 2, "--force", 1);
    file_write(out_folder, "other.bin", "old", 3);
    expect_same_files(model, other);
    expect_good(convert_with(WORDS("--force")), "");
    expect_verified(model);
    /* a conversion that fails leaves the old file alone */
    expect_good(run(WORDS("cp", model, other), NULL), "");
    set_field("config.json", "hidden_act", "\"mish\"");
    expect_failure(convert_with(WORDS("--force")), 3, "mish", 2);
    expect_same_files(model, other);
}

/* ---- What is not read ------------------------------------------------------------------- */

/* Converts the checkpoint as it is, then again after `change`: the same file. */
static void expect_no_difference(void (*change)(void))
{
    char other[700];
    snprintf(other, sizeof other, "%s/other.bin", out_folder);
    expect_good(convert_with(WORDS("--type", "f32", "--force")), "");
    change();
    expect_good(
        run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", other, "--type", "f32", "--force"), NULL), "");
    expect_same_files(model, other);
}

static void add_training_fields(void)
{
    static const char *const fields[][2] = {{"n_head", "16"},
                                            {"n_query_groups", "16"},
                                            {"n_embd", "2560"},
                                            {"n_layer", "32"},
                                            {"norm_eps", "0.5"},
                                            {"rope_base", "1"},
                                            {"rotary_percentage", "0.5"},
                                            {"block_size", "8"},
                                            {"padded_vocab_size", "9"},
                                            {"parallel_residual", "true"},
                                            {"gelu_approximate", "\"none\""},
                                            {"lm_head_bias", "true"},
                                            {"_norm_class", "\"x\""},
                                            {"_mlp_class", "\"x\""},
                                            {"max_sequence_length", "9"}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        set_field("config.json", fields[i][0], fields[i][1]);
}

static void as_f32(void)
{
    struct tensors tensors;
    load_tensors(&tensors);
    save_tensors(&tensors);
}

static void add_tensors_never_read(void)
{
    struct tensors tensors;
    load_tensors(&tensors);
    add_tensor(&tensors, "lm_head.weight", DTYPE_F32, 470, 64);
    add_tensor(&tensors, "model.layers.0.self_attn.rotary_emb.inv_freq", DTYPE_F32, 1, 8);
    add_tensor(&tensors, "model.layers.1.self_attn.rotary_emb.inv_freq", DTYPE_F32, 1, 8);
    add_tensor(&tensors, "model.vision_tower.vision_tower.vision_model.embeddings.position_ids",
               DTYPE_I64, 1, 26);
    save_tensors(&tensors);
}

static void leftovers_of_training_change_nothing(void **state)
{
    (void)state;
    copy_checkpoint("v1");
    expect_no_difference(add_training_fields);
    copy_checkpoint("two-images");
    expect_no_difference(as_f32);
    expect_no_difference(add_tensors_never_read);
}

/* Hidden states are counted from before the first layer: the tower of three layers has four. */
static void the_selected_layer_is_honoured(void **state)
{
    static const struct {
        const char *selected;
        json_int_t n_layers;
    } rows[] = {{"-1", 3}, {"-2", 2}, {"-3", 1}, {"3", 3}, {"2", 2}, {NULL, 2}};
    (void)state;
    copy_checkpoint("v1");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        set_field("config.json", "mm_vision_select_layer", rows[i].selected);
        expect_good(convert_with(WORDS("--force")), "");
        expect_integer(model, "vision.n_layers", rows[i].n_layers);
        expect_verified(model);
    }
}

/* ldpv2 pools to 12 x 12, as published, unless the checkpoint says otherwise. */
static void the_projectors_grid_may_be_chosen(void **state)
{
    (void)state;
    copy_checkpoint("v2");
    expect_good(convert_with(WORDS("--force", "-q")), "");
    expect_integer(model, "projector.grid", 12);
    set_field("config.json", "mm_projector_grid", "3");
    expect_good(convert_with(WORDS("--force", "-q")), "");
    expect_integer(model, "projector.grid", 3);
    expect_verified(model);
    set_field("config.json", "mm_projector_grid", "0");
    expect_failure(convert_with(WORDS("--force")), 3, "mm_projector_grid", 1);
}

/* "short": the same turns as v1, without the sentence before them. */
static void the_template_is_chosen_by_conv_mode(void **state)
{
    static const char *const modes[] = {"v1", "short"};
    json_t *system[2];
    (void)state;
    copy_checkpoint("v1");
    for (size_t i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "\"%s\"", modes[i]);
        set_field("config.json", "conv_mode", name);
        expect_good(convert_with(WORDS("--force", "-q")), "");
        expect_verified(model);
        json_t *suffix = description_field(model, "prompt.answer_prefix");
        assert_string_equal(json_string_value(suffix), " ");
        json_decref(suffix);
        system[i] = description_field(model, "prompt.system");
    }
    assert_memory_equal(json_string_value(system[0]), "A chat between ", 15);
    assert_string_equal(json_string_value(system[1]), "");
    json_decref(system[0]);
    json_decref(system[1]);
}

static void defaults_are_the_references(void **state)
{
    static const char *const absent[] = {
        "num_key_value_heads",    "rms_norm_eps",        "rope_theta",
        "rope_scaling",           "hidden_act",          "tie_word_embeddings",
        "mm_projector_type",      "mm_use_im_start_end", "mm_vision_select_feature",
        "mm_vision_select_layer", "mm_hidden_size",      "vision_tower_type",
        "max_position_embeddings"};
    char other[700];
    snprintf(other, sizeof other, "%s/other.bin", out_folder);
    (void)state;
    copy_checkpoint("v1");
    expect_good(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", other), NULL), "");
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        set_field("config.json", absent[i], i % 2 ? NULL : "null");
    remove_file("generation_config.json");
    expect_good(convert_with(WORDS("-q")), "");
    expect_same_files(model, other);
}

static void end_tokens_may_be_a_list(void **state)
{
    (void)state;
    copy_checkpoint("text");
    set_field("generation_config.json", "eos_token_id", "[2, 319]"); /* 319 begins the answer */
    expect_good(convert_with(WORDS("-q", "--type", "f16")), "");
    expect_good(
        run(WORDS(MOBILEVLM_PROGRAM, "-m", model, "-p", "How many horses are there?"), NULL), "\n");
}

/* Though generation_config.json does not name it. */
static void a_templates_end_ends_answers(void **state)
{
    (void)state;
    copy_checkpoint("v1");
    set_field("generation_config.json", "eos_token_id", "[7, 3]");
    expect_good(convert_with(WORDS("-q", "--type", "f16")), "");
    struct program_result info = run(WORDS(MOBILEVLM_PROGRAM, "info", "-m", model, "--json"), NULL);
    assert_non_null(strstr(info.out, "\"tokenizer.stop_ids\": [7.0, 3.0, 2.0]"));
    program_free(&info);
    set_field("generation_config.json", "eos_token_id", "[7, 3, 4, 5, 6, 8, 9, 10]");
    expect_failure(convert_with(WORDS("-q", "--force")), 3, "more than 8 end tokens", 1);
}

static void help_names_every_option_once(void **state)
{
    static const char *const names[] = {
        "  -o, --output FILE ", "  --type ",        "  --vision-type ", "  --head-type ",
        "  --norm-balance A ",  "  --calibrate N ", "  --random NAME ", "  --seed N ",
        "  -t, --threads N ",   "  --force ",       "  -q, --quiet ",   "  -h, --help ",
        "  --version "};
    struct program_result result = run(WORDS(CONVERT_PROGRAM, "--help"), NULL);
    (void)state;
    assert_int_equal(result.code, 0);
    assert_int_equal(result.n_err, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *at = strstr(result.out, names[i]);
        if (!at || strstr(at + 1, names[i]))
            fail_msg("not once: %s", names[i]);
    }
    program_free(&result);
    expect_good(run(WORDS(CONVERT_PROGRAM, "--version"), NULL),
                "mobilevlm-convert " MVLM_VERSION "\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(golden_checkpoints_convert_and_verify),
        TEST(both_types_answer),
        TEST(conversions_are_the_same_byte_for_byte),
        TEST(says_what_it_did_on_standard_error),
        TEST(options_come_from_the_environment_too),
        TEST(the_file_is_as_readable_as_others),
        TEST(force_overwrites),
        TEST(leftovers_of_training_change_nothing),
        TEST(the_selected_layer_is_honoured),
        TEST(the_projectors_grid_may_be_chosen),
        TEST(the_template_is_chosen_by_conv_mode),
        TEST(defaults_are_the_references),
        TEST(end_tokens_may_be_a_list),
        TEST(a_templates_end_ends_answers),
        TEST(help_names_every_option_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
