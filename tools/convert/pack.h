/* Rows of a matrix as f32 -> the bytes of a weight tile, and what that costs in exactness. */
#ifndef CONVERT_PACK_H
#define CONVERT_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "../../kernels/kernels.h"
#include "format.h"

/* Sums over values: of the squared differences that a type makes, and of squares. Of q8 and q4 they
 * are exact; of f16 they are taken over one block of 256 values in eight, which is enough for a
 * mean. A value beyond the type's range is always among those that `largest` is taken over. */
struct pack_error {
    double squares, differences; /* sums */
    float largest;               /* magnitude; of q8 and q4 a NaN counts as infinity */
};

void pack_error_add(struct pack_error *sum, const struct pack_error *part);

/* The largest magnitude that a type takes; packing something larger gives no sensible bytes. */
float pack_most(enum tensor_type type);

/* rows[n_rows][n_cols] -> as many rows of a table in `type` (not q4: no table has it). */
void pack_rows(const struct kernels *kernels, enum tensor_type type, const float *rows,
               size_t n_rows, size_t n_cols, void *out, struct pack_error *error);

/* rows[n_rows][n_cols], n_rows at most 32 -> a tile in `type`, zeros beyond n_rows. `scratch` has
 * room for pack_scratch(n_cols) floats. */
void pack_tile(const struct kernels *kernels, enum tensor_type type, const float *rows,
               size_t n_rows, size_t n_cols, float *scratch, void *out, struct pack_error *error);
size_t pack_scratch(size_t n_cols);

/* The columns that a tile of q8 or q4 is made of: rows[n_rows][n_cols] -> columns[n_k][32], n_k a
 * multiple of 32, zeros where there are no more rows or columns. */
void pack_columns(const float *rows, size_t n_rows, size_t n_cols, float *columns);

#endif
