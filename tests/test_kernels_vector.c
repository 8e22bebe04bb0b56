/* What is between matrix products, as kernels/c computes it, against formulas in double within
 * stated bounds; bit for bit where the order of a sum is the contract. TEST_SEED=... repeats a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define KERNEL_LANES "lanes.h"
#include "../kernels/c/math.h"
#include "../kernels/kernels.h"
#include "support/bits.h"
#include "support/seed.h"

static const struct kernels *c_rung;

/* Fails when |got - expected| is beyond the bound, or got is NaN. */
static void assert_near(const char *what, double at, double got, double expected, double bound)
{
    if (!(fabs(got - expected) <= bound))
        fail_msg("%s at %.9g is %.9g, expected %.9g: %.3g off, allowed %.3g; TEST_SEED=%llu", what,
                 at, got, expected, fabs(got - expected), bound, seed_value());
}

/* ---- exp and its kin -------------------------------------------------------------------- */

/* Zeros, and every 8009th float of both signs from the smallest to `most`. */
static size_t dense_points(float *x, size_t capacity, float most)
{
    size_t n = 0;
    x[n++] = 0.0f;
    x[n++] = -0.0f;
    for (uint32_t bits = 1; float_of_bits(bits) <= most && n + 2 <= capacity; bits += 8009) {
        x[n++] = float_of_bits(bits);
        x[n++] = -float_of_bits(bits);
    }
    assert_true(n + 2 <= capacity);
    return n;
}

static float exp_f32(float x)
{
    return f_exp(f_set(x)).v[0];
}

static float erf_f32(float x)
{
    return f_erf(f_set(x)).v[0];
}

enum { MOST_POINTS = 600000 };
static float points[MOST_POINTS], results[MOST_POINTS];

static void exp_within_bound(void **state)
{
    (void)state;
    const size_t n = dense_points(points, MOST_POINTS, 88);
    for (size_t i = 0; i < n; i++)
        if (points[i] >= -87) {
            const double expected = exp((double)points[i]);
            assert_near("exp", (double)points[i], (double)exp_f32(points[i]), expected,
                        3e-7 * expected);
        }
    assert_true(exp_f32(0.0f) == 1.0f && exp_f32(-0.0f) == 1.0f);
    assert_true(exp_f32(INFINITY) == exp_f32(88.0f) && exp_f32(1e30f) == exp_f32(88.0f));
    assert_true(exp_f32(-INFINITY) == exp_f32(-87.0f) && exp_f32(-1e30f) == exp_f32(-87.0f));
    assert_true(isnan(exp_f32(NAN)));
    assert_true(isfinite(exp_f32(88.0f)));
}

static void erf_within_bound(void **state)
{
    (void)state;
    const size_t n = dense_points(points, MOST_POINTS, FLT_MAX);
    for (size_t i = 0; i < n; i++)
        assert_near("erf", (double)points[i], (double)erf_f32(points[i]), erf((double)points[i]),
                    6e-7);
}

/* held where the kernels hold it, for its reciprocal's sake: it is 2e-35 there */
static double sigmoid(double x)
{
    return 1 / (1 + exp(-fmax(x, -80)));
}

static double quick_gelu(double x)
{
    return x * sigmoid((double)(1.702f * (float)x)); /* at -50 the product's rounding counts */
}

static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x / sqrt(2)));
}

static double gelu_tanh(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static double silu(double x)
{
    return x * sigmoid(x);
}

static double relu(double x)
{
    return x > 0 ? x : 0;
}

static double hardsigmoid(double x)
{
    return fmin(fmax(x / 6 + 0.5, 0), 1);
}

static double hardswish(double x)
{
    return x * hardsigmoid(x);
}

static double identity(double x)
{
    return x;
}

/* |error| <= relative |f(x)| + of_x |x|: each is x times a factor, whose error is relative for a
 * sigmoid (down to exp's end at -87) and absolute for 1 + erf and 1 + tanh. */
static const struct activation_case {
    enum activation activation;
    double (*formula)(double x);
    double relative, of_x;
    float most; /* checked from -most to most */
} activation_cases[] = {
    {ACTIVATION_NONE, identity, 0, 0, FLT_MAX},
    {ACTIVATION_QUICK_GELU, quick_gelu, 5e-7, 1e-37, 1e30f},
    {ACTIVATION_GELU, gelu, 2e-7, 3e-7, FLT_MAX},
    {ACTIVATION_GELU_TANH, gelu_tanh, 2e-7, 2e-7, FLT_MAX},
    {ACTIVATION_SILU, silu, 4e-7, 1e-37, 1e30f},
    {ACTIVATION_RELU, relu, 0, 0, FLT_MAX},
    {ACTIVATION_HARDSWISH, hardswish, 2e-7, 1e-7, FLT_MAX},
    {ACTIVATION_HARDSIGMOID, hardsigmoid, 1e-7, 3e-8, FLT_MAX},
};

static void activations_within_bounds(void **state)
{
    (void)state;
    assert_int_equal(sizeof activation_cases / sizeof *activation_cases, ACTIVATION_COUNT);
    for (size_t a = 0; a < ACTIVATION_COUNT; a++) {
        const struct activation_case *c = &activation_cases[a];
        char name[40];
        snprintf(name, sizeof name, "activation %zu", a);
        const size_t n = dense_points(points, MOST_POINTS, c->most);
        memcpy(results, points, n * sizeof *points);
        c_rung->activate(results, c->activation, n);
        for (size_t i = 0; i < n; i++) {
            const double x = (double)points[i], expected = c->formula(x);
            assert_near(name, x, (double)results[i], expected,
                        c->relative * fabs(expected) + c->of_x * fabs(x) + (double)FLT_TRUE_MIN);
        }
    }
}

/* ---- Norms and softmax ------------------------------------------------------------------ */

enum { MOST_N = 2053 };
static const size_t widths[] = {1, 2, 15, 16, 17, 31, 33, 64, 172, 1024, MOST_N};
enum { N_WIDTHS = sizeof widths / sizeof *widths };
static float x[MOST_N], y[MOST_N], weight[MOST_N], bias[MOST_N];

static void layer_norm_formula(const float *b, size_t n, double eps)
{
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        variance += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double normal = ((double)x[i] - mean) / sqrt(variance + eps);
        const double expected = normal * (double)weight[i] + (b ? (double)b[i] : 0);
        /* the mean's rounding is of the size of x, not of x - mean */
        const double bound = 3e-6 * (fabs(expected) + fabs(mean) / sqrt(variance + eps) + 1);
        assert_near("layer_norm", (double)i, (double)y[i], expected, bound);
    }
}

static void layer_norm_within_bound(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WIDTHS; w++)
        for (int offset = 0; offset < 2; offset++) {
            const size_t n = widths[w];
            random_floats(x, n, 3);
            random_floats(weight, n, 2);
            random_floats(bias, n, 2);
            for (size_t i = 0; i < n && offset; i++)
                x[i] += 50;
            c_rung->layer_norm(y, x, weight, bias, 1e-5f, n);
            layer_norm_formula(bias, n, 1e-5);
            c_rung->layer_norm(y, x, weight, NULL, 1e-5f, n);
            layer_norm_formula(NULL, n, 1e-5);
        }
}

static void rms_norm_within_bound(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WIDTHS; w++) {
        const size_t n = widths[w];
        double squares = 0;
        random_floats(x, n, 3);
        random_floats(weight, n, 2);
        c_rung->rms_norm(y, x, weight, 1e-6f, n);
        for (size_t i = 0; i < n; i++)
            squares += (double)x[i] * (double)x[i];
        for (size_t i = 0; i < n; i++) {
            const double expected =
                (double)x[i] / sqrt(squares / (double)n + 1e-6) * (double)weight[i];
            assert_near("rms_norm", (double)i, (double)y[i], expected, 1e-6 * fabs(expected));
        }
    }
}

/* The order of summation is part of the contract: lane i % 16, then a tree of halves. */
static void rms_norm_sums_in_lanes(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WIDTHS; w++) {
        const size_t n = widths[w];
        float lane[16] = {0};
        random_floats(x, n, 3);
        random_floats(weight, n, 2);
        for (size_t i = 0; i < n; i++)
            lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
        for (size_t half = 8; half; half /= 2)
            for (size_t i = 0; i < half; i++)
                lane[i] += lane[i + half];
        const float scale = 1.0f / sqrtf(lane[0] / (float)n + 1e-6f);
        c_rung->rms_norm(y, x, weight, 1e-6f, n);
        for (size_t i = 0; i < n; i++) {
            const float scaled = x[i] * scale;
            x[i] = scaled * weight[i];
        }
        assert_memory_equal(y, x, n * sizeof *x);
    }
}

static void softmax_within_bound(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WIDTHS; w++) {
        const size_t n = widths[w];
        double sum = 0, total = 0;
        random_floats(x, n, 40);
        memcpy(y, x, n * sizeof *x);
        c_rung->softmax(y, 0.7f, n);
        float most = x[0];
        for (size_t i = 0; i < n; i++)
            most = fmaxf(most, x[i]);
        for (size_t i = 0; i < n; i++)
            sum += exp((double)(x[i] - most) * (double)0.7f);
        for (size_t i = 0; i < n; i++) {
            const double expected = exp((double)(x[i] - most) * (double)0.7f) / sum;
            assert_near("softmax", (double)i, (double)y[i], expected, 6e-6 * expected + 1e-37);
            total += (double)y[i];
        }
        assert_near("softmax's sum", (double)n, total, 1, 1e-6);
    }
}

/* Shifted inputs that are still exact give the same bits; so do extremes without overflow. */
static void softmax_ignores_shift(void **state)
{
    (void)state;
    float shifted[100];
    for (size_t i = 0; i < 100; i++) {
        x[i] = (float)(random_bits() % 1000) / 16;
        shifted[i] = x[i] - 4096;
    }
    c_rung->softmax(x, 0.125f, 100);
    c_rung->softmax(shifted, 0.125f, 100);
    assert_memory_equal(x, shifted, sizeof shifted);
    float extremes[] = {1e38f, -1e38f, 0, 1e38f};
    c_rung->softmax(extremes, 1.0f, 4);
    assert_true(extremes[0] == 0.5f && extremes[3] == 0.5f && extremes[1] < 1e-30f &&
                extremes[2] < 1e-30f);
    float one = -INFINITY, alone = 1234.5f;
    c_rung->softmax(&alone, 3.0f, 1);
    assert_true(alone == 1.0f);
    c_rung->softmax(&one, 1.0f, 0 + 1); /* -inf - -inf: NaN, but no fault */
}

/* ---- Rotary positions, depthwise convolution, sums -------------------------------------- */

static void rope_rotates_and_back(void **state)
{
    (void)state;
    enum { N = 80 };
    float cosine[N / 2], sine[N / 2], back[N / 2], original[N], v[N];
    random_floats(original, N, 5);
    memcpy(v, original, sizeof v);
    for (size_t i = 0; i < N / 2; i++) {
        const double angle = (double)random_float(100);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
        back[i] = -sine[i];
    }
    c_rung->rope(v, cosine, sine, N);
    for (size_t i = 0; i < N / 2; i++) {
        const double a = (double)original[i], b = (double)original[i + N / 2];
        const double c = (double)cosine[i], s = (double)sine[i];
        assert_near("rope", (double)i, (double)v[i], a * c - b * s, 2e-6);
        assert_near("rope", (double)i, (double)v[i + N / 2], a * s + b * c, 2e-6);
    }
    c_rung->rope(v, cosine, back, N);
    for (size_t i = 0; i < N; i++)
        assert_near("rope and back", (double)i, (double)v[i], (double)original[i], 4e-6);
}

/* in [side][side][n], zero outside */
static double pixel_or_zero(const float *in, int side, int n, int row, int column, int channel)
{
    const bool inside = row >= 0 && row < side && column >= 0 && column < side;
    return inside ? (double)in[(row * side + column) * n + channel] : 0;
}

static void check_depthwise(int side, int stride, int n, const float *b)
{
    enum { MOST = 5 * 5 * 17 };
    static float in[MOST], taps[9 * 17], out[MOST];
    const int out_side = (side - 1) / stride + 1;
    random_floats(in, MOST, 2);
    random_floats(taps, 9 * 17, 2);
    for (int row = 0; row < out_side; row++) {
        c_rung->depthwise_3x3(out, in, taps, b, (size_t)side, (size_t)out_side, (size_t)stride,
                              (size_t)row, (size_t)n);
        for (int column = 0; column < out_side; column++)
            for (int channel = 0; channel < n; channel++) {
                double sum = b ? (double)b[channel] : 0;
                for (int dy = -1; dy <= 1; dy++)
                    for (int dx = -1; dx <= 1; dx++)
                        sum += pixel_or_zero(in, side, n, row * stride + dy, column * stride + dx,
                                             channel) *
                               (double)taps[((dy + 1) * 3 + dx + 1) * n + channel];
                assert_near("depthwise", side * 100 + stride, (double)out[column * n + channel],
                            sum, 1e-5);
            }
    }
}

static void depthwise_equals_naive(void **state)
{
    (void)state;
    static const int channels[] = {1, 3, 16, 17};
    random_floats(bias, 17, 2);
    for (int side = 1; side <= 5; side++)
        for (int stride = 1; stride <= 5; stride++)
            for (size_t c = 0; c < 4; c++) {
                check_depthwise(side, stride, channels[c], NULL);
                check_depthwise(side, stride, channels[c], bias);
            }
}

static void add_and_multiply(void **state)
{
    (void)state;
    float a[] = {1.5f, -0.0f, 1e30f, 0x1p24f}, b[] = {2.25f, 0.0f, 1e30f, 1.0f};
    const float sums[] = {3.75f, 0.0f, 2e30f, 0x1p24f};
    c_rung->add(a, b, 4);
    assert_memory_equal(a, sums, sizeof a);
    float c[] = {1.5f, -0.0f, 1e30f}, d[] = {-2.0f, 3.0f, 1e30f};
    const float products[] = {-3.0f, -0.0f, INFINITY};
    c_rung->multiply(c, d, 3);
    assert_memory_equal(c, products, sizeof c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, seed_restart)
    const struct CMUnitTest tests[] = {
        TEST(exp_within_bound),        TEST(erf_within_bound),      TEST(activations_within_bounds),
        TEST(layer_norm_within_bound), TEST(rms_norm_within_bound), TEST(rms_norm_sums_in_lanes),
        TEST(softmax_within_bound),    TEST(softmax_ignores_shift), TEST(rope_rotates_and_back),
        TEST(depthwise_equals_naive),  TEST(add_and_multiply),
    };
    bool known;
    c_rung = kernels_choose("c", &known);
    seed_choose();
    return cmocka_run_group_tests_name("kernels/c/vector.c", tests, NULL, NULL);
}
