/* Matrix products on weight tiles of 32 output columns. A lane is an output, so every sum runs over
 * k in order, for one row as for many. */
#include <math.h>

#include "half.h"
#include "names.h"

enum {
    ROWS = 3
}; /* rows at once: 3 x 32 sums fill twelve 256-bit registers, tile and x the other four */

ALWAYS_INLINE void rows_times_tile(float *restrict y, size_t y_stride, const float *restrict x,
                                   size_t x_stride, const float *restrict tile, size_t n_k,
                                   bool accumulate, int n_rows)
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
