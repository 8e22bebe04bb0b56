/* Norms of many rows, shared out to the threads. */
#ifndef SRC_NORM_H
#define SRC_NORM_H

#include "compute.h"
#include "linear.h"
#include "schema.h"

/* Rows of n values, `stride` floats apart. */
struct norm_rows {
    const float *x;
    size_t stride, n_rows, n;
};

/* y = norm(x), row by row; y has x's stride and may be x. */
void norm_rows(const struct compute *compute, enum norm_kind kind, const struct norm *norm,
               double eps, const struct norm_rows *rows, float *y);

/* The same, made ready for layers like `reader`: valid until the next linear_input. A quantized
 * reader's input goes to its eight bits at once, and y is not written. */
struct input norm_input(struct compute *compute, enum norm_kind kind, const struct norm *norm,
                        double eps, const struct linear *reader, const struct norm_rows *rows,
                        float *y);

/* Floats of scratch that a thread needs for norms of n values. */
size_t norm_scratch_floats(size_t n);

#endif
