/* --max-temp: a phone that gets too hot is slowed down by its system, and stays hot for whoever holds it. */
#include "bench_machine.h"
#include "cli.h"
#include "system_files.h"

/* A machine may never be so cool, or a sensor stand still: it is worked as long as it was waited for in vain. */
enum { MOST_SECONDS = 60 };

double wait_until_cool(const struct values *values)
{
    static bool told;
    const double most = values->max_celsius;
    if (most <= 0 || !(temperature(machine_root()) > most))
        return 0;
    if (!told && !values->quiet)
        fprintf(stderr, "hotter than --max-temp %g degrees: pausing\n", most);
    told = true;
    const double seconds =
        cool_down(machine_root(), most, monotonic_seconds() + MOST_SECONDS, &stopped_by);
    if (seconds >= MOST_SECONDS && !values->quiet)
        fprintf(stderr, "still hotter than %g degrees after %d seconds: going on\n", most,
                MOST_SECONDS);
    return seconds;
}

void pace(const struct values *values)
{
    static double next; /* a look a second: each reads a hundred files on some phones */
    if (values->max_celsius <= 0 || monotonic_seconds() < next)
        return;
    const double seconds = wait_until_cool(values);
    next = monotonic_seconds() + (seconds >= MOST_SECONDS ? MOST_SECONDS : 1);
}
