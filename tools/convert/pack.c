#include "pack.h"

#include <math.h>
#include <string.h>

enum { TILE = FORMAT_TILE, BLOCK = 256, LANES = 32, SAMPLED = 8 };

void pack_error_add(struct pack_error *sum, const struct pack_error *part)
{
    sum->squares += part->squares;
    sum->differences += part->differences;
    sum->largest = part->largest > sum->largest ? part->largest : sum->largest;
}

/* A block of halves against what they came from; sums of a block are single, in LANES lanes that
 * the compiler keeps in vectors, those of blocks double. The last values of a ragged block are
 * compared with zeros behind them. */
static void compare(const struct kernels *kernels, const float *exact, const uint16_t *halves,
                    size_t n, struct pack_error *error)
{
    float rounded[BLOCK], tail[BLOCK], squares[LANES] = {0}, differences[LANES] = {0},
                                       largest[LANES] = {0};
    kernels->f16_to_f32(rounded, halves, n);
    if (n % LANES) {
        memset(rounded + n, 0, (BLOCK - n) * sizeof *rounded);
        memset(tail + n, 0, (BLOCK - n) * sizeof *tail);
        exact = memcpy(tail, exact, n * sizeof *tail);
    }
    for (size_t i = 0; i < n; i += LANES)
        for (size_t l = 0; l < LANES; l++) {
            const float value = exact[i + l], difference = value - rounded[i + l],
                        magnitude = fabsf(value);
            squares[l] += value * value;
            differences[l] += difference * difference;
            largest[l] = magnitude > largest[l] ? magnitude : largest[l];
        }
    for (size_t l = 0; l < LANES; l++) {
        error->squares += (double)squares[l];
        error->differences += (double)differences[l];
        error->largest = largest[l] > error->largest ? largest[l] : error->largest;
    }
}

/* A value that became an infinity. */
static bool overflowed(const uint16_t *halves, size_t n)
{
    uint16_t any = 0;
    for (size_t i = 0; i < n; i++) /* sixteen bits throughout, for the compiler's vectors */
        any |= (uint16_t)((halves[i] & 0x7fff) == 0x7c00);
    return any;
}

void pack_row(const struct kernels *kernels, enum tensor_type type, const float *row, size_t n,
              void *out, struct pack_error *error)
{
    if (type == TENSOR_F32) {
        memcpy(out, row, n * sizeof *row);
        return;
    }
    for (size_t i = 0; i < n; i += BLOCK) {
        const size_t length = n - i < BLOCK ? n - i : BLOCK;
        uint16_t *halves = (uint16_t *)out + i;
        kernels->f32_to_f16(halves, row + i, length);
        if (i / BLOCK % SAMPLED == 0 || overflowed(halves, length))
            compare(kernels, row + i, halves, length, error);
    }
}

/* rows[n_rows][n_cols] -> columns[n_cols][TILE], a few columns at a time so that both stay in
 * cache. */
static void transpose(const float *rows, size_t n_rows, size_t n_cols, float *columns)
{
    enum { STRIP = 16 };
    for (size_t k = 0; k < n_cols; k += STRIP) {
        const size_t end = n_cols - k < STRIP ? n_cols : k + STRIP;
        for (size_t r = 0; r < TILE; r++)
            for (size_t i = k; i < end; i++)
                columns[i * TILE + r] = r < n_rows ? rows[r * n_cols + i] : 0.0f;
    }
}

void pack_tile(const struct kernels *kernels, enum tensor_type type, const float *rows,
               size_t n_rows, size_t n_cols, float *scratch, void *out, struct pack_error *error)
{
    if (type == TENSOR_F32) {
        transpose(rows, n_rows, n_cols, out);
        return;
    }
    transpose(rows, n_rows, n_cols, scratch);
    pack_row(kernels, type, scratch, n_cols * TILE, out, error);
}
