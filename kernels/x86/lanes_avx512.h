/* c/lanes.h with one AVX-512 register. */
#ifndef KERNELS_X86_LANES_AVX512_H
#define KERNELS_X86_LANES_AVX512_H

#include "lanes_256.h"

enum { LANES = 16 };

typedef __m512 floats;
typedef __m512i ints;

#define FIRST(n) (__mmask16)((1u << (n)) - 1u)

static inline floats f_load(const float *x) { return _mm512_loadu_ps(x); }
static inline floats f_load_halves(const uint16_t *x)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)x));
}
static inline void f_store_halves(uint16_t *x, floats a)
{
    _mm256_storeu_si256((__m256i *)(void *)x, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline floats f_load_n(const float *x, size_t n) { return _mm512_maskz_loadu_ps(FIRST(n), x); }
static inline void f_store(float *x, floats a) { _mm512_storeu_ps(x, a); }
static inline void f_store_n(float *x, floats a, size_t n) { _mm512_mask_storeu_ps(x, FIRST(n), a); }
static inline ints i_load(const int32_t *x) { return _mm512_loadu_si512(x); }
static inline ints i_load_n(const int32_t *x, size_t n) { return _mm512_maskz_loadu_epi32(FIRST(n), x); }
static inline void i_store(int32_t *x, ints a) { _mm512_storeu_si512(x, a); }
static inline ints i_of_bytes(const uint8_t *x, size_t n)
{
    return _mm512_cvtepu8_epi32(some_bytes(x, n));
}
static inline void i_store_bytes(int8_t *x, ints a) { _mm_storeu_si128((__m128i *)(void *)x, _mm512_cvtepi32_epi8(a)); }

static inline floats f_set(float x) { return _mm512_set1_ps(x); }
static inline floats f_add(floats a, floats b) { return _mm512_add_ps(a, b); }
static inline floats f_sub(floats a, floats b) { return _mm512_sub_ps(a, b); }
static inline floats f_mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
static inline floats f_div(floats a, floats b) { return _mm512_div_ps(a, b); }
static inline floats f_fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline floats f_nfma(floats a, floats b, floats c) { return _mm512_fnmadd_ps(a, b, c); }
static inline floats f_max(floats a, floats b) { return _mm512_max_ps(a, b); }
static inline floats f_min(floats a, floats b) { return _mm512_min_ps(a, b); }
static inline floats f_first(size_t n, floats a, floats b) { return _mm512_mask_mov_ps(b, FIRST(n), a); }
static inline floats f_of_ints(ints a) { return _mm512_cvtepi32_ps(a); }
static inline ints f_nearest(floats a) { return _mm512_cvtps_epi32(a); }

static inline ints i_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline ints i_add(ints a, ints b) { return _mm512_add_epi32(a, b); }
static inline ints i_sub(ints a, ints b) { return _mm512_sub_epi32(a, b); }
static inline ints i_mul(ints a, ints b) { return _mm512_mullo_epi32(a, b); }
static inline ints i_and(ints a, ints b) { return _mm512_and_si512(a, b); }
static inline ints i_or(ints a, ints b) { return _mm512_or_si512(a, b); }
static inline ints i_max(ints a, ints b) { return _mm512_max_epi32(a, b); }
#define i_shift_left(a, n)  _mm512_slli_epi32(a, n)
#define i_shift_right(a, n) _mm512_srai_epi32(a, n)
static inline ints f_bits(floats a) { return _mm512_castps_si512(a); }
static inline floats i_float_bits(ints a) { return _mm512_castsi512_ps(a); }

static inline float f_fold(floats a)
{
    return fold_8(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}
static inline int32_t i_fold(ints a) { return _mm512_reduce_add_epi32(a); }
static inline float f_largest(floats a)
{
    return largest_of_8(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}
static inline int32_t i_largest(ints a) { return _mm512_reduce_max_epi32(a); }

#undef FIRST
#endif
