/* mobilevlm-convert's --calibrate: what it changes in a file and what not, that it is the same file
 * every time, and that nothing is left behind when it is stopped. */
#include "convert.h"
#include "convert_fixture.h"
#include "decode.h"
#include "golden.h"

static const char *const cases[] = {"text", "v1", "v2", "two-images"};
enum { N_CASES = sizeof cases / sizeof *cases };

/* Converts and reads the file; the caller frees. */
static uint8_t *convert_to(const char *tokens, const char *type, const char *head_type, size_t *n)
{
    expect_good(convert_with(WORDS("--force", "-q", "--calibrate", tokens, "--type", type,
                                   "--head-type", head_type)),
                "");
    expect_good(run(WORDS(MOBILEVLM_PROGRAM, "verify", "-q", "-m", model), NULL), "");
    assert_int_equal(count_files(out_folder), 1);
    return (uint8_t *)file_load(model, n);
}

static const struct format_tensor *tensor_at(const uint8_t *file, size_t index)
{
    const struct format_header *h = (const void *)file;
    return index < h->n_tensors
               ? (const struct format_tensor *)(const void *)(file + h->directory.offset) + index
               : NULL;
}

/* Of all tensors only those of q4 differ, and in them only scales and values. */
static void compare(const uint8_t *plain, const uint8_t *calibrated)
{
    const struct format_tensor *t;
    size_t n_changed = 0;
    for (size_t i = 0; (t = tensor_at(plain, i)); i++) {
        const struct format_tensor *other = tensor_at(calibrated, i);
        const uint8_t *a = plain + t->range.offset, *b = calibrated + other->range.offset;
        assert_string_equal(t->name, other->name);
        assert_int_equal(t->range.n_bytes, other->range.n_bytes);
        if (t->type != TENSOR_Q4) {
            assert_memory_equal(a, b, t->range.n_bytes);
            continue;
        }
        n_changed++;
        assert_memory_not_equal(a, b, t->range.n_bytes);
        for (size_t at = 0; at < t->range.n_bytes; at += q4_tile_bytes((size_t)t->n_cols))
            assert_memory_equal(a + at + 128, b + at + 128, q4_multiplier_bytes((size_t)t->n_cols));
        float *x = decode_entry(plain, t), *y = decode_entry(calibrated, other);
        assert_true(relative_error(y, x, (size_t)(t->n_rows * t->n_cols)) < 0.2);
        free(x);
        free(y);
    }
    assert_true(n_changed >= 7);
}

static void only_values_and_scales_change(void **state)
{
    static const char *const types[][2] = {{"q4", "q8"}, {"q4", "q4"}};
    size_t n, n_other;
    (void)state;
    for (size_t i = 0; i < N_CASES; i++)
        for (size_t k = 0; k < 2; k++) {
            copy_checkpoint(cases[i]);
            uint8_t *plain = convert_to("0", types[k][0], types[k][1], &n),
                    *calibrated = convert_to("200", types[k][0], types[k][1], &n_other);
            compare(plain, calibrated);
            free(plain);
            free(calibrated);
        }
}

static void pictures_are_answered(void **state)
{
    (void)state;
    for (size_t i = 1; i < N_CASES; i++) {
        copy_checkpoint(cases[i]);
        expect_good(convert_with(WORDS("--force", "-q")), "");
        struct program_result result =
            run(WORDS(MOBILEVLM_PROGRAM, "-m", model, "-i", GOLDEN "/images/portrait.png", "-p",
                      "What?", "-n", "8", "-q"),
                NULL);
        assert_int_equal(result.code, 0);
        assert_true(result.n_out > 1);
        program_free(&result);
    }
}

/* For any number of threads and on every rung. */
static void the_same_file_every_time(void **state)
{
    static const struct {
        const char *isa;
        int n_threads;
    } ways[] = {{NULL, 1}, {NULL, 3}, {"c", 2}};
    uint8_t *first = NULL;
    size_t n = 0, n_first = 0;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        copy_checkpoint(cases[i]);
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            const struct convert_options options = {.types = {TENSOR_Q8, TENSOR_Q4, TENSOR_Q8},
                                                    .norm_balance = CONVERT_NORM_BALANCE,
                                                    .calibration = 300,
                                                    .force = true,
                                                    .n_threads = ways[k].n_threads,
                                                    .isa = ways[k].isa};
            mvlm_error error;
            if (convert(checkpoint, model, &options, NULL, &error) != MVLM_OK)
                fail_msg("%s", error.message);
            uint8_t *file = (uint8_t *)file_load(model, &n);
            if (k == 0) {
                free(first);
                first = file;
                n_first = n;
                continue;
            }
            assert_int_equal(n, n_first);
            assert_memory_equal(file, first, n);
            free(file);
        }
    }
    free(first);
}

static void the_description_says_how(void **state)
{
    (void)state;
    copy_checkpoint("text");
    assert_int_equal((int)recorded("convert.calibration", WORDS("--force")), CONVERT_CALIBRATION);
    assert_int_equal((int)recorded("convert.calibration", WORDS("--force", "--calibrate", "1")), 1);
    assert_int_equal((int)recorded("convert.calibration", WORDS("--force", "--calibrate=0")), -1);
    assert_int_equal((int)recorded("convert.calibration", WORDS("--force", "--type", "q8")), -1);
    assert_int_equal((int)recorded("convert.calibration",
                                   WORDS("--force", "--type", "f32", "--calibrate", "50")),
                     -1);
    copy_checkpoint("v1");
    assert_int_equal(
        (int)recorded("convert.calibration", WORDS("--force", "--type", "q8", "--head-type", "q4")),
        CONVERT_CALIBRATION);
}

static void refuses_wrong_numbers(void **state)
{
    static const char *const wrong[] = {"-1", "x", "1.5", ""};
    (void)state;
    copy_checkpoint("text");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char word[32];
        snprintf(word, sizeof word, "--calibrate=%s", wrong[i]);
        expect_failure(convert_with(WORDS(word)), 2, "--calibrate", 0);
    }
    expect_failure(
        run(WORDS(CONVERT_PROGRAM, "--random", "v2-1.7b", "-o", model, "--calibrate", "9"), NULL),
        2, "--calibrate", 0);
}

/* So many tokens are never read in time: the signal comes while the plain file lies there, whole. */
static void signals_leave_nothing(void **state)
{
    (void)state;
    copy_checkpoint("v1");
    expect_signals_leave_nothing("0.5", "--calibrate", "100000000");
}

/* Stops once so much of the work is done. */
struct stop_at {
    double share;
    volatile sig_atomic_t stop;
};
static void stop_there(void *user, double share)
{
    struct stop_at *at = user;
    assert_true(share >= 0 && share <= 1);
    if (share >= at->share)
        at->stop = 1;
}

/* While the plain file is written, while it is calibrated, while it is rounded anew. */
static void stopping_leaves_nothing(void **state)
{
    static const double shares[] = {0, 0.4, 0.6, 0.8, 0.95};
    (void)state;
    copy_checkpoint("text");
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        struct stop_at at = {.share = shares[i]};
        const struct convert_options options = {.types = {TENSOR_Q8, TENSOR_Q4, TENSOR_Q8},
                                                .calibration = 1000,
                                                .n_threads = 1,
                                                .stop = &at.stop,
                                                .progress = stop_there,
                                                .progress_user = &at};
        mvlm_error error;
        assert_int_equal(convert(checkpoint, model, &options, NULL, &error), MVLM_CANCELLED);
        assert_int_equal(count_files(out_folder), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(only_values_and_scales_change), TEST(pictures_are_answered),
        TEST(the_same_file_every_time),      TEST(the_description_says_how),
        TEST(refuses_wrong_numbers),         TEST(signals_leave_nothing),
        TEST(stopping_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
