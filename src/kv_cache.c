#include "kv_cache.h"

#include "schema.h"

enum { TILE = FORMAT_TILE };

static size_t tiles(size_t n)
{
    return (n + TILE - 1) / TILE;
}

static size_t value_size(const struct kv_cache *cache)
{
    return tensor_value_bytes(cache->type);
}

void kv_cache_layout(struct kv_cache *cache, struct arena *arena, enum tensor_type type,
                     size_t n_layers, size_t n_heads, size_t head_dim, size_t n_positions)
{
    *cache =
        (struct kv_cache){type, n_layers, n_heads, head_dim, tiles(n_positions) * TILE, NULL, NULL};
    const size_t n_lists = n_layers * n_heads;
    cache->keys = arena_take(arena, n_lists * cache->capacity, head_dim * value_size(cache));
    cache->values =
        arena_take(arena, n_lists * cache->capacity, tiles(head_dim) * TILE * value_size(cache));
}

/* Where a tile of `rows` x 32 values begins. */
static size_t tile_at(const struct kv_cache *cache, size_t layer, size_t head, size_t tiles_a_head,
                      size_t tile, size_t rows)
{
    return ((layer * cache->n_heads + head) * tiles_a_head + tile) * rows * TILE;
}

const void *kv_cache_keys(const struct kv_cache *cache, size_t layer, size_t head, size_t tile)
{
    const size_t at = tile_at(cache, layer, head, cache->capacity / TILE, tile, cache->head_dim);
    return (const char *)cache->keys + at * value_size(cache);
}

const void *kv_cache_values(const struct kv_cache *cache, size_t layer, size_t head, size_t tile)
{
    const size_t at = tile_at(cache, layer, head, tiles(cache->head_dim), tile, cache->capacity);
    return (const char *)cache->values + at * value_size(cache);
}

/* Writes at most 32 values, `step` apart, from place[index] on. */
static void store(const struct kv_cache *cache, const struct kernels *kernels, void *place,
                  size_t index, size_t step, const float *values, size_t n)
{
    uint16_t halves[TILE];
    if (cache->type == TENSOR_F16)
        kernels->f32_to_f16(halves, values, n);
    for (size_t i = 0; i < n; i++)
        if (cache->type == TENSOR_F16)
            ((uint16_t *)place)[index + i * step] = halves[i];
        else
            ((float *)place)[index + i * step] = values[i];
}

void kv_cache_put(const struct kv_cache *cache, const struct kernels *kernels, size_t layer,
                  size_t head, size_t position, const float *key, const float *value)
{
    static const float zeros[TILE];
    void *keys = (void *)(uintptr_t)kv_cache_keys(cache, layer, head, position / TILE);
    for (size_t i = 0; i < cache->head_dim; i += TILE) {
        const size_t left = cache->head_dim - i, n = left < TILE ? left : TILE;
        void *values = (void *)(uintptr_t)kv_cache_values(cache, layer, head, i / TILE);
        store(cache, kernels, keys, i * TILE + position % TILE, TILE, key + i, n);
        store(cache, kernels, values, position * TILE, 1, value + i, n);
        store(cache, kernels, values, position * TILE + n, 1, zeros, TILE - n); /* no channels */
    }
}

struct append_job {
    const struct compute *compute;
    const struct kv_cache *cache;
    size_t layer, first;
    const float *keys, *values;
    size_t stride;
};

static void append_rows(void *argument, size_t first, size_t n_rows, int thread)
{
    (void)thread;
    const struct append_job *job = argument;
    const struct kv_cache *cache = job->cache;
    for (size_t row = first; row < first + n_rows; row++)
        for (size_t head = 0; head < cache->n_heads; head++) {
            const size_t at = row * job->stride + head * cache->head_dim;
            kv_cache_put(cache, job->compute->kernels, job->layer, head, job->first + row,
                         job->keys + at, job->values + at);
        }
}

void kv_cache_append(struct compute *compute, const struct kv_cache *cache, size_t layer,
                     size_t first, const float *keys, const float *values, size_t stride,
                     size_t n_rows)
{
    struct append_job job = {compute, cache, layer, first, keys, values, stride};
    compute_rows(compute, n_rows, append_rows, &job);
}
