/* A team of threads; the only room that knows OpenMP. Threads split outputs, never sums. */
#ifndef SRC_THREADS_H
#define SRC_THREADS_H

#include <stddef.h>

enum { MAX_THREADS = 256 };

/* How many threads compute best: one a physical core that this process may use; at least 1. */
int threads_available(void);

struct team;

/* Opens a team of at most n_threads, the caller being one of them, calls body(argument, team), and
 * closes it. The team's threads start once; between team_run calls they spin briefly and then sleep,
 * so that they cost other processes nothing. */
void threads_open(int n_threads, void (*body)(void *argument, struct team *team), void *argument);

/* Runs task(argument, i, thread) for each i below n_tasks and returns when all are done; only in
 * the team's body. Each thread begins with a share of neighbouring tasks and then helps the others,
 * so a slow core gets fewer. `thread` is below the n_threads of threads_open. */
typedef void (*task_fn)(void *argument, size_t index, int thread);
void team_run(struct team *team, size_t n_tasks, task_fn task, void *argument);

/* A team for one job. */
void threads_run(int n_threads, size_t n_tasks, task_fn task, void *argument);

#endif
