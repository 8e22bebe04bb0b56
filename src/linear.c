#include "linear.h"

#include <string.h>

enum {
    TILE = FORMAT_TILE,
    FLOAT_ROWS = 192, /* rows at a time of float matrices: as many share a panel's unpacking */
    FLOAT_K = 256,    /* inputs at a time: a panel of 32 KiB, for the first-level cache */
    FEW_ROWS = 3,     /* so few that preparing a q4 tile does not pay */
    /* tiles of quantized matrices at a time, with the rows beside them in a second cache of 1 to 2 MB */
    GROUP = 4,
    GROUP_BYTES = 512 << 10,
    ROWS_BYTES = 768 << 10,
};

/* scratch of one thread: sums [FLOAT_ROWS][TILE], a panel of floats or the panels of a group of q4 tiles */
size_t linear_scratch_floats(size_t n_cols)
{
    const size_t f32 = (size_t)FLOAT_K * TILE, q4 = GROUP * q4_panel_bytes(n_cols) / sizeof(float);
    return (size_t)FLOAT_ROWS * TILE + (f32 > q4 ? f32 : q4);
}

/* ---- Input ------------------------------------------------------------------------------ */

void linear_layout(struct compute *compute, struct arena *arena, size_t n_rows, size_t n_cols)
{
    compute->rows = q8_rows_layout(arena, n_rows, n_cols);
}

struct quantize_job {
    const struct compute *compute;
    const char *x;
    enum precision precision;
    size_t x_stride, n;
};

static void quantize_some(void *argument, size_t first, size_t n_rows, int thread)
{
    (void)thread;
    const struct quantize_job *job = argument;
    const struct q8_rows out = q8_rows_from(&job->compute->rows, first, job->n);
    job->compute->kernels->quantize_rows(
        &out, job->x + first * job->x_stride * value_bytes(job->precision), job->precision,
        job->x_stride, n_rows, job->n);
}

struct input linear_input_begin(struct compute *compute, size_t n, size_t n_rows)
{
    compute->rows.stride = q8_stride(n);
    return (struct input){NULL, 0, n_rows, compute->rows};
}

void linear_input_row(const struct compute *compute, size_t row, const float *x, size_t n)
{
    const struct q8_rows out = q8_rows_from(&compute->rows, row, n);
    compute->kernels->quantize_rows(&out, x, PRECISION_SINGLE, n, 1, n);
}

enum precision linear_precision(const struct matrix *reader)
{
    return is_quantized(reader->type) ? PRECISION_HALF : PRECISION_SINGLE;
}

struct input linear_input(struct compute *compute, const struct matrix *reader, const void *x,
                          enum precision precision, size_t x_stride, size_t n_rows)
{
    if (!is_quantized(reader->type))
        return (struct input){x, x_stride, n_rows, {0}};
    struct quantize_job job = {compute, x, precision, x_stride, reader->n_cols};
    const struct input input = linear_input_begin(compute, reader->n_cols, n_rows);
    compute_rows(compute, n_rows, quantize_some, &job);
    return input;
}

struct input linear_input_rows(const struct input *input, size_t first, size_t n_rows, size_t n)
{
    struct input part = {.n_rows = n_rows};
    if (input->q8.values)
        part.q8 = q8_rows_from(&input->q8, first, n);
    else
        part = (struct input){input->x + first * input->stride, input->stride, n_rows, {0}};
    return part;
}

/* ---- Observing -------------------------------------------------------------------------- */

/* Rows [first, first + n_rows) of the input as they are multiplied -> out[n_rows][n] */
static void read_input(const struct input *input, size_t first, size_t n_rows, size_t n, float *out)
{
    for (size_t r = 0; r < n_rows; r++, out += n)
        if (input->q8.values) {
            const int8_t *values = input->q8.values + (first + r) * input->q8.stride;
            for (size_t i = 0; i < n; i++)
                out[i] = input->q8.scale[first + r] * (float)values[i];
        } else {
            memcpy(out, input->x + (first + r) * input->stride, n * sizeof *out);
        }
}

/* Before any task runs, so that the scratch is free: as many rows as are handed on at a time fit it. */
static void observe(const struct compute *compute, const struct input *input,
                    const struct product *products, size_t n_products)
{
    const size_t n = products->layer->weight.n_cols;
    float *rows = compute_scratch(compute, 0);
    for (size_t first = 0; first < input->n_rows; first += MVLM_OBSERVED_ROWS) {
        const size_t left = input->n_rows - first,
                     n_rows = left < MVLM_OBSERVED_ROWS ? left : MVLM_OBSERVED_ROWS;
        read_input(input, first, n_rows, n, rows);
        for (size_t i = 0; i < n_products; i++) {
            const uint8_t *data = products[i].layer->weight.data;
            compute->observer(compute->observer_user, (uint64_t)(data - compute->weights->bytes),
                              rows, n_rows, n);
        }
    }
}

/* ---- Products --------------------------------------------------------------------------- */

struct job {
    const struct compute *compute;
    const struct input *input;
    const struct product *products;
    size_t n_products;
    bool in_step;
};

static const uint8_t *tile_at(const struct matrix *w, size_t tile)
{
    return (const uint8_t *)w->data + tile * tile_bytes(w->type, w->n_cols);
}

/* values + at, or NULL */
static const void *value_at(const void *values, size_t at, enum precision precision)
{
    return values ? (const char *)values + at * value_bytes(precision) : NULL;
}

/* Sums of rows [row, row + n_rows) -> y, from column `first` on. */
static void finish_rows(const struct job *job, const struct product *product, const void *tile,
                        size_t first, size_t row, size_t n_rows, const void *sums)
{
    const struct matrix *w = &product->layer->weight;
    const struct epilogue *e = &product->epilogue;
    const size_t at = row * product->y_stride + first, left = w->n_rows - first;
    struct finish finish = {.bias = product->layer->bias ? product->layer->bias + first : NULL,
                            .activation = e->activation,
                            .precision = e->precision,
                            .multiply = value_at(e->multiply, at, e->precision),
                            .residual = value_at(e->residual, at, e->precision)};
    if (is_quantized(w->type)) {
        finish.x_scale = job->input->q8.scale + row;
        finish.w_scale = ((const struct tile_scales *)tile)->scale;
    }
    job->compute->kernels->finish((void *)(uintptr_t)value_at(product->y, at, e->precision),
                                  product->y_stride, sums, n_rows, left < TILE ? left : TILE,
                                  &finish);
}

/* The tile's inputs [k, k + n) as f32 [n][TILE]: in place, or unpacked into `panel`. */
static const float *float_panel(const struct kernels *kernels, const struct matrix *w,
                                const void *tile, size_t k, size_t n, float *panel)
{
    if (w->type == TENSOR_F32)
        return (const float *)tile + k * TILE;
    kernels->f16_to_f32(panel, (const uint16_t *)tile + k * TILE, n * TILE);
    return panel;
}

/* sums[n_rows][TILE] = rows from `row` on times a tile of floats */
static void multiply_floats(const struct job *job, const struct matrix *w, const void *tile,
                            size_t row, size_t n_rows, float *sums, float *panel)
{
    const struct kernels *kernels = job->compute->kernels;
    const float *x = job->input->x + row * job->input->stride;
    if (n_rows == 1 && w->type == TENSOR_F16) {
        kernels->gemv_f16(sums, x, tile, w->n_cols);
        return;
    }
    for (size_t k = 0; k < w->n_cols; k += FLOAT_K) {
        const size_t n = w->n_cols - k < FLOAT_K ? w->n_cols - k : FLOAT_K;
        const float *weights = float_panel(kernels, w, tile, k, n, panel);
        kernels->gemm_f32(sums, TILE, x + k, job->input->stride, weights, n_rows, n, k > 0);
    }
}

static void run_float_tile(const struct job *job, const struct product *product, size_t tile,
                           float *scratch)
{
    const struct matrix *w = &product->layer->weight;
    const size_t n_rows = job->input->n_rows;
    for (size_t row = 0; row < n_rows; row += FLOAT_ROWS) {
        const size_t n = n_rows - row < FLOAT_ROWS ? n_rows - row : FLOAT_ROWS;
        multiply_floats(job, w, tile_at(w, tile), row, n, scratch,
                        scratch + (size_t)FLOAT_ROWS * TILE);
        finish_rows(job, product, NULL, tile * TILE, row, n, scratch);
    }
}

/* One tile of a group. */
struct int_tile {
    const uint8_t *data, *panel; /* panel: of a prepared q4 tile, else NULL */
    size_t first;                /* its first column */
};

/* A block of rows times a tile; meanwhile n_next bytes from `next` on are fetched. */
static void run_int_block(const struct job *job, const struct product *product,
                          const struct int_tile *tile, size_t row, size_t n_rows, int32_t *sums,
                          const uint8_t *next, size_t n_next)
{
    const struct matrix *w = &product->layer->weight;
    const struct kernels *kernels = job->compute->kernels;
    const struct q8_rows x = q8_rows_from(&job->input->q8, row, w->n_cols);
    const size_t n_k = aligned(w->n_cols, KERNEL_GROUP);
    if (w->type == TENSOR_Q4)
        kernels->gemm_q4(sums, TILE, &x, n_rows, tile->data, tile->panel, n_k, next, n_next);
    else
        kernels->gemm_q8(sums, TILE, &x, n_rows, q8_lines(tile->data), n_k, next, n_next);
    finish_rows(job, product, tile->data, tile->first, row, n_rows, sums);
}

/* Tiles first ... of one product, for all rows. A block of rows meets all tiles while it is in the first cache; while
 * the rows are computed, the tiles after these are fetched, a share with each block. */
static void run_int_tiles(const struct job *job, const struct product *product, size_t first,
                          size_t n_tiles, float *scratch)
{
    const struct matrix *w = &product->layer->weight;
    const size_t n_rows = job->input->n_rows, bytes = tile_bytes(w->type, w->n_cols);
    const size_t left = tiles_of(w->n_rows) - first - n_tiles,
                 n_after = left < n_tiles ? left : n_tiles;
    const size_t block = job->compute->kernels->int_rows, /* at most FLOAT_ROWS */
        n_blocks = (n_rows + block - 1) / block;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): there are rows, and tiles */
    const size_t fetch = n_rows <= FEW_ROWS ? 0 : n_after * bytes / (n_blocks * n_tiles);
    const uint8_t *next = tile_at(w, first + n_tiles);
    struct int_tile tiles[GROUP];
    for (size_t i = 0; i < n_tiles; i++) {
        tiles[i] = (struct int_tile){tile_at(w, first + i), NULL, (first + i) * TILE};
        if (w->type == TENSOR_Q4 && n_rows > FEW_ROWS) {
            uint8_t *panel =
                (uint8_t *)(scratch + (size_t)FLOAT_ROWS * TILE) + i * q4_panel_bytes(w->n_cols);
            job->compute->kernels->prepare_q4(panel, tiles[i].data,
                                              aligned(w->n_cols, KERNEL_GROUP));
            tiles[i].panel = panel;
        }
    }
    for (size_t row = 0; row < n_rows; row += block)
        for (size_t i = 0; i < n_tiles; i++, next += fetch)
            run_int_block(job, product, &tiles[i], row, n_rows - row < block ? n_rows - row : block,
                          (int32_t *)(void *)scratch, next, fetch);
}

/* Tiles that a task computes together. Several where the rows do not fit a core's second cache and would be read from
 * farther away for every tile. */
static size_t group_of(const struct job *job, const struct product *product)
{
    const struct matrix *w = &product->layer->weight;
    const size_t tile = aligned(w->n_cols, KERNEL_GROUP) * TILE,
                 rows = job->input->n_rows * w->n_cols;
    if (job->in_step || !is_quantized(w->type) || rows < (size_t)ROWS_BYTES)
        return 1;
    const size_t n = GROUP_BYTES / tile;
    return n < 1 ? 1 : n > GROUP ? GROUP : n;
}

static size_t tasks_of(const struct job *job, const struct product *product)
{
    const size_t n = tiles_of(product->layer->weight.n_rows), group = group_of(job, product);
    return (n + group - 1) / group;
}

static void run_group(const struct job *job, const struct product *product, size_t index,
                      float *scratch)
{
    const size_t group = group_of(job, product), first = index * group;
    const size_t left = tiles_of(product->layer->weight.n_rows) - first;
    if (is_quantized(product->layer->weight.type))
        run_int_tiles(job, product, first, left < group ? left : group, scratch);
    else
        run_float_tile(job, product, first, scratch);
}

static void run_task(void *argument, size_t index, int thread)
{
    const struct job *job = argument;
    float *scratch = compute_scratch(job->compute, thread);
    for (size_t i = 0; i < job->n_products; i++) {
        const size_t n = tasks_of(job, &job->products[i]);
        if (index < n)
            run_group(job, &job->products[i], index, scratch);
        if (job->in_step)
            continue;
        if (index < n)
            return;
        index -= n;
    }
}

void linear_all(struct compute *compute, const struct input *input, const struct product *products,
                size_t n_products, bool in_step)
{
    struct job job = {compute, input, products, n_products, in_step};
    size_t n_tasks = 0;
    for (size_t i = 0; i < n_products; i++) {
        const size_t n = tasks_of(&job, &products[i]);
        n_tasks = !in_step ? n_tasks + n : n > n_tasks ? n : n_tasks;
    }
    if (compute->observer)
        observe(compute, input, products, n_products);
    const double start = seconds_now();
    compute_run(compute, n_tasks, run_task, &job);
    compute->linear_seconds += seconds_now() - start;
}

void linear(struct compute *compute, const struct linear *layer, const struct input *input, void *y,
            size_t y_stride, struct epilogue epilogue)
{
    const struct product product = {layer, y, y_stride, epilogue};
    linear_all(compute, input, &product, 1, false);
}

/* ---- Rows ------------------------------------------------------------------------------- */

/* Where values of a row lie that is a column of tiles: every 32nd of f32 and f16; of q8 in quads. */
static void tile_column(const struct compute *compute, const struct matrix *matrix,
                        const void *tile, size_t column, float *out)
{
    for (size_t k = 0; k < matrix->n_cols; k++)
        if (matrix->type == TENSOR_F32)
            out[k] = ((const float *)tile)[k * TILE + column];
        else if (matrix->type == TENSOR_F16)
            compute->kernels->f16_to_f32(&out[k], (const uint16_t *)tile + k * TILE + column, 1);
        else if (matrix->type == TENSOR_Q8)
            out[k] = q8_value(tile, k, column);
        else
            out[k] = q4_value(tile, matrix->n_cols, k, column);
}

void matrix_row(const struct compute *compute, const struct matrix *matrix, size_t row, float *out)
{
    const uint8_t *data = matrix->data;
    if (matrix->layout == LAYOUT_TILES) {
        tile_column(compute, matrix, tile_at(matrix, row / TILE), row % TILE, out);
        return;
    }
    data += row * row_bytes(matrix->type, matrix->n_cols);
    if (matrix->type == TENSOR_F32) {
        memcpy(out, data, matrix->n_cols * sizeof *out);
    } else if (matrix->type == TENSOR_F16) {
        compute->kernels->f16_to_f32(out, (const uint16_t *)(const void *)data, matrix->n_cols);
    } else {
        float scale;
        memcpy(&scale, data, sizeof scale);
        for (size_t k = 0; k < matrix->n_cols; k++)
            out[k] = scale * (float)(int8_t)data[sizeof scale + k];
    }
}
