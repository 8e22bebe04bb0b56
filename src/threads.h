/* A team of threads; the only room that knows OpenMP. Threads split outputs, never sums. */
#ifndef SRC_THREADS_H
#define SRC_THREADS_H

#include <stddef.h>

enum { MAX_THREADS = 256 };

/* How many processors this process may use; at least 1. */
int threads_available(void);

/* Runs task(argument, i, thread) for each i below n_tasks on up to n_threads threads, the caller
 * being one of them, and returns when all are done. Tasks are handed out one by one; `thread` is
 * below n_threads. */
typedef void (*task_fn)(void *argument, size_t index, int thread);
void threads_run(int n_threads, size_t n_tasks, task_fn task, void *argument);

#endif
