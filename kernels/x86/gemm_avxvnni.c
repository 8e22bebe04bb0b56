/* Products of eight-bit rows with quantized tiles on AVX-VNNI: VPDPBUSD as in gemm_avx512vnni.c, in
 * sixteen registers of 256 bits. */
#include "q4_avx2.h"

enum {
    ROWS = 6, /* at once: 6 x 2 sums, 2 of weights, 1 of x fill 15 of 16 registers */
    FEW = 3,  /* rows whose sums with all 32 columns fit: 3 x 4 */
};

/* Rows of activations and where their products go. */
struct rows {
    int32_t *y;
    size_t y_stride;
    const int8_t *x;
    size_t x_stride;
    const int32_t *x_sum;
};

ALWAYS_INLINE void add_line_of_two(__m256i (*sums)[VECTORS], const uint8_t *line, const int8_t *x,
                                   size_t x_stride, const size_t n)
{
    const __m256i w0 = load(line), w1 = load(line + 32);
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        const __m256i quad = quad_of(x + r * x_stride);
        sums[r][0] = _mm256_dpbusd_avx_epi32(sums[r][0], w0, quad);
        sums[r][1] = _mm256_dpbusd_avx_epi32(sums[r][1], w1, quad);
    }
}

ALWAYS_INLINE void add_line_of_four(__m256i (*sums)[VECTORS], const uint8_t *line, const int8_t *x,
                                    size_t x_stride, const size_t n)
{
    __m256i quads[FEW];
    UNROLLED
    for (size_t r = 0; r < n; r++)
        quads[r] = quad_of(x + r * x_stride);
    UNROLLED
    for (size_t i = 0; i < VECTORS; i++) {
        const __m256i w = load(line + 32 * i);
        UNROLLED
        for (size_t r = 0; r < n; r++)
            sums[r][i] = _mm256_dpbusd_avx_epi32(sums[r][i], w, quads[r]);
    }
}

/* n rows times 8 x n_vectors (2 or 4) columns (all constants) from `column` on. Weights are stored plus 128
 * because VPDPBUSD multiplies unsigned by signed bytes: sums begin at -128 x (sum of the row). */
ALWAYS_INLINE void block_q8(const struct rows *rows, const uint8_t *lines, size_t n_k,
                            struct fetch *fetch, const size_t n, const size_t column,
                            const size_t n_vectors)
{
    __m256i sums[ROWS][VECTORS];
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        UNROLLED
        for (size_t i = 0; i < n_vectors; i++)
            sums[r][i] = _mm256_set1_epi32(-Q8_ZERO * rows->x_sum[r]);
    }
    lines += column * KERNEL_QUAD;
    for (size_t k = 0; k < n_k; k += KERNEL_QUAD) {
        const int8_t *quads = rows->x + k;
        if (n_vectors == 2) /* what there is less of stays in registers: weights, or x */
            add_line_of_two(sums, lines, quads, rows->x_stride, n);
        else
            add_line_of_four(sums, lines, quads, rows->x_stride, n);
        lines += Q8_LINE;
        fetch_line(fetch);
    }
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        UNROLLED
        for (size_t i = 0; i < n_vectors; i++)
            store(rows->y + r * rows->y_stride + column + 8 * i, sums[r][i]);
    }
}

/* More than FEW rows: 16 columns at a time. */
ALWAYS_INLINE void halves_q8(const struct rows *rows, const uint8_t *lines, size_t n_k,
                             struct fetch *fetch, const size_t n)
{
    for (size_t column = 0; column < KERNEL_TILE; column += 16)
        block_q8(rows, lines, n_k, fetch, n, column, 2);
}

#define REST(n, block, ...)                                                                        \
    case n:                                                                                        \
        block(&rows, lines, n_k, &fetch, n __VA_ARGS__);                                           \
        break

void KERNEL(gemm_q8)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const uint8_t *lines, size_t n_k, const uint8_t *next, size_t n_next)
{
    size_t r = 0;
    struct rows rows = {y, y_stride, x->values, x->stride, x->sum};
    struct fetch fetch = {next, n_next};
    for (; r + ROWS <= n_rows; r += ROWS) {
        halves_q8(&rows, lines, n_k, &fetch, ROWS);
        rows.y += ROWS * y_stride;
        rows.x += ROWS * x->stride;
        rows.x_sum += ROWS;
    }
    switch (n_rows - r) {
        REST(1, block_q8, , 0, VECTORS);
        REST(2, block_q8, , 0, VECTORS);
        REST(3, block_q8, , 0, VECTORS);
        REST(4, halves_q8);
        REST(5, halves_q8);
    }
}

/* ---- q4 --------------------------------------------------------------------------------- */

/* One row: nothing is unpacked. A byte with its top bit turned is 16 (high + 8) + (low + 8), so its
 * dot product less the low nibbles' is 16 times the high nibbles'. */
static void gemv_q4(int32_t *y, const int8_t *x, const int32_t *group_sum, const void *tile,
                    size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k);
    const uint8_t *lines = q4_lines(tile, n_k);
    const __m256i low_mask = _mm256_set1_epi8(15), top = _mm256_set1_epi8((char)0x80);
    __m256i sums[VECTORS] = {0};
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        const __m256i offset = _mm256_set1_epi32(-Q4_ZERO * group_sum[g]);
        __m256i low[2], both[2], m[VECTORS];
        low[0] = low[1] = offset;
        both[0] = both[1] = _mm256_slli_epi32(offset, 4);
        UNROLLED
        for (size_t q = 0; q < KERNEL_GROUP / KERNEL_QUAD; q++) {
            const __m256i quad = quad_of(x);
            UNROLLED
            for (int i = 0; i < 2; i++) {
                const __m256i bytes = load(lines + 32 * i);
                low[i] = _mm256_dpbusd_avx_epi32(low[i], _mm256_and_si256(bytes, low_mask), quad);
                both[i] = _mm256_dpbusd_avx_epi32(both[i], _mm256_xor_si256(bytes, top), quad);
            }
            lines += Q4_LINE;
            x += KERNEL_QUAD;
        }
        /* a group's sum, at most 32 x 8 x 127, fits sixteen bits: its upper half is not multiplied */
        group_multipliers(magnitudes + g * 16, signs + g * 4, 0xffff, m);
        UNROLLED
        for (int i = 0; i < 2; i++) {
            /* `low` is without its 8, `both` still has the low nibble's */
            const __m256i sixteen_high =
                _mm256_sub_epi32(_mm256_add_epi32(both[i], offset), low[i]);
            const __m256i high = _mm256_srai_epi32(sixteen_high, 4);
            sums[i] = _mm256_dpwssd_avx_epi32(sums[i], low[i], m[i]);
            sums[i + 2] = _mm256_dpwssd_avx_epi32(sums[i + 2], high, m[i + 2]);
        }
    }
    for (int i = 0; i < VECTORS; i++)
        store(y + 8 * i, sums[i]);
}

/* The tile as q8's lines: m x value + 128 in every byte. Two bytes are multiplied at once: with a
 * and b the nibbles, value + 8, of a word,
 *     (256 b + a) m + 257 (128 - 8 m) = 256 (m (b - 8) + 128) + (m (a - 8) + 128)
 * and neither half leaves 0..255. */
void KERNEL(prepare_q4)(uint8_t *panel, const void *tile, size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k);
    const uint8_t *lines = q4_lines(tile, n_k);
    const __m256i slope = _mm256_set1_epi16(-257 * Q4_ZERO);
    const __m256i zero = _mm256_set1_epi16((short)(257 * Q8_ZERO));
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        __m256i m[VECTORS], offset[VECTORS], nibbles[VECTORS];
        group_multipliers(magnitudes + g * 16, signs + g * 4, 0xffffffff, m);
        for (int i = 0; i < VECTORS; i++)
            offset[i] = _mm256_add_epi16(_mm256_mullo_epi16(m[i], slope), zero);
        for (size_t q = 0; q < KERNEL_GROUP / KERNEL_QUAD; q++) {
            line_nibbles(lines, nibbles);
            for (int i = 0; i < VECTORS; i++)
                store(panel + 32 * i,
                      _mm256_add_epi16(_mm256_mullo_epi16(nibbles[i], m[i]), offset[i]));
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
