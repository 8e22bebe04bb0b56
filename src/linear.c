#include "linear.h"

#include <string.h>

enum {
    TILE = FORMAT_TILE,
    BLOCK_ROWS = 192, /* rows whose 32 sums wait in scratch: 24 KiB */
    BLOCK_K = 256,    /* inputs at a time: a panel of 32 KiB, for the first-level cache */
};

/* scratch of one thread: sums [BLOCK_ROWS][TILE], panel [BLOCK_K][TILE] */
size_t linear_scratch_floats(void)
{
    return (size_t)(BLOCK_ROWS + BLOCK_K) * TILE;
}

struct job {
    const struct compute *compute;
    const struct linear *layer;
    const float *x;
    size_t x_stride, n_rows;
    float *y;
    size_t y_stride;
    const struct epilogue *epilogue;
};

/* The tile's inputs [k, k + n) as f32 [n][TILE]: in place, or unpacked into `panel`. */
static const float *tile_panel(const struct kernels *kernels, const struct matrix *w, size_t tile,
                               size_t k, size_t n, float *panel)
{
    const size_t at = (tile * w->n_cols + k) * TILE;
    if (w->type == TENSOR_F32)
        return (const float *)w->data + at;
    kernels->f16_to_f32(panel, (const uint16_t *)w->data + at, n * TILE);
    return panel;
}

/* sums[n_rows][TILE] = x[n_rows][n_cols] tile */
static void multiply_tile(const struct job *job, size_t tile, const float *x, size_t n_rows,
                          float *sums, float *panel)
{
    const struct matrix *w = &job->layer->weight;
    const struct kernels *kernels = job->compute->kernels;
    if (n_rows == 1 && w->type == TENSOR_F16) {
        kernels->gemv_f16(sums, x, (const uint16_t *)w->data + tile * w->n_cols * TILE, w->n_cols);
        return;
    }
    for (size_t k = 0; k < w->n_cols; k += BLOCK_K) {
        const size_t n = w->n_cols - k < BLOCK_K ? w->n_cols - k : BLOCK_K;
        const float *weights = tile_panel(kernels, w, tile, k, n, panel);
        kernels->gemm_f32(sums, TILE, x + k, job->x_stride, weights, n_rows, n, k > 0);
    }
}

/* sums of one row, n outputs from `first` on -> y */
static void finish_row(const struct job *job, float *sums, size_t row, size_t first, size_t n)
{
    const struct kernels *kernels = job->compute->kernels;
    const struct epilogue *e = job->epilogue;
    const size_t at = row * job->y_stride + first;
    if (job->layer->bias)
        kernels->add(sums, job->layer->bias + first, n);
    if (e) {
        kernels->activate(sums, e->activation, n);
        if (e->multiply)
            kernels->multiply(sums, e->multiply + at, n);
        if (e->residual)
            kernels->add(sums, e->residual + at, n);
    }
    memcpy(job->y + at, sums, n * sizeof *sums);
}

static void run_tile(void *argument, size_t tile, int thread)
{
    const struct job *job = argument;
    float *sums = compute_scratch(job->compute, thread), *panel = sums + (size_t)BLOCK_ROWS * TILE;
    const size_t first = tile * TILE, left = job->layer->weight.n_rows - first;
    const size_t n = left < TILE ? left : TILE;
    for (size_t row = 0; row < job->n_rows; row += BLOCK_ROWS) {
        const size_t n_rows = job->n_rows - row < BLOCK_ROWS ? job->n_rows - row : BLOCK_ROWS;
        multiply_tile(job, tile, job->x + row * job->x_stride, n_rows, sums, panel);
        for (size_t r = 0; r < n_rows; r++)
            finish_row(job, sums + r * TILE, row + r, first, n);
    }
}

void linear(struct compute *compute, const struct linear *layer, const float *x, size_t x_stride,
            size_t n_rows, float *y, size_t y_stride, const struct epilogue *epilogue)
{
    struct job job = {compute, layer, x, x_stride, n_rows, y, y_stride, epilogue};
    const double start = seconds_now();
    compute_run(compute, (layer->weight.n_rows + TILE - 1) / TILE, run_tile, &job);
    compute->linear_seconds += seconds_now() - start;
}

void matrix_row(const struct compute *compute, const struct matrix *matrix, size_t row, float *out)
{
    const bool tiled = matrix->layout == LAYOUT_TILES;
    const size_t step = tiled ? TILE : 1;
    const size_t at =
        tiled ? row / TILE * TILE * matrix->n_cols + row % TILE : row * matrix->n_cols;
    if (matrix->type == TENSOR_F32 && !tiled)
        memcpy(out, (const float *)matrix->data + at, matrix->n_cols * sizeof *out);
    else if (matrix->type == TENSOR_F32)
        for (size_t k = 0; k < matrix->n_cols; k++)
            out[k] = ((const float *)matrix->data)[at + k * step];
    else if (!tiled)
        compute->kernels->f16_to_f32(out, (const uint16_t *)matrix->data + at, matrix->n_cols);
    else
        for (size_t k = 0; k < matrix->n_cols; k++)
            compute->kernels->f16_to_f32(&out[k], (const uint16_t *)matrix->data + at + k * step,
                                         1);
}
