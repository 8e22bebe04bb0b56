/* y = x W^T + b for every weight type, on tiles of 32 outputs; with attention.c the only caller of
 * matrix kernels. */
#ifndef SRC_LINEAR_H
#define SRC_LINEAR_H

#include "compute.h"
#include "schema.h"

/* What is done to y before it is stored, in this order: bias (of the layer), activation, times
 * `multiply`, plus `residual`. Arrays have y's shape and stride and may be y itself. */
struct epilogue {
    enum activation activation;
    const float *multiply; /* NULL: none */
    const float *residual; /* NULL: none */
};

/* y[n_rows][layer rows] = epilogue(x[n_rows][layer columns] W^T + bias). Strides in floats.
 * `epilogue` may be NULL. Each thread computes tiles; the weights are read once, whatever n_rows
 * is. */
void linear(struct compute *compute, const struct linear *layer, const float *x, size_t x_stride,
            size_t n_rows, float *y, size_t y_stride, const struct epilogue *epilogue);

/* Floats of scratch that a thread needs for linear(). */
size_t linear_scratch_floats(void);

/* Row `row` of an embedding table or tied head -> out[n_cols]. */
void matrix_row(const struct compute *compute, const struct matrix *matrix, size_t row, float *out);

#endif
