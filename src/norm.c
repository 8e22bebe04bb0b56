#include "norm.h"

struct job {
    struct compute *compute;
    enum norm_kind kind;
    const struct norm *norm;
    float eps;
    const struct norm_rows *rows;
    float *y;
};

static void norm_row(const struct job *job, size_t row, float *y)
{
    const struct kernels *kernels = job->compute->kernels;
    const struct norm *norm = job->norm;
    const float *x = job->rows->x + row * job->rows->stride;
    if (job->kind == NORM_LAYER)
        kernels->layer_norm(y, x, norm->weight, norm->bias, job->eps, job->rows->n);
    else
        kernels->rms_norm(y, x, norm->weight, job->eps, job->rows->n);
}

static void run_rows(void *argument, size_t first, size_t n_rows, int thread)
{
    (void)thread;
    const struct job *job = argument;
    for (size_t row = first; row < first + n_rows; row++)
        norm_row(job, row, job->y + row * job->rows->stride);
}

void norm_rows(const struct compute *compute, enum norm_kind kind, const struct norm *norm,
               double eps, const struct norm_rows *rows, float *y)
{
    struct job job = {(struct compute *)(uintptr_t)compute, kind, norm, (float)eps, rows, y};
    compute_rows(compute, rows->n_rows, run_rows, &job);
}

/* ---- Norm and input of a quantized layer in one --------------------------------------------- */

size_t norm_scratch_floats(size_t n)
{
    return n;
}

static void quantize_norms(void *argument, size_t first, size_t n_rows, int thread)
{
    const struct job *job = argument;
    float *normed = compute_scratch(job->compute, thread);
    for (size_t row = first; row < first + n_rows; row++) {
        norm_row(job, row, normed);
        linear_input_row(job->compute, row, normed, job->rows->n);
    }
}

struct input norm_input(struct compute *compute, enum norm_kind kind, const struct norm *norm,
                        double eps, const struct linear *reader, const struct norm_rows *rows,
                        float *y)
{
    struct job job = {compute, kind, norm, (float)eps, rows, y};
    if (!is_quantized(reader->weight.type)) {
        norm_rows(compute, kind, norm, eps, rows, y);
        return linear_input(compute, &reader->weight, y, PRECISION_SINGLE, rows->stride,
                            rows->n_rows);
    }
    const struct input input = linear_input_begin(compute, rows->n, rows->n_rows);
    compute_rows(compute, rows->n_rows, quantize_norms, &job);
    return input;
}
