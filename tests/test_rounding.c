/* tools/convert/rounding.c against plain rounding and against GPTQ written down as published, in
 * double. TEST_SEED=... repeats a run. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "rounding.h"
#include "seed.h"

enum { TILE = KERNEL_TILE, BLOCK = ROUNDING_BLOCK, MOST_K = 320, N_ROWS = 400 };

static const struct kernels *best;
static float rows[N_ROWS * MOST_K], columns[MOST_K * TILE], moments[MOST_K * BLOCK];
static float scratch[N_ROWS * (MOST_K + TILE)];
static _Alignas(64) uint8_t plain[128 + MOST_K * TILE], tile[128 + MOST_K * TILE];

static int open_kernels(void **state)
{
    bool known;
    seed_choose();
    best = kernels_choose(NULL, &known);
    return seed_restart(state);
}

/* ---- Inputs ----------------------------------------------------------------------------- */

/* Rows whose neighbouring inputs have most in common. */
static void correlated_rows(size_t n)
{
    for (size_t r = 0; r < N_ROWS; r++)
        for (size_t k = 0; k < n; k++)
            rows[r * n + k] = random_float(0.4f) + (k ? 0.95f * rows[r * n + k - 1] : 0.0f);
}

/* Weights of n inputs, zeros up to a multiple of 32; packed as pack_q4 does it. */
static void random_tile(size_t n)
{
    memset(columns, 0, sizeof columns);
    random_floats(columns, n * TILE, 1.0f);
}

static void pack_plainly(size_t n)
{
    static float search[2 * MOST_K];
    best->pack_q4(plain, columns, (size_t)aligned(n, KERNEL_GROUP), search);
    memcpy(tile, plain, sizeof tile);
}

static void sum_moments(size_t n)
{
    memset(moments, 0, sizeof moments);
    moments_add(best, moments, rows, N_ROWS, n, scratch);
}

static void round_with(const struct kernels *kernels, size_t n)
{
    float *feedback;
    mvlm_error error;
    struct team *team = team_open(2);
    assert_non_null(team);
    if (rounding_feedback(moments, n, team, &feedback, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    team_close(team);
    rounding_apply(kernels, tile, columns, n, feedback);
    free(feedback);
}

static int value_of(const void *packed, size_t n_k, size_t k, size_t c)
{
    const uint8_t byte = q4_lines(packed, n_k)[k / 4 * 64 + c % 16 * 4 + k % 4];
    return c < 16 ? (byte & 15) - 8 : (int8_t)byte >> 4;
}

/* Multipliers are those of the plain tile, padding is 0, and scales are good. */
static void check_form(size_t n)
{
    const size_t n_k = (size_t)aligned(n, KERNEL_GROUP);
    assert_memory_equal(tile + 128, plain + 128, q4_multiplier_bytes(n_k));
    for (size_t c = 0; c < TILE; c++) {
        const float scale = ((const struct tile_scales *)(const void *)tile)->scale[c];
        assert_true(isfinite(scale) && scale >= 0);
        for (size_t k = n; k < n_k; k++)
            assert_int_equal(value_of(tile, n_k, k, c), 0);
    }
}

/* What column c's errors cost: their squares, times the rows, block by block. */
static double cost(const void *packed, size_t n, size_t c)
{
    const size_t n_k = (size_t)aligned(n, KERNEL_GROUP);
    double sum = 0;
    for (size_t first = 0; first < n; first += BLOCK)
        for (size_t r = 0; r < N_ROWS; r++) {
            double error = 0;
            for (size_t k = first; k < n && k < first + BLOCK; k++)
                error += (double)rows[r * n + k] *
                         (double)(columns[k * TILE + c] - q4_value(packed, n_k, k, c));
            sum += error * error;
        }
    return sum;
}

/* ---- Against plain rounding ------------------------------------------------------------- */

static void costs_less_than_plain_rounding(void **state)
{
    static const size_t lengths[] = {31, 32, 33, 100, 172, 256, 257, 300, 320};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const size_t n = lengths[i];
        double before = 0, after = 0;
        correlated_rows(n);
        random_tile(n);
        pack_plainly(n);
        sum_moments(n);
        round_with(best, n);
        check_form(n);
        for (size_t c = 0; c < TILE; c++) {
            const double old = cost(plain, n, c), new = cost(tile, n, c);
            if (n >= 172 && !(new < old)) /* of a few inputs some are rounded as well plainly */
                fail_msg("%zu inputs, column %zu: %g, plainly %g", n, c, new, old);
            before += old;
            after += new;
        }
        if (!(after < 0.6 * before))
            fail_msg("%zu inputs: %g, plainly %g", n, after, before);
    }
}

/* Inputs that have nothing in common: the values are the plain ones, and the scale suits them best. */
static void independent_inputs_are_rounded_plainly(void **state)
{
    enum { N = 300 };
    const size_t n_k = (size_t)aligned(N, KERNEL_GROUP);
    (void)state;
    memset(rows, 0, sizeof rows);
    for (size_t k = 0; k < N; k++)
        rows[k * N + k] = 3;
    random_tile(N);
    pack_plainly(N);
    sum_moments(N);
    round_with(best, N);
    check_form(N);
    for (size_t c = 0; c < TILE; c++) {
        for (size_t k = 0; k < N; k++)
            assert_int_equal(value_of(tile, n_k, k, c), value_of(plain, n_k, k, c));
        assert_true(cost(tile, N, c) <= cost(plain, N, c) * (1 + 1e-5));
    }
}

/* ---- Against GPTQ ----------------------------------------------------------------------- */

enum { GPTQ_N = 100 };

/* Upper triangular U with U^T U = inverse of h, which is destroyed. */
static void inverse_factor(double h[GPTQ_N][GPTQ_N], double u[GPTQ_N][GPTQ_N])
{
    static double inverse[GPTQ_N][GPTQ_N];
    for (size_t i = 0; i < GPTQ_N; i++)
        for (size_t j = 0; j < GPTQ_N; j++)
            inverse[i][j] = i == j;
    for (size_t i = 0; i < GPTQ_N; i++) { /* Gauss and Jordan */
        const double pivot = h[i][i];
        for (size_t j = 0; j < GPTQ_N; j++) {
            h[i][j] /= pivot;
            inverse[i][j] /= pivot;
        }
        for (size_t r = 0; r < GPTQ_N; r++) {
            const double factor = h[r][i];
            for (size_t j = 0; j < GPTQ_N && r != i; j++) {
                h[r][j] -= factor * h[i][j];
                inverse[r][j] -= factor * inverse[i][j];
            }
        }
    }
    for (size_t i = 0; i < GPTQ_N; i++) /* Cholesky */
        for (size_t j = i; j < GPTQ_N; j++) {
            double sum = inverse[i][j];
            for (size_t k = 0; k < i; k++)
                sum -= u[k][i] * u[k][j];
            u[i][j] = i == j ? sqrt(sum) : sum / u[i][i];
        }
}

/* The damped moments of `rows`. */
static void damped_moments(double h[GPTQ_N][GPTQ_N])
{
    double mean = 0;
    for (size_t i = 0; i < GPTQ_N; i++)
        for (size_t j = 0; j < GPTQ_N; j++) {
            h[i][j] = 0;
            for (size_t r = 0; r < N_ROWS; r++)
                h[i][j] += (double)rows[r * GPTQ_N + i] * (double)rows[r * GPTQ_N + j];
        }
    for (size_t i = 0; i < GPTQ_N; i++)
        mean += h[i][i] / GPTQ_N;
    for (size_t i = 0; i < GPTQ_N; i++)
        h[i][i] += 0.3 * mean;
}

/* One column's values, spreading each error over the weights that follow. */
static void gptq(double u[GPTQ_N][GPTQ_N], size_t c, int values[GPTQ_N])
{
    const size_t n_k = (size_t)aligned(GPTQ_N, KERNEL_GROUP);
    const float scale = ((const struct tile_scales *)(const void *)plain)->scale[c];
    double w[GPTQ_N];
    for (size_t k = 0; k < GPTQ_N; k++)
        w[k] = (double)columns[k * TILE + c];
    for (size_t k = 0; k < GPTQ_N; k++) {
        const double step = (double)scale * q4_multiplier(plain, n_k, k / KERNEL_GROUP, c);
        values[k] = step == 0 ? 0 : (int)fmin(fmax(nearbyint(w[k] / step), -8), 7);
        const double error = (w[k] - step * values[k]) / u[k][k];
        for (size_t j = k + 1; j < GPTQ_N; j++)
            w[j] -= error * u[k][j];
    }
}

/* The scale that makes the damped cost least. */
static double best_scale(double h[GPTQ_N][GPTQ_N], size_t c, const int values[GPTQ_N])
{
    const size_t n_k = (size_t)aligned(GPTQ_N, KERNEL_GROUP);
    double b[GPTQ_N], wb = 0, bb = 0;
    for (size_t k = 0; k < GPTQ_N; k++)
        b[k] = q4_multiplier(plain, n_k, k / KERNEL_GROUP, c) * values[k];
    for (size_t i = 0; i < GPTQ_N; i++)
        for (size_t j = 0; j < GPTQ_N; j++) {
            wb += (double)columns[i * TILE + c] * h[i][j] * b[j];
            bb += b[i] * h[i][j] * b[j];
        }
    return wb / bb;
}

/* A value beside a tie may fall to the other side in single precision, and all behind it differ. */
static void gives_what_gptq_gives(void **state)
{
    static double h[GPTQ_N][GPTQ_N], destroyed[GPTQ_N][GPTQ_N], u[GPTQ_N][GPTQ_N];
    const size_t n_k = (size_t)aligned(GPTQ_N, KERNEL_GROUP);
    size_t n_same = 0;
    (void)state;
    correlated_rows(GPTQ_N);
    random_tile(GPTQ_N);
    pack_plainly(GPTQ_N);
    sum_moments(GPTQ_N);
    round_with(best, GPTQ_N);
    damped_moments(h);
    memcpy(destroyed, h, sizeof h);
    inverse_factor(destroyed, u);
    for (size_t c = 0; c < TILE; c++) {
        int values[GPTQ_N];
        bool same = true;
        gptq(u, c, values);
        for (size_t k = 0; k < GPTQ_N; k++)
            same = same && values[k] == value_of(tile, n_k, k, c);
        if (!same)
            continue;
        const double scale = best_scale(h, c, values),
                     got = (double)((const struct tile_scales *)(const void *)tile)->scale[c];
        if (!(fabs(got - scale) <= 1e-5 * scale))
            fail_msg("column %zu: scale %.9g, expected %.9g", c, got, scale);
        n_same++;
    }
    assert_true(n_same >= TILE - 4);
}

/* ---- What is missing -------------------------------------------------------------------- */

static void zeros_stay(void **state)
{
    enum { N = 128 };
    double before = 0, after = 0;
    (void)state;
    correlated_rows(N);
    random_tile(N);
    for (size_t k = 0; k < N; k++) {
        columns[k * TILE + 5] = columns[k * TILE + 31] = 0;
        if (k / KERNEL_GROUP == 1) /* their multiplier becomes 0 */
            columns[k * TILE + 7] = columns[k * TILE + 20] = 0;
    }
    pack_plainly(N);
    sum_moments(N);
    round_with(best, N);
    check_form(N);
    assert_int_equal(q4_multiplier(plain, N, 1, 7), 0);
    for (size_t k = 0; k < N; k++) {
        assert_int_equal(value_of(tile, N, k, 5), 0);
        assert_int_equal(value_of(tile, N, k, 31), 0);
        if (k / KERNEL_GROUP == 1) {
            assert_int_equal(value_of(tile, N, k, 7), 0);
            assert_int_equal(value_of(tile, N, k, 20), 0);
        }
    }
    assert_true(cost(tile, N, 5) == 0 && cost(tile, N, 31) == 0);
    for (size_t c = 0; c < TILE; c++) {
        before += cost(plain, N, c);
        after += cost(tile, N, c);
    }
    assert_true(after < 0.6 * before);
}

/* Inputs that were always zero are rounded plainly; of a block of such, and of one that was not
 * finite, nothing is known. */
static void unseen_inputs_change_nothing(void **state)
{
    enum { N = 300 };
    static const float odd[] = {0, (float)NAN, INFINITY, 1e30f};
    (void)state;
    correlated_rows(N);
    for (size_t r = 0; r < N_ROWS; r++)
        for (size_t k = 0; k < N; k++)
            rows[r * N + k] = k % 3 == 0 || k >= BLOCK ? 0 : rows[r * N + k];
    random_tile(N);
    pack_plainly(N);
    sum_moments(N);
    round_with(best, N);
    check_form(N);
    const size_t n_k = (size_t)aligned(N, KERNEL_GROUP);
    for (size_t c = 0; c < TILE; c++) {
        assert_true(cost(tile, N, c) < cost(plain, N, c));
        for (size_t k = 0; k < N; k++)
            if (k % 3 == 0 || k >= BLOCK)
                assert_int_equal(value_of(tile, n_k, k, c), value_of(plain, n_k, k, c));
    }
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        for (size_t k = 0; k < N * N_ROWS; k++)
            rows[k] = odd[i];
        memcpy(tile, plain, sizeof tile);
        sum_moments(N);
        round_with(best, N);
        assert_memory_equal(tile, plain, sizeof tile);
    }
}

/* ---- The same bits ---------------------------------------------------------------------- */

static void moments_are_sums_of_products(void **state)
{
    static const size_t lengths[] = {1, 31, 33, 300};
    static float parts[MOST_K * BLOCK];
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const size_t n = lengths[i];
        random_floats(rows, N_ROWS * n, 2.0f);
        sum_moments(n);
        memset(parts, 0, sizeof parts);
        for (size_t r = 0; r < N_ROWS; r += 25)
            moments_add(best, parts, rows + r * n, 25, n, scratch);
        for (size_t k = 0; k < n; k++)
            for (size_t j = k / BLOCK * BLOCK; j <= k; j++) {
                const size_t at = k * BLOCK + j % BLOCK;
                double sum = 0;
                for (size_t r = 0; r < N_ROWS; r++)
                    sum += (double)rows[r * n + k] * (double)rows[r * n + j];
                assert_true(parts[at] == moments[at]);
                assert_true(fabs((double)moments[at] - sum) < 1e-3 * N_ROWS);
            }
    }
}

static void all_rungs_give_the_same_bits(void **state)
{
    enum { N = 300 };
    static uint8_t first[sizeof tile];
    const char *isa;
    bool has, known;
    size_t n_rungs = 0;
    (void)state;
    correlated_rows(N);
    random_tile(N);
    pack_plainly(N);
    for (size_t i = 0; (isa = kernels_rung(i, &has)); i++) {
        const struct kernels *kernels = has ? kernels_choose(isa, &known) : NULL;
        if (!kernels)
            continue;
        memset(moments, 0, sizeof moments);
        moments_add(kernels, moments, rows, N_ROWS, N, scratch);
        memcpy(tile, plain, sizeof tile);
        round_with(kernels, N);
        if (n_rungs++ == 0)
            memcpy(first, tile, sizeof tile);
        assert_memory_equal(tile, first, sizeof tile);
    }
    assert_true(n_rungs >= 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, seed_restart)
    const struct CMUnitTest tests[] = {
        TEST(costs_less_than_plain_rounding), TEST(independent_inputs_are_rounded_plainly),
        TEST(gives_what_gptq_gives),          TEST(zeros_stay),
        TEST(unseen_inputs_change_nothing),   TEST(moments_are_sums_of_products),
        TEST(all_rungs_give_the_same_bits),
    };
    return cmocka_run_group_tests_name("rounding", tests, open_kernels, NULL);
}
