/* Stands in for the compiler's header on other machines: the intrinsics of kernels/arm in plain C, from SIMDe. What SIMDe
 * 0.7.4 lacks of them is here, and its fused multiply-add, which it rounds twice. */
#ifndef TESTS_SIMDE_ARM_NEON_H
#define TESTS_SIMDE_ARM_NEON_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>

#include "../../kernels/c/half.h"

/* Four lanes from those of a, b and c. */
#define TEST_LANES(name, expression)                                                               \
    static inline float32x4_t name(float32x4_t a_, float32x4_t b_, float32x4_t c_)                 \
    {                                                                                              \
        float a[4], b[4], c[4];                                                                    \
        memcpy(a, &a_, sizeof a);                                                                  \
        memcpy(b, &b_, sizeof b);                                                                  \
        memcpy(c, &c_, sizeof c);                                                                  \
        for (size_t l = 0; l < 4; l++)                                                             \
            a[l] = (expression);                                                                   \
        memcpy(&a_, a, sizeof a);                                                                  \
        return a_;                                                                                 \
    }
TEST_LANES(test_fma, fmaf(b[l], c[l], a[l]))
TEST_LANES(test_fms, fmaf(-b[l], c[l], a[l]))
TEST_LANES(test_div, a[l] / b[l])
TEST_LANES(test_two_less, fmaf(-a[l], b[l], 2.0f))
#undef TEST_LANES

static inline float32x4_t test_of_halves(uint16x4_t x)
{
    uint16_t halves[4];
    float lanes[4];
    float32x4_t out;
    memcpy(halves, &x, sizeof halves);
    for (size_t l = 0; l < 4; l++)
        lanes[l] = single_of_half(halves[l]);
    memcpy(&out, lanes, sizeof out);
    return out;
}

static inline uint16x4_t test_to_halves(float32x4_t x)
{
    float lanes[4];
    uint16_t halves[4];
    uint16x4_t out;
    memcpy(lanes, &x, sizeof lanes);
    for (size_t l = 0; l < 4; l++)
        halves[l] = half_of_single(lanes[l]);
    memcpy(&out, halves, sizeof out);
    return out;
}

/* SMMLA: 2 rows of 8 times 2 columns of 8. */
static inline int32x4_t test_mmla(int32x4_t sums, int8x16_t rows, int8x16_t columns)
{
    int32_t s[4];
    int8_t x[16], w[16];
    memcpy(s, &sums, sizeof s);
    memcpy(x, &rows, sizeof x);
    memcpy(w, &columns, sizeof w);
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 8; k++)
            s[i] += x[i / 2 * 8 + k] * w[i % 2 * 8 + k];
    memcpy(&sums, s, sizeof s);
    return sums;
}

static inline int32x4_t test_nearest(float32x4_t x)
{
    float lanes[4];
    int32_t nearest[4];
    int32x4_t out;
    memcpy(lanes, &x, sizeof lanes);
    for (size_t l = 0; l < 4; l++)
        nearest[l] = (int32_t)nearbyintf(lanes[l]);
    memcpy(&out, nearest, sizeof out);
    return out;
}

#undef vfmaq_f32
#undef vrecpsq_f32
#undef vcvt_f32_f16
#undef vcvt_f16_f32
#undef vreinterpret_f16_u16
#undef vreinterpretq_f16_u16
#undef vreinterpretq_u16_f16
#undef vcvtnq_s32_f32
#define vfmaq_f32(a, b, c)        test_fma(a, b, c)
#define vfmsq_f32(a, b, c)        test_fms(a, b, c)
#define vdivq_f32(a, b)           test_div(a, b, b)
#define vrecpsq_f32(a, b)         test_two_less(a, b, b)
#define vcvt_f32_f16(x)           test_of_halves(x)
#define vcvt_f16_f32(x)           test_to_halves(x)
#define vreinterpret_f16_u16(x)   (x)
#define vreinterpretq_f16_u16(x)  (x)
#define vreinterpretq_u16_f16(x)  (x)
#define vcvt_high_f32_f16(x)      test_of_halves(vget_high_u16(x))
#define vcvt_high_f16_f32(x, y)   vcombine_u16(x, test_to_halves(y))
#define vcvtnq_s32_f32(x)         test_nearest(x)
#define vshrn_high_n_s16(x, y, n) vcombine_s8(x, vshrn_n_s16(y, n))
#define vmmlaq_s32(s, x, w)       test_mmla(s, x, w)

#endif
