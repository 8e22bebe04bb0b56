#include "kv_cache.h"

#include <string.h>

#include "schema.h"

enum { TILE = FORMAT_TILE };

/* Bytes of a value; inputs of tiles of q8 are padded. */
static size_t value_size(const struct kv_cache *cache)
{
    return cache->type == TENSOR_Q8 ? 1 : tensor_value_bytes(cache->type);
}

static size_t key_rows(enum tensor_type type, size_t head_dim)
{
    return type == TENSOR_Q8 ? aligned(head_dim, KERNEL_GROUP) : head_dim;
}

void kv_cache_layout(struct kv_cache *cache, struct arena *arena, enum tensor_type type,
                     size_t n_layers, size_t n_heads, size_t head_dim, size_t n_positions)
{
    *cache = (struct kv_cache){.type = type,
                               .n_layers = n_layers,
                               .n_heads = n_heads,
                               .head_dim = head_dim,
                               .capacity = tiles_of(n_positions) * TILE};
    const size_t n_lists = n_layers * n_heads, size = value_size(cache);
    cache->keys = arena_take(arena, n_lists * cache->capacity, key_rows(type, head_dim) * size);
    cache->values = arena_take(arena, n_lists * cache->capacity, tiles_of(head_dim) * TILE * size);
    if (type == TENSOR_Q8) {
        cache->key_scale = arena_take(arena, n_lists * cache->capacity, sizeof(float));
        cache->value_scale = arena_take(arena, n_lists * cache->capacity, sizeof(float));
        cache->origin = arena_take(arena, n_lists * head_dim, sizeof(float));
    }
}

static size_t list_of(const struct kv_cache *cache, size_t layer, size_t head)
{
    return layer * cache->n_heads + head;
}

const void *kv_cache_keys(const struct kv_cache *cache, size_t layer, size_t head, size_t tile)
{
    const size_t rows = key_rows(cache->type, cache->head_dim);
    const size_t at = (list_of(cache, layer, head) * (cache->capacity / TILE) + tile) * rows * TILE;
    return (const char *)cache->keys + at * value_size(cache);
}

const void *kv_cache_values(const struct kv_cache *cache, size_t layer, size_t head, size_t tile)
{
    const size_t at =
        (list_of(cache, layer, head) * tiles_of(cache->head_dim) + tile) * cache->capacity * TILE;
    return (const char *)cache->values + at * value_size(cache);
}

const float *kv_cache_key_scales(const struct kv_cache *cache, size_t layer, size_t head)
{
    return cache->key_scale + list_of(cache, layer, head) * cache->capacity;
}

const float *kv_cache_value_scales(const struct kv_cache *cache, size_t layer, size_t head)
{
    return cache->value_scale + list_of(cache, layer, head) * cache->capacity;
}

/* ---- Origin ----------------------------------------------------------------------------- */

struct origin_job {
    const struct compute *compute;
    const struct kv_cache *cache;
    size_t layer;
    const float *keys;
    size_t stride, n_rows;
};

enum {
    ORIGIN_ROWS = 128
}; /* an origin need not be exact: so many rows give a mean that is near enough */

static void average_head(void *argument, size_t head, int thread)
{
    (void)thread;
    const struct origin_job *job = argument;
    const size_t n = job->cache->head_dim;
    float *origin = job->cache->origin + list_of(job->cache, job->layer, head) * n;
    const size_t step = (job->n_rows + ORIGIN_ROWS - 1) / ORIGIN_ROWS;
    size_t n_rows = 0;
    memset(origin, 0, n * sizeof *origin);
    for (size_t row = 0; row < job->n_rows; row += step, n_rows++)
        job->compute->kernels->add(origin, job->keys + row * job->stride + head * n, n);
    for (size_t i = 0; i < n; i++)
        origin[i] /= (float)n_rows;
}

void kv_cache_set_origin(struct compute *compute, const struct kv_cache *cache, size_t layer,
                         const float *keys, size_t stride, size_t n_rows)
{
    struct origin_job job = {compute, cache, layer, keys, stride, n_rows};
    if (cache->type == TENSOR_Q8)
        compute_run(compute, cache->n_heads, average_head, &job);
}

/* ---- Appending -------------------------------------------------------------------------- */

struct append_job {
    const struct compute *compute;
    const struct kv_cache *cache;
    size_t layer, first;
    const float *keys, *values;
    size_t stride;
};

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

static void put(const struct append_job *job, size_t head, size_t position, const float *key,
                const float *value)
{
    static const float zeros[TILE];
    const struct kv_cache *cache = job->cache;
    const struct kernels *kernels = job->compute->kernels;
    void *keys = (void *)(uintptr_t)kv_cache_keys(cache, job->layer, head, position / TILE);
    for (size_t i = 0; i < cache->head_dim; i += TILE) {
        const size_t left = cache->head_dim - i, n = left < TILE ? left : TILE;
        void *values = (void *)(uintptr_t)kv_cache_values(cache, job->layer, head, i / TILE);
        store(cache, kernels, keys, i * TILE + position % TILE, TILE, key + i, n);
        store(cache, kernels, values, position * TILE, 1, value + i, n);
        store(cache, kernels, values, position * TILE + n, 1, zeros, TILE - n); /* no channels */
    }
}

/* ---- Appending in eight bits -------------------------------------------------------------- */

/* A few neighbouring positions of a head on their way into the cache. */
struct q8_scratch {
    float *keys;         /* [QUAD][head_dim], less their origin */
    struct q8_rows rows; /* [QUAD][head_dim] of keys or values */
};

enum { QUAD = KERNEL_QUAD };

static void q8_layout(struct q8_scratch *s, struct arena *arena, size_t head_dim)
{
    s->keys = arena_take(arena, QUAD * head_dim, sizeof(float));
    s->rows = q8_rows_layout(arena, QUAD, head_dim);
}

size_t kv_cache_scratch_floats(size_t head_dim)
{
    struct arena measuring = {0};
    struct q8_scratch scratch;
    q8_layout(&scratch, &measuring, head_dim);
    return measuring.most / sizeof(float);
}

/* Four signed bytes as they are stored: plus 128. */
static inline uint32_t stored(uint32_t bytes)
{
    return bytes ^ 0x80808080u;
}

/* n keys (at most a quad) to positions `position` ... of one head: a position is a column of its tile. */
static void put_keys(const struct append_job *job, const struct q8_scratch *s, size_t head,
                     size_t position, size_t n)
{
    const struct kv_cache *cache = job->cache;
    for (size_t r = 0; r < n; r++) {
        const size_t column = (position + r) % TILE;
        uint8_t *tile =
            (uint8_t *)(uintptr_t)kv_cache_keys(cache, job->layer, head, (position + r) / TILE);
        for (size_t k = 0; k < aligned(cache->head_dim, KERNEL_GROUP); k += QUAD) {
            uint32_t quad;
            memcpy(&quad, s->rows.values + r * s->rows.stride + k, sizeof quad);
            quad = stored(quad);
            memcpy(tile + k * TILE + column * QUAD, &quad, sizeof quad);
        }
    }
}

/* n values likewise: a position is an input of the tiles of channels, so that a whole quad of them is a line. */
static void put_values(const struct append_job *job, const struct q8_scratch *s, size_t head,
                       size_t position, size_t n)
{
    const struct kv_cache *cache = job->cache;
    for (size_t tile = 0; tile * TILE < cache->head_dim; tile++) {
        uint8_t *line = (uint8_t *)(uintptr_t)kv_cache_values(cache, job->layer, head, tile) +
                        position / QUAD * Q8_LINE;
        const uint8_t *r0 = (const uint8_t *)s->rows.values + tile * TILE,
                      *r1 = r0 + s->rows.stride;
        const uint8_t *r2 = r1 + s->rows.stride, *r3 = r2 + s->rows.stride;
        if (n == QUAD) {
            uint32_t quads[TILE];
            for (size_t c = 0; c < TILE; c++)
                quads[c] = stored(r0[c] | (uint32_t)r1[c] << 8 | (uint32_t)r2[c] << 16 |
                                  (uint32_t)r3[c] << 24);
            memcpy(line, quads, sizeof quads);
            continue;
        }
        for (size_t r = 0; r < n; r++)
            for (size_t c = 0; c < TILE; c++)
                line[c * QUAD + position % QUAD + r] = (uint8_t)stored(r0[r * s->rows.stride + c]);
    }
}

/* n rows from `row` on of one head, at most up to the next quad of positions. */
static void put_q8(const struct append_job *job, struct q8_scratch *s, size_t head, size_t row,
                   size_t n)
{
    const struct kv_cache *cache = job->cache;
    const struct kernels *kernels = job->compute->kernels;
    const size_t dim = cache->head_dim, list = list_of(cache, job->layer, head),
                 position = job->first + row;
    const size_t from = row * job->stride + head * dim, at = list * cache->capacity + position;
    const float *origin = cache->origin + list * dim;
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < dim; i++)
            s->keys[r * dim + i] = job->keys[from + r * job->stride + i] - origin[i];
    s->rows.scale = &cache->key_scale[at];
    kernels->quantize_rows(&s->rows, s->keys, PRECISION_SINGLE, dim, n, dim);
    put_keys(job, s, head, position, n);
    s->rows.scale = &cache->value_scale[at];
    kernels->quantize_rows(&s->rows, job->values + from, PRECISION_SINGLE, job->stride, n, dim);
    put_values(job, s, head, position, n);
}

static void append_q8(const struct append_job *job, size_t first, size_t n_rows, int thread)
{
    struct q8_scratch scratch;
    struct arena arena = {.block = (unsigned char *)compute_scratch(job->compute, thread)};
    q8_layout(&scratch, &arena, job->cache->head_dim);
    for (size_t head = 0; head < job->cache->n_heads; head++)
        for (size_t row = first, n; row < first + n_rows; row += n) {
            const size_t left = first + n_rows - row, to_quad = QUAD - (job->first + row) % QUAD;
            n = left < to_quad ? left : to_quad;
            put_q8(job, &scratch, head, row, n);
        }
}

static void append_rows(void *argument, size_t first, size_t n_rows, int thread)
{
    const struct append_job *job = argument;
    const struct kv_cache *cache = job->cache;
    if (cache->type == TENSOR_Q8) {
        append_q8(job, first, n_rows, thread);
        return;
    }
    for (size_t row = first; row < first + n_rows; row++)
        for (size_t head = 0; head < cache->n_heads; head++) {
            const size_t at = row * job->stride + head * cache->head_dim;
            put(job, head, job->first + row, job->keys + at, job->values + at);
        }
}

void kv_cache_append(struct compute *compute, const struct kv_cache *cache, size_t layer,
                     size_t first, const float *keys, const float *values, size_t stride,
                     size_t n_rows)
{
    struct append_job job = {compute, cache, layer, first, keys, values, stride};
    compute_rows(compute, n_rows, append_rows, &job);
}

/* ---- Copying ---------------------------------------------------------------------------- */

/* Values of a key and of a value as they are stored, padding included. */
static size_t key_width(const struct kv_cache *cache)
{
    return key_rows(cache->type, cache->head_dim);
}

static size_t value_width(const struct kv_cache *cache)
{
    return tiles_of(cache->head_dim) * TILE;
}

/* Of one position of one head. */
static size_t cell_bytes(const struct kv_cache *cache)
{
    const size_t scales = cache->type == TENSOR_Q8 ? 2 * sizeof(float) : 0;
    return (key_width(cache) + value_width(cache)) * value_size(cache) + scales;
}

size_t kv_cache_position_bytes(const struct kv_cache *cache)
{
    return cache->n_layers * cache->n_heads * cell_bytes(cache);
}

struct copy_job {
    const struct kv_cache *cache;
    size_t first, n_positions;
    char *bytes;
    bool into_cache;
};

/* n bytes between the cache and the copy, which is moved on. */
static inline void copy_bytes(bool into_cache, void *place, char **bytes, size_t n)
{
    memcpy(into_cache ? place : *bytes, into_cache ? *bytes : place, n);
    *bytes += n;
}

/* Key and value of a position of a list whose tiles begin at `keys` and `values`: in floats a key is a column of its
 * tile, a value as many lines as there are tiles; in eight bits a key is a column of quads, a value bytes of quads. */
static void copy_floats(const struct copy_job *job, char *keys, char *values, size_t position,
                        size_t size, char **bytes)
{
    const struct kv_cache *cache = job->cache;
    char *key = keys + (position / TILE * key_width(cache) * TILE + position % TILE) * size;
    for (size_t i = 0; i < key_width(cache); i++)
        copy_bytes(job->into_cache, key + i * TILE * size, bytes, size);
    for (size_t i = 0; i < value_width(cache); i += TILE)
        copy_bytes(job->into_cache, values + (i * cache->capacity + position * TILE) * size, bytes,
                   TILE * size);
}

static void copy_q8(const struct copy_job *job, char *keys, char *values, size_t position,
                    char **bytes)
{
    const struct kv_cache *cache = job->cache;
    char *key = keys + position / TILE * key_width(cache) * TILE + position % TILE * QUAD;
    for (size_t i = 0; i < key_width(cache); i += QUAD)
        copy_bytes(job->into_cache, key + i * TILE, bytes, QUAD);
    for (size_t i = 0; i < value_width(cache); i++)
        copy_bytes(job->into_cache,
                   values + i / TILE * cache->capacity * TILE + position / QUAD * Q8_LINE +
                       i % TILE * QUAD + position % QUAD,
                   bytes, 1);
}

static void copy_list(void *argument, size_t list, int thread)
{
    (void)thread;
    const struct copy_job *job = argument;
    const struct kv_cache *cache = job->cache;
    const size_t head = list % cache->n_heads, layer = list / cache->n_heads;
    char *keys = (char *)(uintptr_t)kv_cache_keys(cache, layer, head, 0),
         *values = (char *)(uintptr_t)kv_cache_values(cache, layer, head, 0),
         *bytes = job->bytes + list * job->n_positions * cell_bytes(cache);
    for (size_t at = job->first; at < job->first + job->n_positions; at++) {
        if (cache->type != TENSOR_Q8) {
            copy_floats(job, keys, values, at, value_size(cache), &bytes);
            continue;
        }
        const size_t scale = list * cache->capacity + at;
        copy_q8(job, keys, values, at, &bytes);
        copy_bytes(job->into_cache, &cache->key_scale[scale], &bytes, sizeof(float));
        copy_bytes(job->into_cache, &cache->value_scale[scale], &bytes, sizeof(float));
    }
}

void kv_cache_save(struct compute *compute, const struct kv_cache *cache, size_t first,
                   size_t n_positions, void *bytes)
{
    struct copy_job job = {cache, first, n_positions, bytes, false};
    compute_run(compute, cache->n_layers * cache->n_heads, copy_list, &job);
}

void kv_cache_load(struct compute *compute, const struct kv_cache *cache, size_t first,
                   size_t n_positions, const void *bytes)
{
    struct copy_job job = {cache, first, n_positions, (char *)(uintptr_t)bytes, true};
    compute_run(compute, cache->n_layers * cache->n_heads, copy_list, &job);
}
