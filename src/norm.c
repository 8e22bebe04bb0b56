#include "norm.h"

struct job {
    const struct kernels *kernels;
    enum norm_kind kind;
    const struct norm *norm;
    float eps;
    float *y;
    const float *x;
    size_t n;
};

static void run_rows(void *argument, size_t first, size_t n_rows, int thread)
{
    (void)thread;
    const struct job *job = argument;
    for (size_t row = first; row < first + n_rows; row++) {
        float *y = job->y + row * job->n;
        const float *x = job->x + row * job->n;
        if (job->kind == NORM_LAYER)
            job->kernels->layer_norm(y, x, job->norm->weight, job->norm->bias, job->eps, job->n);
        else
            job->kernels->rms_norm(y, x, job->norm->weight, job->eps, job->n);
    }
}

void norm_rows(const struct compute *compute, enum norm_kind kind, const struct norm *norm,
               double eps, float *y, const float *x, size_t n_rows, size_t n)
{
    struct job job = {compute->kernels, kind, norm, (float)eps, y, x, n};
    compute_rows(compute, n_rows, run_rows, &job);
}
