/* mobilevlm-convert --random: the shapes, the vocabulary, the numbers, and what it refuses. */
#include <math.h>

#include "convert_fixture.h"
#include "origin.h"
#include "random_model.h"
#include "tokenizer.h"

static void open_model(const char *name, struct origin *origin)
{
    mvlm_error error = {0};
    if (origin_open_random(name, 5, &(struct config_changes){0}, origin, &error) != MVLM_OK)
        fail_msg("%s", error.message);
}

/* ---- Shapes ------------------------------------------------------------------------------- */

/* Of Imp: the published numbers of Phi-2, Qwen1.5-1.8B and Phi-3-mini; of SigLIP's 26 layers that are read, with 729
 * positions or 196; and of two linear layers. */
static void imp_has_the_published_numbers_of_parameters(void **state)
{
    static const struct {
        const char *name;
        int64_t image_size, vision, hidden, decoder;
    } rows[] = {{"imp-v1-3b", 384, 397745440, 2560, 2779683840},
                {"imp-v1.5-3b-196", 196, 397131424, 2560, 2779683840},
                {"imp-v1.5-2b", 384, 397745440, 2048, 1836828672},
                {"imp-v1.5-4b", 384, 397745440, 3072, 3821079552}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct origin origin;
        int64_t sums[SECTION_COUNT] = {0};
        const int64_t h = rows[i].hidden;
        open_model(rows[i].name, &origin);
        for (size_t k = 0; k < origin.n; k++)
            sums[origin.specs[k].section] += origin.specs[k].n_rows * origin.specs[k].n_cols;
        assert_int_equal(origin.config.description.image.size, rows[i].image_size);
        assert_int_equal(sums[SECTION_VISION], rows[i].vision);
        assert_int_equal(sums[SECTION_PROJECTOR], 1152 * h + h + h * h + h);
        assert_int_equal(sums[SECTION_DECODER], rows[i].decoder);
        origin_close(&origin);
    }
}

/* Numbers of parameters by section. The tower's is 303,507,456 of 24 layers and a last norm, less
 * the layer and the norm that are not read. */
static void shapes_have_the_published_numbers_of_parameters(void **state)
{
    static const struct {
        const char *name;
        int64_t projector, decoder;
        size_t n_tensors;
    } rows[] = {{"v1-1.7b", 18936832, 1364297728, 616},
                {"v2-1.7b", 6316032, 1364297728, 598},
                {"v1-3b", 28913920, 2701560320, 688},
                {"v2-3b", 9205760, 2701560320, 670},
                {"v2-7b", 21020672, 6738415616, 670}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct origin origin;
        int64_t sums[SECTION_COUNT] = {0};
        open_model(rows[i].name, &origin);
        for (size_t k = 0; k < origin.n; k++)
            sums[origin.specs[k].section] += origin.specs[k].n_rows * origin.specs[k].n_cols;
        assert_int_equal(sums[SECTION_VISION], 303507456 - 12596224 - 2048);
        assert_int_equal(sums[SECTION_PROJECTOR], rows[i].projector);
        assert_int_equal(sums[SECTION_DECODER], rows[i].decoder);
        assert_int_equal(origin.n, rows[i].n_tensors);
        assert_int_equal(image_tokens(&origin.config.description), 144);
        assert_string_equal(origin.config.description.prompt.user_prefix, "USER: ");
        assert_true(origin.config.description.decoder.norm_eps == (i < 4 ? 1e-6 : 1e-5));
        assert_int_equal(origin.config.description.decoder.context, i < 4 ? 2048 : 4096);
        origin_close(&origin);
    }
}

/* ---- Vocabulary --------------------------------------------------------------------------- */

static void the_vocabulary_opens_and_spells_bytes(void **state)
{
    static const char text[] = "USER: What is \xc3\xa9?\n";
    struct origin origin;
    struct tokenizer *tokenizer;
    struct id_list list = {0};
    mvlm_error error = {0};
    char bytes[64], out[64];
    size_t n = 0, length;
    (void)state;
    open_model("v1-3b", &origin);
    const size_t n_encoded = vocabulary_encode(&origin.tokenizer, NULL);
    uint8_t *encoded = malloc(n_encoded);
    vocabulary_encode(&origin.tokenizer, encoded);
    if (tokenizer_open("t", &origin.config.description, encoded, n_encoded, &tokenizer, &error) !=
        MVLM_OK)
        fail_msg("%s", error.message);
    assert_int_equal(tokenizer->n_pieces, 32000);
    assert_int_equal(tokenizer_cut_at(tokenizer, "</s>", 4, 4, &length), 2);
    assert_int_equal(tokenizer_bytes(tokenizer, 31999, bytes), 5); /* a space and four letters */
    assert_int_equal(tokenizer_encode(tokenizer, text, sizeof text - 1, LEAD_NONE, &list, &error),
                     MVLM_OK);
    for (size_t i = 0; i < list.n; i++) {
        assert_in_range(list.ids[i], 3, 258);
        n += tokenizer_bytes(tokenizer, list.ids[i], out + n);
    }
    assert_int_equal(n, list.n);
    assert_int_equal(n, sizeof text - 1 + 2 * 3); /* a space is a mark of three bytes */
    assert_memory_equal(out, "USER:\xe2\x96\x81What\xe2\x96\x81is\xe2\x96\x81\xc3\xa9?\n", n);
    free(list.ids);
    tokenizer_close(tokenizer);
    free(encoded);
    origin_close(&origin);
}

/* ---- Numbers ------------------------------------------------------------------------------ */

static size_t tensor_index(const struct origin *origin, const char *name)
{
    for (size_t i = 0; i < origin->n; i++)
        if (strcmp(origin->specs[i].name, name) == 0)
            return i;
    fail_msg("no tensor %s", name);
    return 0;
}

static float *read_rows(const struct origin *origin, const char *name, size_t first, size_t n_rows)
{
    const size_t index = tensor_index(origin, name);
    float *values = malloc(n_rows * (size_t)origin->specs[index].n_cols * sizeof *values);
    assert_int_equal(origin->read(origin, index, first, n_rows, values, NULL), MVLM_OK);
    return values;
}

static void numbers_are_nearly_normal(void **state)
{
    static const struct {
        const char *name;
        double mean, deviation;
    } rows[] = {{"decoder.layers.3.gate.weight", 0, 0.022097}, /* 1 / sqrt(2048) */
                {"decoder.layers.3.down.weight", 0, 0.013325}, /* 1 / sqrt(5632) */
                {"vision.patch.weight", 0, 0.041239},          /* 1 / sqrt(588) */
                {"decoder.embedding.weight", 0, 0.02},
                {"vision.position", 0, 0.02},
                {"projector.block.1.taps", 0, 1.0 / 3},
                {"vision.layers.7.fc1.bias", 0, 0.02},
                {"vision.layers.7.norm2.bias", 0, 0.02},
                {"vision.layers.7.norm2.weight", 1, 0},
                {"projector.block.1.norm2.weight", 1, 0},
                {"decoder.layers.23.attention_norm.weight", 1, 0},
                {"decoder.norm.weight", 1, 0}};
    struct origin origin;
    (void)state;
    open_model("v1-1.7b", &origin);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct tensor_spec *spec = &origin.specs[tensor_index(&origin, rows[i].name)];
        const size_t n_rows = spec->n_rows < 1024 ? (size_t)spec->n_rows : 1024,
                     n = n_rows * (size_t)spec->n_cols;
        float *values = read_rows(&origin, rows[i].name, 0, n_rows);
        double sum = 0, squares = 0, fourth = 0, most = 0;
        for (size_t k = 0; k < n; k++) {
            const double x = (double)values[k] - rows[i].mean;
            sum += x;
            squares += x * x;
            fourth += x * x * x * x;
            most = fmax(most, fabs(x));
        }
        const double deviation = sqrt(squares / (double)n), wanted = rows[i].deviation,
                     slack = 4 / sqrt((double)n); /* of a sample */
        if (fabs(deviation - wanted) > wanted * slack || fabs(sum / (double)n) > wanted * slack ||
            most > 3.5 * wanted + 1e-9)
            fail_msg("%s: mean off by %g, deviation %g, largest %g", rows[i].name, sum / (double)n,
                     deviation, most);
        if (n > 100000) /* normal would be 3, uniform 1.8; four uniform ones are 2.7 */
            assert_true(fabs(fourth / (double)n / pow(wanted, 4) - 2.7) < 0.05);
        free(values);
    }
    origin_close(&origin);
}

/* Whoever reads a row, among whatever others, reads the same. */
static void rows_do_not_depend_on_how_they_are_read(void **state)
{
    static const char name[] = "vision.layers.2.fc2.weight"; /* [1024, 4096] */
    struct origin origin, other;
    (void)state;
    open_model("v2-1.7b", &origin);
    float *all = read_rows(&origin, name, 0, 1024);
    for (size_t first = 0, n = 1; first + n <= 1024; first += n, n = n % 37 + 1) {
        float *part = read_rows(&origin, name, first, n);
        assert_memory_equal(part, all + first * 4096, n * 4096 * sizeof *part);
        free(part);
    }
    assert_memory_not_equal(all, all + 4096, 4096 * sizeof *all);
    float *sibling = read_rows(&origin, "vision.layers.3.fc2.weight", 0, 1);
    assert_memory_not_equal(all, sibling, 4096 * sizeof *all);
    free(sibling);
    mvlm_error error;
    assert_int_equal(origin_open_random("v2-1.7b", 6, &(struct config_changes){0}, &other, &error),
                     MVLM_OK);
    float *reseeded = read_rows(&other, name, 0, 1);
    assert_memory_not_equal(all, reseeded, 4096 * sizeof *all);
    free(reseeded);
    free(all);
    origin_close(&origin);
    origin_close(&other);
}

/* The numbers themselves, so that a file can be made again by a later release. */
static void numbers_stay_what_they_are(void **state)
{
    struct origin origin;
    (void)state;
    open_model("v2-1.7b", &origin);
    float *values = read_rows(&origin, "decoder.head.weight", 17, 1);
    const float expected[] = {-0.012168888f, 0.00864267349f, 0.00157447439f};
    for (size_t i = 0; i < 3; i++)
        if (values[i] != expected[i])
            fail_msg("%.9g, %.9g, %.9g", (double)values[0], (double)values[1], (double)values[2]);
    free(values);
    origin_close(&origin);
}

/* ---- The command line --------------------------------------------------------------------- */

static void refuses_wrong_words(void **state)
{
    char nowhere[700];
    snprintf(nowhere, sizeof nowhere, "%s/no/model.bin", out_folder);
    (void)state;
    expect_failure(run(WORDS(CONVERT_PROGRAM, "--random", "v3-1.7b", "-o", model), NULL), 2,
                   "\"v3-1.7b\" is known: there are v1-1.7b, v2-1.7b, v1-3b, v2-3b, v2-7b", 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, "folder", "--random", "v2-1.7b", "-o", model), NULL),
                   2, "checkpoint folder exclude", 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, "folder", "--seed", "0", "-o", model), NULL), 2,
                   "--seed", 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, "--seed", "3", "-o", model), NULL), 2, "--seed", 0);
    expect_failure(
        run(WORDS(CONVERT_PROGRAM, "--random", "v2-1.7b", "--seed=-1", "-o", model), NULL), 2,
        "--seed", 0);
    expect_failure(run(WORDS(CONVERT_PROGRAM, "--random", "v2-1.7b"), NULL), 2, "-o FILE", 0);
    /* the description is good: what fails is the output */
    expect_failure(run(WORDS(CONVERT_PROGRAM, "--random", "v2-1.7b", "-o", nowhere), NULL), 8,
                   nowhere, 0);
}

/* Ten megabytes and no more: tensors are written, and then taken away. */
static void begins_to_write(void **state)
{
    (void)state;
    expect_failure(run(WORDS("/bin/sh", "-c", "ulimit -f 10000; exec \"$0\" \"$@\"",
                             CONVERT_PROGRAM, "--random", "v1-3b", "--seed", "9", "-o", model),
                       NULL),
                   8, model, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(shapes_have_the_published_numbers_of_parameters),
        TEST(imp_has_the_published_numbers_of_parameters),
        TEST(the_vocabulary_opens_and_spells_bytes),
        TEST(numbers_are_nearly_normal),
        TEST(rows_do_not_depend_on_how_they_are_read),
        TEST(numbers_stay_what_they_are),
        TEST(refuses_wrong_words),
        TEST(begins_to_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
