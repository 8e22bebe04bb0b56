/* exp and its kin as branch-free polynomials that a compiler vectorises, and sums in fixed lanes:
 * kernels.h, Numbers. */
#ifndef KERNELS_C_MATH_H
#define KERNELS_C_MATH_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* e^x, relative error below 3e-7; arguments beyond -87 and 88 are held there, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; Taylor's series of e^r to r^7 (next term: 5e-9); times 2^n
 * through the exponent. */
static inline float exp_f32(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float shifter = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float n = fmaf(x, 1.44269504f, shifter) - shifter;
    float r = fmaf(n, -0.693359375f,
                   x); /* ln 2 in two parts; the first has 9 bits, so n times it is exact */
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.0f / 5040.0f;
    p = fmaf(p, r, 1.0f / 720.0f);
    p = fmaf(p, r, 1.0f / 120.0f);
    p = fmaf(p, r, 1.0f / 24.0f);
    p = fmaf(p, r, 1.0f / 6.0f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* the low bits of n + shifter hold n, whatever its sign */
    const uint32_t exponent = (bits_of_float(n + shifter) - 0x4b400000u + 127u) << 23;
    return p * float_of_bits(exponent);
}

/* erf x, absolute error below 6e-7: Abramowitz and Stegun 7.1.26 (1.5e-7), and the rounding of its
 * terms near 0. */
static inline float erf_f32(float x)
{
    const float a = fabsf(x);
    const float t = 1.0f / fmaf(0.3275911f, a, 1.0f);
    float p = 1.061405429f;
    p = fmaf(p, t, -1.453152027f);
    p = fmaf(p, t, 1.421413741f);
    p = fmaf(p, t, -0.284496736f);
    p = fmaf(p, t, 0.254829592f);
    const float value = fmaf(-(p * t), exp_f32(-a * a), 1.0f);
    return copysignf(value, x);
}

static inline float sigmoid_f32(float x)
{
    return 1.0f / (1.0f + exp_f32(-x));
}

static inline float tanh_f32(float x)
{
    return 1.0f - 2.0f / (exp_f32(2.0f * x) + 1.0f);
}

enum { LANES = 16 };

/* Sixteen partial sums -> one, by the fixed tree. */
static inline float fold_lanes(float lane[LANES])
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

#endif
