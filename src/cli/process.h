/* What this process takes: time and memory. */
#ifndef CLI_PROCESS_H
#define CLI_PROCESS_H

#include <stdint.h>

/* Seconds from a fixed point in the past. */
double monotonic_seconds(void);

/* The largest memory that the process had since the last reset, in bytes; since its start, where none was or the system
 * cannot reset it. */
void peak_memory_reset(void);
uint64_t peak_memory(void);

#endif
