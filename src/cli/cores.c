/* The cores that this process may use. */
#include <sched.h>

#include "cli.h"

size_t granted_cores(int cores[MOST_CORES])
{
    cpu_set_t granted;
    size_t n = 0;
    if (sched_getaffinity(0, sizeof granted, &granted) != 0)
        return 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE && cpu < MOST_CORES; cpu++)
        if (CPU_ISSET(cpu, &granted))
            cores[n++] = (int)cpu;
    return n;
}

json_t *cores_json(const int *cores, size_t n_cores)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n_cores; i++)
        json_array_append_new(list, json_integer(cores[i]));
    return list;
}
