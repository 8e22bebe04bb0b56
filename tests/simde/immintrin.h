/* Stands in for the compiler's header: the intrinsics of kernels/x86 in plain C, from SIMDe, so that
 * each of those files is tested on every machine. What SIMDe 0.7.4 lacks of them is here, and its
 * fused multiply-add, which it rounds twice. */
#ifndef TESTS_SIMDE_IMMINTRIN_H
#define TESTS_SIMDE_IMMINTRIN_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/fma.h>
#include <simde/x86/avx512/add.h>
#include <simde/x86/avx512/and.h>
#include <simde/x86/avx512/cast.h>
#include <simde/x86/avx512/cvt.h>
#include <simde/x86/avx512/div.h>
#include <simde/x86/avx512/dpbusd.h>
#include <simde/x86/avx512/dpwssd.h>
#include <simde/x86/avx512/extract.h>
#include <simde/x86/avx512/fmadd.h>
#include <simde/x86/avx512/fnmadd.h>
#include <simde/x86/avx512/setzero.h> /* before insert.h, which forgets it */
#include <simde/x86/avx512/insert.h>
#include <simde/x86/avx512/loadu.h>
#include <simde/x86/avx512/max.h>
#include <simde/x86/avx512/min.h>
#include <simde/x86/avx512/mul.h>
#include <simde/x86/avx512/mullo.h>
#include <simde/x86/avx512/or.h>
#include <simde/x86/avx512/permutexvar.h>
#include <simde/x86/avx512/set.h>
#include <simde/x86/avx512/set1.h>
#include <simde/x86/avx512/setr.h>
#include <simde/x86/avx512/slli.h>
#include <simde/x86/avx512/srli.h>
#include <simde/x86/avx512/storeu.h>
#include <simde/x86/avx512/sub.h>
#include <simde/x86/avx512/xor.h>

#include "../../kernels/c/half.h"

#define __mmask16 simde__mmask16

/* Kernels pin sums to registers, which there are none of here. */
#define __asm__(...) ((void)0)

/* name(a): n lanes r[l] of type `to`, as the expression makes them of lanes a[l] of type `from`. */
#define SIMDE_LANES_1(result, to, name, argument, from, n, expression)                             \
    static inline result test_##name(argument a_)                                                  \
    {                                                                                              \
        from a[sizeof a_ / sizeof(from)];                                                          \
        to r[n];                                                                                   \
        result r_;                                                                                 \
        memcpy(a, &a_, sizeof a);                                                                  \
        for (size_t l = 0; l < (n); l++)                                                           \
            r[l] = (to)(expression);                                                               \
        memcpy(&r_, r, sizeof r_);                                                                 \
        return r_;                                                                                 \
    }
#define SIMDE_LANES_3(type, name, expression)                                                      \
    static inline type test_##name(type a_, type b_, type c_)                                      \
    {                                                                                              \
        enum { N = sizeof(type) / sizeof(float) };                                                 \
        float a[N], b[N], c[N];                                                                    \
        memcpy(a, &a_, sizeof a);                                                                  \
        memcpy(b, &b_, sizeof b);                                                                  \
        memcpy(c, &c_, sizeof c);                                                                  \
        for (size_t l = 0; l < N; l++)                                                             \
            a[l] = (expression);                                                                   \
        memcpy(&a_, a, sizeof a);                                                                  \
        return a_;                                                                                 \
    }
SIMDE_LANES_3(__m256, fmadd_256, fmaf(a[l], b[l], c[l]))
SIMDE_LANES_3(__m256, fnmadd_256, fmaf(-a[l], b[l], c[l]))
SIMDE_LANES_3(__m512, fmadd_512, fmaf(a[l], b[l], c[l]))
SIMDE_LANES_3(__m512, fnmadd_512, fmaf(-a[l], b[l], c[l]))
SIMDE_LANES_1(__m128i, int8_t, cvtepi32_epi8, __m512i, int32_t, 16, a[l])
SIMDE_LANES_1(__m512i, int32_t, cvtps_epi32, __m512, float, 16, nearbyintf(a[l]))
SIMDE_LANES_1(__m512, float, cvtepi32_ps, __m512i, int32_t, 16, a[l])
SIMDE_LANES_1(__m512i, int16_t, cvtepu8_epi16, __m256i, uint8_t, 32, a[l])
SIMDE_LANES_1(__m512i, int32_t, cvtepu8_epi32, __m128i, uint8_t, 16, a[l])
SIMDE_LANES_1(__m256, float, upper_half, __m512, float, 8, a[l + 8])
SIMDE_LANES_1(__m128i, uint16_t, cvtps_ph_256, __m256, float, 8, half_of_single(a[l]))
SIMDE_LANES_1(__m256i, uint16_t, cvtps_ph_512, __m512, float, 16, half_of_single(a[l]))
SIMDE_LANES_1(__m256, float, cvtph_ps_256, __m128i, uint16_t, 8, single_of_half(a[l]))
SIMDE_LANES_1(__m512, float, cvtph_ps_512, __m256i, uint16_t, 16, single_of_half(a[l]))
#undef SIMDE_LANES_1
#undef SIMDE_LANES_3

static inline __m512i test_srai(__m512i a, int n)
{
    int32_t lanes[16];
    memcpy(lanes, &a, sizeof a);
    for (int l = 0; l < 16; l++)
        lanes[l] >>= n;
    memcpy(&a, lanes, sizeof a);
    return a;
}

static inline int32_t test_reduce(__m512i a, bool sum)
{
    int32_t lanes[16];
    memcpy(lanes, &a, sizeof a);
    for (int l = 1; l < 16; l++)
        if (sum)
            lanes[0] = (int32_t)((uint32_t)lanes[0] + (uint32_t)lanes[l]);
        else
            lanes[0] = lanes[l] > lanes[0] ? lanes[l] : lanes[0];
    return lanes[0];
}

static inline __m512i test_maskz_loadu(uint32_t mask, const void *x)
{
    int32_t lanes[16] = {0};
    __m512i a;
    for (size_t l = 0; l < 16; l++)
        if (mask >> l & 1)
            memcpy(&lanes[l], (const char *)x + 4 * l, 4);
    memcpy(&a, lanes, sizeof a);
    return a;
}

static inline __m512 test_mask_mov(__m512 b, uint32_t mask, __m512 a)
{
    float from[16], to[16];
    memcpy(from, &a, sizeof from);
    memcpy(to, &b, sizeof to);
    for (size_t l = 0; l < 16; l++)
        if (mask >> l & 1)
            to[l] = from[l];
    memcpy(&b, to, sizeof b);
    return b;
}

static inline void test_mask_storeu(void *x, uint32_t mask, __m512 a)
{
    float lanes[16];
    memcpy(lanes, &a, sizeof a);
    for (size_t l = 0; l < 16; l++)
        if (mask >> l & 1)
            memcpy((char *)x + 4 * l, &lanes[l], 4);
}

#undef _mm512_mask_mov_ps
#undef _mm256_fmadd_ps
#undef _mm256_fnmadd_ps
#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#define _mm256_fmadd_ps(a, b, c)         test_fmadd_256(a, b, c)
#define _mm256_fnmadd_ps(a, b, c)        test_fnmadd_256(a, b, c)
#define _mm512_fmadd_ps(a, b, c)         test_fmadd_512(a, b, c)
#define _mm512_fnmadd_ps(a, b, c)        test_fnmadd_512(a, b, c)
#define _mm256_dpbusd_avx_epi32(s, a, b) simde_mm256_dpbusd_epi32(s, a, b)
#define _mm256_dpwssd_avx_epi32(s, a, b) simde_mm256_dpwssd_epi32(s, a, b)
#define _mm256_cvtps_ph(a, rounding)     test_cvtps_ph_256(a)
#define _mm512_cvtps_ph(a, rounding)     test_cvtps_ph_512(a)
#define _mm256_cvtph_ps(a)               test_cvtph_ps_256(a)
#define _mm512_cvtph_ps(a)               test_cvtph_ps_512(a)
#define _mm512_cvtepi32_epi8(a)          test_cvtepi32_epi8(a)
#define _mm512_cvtepi32_ps(a)            test_cvtepi32_ps(a)
#define _mm512_cvtps_epi32(a)            test_cvtps_epi32(a)
#define _mm512_cvtepu8_epi16(a)          test_cvtepu8_epi16(a)
#define _mm512_cvtepu8_epi32(a)          test_cvtepu8_epi32(a)
#define _mm512_extractf32x8_ps(a, half)  test_upper_half(a) /* of which only 1 is asked for */
#define _mm512_srai_epi32(a, n)          test_srai(a, n)
#define _mm512_reduce_add_epi32(a)       test_reduce(a, true)
#define _mm512_reduce_max_epi32(a)       test_reduce(a, false)
#define _mm512_maskz_loadu_epi32(m, x)   test_maskz_loadu(m, x)
#define _mm512_mask_mov_ps(b, m, a)      test_mask_mov(b, m, a)
#define _mm512_maskz_loadu_ps(m, x)      _mm512_castsi512_ps(test_maskz_loadu(m, x))
#define _mm512_mask_storeu_ps(x, m, a)   test_mask_storeu(x, m, a)

#endif
