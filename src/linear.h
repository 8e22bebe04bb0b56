/* y = x W^T + b for every weight type, on tiles of 32 outputs; with attention.c the only caller of
 * matrix kernels. */
#ifndef SRC_LINEAR_H
#define SRC_LINEAR_H

#include "arena.h"
#include "compute.h"
#include "schema.h"

/* Rows that linear layers read: [n_rows][n], stride in floats. */
struct input {
    const float *x;
    size_t stride, n_rows;
    struct q8_rows
        q8; /* the same in eight bits, where a quantized layer reads them; else no values */
};

/* What is done to y before it is stored, in this order: bias (of the layer), activation, times
 * `multiply`, plus `residual`. Arrays have y's shape, stride and precision and may be y itself. */
struct epilogue {
    enum activation activation;
    const void *multiply; /* NULL: none */
    const void *residual; /* NULL: none */
    enum precision precision;
};

/* One layer's work: y[n_rows][layer rows] = epilogue(x W^T + bias); stride in values. */
struct product {
    const struct linear *layer;
    void *y;
    size_t y_stride;
    struct epilogue epilogue;
};

/* How what is made for layers like `reader` alone is stored: as halves where eight bits are made of
 * them next, which is half the way to memory and back. */
enum precision linear_precision(const struct matrix *reader);

/* Makes x, of linear_precision or of floats, ready for layers like `reader`: quantizes it, once for
 * all layers that read it, into the memory of linear_layout when the layer is quantized. Valid until
 * the next linear_input. */
struct input linear_input(struct compute *compute, const struct matrix *reader, const void *x,
                          enum precision precision, size_t x_stride, size_t n_rows);

/* The same in steps: an input of n_rows rows of n values, and each row of it, from any thread. */
struct input linear_input_begin(struct compute *compute, size_t n, size_t n_rows);
void linear_input_row(const struct compute *compute, size_t row, const float *x, size_t n);

/* n_rows of the input's rows, of n values each, from `first` on. */
struct input linear_input_rows(const struct input *input, size_t first, size_t n_rows, size_t n);

/* Computes all products of one input, of layers of one kind. Each thread computes tiles; the weights
 * are read once. With `in_step`, tile i of every product is computed by one thread, in the list's
 * order, so that an epilogue may read what an earlier product wrote. */
void linear_all(struct compute *compute, const struct input *input, const struct product *products,
                size_t n_products, bool in_step);

/* One layer. */
void linear(struct compute *compute, const struct linear *layer, const struct input *input, void *y,
            size_t y_stride, struct epilogue epilogue);

/* Floats of scratch that a thread needs for layers of at most n_cols inputs. */
size_t linear_scratch_floats(size_t n_cols);

/* Takes the memory for inputs of quantized layers: `n_rows` rows at once of at most n_cols values. */
void linear_layout(struct compute *compute, struct arena *arena, size_t n_rows, size_t n_cols);

/* Row `row` of an embedding table or tied head -> out[n_cols]. */
void matrix_row(const struct compute *compute, const struct matrix *matrix, size_t row, float *out);

#endif
