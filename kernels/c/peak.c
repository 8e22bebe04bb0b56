/* The peak of a rung that has no instructions of its own: what the compiler makes of the
 * definitions' inner loops, on a few lines that stay in the first-level cache. */
#include <math.h>

#include "names.h"

enum { N = 12, ROUNDS = 8 }; /* independent rows of sums; additions to each in a loop */

/* Single-precision sums depend on their order, so no compiler may shorten this. */
static double peak_f32(size_t loops)
{
    float sum[N / 3][KERNEL_TILE] = {{0}}, factor[KERNEL_TILE];
    for (int c = 0; c < KERNEL_TILE; c++)
        factor[c] = 1.0f + (float)c * 0x1p-20f;
    for (size_t loop = 0; loop < loops * ROUNDS; loop++)
        for (int r = 0; r < N / 3; r++)
            for (int c = 0; c < KERNEL_TILE; c++)
                sum[r][c] = fmaf(factor[r], factor[c], sum[r][c]);
    __asm__ volatile("" : : "r"(sum) : "memory"); /* as if the sums were read */
    return (double)loops * ROUNDS * (N / 3) * KERNEL_TILE;
}

static double peak_int(size_t loops)
{
    int8_t x[N][KERNEL_QUAD];
    uint8_t line[Q8_LINE];
    int32_t sum[KERNEL_TILE] = {0};
    for (int i = 0; i < Q8_LINE; i++)
        line[i] = (uint8_t)i;
    for (int i = 0; i < N * KERNEL_QUAD; i++)
        x[i / KERNEL_QUAD][i % KERNEL_QUAD] = (int8_t)i;
    for (size_t loop = 0; loop < loops * ROUNDS; loop++) {
        __asm__ volatile("" : : "r"(line), "r"(x) : "memory"); /* as if they changed */
        for (int r = 0; r < N; r++)
            for (int c = 0; c < KERNEL_TILE; c++)
                for (int i = 0; i < KERNEL_QUAD; i++)
                    sum[c] += (int32_t)x[r][i] * ((int32_t)line[c * KERNEL_QUAD + i] - Q8_ZERO);
        /* not summed up over the loops, which would overflow */
        __asm__ volatile("" : : "r"(sum) : "memory");
        for (int c = 0; c < KERNEL_TILE; c++)
            sum[c] = 0;
    }
    return (double)loops * ROUNDS * N * Q8_LINE;
}

double KERNEL(peak)(enum peak_kind kind, size_t loops)
{
    return kind == PEAK_F32 ? peak_f32(loops) : peak_int(loops);
}
