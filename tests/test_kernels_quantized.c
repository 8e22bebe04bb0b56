/* What kernels/c/quantized.c, pack.c and gemm_int.c mean, against plain arithmetic: tiles by a
 * decoder of models/FORMAT.md's picture, products by sums of integers, attention by softmax in
 * double. TEST_SEED=... repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "../kernels/kernels.h"
#include "support/seed.h"

enum { TILE = 32, MOST_K = 288, MOST_ROWS = 7 };

static const struct kernels *c_rung;
static float columns[MOST_K * TILE], scratch[2 * MOST_K];
static _Alignas(64) uint8_t tile[128 + MOST_K * TILE];
/* a tile, decoded: column c's value for input k is scales[c] x integers[k][c] */
static int32_t integers[MOST_K][TILE];
static float scales[TILE];

/* ---- Packing ---------------------------------------------------------------------------- */

static double gaussian(void)
{
    const double u = ((double)random_bits() + 1) * 0x1p-64, v = (double)random_bits() * 0x1p-64;
    return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979 * v);
}

static void gaussian_columns(size_t n_k)
{
    for (size_t i = 0; i < n_k * TILE; i++) /* each column with a spread of its own */
        columns[i] = (float)(gaussian() * ldexp(1, (int)(i % TILE) - 16));
}

static void decode_q8(size_t n_k)
{
    memcpy(scales, tile, sizeof scales);
    for (size_t k = 0; k < n_k; k++)
        for (size_t c = 0; c < TILE; c++)
            integers[k][c] = tile[128 + k / 4 * 128 + c * 4 + k % 4] - 128;
}

static int32_t some_multiplier(size_t n_groups, size_t g, size_t c)
{
    const uint8_t *magnitudes = tile + 128 + g * 16, *signs = tile + 128 + n_groups * 16 + g * 4;
    const int32_t magnitude = magnitudes[c % 16] >> (c < 16 ? 0 : 4) & 15;
    return signs[c / 8] >> c % 8 & 1 ? -magnitude : magnitude;
}

static void decode_q4(size_t n_k)
{
    const size_t n_groups = n_k / 32, n_multipliers = (n_groups * 20 + 63) / 64 * 64;
    memcpy(scales, tile, sizeof scales);
    for (size_t k = 0; k < n_k; k++)
        for (size_t c = 0; c < TILE; c++) {
            const int byte = tile[128 + n_multipliers + k / 4 * 64 + c % 16 * 4 + k % 4];
            const int high = byte >> 4 < 8 ? byte >> 4 : (byte >> 4) - 16;
            integers[k][c] = some_multiplier(n_groups, k / 32, c) * (c < 16 ? byte % 16 - 8 : high);
        }
}

struct format {
    double (*pack)(size_t n_k);
    void (*decode)(size_t n_k);
    double rms; /* relative error allowed for Gaussian values */
    int32_t most;
};

static double pack_q8(size_t n_k)
{
    return c_rung->pack_q8(tile, columns, n_k);
}

static double pack_q4(size_t n_k)
{
    return c_rung->pack_q4(tile, columns, n_k, scratch);
}

static const struct format q8 = {pack_q8, decode_q8, 0.007, 127};
static const struct format q4 = {pack_q4, decode_q4, 0.084, 120};

/* Columns are near what they were, each by itself; the sum of the errors is what was returned. */
static void packing_keeps_values(void **state)
{
    const struct format *format = *state;
    for (size_t n_k = 32; n_k <= MOST_K; n_k += 64) {
        gaussian_columns(n_k);
        const double reported = format->pack(n_k);
        double all = 0;
        format->decode(n_k);
        for (size_t c = 0; c < TILE; c++) {
            double error = 0, energy = 0;
            for (size_t k = 0; k < n_k; k++) {
                const double value = (double)columns[k * TILE + c];
                const double off = value - (double)scales[c] * integers[k][c];
                assert_in_range(integers[k][c] + format->most, 0, 2 * format->most);
                error += off * off;
                energy += value * value;
            }
            if (sqrt(error / energy) > format->rms * 2) /* a column of few inputs may be unlucky */
                fail_msg("column %zu of %zu inputs: %.3g off; TEST_SEED=%llu", c, n_k,
                         sqrt(error / energy), seed_value());
            all += error;
        }
        assert_true(fabs(all - reported) <= 1e-4 * all);
    }
}

/* All columns of one spread: the mean error. (More inputs have larger outliers: 0.8 % at 2048.) Of many tiles, whatever the
 * seed: single ones spread by 1.5 % (q4), 2.4 % (q8). */
static void packing_is_fine_enough(void **state)
{
    const struct format *format = *state;
    const size_t n_k = 128, n_tiles = 64;
    double energy = 0, error = 0;
    for (size_t t = 0; t < n_tiles; t++) {
        for (size_t i = 0; i < n_k * TILE; i++) {
            columns[i] = (float)(gaussian() * 0.02);
            energy += (double)columns[i] * (double)columns[i];
        }
        error += format->pack(n_k);
    }
    const double rms = sqrt(error / energy);
    if (!(rms < format->rms && rms > 0))
        fail_msg("relative error %.6f; TEST_SEED=%llu", rms, seed_value());
}

static void zeros_stay_zeros(void **state)
{
    const struct format *format = *state;
    gaussian_columns(MOST_K);
    for (size_t k = 0; k < MOST_K; k++)
        for (size_t c = 0; c < TILE; c++)
            if (c % 3 == 0 || k % 5 == 0 || (c % 3 == 1 && k / 32 == 2))
                columns[k * TILE + c] = 0.0f;
    format->pack(MOST_K);
    format->decode(MOST_K);
    for (size_t k = 0; k < MOST_K; k++)
        for (size_t c = 0; c < TILE; c++)
            if (columns[k * TILE + c] == 0.0f)
                assert_true(scales[c] * (float)integers[k][c] == 0.0f);
    for (size_t c = 0; c < TILE; c++)
        assert_true(isfinite(scales[c]));
}

/* ---- Rows and products ------------------------------------------------------------------ */

static int8_t values[MOST_ROWS][MOST_K];
static float row_scale[MOST_ROWS];
static int32_t row_sum[MOST_ROWS], group_sum[MOST_ROWS * MOST_K / 32];
static const struct q8_rows rows = {values[0], MOST_K, row_scale, row_sum, group_sum};

static void products_are_sums(void **state)
{
    const struct format *format = *state;
    static int32_t y[MOST_ROWS * TILE];
    static float x[MOST_ROWS * MOST_K];
    for (size_t n_k = 32; n_k <= MOST_K; n_k += 32) {
        gaussian_columns(n_k);
        random_floats(x, MOST_ROWS * n_k, 3);
        format->pack(n_k);
        format->decode(n_k);
        c_rung->quantize_rows(&rows, x, PRECISION_SINGLE, n_k, MOST_ROWS, n_k);
        if (format == &q8)
            c_rung->gemm_q8(y, TILE, &rows, MOST_ROWS, tile + 128, n_k, NULL, 0);
        else
            c_rung->gemm_q4(y, TILE, &rows, MOST_ROWS, tile, NULL, n_k, NULL, 0);
        for (size_t i = 0; i < MOST_ROWS * TILE; i++) {
            int32_t sum = 0;
            for (size_t k = 0; k < n_k; k++)
                sum += values[i / TILE][k] * integers[k][i % TILE];
            assert_int_equal(y[i], sum);
        }
    }
}

static void check_row(size_t r, const float *x, size_t n)
{
    int32_t sum = 0;
    float most = 0.0f;
    for (size_t k = 0; k < n; k++)
        most = fmaxf(most, fabsf(x[k]));
    assert_true(fabsf(row_scale[r] - most / 127.0f) <= 1e-6f * most);
    for (size_t k = 0; k < (n + 31) / 32 * 32; k++) {
        const double value = (double)row_scale[r] * values[r][k];
        const double off = fabs(value - (k < n ? (double)x[k] : 0.0));
        if (off > 0.50001 * (double)row_scale[r])
            fail_msg("%.9g became %.9g, step %.9g; TEST_SEED=%llu", (double)x[k], value,
                     (double)row_scale[r], seed_value());
        sum += values[r][k];
    }
    assert_int_equal(row_sum[r], sum);
}

static void rows_within_half_a_step(void **state)
{
    (void)state;
    static float x[3 * MOST_K];
    for (size_t n = 1; n <= MOST_K; n += 13) {
        const size_t n_groups = (n + 31) / 32;
        for (size_t i = 0; i < 3 * n;
             i++) /* the second row is zeros, the third one has an outlier */
            x[i] = i / n == 1 ? 0.0f : (float)gaussian();
        x[3 * n - 1] *= 100.0f;
        memset(values, 77, sizeof values);
        c_rung->quantize_rows(&rows, x, PRECISION_SINGLE, n, 3, n);
        for (size_t r = 0; r < 3; r++) {
            check_row(r, x + r * n, n);
            int32_t sum = 0;
            for (size_t g = 0; g < n_groups; g++)
                sum += group_sum[r * n_groups + g];
            assert_int_equal(sum, row_sum[r]);
        }
        assert_true(row_scale[1] == 0.0f);
    }
}

/* What is not finite does not vanish: the row becomes zeros whose scale tells. */
static void rows_not_finite(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float x[3][33] = {{0}};
    for (size_t r = 0; r < 3; r++) {
        random_floats(x[r], 33, 1);
        x[r][11 * r + 5] = bad[r];
    }
    c_rung->quantize_rows(&rows, x[0], PRECISION_SINGLE, 33, 3, 33);
    for (size_t r = 0; r < 3; r++) {
        assert_true(!isfinite(row_scale[r]));
        assert_int_equal(row_sum[r], 0);
        for (size_t k = 0; k < 64; k++)
            assert_int_equal(values[r][k], 0);
    }
}

/* Halves are the floats that they stand for. */
static void halves_are_quantized_like_floats(void **state)
{
    (void)state;
    static float x[3 * MOST_K];
    static uint16_t halves[3 * MOST_K];
    static int8_t expected[MOST_ROWS][MOST_K];
    static int32_t expected_groups[3 * MOST_K / 32];
    float expected_scale[3];
    for (size_t n = 1; n <= MOST_K; n += 13) {
        const size_t n_k = (n + 31) / 32 * 32;
        random_floats(x, 3 * n, 100);
        c_rung->f32_to_f16(halves, x, 3 * n);
        c_rung->f16_to_f32(x, halves, 3 * n);
        c_rung->quantize_rows(&rows, x, PRECISION_SINGLE, n, 3, n);
        memcpy(expected, values, sizeof expected);
        memcpy(expected_scale, row_scale, sizeof expected_scale);
        memcpy(expected_groups, group_sum, 3 * n_k / 32 * sizeof *group_sum);
        memset(values, 77, sizeof values);
        c_rung->quantize_rows(&rows, halves, PRECISION_HALF, n, 3, n);
        for (size_t r = 0; r < 3; r++)
            assert_memory_equal(values[r], expected[r], n_k);
        assert_memory_equal(row_scale, expected_scale, sizeof expected_scale);
        assert_memory_equal(group_sum, expected_groups, 3 * n_k / 32 * sizeof *group_sum);
    }
}

static void finish_is_its_formula(void **state)
{
    (void)state;
    int32_t sums[2 * TILE];
    float w[TILE], bias[TILE], factor[2 * TILE], residual[2 * TILE], y[2 * TILE];
    const float x_scale[] = {0.013f, 2.5f};
    const struct finish how = {.x_scale = x_scale,
                               .w_scale = w,
                               .bias = bias,
                               .activation = ACTIVATION_RELU,
                               .multiply = factor,
                               .residual = residual};
    random_floats(w, TILE, 0.01f);
    random_floats(bias, TILE, 3);
    random_floats(factor, 2 * TILE, 2);
    random_floats(residual, 2 * TILE, 2);
    for (size_t i = 0; i < 2 * TILE; i++)
        sums[i] = (int32_t)(random_bits() % 200001) - 100000;
    c_rung->finish(y, TILE, sums, 2, TILE, &how);
    for (size_t i = 0; i < 2 * TILE; i++) {
        const double product = sums[i] * (double)x_scale[i / TILE] * (double)w[i % TILE];
        const double active = fmax(product + (double)bias[i % TILE], 0);
        const double expected = active * (double)factor[i] + (double)residual[i];
        const double bound = 4e-7 * (fabs(product) * fabs((double)factor[i]) + 10);
        assert_true(fabs((double)y[i] - expected) <= bound);
    }
}

/* The same numbers, rounded; what no half can hold becomes its largest, and NaN stays NaN. */
static void finish_stores_halves(void **state)
{
    (void)state;
    enum { NAN_AT = 3, LARGE = 5, LARGE_NEGATIVE = 20 };
    int32_t sums[TILE];
    float w[TILE], single[TILE];
    uint16_t halves[TILE], expected[TILE];
    const float x_scale = 1.5f;
    struct finish how = {.x_scale = &x_scale, .w_scale = w};
    random_floats(w, TILE, 0.01f);
    for (size_t i = 0; i < TILE; i++)
        sums[i] = (int32_t)(random_bits() % 200001) - 100000;
    w[NAN_AT] = NAN;
    w[LARGE] = w[LARGE_NEGATIVE] = 1e30f;
    sums[LARGE] = 1;
    sums[LARGE_NEGATIVE] = -1;
    c_rung->finish(single, TILE, sums, 1, TILE, &how);
    how.precision = PRECISION_HALF;
    c_rung->finish(halves, TILE, sums, 1, TILE, &how);
    c_rung->f32_to_f16(expected, single, TILE);
    expected[LARGE] = 0x7bff;
    expected[LARGE_NEGATIVE] = 0xfbff;
    for (size_t i = 0; i < TILE; i++)
        if (i == NAN_AT)
            assert_true((halves[i] & 0x7fff) > 0x7c00);
        else
            assert_int_equal(halves[i], expected[i]);
}

/* ---- Attention -------------------------------------------------------------------------- */

/* n keys and values as the cache has them: integers with a scale each. */
struct heads {
    int32_t products[MOST_K];
    float key_scale[MOST_K], value_scale[MOST_K];
    double weight[MOST_K]; /* softmax */
};

static void random_heads(struct heads *h, size_t n, float factor)
{
    double sum = 0, most = -INFINITY;
    for (size_t t = 0; t < n; t++) {
        h->products[t] = (int32_t)(random_bits() % 100001) - 50000;
        h->key_scale[t] = random_float(0.01f) + 0.011f;
        h->value_scale[t] = random_float(0.01f) + 0.011f;
        h->weight[t] = h->products[t] * (double)h->key_scale[t] * (double)factor;
        most = fmax(most, h->weight[t]);
    }
    for (size_t t = 0; t < n; t++)
        sum += h->weight[t] = exp(h->weight[t] - most);
    for (size_t t = 0; t < n; t++)
        h->weight[t] /= sum;
}

/* Weights of 14 bits, within half a step; the output by them, within what their steps sum up to. */
static void attention_is_softmax(void **state)
{
    (void)state;
    static struct heads h;
    static float scores[MOST_K];
    const float factor = 0.01f;
    for (size_t n = 1; n <= MOST_K; n = n < 40 ? n + 1 : n + 31) {
        const size_t n_padded = (n + 31) / 32 * 32;
        int32_t sums[2 * TILE];
        float y[TILE];
        random_heads(&h, n, factor);
        memset(values, 77, sizeof values);
        c_rung->attention_weights(&rows, scores, h.products, factor, h.key_scale, h.value_scale, n,
                                  n_padded);
        assert_true(row_scale[0] == row_scale[1]);
        const double step = (double)row_scale[0];
        for (size_t t = 0; t < n_padded; t++) {
            const double expected = t < n ? h.weight[t] * (double)h.value_scale[t] : 0;
            const double got = step * (128 * values[0][t] + values[1][t]);
            assert_true(values[0][t] >= 0 && values[1][t] >= 0);
            assert_true(t < n || got == 0);
            assert_true(fabs(got - expected) <= 0.55 * step + 2e-5 * expected);
        }
        for (size_t i = 0; i < n_padded * TILE; i++)
            tile[i] = (uint8_t)(1 + random_bits() % 255);
        c_rung->gemm_q8(sums, TILE, &rows, 2, tile, n_padded, NULL, 0);
        c_rung->attention_output(y, TILE, sums, row_scale, 1, TILE);
        for (size_t c = 0; c < TILE; c++) {
            double expected = 0, size = 0;
            for (size_t t = 0; t < n; t++) {
                const double v =
                    (double)h.value_scale[t] * (tile[t / 4 * 128 + c * 4 + t % 4] - 128);
                expected += h.weight[t] * v;
                size += h.weight[t] * fabs(v);
            }
            assert_true(fabs((double)y[c] - expected) <=
                        0.55 * step * 127 * (double)n + 3e-5 * size);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, seed_restart)
#define FORMAT_TEST(name, format)                                                                  \
    {                                                                                              \
#name " " #format, name, seed_restart, NULL, (void *)(uintptr_t)&format                    \
    }
    const struct CMUnitTest tests[] = {
        FORMAT_TEST(packing_keeps_values, q8),
        FORMAT_TEST(packing_keeps_values, q4),
        FORMAT_TEST(packing_is_fine_enough, q8),
        FORMAT_TEST(packing_is_fine_enough, q4),
        FORMAT_TEST(zeros_stay_zeros, q8),
        FORMAT_TEST(zeros_stay_zeros, q4),
        FORMAT_TEST(products_are_sums, q8),
        FORMAT_TEST(products_are_sums, q4),
        TEST(rows_within_half_a_step),
        TEST(rows_not_finite),
        TEST(halves_are_quantized_like_floats),
        TEST(finish_is_its_formula),
        TEST(finish_stores_halves),
        TEST(attention_is_softmax),
    };
    bool known;
    c_rung = kernels_choose("c", &known);
    seed_choose();
    return cmocka_run_group_tests_name("kernels/c/quantized.c", tests, NULL, NULL);
}
