/* mobilevlm-convert's types: which tensor gets which, what the bytes say, what it costs. */
#include <math.h>

#include "convert.h"
#include "convert_fixture.h"
#include "decode.h"
#include "golden.h"
#include "schema.h"

/* ---- Options ------------------------------------------------------------------------------ */

/* What the conversion before gave every tensor of v1, by the parts of a model. */
static void expect_types(const char *vision, const char *layers, const char *table,
                         const char *head)
{
    struct program_result result =
        run(WORDS(MOBILEVLM_PROGRAM, "info", "--json", "-m", model), NULL);
    json_t *json = json_loads(result.out, 0, NULL), *tensors = json_object_get(json, "tensors");
    size_t i, n_matrices = 0;
    json_t *tensor;
    assert_true(json_array_size(tensors) > 0);
    json_array_foreach(tensors, i, tensor)
    {
        const char *name = json_string_value(json_object_get(tensor, "name"));
        const char *type = json_string_value(json_object_get(tensor, "type"));
        const char *expected = strncmp(name, "decoder.", 8) != 0               ? vision
                               : strncmp(name, "decoder.layers.", 15) == 0     ? layers
                               : strcmp(name, "decoder.embedding.weight") == 0 ? table
                                                                               : head;
        const bool vector =
            json_integer_value(json_array_get(json_object_get(tensor, "shape"), 1)) == 1 ||
            strstr(name, "taps") || strcmp(name, "vision.position") == 0 ||
            (strcmp(name, "vision.patch.weight") == 0 && strcmp(vision, "q8") == 0);
        n_matrices += !vector;
        if (strcmp(type, vector ? "f32" : expected) != 0)
            fail_msg("%s is %s, expected %s", name, type, vector ? "f32" : expected);
    }
    assert_true(n_matrices >= 2);
    json_decref(json);
    program_free(&result);
}

static void types_are_what_the_options_say(void **state)
{
    static const struct {
        const char *words[7], *vision, *layers, *table, *head;
    } rows[] = {
        {{NULL}, "q8", "q4", "q8", "q8"},
        {{"--type", "q4"}, "q8", "q4", "q8", "q8"},
        {{"--type", "q8"}, "q8", "q8", "q8", "q8"},
        {{"--type", "f16"}, "f16", "f16", "f16", "f16"},
        {{"--type", "f32"}, "f32", "f32", "f32", "f32"},
        {{"--vision-type", "f16"}, "f16", "q4", "q8", "q8"},
        {{"--head-type", "f32"}, "q8", "q4", "f32", "f32"},
        {{"--head-type", "q4"}, "q8", "q4", "q8", "q4"},
        {{"--type", "f16", "--head-type=q4", "--vision-type=q8"}, "q8", "f16", "q8", "q4"},
        {{"--type", "q8", "--vision-type", "f32", "--head-type", "f16"}, "f32", "q8", "f16", "f16"},
    };
    (void)state;
    copy_checkpoint("v1");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *words[MAX_WORDS] = {"--force"};
        for (size_t k = 0; rows[i].words[k]; k++)
            words[1 + k] = rows[i].words[k];
        expect_good(convert_with(words), "");
        expect_types(rows[i].vision, rows[i].layers, rows[i].table, rows[i].head);
    }
    copy_checkpoint("text"); /* a tied head is a matrix: it may have four bits */
    expect_good(convert_with(WORDS("--force", "--head-type", "q4")), "");
    expect_types("", "q4", "q4", "");
    expect_failure(convert_with(WORDS("--force", "--vision-type", "q4")), 2, "q4", 1);
}

/* ---- Values ------------------------------------------------------------------------------- */

/* The report's row of a pattern: the schema's name with %d in place of its number. */
static const struct convert_loss *row_of(const struct convert_report *report, const char *name)
{
    for (size_t i = 0; i < report->n_losses; i++) {
        char number[FORMAT_NAME_BYTES];
        for (int n = 0; n < 10; n++) {
            schema_name(number, sizeof number, report->losses[i].pattern, n);
            if (strcmp(number, name) == 0)
                return &report->losses[i];
        }
    }
    return NULL;
}

/* Every tensor of `file` against the same in `exact`, and the report's errors against ours. */
static void compare_files(const uint8_t *file, const uint8_t *exact,
                          const struct convert_report *report)
{
    static const double most[] = {0, 5e-4, 0.01, 0.1}; /* by type */
    double sums[MAX_LOSSES] = {0}, worst[MAX_LOSSES] = {0};
    size_t counts[MAX_LOSSES] = {0};
    const struct format_header *h = (const struct format_header *)(const void *)file;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const struct format_tensor *t =
            (const struct format_tensor *)(const void *)(file + h->directory.offset) + i;
        float *a = decode_entry(file, t), *b = decode_entry(exact, entry_of(exact, t->name));
        const double error = relative_error(a, b, (size_t)(t->n_rows * t->n_cols));
        const struct convert_loss *row = row_of(report, t->name);
        free(a);
        free(b);
        if (!(error <= most[t->type]) || (t->type != TENSOR_F32) != (row != NULL))
            fail_msg("%s: type %u, relative error %g", t->name, t->type, error);
        if (!row)
            continue;
        assert_int_equal(row->type, t->type);
        const size_t at = (size_t)(row - report->losses);
        sums[at] += error;
        worst[at] = fmax(worst[at], error);
        counts[at]++;
    }
    for (size_t i = 0; i < report->n_losses; i++) {
        const struct convert_loss *row = &report->losses[i];
        assert_int_equal(counts[i], row->n_tensors);
        if (is_quantized(row->type) && (fabs(row->sum - sums[i]) > 1e-4 * sums[i] ||
                                        fabs(row->worst - worst[i]) > 1e-4 * worst[i]))
            fail_msg("%s: %g and %g, reported %g and %g", row->pattern, sums[i], worst[i], row->sum,
                     row->worst);
    }
}

static void compare_case(const char *folder)
{
    static const struct tensor_types types[] = {{TENSOR_Q8, TENSOR_Q4, TENSOR_Q8},
                                                {TENSOR_Q8, TENSOR_Q8, TENSOR_Q4},
                                                {TENSOR_F16, TENSOR_Q4, TENSOR_F16}};
    size_t n;
    char *exact_path = path_of(root, "exact.bin", NULL);
    convert_test(folder, exact_path, "f32");
    uint8_t *exact = (uint8_t *)file_load(exact_path, &n);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct convert_report report;
        const struct convert_options options = {.types = types[i], .force = true};
        mvlm_error error;
        if (convert(folder, model, &options, &report, &error) != MVLM_OK)
            fail_msg("%s", error.message);
        uint8_t *file = (uint8_t *)file_load(model, &n);
        compare_files(file, exact, &report);
        free(file);
    }
    free(exact);
    free(exact_path);
}

/* v1 has an FFN of 112 inputs, which is no multiple of 32, and 470 pieces; v1-ragged more of it. */
static void values_are_close_and_errors_exact(void **state)
{
    static const char *const folders[] = {
        GOLDEN "/cases/v1/checkpoint", GOLDEN "/cases/v2/checkpoint",
        GOLDEN "/cases/text/checkpoint", SHARED_DIR "/reference/cases/v1-ragged/checkpoint"};
    (void)state;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (path_exists(folders[i]))
            compare_case(folders[i]);
}

/* ---- Refusals ------------------------------------------------------------------------------- */

/* Puts `value` into one place of a tensor of the text case. */
static void put_value(const char *name, float value)
{
    struct tensors tensors;
    copy_checkpoint("text");
    set_field("config.json", "tie_word_embeddings", "false");
    load_tensors(&tensors);
    add_tensor(&tensors, "lm_head.weight", DTYPE_F32, 470, 64);
    ((float *)(uintptr_t)find_tensor(&tensors, name)->data)[77] = value;
    save_tensors(&tensors);
}

static void refuses_what_cannot_be_quantized(void **state)
{
    static const struct {
        const char *name, *option; /* of the tensor, and what would store it */
    } rows[] = {{"model.layers.1.mlp.gate_proj.weight", "--type"},
                {"model.embed_tokens.weight", "--head-type"},
                {"lm_head.weight", "--head-type"}};
    static const float values[] = {(float)NAN,       -(float)NAN, (float)INFINITY,
                                   -(float)INFINITY, 3e38f,       -2e18f};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            char part[200];
            put_value(rows[i].name, values[k]);
            snprintf(part, sizeof part, "tensor %s: ", rows[i].name);
            expect_failure(convert_with(WORDS("--type", k % 2 ? "q8" : "q4")), 3, part, 0);
            snprintf(part, sizeof part, "use %s f32", rows[i].option);
            expect_failure(convert_with(WORDS("-q")), 3, part, 0);
            expect_good(convert_with(WORDS(rows[i].option, "f32", "--force")), "");
            assert_int_equal(remove(model), 0);
        }
    put_value("model.layers.1.mlp.gate_proj.weight", 1e17f); /* large, and still a number */
    expect_good(convert_with(WORDS("-q")), "");
    put_value("lm_head.weight", 0x1p-149f); /* a row whose scale rounds to zero */
    expect_good(convert_with(WORDS("--force")), "");
    put_value("model.embed_tokens.weight", 0x1p-140f);
    expect_good(convert_with(WORDS("--force")), "");
}

/* ---- Sizes -------------------------------------------------------------------------------- */

static void four_bits_take_at_most_four_and_a_quarter(void **state)
{
    static const uint64_t inputs[] = {2048, 2560, 2720, 5632, 6912};
    (void)state;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        const double n = 2048.0 * (double)inputs[i],
                     q4 = (double)tensor_bytes(TENSOR_Q4, LAYOUT_TILES, 2048, inputs[i]),
                     q8 = (double)tensor_bytes(TENSOR_Q8, LAYOUT_TILES, 2048, inputs[i]);
        /* the bytes of formats.h, counted by hand: values, multipliers and signs, scales */
        const uint64_t tile = inputs[i] * 16 + (inputs[i] / 32 * 20 + 63) / 64 * 64 + 128;
        assert_int_equal(tensor_bytes(TENSOR_Q4, LAYOUT_TILES, 2048, inputs[i]), 64 * tile);
        if (inputs[i] == 2048 || inputs[i] == 5632)
            assert_true(8 * q4 / n <= 4.25);
        assert_true(8 * q4 / n <= 4.3 && 8 * q8 / n <= 8.02);
    }
    assert_int_equal(tensor_bytes(TENSOR_Q4, LAYOUT_TILES, 33, 33), 2 * (128 + 64 + 64 * 16));
    assert_int_equal(tensor_bytes(TENSOR_Q8, LAYOUT_TILES, 33, 33), 2 * (128 + 64 * 32));
    assert_int_equal(tensor_bytes(TENSOR_Q8, LAYOUT_ROWS, 3, 5), 3 * (4 + 8));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(types_are_what_the_options_say),
        TEST(values_are_close_and_errors_exact),
        TEST(refuses_what_cannot_be_quantized),
        TEST(four_bits_take_at_most_four_and_a_quarter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
