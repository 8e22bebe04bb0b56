/* q4 tiles in 256-bit registers: what AVX2 and AVX-VNNI share. A vector has the four inputs of a
 * quad of eight columns; a tile's four vectors are columns 0 to 7, 8 to 15, 16 to 23, 24 to 31. */
#ifndef KERNELS_X86_Q4_AVX2_H
#define KERNELS_X86_Q4_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "../formats.h"
#include "../c/block.h"

enum { VECTORS = KERNEL_TILE / 8 };

ALWAYS_INLINE __m256i load(const void *x)
{
    return _mm256_loadu_si256(x);
}

ALWAYS_INLINE void store(void *x, __m256i value)
{
    _mm256_storeu_si256(x, value);
}

/* Four bytes, in every lane. */
ALWAYS_INLINE __m256i quad_of(const void *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return _mm256_set1_epi32(quad);
}

/* A line's weights + 8, as unsigned bytes. */
ALWAYS_INLINE void line_nibbles(const uint8_t *line, __m256i *nibbles)
{
    const __m256i mask = _mm256_set1_epi8(15), top = _mm256_set1_epi8((char)0x80);
    for (int i = 0; i < 2; i++) {
        const __m256i bytes = load(line + 32 * i);
        nibbles[i] = _mm256_and_si256(bytes, mask);
        /* two's complement with its top bit turned is value + 8 */
        nibbles[i + 2] = _mm256_and_si256(_mm256_srli_epi16(_mm256_xor_si256(bytes, top), 4), mask);
    }
}

/* A group's multipliers, a column's in the words of its lane that `words` has ones in. */
ALWAYS_INLINE void group_multipliers(const uint8_t *magnitudes, const uint8_t *signs,
                                     uint32_t words, __m256i *m)
{
    const __m256i bytes =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)magnitudes));
    const __m256i bits = quad_of(signs);
    /* byte 0 to 7 of a half into both words of lanes 0 to 7 */
    const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,
                                            4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
    const __m256i column = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i nibble = _mm256_set1_epi32((int)(words & 0x000f000f)), one = _mm256_set1_epi16(1);
    for (int i = 0; i < VECTORS; i++) {
        const __m256i half = _mm256_add_epi8(spread, _mm256_set1_epi8(i % 2 ? 8 : 0));
        const __m256i both = _mm256_shuffle_epi8(bytes, half);
        const __m256i magnitude =
            _mm256_and_si256(i < 2 ? both : _mm256_srli_epi16(both, 4), nibble);
        const __m256i bit = _mm256_slli_epi32(column, 8 * i);
        const __m256i negative = _mm256_cmpeq_epi32(_mm256_and_si256(bits, bit), bit);
        m[i] = _mm256_sign_epi16(magnitude, _mm256_or_si256(negative, one));
    }
}

#endif
