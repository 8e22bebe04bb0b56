/* Keys and values of the positions read so far, laid out as weight tiles so that attention is two
 * matrix products:
 *
 *     keys    [layer][head][position / 32][head_dim][32]    scores = q keys: a lane is a position
 *     values  [layer][head][head_dim / 32][position][32]    out = p values: a lane is a channel
 *
 * In f32 and f16 a tile is as above; in q8 it is the lines of kernels/formats.h, each position of a head has a scale for
 * its key and one for its value, and keys are stored less their origin, the same vector for all positions of a head: it
 * adds the same to all of a query's scores, which softmax does not see. What keys have in common is most of a key, so
 * eight bits hold the rest far better (stories260K: a third of the divergence that q8 keys cause).
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
    enum tensor_type type; /* TENSOR_F32, TENSOR_F16 or TENSOR_Q8 */
    size_t n_layers, n_heads, head_dim;
    size_t capacity; /* positions, a multiple of 32 */
    void *keys, *values;
    float *key_scale, *value_scale; /* of q8: [layer][head][capacity] */
    float *origin;                  /* of q8: [layer][head][head_dim] */
};

/* Takes the cache's memory from the arena (or measures it). */
void kv_cache_layout(struct kv_cache *cache, struct arena *arena, enum tensor_type type,
                     size_t n_layers, size_t n_heads, size_t head_dim, size_t n_positions);

/* Sets the layer's key origins, where the cache has any, to the mean of these keys, or of some of them; before anything is appended. Of a
 * cache that is filled step by step they must be the first position's key, so that they do not depend on what follows. */
void kv_cache_set_origin(struct compute *compute, const struct kv_cache *cache, size_t layer,
                         const float *keys, size_t stride, size_t n_rows);

/* Stores rows [n_rows][n_heads x head_dim] of keys and values at first, first + 1, ... */
void kv_cache_append(struct compute *compute, const struct kv_cache *cache, size_t layer,
                     size_t first, const float *keys, const float *values, size_t stride,
                     size_t n_rows);

/* Bytes of a position in all layers, as kv_cache_save() gives them. */
size_t kv_cache_position_bytes(const struct kv_cache *cache);

/* Positions first ... as they are stored -> bytes[n_positions x kv_cache_position_bytes()], and back into a cache of the
 * same type and sizes whose origins are the same. */
void kv_cache_save(struct compute *compute, const struct kv_cache *cache, size_t first,
                   size_t n_positions, void *bytes);
void kv_cache_load(struct compute *compute, const struct kv_cache *cache, size_t first,
                   size_t n_positions, const void *bytes);

/* Floats of scratch that a thread needs for kv_cache_append(). */
size_t kv_cache_scratch_floats(size_t head_dim);

/* The tile of 32 positions [head_dim][32], and the tile of 32 channels [capacity][32]. */
const void *kv_cache_keys(const struct kv_cache *cache, size_t layer, size_t head, size_t tile);
const void *kv_cache_values(const struct kv_cache *cache, size_t layer, size_t head, size_t tile);

/* Scales of a head's positions. */
const float *kv_cache_key_scales(const struct kv_cache *cache, size_t layer, size_t head);
const float *kv_cache_value_scales(const struct kv_cache *cache, size_t layer, size_t head);

#endif
