/* mobilevlm-convert's --norm-balance: norms and the matrices that read them, rewritten together. */
#include <math.h>

#include "balance.h"
#include "convert.h"
#include "convert_fixture.h"
#include "decode.h"
#include "golden.h"

/* ---- The scales --------------------------------------------------------------------------- */

static void exponents_follow_the_formula(void **state)
{
    static const float weight[] = {1, 1, -1, 16, 0.25f, 1e9f, 1e-9f, 0, (float)NAN, 3, -256};
    static const float bias[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0};
    enum { N = sizeof weight / sizeof *weight };
    static const struct {
        double alpha;
        const float *bias;
        int expected[N];
    } rows[] = {
        /* the median of eleven is the sixth, which is 1: 3 is no four times that, sqrt(3^2 + 4^2) is */
        {0.5, NULL, {0, 0, 0, 2, 0, 6, 0, 0, 0, 0, 4}},
        {0.5, bias, {0, 0, 0, 2, 0, 6, 0, 0, 0, 1, 4}},
        {1, NULL, {0, 0, 0, 4, 0, 6, 0, 0, 0, 0, 6}},
        {0.25, bias, {0, 0, 0, 1, 0, 6, 0, 0, 0, 1, 2}},
    };
    double sorted[N];
    int exponents[N];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        balance_exponents(weight, rows[i].bias, N, rows[i].alpha, sorted, exponents);
        for (size_t j = 0; j < N; j++)
            if (exponents[j] != rows[i].expected[j])
                fail_msg("row %zu, channel %zu: %d", i, j, exponents[j]);
    }
    static const float zeros[] = {0, 0, 0, 5}; /* no median to compare with */
    balance_exponents(zeros, NULL, 4, 1, sorted, exponents);
    for (size_t j = 0; j < 4; j++)
        assert_int_equal(exponents[j], 0);
}

/* ---- A checkpoint with outliers ----------------------------------------------------------- */

/* A case with a few channels of every norm far larger than the others, in the published manner. */
static void build_outliers(const char *name)
{
    struct tensors tensors;
    copy_checkpoint(name);
    load_tensors(&tensors);
    for (size_t i = 0; i < tensors.n; i++) {
        struct built_tensor *t = &tensors.items[i];
        float *values = (float *)(uintptr_t)t->data;
        if (t->n_dims != 1 || !strstr(t->name, "norm"))
            continue;
        values[3] *= 40;
        values[17] = strstr(t->name, "bias") ? 8 : -30;
        values[20] *= 0.01f;
    }
    if (strcmp(name, "v1") == 0)
        remove_file("pytorch_model.bin");
    save_tensors(&tensors);
}

static uint8_t *convert_to(const char *type, const char *head_type, const char *balance)
{
    size_t n;
    expect_good(convert_with(WORDS("--force", "--type", type, "--head-type", head_type,
                                   "--norm-balance", balance)),
                "");
    expect_good(run(WORDS(MOBILEVLM_PROGRAM, "verify", "-q", "-m", model), NULL), "");
    return (uint8_t *)file_load(model, &n);
}

/* The tensor's values in new memory, and their number; NULL when it is not there. */
static float *values_of(const uint8_t *file, const char *name, size_t *n)
{
    const struct format_tensor *t = entry_of(file, name);
    *n = t ? (size_t)(t->n_rows * t->n_cols) : 0;
    return t ? decode_entry(file, t) : NULL;
}

/* What a channel was divided by, from the norm before: the formula, written once more. */
static float expected_scale(const float *weight, const float *bias, size_t n, size_t j)
{
    size_t n_less = 0, n_equal = 0;
    const double a = hypot((double)weight[j], bias ? (double)bias[j] : 0);
    double median = 0;
    for (size_t k = 0; k < n && median == 0; k++) { /* the one with n / 2 below it */
        const double candidate = hypot((double)weight[k], bias ? (double)bias[k] : 0);
        n_less = n_equal = 0;
        for (size_t i = 0; i < n; i++) {
            const double other = hypot((double)weight[i], bias ? (double)bias[i] : 0);
            n_less += other < candidate;
            n_equal += other == candidate;
        }
        if (n_less <= n / 2 && n / 2 < n_less + n_equal)
            median = candidate;
    }
    const double scale = exp2(round(log2(a / median)));
    return a < 4 * median ? 1.0f : (float)(scale > 64 ? 64 : scale);
}

/* A norm, and matrices that read it. */
struct group {
    const char *norm, *readers[3];
};

/* `after` is `before` with the norm divided and the matrices' columns multiplied; both exactly but
 * for what eight bits cost. */
static void check_group(const uint8_t *before, const uint8_t *after, const struct group *group)
{
    char name[FORMAT_NAME_BYTES];
    float *norm[2], *bias[2], scale[256];
    size_t n, n_bias, n_moved = 0;
    snprintf(name, sizeof name, "%s.weight", group->norm);
    norm[0] = values_of(before, name, &n);
    norm[1] = values_of(after, name, &n);
    snprintf(name, sizeof name, "%s.bias", group->norm);
    bias[0] = values_of(before, name, &n_bias);
    bias[1] = values_of(after, name, &n_bias);
    assert_true(n <= 256);
    for (size_t j = 0; j < n; j++) {
        scale[j] = expected_scale(norm[0], bias[0], n, j);
        n_moved += scale[j] != 1;
        if (norm[1][j] * scale[j] != norm[0][j] || (bias[0] && bias[1][j] * scale[j] != bias[0][j]))
            fail_msg("%s: channel %zu was %g and is %g, scale %g", group->norm, j,
                     (double)norm[0][j], (double)norm[1][j], (double)scale[j]);
    }
    assert_true(n_moved >= 2 && scale[3] > 1 && scale[17] > 1 && scale[20] == 1);
    for (size_t i = 0; i < 3 && group->readers[i]; i++) {
        size_t n_values;
        float *exact = values_of(before, group->readers[i], &n_values),
              *packed = values_of(after, group->readers[i], &n_values);
        assert_int_equal(n_values % n, 0);
        for (size_t k = 0; k < n_values; k++)
            exact[k] *= scale[k % n];
        const double error = relative_error(packed, exact, n_values);
        if (!(error < 0.02)) /* a column 32 times the others takes its row's scale */
            fail_msg("%s: relative error %g", group->readers[i], error);
        free(exact);
        free(packed);
    }
    for (int i = 0; i < 2; i++) {
        free(norm[i]);
        free(bias[i]);
    }
}

static const struct group groups[] = {
    {"vision.layers.0.norm1",
     {"vision.layers.0.q.weight", "vision.layers.0.k.weight", "vision.layers.0.v.weight"}},
    {"vision.layers.1.norm2", {"vision.layers.1.fc1.weight"}},
    {"decoder.layers.0.attention_norm",
     {"decoder.layers.0.q.weight", "decoder.layers.0.k.weight", "decoder.layers.0.v.weight"}},
    {"decoder.layers.1.ffn_norm", {"decoder.layers.1.gate.weight", "decoder.layers.1.up.weight"}},
    {"decoder.norm", {"decoder.head.weight"}},
};

/* These read no norm, or one that others read too. */
static const char *const untouched[] = {
    "vision.pre_norm.weight",         "vision.pre_norm.bias",
    "vision.layers.0.out.weight",     "vision.layers.1.fc2.weight",
    "projector.linear.0.weight",      "projector.block.0.norm1.weight",
    "projector.block.1.norm2.weight", "projector.block.1.norm2.bias",
    "decoder.embedding.weight",       "decoder.layers.1.out.weight",
    "decoder.layers.1.down.weight"};

static void expect_same(const uint8_t *a, const uint8_t *b, const char *name, double most)
{
    size_t n;
    float *x = values_of(a, name, &n), *y = values_of(b, name, &n);
    if (!(relative_error(y, x, n) <= most))
        fail_msg("%s differs", name);
    free(x);
    free(y);
}

static void norms_and_columns_move_together(void **state)
{
    (void)state;
    build_outliers("v1");
    uint8_t *before = convert_to("f32", "f32", "1"), *after = convert_to("q8", "q8", "1");
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        check_group(before, after, &groups[i]);
    for (size_t i = 0; i < sizeof untouched / sizeof *untouched; i++)
        expect_same(before, after, untouched[i],
                    entry_of(after, untouched[i])->type == TENSOR_F32 ? 0 : 0.015);
    free(after);
    after = convert_to("q8", "f16", "1"); /* a head of halves reads the norm as it is */
    expect_same(before, after, "decoder.norm.weight", 0);
    check_group(before, after, &groups[3]);
    free(after);
    after = convert_to("q8", "q8", "0");
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        char name[FORMAT_NAME_BYTES];
        snprintf(name, sizeof name, "%s.weight", groups[i].norm);
        expect_same(before, after, name, 0);
    }
    free(after);
    free(before);
}

/* The embedding's rows are what the decoder begins with: they must not be multiplied. */
static void a_tied_head_stays(void **state)
{
    (void)state;
    build_outliers("text");
    uint8_t *before = convert_to("f32", "f32", "1"), *after = convert_to("q8", "q8", "1");
    expect_same(before, after, "decoder.norm.weight", 0);
    expect_same(before, after, "decoder.embedding.weight", 0.015);
    check_group(before, after, &groups[2]);
    free(before);
    free(after);
}

/* Every value, before it is packed: (norm / s) x (column x s) is norm x column, bit for bit. */
static void the_rewrite_is_exact(void **state)
{
    struct origin origin;
    const struct config_changes unchanged = {0};
    mvlm_error error = {0};
    size_t n_checked = 0;
    (void)state;
    build_outliers("v1");
    assert_int_equal(origin_open_checkpoint(checkpoint, NULL, &unchanged, &origin, &error),
                     MVLM_OK);
    struct format_tensor *directory = calloc(origin.n, sizeof *directory);
    schema_place(origin.specs, origin.n, &(struct tensor_types){TENSOR_Q8, TENSOR_Q4, TENSOR_Q8}, 0,
                 directory);
    const float *divisors = NULL; /* of the last norm: its matrices follow it */
    float *norm = NULL, *factors;
    for (size_t i = 0; i < origin.n; i++) {
        const struct tensor_spec *spec = &origin.specs[i];
        const size_t n_rows = (size_t)spec->n_rows, n_cols = (size_t)spec->n_cols;
        assert_int_equal(balance_factors(&origin, directory, i, 0.5, &factors, &error), MVLM_OK);
        assert_int_equal(factors != NULL, balance_applies(&origin, directory, i));
        if (!factors)
            continue;
        float *values = malloc(n_rows * n_cols * sizeof *values);
        origin.read(&origin, i, 0, n_rows, values, &error);
        if (spec->kind == TENSOR_VECTOR) {
            free(norm);
            free((void *)(uintptr_t)divisors);
            norm = values;
            divisors = factors;
            continue;
        }
        for (size_t k = 0; k < n_rows * n_cols; k++) {
            const size_t j = k % n_cols;
            assert_true(divisors[j] * factors[j] == 1);
            assert_true((norm[j] * divisors[j]) * (values[k] * factors[j]) == norm[j] * values[k]);
        }
        n_checked++;
        free(values);
        free(factors);
    }
    assert_int_equal(n_checked, 2 * 4 + 2 * 5 + 1);
    free(norm);
    free((void *)(uintptr_t)divisors);
    free(directory);
    origin_close(&origin);
}

/* ---- What is not quantized ---------------------------------------------------------------- */

static void nothing_changes_without_quantization(void **state)
{
    static const char *const types[] = {"f32", "f16"};
    char other[700];
    snprintf(other, sizeof other, "%s/other.bin", out_folder);
    (void)state;
    build_outliers("v1");
    for (size_t i = 0; i < 2; i++) {
        free(convert_to(types[i], types[i], "1"));
        expect_good(run(WORDS(CONVERT_PROGRAM, checkpoint, "-o", other, "--force", "--type",
                              types[i], "--norm-balance", "0"),
                        NULL),
                    "");
        expect_same_files(model, other);
    }
}

static void the_description_says_how(void **state)
{
    (void)state;
    copy_checkpoint("text");
    assert_true(recorded("convert.norm_balance", WORDS("--force")) == CONVERT_NORM_BALANCE);
    assert_true(recorded("convert.norm_balance",
                         WORDS("--force", "--type", "q8", "--norm-balance", "0.25")) == 0.25);
    assert_true(recorded("convert.norm_balance", WORDS("--force", "--norm-balance", "0")) == -1);
    assert_true(recorded("convert.norm_balance", WORDS("--force", "--type", "f16")) == -1);
    /* no tower, and a head that is tied: nothing there that would be balanced */
    assert_true(recorded("convert.norm_balance", WORDS("--force", "--type", "f16", "--head-type",
                                                       "q8", "--vision-type", "q8")) == -1);
    copy_checkpoint("v2");
    assert_true(recorded("convert.norm_balance",
                         WORDS("--force", "--type", "f16", "--vision-type", "q8")) > 0);
    assert_true(recorded("convert.norm_balance",
                         WORDS("--force", "--type", "f16", "--head-type", "q4")) > 0);
    expect_failure(convert_with(WORDS("--force", "--norm-balance", "1.5")), 2, "--norm-balance", 1);
    expect_failure(convert_with(WORDS("--force", "--norm-balance=-1")), 2, "--norm-balance", 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(exponents_follow_the_formula),
        TEST(norms_and_columns_move_together),
        TEST(a_tied_head_stays),
        TEST(the_rewrite_is_exact),
        TEST(nothing_changes_without_quantization),
        TEST(the_description_says_how),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
