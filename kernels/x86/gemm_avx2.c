/* Products of eight-bit rows with quantized tiles on AVX2 without VNNI. Nothing here can saturate.
 *
 * q8: VPMADDWD on words, because a byte product's pair sums would leave sixteen bits.
 * q4: VPMADDUBSW on the nibbles themselves, whose sums over a group stay in sixteen bits; then one
 * VPMADDWD by the group's multipliers. */
#include "q4_avx2.h"

enum {
    ROWS = 6,  /* at once: 6 x 2 sums, 2 of weights, 1 of x and a product fill 16 registers */
    PART = 512 /* inputs at once: their operands are prepared once and stay in the first cache */
};

/* ---- q8 --------------------------------------------------------------------------------- */

/* A part of some rows as words, and where their products go. */
struct words {
    int16_t x[ROWS][PART];
    int32_t offset[ROWS]; /* -128 x (sum of the part) */
};

static void widen_rows(struct words *words, const int8_t *x, size_t x_stride, size_t n,
                       size_t n_part)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t r = 0; r < n; r++) {
        __m256i sums = _mm256_setzero_si256();
        for (size_t k = 0; k < n_part; k += 16) {
            const __m256i value = _mm256_cvtepi8_epi16(
                _mm_loadu_si128((const __m128i *)(const void *)(x + r * x_stride + k)));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(value, ones));
            store(words->x[r] + k, value);
        }
        int32_t lanes[8], sum = 0;
        store(lanes, sums);
        for (int i = 0; i < 8; i++)
            sum += lanes[i];
        words->offset[r] = -Q8_ZERO * sum;
    }
}

ALWAYS_INLINE __m256i quad_of_words(const int16_t *x)
{
    int64_t quad;
    memcpy(&quad, x, sizeof quad);
    return _mm256_set1_epi64x(quad);
}

/* y (+)= n rows times n_vectors x 4 columns from `column` on (n, n_vectors even: constants). */
ALWAYS_INLINE void block_q8(int32_t *y, size_t y_stride, bool accumulate, const struct words *words,
                            const uint8_t *lines, size_t n_part, struct fetch *fetch,
                            const size_t n, const size_t column, const size_t n_vectors)
{
    __m256i sums[ROWS][8], w[8];
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        UNROLLED
        for (size_t i = 0; i < n_vectors; i++)
            sums[r][i] = _mm256_setzero_si256();
    }
    lines += column * KERNEL_QUAD;
    for (size_t k = 0; k < n_part; k += KERNEL_QUAD) {
        UNROLLED
        for (size_t i = 0; i < n_vectors; i++)
            w[i] = _mm256_cvtepu8_epi16(
                _mm_loadu_si128((const __m128i *)(const void *)(lines + 16 * i)));
        lines += Q8_LINE;
        fetch_line(fetch);
        UNROLLED
        for (size_t r = 0; r < n; r++) {
            const __m256i quad = quad_of_words(words->x[r] + k);
            UNROLLED
            for (size_t i = 0; i < n_vectors; i++)
                sums[r][i] = _mm256_add_epi32(sums[r][i], _mm256_madd_epi16(w[i], quad));
        }
    }
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        UNROLLED
        for (size_t i = 0; i < n_vectors; i += 2) {
            int32_t *place = y + r * y_stride + column + 4 * i;
            /* a lane has half a column: columns 0 0 1 1 2 2 3 3 and 4 4 ... -> 0 1 4 5 2 3 6 7 */
            const __m256i folded = _mm256_hadd_epi32(sums[r][i], sums[r][i + 1]);
            __m256i sum = _mm256_add_epi32(_mm256_permute4x64_epi64(folded, 0xd8),
                                           _mm256_set1_epi32(words->offset[r]));
            if (accumulate)
                sum = _mm256_add_epi32(sum, load(place));
            store(place, sum);
        }
    }
}

/* n_vectors as many as the registers have room for */
ALWAYS_INLINE void rows_q8(int32_t *y, size_t y_stride, bool accumulate, const struct words *words,
                           const uint8_t *lines, size_t n_part, struct fetch *fetch, const size_t n)
{
    const size_t n_vectors = n == 1 ? 8 : n <= 3 ? 4 : 2;
    for (size_t column = 0; column < KERNEL_TILE; column += 4 * n_vectors)
        block_q8(y, y_stride, accumulate, words, lines, n_part, fetch, n, column, n_vectors);
}

#define CASE_Q8(n)                                                                                 \
    case n:                                                                                        \
        rows_q8(y, y_stride, accumulate, &words, lines, n_part, fetch, n);                         \
        break

static void part_q8(int32_t *y, size_t y_stride, bool accumulate, const int8_t *x, size_t x_stride,
                    size_t n_rows, const uint8_t *lines, size_t n_part, struct fetch *fetch)
{
    struct words words;
    while (n_rows) {
        const size_t n = n_rows < ROWS ? n_rows : ROWS;
        widen_rows(&words, x, x_stride, n, n_part);
        switch (n) {
            CASE_Q8(1);
            CASE_Q8(2);
            CASE_Q8(3);
            CASE_Q8(4);
            CASE_Q8(5);
            CASE_Q8(6);
        }
        n_rows -= n;
        y += n * y_stride;
        x += n * x_stride;
    }
}

void KERNEL(gemm_q8)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const uint8_t *lines, size_t n_k, const uint8_t *next, size_t n_next)
{
    struct fetch fetch = {next, n_next};
    size_t k = 0;
    do {
        const size_t n_part = n_k - k < PART ? n_k - k : PART;
        part_q8(y, y_stride, k > 0, x->values + k, x->stride, n_rows, lines + k * KERNEL_TILE,
                n_part, &fetch);
        k += n_part;
    } while (k < n_k);
}

/* ---- q4 --------------------------------------------------------------------------------- */

enum { QUADS = KERNEL_GROUP / KERNEL_QUAD };

/* The panel: lines as q8's of weights + 8, then for each group its multipliers [VECTORS][8 columns][2 equal words]. */
static const uint8_t *panel_multipliers(const uint8_t *panel, size_t n_k, size_t group)
{
    return panel + n_k * KERNEL_TILE + group * VECTORS * sizeof(__m256i);
}

void KERNEL(prepare_q4)(uint8_t *panel, const void *tile, size_t n_k)
{
    const uint8_t *lines = q4_lines(tile, n_k);
    uint8_t *multipliers = panel + n_k * KERNEL_TILE;
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        __m256i m[VECTORS];
        group_multipliers(q4_magnitudes(tile) + g * 16, q4_signs(tile, n_k) + g * 4, 0xffffffff, m);
        for (int i = 0; i < VECTORS; i++, multipliers += sizeof *m)
            store(multipliers, m[i]);
        for (size_t q = 0; q < QUADS; q++) {
            __m256i w[VECTORS];
            line_nibbles(lines, w);
            for (int i = 0; i < VECTORS; i++)
                store(panel + 32 * i, w[i]);
            lines += Q4_LINE;
            panel += Q8_LINE;
        }
    }
}

/* -4 x (a group's sum), twice in a lane: where the sums of 16 products (value + 8) x begin, two of
 * which make a column's. Such a sum stays within 30480: it is a sum of 16 terms within
 * 15 x 127 less 4 (x + the x in the lane's other half). */
static inline int32_t group_offset(int32_t group_sum)
{
    const uint32_t word = (uint32_t)(-Q4_ZERO / 2 * group_sum) & 0xffff;
    return (int32_t)(word | word << 16);
}

/* A part of some rows' inputs, and where their products go. */
struct part_q4 {
    int32_t *y;
    size_t y_stride;
    const int8_t *x;
    size_t x_stride;
    const uint8_t *lines, *multipliers; /* of the panel */
    size_t n_groups;
    int32_t offsets[PART / KERNEL_GROUP][ROWS];
};

/* y += n rows times 16 columns from `column` on (n: a constant). */
ALWAYS_INLINE void block_q4(const struct part_q4 *part, struct fetch *fetch, const size_t n,
                            const size_t column)
{
    const int8_t *x = part->x;
    const uint8_t *lines = part->lines + column * KERNEL_QUAD,
                  *multipliers = part->multipliers + column / 8 * sizeof(__m256i);
    for (size_t g = 0; g < part->n_groups; g++) {
        __m256i sums[ROWS][2];
        fetch_lines(fetch, QUADS);
        UNROLLED
        for (size_t r = 0; r < n; r++)
            sums[r][0] = sums[r][1] = _mm256_set1_epi32(part->offsets[g][r]);
#pragma GCC unroll 1
        for (size_t q = 0; q < QUADS; q++) {
            const __m256i w0 = load(lines), w1 = load(lines + 32);
            lines += Q8_LINE;
            UNROLLED
            for (size_t r = 0; r < n; r++) {
                const __m256i quad = quad_of(x + r * part->x_stride);
                sums[r][0] = _mm256_add_epi16(sums[r][0], _mm256_maddubs_epi16(w0, quad));
                sums[r][1] = _mm256_add_epi16(sums[r][1], _mm256_maddubs_epi16(w1, quad));
                /* the sums are final here: gcc 12 else puts all products before all additions,
                 * for which there are no registers (a quarter slower) */
                __asm__("" : "+x"(sums[r][0]), "+x"(sums[r][1]));
            }
            x += KERNEL_QUAD;
        }
        const __m256i m0 = load(multipliers), m1 = load(multipliers + 32);
        multipliers += VECTORS * sizeof(__m256i);
        UNROLLED
        for (size_t r = 0; r < n; r++) {
            int32_t *place = part->y + r * part->y_stride + column;
            store(place, _mm256_add_epi32(_mm256_madd_epi16(sums[r][0], m0), load(place)));
            store(place + 8, _mm256_add_epi32(_mm256_madd_epi16(sums[r][1], m1), load(place + 8)));
        }
    }
}

#define CASE_Q4(n)                                                                                 \
    case n:                                                                                        \
        block_q4(&part, fetch, n, 0);                                                              \
        block_q4(&part, fetch, n, 16);                                                             \
        break

/* n rows (at most ROWS), a part of the inputs at a time. */
static void rows_q4(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n,
                    const uint8_t *panel, size_t n_k, struct fetch *fetch)
{
    const size_t n_groups = n_k / KERNEL_GROUP;
    struct part_q4 part = {.y = y, .y_stride = y_stride, .x_stride = x->stride};
    for (size_t r = 0; r < n; r++)
        memset(y + r * y_stride, 0, KERNEL_TILE * sizeof *y);
    for (size_t k = 0; k < n_k; k += PART) {
        const size_t first = k / KERNEL_GROUP;
        part.x = x->values + k;
        part.lines = panel + k * KERNEL_TILE;
        part.multipliers = panel_multipliers(panel, n_k, first);
        part.n_groups = (n_k - k < PART ? n_k - k : PART) / KERNEL_GROUP;
        for (size_t g = 0; g < part.n_groups; g++)
            for (size_t r = 0; r < n; r++)
                part.offsets[g][r] = group_offset(x->group_sum[r * n_groups + first + g]);
        switch (n) {
            CASE_Q4(1);
            CASE_Q4(2);
            CASE_Q4(3);
            CASE_Q4(4);
            CASE_Q4(5);
            CASE_Q4(6);
        }
    }
}

static void prepared_q4(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                        const uint8_t *panel, size_t n_k, const uint8_t *next, size_t n_next)
{
    struct fetch fetch = {next, n_next};
    for (size_t r = 0; r < n_rows; r += ROWS) {
        const struct q8_rows rows = q8_rows_from(x, r, n_k);
        rows_q4(y + r * y_stride, y_stride, &rows, n_rows - r < ROWS ? n_rows - r : ROWS, panel,
                n_k, &fetch);
    }
}

/* One row, straight from the tile. */
static void gemv_q4(int32_t *y, const int8_t *x, const int32_t *group_sum, const void *tile,
                    size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k);
    const uint8_t *lines = q4_lines(tile, n_k);
    __m256i y_sums[VECTORS] = {0};
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        const __m256i offset = _mm256_set1_epi16((short)(-Q4_ZERO / 2 * group_sum[g]));
        __m256i sums[VECTORS] = {offset, offset, offset, offset}, m[VECTORS];
        UNROLLED
        for (size_t q = 0; q < QUADS; q++) {
            __m256i w[VECTORS];
            const __m256i quad = quad_of(x);
            line_nibbles(lines, w);
            for (int i = 0; i < VECTORS; i++)
                sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(w[i], quad));
            lines += Q4_LINE;
            x += KERNEL_QUAD;
        }
        group_multipliers(magnitudes + g * 16, signs + g * 4, 0xffffffff, m);
        for (int i = 0; i < VECTORS; i++)
            y_sums[i] = _mm256_add_epi32(y_sums[i], _mm256_madd_epi16(sums[i], m[i]));
    }
    for (int i = 0; i < VECTORS; i++)
        store(y + 8 * i, y_sums[i]);
}

void KERNEL(gemm_q4)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const void *tile, const uint8_t *panel, size_t n_k, const uint8_t *next,
                     size_t n_next)
{
    if (panel)
        prepared_q4(y, y_stride, x, n_rows, panel, n_k, next, n_next);
    else
        row_by_row(gemv_q4, y, y_stride, x, n_rows, tile, n_k);
}
