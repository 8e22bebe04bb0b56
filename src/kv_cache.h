/* Keys and values of the positions read so far, laid out as weight tiles so that attention is two
 * matrix products:
 *
 *     keys    [layer][head][position / 32][head_dim][32]    scores = q keys: a lane is a position
 *     values  [layer][head][head_dim / 32][position][32]    out = p values: a lane is a channel
 *
 * Both are stored in one type and always read back in it, so a reused prefix equals a computed one.
 * (Values must be finite for that: a block of queries reads keys that some of its rows may not see with
 * weight 0, and 0 times infinity is no 0.)
 */
#ifndef SRC_KV_CACHE_H
#define SRC_KV_CACHE_H

#include "arena.h"
#include "compute.h"
#include "format.h"

struct kv_cache {
    enum tensor_type type; /* TENSOR_F32 or TENSOR_F16 */
    size_t n_layers, n_heads, head_dim;
    size_t capacity; /* positions, a multiple of 32 */
    void *keys, *values;
};

/* Takes the cache's memory from the arena (or measures it). */
void kv_cache_layout(struct kv_cache *cache, struct arena *arena, enum tensor_type type,
                     size_t n_layers, size_t n_heads, size_t head_dim, size_t n_positions);

/* Stores key and value [head_dim] of one head at `position`. */
void kv_cache_put(const struct kv_cache *cache, const struct kernels *kernels, size_t layer,
                  size_t head, size_t position, const float *key, const float *value);

/* Stores rows [n_rows][n_heads x head_dim] of keys and values at first, first + 1, ... */
void kv_cache_append(struct compute *compute, const struct kv_cache *cache, size_t layer,
                     size_t first, const float *keys, const float *values, size_t stride,
                     size_t n_rows);

/* The tile of 32 positions [head_dim][32], and the tile of 32 channels [capacity][32]. */
const void *kv_cache_keys(const struct kv_cache *cache, size_t layer, size_t head, size_t tile);
const void *kv_cache_values(const struct kv_cache *cache, size_t layer, size_t head, size_t tile);

#endif
