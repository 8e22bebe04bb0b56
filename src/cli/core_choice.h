/* Which cores to compute on. */
#ifndef CLI_CORE_CHOICE_H
#define CLI_CORE_CHOICE_H

#include <stddef.h>

#include "mobilevlm.h"

enum { MOST_CORES = 1024 };

/* Of the n `cores`, those that are big, in their order, into `big`; returns how many: at least one, and all where
 * nothing tells them apart. `sys` is "/sys", or a tree like it. They are told apart by
 *     devices/system/cpu/cpuN/cpu_capacity                       large: at least 0.6 of the largest
 *     devices/system/cpu/cpuN/cpufreq/cpuinfo_max_freq           fast: at least 0.8 of the fastest
 *     devices/system/cpu/cpuN/regs/identification/midr_el1       none of ARM's small cores
 * the first of these that is known of all of them; `sign` becomes its last word, or NULL. (Little cores: 0.2 to 0.55 of the
 * capacity, 0.6 to 0.76 of the frequency; middle ones: 0.7 and 0.85 on, by the tables of Snapdragon, Exynos and RK parts.
 * Parts whose middle cores are clocked far below the largest use that one alone, unless --cores says otherwise.) */
size_t big_cores(const char *sys, const int *cores, size_t n, int *big, const char **sign);

/* Words of --cores (big, all, 0,2-4), -C (a mask in hexadecimal) and -Cr (LO-HI, LO- or -HI); NULL where not given. -C and
 * -Cr add up; big is meant where nothing is given, unless there are to be more threads than big cores (0: as many as suit). */
struct core_wish {
    const char *names, *mask, *range;
    size_t n_threads;
};

/* The chosen ones of the n `granted` cores go to `chosen`, lowest first; `why` says what they are in a few words. MVLM_USAGE for
 * --cores with -C or -Cr, for what cannot be read, and where none of those named is granted. */
mvlm_status choose_cores(const char *sys, const struct core_wish *wish, const int *granted,
                         size_t n, int *chosen, size_t *n_chosen, const char **why,
                         mvlm_error *error);

#endif
