#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "process.h"
#include "system_files.h"

double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void peak_memory_reset(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "we");
    if (file) {
        fputs("5", file);
        fclose(file);
    }
}

/* VmHWM, which can be reset, as getrusage's cannot; 0 when the system does not say. */
static uint64_t peak_in_status(void)
{
    char kilobytes[64];
    return read_key("/proc/self/status", "VmHWM", kilobytes, sizeof kilobytes)
               ? 1024 * strtoull(kilobytes, NULL, 10)
               : 0;
}

uint64_t peak_memory(void)
{
    struct rusage usage;
    const uint64_t in_status = peak_in_status();
    if (in_status)
        return in_status;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}
