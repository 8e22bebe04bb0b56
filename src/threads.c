/* OpenMP opens the team and closes it; in between jobs are handed out by C11 atomics: a barrier of OpenMP's may spin for
 * milliseconds while another process holds the core of the thread that it waits for. */
#include "threads.h"

#include <linux/futex.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPINS = 2000, /* some tens of microseconds: longer than the gap between two jobs of a layer */
    CACHE_LINES = 128, /* what neighbours must be apart, adjacent-line prefetch included */
};

/* A thread's share of the tasks: whoever increments `next` below `end` has one. */
struct share {
    _Alignas(CACHE_LINES) atomic_size_t next;
    size_t end;
};

/* A number that threads wait for, and how many of them sleep meanwhile. */
struct event {
    _Alignas(CACHE_LINES) atomic_uint value;
    atomic_uint sleepers;
};

struct team {
    int n_threads;
    bool closed;
    task_fn task;
    void *argument;
    struct event job;     /* counts the jobs handed out */
    struct event working; /* threads besides the caller that are still at the job */
    struct share shares[MAX_THREADS];
};

/* ---- Waiting ---------------------------------------------------------------------------- */

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns once the value is not `old` any more. */
static void event_wait(struct event *event, unsigned old)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&event->value, memory_order_acquire) != old)
            return;
        pause_briefly();
    }
    atomic_fetch_add(&event->sleepers, 1);
    /* sequentially consistent like event_wake's: either this load sees the new value or the waker sees the sleeper */
    while (atomic_load(&event->value) == old)
        syscall(SYS_futex, &event->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&event->sleepers, 1);
}

/* After a change of the value. */
static void event_wake(struct event *event)
{
    if (atomic_load(&event->sleepers))
        syscall(SYS_futex, &event->value, FUTEX_WAKE_PRIVATE, MAX_THREADS, NULL, NULL, 0);
}

/* ---- Jobs ------------------------------------------------------------------------------- */

static void work(struct team *team, int thread)
{
    const int n = team->n_threads;
    for (int i = 0; i < n; i++) {
        struct share *share = &team->shares[(thread + i) % n];
        size_t index;
        while ((index = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed)) <
               share->end)
            team->task(team->argument, index, thread);
    }
}

void team_run(struct team *team, size_t n_tasks, task_fn task, void *argument)
{
    const size_t n = (size_t)team->n_threads;
    if (n == 1 || n_tasks == 1) {
        for (size_t i = 0; i < n_tasks; i++)
            task(argument, i, 0);
        return;
    }
    team->task = task;
    team->argument = argument;
    for (size_t i = 0; i < n; i++) {
        atomic_store_explicit(&team->shares[i].next, n_tasks * i / n, memory_order_relaxed);
        team->shares[i].end = n_tasks * (i + 1) / n;
    }
    atomic_store_explicit(&team->working.value, (unsigned)n - 1, memory_order_relaxed);
    atomic_fetch_add(&team->job.value, 1);
    event_wake(&team->job);
    work(team, 0);
    for (unsigned left;
         (left = atomic_load_explicit(&team->working.value, memory_order_acquire)) > 0;)
        event_wait(&team->working, left);
}

/* A thread besides the caller: one job after another. */
static void serve(struct team *team, int thread)
{
    for (unsigned seen = 0;; seen++) {
        event_wait(&team->job, seen);
        if (team->closed)
            return;
        work(team, thread);
        atomic_fetch_sub(&team->working.value, 1);
        event_wake(&team->working);
    }
}

void threads_open(int n_threads, void (*body)(void *argument, struct team *team), void *argument)
{
    struct team team = {.n_threads = 1};
    if (n_threads <= 1) {
        body(argument, &team);
        return;
    }
#pragma omp parallel num_threads(n_threads)
    if (omp_get_thread_num() == 0) {
        team.n_threads = omp_get_num_threads(); /* fewer than asked for, where there are no more */
        body(argument, &team);
        team.closed = true;
        atomic_fetch_add(&team.job.value, 1);
        event_wake(&team.job);
    } else {
        serve(&team, omp_get_thread_num());
    }
}

struct job {
    size_t n_tasks;
    task_fn task;
    void *argument;
};

static void run_job(void *argument, struct team *team)
{
    const struct job *job = argument;
    team_run(team, job->n_tasks, job->task, job->argument);
}

void threads_run(int n_threads, size_t n_tasks, task_fn task, void *argument)
{
    struct job job = {n_tasks, task, argument};
    threads_open(n_threads, run_job, &job);
}

/* ---- Cores ------------------------------------------------------------------------------ */

/* The lowest-numbered processor of `cpu`'s core: two threads of one core have the same. -1: not known. */
static int first_sibling(int cpu)
{
    char path[96];
    int first = -1;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "re");
    if (file && fscanf(file, "%d", &first) != 1)
        first = -1;
    if (file)
        fclose(file);
    return first;
}

int threads_available(void)
{
    cpu_set_t allowed, cores;
    int n = 0;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 1;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        const int sibling = CPU_ISSET(cpu, &allowed) ? first_sibling((int)cpu) : 0;
        const size_t core = sibling >= 0 && sibling < CPU_SETSIZE ? (size_t)sibling : cpu;
        if (!CPU_ISSET(cpu, &allowed) || CPU_ISSET(core, &cores))
            continue;
        CPU_SET(core, &cores);
        n++;
    }
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}
