#include "attention.h"

#include <math.h>
#include <string.h>

#include "schema.h"

enum {
    TILE = FORMAT_TILE,
    BLOCK_ROWS = 24, /* queries of one head at a time */
    BLOCK_KEYS = 512 /* values unpacked at a time */
};

/* scratch of one thread: scores [BLOCK_ROWS][n_keys padded], result [BLOCK_ROWS][TILE], panel */
size_t attention_scratch_floats(size_t n_keys, size_t head_dim)
{
    const size_t panel_rows = head_dim > BLOCK_KEYS ? head_dim : BLOCK_KEYS;
    return BLOCK_ROWS * (aligned(n_keys, TILE) + TILE) + panel_rows * TILE;
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

/* One head's block of queries. */
struct block {
    const struct job *job;
    size_t head, kv_head, first_row, n_rows;
    size_t n_keys; /* that any of its rows sees */
    size_t score_stride;
    float *scores, *result, *panel;
};

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
    const float *q = job->q + block->first_row * job->q_stride + block->head * head_dim;
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
            memcpy(job->out + (block->first_row + r) * job->out_stride + block->head * head_dim +
                       tile * TILE,
                   block->result + r * TILE, n * sizeof(float));
    }
}

static void run_block(void *argument, size_t index, int thread)
{
    const struct job *job = argument;
    const struct attention *a = job->attention;
    struct block block = {
        .job = job, .head = index / job->n_blocks, .first_row = index % job->n_blocks * BLOCK_ROWS};
    const size_t left = job->n_rows - block.first_row;
    block.n_rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
    block.kv_head = block.head / (a->n_heads / a->cache->n_heads);
    block.n_keys = keys_seen(a, block.first_row + block.n_rows - 1);
    block.score_stride = aligned(a->n_keys, TILE);
    block.scores = compute_scratch(job->compute, thread);
    block.result = block.scores + BLOCK_ROWS * block.score_stride;
    block.panel = block.result + (size_t)BLOCK_ROWS * TILE;
    score(&block);
    mix(&block);
}

void attend(struct compute *compute, const struct attention *attention, const float *q,
            size_t q_stride, size_t n_rows, float *out, size_t out_stride)
{
    struct job job = {compute, attention, q,          q_stride,
                      n_rows,  out,       out_stride, (n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS};
    compute_run(compute, job.n_blocks * attention->n_heads, run_block, &job);
}
