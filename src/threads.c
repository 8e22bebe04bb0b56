#include "threads.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>

int threads_available(void)
{
    cpu_set_t allowed;
    int n = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        n = CPU_COUNT(&allowed);
    if (n < 1)
        n = omp_get_num_procs();
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

void threads_run(int n_threads, size_t n_tasks, task_fn task, void *argument)
{
    if (n_threads == 1 || n_tasks == 1) {
        for (size_t i = 0; i < n_tasks; i++)
            task(argument, i, 0);
        return;
    }
    atomic_size_t next = 0;
#pragma omp parallel num_threads(n_threads)
    for (size_t i; (i = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed)) < n_tasks;)
        task(argument, i, omp_get_thread_num());
}
