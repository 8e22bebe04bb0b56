/* Products of eight-bit rows with quantized tiles: the definition. Sums are exact integers, so any order gives the
 * same; at n_k = 2^16 inputs of 127 x 128 they still fit 31 bits. */
#include "names.h"

#include <string.h>

static inline void add_line(int32_t *restrict sum, const int8_t *restrict x,
                            const uint8_t *restrict line)
{
    for (int c = 0; c < KERNEL_TILE; c++)
        for (int i = 0; i < KERNEL_QUAD; i++)
            sum[c] += (int32_t)x[i] * ((int32_t)line[c * KERNEL_QUAD + i] - Q8_ZERO);
}

void KERNEL(gemm_q8)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const uint8_t *lines, size_t n_k, const uint8_t *next, size_t n_next)
{
    (void)next;
    (void)n_next;
    for (size_t r = 0; r < n_rows; r++) {
        int32_t sum[KERNEL_TILE] = {0};
        for (size_t k = 0; k < n_k; k += KERNEL_QUAD)
            add_line(sum, x->values + r * x->stride + k, lines + k * KERNEL_TILE);
        memcpy(y + r * y_stride, sum, sizeof sum);
    }
}

/* Multiplier of group g and column c. */
static inline int32_t multiplier_of(const uint8_t *magnitudes, const uint8_t *signs, size_t g,
                                    int c)
{
    const int byte = magnitudes[g * (KERNEL_TILE / 2) + (size_t)(c % 16)];
    const int32_t magnitude = c < 16 ? byte & 15 : byte >> 4;
    return signs[g * (KERNEL_TILE / 8) + (size_t)(c / 8)] >> (c % 8) & 1 ? -magnitude : magnitude;
}

/* As the lines of a q8 tile: multiplier x value + 128 in every byte. */
void KERNEL(prepare_q4)(uint8_t *panel, const void *tile, size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        int32_t low[64], high[64];
        for (int c = 0; c < 16; c++)
            for (int i = 0; i < KERNEL_QUAD; i++) {
                low[c * KERNEL_QUAD + i] = multiplier_of(magnitudes, signs, g, c);
                high[c * KERNEL_QUAD + i] = multiplier_of(magnitudes, signs, g, c + 16);
            }
        for (size_t k = g * KERNEL_GROUP; k < (g + 1) * KERNEL_GROUP; k += KERNEL_QUAD)
            for (int i = 0; i < Q4_LINE; i++) {
                const uint8_t byte = lines[k * (KERNEL_TILE / 2) + (size_t)i];
                const int32_t q = (byte & 15) - Q4_ZERO, q_high = (int8_t)byte >> 4;
                panel[k * KERNEL_TILE + (size_t)i] = (uint8_t)(low[i] * q + Q8_ZERO);
                panel[k * KERNEL_TILE + (size_t)i + 64] = (uint8_t)(high[i] * q_high + Q8_ZERO);
            }
    }
}

/* Columns of one quad of a group: values + 8, and values in two's complement above them. */
static inline void add_line_q4(int32_t *restrict sum, const int8_t *restrict x,
                               const uint8_t *restrict line)
{
    for (int c = 0; c < KERNEL_TILE / 2; c++)
        for (int i = 0; i < KERNEL_QUAD; i++) {
            const uint8_t byte = line[c * KERNEL_QUAD + i];
            sum[c] += (int32_t)x[i] * ((byte & 15) - Q4_ZERO);
            sum[c + KERNEL_TILE / 2] += (int32_t)x[i] * ((int8_t)byte >> 4);
        }
}

void KERNEL(gemm_q4)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const void *tile, const uint8_t *panel, size_t n_k, const uint8_t *next,
                     size_t n_next)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    if (panel) {
        KERNEL(gemm_q8)(y, y_stride, x, n_rows, panel, n_k, next, n_next);
        return;
    }
    for (size_t r = 0; r < n_rows; r++) {
        int32_t sum[KERNEL_TILE] = {0};
        for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
            int32_t group[KERNEL_TILE] = {0};
            for (size_t k = g * KERNEL_GROUP; k < (g + 1) * KERNEL_GROUP; k += KERNEL_QUAD)
                add_line_q4(group, x->values + r * x->stride + k, lines + k * (KERNEL_TILE / 2));
            for (int c = 0; c < KERNEL_TILE; c++)
                sum[c] += group[c] * multiplier_of(magnitudes, signs, g, c);
        }
        memcpy(y + r * y_stride, sum, sizeof sum);
    }
}
