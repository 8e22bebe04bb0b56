#include "attention.h"

#include <math.h>
#include <string.h>

#include "schema.h"

enum {
    TILE = FORMAT_TILE,
    BLOCK_ROWS = 24, /* queries of one head at a time */
    BLOCK_KEYS = 512 /* values unpacked at a time */
};

/* scratch of one thread over a cache of floats: scores [BLOCK_ROWS][n_keys padded], result
 * [BLOCK_ROWS][TILE], panel */
static size_t float_scratch_floats(size_t n_keys, size_t head_dim)
{
    const size_t panel_rows = head_dim > BLOCK_KEYS ? head_dim : BLOCK_KEYS;
    return BLOCK_ROWS * (aligned(n_keys, TILE) + TILE) + panel_rows * TILE;
}

/* ... over a cache of eight bits */
struct q8_scratch {
    struct q8_rows queries; /* [BLOCK_ROWS][head_dim] */
    int32_t *products;      /* [BLOCK_ROWS][n_keys padded] */
    float *scores;          /* [n_keys padded] */
    struct q8_rows
        weights;   /* [2 x BLOCK_ROWS][n_keys padded]: attention_weights' two rows for each query */
    int32_t *sums; /* [2 x BLOCK_ROWS][TILE] */
};

/* Lays the scratch out in `arena`, or measures it. */
static void q8_layout(struct q8_scratch *s, struct arena *arena, size_t n_keys, size_t head_dim)
{
    const size_t n = BLOCK_ROWS, keys = aligned(n_keys, TILE);
    s->queries = q8_rows_layout(arena, n, head_dim);
    s->products = arena_take(arena, n * keys, sizeof(int32_t));
    s->scores = arena_take(arena, keys, sizeof(float));
    s->weights = q8_rows_layout(arena, 2 * n, keys);
    s->sums = arena_take(arena, 2 * n * TILE, sizeof(int32_t));
}

size_t attention_scratch_floats(enum tensor_type type, size_t n_keys, size_t head_dim)
{
    struct arena measuring = {0};
    struct q8_scratch scratch;
    if (type != TENSOR_Q8)
        return float_scratch_floats(n_keys, head_dim);
    q8_layout(&scratch, &measuring, n_keys, head_dim);
    return measuring.most / sizeof(float);
}

struct job {
    const struct compute *compute;
    const struct attention *attention;
    const float *q;
    size_t q_stride, n_rows;
    float *out;
    size_t out_stride;
    size_t n_blocks;
};

/* Queries of one head at a time. */
struct block {
    const struct job *job;
    size_t head, kv_head, first_row, n_rows;
    size_t n_keys; /* that any of its rows sees */
    size_t score_stride;
    /* over a cache of floats */
    float *scores, *result, *panel;
    /* over one of eight bits */
    struct q8_scratch q8;
};

static const float *queries_of(const struct block *block)
{
    const struct job *job = block->job;
    return job->q + block->first_row * job->q_stride +
           block->head * job->attention->cache->head_dim;
}

static float *output_of(const struct block *block, size_t row)
{
    const struct job *job = block->job;
    return job->out + (block->first_row + row) * job->out_stride +
           block->head * job->attention->cache->head_dim;
}

/* ---- A cache of floats ------------------------------------------------------------------ */

/* y[n_rows][TILE] = x tile, where the tile holds n_k x 32 values of the cache's type. */
static void multiply(const struct block *block, float *y, size_t y_stride, const float *x,
                     size_t x_stride, const void *tile, size_t n_k, bool accumulate)
{
    const struct kernels *kernels = block->job->compute->kernels;
    if (block->job->attention->cache->type == TENSOR_F16) {
        kernels->f16_to_f32(block->panel, tile, n_k * TILE);
        tile = block->panel;
    }
    kernels->gemm_f32(y, y_stride, x, x_stride, tile, block->n_rows, n_k, accumulate);
}

static size_t keys_seen(const struct attention *attention, size_t row)
{
    return attention->causal ? attention->first + row + 1 : attention->n_keys;
}

static void score(const struct block *block)
{
    const struct job *job = block->job;
    const struct attention *a = job->attention;
    const size_t head_dim = a->cache->head_dim;
    const float *q = queries_of(block);
    for (size_t tile = 0; tile * TILE < block->n_keys; tile++)
        multiply(block, block->scores + tile * TILE, block->score_stride, q, job->q_stride,
                 kv_cache_keys(a->cache, a->layer, block->kv_head, tile), head_dim, false);
    const float scale = 1.0f / sqrtf((float)head_dim);
    for (size_t r = 0; r < block->n_rows; r++) {
        float *row = block->scores + r * block->score_stride;
        const size_t n = keys_seen(a, block->first_row + r);
        job->compute->kernels->softmax(row, scale, n);
        memset(row + n, 0, (block->n_keys - n) * sizeof *row);
    }
}

static void mix(const struct block *block)
{
    const struct job *job = block->job;
    const struct attention *a = job->attention;
    const size_t head_dim = a->cache->head_dim, size = tensor_value_bytes(a->cache->type);
    for (size_t tile = 0; tile * TILE < head_dim; tile++) {
        const char *values = kv_cache_values(a->cache, a->layer, block->kv_head, tile);
        for (size_t k = 0; k < block->n_keys; k += BLOCK_KEYS) {
            const size_t n = block->n_keys - k < BLOCK_KEYS ? block->n_keys - k : BLOCK_KEYS;
            multiply(block, block->result, TILE, block->scores + k, block->score_stride,
                     values + k * TILE * size, n, k > 0);
        }
        const size_t left = head_dim - tile * TILE, n = left < TILE ? left : TILE;
        for (size_t r = 0; r < block->n_rows; r++)
            memcpy(output_of(block, r) + tile * TILE, block->result + r * TILE, n * sizeof(float));
    }
}

/* ---- A cache of eight bits --------------------------------------------------------------- */

static void score_q8(const struct block *block)
{
    const struct job *job = block->job;
    const struct attention *a = job->attention;
    const struct kernels *kernels = job->compute->kernels;
    const struct q8_scratch *s = &block->q8;
    const size_t head_dim = a->cache->head_dim, n_padded = aligned(block->n_keys, TILE);
    const float *key_scale = kv_cache_key_scales(a->cache, a->layer, block->kv_head);
    const float *value_scale = kv_cache_value_scales(a->cache, a->layer, block->kv_head);
    const float scale = 1.0f / sqrtf((float)head_dim);
    kernels->quantize_rows(&s->queries, queries_of(block), PRECISION_SINGLE, job->q_stride,
                           block->n_rows, head_dim);
    for (size_t tile = 0; tile * TILE < block->n_keys; tile++)
        kernels->gemm_q8(s->products + tile * TILE, block->score_stride, &s->queries, block->n_rows,
                         kv_cache_keys(a->cache, a->layer, block->kv_head, tile),
                         aligned(head_dim, KERNEL_GROUP), NULL, 0);
    for (size_t r = 0; r < block->n_rows; r++) {
        const struct q8_rows weights = q8_rows_from(&s->weights, 2 * r, n_padded);
        kernels->attention_weights(&weights, s->scores, s->products + r * block->score_stride,
                                   s->queries.scale[r] * scale, key_scale, value_scale,
                                   keys_seen(a, block->first_row + r), n_padded);
    }
}

static void mix_q8(const struct block *block)
{
    const struct job *job = block->job;
    const struct attention *a = job->attention;
    const struct kernels *kernels = job->compute->kernels;
    const struct q8_scratch *s = &block->q8;
    const size_t head_dim = a->cache->head_dim;
    for (size_t tile = 0; tile * TILE < head_dim; tile++) {
        const size_t left = head_dim - tile * TILE, n = left < TILE ? left : TILE;
        kernels->gemm_q8(s->sums, TILE, &s->weights, 2 * block->n_rows,
                         kv_cache_values(a->cache, a->layer, block->kv_head, tile),
                         aligned(block->n_keys, TILE), NULL, 0);
        kernels->attention_output(output_of(block, 0) + tile * TILE, job->out_stride, s->sums,
                                  s->weights.scale, block->n_rows, n);
    }
}

/* ---- Blocks of queries ------------------------------------------------------------------- */

static void run_block(void *argument, size_t index, int thread)
{
    const struct job *job = argument;
    const struct attention *a = job->attention;
    struct block block = {
        .job = job, .head = index / job->n_blocks, .first_row = index % job->n_blocks * BLOCK_ROWS};
    const size_t left = job->n_rows - block.first_row;
    float *scratch = compute_scratch(job->compute, thread);
    block.n_rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
    block.kv_head = block.head / (a->n_heads / a->cache->n_heads);
    block.n_keys = keys_seen(a, block.first_row + block.n_rows - 1);
    block.score_stride = aligned(a->n_keys, TILE);
    if (a->cache->type == TENSOR_Q8) {
        struct arena arena = {.block = (unsigned char *)scratch};
        q8_layout(&block.q8, &arena, a->n_keys, a->cache->head_dim);
        score_q8(&block);
        mix_q8(&block);
    } else {
        block.scores = scratch;
        block.result = block.scores + BLOCK_ROWS * block.score_stride;
        block.panel = block.result + (size_t)BLOCK_ROWS * TILE;
        score(&block);
        mix(&block);
    }
}

void attend(struct compute *compute, const struct attention *attention, const float *q,
            size_t q_stride, size_t n_rows, float *out, size_t out_stride)
{
    struct job job = {compute, attention, q,          q_stride,
                      n_rows,  out,       out_stride, (n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS};
    compute_run(compute, job.n_blocks * attention->n_heads, run_block, &job);
}
