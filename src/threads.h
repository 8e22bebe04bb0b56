/* A team of threads. Threads split outputs, never sums. */
#ifndef SRC_THREADS_H
#define SRC_THREADS_H

#include <stddef.h>

enum { MAX_THREADS = 256 };

/* How many threads compute best: one a physical core that this process may use; at least 1. */
int threads_available(void);

struct team;

/* Starts a team of n_threads (1 to MAX_THREADS), the caller of team_run being one of them. The others live until
 * team_close; between jobs they spin briefly and then sleep, so that they cost other processes nothing. NULL when there
 * is no memory or no thread to be had. They take no signals but those of their own faults. */
struct team *team_open(int n_threads);
void team_close(struct team *team); /* NULL: nothing */
int team_size(const struct team *team);

/* Runs task(argument, i, thread) for each i below n_tasks and returns when all are done; from one thread at a time.
 * Each thread begins with a share of neighbouring tasks and then helps the others, so a slow core gets fewer. `thread`
 * is below team_size; the caller's is 0. */
typedef void (*task_fn)(void *argument, size_t index, int thread);
void team_run(struct team *team, size_t n_tasks, task_fn task, void *argument);

#endif
