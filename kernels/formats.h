/* Packed tiles of quantized matrices, as they lie in the weight file and in the key/value cache: models/FORMAT.md has
 * the picture. A tile is 32 outputs ("columns") of a linear layer; its inputs, k, are padded to a multiple of 32. */
#ifndef KERNELS_FORMATS_H
#define KERNELS_FORMATS_H

#include <stddef.h>
#include <stdint.h>

enum {
    KERNEL_TILE = 32,  /* columns of a tile */
    KERNEL_GROUP = 32, /* inputs that share a multiplier */
    KERNEL_QUAD =
        4, /* inputs of one column that lie side by side: a 32-bit lane of every dot product instruction */
    Q8_ZERO = 128,                           /* the byte that means 0 */
    Q8_LINE = KERNEL_TILE * KERNEL_QUAD,     /* bytes of a quad of inputs: [32 columns][4] */
    Q4_LINE = KERNEL_TILE * KERNEL_QUAD / 2, /* [16 columns and the 16 after them][4] */
    Q4_ZERO = 8,
    Q4_MOST_MULTIPLIER = 15, /* so that multiplier times value, at most 15 x 8, fits eight bits */
};

/* Both kinds of tile begin with the columns' scales. */
struct tile_scales {
    float scale[KERNEL_TILE];
};
_Static_assert(sizeof(struct tile_scales) == 128, "scales fill two cache lines");

/* `n` rounded up to a multiple of `align`. */
static inline uint64_t aligned(uint64_t n, uint64_t align)
{
    return (n + align - 1) / align * align;
}

/* q8: scales, then for each quad of inputs a line [32 columns][4 inputs] of bytes; value = scale x (byte - 128). */
static inline size_t q8_tile_bytes(size_t n_k)
{
    return sizeof(struct tile_scales) + aligned(n_k, KERNEL_GROUP) * KERNEL_TILE;
}

static inline const uint8_t *q8_lines(const void *tile)
{
    return (const uint8_t *)tile + sizeof(struct tile_scales);
}

/* q4: scales; for each group of 32 inputs sixteen bytes of multipliers' magnitudes (low nibble column c, high nibble
 * column c + 16); for each group 32 bits of their signs (bit c: column c is negative), filled up to 64 bytes; then for
 * each quad of inputs a line [16][4] of bytes: the low nibble is column c's value + 8, the high nibble column
 * c + 16's value in two's complement. Weight = scale x multiplier x value. */
static inline size_t q4_groups(size_t n_k)
{
    return aligned(n_k, KERNEL_GROUP) / KERNEL_GROUP;
}

static inline size_t q4_multiplier_bytes(size_t n_k)
{
    return aligned(q4_groups(n_k) * (KERNEL_TILE / 2 + KERNEL_TILE / 8), 64);
}

static inline size_t q4_tile_bytes(size_t n_k)
{
    return sizeof(struct tile_scales) + q4_multiplier_bytes(n_k) +
           aligned(n_k, KERNEL_GROUP) * KERNEL_TILE / 2;
}

/* What a rung may need to prepare a tile for many rows: a byte a weight, and 128 bytes a group. */
static inline size_t q4_panel_bytes(size_t n_k)
{
    return aligned(n_k, KERNEL_GROUP) * KERNEL_TILE + q4_groups(n_k) * 128;
}

static inline const uint8_t *q4_magnitudes(const void *tile)
{
    return (const uint8_t *)tile + sizeof(struct tile_scales);
}

static inline const uint8_t *q4_signs(const void *tile, size_t n_k)
{
    return q4_magnitudes(tile) + q4_groups(n_k) * (KERNEL_TILE / 2);
}

static inline const uint8_t *q4_lines(const void *tile, size_t n_k)
{
    return q4_magnitudes(tile) + q4_multiplier_bytes(n_k);
}

/* ---- One weight, for lookups and tests --------------------------------------------------- */

/* Where in the lines its byte is. */
static inline size_t q4_byte(size_t k, size_t column)
{
    return k / KERNEL_QUAD * Q4_LINE + column % (KERNEL_TILE / 2) * KERNEL_QUAD + k % KERNEL_QUAD;
}

static inline float q8_value(const void *tile, size_t k, size_t column)
{
    const uint8_t *line = q8_lines(tile) + k / KERNEL_QUAD * Q8_LINE;
    return ((const struct tile_scales *)tile)->scale[column] *
           (float)(line[column * KERNEL_QUAD + k % KERNEL_QUAD] - Q8_ZERO);
}

static inline int q4_multiplier(const void *tile, size_t n_k, size_t group, size_t column)
{
    const int shift = column < KERNEL_TILE / 2 ? 0 : 4;
    const int magnitude =
        q4_magnitudes(tile)[group * (KERNEL_TILE / 2) + column % (KERNEL_TILE / 2)] >> shift & 15;
    const int negative =
        q4_signs(tile, n_k)[group * (KERNEL_TILE / 8) + column / 8] >> column % 8 & 1;
    return negative ? -magnitude : magnitude;
}

static inline float q4_value(const void *tile, size_t n_k, size_t k, size_t column)
{
    const uint8_t byte = q4_lines(tile, n_k)[q4_byte(k, column)];
    const int value = column < KERNEL_TILE / 2 ? (byte & 15) - Q4_ZERO : (int8_t)byte >> 4;
    return ((const struct tile_scales *)tile)->scale[column] *
           (float)(q4_multiplier(tile, n_k, k / KERNEL_GROUP, column) * value);
}

/* Scale and multiplier stay; value is -8 to 7. */
static inline void q4_set_value(void *tile, size_t n_k, size_t k, size_t column, int value)
{
    uint8_t *byte = (uint8_t *)(uintptr_t)q4_lines(tile, n_k) + q4_byte(k, column);
    *byte = (uint8_t)(column < KERNEL_TILE / 2 ? (*byte & 0xf0) | (value + Q4_ZERO)
                                               : (*byte & 15) | (value & 15) << 4);
}

#endif
