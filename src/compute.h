/* What every stage computes with: kernels, threads, a scratch panel for each thread, and the flag
 * that stops it. */
#ifndef SRC_COMPUTE_H
#define SRC_COMPUTE_H

#include <stdatomic.h>
#include <stddef.h>

#include "../kernels/kernels.h"
#include "arena.h"
#include "mobilevlm.h"
#include "status.h"
#include "threads.h"
#include "weights.h"

struct compute {
    const struct kernels *kernels;
    struct team *team;     /* owned by the session */
    float *scratch;        /* [n_threads][scratch_floats] */
    size_t scratch_floats; /* for one thread */
    struct q8_rows rows;   /* what quantized layers read next: linear_input */
    atomic_int cancelled;
    double linear_seconds; /* spent in linear() */
    int (*progress)(void *user, const char *stage,
                    double share); /* NULL: nobody asks; non-zero stops */
    void *progress_user;
    mvlm_observer_fn observer; /* NULL: nobody observes what linear layers read */
    void *observer_user;
    const struct weights *weights; /* the file that is computed with */
};

/* Values from one row of n to the next in arrays of activations. A cache line more than they need: rows a power of two
 * apart would fall into the same few places of a cache (an encode took a third longer). */
static inline size_t row_stride(size_t n)
{
    return (size_t)aligned(n, 32) + 32; /* 32 halves fill a line */
}

/* The same for rows of eight bits, in bytes. */
static inline size_t q8_stride(size_t n)
{
    return (size_t)aligned(n, 64) + 64;
}

/* Takes the memory of n_rows rows of eight bits with at most n values. */
struct q8_rows q8_rows_layout(struct arena *arena, size_t n_rows, size_t n);

/* The calling thread's scratch inside a task. */
static inline float *compute_scratch(const struct compute *compute, int thread)
{
    return compute->scratch + (size_t)thread * compute->scratch_floats;
}

/* Called between layers: tells that `done` of `total` steps of `stage` are done, and returns
 * MVLM_CANCELLED once mvlm_session_cancel was called or the progress callback said so, MVLM_BAD_MODEL once the file could
 * not be read. */
mvlm_status compute_step(const struct compute *compute, const char *stage, size_t done,
                         size_t total, mvlm_error *error);

/* Runs task(argument, i, thread) for each of n_tasks with the session's team. */
void compute_run(const struct compute *compute, size_t n_tasks, task_fn task, void *argument);

/* Rows of a matrix handed out to the threads: body(argument, first, n_rows, thread). */
typedef void (*rows_fn)(void *argument, size_t first, size_t n_rows, int thread);
void compute_rows(const struct compute *compute, size_t n_rows, rows_fn body, void *argument);

/* Seconds from a fixed point in the past. */
double seconds_now(void);

#endif
