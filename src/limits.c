/* How fast this machine is at best, with the session's threads: what the engine's own speed is a
 * share of. */
#include <stdatomic.h>

#include "session.h"
#include "status.h"

enum {
    TASKS_A_THREAD = 16, /* so that a slow core gets fewer, as of the engine's own work */
    FIRST_LOOPS = 16,
    BLOCK_BYTES = 1 << 18,
    AHEAD_BYTES = 2048, /* further than the processor looks by itself */
};
static const double TASK_SECONDS = 2e-3, LEAST_BYTES = 0x1p28;

/* ---- Multiply-accumulate ---------------------------------------------------------------- */

struct peak_job {
    const struct kernels *kernels;
    enum peak_kind kind;
    size_t loops;
};

static void run_peak(void *argument, size_t index, int thread)
{
    const struct peak_job *job = argument;
    (void)index;
    (void)thread;
    job->kernels->peak(job->kind, job->loops);
}

static void measure_peak(struct mvlm_session *s, enum peak_kind kind, double *per_second)
{
    struct peak_job job = {s->compute.kernels, kind, FIRST_LOOPS};
    const size_t n_tasks = (size_t)s->options.n_threads * TASKS_A_THREAD;
    double macs, start, seconds;
    do { /* how long is a task? */
        job.loops *= 2;
        start = seconds_now();
        macs = job.kernels->peak(kind, job.loops);
        seconds = seconds_now() - start;
    } while (seconds < TASK_SECONDS / 2);
    start = seconds_now();
    compute_run(&s->compute, n_tasks, run_peak, &job);
    *per_second = macs * (double)n_tasks / (seconds_now() - start);
}

/* ---- Reading ---------------------------------------------------------------------------- */

typedef uint64_t words __attribute__((vector_size(32)));

struct read_job {
    const uint8_t *bytes;
    size_t n_bytes;
    atomic_uint_least64_t sum; /* so that nothing that was read is for nothing */
};

/* A block of the mapping, in lines of 128 bytes. */
static void read_block(void *argument, size_t index, int thread)
{
    enum { STEP = 4 * sizeof(words) };
    struct read_job *job = argument;
    const uint8_t *block = job->bytes + index * BLOCK_BYTES;
    const size_t left = job->n_bytes - index * BLOCK_BYTES;
    const size_t n = left < BLOCK_BYTES ? left / STEP * STEP : BLOCK_BYTES;
    words a = {0}, b = {0}, c = {0}, d = {0};
    (void)thread;
    for (size_t i = 0; i < n; i += STEP) {
        const words *line = (const words *)(const void *)(block + i);
        __builtin_prefetch(block + i + AHEAD_BYTES);
        __builtin_prefetch(block + i + AHEAD_BYTES + STEP / 2);
        a += line[0];
        b += line[1];
        c += line[2];
        d += line[3];
    }
    a += b + c + d;
    atomic_fetch_add_explicit(&job->sum, a[0] + a[1] + a[2] + a[3], memory_order_relaxed);
}

/* Reads the decoder's section: it is what every token has to read, it is most of the file, and the
 * tower's pages need not be in memory for it. Each thread begins with a contiguous share. A small
 * model is read again and again. */
static void measure_reading(struct mvlm_session *s, double *per_second)
{
    const struct weights *w = &s->model->weights;
    const void *data;
    const size_t n_before = weights_before(w, SECTION_DECODER, &data);
    struct read_job job = {.bytes = (const uint8_t *)data + n_before};
    job.n_bytes = (size_t)(w->bytes + w->n_bytes - job.bytes);
    const size_t n_blocks = (job.n_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
    double bytes = 0;
    const double start = seconds_now();
    while (bytes < LEAST_BYTES) {
        compute_run(&s->compute, n_blocks, read_block, &job);
        bytes += (double)job.n_bytes;
    }
    *per_second = bytes / (seconds_now() - start);
}

/* ---- The call --------------------------------------------------------------------------- */

static mvlm_status measure(struct mvlm_session *s, mvlm_limit limit, double *per_second,
                           mvlm_error *error)
{
    static const enum peak_kind kinds[] = {
        [MVLM_LIMIT_F32] = PEAK_F32, [MVLM_LIMIT_W8A8] = PEAK_W8A8, [MVLM_LIMIT_W4A8] = PEAK_W4A8};
    TRY(compute_step(&s->compute, "measuring", 0, 1, error));
    if (limit == MVLM_LIMIT_READ)
        measure_reading(s, per_second);
    else
        measure_peak(s, kinds[limit], per_second);
    return MVLM_OK;
}

mvlm_status mvlm_measure_limit(mvlm_session *session, mvlm_limit limit, double *per_second,
                               mvlm_error *error)
{
    return session_finish(session, &session->sequences[0],
                          measure(session, limit, per_second, error), error);
}
