/* exp and its kin as branch-free polynomials in sixteen lanes: kernels.h, Numbers. */
#ifndef KERNELS_C_MATH_H
#define KERNELS_C_MATH_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include KERNEL_LANES

#include "../kernels.h"

/* n values as whole vectors and one that is not full: the body uses LOAD(x), STORE(x, value) at index i. */
#define FOR_LANES(n, ...)                                                                          \
    do {                                                                                           \
        const size_t n_ = (n);                                                                     \
        size_t i = 0;                                                                              \
        for (; i + LANES <= n_; i += LANES) {                                                      \
            const size_t left = LANES;                                                             \
            (void)left;                                                                            \
            __VA_ARGS__                                                                            \
        }                                                                                          \
        if (i < n_) {                                                                              \
            const size_t left = n_ - i;                                                            \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    } while (0)
#define LOAD(x)     (left == LANES ? f_load((x) + i) : f_load_n((x) + i, left))
#define LOAD_INT(x) (left == LANES ? i_load((x) + i) : i_load_n((x) + i, left))
#define STORE(x, value)                                                                            \
    do {                                                                                           \
        if (left == LANES)                                                                         \
            f_store((x) + i, value);                                                               \
        else                                                                                       \
            f_store_n((x) + i, value, left);                                                       \
    } while (0)

/* 1.5 x 2^23: adding it rounds to an integer, ties to even, which the low bits then hold. */
#define SHIFTER f_set(12582912.0f)

/* The same with an exponent's bias on it: after adding it to n, the low bits shifted left by 23 are 2^n. */
#define POWER_SHIFTER f_set(12582912.0f + 127.0f)

/* What lanes may do in fewer instructions where they have them. */
#ifndef LANES_HAVE_SHORTCUTS
/* x held at a limit; NaN stays NaN. A limit that is NaN, and which of two zeros it is, are nothing to build on. */
static inline floats f_at_least(floats limit, floats x)
{
    return f_max(limit, x);
}

static inline floats f_at_most(floats limit, floats x)
{
    return f_min(limit, x);
}

static inline floats f_abs(floats x)
{
    return i_float_bits(i_and(f_bits(x), i_set(0x7fffffff)));
}

/* 2 - a b, rounded once */
static inline floats f_two_less(floats a, floats b)
{
    return f_nfma(a, b, f_set(2.0f));
}

/* The low bytes, whose values are added to `sum`: its lanes count only together. */
static inline void i_store_and_sum(int8_t *bytes, ints x, ints *sum)
{
    *sum = i_add(*sum, x);
    i_store_bytes(bytes, x);
}

/* Of what the low 16 bits hold, below 2^14: bits 7 to 13 -> high, bits 0 to 6 -> low. */
static inline void i_store_split(int8_t *high, int8_t *low, ints x, ints *high_sum, ints *low_sum)
{
    const ints mask = i_set(127), h = i_and(i_shift_right(x, 7), mask), l = i_and(x, mask);
    i_store_and_sum(high, h, high_sum);
    i_store_and_sum(low, l, low_sum);
}
#endif

/* e^x of x not above 88, relative error below 3e-7; arguments beyond -87 are held there, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r as 1 + r + the polynomial of least relative error (fitted;
 * 3.1e-9), in pairs of terms; times 2^n through the exponent. */
static inline floats f_exp_below_88(floats x)
{
    x = f_at_least(f_set(-87.0f), x);
    const floats shifted = f_fma(x, f_set(1.44269504f), POWER_SHIFTER),
                 n = f_sub(shifted, POWER_SHIFTER);
    /* ln 2 in two parts; the first has 9 bits, so n times it is exact */
    floats r = f_nfma(n, f_set(0.693359375f), x);
    r = f_fma(n, f_set(2.12194440e-4f), r);
    const floats square = f_mul(r, r);
    floats p = f_fma(r, f_set(0.00836870982f), f_set(0.0416683874f));
    p = f_fma(square, f_set(0.00138146133f), p);
    p = f_fma(p, square, f_fma(r, f_set(0.166665207f), f_set(0.499999935f)));
    p = f_fma(p, square, f_add(r, f_set(1.0f)));
    return f_mul(p, i_float_bits(i_shift_left(f_bits(shifted), 23)));
}

/* e^x of any x; arguments above 88 are held there. */
static inline floats f_exp(floats x)
{
    return f_exp_below_88(f_at_most(f_set(88.0f), x));
}

/* 2^x for x not above 126, relative error below 3e-6; what is below -125 is held there, NaN stays NaN. x = n + r with
 * |r| <= 1/2; 2^r by the polynomial of least relative error with p(0) = 1 (fitted; 2.9e-6), in pairs of terms; times 2^n
 * through the exponent. For weights of 14 bits. */
static inline floats f_exp2(floats x)
{
    x = f_at_least(f_set(-125.0f), x);
    const floats shifted = f_add(x, POWER_SHIFTER), r = f_sub(x, f_sub(shifted, POWER_SHIFTER)),
                 square = f_mul(r, r);
    floats p = f_fma(r, f_set(0.0559063740f), f_set(0.240240991f));
    p = f_fma(square, f_set(0.00958282035f), p);
    p = f_fma(p, square, f_fma(r, f_set(0.693124175f), f_set(1.0f)));
    return f_mul(p, i_float_bits(i_shift_left(f_bits(shifted), 23)));
}

static inline floats f_negative(floats x)
{
    return f_sub(f_set(0.0f), x);
}

/* erf x, absolute error below 6e-7: Abramowitz and Stegun 7.1.26 (1.5e-7), and the rounding of its
 * terms near 0. */
static inline floats f_erf(floats x)
{
    const floats a = f_abs(x), one = f_set(1.0f);
    const floats t = f_div(one, f_fma(f_set(0.3275911f), a, one));
    floats p = f_set(1.061405429f);
    p = f_fma(p, t, f_set(-1.453152027f));
    p = f_fma(p, t, f_set(1.421413741f));
    p = f_fma(p, t, f_set(-0.284496736f));
    p = f_fma(p, t, f_set(0.254829592f));
    const floats value = f_nfma(f_mul(p, t), f_exp(f_negative(f_mul(a, a))), one);
    const ints sign = i_and(f_bits(x), i_set(INT32_MIN));
    return i_float_bits(i_or(f_bits(f_abs(value)), sign));
}

/* 1 / x for x of 1 to 2^120, relative error below 2e-7, several times faster than a division. The exponent's negation
 * through the bits is right to 12 %; each of Newton's steps squares that. */
static inline floats f_reciprocal(floats x)
{
    floats r = i_float_bits(i_sub(i_set(0x7ef311c3), f_bits(x)));
    r = f_mul(r, f_two_less(x, r));
    r = f_mul(r, f_two_less(x, r));
    return f_mul(r, f_two_less(x, r));
}

/* 1 + e^x, with x held below 80 so that its reciprocal is a normal number. */
static inline floats f_one_plus_exp(floats x)
{
    return f_add(f_set(1.0f), f_exp_below_88(f_at_most(f_set(80.0f), x)));
}

/* x / (1 + e^-(factor x)) */
static inline floats f_swish(floats x, float factor)
{
    return f_mul(x, f_reciprocal(f_one_plus_exp(f_mul(x, f_set(-factor)))));
}

static inline floats f_tanh(floats x)
{
    const floats two = f_set(2.0f);
    return f_sub(f_set(1.0f), f_mul(two, f_reciprocal(f_one_plus_exp(f_mul(two, x)))));
}

/* clamp(x / 6 + 1 / 2, 0, 1); NaN stays NaN */
static inline floats f_hardsigmoid(floats x)
{
    const floats value = f_fma(x, f_set(1.0f / 6.0f), f_set(0.5f));
    return f_min(f_set(1.0f), f_max(f_set(0.0f), value));
}

static inline floats f_activation(floats x, enum activation activation)
{
    const floats half = f_mul(f_set(0.5f), x), one = f_set(1.0f);
    switch (activation) {
    case ACTIVATION_NONE:
    case ACTIVATION_COUNT:
        break;
    case ACTIVATION_QUICK_GELU:
        return f_swish(x, 1.702f);
    case ACTIVATION_GELU:
        return f_mul(half, f_add(one, f_erf(f_mul(x, f_set(0.70710678f)))));
    case ACTIVATION_GELU_TANH: { /* sqrt(2 / pi) (x + 0.044715 x^3) */
        const floats cubic = f_fma(f_mul(f_mul(f_set(0.044715f), x), x), x, x);
        return f_mul(half, f_add(one, f_tanh(f_mul(f_set(0.79788456f), cubic))));
    }
    case ACTIVATION_SILU:
        return f_swish(x, 1.0f);
    case ACTIVATION_RELU:
        return f_max(f_set(0.0f), x);
    case ACTIVATION_HARDSWISH:
        return f_mul(x, f_hardsigmoid(x));
    case ACTIVATION_HARDSIGMOID:
        return f_hardsigmoid(x);
    }
    return x;
}

/* sum of x[i] - centre, or of its square, in sixteen lanes */
static inline float lane_sum(const float *x, float centre, bool square, size_t n)
{
    floats sum = f_set(0.0f);
    const floats c = f_set(centre);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const floats v = f_sub(f_load(x + i), c);
        sum = square ? f_fma(v, v, sum) : f_add(sum, v);
    }
    if (i < n) { /* the lanes that are not there add nothing */
        const floats v = f_first(n - i, f_sub(f_load_n(x + i, n - i), c), f_set(0.0f));
        sum = square ? f_fma(v, v, sum) : f_add(sum, v);
    }
    return f_fold(sum);
}

/* The largest value of n > 0. */
static inline float lane_most(const float *x, size_t n)
{
    floats most = f_set(x[0]);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        most = f_max(f_load(x + i), most);
    float largest = f_largest(most);
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

#endif
