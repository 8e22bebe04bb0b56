#include "pack.h"

#include <math.h>
#include <string.h>

#include "schema.h"

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

static void pack_halves(const struct kernels *kernels, const float *values, size_t n,
                        uint16_t *halves, struct pack_error *error)
{
    for (size_t i = 0; i < n; i += BLOCK) {
        const size_t length = n - i < BLOCK ? n - i : BLOCK;
        kernels->f32_to_f16(halves + i, values + i, length);
        if (i / BLOCK % SAMPLED == 0 || overflowed(halves + i, length))
            compare(kernels, values + i, halves + i, length, error);
    }
}

/* Squares and the largest magnitude of a row that is to be quantized. Magnitudes are compared as
 * integers, so that NaN is larger than all others. */
static void measure(const float *row, size_t n, struct pack_error *error)
{
    const uint32_t infinity = 0x7f800000;
    float squares[LANES] = {0}, most;
    uint32_t largest[LANES] = {0}, all = 0;
    for (size_t i = 0; i < n; i += LANES) {
        const size_t length = n - i < LANES ? n - i : LANES;
        for (size_t l = 0; l < length; l++) {
            uint32_t bits;
            memcpy(&bits, row + i + l, sizeof bits);
            bits &= 0x7fffffff;
            squares[l] += row[i + l] * row[i + l];
            largest[l] = bits > largest[l] ? bits : largest[l];
        }
    }
    for (size_t l = 0; l < LANES; l++) {
        error->squares += (double)squares[l];
        all = largest[l] > all ? largest[l] : all;
    }
    all = all > infinity ? infinity : all;
    memcpy(&most, &all, sizeof most);
    error->largest = most > error->largest ? most : error->largest;
}

/* A row of a q8 table: its scale, its values, zeros up to a multiple of four. */
static void pack_q8_row(const float *row, size_t n, uint8_t *out, struct pack_error *error)
{
    const float scale = error->largest / 127.0f;
    int8_t *values = (int8_t *)out + sizeof scale;
    memset(out, 0, row_bytes(TENSOR_Q8, n));
    memcpy(out, &scale, sizeof scale);
    for (size_t i = 0; i < n && scale > 0.0f;
         i++) /* a scale among the smallest numbers is rounded itself */
        values[i] = (int8_t)lrintf(fminf(fmaxf(row[i] / scale, -127.0f), 127.0f));
    for (size_t i = 0; i < n; i++) {
        const double difference = (double)row[i] - (double)scale * values[i];
        error->differences += difference * difference;
    }
}

float pack_most(enum tensor_type type)
{
    static const float most[] = {INFINITY, 65504.0f, 1e18f,
                                 1e18f}; /* squares of the latter are still finite */
    return most[type];
}

void pack_rows(const struct kernels *kernels, enum tensor_type type, const float *rows,
               size_t n_rows, size_t n_cols, void *out, struct pack_error *error)
{
    if (type == TENSOR_F32)
        memcpy(out, rows, n_rows * n_cols * sizeof *rows);
    else if (type == TENSOR_F16)
        pack_halves(kernels, rows, n_rows * n_cols, out, error);
    else
        for (size_t r = 0; r < n_rows; r++) {
            struct pack_error part = {0};
            measure(rows + r * n_cols, n_cols, &part);
            if (part.largest <= pack_most(type))
                pack_q8_row(rows + r * n_cols, n_cols, (uint8_t *)out + r * row_bytes(type, n_cols),
                            &part);
            pack_error_add(error, &part);
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

void pack_columns(const float *rows, size_t n_rows, size_t n_cols, float *columns)
{
    transpose(rows, n_rows, n_cols, columns);
    memset(columns + n_cols * TILE, 0,
           (aligned(n_cols, KERNEL_GROUP) - n_cols) * TILE * sizeof *columns);
}

size_t pack_scratch(size_t n_cols)
{
    const size_t n_k = aligned(n_cols, KERNEL_GROUP);
    return n_k * TILE + 2 * n_k; /* columns, and what pack_q4 asks for */
}

static void pack_quantized_tile(const struct kernels *kernels, enum tensor_type type,
                                const float *rows, size_t n_rows, size_t n_cols, float *scratch,
                                void *out, struct pack_error *error)
{
    const size_t n_k = aligned(n_cols, KERNEL_GROUP);
    struct pack_error part = {0};
    for (size_t r = 0; r < n_rows; r++)
        measure(rows + r * n_cols, n_cols, &part);
    if (part.largest <= pack_most(type)) {
        pack_columns(rows, n_rows, n_cols, scratch);
        part.differences = type == TENSOR_Q8
                               ? kernels->pack_q8(out, scratch, n_k)
                               : kernels->pack_q4(out, scratch, n_k, scratch + n_k * TILE);
    }
    pack_error_add(error, &part);
}

void pack_tile(const struct kernels *kernels, enum tensor_type type, const float *rows,
               size_t n_rows, size_t n_cols, float *scratch, void *out, struct pack_error *error)
{
    if (type == TENSOR_F32)
        transpose(rows, n_rows, n_cols, out);
    else if (type == TENSOR_F16) {
        transpose(rows, n_rows, n_cols, scratch);
        pack_halves(kernels, scratch, n_cols * TILE, out, error);
    } else
        pack_quantized_tile(kernels, type, rows, n_rows, n_cols, scratch, out, error);
}
