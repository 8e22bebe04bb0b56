/* Few rows times quantized tiles by SDOT: what the rungs dotprod and i8mm share. */
#ifndef KERNELS_ARM_TILE_DOTPROD_H
#define KERNELS_ARM_TILE_DOTPROD_H

#include "tile_neon.h"

enum {
    /* at once, with 8 columns: 12 sums, 6 of x, 2 of weights; with 8 rows gcc moves registers about */
    DOT_ROWS = 6,
    FEW =
        3, /* rows whose sums with all 32 columns nearly fit: 3 x 8; gcc 12 keeps some operands in memory */
};

/* One quad (a constant) of four of `x` [n rows], which each vector of weights meets. */
#define ADD_QUAD(quad)                                                                             \
    UNROLLED                                                                                       \
    for (size_t i = 0; i < n_vectors; i++) {                                                       \
        const int8x16_t w = weights(lines + (quad)*Q8_LINE + VECTOR * i, flip);                    \
        UNROLLED                                                                                   \
        for (size_t r = 0; r < n; r++)                                                             \
            sums[r][i] = vdotq_laneq_s32(sums[r][i], w, x[r], quad);                               \
    }

/* n rows times 4 x n_vectors columns (constants: n x n_vectors sums fit the registers) from `column` on. */
ALWAYS_INLINE void block(const struct rows *rows, const uint8_t *lines, size_t n_k,
                         struct fetch *fetch, bool first, const bool flip, const size_t n,
                         const size_t column, const size_t n_vectors)
{
    int32x4_t sums[DOT_ROWS][VECTORS];
    int8x16_t x[DOT_ROWS];
    int32_t *y = rows->y + column;
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        UNROLLED
        for (size_t i = 0; i < n_vectors; i++)
            sums[r][i] = first ? vdupq_n_s32(0) : vld1q_s32(y + r * rows->y_stride + 4 * i);
    }
    lines += column * KERNEL_QUAD;
    for (size_t k = 0; k < n_k; k += 4 * KERNEL_QUAD) {
        UNROLLED
        for (size_t r = 0; r < n; r++)
            x[r] = vld1q_s8(rows->x + r * rows->x_stride + k);
        ADD_QUAD(0)
        ADD_QUAD(1)
        ADD_QUAD(2)
        ADD_QUAD(3)
        lines += 4 * Q8_LINE;
        fetch_lines(fetch, n_vectors / 2);
    }
    UNROLLED
    for (size_t r = 0; r < n; r++) {
        UNROLLED
        for (size_t i = 0; i < n_vectors; i++)
            vst1q_s32(y + r * rows->y_stride + 4 * i, sums[r][i]);
    }
}

/* At most FEW rows times all columns. */
ALWAYS_INLINE void few_rows(const struct rows *rows, size_t n_rows, const uint8_t *lines,
                            size_t n_k, struct fetch *fetch, bool first, const bool flip)
{
    switch (n_rows) {
    case 1:
        block(rows, lines, n_k, fetch, first, flip, 1, 0, VECTORS);
        break;
    case 2:
        block(rows, lines, n_k, fetch, first, flip, 2, 0, VECTORS);
        break;
    case 3:
        block(rows, lines, n_k, fetch, first, flip, 3, 0, VECTORS);
        break;
    }
}

/* ---- q4 --------------------------------------------------------------------------------- */

/* One quad (a constant) of x: eight of a line's sixteen columns, and the eight that their high halves are. */
#define ADD_BYTES(quad)                                                                            \
    UNROLLED                                                                                       \
    for (int i = 0; i < 2; i++) {                                                                  \
        const int8x16_t bytes = vld1q_s8((const int8_t *)lines + (quad)*Q4_LINE + VECTOR * i);     \
        low[i] =                                                                                   \
            vdotq_laneq_s32(low[i], vandq_s8(bytes, vdupq_n_s8(15)), x[(quad) / 4], (quad) % 4);   \
        both[i] = vdotq_laneq_s32(both[i], bytes, x[(quad) / 4], (quad) % 4);                      \
    }

/* A group's sums of eight columns (with `part`, 0 or 1, the first or the last eight of a line) and of those sixteen further
 * on. */
ALWAYS_INLINE void add_part(int32x4_t sums[VECTORS], const uint8_t *lines, const int8x16_t x[2],
                            const volatile int32x4_t *offset, const int8x16_t m[2], const int part)
{
    /* loaded each time: copies of a register would take the place of products. In this order gcc 12 needs none
     * (tools/arm-cost.sh) */
    int32x4_t both[2] = {*offset, *offset}, low[2] = {*offset, *offset};
    lines += part * 2 * VECTOR;
    ADD_BYTES(0)
    ADD_BYTES(1)
    ADD_BYTES(2)
    ADD_BYTES(3)
    ADD_BYTES(4)
    ADD_BYTES(5)
    ADD_BYTES(6)
    ADD_BYTES(7)
    int16x4_t high[2];
    UNROLLED
    for (int i = 0; i < 2; i++)
        high[i] = vshrn_n_s32(vsubq_s32(both[i], low[i]), 4);
    add_columns(sums, part, low, high, m);
}

/* One row: nothing is unpacked. A byte is 16 (high) + (low + 8), so its dot product less the low nibbles' is 16 times
 * the high nibbles'. */
static void gemv_q4(int32_t *y, const int8_t *x, const int32_t *group_sum, const void *tile,
                    size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    int32x4_t sums[VECTORS];
    for (int i = 0; i < VECTORS; i++)
        sums[i] = vdupq_n_s32(0);
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        const volatile int32x4_t offset = vdupq_n_s32(-Q4_ZERO * group_sum[g]);
        const int8x16_t values[2] = {vld1q_s8(x), vld1q_s8(x + VECTOR)};
        int8x16_t m[2];
        group_multipliers(magnitudes + g * 16, signs + g * 4, m);
        __asm__ volatile(
            "" ::
                : "memory"); /* or all loads would come first, and registers would not do */
        add_part(sums, lines, values, &offset, m, 0);
        __asm__ volatile("" ::: "memory");
        add_part(sums, lines, values, &offset, m, 1);
        x += KERNEL_GROUP;
        lines += KERNEL_GROUP / KERNEL_QUAD * Q4_LINE;
    }
    for (int i = 0; i < VECTORS; i++)
        vst1q_s32(y + 4 * i, sums[i]);
}

#endif
