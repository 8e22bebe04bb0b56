/* Rows of a matrix as f32 -> the bytes of a weight tile, and what that costs in exactness. */
#ifndef CONVERT_PACK_H
#define CONVERT_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "../../kernels/kernels.h"
#include "format.h"

/* Sums over values: of the squared differences that a type makes, and of squares. They are taken over
 * one block of 256 values in eight, which is enough for a mean; a value beyond the type's range is
 * always among those that `largest` is taken over. */
struct pack_error {
    double squares, differences; /* sums */
    float largest;               /* magnitude */
};

void pack_error_add(struct pack_error *sum, const struct pack_error *part);

/* n values -> out in `type` (f32 or f16). */
void pack_row(const struct kernels *kernels, enum tensor_type type, const float *row, size_t n,
              void *out, struct pack_error *error);

/* rows[n_rows][n_cols], n_rows at most 32 -> out[n_cols][32] in `type`, zeros beyond n_rows.
 * `scratch` has room for n_cols x 32 floats. */
void pack_tile(const struct kernels *kernels, enum tensor_type type, const float *rows,
               size_t n_rows, size_t n_cols, float *scratch, void *out, struct pack_error *error);

#endif
