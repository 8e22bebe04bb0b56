/* The machine that is measured: what it is, how fast and hot it runs, what energy and memory it takes. */
#ifndef CLI_BENCH_MACHINE_H
#define CLI_BENCH_MACHINE_H

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "core_choice.h"

/* What it does not tell is NAN, or "". */
struct sensors {
    double mhz;     /* of the fastest core that this process may use */
    double celsius; /* of the hottest zone */
};

struct machine {
    const char *root; /* "", or a folder with another machine's /sys and /proc */
    char cpu[128], governor[32];
    int cores[MOST_CORES]; /* granted: those that this process may use */
    size_t n_cores;
};

void machine_describe(struct machine *machine, const char *root);
struct sensors sensors_read(const struct machine *machine);

/* Of the hottest zone of the machine at `root`, in degrees; NAN when the machine does not tell. */
double temperature(const char *root);

/* Waits until the machine is no hotter than `most` degrees, at most until the clock says `until` or `stopped` is no longer
 * 0; returns the seconds that it took. A machine that does not tell is never waited for. */
double cool_down(const char *root, double most, double until, const volatile sig_atomic_t *stopped);

/* Adds up the energy of the times between meter_start and meter_stop, from the first of these that the machine has:
 * the counters of Intel's and AMD's packages (RAPL); the power that a board's sensors show (INA3221 and INA219 of
 * Jetsons); what a phone's battery gives while nothing charges it. */
enum { MOST_PACKAGES = 16 };
struct meter {
    double joules; /* NAN: the machine does not say */
    const char *root;
    double packages[MOST_PACKAGES]; /* what they had counted at the start */
    size_t n_packages;
    double watts, seconds; /* at the last look, of which there are ten a second */
    pthread_t watcher;
    bool watched;
    sem_t stopping;
};

/* Whether the machine tells. */
bool meter_works(const char *root);
void meter_start(struct meter *meter, const char *root);
void meter_stop(struct meter *meter);

#endif
