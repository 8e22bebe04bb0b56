/* What the rows in a cache stand for, so that a prompt that begins alike need not be read again. */
#ifndef SRC_HELD_H
#define SRC_HELD_H

#include <stdbool.h>
#include <xxhash.h>

#include "arena.h"

struct held_id {
    int32_t id;            /* MVLM_IMAGE_ID for a picture */
    XXH128_hash_t picture; /* its digest; of text zero */
};

struct held {
    struct held_id *ids; /* [positions of the cache] */
    size_t n;
    size_t n_rows;       /* positions that they take */
    size_t image_tokens; /* of a picture */
};

/* Takes memory for a cache of n_positions. */
void held_layout(struct held *held, struct arena *arena, size_t n_positions);

void held_add(struct held *held, struct held_id id);

/* Forgets all from the n-th id on. */
void held_cut(struct held *held, size_t n);

bool held_same(const struct held_id *a, const struct held_id *b);

#endif
