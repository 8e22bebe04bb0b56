/* Matrix products on weight tiles of 32 output columns. A lane is an output, so every sum runs over
 * k in order, for one row as for many. */
#include <math.h>
#include <string.h>

#include "names.h"

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

enum {
    ROWS = 3
}; /* rows at once: 3 x 32 sums fill twelve 256-bit registers, tile and x the other four */

__attribute__((always_inline)) static inline void
rows_times_tile(float *restrict y, size_t y_stride, const float *restrict x, size_t x_stride,
                const float *restrict tile, size_t n_k, bool accumulate, int n_rows)
{
    float sum[ROWS][KERNEL_TILE];
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < KERNEL_TILE; c++)
            sum[r][c] = accumulate ? y[(size_t)r * y_stride + (size_t)c] : 0.0f;
    for (size_t k = 0; k < n_k; k++)
        for (int r = 0; r < n_rows; r++) {
            const float a = x[(size_t)r * x_stride + k];
            for (int c = 0; c < KERNEL_TILE; c++)
                sum[r][c] = fmaf(a, tile[k * KERNEL_TILE + (size_t)c], sum[r][c]);
        }
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < KERNEL_TILE; c++)
            y[(size_t)r * y_stride + (size_t)c] = sum[r][c];
}

void KERNEL(gemm_f32)(float *y, size_t y_stride, const float *x, size_t x_stride, const float *tile,
                      size_t n_rows, size_t n_k, bool accumulate)
{
    size_t r = 0;
    for (; r + ROWS <= n_rows; r += ROWS)
        rows_times_tile(y + r * y_stride, y_stride, x + r * x_stride, x_stride, tile, n_k,
                        accumulate, ROWS);
    for (; r < n_rows; r++)
        rows_times_tile(y + r * y_stride, y_stride, x + r * x_stride, x_stride, tile, n_k,
                        accumulate, 1);
}

/* Half -> single. Shifted into a single's place the exponent is 112 too small, which a
 * multiplication mends, for subnormal halves too; infinities and NaN get the largest exponent. */
static inline float single_of_half(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    const float value = float_of_bits(magnitude) * 0x1p112f;
    return float_of_bits(bits_of_float(value) | special | (uint32_t)(half & 0x8000) << 16);
}

static inline uint16_t half_of_single(float value)
{
    const uint32_t bits = bits_of_float(value);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 16) & 0x8000u;
    /* rounds a normal half: half of the last place, less one when the last bit is even */
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    /* adding 0.5 aligns a subnormal half's last bit with a single's and rounds */
    const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t special = 0x7c00u | (0x0200u & -(uint32_t)(magnitude > 0x7f800000u));
    /* masks, not branches: with those gcc 12 does not vectorise the loop */
    const uint32_t is_subnormal = -(uint32_t)(magnitude < 0x38800000u);
    const uint32_t is_special = -(uint32_t)(magnitude >= 0x47800000u);
    const uint32_t half = (subnormal & is_subnormal) | (normal & ~(is_subnormal | is_special)) |
                          (special & is_special);
    return (uint16_t)(half | sign);
}

void KERNEL(gemv_f16)(float *y, const float *x, const uint16_t *tile, size_t n_k)
{
    float sum[KERNEL_TILE] = {0};
    for (size_t k = 0; k < n_k; k++)
        for (int c = 0; c < KERNEL_TILE; c++)
            sum[c] = fmaf(x[k], single_of_half(tile[k * KERNEL_TILE + (size_t)c]), sum[c]);
    for (int c = 0; c < KERNEL_TILE; c++)
        y[c] = sum[c];
}

void KERNEL(f16_to_f32)(float *restrict out, const uint16_t *restrict in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = single_of_half(in[i]);
}

void KERNEL(f32_to_f16)(uint16_t *restrict out, const float *restrict in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = half_of_single(in[i]);
}
