/* Fetching what is read next while something else is computed. */
#ifndef KERNELS_X86_FETCH_H
#define KERNELS_X86_FETCH_H

#include <stddef.h>
#include <stdint.h>

#define ALWAYS_INLINE __attribute__((always_inline)) static inline

/* Memory to be fetched into the second cache, a cache line at each step of a loop. */
struct fetch {
    const uint8_t *next;
    size_t left;
};

ALWAYS_INLINE void fetch_line(struct fetch *fetch)
{
    if (fetch->left) {
        __builtin_prefetch(fetch->next, 0, 2);
        fetch->next += 64;
        fetch->left -= fetch->left < 64 ? fetch->left : 64;
    }
}

#endif
