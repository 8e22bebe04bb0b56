/* The cores that this process computes on. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "cli.h"
#include "system_files.h"

/* For the records: what was asked of the system, whether it was granted or not. */
static struct {
    int cores[MOST_CORES];
    size_t n;
    const char *why;
    bool fewer, refused; /* fewer than were granted before; and the system did not grant them */
} asked;

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

/* What of --cores, -C and -Cr counts: on the command line one of them makes the variables of the others mean nothing. */
static struct core_wish wish_of(const struct values *v, size_t n_threads)
{
    const bool given[] = {v->cores && !is_variable(v->cores, "MOBILEVLM_CORES"),
                          v->core_mask && !is_variable(v->core_mask, "MOBILEVLM_CPU_MASK"),
                          v->core_range && !is_variable(v->core_range, "MOBILEVLM_CPU_RANGE")};
    const bool any = given[0] || given[1] || given[2];
    return (struct core_wish){!any || given[0] ? v->cores : NULL,
                              !any || given[1] ? v->core_mask : NULL,
                              !any || given[2] ? v->core_range : NULL, n_threads};
}

mvlm_status take_cores(const struct values *values, size_t n_threads, mvlm_error *error)
{
    static int granted[MOST_CORES]; /* before anything was asked */
    static size_t n;
    const struct core_wish wish = wish_of(values, n_threads);
    char sys[512];
    cpu_set_t wanted;
    n = n ? n : granted_cores(granted);
    snprintf(sys, sizeof sys, "%s/sys", machine_root());
    mvlm_status status =
        choose_cores(sys, &wish, granted, n, asked.cores, &asked.n, &asked.why, error);
    if (status != MVLM_OK || n == 0)
        return status;
    asked.fewer = asked.n < n;
    CPU_ZERO(&wanted);
    for (size_t i = 0; i < asked.n; i++)
        CPU_SET((size_t)asked.cores[i], &wanted);
    asked.refused = sched_setaffinity(0, sizeof wanted, &wanted) != 0;
    if (asked.refused && values->verbose)
        fprintf(stderr, "the system decides where threads run: %s\n", strerror(errno));
    return MVLM_OK;
}

int threads_wanted(const struct values *values)
{
    if (values->threads || !asked.refused || !asked.fewer)
        return (int)values->threads; /* 0: one a core that was granted */
    return asked.n < 256 ? (int)asked.n : 256;
}

size_t asked_cores(const int **cores, const char **why)
{
    *cores = asked.cores;
    *why = asked.why ? asked.why : "none";
    return asked.n;
}

json_t *cores_json(const int *cores, size_t n_cores)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n_cores; i++)
        json_push(&list, json_integer(cores[i]));
    return list;
}

void print_cores(FILE *out, const char *what, const int *cores, size_t n_cores)
{
    fprintf(out, "%s", what);
    for (size_t i = 0; i < n_cores; i++)
        fprintf(out, " %d", cores[i]);
}
