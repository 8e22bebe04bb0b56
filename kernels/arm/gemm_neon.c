/* Products of eight-bit rows with quantized tiles on NEON alone (ARMv8.0): SMULL and SMLAL into sixteen bits, SADALP. */
#include "tile_neon.h"

enum {
    ROWS =
        4, /* at once: 4 rows x 8 columns in 16 sums, 4 of weights, 2 of x, 2 of products; gcc 12 spills a few */
    FEW = 3, /* rows for which q8's lines are turned on the way */
    COLUMNS = 8,
};

/* sum += four inputs of each of two columns, twice: a and b are a quad's columns and the next quad's. Two products of
 * at most 127 x 127 fit sixteen bits. */
ALWAYS_INLINE int32x4_t add_pair(int32x4_t sum, int8x8_t a, int8x8_t x, int8x8_t b, int8x8_t next_x)
{
    return vpadalq_s16(sum, vmlal_s8(vmull_s8(a, x), b, next_x));
}

/* n rows (a constant) times 8 columns from `column` on. A sum's four lanes are two of one column and two of the next. */
ALWAYS_INLINE void block(const struct rows *rows, const uint8_t *lines, size_t n_k, bool flip,
                         bool first, const size_t n, size_t column)
{
    int32x4_t sums[ROWS][COLUMNS / 2];
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        UNROLLED
        for (size_t i = 0; i < COLUMNS / 2; i++)
            sums[r][i] = vdupq_n_s32(0);
    }
    lines += column * KERNEL_QUAD;
    for (size_t k = 0; k < n_k; k += 2 * KERNEL_QUAD, lines += 2 * Q8_LINE) {
        const int8x16_t a[2] = {weights(lines, flip), weights(lines + VECTOR, flip)};
        const int8x16_t b[2] = {weights(lines + Q8_LINE, flip),
                                weights(lines + Q8_LINE + VECTOR, flip)};
        UNROLLED
        for (size_t r = 0; r < n; r++) {
            const int32x2_t quads = vreinterpret_s32_s8(vld1_s8(rows->x + r * rows->x_stride + k));
            const int8x8_t x = vreinterpret_s8_s32(vdup_lane_s32(quads, 0)),
                           next = vreinterpret_s8_s32(vdup_lane_s32(quads, 1));
            UNROLLED
            for (int i = 0; i < 2; i++) {
                sums[r][2 * i] =
                    add_pair(sums[r][2 * i], vget_low_s8(a[i]), x, vget_low_s8(b[i]), next);
                sums[r][2 * i + 1] =
                    add_pair(sums[r][2 * i + 1], vget_high_s8(a[i]), x, vget_high_s8(b[i]), next);
            }
        }
    }
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        int32_t *y = rows->y + r * rows->y_stride + column;
        UNROLLED
        for (int i = 0; i < 2; i++) {
            const int32x4_t columns = vpaddq_s32(sums[r][2 * i], sums[r][2 * i + 1]);
            vst1q_s32(y + 4 * i, first ? columns : vaddq_s32(columns, vld1q_s32(y + 4 * i)));
        }
    }
}

static void rows_of_chunk(const struct rows *rows, const uint8_t *lines, size_t n_k, bool flip,
                          bool first, size_t n)
{
    for (size_t column = 0; column < KERNEL_TILE; column += COLUMNS)
        switch (n) {
        case 1:
            block(rows, lines, n_k, flip, first, 1, column);
            break;
        case 2:
            block(rows, lines, n_k, flip, first, 2, column);
            break;
        case 3:
            block(rows, lines, n_k, flip, first, 3, column);
            break;
        default:
            block(rows, lines, n_k, flip, first, ROWS, column);
        }
}

static void chunk(const struct rows *rows, size_t n_rows, const uint8_t *lines, size_t n_k,
                  bool flip, bool first, struct fetch *fetch)
{
    struct rows left = *rows;
    fetch_lines(fetch, n_k / KERNEL_QUAD);
    for (; n_rows; n_rows -= n_rows < ROWS ? n_rows : ROWS) {
        rows_of_chunk(&left, lines, n_k, flip, first, n_rows < ROWS ? n_rows : ROWS);
        left.y += ROWS * left.y_stride;
        left.x += ROWS * left.x_stride;
    }
}

/* ---- q4 --------------------------------------------------------------------------------- */

/* Eight columns of a line, four inputs each: their sums [column][input] of sixteen bits. A group's eight products of at
 * most 15 x 127 fit. */
ALWAYS_INLINE void add_nibbles(int16x8_t low[2], int16x8_t high[2], const uint8_t *line, int8x8_t x)
{
    const uint8x16_t bytes = vld1q_u8(line);
    const int8x16_t l = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))),
                    h = vshrq_n_s8(vreinterpretq_s8_u8(bytes), 4);
    low[0] = vmlal_s8(low[0], vget_low_s8(l), x);
    low[1] = vmlal_s8(low[1], vget_high_s8(l), x);
    high[0] = vmlal_s8(high[0], vget_low_s8(h), x);
    high[1] = vmlal_s8(high[1], vget_high_s8(h), x);
}

/* [column][4 inputs] of four columns -> a column a lane. */
ALWAYS_INLINE int32x4_t column_sums(const int16x8_t sums[2])
{
    return vpaddq_s32(vpaddlq_s16(sums[0]), vpaddlq_s16(sums[1]));
}

/* One row. */
static void gemv_q4(int32_t *y, const int8_t *x, const int32_t *group_sum, const void *tile,
                    size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    int32x4_t sums[VECTORS];
    for (int i = 0; i < VECTORS; i++)
        sums[i] = vdupq_n_s32(0);
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        const int32x4_t offset = vdupq_n_s32(-Q4_ZERO * group_sum[g]);
        int16x8_t low[4][2], high[4][2];
        int32x4_t low_sums[4];
        int16x4_t high_sums[4];
        int8x16_t m[2];
        for (int i = 0; i < 4; i++)
            low[i][0] = low[i][1] = high[i][0] = high[i][1] = vdupq_n_s16(0);
        for (size_t q = 0; q < KERNEL_GROUP / KERNEL_QUAD; q++) {
            int32_t quad;
            memcpy(&quad, x, sizeof quad);
            const int8x8_t values = vreinterpret_s8_s32(vdup_n_s32(quad));
            UNROLLED
            for (int i = 0; i < 4; i++)
                add_nibbles(low[i], high[i], lines + VECTOR * i, values);
            x += KERNEL_QUAD;
            lines += Q4_LINE;
        }
        for (int i = 0; i < 4; i++) {
            low_sums[i] = vaddq_s32(column_sums(low[i]), offset);
            high_sums[i] = vmovn_s32(column_sums(high[i]));
        }
        group_multipliers(magnitudes + g * 16, signs + g * 4, m);
        add_columns(sums, 0, low_sums, high_sums, m);
        add_columns(sums, 1, low_sums + 2, high_sums + 2, m);
    }
    for (int i = 0; i < VECTORS; i++)
        vst1q_s32(y + 4 * i, sums[i]);
}

#include "products.h"
