/* Products of eight-bit rows with quantized tiles on AVX-512-VNNI.
 *
 * VPDPBUSD multiplies unsigned by signed bytes: weights are stored plus 128 for it, and each sum begins at
 * -128 x (sum of its row). */
#include <immintrin.h>
#include <string.h>

#include "../c/block.h"

enum { ROWS = 12 }; /* at once: 12 x 2 sums, 2 of weights, 1 of x fill 27 of 32 registers */

ALWAYS_INLINE __m512i quad_of(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return _mm512_set1_epi32(quad);
}

/* n rows (a constant) times a tile's lines; fetches a cache line a quad along the way. */
ALWAYS_INLINE void block_q8(int32_t *y, size_t y_stride, const int8_t *x, size_t x_stride,
                            const int32_t *x_sum, const uint8_t *lines, size_t n_k,
                            struct fetch fetch, const size_t n)
{
    __m512i low[ROWS], high[ROWS];
    const int8_t *x4 = x + 4 * x_stride, *x8 = x + 8 * x_stride;
    UNROLLED
    for (size_t r = 0; r < n; r++)
        low[r] = high[r] = _mm512_set1_epi32(-Q8_ZERO * x_sum[r]);
    for (size_t k = 0; k < n_k; k += KERNEL_QUAD) {
        const __m512i w_low = _mm512_loadu_si512(lines), w_high = _mm512_loadu_si512(lines + 64);
        lines += Q8_LINE;
        fetch_line(&fetch);
        UNROLLED
        for (size_t r = 0; r < n; r++) {
            const int8_t *row = r < 4 ? x : r < 8 ? x4 : x8;
            const __m512i quad = quad_of(row + (r % 4) * x_stride + k);
            low[r] = _mm512_dpbusd_epi32(low[r], w_low, quad);
            high[r] = _mm512_dpbusd_epi32(high[r], w_high, quad);
        }
    }
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        _mm512_storeu_si512(y + r * y_stride, low[r]);
        _mm512_storeu_si512(y + r * y_stride + 16, high[r]);
    }
}

enum {
    AHEAD = 2048
}; /* bytes: how far before its use a line is asked for, where one row streams through a matrix */

/* One row: bound by memory, so what matters is that lines are asked for early and that sums do not wait for each other. */
ALWAYS_INLINE void row_q8(int32_t *y, const int8_t *x, int32_t x_sum, const uint8_t *lines,
                          size_t n_k)
{
    enum { CHAINS = 4 };
    __m512i low[CHAINS], high[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        low[i] = high[i] = _mm512_setzero_si512();
    low[0] = high[0] = _mm512_set1_epi32(-Q8_ZERO * x_sum);
    for (size_t k = 0; k < n_k; k += CHAINS * KERNEL_QUAD) /* n_k is a multiple of 32 */
        UNROLLED
    for (int i = 0; i < CHAINS; i++, lines += Q8_LINE, x += KERNEL_QUAD) {
        const __m512i quad = quad_of(x);
        __builtin_prefetch(lines + AHEAD);
        __builtin_prefetch(lines + AHEAD + 64);
        low[i] = _mm512_dpbusd_epi32(low[i], _mm512_loadu_si512(lines), quad);
        high[i] = _mm512_dpbusd_epi32(high[i], _mm512_loadu_si512(lines + 64), quad);
    }
    _mm512_storeu_si512(
        y, _mm512_add_epi32(_mm512_add_epi32(low[0], low[1]), _mm512_add_epi32(low[2], low[3])));
    _mm512_storeu_si512(y + 16, _mm512_add_epi32(_mm512_add_epi32(high[0], high[1]),
                                                 _mm512_add_epi32(high[2], high[3])));
}

#define REST(n)                                                                                    \
    case n:                                                                                        \
        block_q8(y, y_stride, values, x->stride, x->sum + r, lines, n_k, fetch, n);                \
        break

void KERNEL(gemm_q8)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const uint8_t *lines, size_t n_k, const uint8_t *next, size_t n_next)
{
    size_t r = 0;
    struct fetch fetch = {next, n_next};
    for (; r + ROWS <= n_rows; r += ROWS) {
        block_q8(y, y_stride, x->values + r * x->stride, x->stride, x->sum + r, lines, n_k, fetch,
                 ROWS);
        fetch.left = 0; /* all of it along the first rows */
        y += ROWS * y_stride;
    }
    const int8_t *values = x->values + r * x->stride;
    switch (n_rows - r) {
    case 1:
        row_q8(y, values, x->sum[r], lines, n_k);
        break;
        REST(2);
        REST(3);
        REST(4);
        REST(5);
        REST(6);
        REST(7);
        REST(8);
        REST(9);
        REST(10);
        REST(11);
    }
}

/* Multipliers of a group as 32-bit integers: of columns 0 to 15 and 16 to 31. */
ALWAYS_INLINE void multipliers(const uint8_t *magnitudes, const uint8_t *signs, size_t g,
                               __m512i *low, __m512i *high)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(magnitudes + g * 16));
    uint32_t bits;
    memcpy(&bits, signs + g * 4, sizeof bits);
    const __m512i zero = _mm512_setzero_si512(), nibbles = _mm512_cvtepu8_epi32(bytes);
    *low = _mm512_and_si512(nibbles, _mm512_set1_epi32(15));
    *high = _mm512_srli_epi32(nibbles, 4);
    *low = _mm512_mask_sub_epi32(*low, (__mmask16)bits, zero, *low);
    *high = _mm512_mask_sub_epi32(*high, (__mmask16)(bits >> 16), zero, *high);
}

/* One row: nothing is unpacked. A byte with its top bit turned is 16 (high + 8) + (low + 8), so its dot product less
 * the low nibbles' is 16 times the high nibbles'. */
static void gemv_q4(int32_t *y, const int8_t *x, const int32_t *group_sum, const void *tile,
                    size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    const __m512i low_mask = _mm512_set1_epi8(15), top = _mm512_set1_epi8((char)0x80);
    const __m512i word = _mm512_set1_epi32(0xffff);
    __m512i y_low = _mm512_setzero_si512(), y_high = _mm512_setzero_si512();
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        const __m512i offset = _mm512_set1_epi32(-Q4_ZERO * group_sum[g]);
        __m512i low[2] = {offset, _mm512_setzero_si512()},
                both[2] = {_mm512_slli_epi32(offset, 4), low[1]};
        __m512i m_low, m_high;
        UNROLLED
        for (size_t q = 0; q < KERNEL_GROUP / KERNEL_QUAD; q++) {
            const __m512i bytes = _mm512_loadu_si512(lines);
            const __m512i quad = quad_of(x);
            __builtin_prefetch(lines + AHEAD);
            low[q % 2] = _mm512_dpbusd_epi32(low[q % 2], _mm512_and_si512(bytes, low_mask), quad);
            both[q % 2] = _mm512_dpbusd_epi32(both[q % 2], _mm512_xor_si512(bytes, top), quad);
            lines += Q4_LINE;
            x += KERNEL_QUAD;
        }
        const __m512i sum_low = _mm512_add_epi32(low[0], low[1]),
                      sum_both = _mm512_add_epi32(both[0], both[1]);
        /* `both` holds 16 (high) + (low + 8) - 128 S, low holds low: the 8 S between them is in offset */
        const __m512i sum_high =
            _mm512_srai_epi32(_mm512_sub_epi32(_mm512_add_epi32(sum_both, offset), sum_low), 4);
        multipliers(magnitudes, signs, g, &m_low, &m_high);
        /* a group's sum, at most 32 x 8 x 127, fits sixteen bits: the multiplier's upper half may be cut off */
        y_low = _mm512_dpwssd_epi32(y_low, sum_low, _mm512_and_si512(m_low, word));
        y_high = _mm512_dpwssd_epi32(y_high, sum_high, _mm512_and_si512(m_high, word));
    }
    _mm512_storeu_si512(y, y_low);
    _mm512_storeu_si512(y + 16, y_high);
}

/* Two bytes are multiplied at once: with a and b the nibbles, value + 8, of a word,
 *     (256 b + a) m + 257 (128 - 8 m) = 256 (m (b - 8) + 128) + (m (a - 8) + 128)
 * and neither half leaves 0..255. */
struct unpacking {
    __m512i multiplier, offset; /* words, two a column */
};

ALWAYS_INLINE struct unpacking unpacking_of(__m512i m)
{
    const __m512i word = _mm512_set1_epi32(0xffff);
    const __m512i words = _mm512_or_si512(_mm512_and_si512(m, word), _mm512_slli_epi32(m, 16));
    const __m512i slope = _mm512_set1_epi16(-257 * Q4_ZERO),
                  zero = _mm512_set1_epi16((short)(257 * Q8_ZERO));
    return (struct unpacking){words, _mm512_add_epi16(_mm512_mullo_epi16(words, slope), zero)};
}

ALWAYS_INLINE __m512i scaled(__m512i nibbles, struct unpacking u)
{
    return _mm512_add_epi16(_mm512_mullo_epi16(nibbles, u.multiplier), u.offset);
}

/* As the lines of a q8 tile. */
void KERNEL(prepare_q4)(uint8_t *panel, const void *tile, size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    const __m512i low_mask = _mm512_set1_epi8(15), top = _mm512_set1_epi8((char)0x80);
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        __m512i m_low, m_high;
        multipliers(magnitudes, signs, g, &m_low, &m_high);
        const struct unpacking low = unpacking_of(m_low), high = unpacking_of(m_high);
        UNROLLED
        for (size_t q = 0; q < KERNEL_GROUP / KERNEL_QUAD; q++) {
            /* only the top bit is turned: the low nibble still is value + 8, and the high nibble becomes so */
            const __m512i bytes = _mm512_xor_si512(_mm512_loadu_si512(lines), top);
            const __m512i above = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_mask);
            _mm512_storeu_si512(panel, scaled(_mm512_and_si512(bytes, low_mask), low));
            _mm512_storeu_si512(panel + 64, scaled(above, high));
            lines += Q4_LINE;
            panel += Q8_LINE;
        }
    }
}

void KERNEL(gemm_q4)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const void *tile, const uint8_t *panel, size_t n_k, const uint8_t *next,
                     size_t n_next)
{
    if (panel)
        KERNEL(gemm_q8)(y, y_stride, x, n_rows, panel, n_k, next, n_next);
    else
        row_by_row(gemv_q4, y, y_stride, x, n_rows, tile, n_k);
}
