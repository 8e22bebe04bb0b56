/* Attention over a key/value cache: of the tower (every row sees every row) and of the decoder
 * (causal, grouped heads). */
#ifndef SRC_ATTENTION_H
#define SRC_ATTENTION_H

#include "kv_cache.h"

struct attention {
    const struct kv_cache *cache;
    size_t layer;
    size_t n_heads; /* of queries; a multiple of the cache's heads */
    size_t n_keys;  /* positions stored */
    bool causal;    /* row r stands at position first + r and sees no later one; else it sees all
                       n_keys */
    size_t first;
};

/* out[n_rows][n_heads x head_dim] = softmax(q keys / sqrt(head_dim)) values; strides in floats. */
void attend(struct compute *compute, const struct attention *attention, const float *q,
            size_t q_stride, size_t n_rows, float *out, size_t out_stride);

/* Floats of scratch that a thread needs for attend() over at most `n_keys` positions of a cache of
 * that type. */
size_t attention_scratch_floats(enum tensor_type type, size_t n_keys, size_t head_dim);

#endif
