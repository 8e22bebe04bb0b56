/* What kernels need that compute a block of sums in registers. */
#ifndef KERNELS_C_BLOCK_H
#define KERNELS_C_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* Before a loop of at most 16 turns, their number a constant once the function is inlined: sums stay in registers only
 * if nothing of it remains. */
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

/* Memory to be fetched into the second cache, a cache line at each step of a loop. */
struct fetch {
    const uint8_t *next;
    size_t left;
};

/* n cache lines at once. */
ALWAYS_INLINE void fetch_lines(struct fetch *fetch, size_t n)
{
    for (size_t i = 0; i < n && fetch->left; i++) {
        __builtin_prefetch(fetch->next, 0, 2);
        fetch->next += 64;
        fetch->left -= fetch->left < 64 ? fetch->left : 64;
    }
}

ALWAYS_INLINE void fetch_line(struct fetch *fetch)
{
    fetch_lines(fetch, 1);
}

/* A q4 tile times one row. */
typedef void (*gemv_q4_fn)(int32_t *y, const int8_t *x, const int32_t *group_sum, const void *tile,
                           size_t n_k);

/* The same times n_rows, one after another: for few rows, for which preparing the tile does not pay. */
ALWAYS_INLINE void row_by_row(gemv_q4_fn gemv, int32_t *y, size_t y_stride, const struct q8_rows *x,
                              size_t n_rows, const void *tile, size_t n_k)
{
    for (size_t r = 0; r < n_rows; r++)
        gemv(y + r * y_stride, x->values + r * x->stride, x->group_sum + r * (n_k / KERNEL_GROUP),
             tile, n_k);
}

#endif
