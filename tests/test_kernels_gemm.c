/* Halves and matrix products as kernels/c computes them: conversions against arithmetic in double,
 * products against plain loops, bit for bit. TEST_SEED=... repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <string.h>

#include "../kernels/kernels.h"
#include "support/bits.h"
#include "support/seed.h"

static const struct kernels *c_rung;

/* ---- Halves ----------------------------------------------------------------------------- */

/* IEEE 754 binary16: sign, 5 bits of exponent, 10 of fraction */
static double value_of_half(unsigned half)
{
    const int exponent = (int)(half >> 10 & 31), fraction = (int)(half & 1023);
    double value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    if (exponent == 31)
        value = fraction ? (double)NAN : (double)INFINITY;
    return half & 0x8000 ? -value : value;
}

/* Nearest half, ties to even: nearbyint in units of the half's last place. */
static unsigned half_of_value(double value)
{
    const double a = fabs(value);
    const unsigned sign = signbit(value) ? 0x8000 : 0;
    int exponent;
    if (isnan(value))
        return sign | 0x7e00;
    if (a >= 65520) /* half way from the largest half to 2^16 */
        return sign | 0x7c00;
    if (a < 0x1p-14)
        return sign | (unsigned)nearbyint(a * 0x1p24);
    frexp(a, &exponent); /* a = [0.5, 1) x 2^exponent */
    const double places = nearbyint(ldexp(a, 11 - exponent));
    return sign | (((unsigned)(exponent + 13) << 10) + (unsigned)places);
}

static void half_to_single_all(void **state)
{
    (void)state;
    static uint16_t halves[65536];
    static float singles[65536];
    for (size_t i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    c_rung->f16_to_f32(singles, halves, 65536);
    for (unsigned i = 0; i < 65536; i++) {
        const double expected = value_of_half(i);
        if (isnan(expected) ? !isnan(singles[i]) : (double)singles[i] != expected)
            fail_msg("half %04x is %g, expected %g", i, (double)singles[i], expected);
        assert_int_equal(signbit(singles[i]) != 0, i >> 15);
    }
}

static void check_to_half(float value)
{
    uint16_t half;
    c_rung->f32_to_f16(&half, &value, 1);
    const unsigned expected = half_of_value((double)value);
    if (isnan(value) ? (half & 0x7fff) <= 0x7c00 || (half & 0x8000) != (expected & 0x8000)
                     : half != expected)
        fail_msg("%a became half %04x, expected %04x; TEST_SEED=%llu", (double)value, half,
                 expected, seed_value());
}

/* every half, the ties between neighbours, and the singles just beside both */
static void single_to_half_ties(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 0x7c00; i++) {
        const double here = value_of_half(i), next = i == 0x7bff ? 65536 : value_of_half(i + 1);
        const float points[] = {(float)here, (float)((here + next) / 2)};
        for (size_t k = 0; k < 2; k++) {
            check_to_half(points[k]);
            check_to_half(-points[k]);
            check_to_half(nextafterf(points[k], INFINITY));
            check_to_half(nextafterf(points[k], -INFINITY));
        }
    }
}

static void single_to_half_others(void **state)
{
    (void)state;
    static const float values[] = {INFINITY, -INFINITY, FLT_MAX,    65504.0f, 65519.996f,
                                   65520.0f, 65535.0f,  65536.0f,   1e6f,     FLT_MIN,
                                   1e-45f,   0x1p-25f,  0x1.8p-25f, -0x1p-25f};
    static const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0xffffffff, 0x7f801fff};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        check_to_half(values[i]);
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++)
        check_to_half(float_of_bits(nans[i]));
    for (size_t i = 0; i < 1000000; i++)
        check_to_half(float_of_bits((uint32_t)random_bits()));
}

/* ---- Matrix products -------------------------------------------------------------------- */

enum { TILE = KERNEL_TILE, MOST_ROWS = 9, MOST_K = 600 };

static void gemm_sums_in_k_order(void **state)
{
    (void)state;
    static float x[MOST_ROWS * MOST_K], tile[MOST_K * TILE], y[MOST_ROWS * TILE],
        expected[MOST_ROWS * TILE];
    static const size_t depths[] = {0, 1, 2, 15, 64, 172, MOST_K};
    for (size_t trial = 0; trial < 7 * MOST_ROWS * 2; trial++) {
        const size_t n_k = depths[trial % 7], n_rows = trial / 7 % MOST_ROWS + 1;
        const bool accumulate = trial / 7 / MOST_ROWS;
        random_floats(x, MOST_ROWS * MOST_K, 3);
        random_floats(tile, MOST_K * TILE, 3);
        random_floats(y, MOST_ROWS * TILE, 3);
        memcpy(expected, y, sizeof y);
        for (size_t r = 0; r < n_rows; r++)
            for (size_t c = 0; c < TILE; c++) {
                float sum = accumulate ? y[r * TILE + c] : 0.0f;
                for (size_t k = 0; k < n_k; k++)
                    sum = fmaf(x[r * MOST_K + k], tile[k * TILE + c], sum);
                expected[r * TILE + c] = sum;
            }
        c_rung->gemm_f32(y, TILE, x, MOST_K, tile, n_rows, n_k, accumulate);
        assert_memory_equal(y, expected, sizeof y);
    }
}

/* A product may be cut along k anywhere: the second part goes on from the first one's sums. */
static void gemm_continues(void **state)
{
    (void)state;
    static float x[4 * 100], tile[100 * TILE], whole[4 * TILE], parts[4 * TILE];
    random_floats(x, 400, 1);
    random_floats(tile, 100 * TILE, 1);
    c_rung->gemm_f32(whole, TILE, x, 100, tile, 4, 100, false);
    for (size_t cut = 0; cut <= 100; cut += 9) {
        c_rung->gemm_f32(parts, TILE, x, 100, tile, 4, cut, false);
        c_rung->gemm_f32(parts, TILE, x + cut, 100, tile + cut * TILE, 4, 100 - cut, true);
        assert_memory_equal(parts, whole, sizeof whole);
    }
}

static void gemv_equals_gemm(void **state)
{
    (void)state;
    static uint16_t halves[MOST_K * TILE];
    static float x[MOST_K], tile[MOST_K * TILE], y[TILE], expected[TILE];
    for (size_t n_k = 0; n_k <= MOST_K; n_k = n_k * 2 + 1) {
        random_floats(x, MOST_K, 2);
        for (size_t i = 0; i < MOST_K * TILE; i++) {
            halves[i] = (uint16_t)(random_bits() % 0x5000 | (random_bits() & 0x8000));
            tile[i] = (float)value_of_half(halves[i]);
        }
        c_rung->gemv_f16(y, x, halves, n_k);
        c_rung->gemm_f32(expected, TILE, x, n_k, tile, 1, n_k, false);
        assert_memory_equal(y, expected, sizeof y);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, seed_restart)
    const struct CMUnitTest tests[] = {
        TEST(half_to_single_all),   TEST(single_to_half_ties), TEST(single_to_half_others),
        TEST(gemm_sums_in_k_order), TEST(gemm_continues),      TEST(gemv_equals_gemm),
    };
    bool known;
    c_rung = kernels_choose("c", &known);
    seed_choose();
    return cmocka_run_group_tests_name("kernels/c/gemm.c", tests, NULL, NULL);
}
