#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "process.h"

const char *machine_root(void)
{
    const char *root = getenv("MOBILEVLM_ROOT");
    return root ? root : "";
}

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
    uint64_t kilobytes = 0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    while (file && !kilobytes && fgets(line, sizeof line, file))
        sscanf(line, "VmHWM: %" SCNu64, &kilobytes);
    if (file)
        fclose(file);
    return kilobytes * 1024;
}

uint64_t peak_memory(void)
{
    struct rusage usage;
    const uint64_t in_status = peak_in_status();
    if (in_status)
        return in_status;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}
