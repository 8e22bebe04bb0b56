/* c/lanes.h with two AVX2 registers. */
#ifndef KERNELS_X86_LANES_AVX2_H
#define KERNELS_X86_LANES_AVX2_H

#include "lanes_256.h"

enum { LANES = 16 };

typedef struct floats {
    __m256 a, b;
} floats;
typedef struct ints {
    __m256i a, b;
} ints;

static inline floats f_load(const float *x) { return (floats){_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
static inline void f_store(float *x, floats v) { _mm256_storeu_ps(x, v.a), _mm256_storeu_ps(x + 8, v.b); }
static inline ints i_load(const int32_t *x)
{
    return (ints){_mm256_loadu_si256((const __m256i *)(const void *)x),
                  _mm256_loadu_si256((const __m256i *)(const void *)(x + 8))};
}
static inline floats f_load_halves(const uint16_t *x)
{
    const __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)x);
    return (floats){_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
static inline void f_store_halves(uint16_t *x, floats v)
{
    _mm_storeu_si128((__m128i *)(void *)x, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(void *)(x + 8), _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
static inline floats f_load_n(const float *x, size_t n)
{
    float lanes[LANES] = {0};
    memcpy(lanes, x, n * sizeof *x);
    return f_load(lanes);
}
static inline void f_store_n(float *x, floats v, size_t n)
{
    float lanes[LANES];
    f_store(lanes, v);
    memcpy(x, lanes, n * sizeof *x);
}
static inline ints i_load_n(const int32_t *x, size_t n)
{
    int32_t lanes[LANES] = {0};
    memcpy(lanes, x, n * sizeof *x);
    return i_load(lanes);
}
static inline void i_store(int32_t *x, ints v)
{
    _mm256_storeu_si256((__m256i *)(void *)x, v.a);
    _mm256_storeu_si256((__m256i *)(void *)(x + 8), v.b);
}
static inline ints i_of_bytes(const uint8_t *x, size_t n)
{
    const __m128i bytes = some_bytes(x, n);
    return (ints){_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes))};
}
static inline void i_store_bytes(int8_t *x, ints v)
{
    const __m256i low = _mm256_set1_epi32(255);
    const __m256i words = _mm256_packus_epi32(_mm256_and_si256(v.a, low), _mm256_and_si256(v.b, low));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128((__m128i *)(void *)x, bytes);
}

static inline floats f_set(float x) { return (floats){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline ints i_set(int32_t x) { return (ints){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
#define TWO(type, name, operation)                                                                 \
    static inline type name(type x, type y) { return (type){operation(x.a, y.a), operation(x.b, y.b)}; }
TWO(floats, f_add, _mm256_add_ps)
TWO(floats, f_sub, _mm256_sub_ps)
TWO(floats, f_mul, _mm256_mul_ps)
TWO(floats, f_div, _mm256_div_ps)
TWO(floats, f_max, _mm256_max_ps)
TWO(floats, f_min, _mm256_min_ps)
TWO(ints, i_add, _mm256_add_epi32)
TWO(ints, i_sub, _mm256_sub_epi32)
TWO(ints, i_mul, _mm256_mullo_epi32)
TWO(ints, i_and, _mm256_and_si256)
TWO(ints, i_or, _mm256_or_si256)
TWO(ints, i_max, _mm256_max_epi32)
#undef TWO
static inline floats f_fma(floats x, floats y, floats z)
{
    return (floats){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline floats f_nfma(floats x, floats y, floats z)
{
    return (floats){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
static inline floats f_first(size_t n, floats x, floats y)
{
    const __m256i from = _mm256_set1_epi32((int32_t)n), lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i a = _mm256_cmpgt_epi32(from, lane), b = _mm256_cmpgt_epi32(from, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
    return (floats){_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(a)), _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(b))};
}
static inline floats f_of_ints(ints x) { return (floats){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
static inline ints f_nearest(floats x) { return (ints){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
#define i_shift_left(x, n)  ((ints){_mm256_slli_epi32((x).a, n), _mm256_slli_epi32((x).b, n)})
#define i_shift_right(x, n) ((ints){_mm256_srai_epi32((x).a, n), _mm256_srai_epi32((x).b, n)})
static inline ints f_bits(floats x) { return (ints){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
static inline floats i_float_bits(ints x) { return (floats){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }

static inline float f_fold(floats x) { return fold_8(_mm256_add_ps(x.a, x.b)); }
static inline float f_largest(floats x) { return largest_of_8(_mm256_max_ps(x.a, x.b)); }
static inline int32_t i_fold(ints x)
{
    const __m256i b = _mm256_add_epi32(x.a, x.b);
    const __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    const __m128i d = _mm_add_epi32(c, _mm_unpackhi_epi64(c, c));
    return _mm_cvtsi128_si32(_mm_add_epi32(d, _mm_shuffle_epi32(d, 1)));
}
static inline int32_t i_largest(ints x)
{
    const __m256i b = _mm256_max_epi32(x.a, x.b);
    const __m128i c = _mm_max_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    const __m128i d = _mm_max_epi32(c, _mm_unpackhi_epi64(c, c));
    return _mm_cvtsi128_si32(_mm_max_epi32(d, _mm_shuffle_epi32(d, 1)));
}

#endif
