#include "compute.h"

#include <time.h>

mvlm_status compute_step(const struct compute *compute, const char *stage, size_t done,
                         size_t total, mvlm_error *error)
{
    bool stop = atomic_load_explicit(&compute->cancelled, memory_order_relaxed);
    if (compute->progress &&
        compute->progress(compute->progress_user, stage, (double)done / (double)total))
        stop = true;
    return stop ? fail(error, MVLM_CANCELLED, "stopped during %s", stage)
                : weights_intact(compute->weights, error);
}

struct q8_rows q8_rows_layout(struct arena *arena, size_t n_rows, size_t n)
{
    struct q8_rows rows = {.stride = q8_stride(n)};
    rows.values = arena_take(arena, n_rows, rows.stride);
    rows.scale = arena_take(arena, n_rows, sizeof *rows.scale);
    rows.sum = arena_take(arena, n_rows, sizeof *rows.sum);
    rows.group_sum = arena_take(arena, n_rows * q4_groups(n), sizeof *rows.group_sum);
    return rows;
}

void compute_run(const struct compute *compute, size_t n_tasks, task_fn task, void *argument)
{
    team_run(compute->team, n_tasks, task, argument);
}

enum { ROWS_A_TASK = 16 };

struct rows_job {
    rows_fn body;
    void *argument;
    size_t n_rows;
};

static void run_rows(void *argument, size_t index, int thread)
{
    const struct rows_job *job = argument;
    const size_t first = index * ROWS_A_TASK, left = job->n_rows - first;
    job->body(job->argument, first, left < ROWS_A_TASK ? left : ROWS_A_TASK, thread);
}

void compute_rows(const struct compute *compute, size_t n_rows, rows_fn body, void *argument)
{
    struct rows_job job = {body, argument, n_rows};
    compute_run(compute, (n_rows + ROWS_A_TASK - 1) / ROWS_A_TASK, run_rows, &job);
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
