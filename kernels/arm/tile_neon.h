/* Quantized tiles in NEON registers: what the rungs of arm64 share. ARM's products take signed bytes on both sides, so
 * tiles become signed lines: as a line of q8, [32 columns][4 inputs], with value in place of value + 128. A vector has
 * the four inputs of a quad of four columns. */
#ifndef KERNELS_ARM_TILE_NEON_H
#define KERNELS_ARM_TILE_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "../c/block.h"
#include "../formats.h"

enum {
    VECTOR = 16,
    VECTORS = Q8_LINE / VECTOR, /* of a line */
    CHUNK =
        512, /* inputs whose lines, 16 KB, stay in the first cache while all columns and rows pass */
};

/* Rows of activations and where their products go. */
struct rows {
    int32_t *y;
    size_t y_stride;
    const int8_t *x;
    size_t x_stride;
};

/* The product of a chunk with some rows: `lines` are signed, or with `flip` those of a q8 tile. Sums are added to what y
 * holds unless `first`. */
typedef void (*chunk_fn)(const struct rows *rows, size_t n_rows, const uint8_t *lines, size_t n_k,
                         bool flip, bool first, struct fetch *fetch);

/* A vector of weights: a value + 128 with its top bit turned is the value. */
ALWAYS_INLINE int8x16_t weights(const uint8_t *line, bool flip)
{
    const uint8x16_t bytes = vld1q_u8(line);
    return vreinterpretq_s8_u8(flip ? veorq_u8(bytes, vdupq_n_u8(Q8_ZERO)) : bytes);
}

/* All rows times all columns, chunk by chunk. With many rows q8's lines are turned into signed ones once. */
ALWAYS_INLINE void gemm_chunks(chunk_fn chunk, int32_t *y, size_t y_stride, const struct q8_rows *x,
                               size_t n_rows, const uint8_t *lines, size_t n_k, bool flip,
                               size_t few, struct fetch *fetch)
{
    uint8_t turned[CHUNK * KERNEL_TILE];
    struct rows rows = {y, y_stride, x->values, x->stride};
    if (n_rows == 0)
        return;
    for (size_t k = 0; k < n_k || k == 0; k += CHUNK) {
        const size_t n = n_k - k < CHUNK ? n_k - k : CHUNK;
        const uint8_t *from = lines + k * KERNEL_TILE;
        const bool turn = flip && n_rows > few;
        for (size_t i = 0; turn && i < n * KERNEL_TILE; i += VECTOR)
            vst1q_u8(turned + i, vreinterpretq_u8_s8(weights(from + i, true)));
        chunk(&rows, n_rows, turn ? turned : from, n, flip && !turn, k == 0, fetch);
        rows.x += CHUNK;
    }
}

/* ---- q4 --------------------------------------------------------------------------------- */

/* A group's multipliers: m[0] of columns 0 to 15, m[1] of 16 to 31. */
ALWAYS_INLINE void group_multipliers(const uint8_t *magnitudes, const uint8_t *signs,
                                     int8x16_t m[2])
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    static const uint8_t byte_of[2][16] = {{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
                                           {2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3}};
    uint32_t all;
    memcpy(&all, signs, sizeof all);
    const uint8x16_t four = vcombine_u8(vcreate_u8(all), vcreate_u8(0)),
                     bytes = vld1q_u8(magnitudes);
    const uint8x16_t magnitude[2] = {vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8(bytes, 4)};
    for (int i = 0; i < 2; i++) {
        const int8x16_t negative =
            vreinterpretq_s8_u8(vtstq_u8(vqtbl1q_u8(four, vld1q_u8(byte_of[i])), vld1q_u8(bits)));
        m[i] = vsubq_s8(veorq_s8(vreinterpretq_s8_u8(magnitude[i]), negative), negative);
    }
}

/* The same for a whole line: of columns 4 i to 4 i + 3, each four times. */
ALWAYS_INLINE void group_multipliers_spread(const uint8_t *magnitudes, const uint8_t *signs,
                                            int8x16_t spread[VECTORS])
{
    static const uint8_t four_times[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    int8x16_t m[2];
    group_multipliers(magnitudes, signs, m);
    for (int i = 0; i < VECTORS; i++)
        spread[i] =
            vqtbl1q_s8(m[i / 4], vaddq_u8(vld1q_u8(four_times), vdupq_n_u8((uint8_t)(i % 4 * 4))));
}

/* A line of a q4 tile times its multipliers: a signed line, in eight vectors. */
ALWAYS_INLINE void multiply_line(const uint8_t *line, const int8x16_t m[VECTORS],
                                 int8x16_t out[VECTORS])
{
    UNROLLED
    for (int i = 0; i < VECTORS / 2; i++) {
        const uint8x16_t bytes = vld1q_u8(line + VECTOR * i);
        const int8x16_t low =
            vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), vdupq_n_s8(Q4_ZERO));
        const int8x16_t high = vshrq_n_s8(vreinterpretq_s8_u8(bytes), 4);
        out[i] = vmulq_s8(low, m[i]); /* at most 15 x 8 */
        out[i + VECTORS / 2] = vmulq_s8(high, m[i + VECTORS / 2]);
    }
}

/* The tile as signed lines. */
ALWAYS_INLINE void signed_lines_of_q4(uint8_t *panel, const void *tile, size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        int8x16_t spread[VECTORS], out[VECTORS];
        group_multipliers_spread(magnitudes + g * 16, signs + g * 4, spread);
        for (size_t q = 0; q < KERNEL_GROUP / KERNEL_QUAD; q++) {
            multiply_line(lines, spread, out);
            for (int i = 0; i < VECTORS; i++)
                vst1q_u8(panel + VECTOR * i, vreinterpretq_u8_s8(out[i]));
            lines += Q4_LINE;
            panel += Q8_LINE;
        }
    }
}

/* Half `part` (0 or 1) of a tile's low and high columns: sums += low[2] and high[2] (a column a lane; at most 32 x 8 x 127,
 * sixteen bits) times a group's multipliers. */
ALWAYS_INLINE void add_columns(int32x4_t sums[VECTORS], int part, const int32x4_t low[2],
                               const int16x4_t high[2], const int8x16_t m[2])
{
    const int16x8_t a = vmovl_s8(part ? vget_high_s8(m[0]) : vget_low_s8(m[0])),
                    b = vmovl_s8(part ? vget_high_s8(m[1]) : vget_low_s8(m[1]));
    const int16x8_t l = vuzp1q_s16(vreinterpretq_s16_s32(low[0]), vreinterpretq_s16_s32(low[1]));
    sums[2 * part] = vmlal_s16(sums[2 * part], vget_low_s16(l), vget_low_s16(a));
    sums[2 * part + 1] = vmlal_high_s16(sums[2 * part + 1], l, a);
    sums[2 * part + 4] = vmlal_s16(sums[2 * part + 4], high[0], vget_low_s16(b));
    sums[2 * part + 5] = vmlal_s16(sums[2 * part + 5], high[1], vget_high_s16(b));
}

#endif
