/* One aligned block, handed out in pieces. The same code that lays the pieces out also measures
 * them: an arena without a block only counts, and that count is the memory plan. */
#ifndef SRC_ARENA_H
#define SRC_ARENA_H

#include <stddef.h>

#include "mobilevlm.h"

struct arena {
    unsigned char *block; /* NULL: measuring */
    size_t n_bytes;       /* of the block */
    size_t used, most;    /* `most` is the high-water mark over all rewinds */
};

/* A piece of `n` times `size` bytes at a multiple of 64; NULL while measuring. Its content is
 * undefined. The block must have been allocated with the size that measuring gave. */
void *arena_take(struct arena *arena, size_t n, size_t size);

/* Gives back all pieces taken since `used` was `mark`. */
void arena_rewind(struct arena *arena, size_t mark);

/* Allocates `n_bytes`; on error MVLM_NO_MEMORY. */
mvlm_status arena_open(struct arena *arena, size_t n_bytes, mvlm_error *error);
void arena_close(struct arena *arena);

#endif
