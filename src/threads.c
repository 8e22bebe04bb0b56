/* Threads of POSIX, which wait for jobs that C11 atomics hand out. (Not OpenMP's: its run time ends the process where it gets no
 * memory or no thread, and its barriers may spin for milliseconds while another process holds the core of the thread that
 * they wait for.) */
#include "threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* A thread besides the caller's. */
struct worker {
    struct team *team;
    int thread; /* from 1 */
    pthread_t id;
};

struct team {
    int n_threads; /* the caller's among them */
    int n_workers; /* that were started */
    bool closed;
    task_fn task;
    void *argument;
    struct event job;     /* counts the jobs handed out */
    struct event working; /* threads besides the caller that are still at the job */
    struct share shares[MAX_THREADS];
    struct worker workers[MAX_THREADS - 1];
};

/* ---- Waiting ---------------------------------------------------------------------------- */

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* some ten nanoseconds; "yield" does nothing on most cores */
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

/* A worker's life: one job after another. */
static void *serve(void *argument)
{
    struct worker *worker = argument;
    struct team *team = worker->team;
    for (unsigned seen = 0;; seen++) {
        event_wait(&team->job, seen);
        if (team->closed)
            return NULL;
        work(team, worker->thread);
        atomic_fetch_sub(&team->working.value, 1);
        event_wake(&team->working);
    }
}

/* ---- Opening and closing ---------------------------------------------------------------- */

/* With all signals blocked that are not of their own doing: handlers run where the program expects them. */
static bool start_workers(struct team *team)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t all, before;
    bool good = true;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (good && team->n_workers < team->n_threads - 1) {
        struct worker *worker = &team->workers[team->n_workers];
        *worker = (struct worker){.team = team, .thread = team->n_workers + 1};
        good = pthread_create(&worker->id, NULL, serve, worker) == 0;
        team->n_workers += good;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return good;
}

struct team *team_open(int n_threads)
{
    struct team *team = aligned_alloc(_Alignof(struct team), sizeof *team);
    if (!team)
        return NULL;
    memset(team, 0, sizeof *team);
    team->n_threads = n_threads;
    if (!start_workers(team)) {
        team_close(team);
        return NULL;
    }
    return team;
}

void team_close(struct team *team)
{
    if (!team)
        return;
    team->closed = true;
    atomic_fetch_add(&team->job.value, 1);
    event_wake(&team->job);
    for (int i = 0; i < team->n_workers; i++)
        pthread_join(team->workers[i].id, NULL);
    free(team);
}

int team_size(const struct team *team)
{
    return team->n_threads;
}

/* ---- Cores ------------------------------------------------------------------------------ */

/* The lowest-numbered processor of `cpu`'s core: two threads of one core have the same. -1: not known. */
static int first_sibling(int cpu)
{
    char path[96], line[32], *end = line;
    long first = -1;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "re");
    if (file && fgets(line, sizeof line, file))
        first = strtol(line, &end, 10);
    if (file)
        fclose(file);
    return end > line && first >= 0 && first < CPU_SETSIZE ? (int)first : -1;
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
