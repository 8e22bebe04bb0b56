/* What lanes_avx2.h and lanes_avx512.h share: loading bytes, and one 256-bit register -> one lane. */
#ifndef KERNELS_X86_LANES_256_H
#define KERNELS_X86_LANES_256_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* n bytes of at most 16, zeros behind them. Twelve, the common number, without a way through memory. */
static inline __m128i some_bytes(const uint8_t *x, size_t n)
{
    uint8_t bytes[16] = {0};
    int32_t last;
    if (n != 12) {
        memcpy(bytes, x, n);
        return _mm_loadu_si128((const __m128i *)(const void *)bytes);
    }
    memcpy(&last, x + 8, sizeof last);
    return _mm_insert_epi32(_mm_loadl_epi64((const __m128i *)(const void *)x), last, 2);
}

/* Lanes 4 apart first, then 2, 1. */
static inline float fold_8(__m256 x)
{
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

static inline float largest_of_8(__m256 x)
{
    const __m128 c = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

#endif
